#!/usr/bin/env python3
"""A million connections on one machine: how many are held, who is found dead, what it costs.

    cargo build --release
    benches/million.py                                   # 1,000,000 connections, 10,000 die silently
    benches/million.py --clients 200000 --silent 2000 --connect-rate 14000    # in two minutes

One `heartwheel serve` and a few `heartwheel load` processes, all on loopback, each side on
processors of its own where there are two. At the end one table, and with --json the figures. The
exit code is 0 when every connection was made, every silent client was found and nobody else ended.

A connection costs the kernel some 5 KiB at each end: a million need about 10 GiB of free memory.
"""

import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
FOLDER = pathlib.Path(__file__).resolve().parent.parent
# What one fleet holds comfortably: its answers and beats share one thread.
CLIENTS_PER_FLEET = 200_000


def options():
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("--clients", type=int, default=1_000_000)
    words.add_argument("--silent", type=int, default=10_000, help="how many die silently")
    words.add_argument("--interval", type=float, default=30, help="between two beats, seconds")
    words.add_argument("--timeout", type=float, default=0, help="default: an interval and 5 s")
    words.add_argument("--connect-rate", type=int, default=10_000, help="all fleets, a second")
    words.add_argument("--fleets", type=int, default=0, help="processes (default: by clients)")
    words.add_argument("--serve", default="", help="further words for `heartwheel serve`")
    words.add_argument("--program", default=str(FOLDER / "target/release/heartwheel"))
    words.add_argument("--json", help="file for the figures")
    said = words.parse_args()
    said.timeout = said.timeout or said.interval + 5
    said.fleets = said.fleets or max(1, -(-said.clients // CLIENTS_PER_FLEET))
    if not pathlib.Path(said.program).exists():
        sys.exit(f"{said.program} is not there; build it: cargo build --release")
    return said


def pinned(processor):
    """For a child: where there are two processors, server and fleets have one each."""
    processors = sorted(os.sched_getaffinity(0))
    chosen = {processors[0]} if processor == 0 else set(processors[1:] or processors)
    return lambda: os.sched_setaffinity(0, chosen)


def memory_kib(*names):
    found = {}
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        name, value = line.split(":")
        found[name] = int(value.split()[0])
    return [found[name] for name in names]


class Server:
    """The gateway's process, looked at once a second."""

    def __init__(self, said, folder):
        self.log = open(folder / "serve.log", "wb")
        words = [said.program, "serve", "--listen", "127.0.0.1:0", "--admin", "off"]
        words += ["--interval", f"{said.interval}s", "--timeout", f"{said.timeout}s"]
        words += ["--max-connections", str(said.clients + 1_000)]
        words += ["--events", str(folder / "events.jsonl"), *said.serve.split()]
        self.child = subprocess.Popen(words, stderr=self.log, preexec_fn=pinned(0))
        self.address = self.wait_for_address(folder / "serve.log")
        self.samples = []
        self.ended = threading.Event()
        self.watcher = threading.Thread(target=self.watch, daemon=True)
        self.watcher.start()

    def wait_for_address(self, log):
        for _ in range(100):
            text = log.read_text(errors="replace")
            if "listening on " in text:
                return text.split("listening on ")[1].split()[0]
            if self.child.poll() is not None:
                sys.exit(f"the server did not start:\n{text}")
            time.sleep(0.1)
        sys.exit("the server did not say that it listens within ten seconds")

    def look(self):
        proc = pathlib.Path(f"/proc/{self.child.pid}")
        fields = (proc / "stat").read_text().rsplit(")", 1)[1].split()
        cpu_s = (int(fields[11]) + int(fields[12])) / TICKS_PER_S
        rss = next(line for line in (proc / "status").read_text().splitlines() if "VmRSS" in line)
        return {"at": time.monotonic(), "cpu_s": cpu_s, "rss_kib": int(rss.split()[1])}

    def watch(self):
        while not self.ended.wait(1):
            try:
                self.samples.append(self.look())
            except (OSError, StopIteration):
                return

    def stop(self):
        self.ended.set()
        self.watcher.join()
        self.child.send_signal(signal.SIGTERM)
        try:
            self.child.wait(120)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


def sail(said, address, folder):
    """Starts the fleets; each has its share of everything."""
    connect_s = said.clients / said.connect_rate
    # The kernel may take longer than asked for; then whoever dies needs its beats and its timeout.
    run_s = 1.05 * connect_s + 2 * said.interval + said.timeout + 2
    fleets = []
    for number in range(said.fleets):
        share = lambda whole: whole // said.fleets + (number < whole % said.fleets)
        report = folder / f"fleet-{number}.json"
        words = [said.program, "load", "--target", address, "--clients", str(share(said.clients))]
        words += ["--interval", f"{said.interval}s", "--for", f"{run_s:.0f}s"]
        words += ["--connect-rate", str(max(1, said.connect_rate // said.fleets))]
        words += ["--silent", str(share(said.silent)), "--json", str(report)]
        words += ["--id-prefix", f"fleet-{number}-", "--seed", str(number)]
        log = open(folder / f"fleet-{number}.log", "wb")
        child = subprocess.Popen(words, stdout=log, stderr=log, preexec_fn=pinned(1))
        fleets.append((child, report))
    return run_s, fleets


def await_fleets(fleets, server, run_s):
    begin, told = time.monotonic(), 0
    while any(child.poll() is None for child, _ in fleets):
        time.sleep(1)
        now = server.look()
        past = time.monotonic() - begin
        if past < told + 5:
            continue
        told = past
        slab_kib, = memory_kib("Slab")
        print(
            f"{past:5.0f} s of {run_s:.0f} s: server {now['rss_kib'] / 1024:.0f} MiB, "
            f"{now['cpu_s']:.1f} s of processor time; kernel slabs {slab_kib / 2**20:.1f} GiB",
            flush=True,
        )
        if past > 3 * run_s + 120:
            for child, _ in fleets:
                child.kill()
            sys.exit("the fleets did not come to an end")
    ended_well = [report for child, report in fleets if child.returncode == 0]
    return [json.loads(report.read_text()) for report in ended_well]


def steady_cpu(samples, said, run_s):
    """Share of a processor while all are connected and beat: what lies between the connecting and
    the end of the fleets."""
    begin = samples[0]["at"] + 1.2 * said.clients / said.connect_rate + 5
    settled = [s for s in samples if begin <= s["at"] <= samples[0]["at"] + run_s - 5]
    if len(settled) < 10:
        return None
    seconds = settled[-1]["at"] - settled[0]["at"]
    return (settled[-1]["cpu_s"] - settled[0]["cpu_s"]) / seconds


def figures(said, server, reports, before, run_s):
    total = lambda name: sum(report[name] for report in reports)
    rss = [sample["rss_kib"] for sample in server.samples]
    connected = total("connected")
    share = steady_cpu(server.samples, said, run_s)
    beats_per_s = connected / said.interval
    silent = total("fell_silent")
    return {
        "clients": said.clients,
        "connected": connected,
        "connect_per_s": total("connect_per_s"),
        "interval_s": said.interval,
        "timeout_s": said.timeout,
        "beats_sent": total("beats_sent"),
        "pongs_received": total("pongs_received"),
        "fell_silent": silent,
        "found": sum(report["detection_ms"]["n"] for report in reports),
        "found_early": total("detected_early"),
        "undetected": total("undetected"),
        "undecided": total("undecided"),
        "detection_ms_p50": max(report["detection_ms"]["p50"] for report in reports),
        "detection_ms_p99": max(report["detection_ms"]["p99"] for report in reports),
        "detection_ms_max": max(report["detection_ms"]["max"] for report in reports),
        "false_offline": total("false_offline"),
        "overslept": total("overslept"),
        "sent_away": total("sent_away"),
        "refused": total("refused"),
        "rtt_us_p50": max(report["rtt_us"]["p50"] for report in reports),
        "rtt_us_p99": max(report["rtt_us"]["p99"] for report in reports),
        "server_rss_mib": max(rss) / 1024,
        "server_bytes_per_connection": (max(rss) - before["rss_kib"]) * 1024 / max(1, connected),
        "kernel_slab_gib": before["slab_peak_kib"] / 2**20,
        "kernel_bytes_per_endpoint":
            (before["slab_peak_kib"] - before["slab_kib"]) * 1024 / max(1, 2 * connected),
        "server_cpu_s": server.samples[-1]["cpu_s"],
        "server_cpu_steady": share,
        "server_us_per_beat": share / beats_per_s * 1e6 if share else None,
        "server_exit": server.child.returncode,
        "machine": reports[0]["machine"],
        "version": reports[0]["version"],
    }


def is_as_promised(found):
    return (
        found["connected"] == found["clients"]
        and found["found"] == found["fell_silent"]
        and not any(found[name] for name in ("found_early", "undetected", "undecided"))
        and not any(found[name] for name in ("false_offline", "sent_away", "refused"))
        and found["server_exit"] == 0
    )


def main():
    said = options()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        server = Server(said, folder)
        try:
            slab_kib, = memory_kib("Slab")
            before = {**server.look(), "slab_kib": slab_kib, "slab_peak_kib": slab_kib}
            run_s, fleets = sail(said, server.address, folder)
            peak = threading.Thread(target=watch_slabs, args=(before, fleets), daemon=True)
            peak.start()
            reports = await_fleets(fleets, server, run_s)
        finally:
            server.stop()
        if len(reports) < said.fleets:
            logs = [(folder / f"fleet-{n}.log").read_text()[-500:] for n in range(said.fleets)]
            sys.exit("a fleet failed:\n" + "\n".join(logs))
        found = figures(said, server, reports, before, run_s)
    for name, value in found.items():
        print(f"{name:28} {value:,.3f}" if isinstance(value, float) else f"{name:28} {value}")
    if said.json:
        pathlib.Path(said.json).write_text(json.dumps(found, indent=2) + "\n")
    held = is_as_promised(found)
    print("everybody was held, and everybody who died was found" if held else "not as promised")
    sys.exit(0 if held else 1)


def watch_slabs(before, fleets):
    while any(child.poll() is None for child, _ in fleets):
        slab_kib, = memory_kib("Slab")
        before["slab_peak_kib"] = max(before["slab_peak_kib"], slab_kib)
        time.sleep(1)


if __name__ == "__main__":
    main()
