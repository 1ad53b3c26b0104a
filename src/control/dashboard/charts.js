// Charts, drawn by hand in SVG. Axes begin at zero, and say their unit.

import { make, number, rate } from "./format.js";

const NS = "http://www.w3.org/2000/svg";
const LEFT = 46;
const RIGHT = 10;
const TOP = 10;
const BOTTOM = 22;
/** Samples further apart than this have nothing between them. */
const GAP_MS = 3500;

function draw(tag, attributes = {}, text = null) {
  const element = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text != null) element.textContent = text;
  return element;
}

function canvas(place, height, label) {
  const width = Math.max(place.clientWidth, 240);
  const svg = draw("svg", {
    viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": label,
  });
  return { svg, width, height };
}

/** The smallest of 1, 2, 5 times a power of ten that is at least `value`. */
function niceStep(value, whole) {
  const power = 10 ** Math.floor(Math.log10(value));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((nice) => nice >= value * 0.999);
  return whole ? Math.max(step, 1) : step;
}

/** Ticks from zero to the first one that is not below `most`. */
function ticks(most, count, whole) {
  const step = niceStep(Math.max(most, whole ? 1 : 0.5) / count, whole);
  const all = [0];
  while (all.at(-1) < most * 0.9999 || all.length < 2) all.push(all.at(-1) + step);
  return all;
}

function short(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return `${+(size / 1e6).toFixed(2)} M`;
  if (size >= 1e4) return `${+(size / 1e3).toFixed(1)} k`;
  return size >= 20 || Number.isInteger(size) ? number(size) : `${+size.toFixed(2)}`;
}

function frame(svg, { width, height, yTicks, y }) {
  for (const tick of yTicks) {
    svg.append(draw("line", {
      x1: LEFT, x2: width - RIGHT, y1: y(tick), y2: y(tick), class: tick === 0 ? "base" : "grid",
    }));
    svg.append(draw("text", { x: LEFT - 8, y: y(tick) + 4, "text-anchor": "end" }, short(tick)));
  }
  return height;
}

function timeAxis(svg, { width, height, from, to, x }) {
  const all = (to - from) / 1000;
  const steps = all > 200 ? [60, 120, 180, 300] : [10, 15, 30];
  const step = steps.find((each) => all / each <= Math.max(width / 90, 2));
  for (let back = 0; back <= all + 0.5; back += step ?? steps.at(-1)) {
    const text = back === 0 ? "now" : back % 60 === 0 ? `−${back / 60} min` : `−${back} s`;
    const at = x(to - back * 1000);
    const anchor = back === 0 ? "end" : at < LEFT + 12 ? "start" : "middle";
    svg.append(draw("text", { x: at, y: height - 4, "text-anchor": anchor }, text));
  }
}

/**
 * Lines over time. `series`: [{ name, colour, dashed, area, points: [[unix ms, value]] }].
 * `read(text)` is told what is under the pointer, and null when it leaves.
 */
