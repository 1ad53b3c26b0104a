// What the ledger says, in words.

import { clock, dateAndClock, number, shown, span } from "./format.js";

/** What each reason means: its class, and a sentence's end. */
const REASONS = {
  bye: ["normal", "it left on purpose"],
  drain: ["normal", "the gateway was being emptied"],
  replaced: ["normal", "a newer login of the same client id took over"],
  closed_by_peer: ["network", "its end closed the connection without a BYE"],
  reset: ["network", "the connection was reset"],
  heartbeat_timeout: ["network", "nothing came for the whole timeout"],
  tcp_timeout: ["network", "TCP gave up: what was sent stayed unanswered"],
  network_fault: ["network", "the network or the socket failed"],
  kicked: ["policy", "somebody ended the session"],
  bad_token: ["policy", "its proof of identity was not accepted"],
  busy: ["policy", "as many connections as allowed were here, or came at once"],
  slow_consumer: ["policy", "it did not read what it was sent"],
  flood: ["policy", "it sent more than it may"],
  already_connected: ["policy", "its client id was in use"],
  contested: ["policy", "too many logins fought for the client id"],
  too_many_connections: ["policy", "too many came from its address or network"],
};

/** The class of a reason: normal, network, policy, protocol or server. */
export function classOf(reason) {
  if (REASONS[reason]) return REASONS[reason][0];
  return reason === "server_error" ? "server" : "protocol";
}

export function meaning(reason) {
  return REASONS[reason]?.[1] ?? `it broke the protocol (${shown(reason)})`;
}

/** How an event is marked in a list. */
export function markOf(event) {
  if (event.event === "offline") return classOf(event.reason);
  return event.event === "online" || event.event === "resumed" ? "came" : "normal";
}

/** What is known of an event, in one line. */
export function inOneLine(event) {
  switch (event.event) {
    case "online": {
      const times = event.flaps === 1 ? "once" : `${number(event.flaps)} times`;
      const flaps = event.flaps > 0 ? `, came ${times} in the ten minutes before` : "";
      return `from ${shown(event.remote)}, every ${span(event.interval_ms)}${flaps}`;
    }
    case "resumed":
      return `from ${shown(event.remote)}, away for ${span(event.away_ms)}`;
    case "offline":
      return `${shown(event.reason)}, silent for ${span(event.silence_ms)}`;
    case "contested":
      return `${number(event.count)} logins fight for it`;
    case "rhythm":
      return `every ${span(event.interval_ms)}, dead after ${span(event.timeout_ms)}`;
    case "stalled":
      return `the loop stood still for ${span(event.gap_ms)}`;
    case "started":
      return `version ${shown(event.version)}`;
    default:
      return "";
  }
}

/** The evidence of an offline event, sentence by sentence. */
export function evidence(event) {
  const said = [`Offline since ${dateAndClock(event.at_unix_ms)}: ${meaning(event.reason)} `
    + `(${shown(event.reason)}, ${event.code}).`];
  const missed = event.beats_missed ?? 0;
  said.push(`Last heard at ${clock(event.last_beat_unix_ms)}, ${span(event.silence_ms)} before; `
    + (missed === 0 ? "no beat was overdue."
      : missed === 1 ? "one beat was due and did not come."
        : `${number(missed)} beats were due and did not come.`));
  if (event.probe === "unanswered") {
    said.push("It was asked before the verdict, and did not answer.");
  }
  if (event.partial_bytes > 0) {
    said.push(`It had begun a frame, ${number(event.partial_bytes)} bytes of it, and did not `
      + "complete it.");
  }
  if (event.stalled_ms > 0) {
    said.push(`The loop stood still for ${span(event.stalled_ms)} of that time, which was not `
      + "held against it.");
  }
  if (event.held_ms > 0) {
    said.push(`Its session was held for ${span(event.held_ms)} after its connection was lost.`);
  }
  if (event.tcp) said.push(tcp(event.tcp));
  return said;
}

function tcp(facts) {
  const unacked = facts.unacked === 0 ? "nothing that was sent to it waited for an acknowledgement"
    : `${number(facts.unacked)} segments sent to it were not acknowledged`;
  const us = facts.rtt_us;
  const trip = us < 1000 ? `${us} µs` : `${(us / 1000).toFixed(1)} ms`;
  const again = facts.retransmits === 1 ? "1 retransmit"
    : `${number(facts.retransmits)} retransmits`;
  return `TCP at the last look: data came ${span(facts.last_data_received_ms)} before, an `
    + `acknowledgement ${span(facts.last_ack_received_ms)} before; ${unacked}; `
    + `${again}; round trip ${trip}.`;
}
