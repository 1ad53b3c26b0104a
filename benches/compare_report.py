"""From runs of `compare.py` to a table and plots. Pure: results in, text out.

`python3 benches/compare_report.py results.json` prints the table of an earlier run.
"""

import json
import statistics
import sys

# Nothing smaller is called a difference between two programs on one machine.
NOTABLE = 0.05
# Packets for a beat or a connect. What is lost is sent again a fifth of a second later.
LOST_MAX = 0.001

# What stands between the two in the manual is written by `compare.py --manual`.
TABLE_BEGINS = "<!-- compare.py writes from here -->"
TABLE_ENDS = "<!-- to here -->"
WIRE_BEGINS = "<!-- compare.py --wire writes from here -->"
WIRE_ENDS = "<!-- to here, over the wire -->"

COLOURS = ["#c0392b", "#e08e79", "#7f8c8d", "#2980b9", "#16a085", "#8e44ad", "#d4a017", "#2c3e50"]


def figures(load, replies, receiving=None):
    """What one run says, in the units of the table. What could not be seen is None.

    `receiving` is what the kernel's thread that receives for the server has used, over a wire.
    """
    window = load["window"] or {}
    beats = window.get("pongs_received" if replies else "beats_sent") or 0
    lasted = window.get("lasted_s") or 0
    cpu, own = window.get("server_cpu_s"), window.get("own_cpu_s")
    rss, before = window.get("server_rss_bytes"), load["server_rss_before_bytes"]
    connect_cpu, connected = load["connect_server_cpu_s"], load["connected"]
    rtt = window.get("rtt_us") or {}
    cpu_us = cpu * 1e6 / beats if cpu is not None and beats else None
    beats_per_s = beats / lasted if lasted else None
    received_us = receiving["cpu_s"] / receiving["lasted_s"] * 1e6 / beats_per_s \
        if receiving and beats_per_s else None
    return {
        "cpu_us": cpu_us,
        "received_us": received_us,
        "with_receiving_us": cpu_us + received_us
        if cpu_us is not None and received_us is not None else None,
        "beats_per_s": beats_per_s,
        "busy": cpu / lasted if cpu is not None and lasted else None,
        "bench_busy": own / lasted if own is not None and lasted else None,
        "rtt_p50_us": rtt.get("p50") if rtt.get("n") else None,
        "rtt_p99_us": rtt.get("p99") if rtt.get("n") else None,
        "rss_bytes": (rss - before) / connected
        if rss is not None and before is not None and connected else None,
        "connects_per_s": load["connect_per_s"],
        "connect_cpu_us": connect_cpu * 1e6 / connected
        if connect_cpu is not None and connected else None,
    }


def complaint(load):
    """What makes a run's figures worth nothing; None when they can be believed."""
    if load["connected"] < load["clients"]:
        return f"only {load['connected']} of {load['clients']} clients came in"
    if load["false_offline"] or load["sent_away"]:
        return f"{load['false_offline'] + load['sent_away']} living clients were ended"
    if not load["window"]:
        return "nothing was measured"
    lost = load.get("lost_on_wire", 0)
    if lost > (load["connected"] + load["window"]["beats_sent"]) * LOST_MAX:
        return f"the wire lost {lost} packets, as it does when it is full before Linux 6.16"
    return None


def line(run, scenario):
    """One run for whoever watches."""
    head = f"{run['scenario']:<16} {run['round'] + 1}  {run['peer']:<16}"
    if run["error"]:
        return f"{head} failed: {run['error']}"
    one = figures(run["load"], scenario["replies"], run.get("receiving"))
    if is_connecting(scenario):
        each, rate = number(one["connect_cpu_us"]), number(one["connects_per_s"])
        return f"{head} {each} us a connect, {rate} connects/s"
    received = one["with_receiving_us"]
    said = [
        f"{number(one['cpu_us'])} us a beat",
        *([f"{number(received)} with receiving"] if received is not None else []),
        f"{number(one['beats_per_s'])} beats/s",
        f"busy {percent(one['busy'])}",
        f"bench {percent(one['bench_busy'])}",
        f"p99 {number(one['rtt_p99_us'])} us",
        f"{number(one['connects_per_s'])} connects/s",
    ]
    return f"{head} {', '.join(said)}"


class Results:
    """The figures of all runs, by scenario and peer."""

    def __init__(self, results):
        self.peers = [peer["name"] for peer in results["peers"]]
        self.floors = {peer["name"] for peer in results["peers"] if peer["floor"]}
        self.scenarios = results["scenarios"]
        self.is_wire = results.get("wire", False)
        self.errors, self.runs = {}, {}
        replies = {one["name"]: one["replies"] for one in self.scenarios}
        for run in results["runs"]:
            key = run["scenario"], run["peer"]
            if run["error"]:
                self.errors.setdefault(key, run["error"])
            else:
                one = figures(run["load"], replies[run["scenario"]], run.get("receiving"))
                self.runs.setdefault(key, []).append(one)

    def seen(self, scenario, peer, figure):
        """(median, lowest, highest) over the rounds, or None."""
        runs = self.runs.get((scenario, peer), [])
        values = [run[figure] for run in runs if run[figure] is not None]
        return (statistics.median(values), min(values), max(values)) if values else None

    def took_part(self, scenario):
        keys = {peer for name, peer in [*self.runs, *self.errors] if name == scenario}
        return [peer for peer in self.peers if peer in keys]