export function lines(place, { series, from, to, unit, whole, label, read }) {
  const { svg, width, height } = canvas(place, 172, label);
  const most = Math.max(0, ...series.flatMap((one) => one.points.map((point) => point[1])));
  const yTicks = ticks(most, 4, whole);
  const top = yTicks.at(-1);
  const x = (at) => LEFT + (at - from) / (to - from) * (width - LEFT - RIGHT);
  const y = (value) => height - BOTTOM - value / top * (height - TOP - BOTTOM);
  frame(svg, { width, height, yTicks, y });
  timeAxis(svg, { width, height, from, to, x });
  for (const one of series) {
    let path = "";
    let area = "";
    let begun = null;
    let last = null;
    for (const [at, value] of one.points) {
      const place = `${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
      const goesOn = last != null && at - last < GAP_MS;
      if (!goesOn && begun != null) area += `L${x(last).toFixed(1)} ${y(0)}Z`;
      if (!goesOn) { begun = at; area += `M${x(at).toFixed(1)} ${y(0)}`; }
      path += `${goesOn ? "L" : "M"}${place}`;
      area += `L${place}`;
      last = at;
    }
    if (one.area && last != null) {
      area += `L${x(last).toFixed(1)} ${y(0)}Z`;
      svg.append(draw("path", { d: area, class: `area f-${one.colour}` }));
    }
    const dashed = one.dashed ? " dashed" : "";
    svg.append(draw("path", { d: path, class: `line s-${one.colour}${dashed}` }));
  }
  if (series[0].points.length === 0) empty(svg, width, height, "Nothing to draw yet");
  if (read) crosshair(svg, { series, width, height, from, to, x, unit, read });
  place.replaceChildren(svg, ...legend(series));
}

function empty(svg, width, height, text) {
  svg.append(draw("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, text));
}

function legend(series) {
  if (series.length < 2) return [];
  const list = make("ul", { class: "legend" });
  for (const one of series) {
    const key = draw("svg", { viewBox: "0 0 18 10", "aria-hidden": "true" });
    key.append(one.bar ? draw("rect", { width: 18, height: 10, class: `f-${one.colour}` })
      : draw("path", {
        d: "M0 5H18", class: `line s-${one.colour}${one.dashed ? " dashed" : ""}`,
      }));
    list.append(make("li", {}, key, one.name));
  }
  return [list];
}

function crosshair(svg, { series, width, height, from, to, x, unit, read }) {
  const cross = draw("line", {
    y1: TOP, y2: height - BOTTOM, class: "cross", visibility: "hidden",
  });
  svg.append(cross);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const where = (event.clientX - box.left) / box.width * width;
    const wanted = from + (where - LEFT) / (width - LEFT - RIGHT) * (to - from);
    const nearest = nearestOf(series[0].points, wanted);
    if (nearest == null) return;
    cross.setAttribute("x1", x(nearest));
    cross.setAttribute("x2", x(nearest));
    cross.setAttribute("visibility", "visible");
    const values = series.map((one) => {
      const point = one.points.find((each) => each[0] === nearest);
      return `${rate(point?.[1])} ${one.name}`;
    });
    read(`${Math.round((to - nearest) / 1000)} s ago: ${values.join(", ")}${unit ?? ""}`);
  });
  svg.addEventListener("pointerleave", () => {
    cross.setAttribute("visibility", "hidden");
    read(null);
  });
}

function nearestOf(points, wanted) {
  let best = null;
  for (const [at] of points) {
    if (best == null || Math.abs(at - wanted) < Math.abs(best - wanted)) best = at;
  }
  return best;
}

/** Pairs of bars over time: one up, one down. `bins`: [{ at, up, down }], each `bin` wide. */
export function updown(place, { bins, bin, from, to, up, down, label }) {
  const { svg, width, height } = canvas(place, 172, label);
  const mostUp = Math.max(0, ...bins.map((one) => one.up));
  const mostDown = Math.max(0, ...bins.map((one) => one.down));
  const step = niceStep(Math.max(mostUp + mostDown, 2) / 4, true);
  const high = Math.max(Math.ceil(mostUp / step), 1) * step;
  const low = Math.max(Math.ceil(mostDown / step), 1) * step;
  const x = (at) => LEFT + (at - from) / (to - from) * (width - LEFT - RIGHT);
  const y = (value) => TOP + (high - value) / (high + low) * (height - TOP - BOTTOM);
  const yTicks = [];
  for (let tick = -low; tick <= high; tick += step) yTicks.push(tick);
  frame(svg, { width, height, yTicks, y });
  timeAxis(svg, { width, height, from, to, x });
  for (const { at, up: came, down: gone } of bins) {
    const left = Math.max(x(at), LEFT) + 0.5;
    const wide = Math.max(Math.min(x(at + bin), width - RIGHT) - left - 1, 1);
    if (came > 0) {
      svg.append(draw("rect", {
        x: left, width: wide, y: y(came), height: y(0) - y(came), class: `f-${up.colour}`,
      }));
    }
    if (gone > 0) {
      svg.append(draw("rect", {
        x: left, width: wide, y: y(0), height: y(-gone) - y(0), class: `f-${down.colour}`,
      }));
    }
  }
  place.replaceChildren(svg, ...legend([{ ...up, bar: true }, { ...down, bar: true }]));
}

/** Bars that lie: one for each name. `rows`: [{ name, value, colour }], the longest first. */
export function lying(place, { rows, label, none, keys }) {
  const each = 24;
  const { svg, width, height } = canvas(place, Math.max(rows.length, 1) * each + 6, label);
  const names = Math.min(160, width * 0.42);
  const most = Math.max(1, ...rows.map((row) => row.value));
  rows.forEach((row, at) => {
    const y = at * each + 4;
    const wide = Math.max(row.value / most * (width - names - 100), 1);
    svg.append(draw("text", { x: 0, y: y + 13, class: "strong" }, row.name));
    svg.append(draw("rect", {
      x: names, y: y + 1, width: wide, height: 15, class: `f-${row.colour}`,
    }));
    svg.append(draw("text", { x: names + wide + 8, y: y + 13, class: "strong" }, row.text));
  });
  if (rows.length === 0) empty(svg, width, height + 8, none);
  place.replaceChildren(svg, ...legend(keys.map((key) => ({ ...key, bar: true }))));
}

/** Bars that stand: one for each bound, which stands below its end. */
export function standing(place, { bars, colour, unit, label, none }) {
  const { svg, width, height } = canvas(place, 184, label);
  const most = Math.max(0, ...bars.map((bar) => bar.value));
  const yTicks = ticks(most, 4, true);
  const bottom = BOTTOM + 16;
  const y = (value) => height - bottom - value / yTicks.at(-1) * (height - TOP - bottom);
  frame(svg, { width, height, yTicks, y });
  const wide = (width - LEFT - RIGHT) / bars.length;
  bars.forEach((bar, at) => {
    const x = LEFT + at * wide;
    if (bar.value > 0) {
      svg.append(draw("rect", {
        x: x + 1.5, width: wide - 3, y: y(bar.value), height: y(0) - y(bar.value),
        class: `f-${colour}`,
      }));
    }
    if (wide >= 34 || at % 2 === 0) {
      svg.append(draw("text", {
        x: x + wide / 2, y: height - bottom + 15, "text-anchor": "middle",
      }, bar.name));
    }
  });
  svg.append(draw("text", { x: width - RIGHT, y: height - 4, "text-anchor": "end" }, unit));
  if (most === 0) empty(svg, width, height - bottom, none);
  place.replaceChildren(svg);
}

/** When a client was heard: a stroke for each beat, and where its time is up. Pale ones are known
    to a few hundredths only. */
export function heartbeats(place, { beats, remembered, from, to, deadline, label }) {
  const { svg, width, height } = canvas(place, 84, label);
  const end = to + (to - from) / 6;
  const x = (at) => LEFT + (at - from) / (end - from) * (width - LEFT - RIGHT);
  svg.append(draw("line", { x1: LEFT, x2: width - RIGHT, y1: 56, y2: 56, class: "base" }));
  for (const at of beats.filter((beat) => beat >= from)) {
    svg.append(draw("line", { x1: x(at), x2: x(at), y1: 24, y2: 56, class: "line s-blue" }));
  }
  for (const at of remembered.filter((beat) => beat >= from)) {
    svg.append(draw("line", { x1: x(at), x2: x(at), y1: 24, y2: 56, class: "line s-blue pale" }));
  }
  svg.append(draw("line", { x1: x(to), x2: x(to), y1: 12, y2: 62, class: "cross" }));
  svg.append(draw("text", { x: x(to), y: 76, "text-anchor": "middle" }, "now"));
  svg.append(draw("text", { x: LEFT, y: 76 }, `−${Math.round((to - from) / 1000)} s`));
  if (deadline != null) {
    const at = Math.min(x(deadline), width - RIGHT);
    svg.append(draw("line", { x1: at, x2: at, y1: 18, y2: 56, class: "line s-bad dashed" }));
    const later = deadline > to ? `dead in ${rate((deadline - to) / 1000)} s` : "time is up";
    const anchor = at + 90 < width ? "start" : "end";
    svg.append(draw("text", { x: at, y: 11, "text-anchor": anchor }, later));
  }
  place.replaceChildren(svg);
}
