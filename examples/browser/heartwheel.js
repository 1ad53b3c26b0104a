// A client of the native protocol for browsers, written from src/manual/protocol.md alone.
//
//   const client = new Heartwheel("ws://127.0.0.1:7070/", "my-page");
//   client.addEventListener("online", ({ detail }) => console.log(detail.epoch));
//   client.addEventListener("push", ({ detail }) => console.log(detail.topic, detail.body));
//   client.connect();
//
// It beats, answers, comes back after a loss without a stampede, and goes on with its session where
// the server holds it. In the background its timers stop; the server's pings are then answered by the
// browser itself, which is why it stays online.

"use strict";

const [HELLO, WELCOME, PING, PONG, DATA, ACK, GOAWAY, BYE, ERROR, BEAT] =
  Array.from({ length: 10 }, (_, index) => index + 1);
const [NO_REPLY, PROBE, ACK_REQ, CRITICAL] = [0x01, 0x02, 0x01, 0x80];
const PREFACE = [0xb7, 0x48, 0x57, 0x50, 1, 1, 0, 0];
const [BASE_MS, CAP_MS, PATIENCE_MS] = [1_000, 60_000, 10_000];
const NOBODY = new Uint8Array(0);

// Takes numbers and texts from the front of a payload.
class Cursor {
  constructor(bytes) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.at = 0;
  }
  take(count) {
    const { buffer, byteOffset } = this.view;
    this.at += count;
    return new Uint8Array(buffer, byteOffset + this.at - count, count);
  }
  rest() { return this.take(this.view.byteLength - this.at); }
  u8() { this.at += 1; return this.view.getUint8(this.at - 1); }
  u16() { this.at += 2; return this.view.getUint16(this.at - 2); }
  u32() { this.at += 4; return this.view.getUint32(this.at - 4); }
  u64() { this.at += 8; return Number(this.view.getBigUint64(this.at - 8)); }
  text() { return new TextDecoder().decode(this.take(this.u8())); }
}

function u32(number) {
  return [number >>> 24, (number >>> 16) & 0xff, (number >>> 8) & 0xff, number & 0xff];
}

function short(bytes) {
  return [bytes.length, ...bytes];
}

function frame(kind, payload = [], flags = 0) {
  return [kind, flags, payload.length >> 8, payload.length & 0xff, ...payload];
}

// Whether a client may come back by itself after this code.
function mayReturn(code) {
  return ![102, 300, 301].includes(code) && (Math.floor(code / 100) !== 4 || [404, 405].includes(code));
}

// Whether the session may go on after this code; 0: none was said.
function keepsSession(code) {
  return [0, 101, 103, 303].includes(code) || [2, 5].includes(Math.floor(code / 100));
}

class Heartwheel extends EventTarget {
  constructor(url, clientId, { token = "", mayBeat = true } = {}) {
    super();
    Object.assign(this, { url, clientId, token, mayBeat });
    this.resume = NOBODY;
    this.lastSeq = 0;
    this.sent = 0;
    this.attempts = 0;
    this.timers = {};
  }

  connect() {
    this.leaving = false;
    this.word = null;
    this.received = NOBODY;
    const socket = new WebSocket(this.url, "heartwheel.v1");
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.#send([...PREFACE, ...this.#hello()]);
    socket.onmessage = ({ data }) => socket === this.socket && this.#onBytes(new Uint8Array(data));
    socket.onclose = ({ code }) => socket === this.socket && this.#onClosed(code);
    this.#arm("welcome", PATIENCE_MS, () => socket.close());
  }

  // Leaves for good: the session ends at once.
  leave() {
    this.leaving = true;
    clearTimeout(this.timers.comeBack);
    if (this.socket?.readyState === WebSocket.OPEN) {
      this.#send(frame(BYE, [0, 100]));
      // The same that the server says, whoever of the two is first.
      this.socket.close(1000);
    }
  }

  // Says something to the server's backends.
  say(topic, body) {
    this.sent += 1;
    const encoder = new TextEncoder();
    const payload = [...u32(this.sent), ...short(encoder.encode(topic)), ...encoder.encode(body)];
    this.#send(frame(DATA, payload, ACK_REQ));
  }

