// The latest events: kept, searched, shown.

import { follow, get } from "./api.js";
import { byId, clientLink, clock, make, number, say, shown } from "./format.js";
import { inOneLine, markOf } from "./words.js";

const KEPT = 2000;
const ROWS = 200;
/** Events from before the page was opened. */
const BEFORE = 300;

let kept = [];
let frozen = null;
const rows = new Map();
const listeners = [];

export function onEvents(listener) { listeners.push(listener); }

/** What was heard of one client, the latest first. */
export function heardOf(client) {
  return kept.filter((event) => event.client === client).reverse();
}

export function followEvents({ onState, onReset }) {
  let pending = false;
  follow({
    start: async (lastId) => {
      if (lastId != null) return "/v1/events";
      const { boot, seq } = await get("/v1/stats");
      return `/v1/events?after=${boot}:${Math.max(0, seq - BEFORE)}`;
    },
    onEvent: (event) => {
      const last = kept.at(-1);
      // A feed that was begun again may tell some twice.
      if (last && last.boot === event.boot && event.seq <= last.seq) return;
      kept.push(event);
      if (kept.length > KEPT * 1.25) kept = kept.slice(-KEPT);
      if (pending) return;
      pending = true;
      // A storm of events is drawn a few times a second, not once for each.
      setTimeout(() => { pending = false; listeners.forEach((listener) => listener()); }, 200);
    },
    onReset: (detail) => onReset(detail),
    onState,
  });
}

function wanted(event, text, kind) {
  if (kind !== "" && event.event !== kind) return false;
  if (text === "") return true;
  const texts = [event.client, event.reason, event.event];
  return texts.some((each) => each != null && each.toLowerCase().includes(text));
}

function keyOf(event) { return `${event.boot}:${event.seq}:${event.event}`; }

function rowOf(event) {
  const mark = make("i", { class: `mark ${markOf(event)}`, "aria-hidden": "true" });
  const time = make("time", { datetime: new Date(event.at_unix_ms).toISOString() },
    clock(event.at_unix_ms));
  return make("tr", {},
    make("td", { class: "time" }, time),
    make("td", { class: "kind" }, mark, shown(event.event)),
    make("td", { class: "who" }, event.client == null ? "" : clientLink(event.client)),
    make("td", {}, inOneLine(event)));
}

/** Draws the list; rows that were there stay the same elements. */
export function drawEvents() {
  const all = frozen ?? kept;
  const text = byId("search").value.trim().toLowerCase();
  const kind = byId("kind").value;
  const found = [];
  let count = 0;
  for (let at = all.length - 1; at >= 0; at -= 1) {
    if (!wanted(all[at], text, kind)) continue;
    count += 1;
    if (found.length < ROWS) found.push(all[at]);
  }
  const keys = new Set(found.map(keyOf));
  for (const key of rows.keys()) if (!keys.has(key)) rows.delete(key);
  // Those that stay are not touched: whoever has the focus keeps it.
  let next = byId("events").firstChild;
  for (const event of found) {
    const key = keyOf(event);
    if (!rows.has(key)) rows.set(key, rowOf(event));
    if (next === rows.get(key)) next = next.nextSibling;
    else byId("events").insertBefore(rows.get(key), next);
  }
  while (next) {
    const gone = next;
    next = next.nextSibling;
    gone.remove();
  }
  const most = found.length < count ? `, the latest ${found.length} shown` : "";
  say(byId("events-count"), `${number(count)} of the latest ${number(all.length)}${most}`);
  byId("events-empty").hidden = count > 0;
  say(byId("events-empty"), all.length === 0 ? "Nothing has happened yet."
    : "No event has that in its client id or reason.");
  const missed = frozen == null ? 0 : kept.length - kept.indexOf(frozen.at(-1)) - 1;
  const button = byId("pause");
  say(button, frozen == null ? "Pause" : missed > 0 ? `Go on (${number(missed)} more)` : "Go on");
}

export function setUpEvents() {
  byId("search").addEventListener("input", drawEvents);
  byId("kind").addEventListener("change", drawEvents);
  byId("pause").addEventListener("click", () => {
    frozen = frozen == null ? kept.slice() : null;
    byId("pause").setAttribute("aria-pressed", String(frozen != null));
    drawEvents();
  });
}
