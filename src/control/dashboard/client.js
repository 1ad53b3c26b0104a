// One client: how it is, what happened to it, and what may be done to it.

import { clientPath, get, post } from "./api.js";
import { byId, bytes, clock, dateAndClock, make, number, say, shown, span } from "./format.js";
import { heartbeats } from "./charts.js";
import { heardOf } from "./events.js";
import { gatewayNow } from "./past.js";
import { evidence, inOneLine, markOf } from "./words.js";

const EVERY_MS = 1000;
const EVERY_OFFLINE_MS = 5000;
const BEATS_KEPT = 600;
const TIMELINE = 200;

let shownClient = null;
let known = null;
let history = null;
let beats = [];
let timer = null;

export function showClient(client) {
  hideClient();
  shownClient = client;
  known = null;
  history = null;
  beats = [];
  say(byId("client-id"), shown(client));
  say(byId("client-state"), "");
  say(byId("client-said"), "");
  drawSession();
  drawTimeline();
  poll();
}

export function hideClient() {
  clearTimeout(timer);
  shownClient = null;
}

async function poll() {
  const client = shownClient;
  clearTimeout(timer);
  let view = null;
  let problem = null;
  try {
    view = await get(clientPath(client));
  } catch (error) {
    if (error.status !== 404) {
      problem = error.status ? error.message : "the gateway does not answer";
    }
  }
  if (client !== shownClient) return;
  if (problem == null) {
    known = view;
    if (view && view.last_beat_unix_ms !== beats.at(-1)) beats.push(view.last_beat_unix_ms);
    if (beats.length > BEATS_KEPT) beats.shift();
    drawSession();
  } else {
    byId("client-none").hidden = false;
    say(byId("client-none"), problem);
  }
  timer = setTimeout(poll, known ? EVERY_MS : EVERY_OFFLINE_MS);
}

const NAMES = {
  epoch: "Epoch", class: "Class", conn: "Connection", remote: "Remote", interval_ms: "Beats every",
  timeout_ms: "Dead after", grace_ms: "Held for", since_unix_ms: "Online since",
  last_beat_unix_ms: "Last beat", silence_ms: "Silent for", outbox_bytes: "Waits to be sent",
  partial_bytes: "Of a begun frame", beats: "Beats", longest_gap_ms: "Longest gap",
  probe_after_ms: "Asked after", answer_us: "Answered in", rtt_us: "Round trip",
  data_in: "Messages from it", data_out: "Messages to it", groups: "Groups",
};

function valueOf(name, value) {
  if (value == null) return "–";
  if (name.endsWith("_unix_ms")) return dateAndClock(value);
  if (name.endsWith("_ms")) return name === "grace_ms" && value === 0 ? "not held" : span(value);
  if (name.endsWith("_us")) return `${(value / 1000).toFixed(1)} ms`;
  if (name.endsWith("_bytes")) return bytes(value);
  if (name === "epoch") return String(value);
  if (typeof value === "number") return number(value);
  if (Array.isArray(value)) return value.map(shown).join(", ") || "none";
  if (typeof value === "object") return shown(JSON.stringify(value));
  return shown(value) || "none";
}

function drawSession() {
  const state = byId("client-state");
  state.className = `state ${known ? known.state : "off"}`;
  if (known || timer != null) say(state, known ? known.state : "offline");
  byId("kick-open").disabled = !known;
  byId("client-none").hidden = known != null;
  say(byId("client-none"), "It is not online.");
  const elsewhere = ["client", "state", "gaps_ms"];
  const pairs = Object.entries(known ?? {}).filter(([name]) => !elsewhere.includes(name));
  byId("client-facts").replaceChildren(...pairs.flatMap(([name, value]) => [
    make("dt", {}, NAMES[name] ?? shown(name)), make("dd", {}, valueOf(name, value)),
  ]));
  const to = gatewayNow();
  const wide = Math.max(60000, Math.min((known?.timeout_ms ?? 30000) * 3, 600000));
  const deadline = known && known.state !== "held"
    ? known.last_beat_unix_ms + known.timeout_ms : null;
  const last = beats.at(-1);
  heartbeats(byId("chart-client"), {
    beats, remembered: remembered(), from: to - wide, to, deadline,
    label: last ? `Last heard at ${clock(last)}` : "Not heard since this page was opened",
  });
}

