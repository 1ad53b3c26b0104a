// The first page: how the node is, and was.

import { byId, make, number, rate, say, span } from "./format.js";
import { lines, lying, standing, updown } from "./charts.js";
import {
  gatewayNow, lateness, past, perSecond, quantile, since, went, wentByReason,
} from "./past.js";
import { classOf } from "./words.js";

const SPOKEN_EVERY_MS = 20000;
const BINS = 60;
const COLOURS = {
  normal: "soft", network: "orange", policy: "purple", protocol: "gold", server: "bad",
};

let seconds = 300;
let spokenAt = 0;
const reading = {};

export function setUpOverview() {
  for (const button of document.querySelectorAll("[data-range]")) {
    button.addEventListener("click", () => {
      seconds = Number(button.dataset.range);
      for (const other of document.querySelectorAll("[data-range]")) {
        other.setAttribute("aria-pressed", String(other === button));
      }
      drawOverview();
    });
  }
}

export function drawOverview() {
  const last = past.samples.at(-1);
  const to = last?.at_unix_ms ?? gatewayNow();
  const from = to - seconds * 1000;
  const samples = since(from);
  drawTiles(last, samples);
  drawConnected(samples, from, to);
  drawBeats(samples, from, to);
  drawMoves(samples, from, to);
  drawReasons(samples);
  drawLateness(samples);
  speak(last);
}

function tile(id, value, text) {
  let element = byId(id);
  if (!element) {
    element = make("div", { class: "tile", id }, make("b", {}), make("span", {}));
    byId("tiles").append(element);
  }
  say(element.firstChild, value);
  say(element.lastChild, text);
}

function drawTiles(last, samples) {
  const minute = past.samples.slice(-60);
  const recent = past.samples.slice(-5);
  const sum = (value) => minute.reduce((all, sample) => all + value(sample), 0);
  tile("tile-online", number(last?.online), "clients online");
  tile("tile-held", number(last?.held), "sessions held");
  tile("tile-beats", rate(perSecond(recent, (sample) => sample.beats)), "beats a second");
  tile("tile-came", number(sum((sample) => sample.came)), "came last minute");
  tile("tile-went", number(sum(went)), "went last minute");
  const late = quantile(lateness(samples), 0.99);
  const text = late == null ? "no verdict" : late === Infinity ? "over 60 s" : `≤ ${span(late)}`;
  tile("tile-late", text, "late, 99 of 100");
}

function read(name, standard) {
  reading[name] ??= null;
  const output = byId(`read-${name}`);
  say(output, reading[name] ?? standard);
  return (text) => { reading[name] = text; say(output, text ?? standard); };
}

function drawConnected(samples, from, to) {
  const points = (value) => samples.map((sample) => [sample.at_unix_ms, value(sample)]);
  const last = samples.at(-1);
  const now = last ? `${number(last.connections)} connections, ${number(last.online)} online` : "";
  const series = [
    {
      name: "connections", colour: "green", dashed: true,
      points: points((one) => one.connections),
    },
    { name: "clients online", colour: "blue", area: true, points: points((one) => one.online) },
  ];
  if (samples.some((one) => one.held > 0)) {
    series.push({ name: "sessions held", colour: "purple", points: points((one) => one.held) });
  }
  lines(byId("chart-connected"), {
    series, from, to, whole: true, label: `Connected over time. Now: ${now}`,
    read: read("connected", now),
  });
}

function drawBeats(samples, from, to) {
  const points = samples.map((one) => [one.at_unix_ms, one.beats * 1000 / one.span_ms]);
  const mean = rate(perSecond(samples, (sample) => sample.beats));
  lines(byId("chart-beats"), {
    series: [{ name: "beats a second", colour: "blue", area: true, points }],
    from, to, whole: false, label: `Beats a second over time; on average ${mean}`,
    read: read("beats", `a second; ${mean} on average`),
  });
}

function drawMoves(samples, from, to) {
  const bin = Math.ceil(seconds / BINS) * 1000;
  const bins = new Map();
  for (const sample of samples) {
    const at = Math.floor(sample.at_unix_ms / bin) * bin;
    const sums = bins.get(at) ?? { at, up: 0, down: 0 };
    sums.up += sample.came;
    sums.down += went(sample);
    bins.set(at, sums);
  }
  const all = [...bins.values()];
  const came = all.reduce((sum, one) => sum + one.up, 0);
  const gone = all.reduce((sum, one) => sum + one.down, 0);
  const each = bin === 1000 ? "each second" : `each ${bin / 1000} s`;
  updown(byId("chart-moves"), {
    bins: all, bin, from, to, up: { name: "came", colour: "blue" },
    down: { name: "went", colour: "orange" },
    label: `Sessions that began and ended over time: ${came} came, ${gone} went`,
  });
  read("moves", `${each}; ${number(came)} came, ${number(gone)} went in all`);
}

function drawReasons(samples) {
  const counts = wentByReason(samples);
  const all = counts.reduce((sum, [, count]) => sum + count, 0);
  const rows = counts.slice(0, 8).map(([reason, value]) => ({
    name: reason, value, colour: COLOURS[classOf(reason)],
    text: `${number(value)} (${Math.round(value * 100 / all)} %)`,
  }));
  const classes = [...new Set(counts.slice(0, 8).map(([reason]) => classOf(reason)))];
  const label = counts.map(([reason, count]) => `${reason} ${count}`).join(", ");
  lying(byId("chart-reasons"), {
    rows, label: `Sessions ended, by reason: ${label || "none"}`, none: "Nobody went.",
    keys: classes.map((name) => ({ name, colour: COLOURS[name] })),
  });
}

function drawLateness(samples) {
  const bounds = past.head?.late_bounds_ms ?? [];
  const sums = lateness(samples);
  const name = (ms) => (ms == null ? "more" : ms < 1000 ? `${ms} ms` : `${ms / 1000} s`);
  const bars = sums.map((value, at) => ({
    value, name: bounds[at] != null && bounds[at] < 1000 ? String(bounds[at]) : name(bounds[at]),
  }));
  const told = sums.flatMap((value, at) => {
    const bound = bounds[at] == null ? `later than ${name(bounds.at(-1))}`
      : `at most ${name(bounds[at])}`;
    return value === 0 ? [] : [`${value} ${bound}`];
  });
  standing(byId("chart-late"), {
    bars, colour: "blue", unit: "at most so late after the deadline; ms unless said otherwise",
    none: "No verdict of death by silence.",
    label: `Verdicts by how late they came: ${told.join(", ") || "none"}`,
  });
}

/** For whoever listens instead of looking, now and then. */
function speak(last) {
  if (!last || Date.now() - spokenAt < SPOKEN_EVERY_MS) return;
  spokenAt = Date.now();
  say(byId("spoken"), `${number(last.online)} clients online, `
    + `${rate(perSecond(past.samples.slice(-5), (sample) => sample.beats))} beats a second`);
}
