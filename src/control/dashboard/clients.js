// Who is online, page by page.

import { get } from "./api.js";
import { byId, clientLink, make, number, say, shown, span } from "./format.js";

const PAGE = 100;
const FRESH_MS = 5000;

let cursor = null;
let next = null;
let prefix = "";
let asked = 0;
let timer = null;

export function setUpClients() {
  let typing = null;
  byId("prefix").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => {
      prefix = byId("prefix").value;
      cursor = null;
      load();
    }, 150);
  });
  byId("clients-first").addEventListener("click", () => { cursor = null; load(); });
  byId("clients-next").addEventListener("click", () => { cursor = next; load(); });
}

export function showClients() { load(); }

export function hideClients() { clearTimeout(timer); asked += 1; }

async function load() {
  clearTimeout(timer);
  asked += 1;
  const mine = asked;
  const query = new URLSearchParams({ limit: PAGE });
  if (prefix !== "") query.set("prefix", prefix);
  if (cursor != null) query.set("cursor", cursor);
  try {
    const page = await get(`/v1/clients?${query}`);
    if (mine !== asked) return;
    draw(page);
  } catch (error) {
    if (mine !== asked) return;
    // A cursor of another boot: begin again.
    if (error.status === 400 && cursor != null) cursor = null;
    say(byId("clients-count"), error.status ? error.message : "The gateway does not answer.");
  }
  timer = setTimeout(load, FRESH_MS);
}

function draw(page) {
  next = page.next ?? null;
  byId("clients-next").disabled = next == null;
  byId("clients-first").disabled = cursor == null;
  const focused = document.activeElement?.closest("#clients a")?.getAttribute("href");
  byId("clients").replaceChildren(...page.clients.map((client) => make("tr", {},
    make("td", { class: "who" }, clientLink(client.client)),
    make("td", {}, shown(client.state)),
    make("td", {}, shown(client.class)),
    make("td", {}, shown(client.remote)),
    make("td", { class: "num" }, span(client.interval_ms)),
    make("td", { class: "num" }, span(client.silence_ms)))));
  // The list is made anew; whoever was at a client in it still is.
  if (focused != null) {
    const links = [...byId("clients").querySelectorAll("a")];
    links.find((link) => link.getAttribute("href") === focused)?.focus();
  }
  const more = next == null ? "" : ", more on the next page";
  say(byId("clients-count"), `${number(page.clients.length)} on this page${more}`);
  byId("clients-empty").hidden = page.clients.length > 0;
  say(byId("clients-empty"), next != null ? "None on this page; look at the next one."
    : prefix === "" ? "Nobody is online." : "Nobody of that name is online.");
}
