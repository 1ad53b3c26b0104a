#!/usr/bin/env python3
"""A gateway under everything at once, for minutes: does it leak, and does its ledger stay true?

    cargo build --release
    benches/soak.py                                    # 10,000 clients, 5 minutes
    benches/soak.py --clients 500 --minutes 0.5        # small
    benches/soak.py --shards 2 --driver epoll --seed 7

One `heartwheel serve` with a journal, a webhook and three followers; fleets of `heartwheel load`
whose clients leave, reset, fall silent, flap, dawdle and do not read; a few clients of this script
that talk and keep what they hear. Meanwhile the script pushes to one, to many, to groups and to
all, kicks, changes rhythms, cuts the followers and restarts the webhook's target, all at random and
by the seed. At the end everybody's word is held against everybody else's. There is one line for
whatever does not fit, and then the exit code is 1.
"""

import argparse
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

import million
import soak_checks
import soak_feeds
import soak_orders

# Of the clients, in percent; the rest of each fleet is steady.
MIXED, SLOW = 75, 1
MIXED_PARTS = {"silent": 8, "reset": 6, "leave": 6, "flap": 25, "late": 10, "no-reply": 5}
PLAIN_PARTS = {"late": 10}
KEY = "a-key-for-the-length-of-a-soak"


def options():
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("--clients", type=int, default=10_000)
    words.add_argument("--minutes", type=float, default=5)
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--shards", type=int, default=1)
    words.add_argument("--driver", default="auto", help="of the gateway, as for serve")
    words.add_argument("--interval", type=float, default=0, help="between beats (default: by time)")
    words.add_argument("--timeout", type=float, default=0, help="default: twice that and 2 s")
    words.add_argument("--connect-rate", type=int, default=0, help="default: all within 10 s")
    words.add_argument("--serve", default="", help="further words for `heartwheel serve`")
    words.add_argument("--program", default=str(million.FOLDER / "target/release/heartwheel"))
    words.add_argument("--json", help="file for the figures")
    said = words.parse_args()
    said.run_s = said.minutes * 60
    if said.clients < 100 or said.run_s < 20:
        sys.exit("a soak has at least 100 clients and a third of a minute")
    said.interval = said.interval or max(1, min(5, said.run_s / 30))
    said.timeout = said.timeout or 2 * said.interval + 2
    said.connect_rate = said.connect_rate or max(100, said.clients // 10)
    if not pathlib.Path(said.program).exists():
        sys.exit(f"{said.program} is not there; build it: cargo build --release")
    return said


class Server:
    """The gateway's process, looked at once a second."""

    def __init__(self, said, folder, hook_port):
        self.log_path, self.journal = folder / "serve.log", folder / "journal"
        (folder / "key").write_text(KEY + "\n")
        hook = f"soak:url=http://127.0.0.1:{hook_port}/hook,secret-file={folder / 'key'}"
        hook += ",streams=events+messages,timeout=5s,retry-max=1s,from=start"
        words = [said.program, "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        words += ["--interval", f"{said.interval}s", "--timeout", f"{said.timeout}s"]
        words += ["--shards", str(said.shards), "--driver", said.driver, "--node", "soak"]
        words += ["--max-connections", str(said.clients + 1_000)]
        words += ["--journal", str(self.journal), "--journal-segment-bytes", str(4 << 20)]
        words += ["--webhook", hook, *said.serve.split()]
        self.log = open(self.log_path, "wb")
        self.child = subprocess.Popen(words, stderr=self.log, preexec_fn=million.pinned(0))
        self.address = self.told("listening on ")
        self.admin = self.told("admin API on ")
        self.samples = []

    def told(self, words):
        """The address that the log names behind these words."""
        for _ in range(300):
            text = self.log_path.read_text(errors="replace")
            if words in text:
                host, port = re.search(r"([\d.]+):(\d+)", text.split(words)[1]).groups()
                return host, int(port)
            if self.child.poll() is not None:
                break
            time.sleep(0.1)
        self.kill()
        sys.exit(f"the gateway did not start:\n{self.log_path.read_text(errors='replace')}")

    def look(self):
        """Memory and descriptors now."""
        proc = pathlib.Path(f"/proc/{self.child.pid}")
        fields = (proc / "stat").read_text().rsplit(")", 1)[1].split()
        rss = next(line for line in (proc / "status").read_text().splitlines() if "VmRSS" in line)
        return {
            "at": time.monotonic(),
            "cpu_s": (int(fields[11]) + int(fields[12])) / million.TICKS_PER_S,
            "rss_kib": int(rss.split()[1]),
            "descriptors": len(os.listdir(proc / "fd")),
        }

    def stop(self):
        self.child.send_signal(signal.SIGTERM)
        try:
            return self.child.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()
            return "none within a minute"

    def kill(self):
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()


def fleets_of(said):
    """Name, clients, and how many play which part."""
    mixed, slow = said.clients * MIXED // 100, max(1, said.clients * SLOW // 100)
    plain = said.clients - mixed - slow
    share = lambda whole, parts: {name: whole * part // 100 for name, part in parts.items()}
    return [
        ("mixed", mixed, share(mixed, MIXED_PARTS)),
        ("plain", plain, share(plain, PLAIN_PARTS)),
        ("slow", slow, {"slow-readers": slow}),
    ]


def sail(said, server, folder):
    host, port = server.address
    fleets = []
    for name, clients, parts in fleets_of(said):
        report = folder / f"{name}.json"
        rate = max(1, said.connect_rate * clients // said.clients)
        words = [said.program, "load", "--target", f"{host}:{port}", "--clients", str(clients)]
        words += ["--interval", f"{said.interval}s", "--for", f"{said.run_s:.0f}s"]
        words += ["--connect-rate", str(rate), "--seed", str(said.seed), "--json", str(report)]
        words += ["--id-prefix", f"{name}-"]
        for part, count in parts.items():
            words += [f"--{part}", str(count)]
        log = open(folder / f"{name}.log", "wb")
        child = subprocess.Popen(words, stdout=log, stderr=log, preexec_fn=million.pinned(1))
        fleets.append({"name": name, "clients": clients, "child": child, "report": report,
                       "log": folder / f"{name}.log"})
    return fleets


class World:
    """All that lives during a soak."""

    def __init__(self, said, folder):
        self.said, self.folder, self.children = said, folder, []
        self.receiver = soak_feeds.Receiver(KEY, said.seed)
        self.server = Server(said, folder, self.receiver.port)
        ask = soak_orders.Caller(self.server.admin)
        self.boot = ask.get("/v1/snapshot")["boot"]
        admin, start = self.server.admin, f"{self.boot}:0"
        # One that is cut, and one that never is: only the first may need the journal.
        self.ledger = soak_feeds.Feed(admin, "/v1/events", start)
        self.steady = soak_feeds.Feed(admin, "/v1/events?follow=true", start)
        self.messages = soak_feeds.Feed(admin, "/v1/messages", start, keep=True)
        self.feeds = [self.ledger, self.steady, self.messages]
        for feed in self.feeds:
            feed.start()
        self.ask = ask
        time.sleep(2)
        self.before = self.server.look()
        self.sockets_before = ask.metrics()["heartwheel_driver_sockets"]

    def soak(self):
        said = self.said
        count = max(4, min(32, said.clients // 50))
        self.witnesses = soak_feeds.Witnesses(self.server.address, count, said.interval, said.seed)
        self.witnesses.start()
        self.fleets = sail(said, self.server, self.folder)
        began = time.monotonic()
        ramp_s = 1.2 * said.clients / said.connect_rate + 1
        time.sleep(ramp_s)
        plan = {name: clients for name, clients, _ in fleets_of(said)}
        names = [witness.name for witness in self.witnesses.all]
        quiet_at = began + said.run_s - 3
        self.orders = soak_orders.start(said, self.server.admin, plan, names, quiet_at)
        dice, next_trouble = random.Random(said.seed + 100), time.monotonic()
        told_at = began
        while any(fleet["child"].poll() is None for fleet in self.fleets):
            time.sleep(0.25)
            now = time.monotonic()
            if not self.server.samples or now >= self.server.samples[-1]["at"] + 1:
                self.server.samples.append(self.server.look())
            if now >= next_trouble and now < quiet_at:
                self.trouble(dice)
                next_trouble = now + dice.uniform(0.5, max(1.5, said.run_s / 100))
            if now >= told_at + 10:
                told_at = now
                self.tell(now - began)
            if self.server.child.poll() is not None:
                sys.exit(f"the gateway ended:\n{self.server.log_path.read_text()[-2000:]}")
            if now > began + 3 * said.run_s + 120:
                sys.exit("the fleets did not come to an end")
        self.ramp_s, self.began, self.run_s = ramp_s, began, time.monotonic() - began
        self.settle()

    def trouble(self, dice):
        choice = dice.random()
        if choice < 0.4:
            self.ledger.cut()
        elif choice < 0.75:
            self.messages.cut()
        else:
            pause_s = dice.uniform(0.2, 2)
            threading.Thread(target=self.receiver.restart, args=(pause_s,)).start()
            time.sleep(pause_s + 0.3)

    def tell(self, past):
        sample = self.server.samples[-1]
        print(
            f"{past:5.0f} s of {self.said.run_s:.0f} s: {sample['rss_kib'] / 1024:.1f} MiB, "
            f"{sample['descriptors']} descriptors, {sample['cpu_s']:.1f} s of processor time, "
            f"event {self.ledger.taken.last}, {self.orders.count} orders",
            flush=True,
        )

    def settle(self):
        """Lets everything that is under way come to its end, and takes the last look."""
        self.orders.join()
        self.receiver.fails = False
        everybody = self.witnesses
        everybody.talks = False
        everybody.await_all(lambda witness: witness.ended or witness.taken == witness.said, 30)
        time.sleep(1)
        everybody.end()
        soak_checks.until(30, lambda: self.ask.metrics()["heartwheel_connections"]["online"] == 0)
        time.sleep(2.5)
        self.metrics = self.ask.metrics()
        last = int(self.metrics["heartwheel_events_total"])
        hook = self.receiver.streams["events"]
        takers = [self.ledger.taken, self.steady.taken, hook]
        soak_checks.until(60, lambda: all(taker.last == last for taker in takers))
        both = self.messages.taken, self.receiver.streams["messages"]
        soak_checks.until(30, lambda: both[0].last == both[1].last)
        self.last = last
        soak_checks.until(15, lambda: self.server.look()["descriptors"]
                          <= self.before["descriptors"] + soak_checks.DESCRIPTORS_TOLERANCE)
        self.after = self.server.look()
        self.sockets_after = self.metrics["heartwheel_driver_sockets"]

    def end(self):
        for feed in self.feeds:
            feed.is_over.set()
        self.server_exit = self.server.stop()
        for feed in self.feeds:
            feed.end()
        words = [self.said.program, "events", "--journal", str(self.server.journal)]
        read = subprocess.run(words, capture_output=True, check=False)
        self.journal_error = read.stderr.decode() if read.returncode else None
        self.journal = [json.loads(line) for line in read.stdout.splitlines()]
        self.journal_segments = len(list(self.server.journal.glob("*.journal")))
        self.reports = {}
        for fleet in self.fleets:
            if fleet["child"].returncode != 0:
                sys.exit(f"fleet {fleet['name']} failed: {fleet['log'].read_text()[-500:]}")
            self.reports[fleet["name"]] = json.loads(fleet["report"].read_text())

    def clear(self):
        """Ends every process that is still there."""
        for fleet in getattr(self, "fleets", []):
            if fleet["child"].poll() is None:
                fleet["child"].kill()
                fleet["child"].wait()
        self.server.kill()
        self.receiver.stop()


def main():
    said = options()
    with tempfile.TemporaryDirectory() as folder:
        world = World(said, pathlib.Path(folder))
        try:
            world.soak()
            world.end()
        finally:
            world.clear()
        failed, found = soak_checks.verdict(world)
    for name, value in found.items():
        print(f"{name:32} {value:,.3f}" if isinstance(value, float) else f"{name:32} {value}")
    if said.json:
        pathlib.Path(said.json).write_text(json.dumps(found, indent=2) + "\n")
    for line in failed:
        print(f"FAILED: {line}")
    print("everybody tells the same, and nothing leaks" if not failed else "not as promised")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