def is_connecting(scenario):
    return not scenario["connects_per_s"]


def number(value):
    if value is None:
        return "–"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def percent(value):
    return "–" if value is None else f"{value * 100:.0f} %"


def spread(seen):
    """Median, and from where to where the rounds went."""
    if seen is None:
        return "–"
    median, low, high = seen
    if low == high:
        return number(median)
    return f"{number(median)} ({number(low)} to {number(high)})"


def ratio(seen, base):
    """To heartwheel's."""
    return f"{seen[0] / base[0]:.2f}" if seen and base and base[0] else "–"


def middle(seen):
    return None if seen is None else seen[0]


def table(results):
    """Everything for people, as Markdown."""
    seen = Results(results)
    parts = [about(results)]
    for scenario in seen.scenarios:
        if seen.took_part(scenario["name"]):
            parts.append((connects if is_connecting(scenario) else beats)(seen, scenario))
    parts += [memory(seen), lost(seen)]
    return "\n".join(part for part in parts if part)


def page_with(page, text, is_wire=False):
    """A page of the manual with its last table replaced."""
    begins, ends = (WIRE_BEGINS, WIRE_ENDS) if is_wire else (TABLE_BEGINS, TABLE_ENDS)
    before, rest = page.split(begins)
    _, after = rest.split(ends)
    return f"{before}{begins}\n\n{text}\n{ends}{after}"


def about(results):
    pinned = "server on one core, load bench on another" if results["pinned"] else "not pinned"
    if results.get("wire"):
        pinned = (f"over a wire (veth, threaded NAPI) between two network namespaces, {pinned}, "
                  "the kernel's receiving with either")
    rows = [
        f"{results['when']}, {results['processor']}, {results['processors']} processors, "
        f"Linux {results['kernel']}, {pinned}, {results['rounds']} rounds, load average before: "
        f"{results['load_average_before']:.1f}.",
        "",
        "| | what | version |",
        "|---|---|---|",
    ]
    for peer in results["peers"]:
        rows.append(f"| {peer['name']} | {peer['what']} | {peer['version'] or '–'} |")
    for name, why in results.get("absent", {}).items():
        rows.append(f"| {name} | absent: {why} | – |")
    return "\n".join(rows) + "\n"


