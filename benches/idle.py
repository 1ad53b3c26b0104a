#!/usr/bin/env python3
"""What do clients cost that are connected and say nothing? Processor time against their number.

    cargo build --release
    benches/idle.py --plot idle.svg          # 1,000 to 200,000 connections, some four minutes

The server holds ever more clients whose next beat is far away. At each number its processor time
is read twice, to the nanosecond, and the share of one core between the two is what they cost. The
exit code is 0 when 100,000 silent clients (or as many as were asked for) cost less than 0.1 % of a
core, and the dearest number no more than that either.
"""

import argparse
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import million

COUNTS = [1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000]
SHARE_MAX = 0.001


def options():
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("--up-to", type=int, default=COUNTS[-1], help="most clients")
    words.add_argument("--window", type=float, default=10, help="seconds of silence measured")
    words.add_argument("--share-max", type=float, default=SHARE_MAX, help="of a core, at most")
    words.add_argument("--serve", default="", help="further words for `heartwheel serve`")
    words.add_argument("--program", default=str(million.FOLDER / "target/release/heartwheel"))
    words.add_argument("--json", help="file for the figures")
    words.add_argument("--plot", help="file for a plot (SVG)")
    said = words.parse_args()
    # The first beat comes within the hour at random. While silence is measured the fleets are
    # stopped, so that it is silence.
    said.interval, said.timeout = 3_600, 7_300
    said.clients = said.up_to
    return said


def cpu_ns(pid):
    """Processor time of a process, all its threads."""
    tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def enters(pid):
    """How often its threads went to sleep."""
    count = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        lines = (task / "status").read_text().splitlines()
        count += sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt"))
    return count


def measure(said, server, folder):
    rows, fleets = [], []
    try:
        for count in [count for count in COUNTS if count <= said.up_to]:
            more = count - sum(clients for clients, _ in fleets)
            words = [said.program, "load", "--target", server.address, "--clients", str(more)]
            words += ["--interval", f"{said.interval}s", "--for", "2h", "--connect-rate", "10000"]
            words += ["--id-prefix", f"idle-{count}-"]
            log = open(folder / f"fleet-{count}.log", "wb")
            pin = million.pinned(1)
            child = subprocess.Popen(words, stdout=log, stderr=log, preexec_fn=pin)
            fleets.append((more, child))
            # Connecting, and the deadline of the handshake: until then the wheel looks once at
            # every newcomer's block.
            time.sleep(more / 5_000 + 12)
            for _, fleet in fleets:
                fleet.send_signal(signal.SIGSTOP)
            time.sleep(0.5)
            pid, began = server.child.pid, time.monotonic()
            cpu, slept = cpu_ns(pid), enters(pid)
            time.sleep(said.window)
            used, slept = cpu_ns(pid) - cpu, enters(pid) - slept
            seconds = time.monotonic() - began
            rows.append({
                "clients": count,
                "share_of_core": used / 1e9 / seconds,
                "sleeps_per_s": slept / seconds,
                "rss_mib": server.look()["rss_kib"] / 1024,
            })
            print_row(rows[-1])
            for _, fleet in fleets:
                fleet.send_signal(signal.SIGCONT)
    finally:
        for _, child in fleets:
            child.kill()
        for _, child in fleets:
            child.wait()
    return rows


def print_row(row):
    print(
        f"{row['clients']:>8,} clients: {row['share_of_core'] * 100:.4f} % of a core, "
        f"{row['sleeps_per_s']:.1f} sleeps/s, {row['rss_mib']:.0f} MiB",
        flush=True,
    )


def plot(rows, path):
    """Share of a core against clients, both on their own scale; 600 by 320."""
    import math

    left, right, top, bottom = 70, 580, 30, 270
    low, high = (math.log10(rows[end]["clients"]) for end in (0, -1))
    x = lambda n: left + (math.log10(n) - low) / (high - low or 1) * (right - left)
    most = max(SHARE_MAX, max(row["share_of_core"] for row in rows)) * 1.1
    y = lambda share: bottom - share / most * (bottom - top)
    text = lambda at, words, anchor="middle": (
        f'<text x="{at[0]:.0f}" y="{at[1]:.0f}" text-anchor="{anchor}">{words}</text>'
    )
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 600 320" font-family="sans-serif" '
        'font-size="12"><rect width="600" height="320" fill="white"/>',
        text((325, 18), "processor time of the server while everybody is silent"),
        f'<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="black"/>',
        f'<path d="M{left} {y(SHARE_MAX):.1f}H{right}" stroke="gray" stroke-dasharray="4"/>',
        text((left - 6, y(SHARE_MAX) + 4), "0.1 %", "end"),
        text((left - 6, bottom + 4), "0", "end"),
        text((325, 310), "connected clients"),
    ]
    for row in rows:
        label = f"{row['clients'] // 1_000}k"
        parts.append(text((x(row["clients"]), bottom + 18), label))
        parts.append(f'<circle cx="{x(row["clients"]):.1f}" cy="{y(row["share_of_core"]):.1f}" r="4"/>')
    points = " ".join(f"{x(r['clients']):.1f},{y(r['share_of_core']):.1f}" for r in rows)
    parts.append(f'<polyline points="{points}" fill="none" stroke="black"/></svg>')
    pathlib.Path(path).write_text("\n".join(parts) + "\n")


def main():
    said = options()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        server = million.Server(said, folder)
        try:
            rows = measure(said, server, folder)
        finally:
            server.child.kill()
            server.ended.set()
    if said.json:
        pathlib.Path(said.json).write_text(json.dumps(rows, indent=2) + "\n")
    if said.plot:
        plot(rows, said.plot)
    dearest = max(row["share_of_core"] for row in rows if row["clients"] <= 100_000)
    print(f"the dearest of up to 100,000 clients: {dearest * 100:.4f} % of a core")
    sys.exit(0 if dearest < said.share_max else 1)


if __name__ == "__main__":
    main()
