"""Those who follow a gateway in a soak: server-sent events that are cut and resumed, a target of
webhooks that is restarted and fails at times, and a few clients that say what they heard."""

import hashlib
import hmac
import http.client
import http.server
import json
import random
import selectors
import socket
import struct
import threading
import time


def fingerprint(event):
    """The same for the same event, however its JSON was written."""
    return hash(json.dumps(event, sort_keys=True))


def place(text):
    boot, number = text.split(":")
    return int(boot), int(number)


class Numbered:
    """What came, by its number, and what should not have come."""

    def __init__(self, name):
        self.name = name
        self.last = None
        self.prints = {}
        self.values = {}
        self.repeated = 0
        self.wrong = []

    def take(self, number, value, keep=False):
        """Takes the next one. One that was taken already is the same one again, or wrong."""
        seen = fingerprint(value)
        if self.last is not None and number <= self.last:
            self.repeated += 1
            if self.prints.get(number, seen) != seen:
                self.wrong.append(f"{self.name}: number {number} came twice and differs")
            return
        if self.last is not None and number != self.last + 1:
            self.wrong.append(f"{self.name}: {number} came right after {self.last}")
        self.last = number
        self.prints[number] = seen
        if keep:
            self.values[number] = value


class Feed(threading.Thread):
    """Follows a feed of server-sent events. Whoever calls `cut` breaks its connection, wherever it
    is, and it goes on behind the last id that it saw whole."""

    def __init__(self, admin, path, start=None, keep=False):
        super().__init__(daemon=True)
        self.admin, self.path, self.keep = admin, path, keep
        self.last_id, self.resumed, self.sock = start, -1, None
        self.taken = Numbered(path)
        self.is_over = threading.Event()

    def run(self):
        while not self.is_over.is_set():
            try:
                self.follow()
            except (OSError, http.client.HTTPException, ValueError, AttributeError):
                pass  # cut, by us or because the gateway ended
            time.sleep(0.05)

    def follow(self):
        host, port = self.admin
        connection = http.client.HTTPConnection(host, port, timeout=30)
        headers = {"Last-Event-ID": self.last_id} if self.last_id else {}
        try:
            connection.request("GET", self.path, headers=headers)
            answer = connection.getresponse()
            if answer.status != 200:
                self.wrong(f"{answer.status} after {self.last_id}: {answer.read(300)!r}")
                time.sleep(0.5)
                return
            self.sock, self.resumed = connection.sock or answer.fp.raw._sock, self.resumed + 1
            self.read(answer)
        finally:
            self.sock = None
            connection.close()

    def read(self, answer):
        fields = {}
        for line in iter(answer.readline, b""):
            if not line.endswith(b"\n"):
                return
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name:
                fields[name] = value
                continue
            self.take(fields)
            fields = {}

    def take(self, fields):
        if fields.get("event") == "reset":
            self.wrong(f"reset at {self.last_id}: {fields.get('data')}")
        elif "data" in fields:
            _, number = place(fields["id"])
            self.taken.take(number, json.loads(fields["data"]), self.keep)
        if "id" in fields:
            self.last_id = fields["id"]

    def wrong(self, text):
        if not self.is_over.is_set():
            self.taken.wrong.append(f"{self.path}: {text}")

    def cut(self):
        sock = self.sock
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def end(self):
        self.is_over.set()
        self.cut()
        self.join(35)


