// What the page shows of its client.

"use strict";

const element = (id) => document.getElementById(id);
let client = null;
let beats = 0;

function log(text) {
  const line = document.createElement("li");
  line.textContent = text;
  element("log").append(line);
}

function show(state) {
  element("state").textContent = state;
  element("state").className = state;
}

function connect() {
  client?.leave();
  client = new Heartwheel(element("url").value, element("client").value);
  client.addEventListener("online", ({ detail }) => {
    show("online");
    const { epoch, interval, timeout, resumed } = detail;
    const how = resumed ? "resumed" : "online";
    log(`${how}: session ${epoch}, a beat every ${interval} ms, dead after ${timeout} ms`);
  });
  client.addEventListener("pong", ({ detail }) => {
    beats += 1;
    element("beats").textContent = String(beats);
    element("rtt").textContent = detail.roundTripMs.toFixed(1);
  });
  client.addEventListener("push", ({ detail }) => log(`push ${detail.topic}: ${detail.body}`));
  client.addEventListener("offline", ({ detail }) => {
    show("offline");
    const { code, closeCode, comesBack, after } = detail;
    const then = comesBack ? `back in ${Math.round(after)} ms` : "for good";
    log(`offline: code ${code}, closed with ${closeCode}; ${then}`);
  });
  client.connect();
}

element("command").textContent = `heartwheel serve --websocket-origin ${location.origin}`;
element("form").addEventListener("submit", (event) => {
  event.preventDefault();
  connect();
});
element("leave").addEventListener("click", () => client?.leave());
