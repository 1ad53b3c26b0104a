// Asks the gateway that served this page, and follows what it tells.

const KEY = "heartwheel-token";
const PAUSE_MIN_MS = 500;
const PAUSE_MAX_MS = 5000;
/** Longer than this a feed is never silent: it says that it is alive. */
const SILENCE_MS = 40000;

let wakeLogin = null;
let onLoginNeeded = () => {};

export function whenLoginIsNeeded(callback) { onLoginNeeded = callback; }

export function setToken(token) {
  sessionStorage.setItem(KEY, token);
  if (wakeLogin) wakeLogin.resolve();
  wakeLogin = null;
}

export function hasToken() { return sessionStorage.getItem(KEY) != null; }

/** What was said instead of an answer. */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ?? problem.title ?? `status ${status}`);
    this.status = status;
  }
}

function headers(more = {}) {
  const token = sessionStorage.getItem(KEY);
  return token == null ? more : { ...more, Authorization: `Bearer ${token}` };
}

async function refusal(response) {
  let problem = {};
  try { problem = await response.json(); } catch { /* not ours */ }
  return new Refused(response.status, problem);
}

async function login() {
  if (!wakeLogin) {
    wakeLogin = {};
    wakeLogin.promise = new Promise((resolve) => { wakeLogin.resolve = resolve; });
    onLoginNeeded(hasToken());
  }
  await wakeLogin.promise;
}

async function send(path, options) {
  for (;;) {
    const given = headers(options.headers);
    const response = await fetch(path, { ...options, headers: given, cache: "no-store" });
    if (response.status !== 401) return response;
    // Whoever logged in meanwhile, elsewhere on this page, has done it for all.
    if (given.Authorization === headers().Authorization) await login();
  }
}

/** The answer as JSON. */
export async function get(path) {
  const response = await send(path, {});
  if (!response.ok) throw await refusal(response);
  return response.json();
}

export async function post(path, body) {
  const options = {
    method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" },
  };
  const response = await send(path, options);
  if (!response.ok) throw await refusal(response);
  return response.json();
}

export function clientPath(client, action = "") {
  if (client === "." || client === "..") {
    const detail = "A browser cannot ask for a client of this name; heartwheel ctl can.";
    throw new Refused(400, { detail });
  }
  return `/v1/clients/${encodeURIComponent(client)}${action}`;
}

const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

/** Reads server-sent events from a text that comes in pieces. */
export class Feed {
  #rest = "";
  #id = null;
  #kind = "";
  #data = [];

  /** Calls `take(kind, data, id)` for each event that is complete. */
  push(piece, take) {
    const lines = (this.#rest + piece).split("\n");
    this.#rest = lines.pop();
    for (const line of lines) this.#line(line, take);
  }

  #line(line, take) {
    if (line === "") {
      if (this.#data.length > 0 || this.#id != null) {
        take(this.#kind, this.#data.join("\n"), this.#id);
      }
      this.#kind = ""; this.#data = []; this.#id = null;
      return;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "id") this.#id = value;
    if (name === "event") this.#kind = value;
    if (name === "data") this.#data.push(value);
  }
}

/**
 * Follows a feed for ever, and takes it up again where it broke off.
 *
 * `start` is called before each attempt and gives the path; `onEvent(json)` gets each event;
 * `onState("live" | "lost", why)` is told how it goes; `onReset(detail)` when what follows is gone.
 */
export async function follow({ start, onEvent, onState, onReset = () => {}, resumes = true }) {
  let lastId = null;
  let pause = PAUSE_MIN_MS;
  for (;;) {
    await whileSeen();
    let why = "the connection ended";
    try {
      const path = await start(lastId);
      const given = lastId == null || !resumes ? {} : { "Last-Event-ID": lastId };
      await read(path, given, (kind, data, id) => {
        pause = PAUSE_MIN_MS;
        if (id != null) lastId = id;
        if (kind === "reset") {
          lastId = null;
          onReset(JSON.parse(data).detail);
        } else if (data !== "") {
          onEvent(JSON.parse(data));
        }
      }, () => onState("live"));
    } catch (error) {
      if (error instanceof Refused && error.status === 410) {
        lastId = null;
        onReset(error.message);
      }
      why = error instanceof Refused ? error.message : "the gateway does not answer";
    }
    if (document.hidden) continue;
    onState("lost", why);
    await sleep(pause);
    pause = Math.min(pause * 2, PAUSE_MAX_MS);
  }
}

/** A page that nobody sees keeps no place among those who follow. */
function whileSeen() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => {
    document.addEventListener("visibilitychange", function seen() {
      if (document.hidden) return;
      document.removeEventListener("visibilitychange", seen);
      resolve();
    });
  });
}

async function read(path, given, take, onOpen) {
  const abort = new AbortController();
  let timer = null;
  const hide = () => { if (document.hidden) abort.abort(); };
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => abort.abort(), SILENCE_MS);
  };
  document.addEventListener("visibilitychange", hide);
  try {
    heard();
    const response = await send(path, { headers: given, signal: abort.signal });
    if (!response.ok) throw await refusal(response);
    onOpen();
    const feed = new Feed();
    const decoder = new TextDecoder();
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      heard();
      feed.push(decoder.decode(value, { stream: true }), take);
    }
  } finally {
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", hide);
  }
}