class Receiver:
    """A target of webhooks. It can be restarted, answers 500 at times, and at times takes a batch
    and answers nothing, so that the batch must come again."""

    def __init__(self, key, seed):
        self.key, self.random = key.encode(), random.Random(seed)
        self.lock = threading.Lock()
        streams = ["events", "messages"]
        self.streams = {stream: Numbered(f"webhook {stream}") for stream in streams}
        self.batches = self.refused = self.unanswered = self.restarts = 0
        self.wrong = []
        self.fails = True
        self.port = 0
        self.start()

    def start(self):
        target = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def setup(self):
                super().setup()
                target.open.add(self.connection)

            def finish(self):
                target.open.discard(self.connection)
                super().finish()

            def handle(self):
                try:
                    super().handle()
                except OSError:
                    pass  # the connection was cut by a restart

            def log_message(self, *_):
                pass

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                status = target.on_batch(self.headers, body)
                if status is None:
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, *_):
                pass

        self.open = set()
        self.server = Server(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        for connection in list(self.open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def restart(self, pause_s):
        self.restarts += 1
        self.stop()
        time.sleep(pause_s)
        self.start()

    def on_batch(self, headers, body):
        with self.lock:
            self.batches += 1
            if not self.is_signed(headers["heartwheel-signature"], body):
                self.wrong.append("webhook: a batch without a true signature")
                return 403
            dice = self.random.random() if self.fails else 1
            if dice < 0.03:
                self.refused += 1
                return 500
            batch = json.loads(body)
            taken = self.streams[batch["stream"]]
            for value in batch[batch["stream"]]:
                if value.get("event") in ("reset", "gap", "damaged"):
                    self.wrong.append(f"webhook: {value}")
                    continue
                number = value["seq" if batch["stream"] == "events" else "useq"]
                taken.take(number, value)
            if dice < 0.05:
                self.unanswered += 1
                return None
            return 200

    def is_signed(self, header, body):
        pairs = dict(pair.split("=", 1) for pair in (header or "").split(",") if "=" in pair)
        signed = hmac.new(self.key, pairs.get("t", "").encode() + b"." + body, hashlib.sha256)
        return hmac.compare_digest(signed.hexdigest(), pairs.get("v1", ""))


HELLO, WELCOME, PING, PONG, DATA, ACK, GOAWAY, BYE, ERROR, BEAT = range(1, 11)
PREFACE, NO_REPLY, ACK_REQ = b"\xb7HWP\x01\x01\x00\x00", 0x01, 0x01


def frame(kind, payload=b"", flags=0):
    return struct.pack(">BBH", kind, flags, len(payload)) + payload


class Witness:
    """A client that stays, beats, says a message now and then, and keeps what it hears."""

    def __init__(self, address, name, interval_s):
        self.name, self.interval_s = name, interval_s
        self.sock = socket.create_connection(address, 30)
        self.buffer, self.epoch, self.ended = bytearray(), None, None
        self.heard, self.repeated, self.last_heard = [], 0, 0
        self.said, self.taken, self.next_beat = 0, 0, time.monotonic() + interval_s
        name_bytes = name.encode()
        fields = struct.pack(">IB", int(interval_s * 1000), len(name_bytes)) + name_bytes
        self.sock.sendall(PREFACE + frame(HELLO, fields + struct.pack(">BHBI", 0, 0, 0, 0)))

    def text(self, number):
        return f"{self.name} says {number}"

    def say(self):
        self.said += 1
        topic = b"soak"
        head = struct.pack(">IB", self.said, len(topic)) + topic
        self.sock.sendall(frame(DATA, head + self.text(self.said).encode(), ACK_REQ))

    def beat_if_due(self, now):
        if now >= self.next_beat:
            self.sock.sendall(frame(PING, b"", NO_REPLY))
            self.next_beat = now + self.interval_s

    def read(self):
        received = self.sock.recv(1 << 16)
        if not received:
            raise ConnectionError("closed")
        self.buffer += received
        while len(self.buffer) >= 4:
            end = 4 + int.from_bytes(self.buffer[2:4], "big")
            if len(self.buffer) < end:
                return
            kind, flags, payload = self.buffer[0], self.buffer[1], bytes(self.buffer[4:end])
            del self.buffer[:end]
            self.on_frame(kind, flags, payload)

    def on_frame(self, kind, flags, payload):
        if kind == WELCOME:
            _, self.epoch = struct.unpack_from(">xBxQ", payload)
        elif kind == PING and not flags & NO_REPLY:
            self.sock.sendall(frame(PONG, payload))
        elif kind == ACK:
            self.taken = max(self.taken, struct.unpack(">I", payload)[0])
        elif kind == DATA:
            seq, = struct.unpack_from(">I", payload)
            if seq <= self.last_heard:
                self.repeated += 1
            self.last_heard = max(seq, self.last_heard)
            self.heard.append((seq, payload[5 + payload[4]:].decode()))
            if flags & ACK_REQ:
                self.sock.sendall(frame(ACK, payload[:4]))
        elif kind in (GOAWAY, ERROR):
            self.ended = f"code {struct.unpack_from('>H', payload)[0]}"


class Witnesses(threading.Thread):
    """All of them, on one thread."""

    def __init__(self, address, count, interval_s, seed):
        super().__init__(daemon=True)
        names = [f"witness-{number}" for number in range(count)]
        self.all = [Witness(address, name, interval_s) for name in names]
        self.random = random.Random(seed)
        self.talks, self.is_over = True, threading.Event()

    def run(self):
        selector = selectors.DefaultSelector()
        for witness in self.all:
            selector.register(witness.sock, selectors.EVENT_READ, witness)
        next_word = time.monotonic()
        while not self.is_over.is_set():
            for key, _ in selector.select(0.05):
                self.attempt(selector, key.data, key.data.read)
            now = time.monotonic()
            for witness in self.all:
                if witness.ended is None:
                    self.attempt(selector, witness, lambda: witness.beat_if_due(now))
            if self.talks and now >= next_word:
                witness = self.random.choice(self.all)
                if witness.epoch is not None and witness.ended is None:
                    self.attempt(selector, witness, witness.say)
                next_word = now + self.random.uniform(0, 0.1)
        for witness in self.all:
            if witness.ended is None:
                witness.sock.sendall(frame(BYE, struct.pack(">H", 100)))
            witness.sock.close()

    def attempt(self, selector, witness, act):
        try:
            act()
        except OSError as fault:
            witness.ended = witness.ended or str(fault)
            selector.unregister(witness.sock)

    def await_all(self, is_done, wait_s):
        until = time.monotonic() + wait_s
        while time.monotonic() < until and not all(is_done(witness) for witness in self.all):
            time.sleep(0.05)

    def end(self):
        self.is_over.set()
        self.join(30)
