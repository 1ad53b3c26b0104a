// The dashboard: which page is shown, and how the connection to the gateway is.

import { setToken, whenLoginIsNeeded } from "./api.js";
import { drawTimeline, hideClient, setUpClient, showClient } from "./client.js";
import { hideClients, setUpClients, showClients } from "./clients.js";
import { drawEvents, followEvents, onEvents, setUpEvents } from "./events.js";
import { byId, say, shown, span } from "./format.js";
import { drawOverview, setUpOverview } from "./overview.js";
import { followPast, gatewayNow, past } from "./past.js";

const VIEWS = ["login", "overview", "clients", "client"];

let view = null;
let needsLogin = false;

function route() {
  const hash = location.hash.replace(/^#\/?/, "");
  if (hash.startsWith("client/")) {
    try {
      return { name: "client", client: decodeURIComponent(hash.slice("client/".length)) };
    } catch {
      return { name: "clients" };
    }
  }
  return { name: hash === "clients" ? "clients" : "overview" };
}

function show() {
  const wanted = needsLogin ? { name: "login" } : route();
  if (view === "clients") hideClients();
  if (view === "client") hideClient();
  view = wanted.name;
  for (const name of VIEWS) byId(`view-${name}`).hidden = name !== view;
  mark("to-overview", view === "overview");
  mark("to-clients", view === "clients" || view === "client");
  document.title = view === "client" ? `${shown(wanted.client)} · heartwheel` : "heartwheel";
  if (view === "overview") { drawOverview(); drawEvents(); }
  if (view === "clients") showClients();
  if (view === "client") showClient(wanted.client);
  if (view === "login") byId("token").focus();
}

function mark(id, isHere) {
  if (isHere) byId(id).setAttribute("aria-current", "page");
  else byId(id).removeAttribute("aria-current");
}

// --- the connection ------------------------------------------------------------------------------

const links = { past: "new", events: "new" };

function onState(name) {
  return (state, why) => {
    links[name] = state;
    const states = Object.values(links);
    const lost = states.includes("lost");
    const live = states.every((each) => each === "live");
    byId("link").className = `link ${lost ? "lost" : live ? "live" : ""}`;
    say(byId("link-text"), lost ? "lost" : live ? "live" : "connecting");
    const banner = byId("banner-lost");
    banner.hidden = !lost;
    if (lost && why) {
      say(banner, `The connection to the gateway is lost (${shown(why)}). It is tried again; what `
        + "is shown is from before.");
    }
  };
}

function onReset(detail) {
  byId("banner-reset").hidden = false;
  say(byId("banner-reset"), `Some events are missing in the list below (${shown(detail)}). Who is `
    + "online is exact on the page of clients; a snapshot is at /v1/snapshot.");
}

function drawHead() {
  const { head } = past;
  if (!head) return;
  const last = past.samples.at(-1);
  say(byId("node"), shown(head.node));
  const shards = head.shards === 1 ? "1 shard" : `${head.shards} shards`;
  say(byId("facts"), `version ${head.version} · ${head.driver} · ${shards} · up `
    + span(Math.max(0, Math.floor((gatewayNow() - head.started_unix_ms) / 1000) * 1000)));
  byId("banner-drain").hidden = !last?.draining;
  byId("banner-refuse").hidden = !last || last.accepting || last.draining;
}

// --- light and dark ------------------------------------------------------------------------------

const THEMES = ["auto", "light", "dark"];

function setTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  say(byId("theme"), `Theme: ${theme}`);
  localStorage.setItem("heartwheel-theme", theme);
}

function setUpTheme() {
  const known = localStorage.getItem("heartwheel-theme");
  let at = Math.max(THEMES.indexOf(known), 0);
  setTheme(THEMES[at]);
  byId("theme").addEventListener("click", () => {
    at = (at + 1) % THEMES.length;
    setTheme(THEMES[at]);
  });
}

// --- begin ---------------------------------------------------------------------------------------

setUpTheme();
setUpOverview();
setUpEvents();
setUpClients();
setUpClient();

whenLoginIsNeeded((hadToken) => {
  needsLogin = true;
  say(byId("login-problem"), hadToken ? "That is not the token of this gateway." : "");
  show();
});
byId("login").addEventListener("submit", (event) => {
  event.preventDefault();
  needsLogin = false;
  setToken(byId("token").value.trim());
  byId("token").value = "";
  show();
});

onEvents(() => {
  if (view === "overview") drawEvents();
  if (view === "client") drawTimeline();
});
followPast({
  onChange: () => { drawHead(); if (view === "overview") drawOverview(); },
  onState: onState("past"),
});
followEvents({ onState: onState("events"), onReset });

addEventListener("hashchange", show);
addEventListener("resize", () => { if (view === "overview") drawOverview(); });
show();
