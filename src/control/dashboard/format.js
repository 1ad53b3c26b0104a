// Numbers, times and texts as people read them, and elements that hold them.

const count = new Intl.NumberFormat("en");

export function number(value) {
  return value == null ? "–" : count.format(Math.round(value));
}

/** A rate: with a decimal where it is small. */
export function rate(value) {
  if (value == null || !Number.isFinite(value)) return "–";
  return value >= 20 || Number.isInteger(value) ? number(value) : value.toFixed(1);
}

export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let at = 0;
  while (value >= 1024 && at < units.length - 1) { value /= 1024; at += 1; }
  return `${at === 0 ? value : value.toFixed(1)} ${units[at]}`;
}

/** A length of time in milliseconds. */
export function span(ms) {
  if (ms == null) return "–";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 120) return `${Number.isInteger(seconds) ? seconds : seconds.toFixed(1)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

const two = (value) => String(value).padStart(2, "0");

/** The time of the day here, to the millisecond. */
export function clock(unixMs) {
  const at = new Date(unixMs);
  const ms = String(at.getMilliseconds()).padStart(3, "0");
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${ms}`;
}

export function dateAndClock(unixMs) {
  const at = new Date(unixMs);
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock(unixMs)}`;
}

const STEERS = /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\u00ad]/g;

/** A text as a stranger said it: whatever cannot be seen, or turns its direction, is escaped. */
export function shown(text) {
  return String(text).replace(STEERS, (letter) => `\\u{${letter.codePointAt(0).toString(16)}}`);
}

/** An element. Children are texts or elements: a text is never read as markup. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

/** A client id, with a link to its page. */
export function clientLink(client) {
  const link = make("a", { href: clientHash(client), class: "id" }, make("bdi", {}, shown(client)));
  link.title = shown(client);
  return link;
}

export function clientHash(client) {
  return `#/client/${encodeURIComponent(client)}`;
}

export function byId(id) {
  return document.getElementById(id);
}

/** Sets a text if it is another one: nothing is announced or drawn twice. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
