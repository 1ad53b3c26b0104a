#!/usr/bin/env python3
"""A client of the native protocol, written from src/manual/protocol.md alone.

Beats until it is stopped, or says BYE after --beats beats and exits with 0. Exits with 1 when the
server refuses it for good, with 2 when the server is dead or cannot be reached. What --say gives it
to say it says at every login, until the server says with ACK that somebody took it.
"""
import argparse, random, select, socket, struct, sys, time

HELLO, WELCOME, PING, PONG, DATA, ACK, GOAWAY, BYE, ERROR, BEAT = range(1, 11)
NO_REPLY, PROBE, ACK_REQ, CRITICAL = 0x01, 0x02, 0x01, 0x80
PREFACE, TRIES, BASE_S, CAP_S, GIVE_UP_S = b"\xb7HWP\x01\x01\x00\x00", 5, 1.0, 60.0, 10.0


class Leave(Exception):
    """The server wants us gone: where to go then, and after how many seconds."""


def frame(kind, payload=b"", flags=0):
    return struct.pack(">BBH", kind, flags, len(payload)) + payload


def take_frames(buffer):
    """The complete frames at the front of the buffer, which leave it."""
    while len(buffer) >= 4 and len(buffer) >= (end := 4 + int.from_bytes(buffer[2:4], "big")):
        yield buffer[0], buffer[1], bytes(buffer[4:end])
        del buffer[:end]


def leave(kind, payload):
    """Does what GOAWAY or ERROR asks for. Never returns."""
    code, rest, low, high, address = struct.unpack_from(">H", payload)[0], payload[2:], 0, 0, b""
    if kind == GOAWAY:
        low, high, count = struct.unpack_from(">IIB", rest)
        address, rest = rest[9:9 + count], rest[9 + count:]
    text = rest[1:1 + rest[0]].decode(errors="replace")
    print(f"{'goaway' if kind == GOAWAY else 'error'} code={code} window_ms={low}..{high} {text!r}")
    if code in (102, 300, 301) or (code // 100 == 4 and code not in (404, 405)):
        sys.exit(1)  # it would only happen again
    raise Leave(address.decode(), random.uniform(low, high) / 1000 if high else None)


def session(sock, args, state):
    """From HELLO to the BYE after --beats, or to an exception that says how it ended."""
    fields = struct.pack(">IB", args.interval_ms, len(args.id.encode())) + args.id.encode()
    fields += struct.pack(">BH", 0, len(args.token)) + args.token + struct.pack(">BI", 0, 0)
    sock.sendall(PREFACE + frame(HELLO, fields))
    buffer, live, mode, asked, number, timeout = bytearray(), False, 0, None, 0, GIVE_UP_S
    next_beat = time.monotonic() + GIVE_UP_S  # before WELCOME: when to give up
    while True:
        wake = next_beat if asked is None else min(next_beat, asked + timeout)
        ready, _, _ = select.select([sock], [], [], max(0, wake - time.monotonic()))
        received = sock.recv(65536) if ready else None
        if received == b"":
            raise ConnectionError("the connection was closed")
        buffer += received or b""
        now = time.monotonic()
        for kind, flags, payload in take_frames(buffer):
            asked = None  # whatever comes shows that the server lives
            if kind in (GOAWAY, ERROR):
                leave(kind, payload)
            elif kind == WELCOME and not live:
                live, state["losses"], last_beat = True, 0, now
                mode, epoch, interval, timeout, first = struct.unpack_from(">xBxQIII", payload)
                print(f"welcome epoch={epoch} interval_ms={interval} timeout_ms={timeout}")
                interval, timeout, next_beat = interval / 1000, timeout / 1000, now + first / 1000
                if args.say is not None and not state["taken"]:
                    topic = args.topic.encode()
                    data = struct.pack(">IB", 1, len(topic)) + topic + args.say.encode()
                    sock.sendall(frame(DATA, data, ACK_REQ))
            elif not HELLO <= kind <= BEAT and not flags & CRITICAL:
                pass  # from a later version of the protocol
            elif not live or kind in (HELLO, WELCOME, BYE) or not HELLO <= kind <= BEAT:
                raise ConnectionError(f"a frame of type {kind} has no place here")
            elif kind == PONG:
                state["beats"] += 1
                print("pong")
            elif kind == PING and (flags & PROBE or not flags & NO_REPLY):
                sock.sendall(frame(PONG, payload))
                state["beats"] += mode == 1
                print("probe" if flags & PROBE else "ping")
            elif kind == DATA:
                print(f"data {payload[5 + payload[4]:]!r}")
                if flags & ACK_REQ:
                    sock.sendall(frame(ACK, payload[:4]))
            elif kind == ACK:
                state["taken"] = True
                print(f"taken up to seq={struct.unpack_from('>I', payload)[0]}")
            elif kind == BEAT:
                interval, timeout = (ms / 1000 for ms in struct.unpack_from(">II", payload))
                next_beat = last_beat + interval
            if mode == 1:  # the server asks; we do when it has not for two intervals
                next_beat = now + 2 * interval
        if live and args.beats and state["beats"] >= args.beats:
            return sock.sendall(frame(BYE, struct.pack(">H", 100)))
        if received:
            continue  # read everything first, judge then
        if (now >= next_beat and not live) or (asked is not None and now >= asked + timeout):
            print("server dead")
            sys.exit(2)
        if now >= next_beat:
            number, last_beat, asked = number + 1, now, now if asked is None else asked
            sock.sendall(frame(PING, struct.pack(">I", number & 0xFFFFFFFF)))
            next_beat = max(next_beat, now - interval / 2) + interval


parser = argparse.ArgumentParser(description=__doc__)
for name, kind in (("host", str), ("port", int), ("id", str)):
    parser.add_argument(name, type=kind)
for name in ("--interval-ms", "--beats"):
    parser.add_argument(name, type=int, default=0)
parser.add_argument("--say", metavar="TEXT")
parser.add_argument("--topic", default="")
parser.add_argument("--token-file", metavar="FILE", help="proof of the client id")
args, state, there = parser.parse_args(), {"beats": 0, "losses": 0, "taken": False}, ""
args.token = open(args.token_file, "rb").read().strip() if args.token_file else b""
sys.stdout.reconfigure(line_buffering=True)
while True:
    (host, _, port), there, wait = there.rpartition(":"), "", None
    try:
        with socket.create_connection((host or args.host, port or args.port), GIVE_UP_S) as sock:
            session(sock, args, state)
        print("bye")
        break
    except Leave as asked_to:
        there, wait = asked_to.args
    except OSError as fault:
        print(f"lost: {fault}")
    if wait is None:  # after a loss: full jitter
        wait, state["losses"] = BASE_S * 2 ** state["losses"], state["losses"] + 1
        wait = random.uniform(0, min(CAP_S, wait)) if state["losses"] < TRIES else sys.exit(2)
    time.sleep(wait)