/** Beats from before the page was opened, as far as the gateway remembers the gaps between them. */
function remembered() {
  if (!Array.isArray(known?.gaps_ms) || beats.length === 0) return [];
  const all = [];
  let at = known.last_beat_unix_ms;
  for (const gap of known.gaps_ms.toReversed()) {
    at -= gap;
    if (at < beats[0]) all.push(at);
  }
  return all;
}

async function askHistory() {
  const client = shownClient;
  try {
    const { events } = await get(clientPath(client, `/history?limit=${TIMELINE}`));
    if (client === shownClient) history = events;
  } catch { /* what was heard from the feed is shown */ }
}

let drawing = 0;

/** Draws what happened to it: what the gateway remembers and what was heard from the feed. */
export async function drawTimeline() {
  if (shownClient == null) return;
  drawing += 1;
  const mine = drawing;
  await askHistory();
  if (mine !== drawing || shownClient == null) return;
  const byKey = new Map();
  for (const event of [...(history ?? []), ...heardOf(shownClient)]) {
    byKey.set(`${event.boot}:${event.seq}`, event);
  }
  const all = [...byKey.values()].sort((a, b) => b.at_unix_ms - a.at_unix_ms || b.seq - a.seq);
  const events = all.slice(0, TIMELINE);
  say(byId("timeline-source"), history ? "" : "among the latest events of the node");
  byId("timeline").replaceChildren(...events.map((event) => make("tr", {},
    make("td", { class: "time" }, dateAndClock(event.at_unix_ms)),
    make("td", { class: "kind" },
      make("i", { class: `mark ${markOf(event)}`, "aria-hidden": "true" }), shown(event.event)),
    make("td", {}, inOneLine(event)))));
  byId("timeline-empty").hidden = events.length > 0;
  say(byId("timeline-empty"), "Nothing was heard of it lately.");
  // It came meanwhile: no need to wait for the next look.
  if (!known && timer != null && ["online", "resumed"].includes(all[0]?.event)) poll();
  const last = all.find((event) => event.event === "offline");
  const said = last ? evidence(last) : ["It has not gone offline as far as is known here."];
  byId("evidence").replaceChildren(...said.map((sentence) => make("p", {}, sentence)));
}

export function setUpClient() {
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
  }
  byId("kick-open").addEventListener("click", () => open("kick"));
  byId("push-open").addEventListener("click", () => open("push"));
  onSubmit("kick", async (client) => {
    const body = { code: Number(byId("kick-code").value), text: byId("kick-text").value };
    if (known) body.epoch = known.epoch;
    await post(clientPath(client, "/kick"), body);
    return "Its session has ended.";
  });
  onSubmit("push", async (client) => {
    const body = { topic: byId("push-topic").value, text: byId("push-text").value };
    if (byId("push-ack").checked) body.ack = true;
    const { result, seq } = await post(clientPath(client, "/push"), body);
    return `Pushed: ${shown(result)}${seq == null ? "" : `, as its number ${number(seq)}`}.`;
  });
}

let target = null;

function open(name) {
  target = shownClient;
  say(byId(`${name}-id`), shown(target));
  say(byId(`${name}-problem`), "");
  byId(name).showModal();
}

function onSubmit(name, act) {
  byId(`${name}-form`).addEventListener("submit", async (event) => {
    event.preventDefault();
    const client = target;
    const button = byId(`${name}-form`).querySelector("button:not([type])");
    button.disabled = true;
    try {
      const said = await act(client);
      byId(name).close();
      if (client === shownClient) say(byId("client-said"), said);
      if (client === shownClient) poll();
    } catch (error) {
      const text = error.status ? error.message : "The gateway does not answer.";
      say(byId(`${name}-problem`), text);
    } finally {
      button.disabled = false;
    }
  });
}