  #hello() {
    const encoder = new TextEncoder();
    const token = encoder.encode(this.token);
    return frame(HELLO, [
      ...u32(0), ...short(encoder.encode(this.clientId)), ...short([]),
      token.length >> 8, token.length & 0xff, ...token, ...short(this.resume), ...u32(this.lastSeq),
    ]);
  }

  #send(bytes) {
    if (this.socket.readyState === WebSocket.OPEN) {
      this.socket.send(new Uint8Array(bytes));
    }
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #arm(name, after, what) {
    clearTimeout(this.timers[name]);
    this.timers[name] = setTimeout(what, after);
  }

  // A message holds one whole frame, but nobody has to rely on it.
  #onBytes(bytes) {
    const buffer = new Uint8Array(this.received.length + bytes.length);
    buffer.set(this.received);
    buffer.set(bytes, this.received.length);
    let at = 0;
    // Whatever comes shows that the server lives.
    clearTimeout(this.timers.server);
    delete this.timers.server;
    while (buffer.length - at >= 4) {
      const end = at + 4 + buffer[at + 2] * 256 + buffer[at + 3];
      if (buffer.length < end) {
        break;
      }
      this.#onFrame(buffer[at], buffer[at + 1], buffer.subarray(at + 4, end));
      at = end;
    }
    this.received = buffer.slice(at);
  }

  #onFrame(kind, flags, payload) {
    const cursor = new Cursor(payload);
    switch (kind) {
      case WELCOME: return this.#onWelcome(cursor);
      case PING:
        return flags & NO_REPLY && !(flags & PROBE) ? undefined : this.#send(frame(PONG, payload));
      case PONG: return this.#tell("pong", { roundTripMs: performance.now() - this.beatAt });
      case DATA: return this.#onData(cursor, flags);
      case ACK: return this.#tell("ack", { seq: cursor.u32() });
      case BEAT: return this.#follow(cursor.u32(), cursor.u32());
      case GOAWAY: {
        const [code, from, to] = [cursor.u16(), cursor.u32(), cursor.u32()];
        this.word = { code, from, to };
        return this.socket.close();
      }
      case ERROR: this.word = { code: cursor.u16(), from: 0, to: 0 }; return undefined;
      default: return flags & CRITICAL ? this.socket.close() : undefined;
    }
  }

  #onWelcome(cursor) {
    clearTimeout(this.timers.welcome);
    const [, mode, resumed] = [cursor.u8(), cursor.u8(), cursor.u8()];
    const [epoch, interval, timeout, firstBeat] =
      [cursor.u64(), cursor.u32(), cursor.u32(), cursor.u32()];
    cursor.take(2 + 8); // the longest payload, and the server's clock
    this.resume = cursor.take(cursor.u8()).slice();
    if (!resumed) {
      [this.lastSeq, this.sent] = [0, 0];
    }
    this.attempts = 0;
    Object.assign(this, { interval, timeout });
    this.#arm("beat", firstBeat, () => this.#beat());
    this.#tell("online", { epoch, mode, resumed: resumed === 1, interval, timeout });
  }

  #beat() {
    if (!this.mayBeat) {
      return; // the browser answers the server's pings
    }
    this.beatAt = performance.now();
    this.#send(frame(PING));
    this.#arm("beat", this.interval, () => this.#beat());
    if (this.timers.server === undefined) {
      this.timers.server = setTimeout(() => this.#lost(), this.timeout);
    }
  }

  #follow(interval, timeout) {
    Object.assign(this, { interval, timeout });
    this.#arm("beat", interval, () => this.#beat());
    this.#tell("rhythm", { interval, timeout });
  }

  #onData(cursor, flags) {
    const [seq, topic, body] = [cursor.u32(), cursor.text(), cursor.rest()];
    const isNew = seq > this.lastSeq;
    this.lastSeq = Math.max(seq, this.lastSeq);
    if (flags & ACK_REQ) {
      this.#send(frame(ACK, u32(this.lastSeq)));
    }
    if (isNew) {
      this.#tell("push", { seq, topic, body: new TextDecoder().decode(body) });
    }
  }

  // The server is silent: a close handshake would wait for it.
  #lost() {
    this.socket.close();
    this.#onClosed(1006);
  }

  #onClosed(closeCode) {
    for (const timer of Object.values(this.timers)) {
      clearTimeout(timer);
    }
    this.timers = {};
    this.socket = null;
    // What ERROR said the close code says again, 4,000 higher.
    const code = this.word?.code ?? (closeCode >= 4_000 ? closeCode - 4_000 : 0);
    const comesBack = !this.leaving && (code === 0 || mayReturn(code));
    if (!keepsSession(code)) {
      this.resume = NOBODY;
    }
    const { from, to } = this.word ?? { from: 0, to: 0 };
    const spread = Math.min(CAP_MS, BASE_MS * 2 ** this.attempts);
    const after = to > 0 ? from + Math.random() * (to - from) : Math.random() * spread;
    this.#tell("offline", { code, closeCode, comesBack, after });
    if (comesBack) {
      this.attempts += 1;
      this.#arm("comeBack", after, () => this.connect());
    }
  }
}
