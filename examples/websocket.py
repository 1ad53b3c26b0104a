#!/usr/bin/env python3
"""A client that speaks the native protocol by WebSocket (RFC 6455), with the standard library alone.

Comes online, beats, prints what it is pushed, and says BYE after --beats beats. Exits with 1 when it
is refused. With --silent it sends no beat of its own and only answers the server's pings, as a page
in the background does.
"""
import argparse, base64, hashlib, os, socket, ssl, struct, sys, time

HELLO, WELCOME, PING, PONG, DATA, ACK, GOAWAY, BYE, ERROR = 1, 2, 3, 4, 5, 6, 7, 8, 9
PREFACE = b"\xb7HWP\x01\x01\x00\x00"
BINARY, CLOSE, WS_PING, WS_PONG = 2, 8, 9, 10
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def native(kind, payload=b"", flags=0):
    return struct.pack(">BBH", kind, flags, len(payload)) + payload


class WebSocket:
    def __init__(self, host, port, path, ca=None):
        self.socket = socket.create_connection((host, port), timeout=20)
        if ca is not None:
            context = ssl.create_default_context(cafile=ca)
            context.set_alpn_protocols(["http/1.1"])
            self.socket = context.wrap_socket(self.socket, server_hostname=host)
        key = base64.b64encode(os.urandom(16))
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Protocol: heartwheel.v1\r\n"
            f"Sec-WebSocket-Key: {key.decode()}\r\n\r\n".encode())
        self.buffer = b""
        while b"\r\n\r\n" not in self.buffer:
            self.more()
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        status, *headers = head.decode().split("\r\n")
        if " 101 " not in status:
            sys.exit(f"refused: {status}: {self.buffer.decode().strip()}")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in headers)}
        expected = base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()
        assert headers["sec-websocket-accept"] == expected, headers
        assert headers["sec-websocket-protocol"] == "heartwheel.v1", headers

    def more(self):
        got = self.socket.recv(4096)
        if not got:
            sys.exit("the server closed")
        self.buffer += got

    def take(self, count):
        while len(self.buffer) < count:
            self.more()
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def send(self, opcode, payload):
        length = bytes([0x80 | len(payload)]) if len(payload) < 126 else \
            struct.pack(">BH", 0x80 | 126, len(payload))
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
        self.socket.sendall(bytes([0x80 | opcode]) + length + mask + masked)

    def receive(self, patience):
        """The next message of bytes, or None when none came within `patience` seconds."""
        deadline = time.monotonic() + patience
        while True:
            if not self.buffer:
                self.socket.settimeout(max(deadline - time.monotonic(), 0.001))
                try:
                    self.more()
                except TimeoutError:
                    return None
                finally:
                    self.socket.settimeout(20)
            first, second = self.take(2)
            length = second & 0x7F
            if length == 126:
                length = struct.unpack(">H", self.take(2))[0]
            elif length == 127:
                length = struct.unpack(">Q", self.take(8))[0]
            payload = self.take(length)
            if first & 0x0F == WS_PING:
                self.send(WS_PONG, payload)
                print("pinged", flush=True)
            elif first & 0x0F == CLOSE:
                code = struct.unpack_from(">H", payload)[0] if payload else 1005
                print(f"closed code={code} {payload[2:].decode()!r}", flush=True)
                if code != 1000:
                    sys.exit(1)
                return b""
            elif first & 0x0F == BINARY:
                return payload


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("client")
    parser.add_argument("--path", default="/")
    parser.add_argument("--beats", type=int, default=3, help="or pings answered, with --silent")
    parser.add_argument("--ca", metavar="FILE", help="speak TLS, and believe this authority")
    parser.add_argument("--silent", action="store_true")
    options = parser.parse_args()
    ws = WebSocket(options.host, options.port, options.path, options.ca)
    client = options.client.encode()
    hello = struct.pack(">IB", 0, len(client)) + client + bytes(1 + 2 + 1 + 4)
    ws.send(BINARY, PREFACE + native(HELLO, hello))
    welcome = ws.receive(10)
    assert welcome and welcome[0] == WELCOME, welcome
    mode, epoch = welcome[5], struct.unpack_from(">Q", welcome, 7)[0]
    interval, timeout, first = struct.unpack_from(">III", welcome, 15)
    print(f"online epoch={epoch} mode={mode} interval_ms={interval} timeout_ms={timeout}", flush=True)
    next_beat, left = time.monotonic() + first / 1000, options.beats
    end = time.monotonic() + interval / 1000 * (options.beats + 1.5)
    while left > 0 and not (options.silent and time.monotonic() > end):
        due = end if options.silent else next_beat
        message = ws.receive(max(due - time.monotonic(), 0))
        if message == b"":
            return
        if message is None and not options.silent:
            ws.send(BINARY, native(PING))
            next_beat, left = next_beat + interval / 1000, left - 1
        elif message and message[0] == PONG:
            print("answered", flush=True)
        elif message and message[0] == DATA:
            seq, count = struct.unpack_from(">IB", message, 4)
            print(f"push {message[9:9 + count].decode()} {message[9 + count:].decode()}", flush=True)
            ws.send(BINARY, native(ACK, struct.pack(">I", seq)))
    ws.send(BINARY, native(BYE, struct.pack(">H", 100)))
    while ws.receive(10) != b"":
        pass


if __name__ == "__main__":
    main()