def beats(seen, scenario):
    name = scenario["name"]
    costs = [("CPU µs per beat", "cpu_us")]
    if seen.is_wire:
        costs.append(("with receiving", "with_receiving_us"))
    heads = [word for words, _ in costs for word in (words, "to heartwheel")]
    heads += ["beats/s", "busy", "bench busy", "round trip p50 µs", "p99 µs"]
    rows = [
        f"**{scenario['title']}{over(seen)}** (`{name}`)",
        "",
        f"| | {' | '.join(heads)} |",
        f"|{'---|' * (len(heads) + 1)}",
    ]
    bases = {figure: seen.seen(name, "heartwheel", figure) for _, figure in costs}
    for peer in seen.took_part(name):
        if (name, peer) not in seen.runs:
            blanks = " |" * (len(heads) - 1)
            rows.append(f"| {peer} | failed: {seen.errors[name, peer]} |{blanks}")
            continue
        get = lambda figure: seen.seen(name, peer, figure)
        cells = [
            label(seen, peer),
            *[cell for _, figure in costs
              for cell in (spread(get(figure)), ratio(get(figure), bases[figure]))],
            number(middle(get("beats_per_s"))), percent(middle(get("busy"))),
            percent(middle(get("bench_busy"))), number(middle(get("rtt_p50_us"))),
            spread(get("rtt_p99_us")),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def over(seen):
    return ", over the wire" if seen.is_wire else ""


def connects(seen, scenario):
    name = scenario["name"]
    rows = [
        f"**{scenario['title']}{over(seen)}** (`{name}`), each with HELLO or CONNECT and its "
        "answer",
        "",
        "| | connects/s | to heartwheel | CPU µs per connect | to heartwheel |",
        "|---|---|---|---|---|",
    ]
    rate = seen.seen(name, "heartwheel", "connects_per_s")
    cost = seen.seen(name, "heartwheel", "connect_cpu_us")
    for peer in seen.took_part(name):
        if (name, peer) not in seen.runs:
            rows.append(f"| {peer} | failed: {seen.errors[name, peer]} | | | |")
            continue
        get = lambda figure: seen.seen(name, peer, figure)
        cells = [
            label(seen, peer), spread(get("connects_per_s")), ratio(get("connects_per_s"), rate),
            spread(get("connect_cpu_us")), ratio(get("connect_cpu_us"), cost),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def memory_scenario(seen):
    """Where the clients beat least: their memory is that of idle connections."""
    steady = [one for one in seen.scenarios if not is_connecting(one)]
    return max(steady, key=lambda one: (one["interval_ms"], one["clients"]), default=None)


def memory(seen):
    scenario = memory_scenario(seen)
    if scenario is None:
        return ""
    name = scenario["name"]
    rows = [
        f"**Memory of the process for each connection{over(seen)}** (`{name}`: growth of its "
        "resident memory)",
        "",
        "| | bytes | to heartwheel |",
        "|---|---|---|",
    ]
    base = seen.seen(name, "heartwheel", "rss_bytes")
    for peer in seen.took_part(name):
        bytes_each = seen.seen(name, peer, "rss_bytes")
        if bytes_each:
            cells = [label(seen, peer), spread(bytes_each), ratio(bytes_each, base)]
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def label(seen, peer):
    if peer == "heartwheel":
        return "**heartwheel**"
    return f"{peer} (floor)" if peer in seen.floors else peer


def lost(seen):
    """Where somebody is better than heartwheel, by more than noise: servers first, then floors."""
    servers, floors = [], []
    for scenario in seen.scenarios:
        name = scenario["name"]
        if is_connecting(scenario):
            asked = [("connect_cpu_us", "CPU per connect"), ("connects_per_s", "connects/s")]
        else:
            asked = [("cpu_us", "CPU per beat"),
                     ("with_receiving_us", "CPU per beat with receiving"),
                     ("rtt_p99_us", "round trip p99")]
        if scenario is memory_scenario(seen):
            asked.append(("rss_bytes", "memory per connection"))
        for figure, words in asked:
            base = seen.seen(name, "heartwheel", figure)
            for peer in seen.took_part(name):
                other = seen.seen(name, peer, figure)
                if base and other and is_better(other, base, figure == "connects_per_s"):
                    (floors if peer in seen.floors else servers).append(
                        f"- {words}, {scenario['title']}: {peer} {number(other[0])}, "
                        f"heartwheel {number(base[0])}"
                    )
    nothing = ["Nothing here, beyond a twentieth and the spread of the rounds."]
    rows = ["**What heartwheel loses at**", "", *(servers or nothing), ""]
    if floors:
        rows += ["**How far the floors are below it**", "", *floors, ""]
    return "\n".join(rows)


def is_better(other, base, more_is_better):
    """Whether the rounds do not overlap, and the medians differ by a twentieth."""
    if more_is_better:
        return other[1] > base[2] and other[0] > base[0] * (1 + NOTABLE)
    return other[2] < base[1] and other[0] < base[0] * (1 - NOTABLE)


def plots(results):
    """The plots by name, as SVG."""
    seen = Results(results)
    steady = [one for one in seen.scenarios if not is_connecting(one)]
    storms = [one for one in seen.scenarios if is_connecting(one)]
    of_memory = [memory_scenario(seen)] if steady else []
    wanted = {
        "cpu-per-beat": ("CPU time of the server per beat, µs", "cpu_us", steady),
        "cpu-with-receiving": ("CPU time of the server per beat with receiving, µs",
                               "with_receiving_us", steady),
        "round-trip-p99": ("round trip of a beat, p99, µs", "rtt_p99_us", steady),
        "cpu-per-connect": ("CPU time of the server per connect, µs", "connect_cpu_us", storms),
        "memory": ("memory of the server per connection, bytes", "rss_bytes", of_memory),
    }
    drawn = {}
    for name, (title, figure, scenarios) in wanted.items():
        groups = []
        for scenario in scenarios:
            here = [(peer, seen.seen(scenario["name"], peer, figure)) for peer in seen.peers]
            here = [(peer, values) for peer, values in here if values]
            if here:
                groups.append((scenario["title"], here))
        if groups:
            drawn[name] = bars(title, groups, seen.peers)
    return drawn


def bars(title, groups, order):
    """Bars from left to right, a group for each scenario; a thin line is the spread."""
    width, left, right, row = 760, 150, 660, 16
    tall = 40 + sum(26 + row * len(peers) for _, peers in groups)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {tall}" '
        f'font-family="sans-serif" font-size="11"><rect width="{width}" height="{tall}" '
        'fill="white"/>',
        f'<text x="{width / 2:.0f}" y="18" text-anchor="middle" font-size="13">{title}</text>',
    ]
    at = 30
    for name, peers in groups:
        # Each group has a scale of its own: a quiet beat costs many times a beat under load.
        most = max(high for _, (_, _, high) in peers) or 1
        place = lambda value: left + max(value, 0) / most * (right - left)
        parts.append(f'<text x="8" y="{at + 14}" font-weight="bold">{name}</text>')
        at += 20
        for peer, (median, low, high) in peers:
            colour = COLOURS[order.index(peer) % len(COLOURS)]
            parts += [
                f'<text x="{left - 6}" y="{at + 11}" text-anchor="end">{peer}</text>',
                f'<rect x="{left}" y="{at + 2}" width="{place(median) - left:.1f}" '
                f'height="{row - 5}" fill="{colour}"/>',
                f'<path d="M{place(low):.1f} {at + 7}H{place(high):.1f}" stroke="black"/>',
                f'<text x="{place(high) + 5:.1f}" y="{at + 11}">{number(median)}</text>',
            ]
            at += row
        at += 6
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        print(table(json.load(file)), end="")
