#!/usr/bin/env python3
"""What does heartwheel cost beside others? One load bench, one machine, one table.

    benches/compare.py                # builds all of it, then some eleven minutes
    benches/compare.py --quick        # three scenarios once: three minutes, and less to believe
    benches/compare.py --list         # who could take part, and who is missing and why
    benches/compare.py --wire         # over a virtual wire in place of the loopback, as root

Each server runs alone on the first core this process may use, the load bench on the second. Every
scenario is run once a round, by one server right after the other, and the order of the servers
turns round with each round, so that what the machine does meanwhile hits all of them. A run
connects its clients, lets them beat for a moment and measures after that: processor time of the
server's whole process, all threads, user and system, by the beats of that time. `saturated` means:
once everybody is in, a client beats again as soon as its beat is answered, so a beat of each is
always under way; `busy` says how full the server's core was.

With --wire server and load bench are in network namespaces of their own with a veth pair between
them, and the kernel's work of receiving is done by a thread of each side, on that side's core. The
thread's time for a beat is told beside the server's. At saturation it needs Linux 6.16, before which
a full wire loses packets.

What comes out is in --out: results.json with every run as the load bench told it, table.md, and
plots. The exit code is 1 when a run of heartwheel failed; others may fail, and the table says so.

Needs Linux, a Rust toolchain (or --no-build), and an open-file limit of 20,000 for all scenarios;
with less, there are fewer clients. mosquitto and nanomq take part where they are installed.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import compare_report
import compare_wire

ROOT = pathlib.Path(__file__).resolve().parent.parent
PEERS = ROOT / "benches/peers"
BUILT = PEERS / "target/release"
# Beside its connections a process has a listener, a ring, its log, and accepts under way.
FILES_BESIDE = 500
START_S = 5
# Between connect and welcome. mosquitto's queue of connections not yet accepted has 100 places, and
# whoever finds it full tries again after a second.
CONNECTS_AT_ONCE = "64"
SLACK_S = 30


@dataclasses.dataclass(frozen=True)
class Scenario:
    name: str
    what: str
    clients: int
    interval_ms: int
    words: tuple = ()
    connects_per_s: int = 6_000
    warm_up_ms: int = 1_000
    measure_ms: int = 3_000
    # Answers are wanted.
    replies: bool = True
    # Worth its time for those who connect slowly, too.
    for_slow: bool = False
    quick: bool = False

    @property
    def title(self):
        return f"{self.clients:,} clients, {self.what}"


SATURATED = ("--saturate",)
SCENARIOS = [
    Scenario("saturated-100", "saturated", 100, 500, SATURATED, warm_up_ms=700),
    Scenario("saturated-10000", "saturated", 10_000, 1_500, SATURATED,
             warm_up_ms=1_800, for_slow=True, quick=True),
    Scenario("saturated-18000", "saturated", 18_000, 1_500, SATURATED,
             warm_up_ms=1_800),
    Scenario("quiet-18000", "10,000 beats/s", 18_000, 1_800, quick=True),
    Scenario("trickle-15000", "500 beats/s", 15_000, 30_000,
             measure_ms=6_000, for_slow=True),
    Scenario("no-reply-18000", "10,000 beats/s that want no answer", 18_000, 1_800,
             ("--no-reply", "18000"), replies=False),
    Scenario("connect-15000", "all at once", 15_000, 3_600_000,
             connects_per_s=0, warm_up_ms=100, measure_ms=100, quick=True),
]


@dataclasses.dataclass(frozen=True)
class Peer:
    name: str
    what: str
    protocol: str
    # (ADDRESS:PORT, folder for its files) -> words of its command
    command: object
    # () -> why it cannot take part, or None
    missing: object = lambda: None
    version: object = lambda: ""
    # Name of the program in benches/peers, where it is one of those.
    binary: str = ""
    # What nobody can be below: no server, for it does less than one has to.
    floor: bool = False
    connect_only: bool = False
    connects_per_s: int = 0
    quick: bool = True


def built(name):
    def missing():
        return None if (BUILT / name).exists() else "not built; leave out --no-build"

    return missing


def ours(name, what, **more):
    words = lambda address, folder: [str(BUILT / name), address]
    return Peer(name, what, "native", words, built(name), binary=name, **more)


def program(name):
    """Where a program is, also where only the superuser looks."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def installed(name):
    return lambda: None if program(name) else f"{name} is not installed"


def first_line(*words):
    out = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return out.stdout.strip().splitlines()[0] if out.stdout.strip() else ""


def locked(crate):
    """Version of a crate that the peers are built with."""
    text = (PEERS / "Cargo.lock").read_text()
    found = re.search(rf'name = "{crate}"\nversion = "([^"]+)"', text)
    return f"{crate} {found[1]}" if found else ""


def mosquitto(address, folder):
    host, _, port = address.rpartition(":")
    config = folder / "mosquitto.conf"
    config.write_text(
        f"listener {port} {host}\nallow_anonymous true\nmax_connections -1\n"
        "persistence false\nset_tcp_nodelay true\nlog_type error\n"
    )
    return [program("mosquitto"), "-c", str(config)]


def nanomq(address, folder):
    config = folder / "nanomq.conf"
    config.write_text(f'listeners.tcp {{\n  bind = "{address}"\n}}\n')
    return [program("nanomq"), "start", "--conf", str(config)]


def heartwheel(said, name, words):
    def command(address, folder):
        fixed = ["serve", "--listen", address, "--min-interval", "50ms"]
        if said.wire:
            # An address that can be reached from elsewhere is not served without it being said.
            fixed += ["--identity", "anybody"]
        rhythm = ["--interval", "15s", "--timeout", "2min", "--log-level", "warn", "--admin", "off"]
        return [said.program, *fixed, *rhythm, *words]

    # The path of the program differs between machines; which build it is does not.
    version = lambda: f"{first_line(said.program, '--version')} {commit()}".strip()
    what = " ".join(["serve", *words])
    return Peer(name, what, "native", command, version=version)


def commit():
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        return first_line(*words) if (ROOT / ".git").exists() else ""
    except OSError:
        return ""


def peers(said):
    all_of_us = [heartwheel(said, "heartwheel", said.serve)]
    for variant in said.variant:
        name, _, words = variant.partition("=")
        all_of_us.append(heartwheel(said, name, said.serve + shlex.split(words)))
    return all_of_us + [
        ours("bare_ring_echo", "the floor of io_uring: no names, no deadlines", floor=True),
        ours("epoll_server", "one thread, epoll, last beats stored, no verdicts"),
        ours("tokio_map_scan", "tokio, a dictionary of last beats, scanned once a second",
             version=lambda: locked("tokio")),
        ours("accept_loop", "the floor of connecting: accept, HELLO, WELCOME", floor=True,
             connect_only=True),
        Peer("mosquitto", "MQTT broker in C", "mqtt", mosquitto, installed("mosquitto"),
             lambda: first_line(program("mosquitto"), "-h")),
        Peer("nanomq", "MQTT broker in C, threads", "mqtt", nanomq, installed("nanomq"),
             lambda: first_line(program("nanomq"), "--version")),
        Peer("rumqttd", "MQTT broker in Rust, on tokio", "mqtt",
             lambda address, folder: [str(BUILT / "rumqttd_server"), address],
             built("rumqttd_server"), lambda: locked("rumqttd"), binary="rumqttd_server",
             connects_per_s=700, quick=False),
    ]


def names(text):
    return [name for name in text.split(",") if name]


def options(argv):
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("--quick", action="store_true", help="three scenarios, one round")
    words.add_argument("--smoke", action="store_true",
                       help="heartwheel alone with 100 clients: whether this program works")
    words.add_argument("--wire", action="store_true",
                       help="over a virtual wire in place of the loopback; needs root")
    words.add_argument("--scenarios", type=names, help="only these, separated by commas")
    words.add_argument("--peers", type=names, help="only these, separated by commas")
    words.add_argument("--rounds", type=int, default=2, help="default: 2")
    words.add_argument("--minutes", type=float,
                       help="begin no run of a further round after so long (default: 11, and 15 "
                            "over a wire, where connecting takes longer)")
    words.add_argument("--out", type=pathlib.Path, default=ROOT / "target/compare",
                       help="folder for the results (default: target/compare)")
    words.add_argument("--serve", type=shlex.split, default=[],
                       help="further words for `heartwheel serve`")
    words.add_argument("--variant", action="append", default=[], metavar="NAME=WORDS",
                       help="heartwheel once more, under this name, with these words for `serve`")
    words.add_argument("--program", default=str(ROOT / "target/release/heartwheel"))
    words.add_argument("--no-build", action="store_true", help="measure what is built already")
    words.add_argument("--manual", action="store_true",
                       help="put the table into src/manual/benchmarks.md")
    words.add_argument("--list", action="store_true", help="say what there is, and measure nothing")
    said = words.parse_args(argv)
    if said.minutes is None:
        said.minutes = 15 if said.wire else 11
    if said.quick or said.smoke:
        said.rounds = 1
    if said.smoke:
        said.peers, said.no_build = said.peers or ["heartwheel"], True
        small_ones = ["no-reply-18000", "saturated-10000", "connect-15000"]
        said.scenarios = said.scenarios or small_ones
    return said


def chosen(said):
    """The scenarios and the peers that were asked for."""
    def pick(all_there, wanted, kind, by_default):
        if wanted is None:
            return [one for one in all_there if by_default(one)]
        unknown = set(wanted) - {one.name for one in all_there}
        if unknown:
            there = ", ".join(one.name for one in all_there)
            sys.exit(f"no {kind} is called {', '.join(sorted(unknown))}; there are: {there}")
        return [one for one in all_there if one.name in wanted]

    is_meant = lambda one: one.quick or not said.quick
    scenarios = pick(SCENARIOS, said.scenarios, "scenario", is_meant)
    who = pick(peers(said), said.peers, "peer", is_meant)
    if said.smoke:
        # What is surely inside of a window is less of a short one.
        measure_ms = 4_000 if said.wire else 500
        scenarios = [small(scenario, measure_ms) for scenario in scenarios]
    return scenarios, who


def small(scenario, measure_ms):
    words = tuple("100" if word.isdigit() else word for word in scenario.words)
    interval_ms = min(scenario.interval_ms, 200)
    return dataclasses.replace(scenario, clients=100, interval_ms=interval_ms, words=words,
                               warm_up_ms=300, measure_ms=measure_ms)


def fitting(scenario, files):
    """As many clients as the limit of open files lets one process have."""
    clients = min(scenario.clients, files - FILES_BESIDE)
    words = tuple(str(min(int(w), clients)) if w.isdigit() else w for w in scenario.words)
    return dataclasses.replace(scenario, clients=clients, words=words)


def takes_part(peer, scenario, turn):
    """Whether a peer has a run in this round of a scenario."""
    if peer.connect_only and scenario.connects_per_s:
        return False
    if peer.protocol != "native" and not scenario.replies:
        return False
    if peer.connects_per_s:
        return scenario.for_slow and turn == 0
    return True


def build(who):
    cargo = ["cargo", "build", "--release", "--locked", "--quiet"]
    print("building heartwheel ...", flush=True)
    subprocess.run(cargo, cwd=ROOT, check=True)
    manifest = [*cargo, "--manifest-path", str(PEERS / "Cargo.toml")]
    if any(peer.binary and peer.name != "rumqttd" for peer in who):
        print("building the peers ...", flush=True)
        subprocess.run(manifest, check=True)
    if any(peer.name == "rumqttd" for peer in who):
        print("building rumqttd (160 crates, some minutes the first time) ...", flush=True)
        words = [*manifest, "--features", "rumqttd", "--bin", "rumqttd_server"]
        if subprocess.run(words).returncode != 0:
            print("rumqttd cannot be built here; the comparison goes on without it")


def cores():
    """A core for the server and one for the load bench; None where there is only one."""
    there = sorted(os.sched_getaffinity(0))
    return (there[0], there[1]) if len(there) > 1 else (None, None)


def prepared(core, files):
    def prepare():
        if core is not None:
            os.sched_setaffinity(0, {core})
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))

    return prepare


class Failed(Exception):
    """A run that gave no figures, and why."""


class Server:
    """One peer's process. Leaving the `with` ends it, whatever happened."""

    def __init__(self, peer, path, core, files, folder):
        self.path, self.address = path, path.address()
        self.log = folder / "server.log"
        words = [*path.at_server, *peer.command(self.address, folder)]
        log = open(self.log, "wb")
        # A broker that gives up the superuser's rights must still find its files.
        folder.chmod(0o755)
        self.child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                      preexec_fn=prepared(core, files), cwd=folder)
        log.close()

    def __enter__(self):
        try:
            self.wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def wait_until_ready(self):
        patience = time.monotonic() + START_S
        while time.monotonic() < patience:
            if self.child.poll() is not None:
                break
            if self.path.is_ready(self.child.pid, self.address):
                time.sleep(0.2)  # it is busy with whoever asked, and with what start-up left
                return
            time.sleep(0.02)
        raise Failed(f"does not start: {self.last_words()}")

    def __exit__(self, *_):
        end(self.child)

    def last_words(self):
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else "it said nothing"


def end(child):
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(1)
        except subprocess.TimeoutExpired:
            child.kill()
    child.wait()


def run_s(scenario, connects_per_s):
    """How long a run may last."""
    connecting = scenario.clients / (connects_per_s or 500)
    return connecting + (scenario.warm_up_ms + scenario.measure_ms) / 1_000 + SLACK_S


def load_words(said, scenario, peer, server, out):
    connects_per_s = scenario.connects_per_s
    if peer.connects_per_s:
        connects_per_s = min(connects_per_s or peer.connects_per_s, peer.connects_per_s)
    words = [said.program, "load", "--target", server.address, "--protocol", peer.protocol,
             "--clients", str(scenario.clients), "--interval", f"{scenario.interval_ms}ms",
             "--for", f"{run_s(scenario, connects_per_s):.0f}s",
             "--warm-up", f"{scenario.warm_up_ms}ms", "--measure", f"{scenario.measure_ms}ms",
             "--connects-at-once", CONNECTS_AT_ONCE, "--seed", "1", "--id-prefix", "compare-",
             "--json", str(out), *scenario.words, *server.path.load_words(server.child.pid)]
    if connects_per_s:
        words += ["--connect-rate", str(connects_per_s)]
    return words


def run_once(said, scenario, peer, path, files, folder):
    """One run: what the load bench told, and what a wire's receiver used; or Failed."""
    server_core, bench_core = cores()
    out = folder / "load.json"
    lost_before = path.lost()
    with Server(peer, path, server_core, files, folder) as server:
        words = [*path.at_bench, *load_words(said, scenario, peer, server, out)]
        limit_s = run_s(scenario, peer.connects_per_s or scenario.connects_per_s) + 15
        with path.receiving() as receiving:
            child = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE, preexec_fn=prepared(bench_core, files))
            try:
                _, told = child.communicate(timeout=limit_s)
            except subprocess.TimeoutExpired:
                raise Failed(f"the load bench did not end within {limit_s:.0f} s") from None
            finally:
                end(child)
        if child.returncode != 0:
            lines = told.decode(errors="replace").strip().splitlines()
            raise Failed(lines[-1][:300] if lines else f"exit code {child.returncode}")
        if server.child.poll() is not None:
            raise Failed(f"ended by itself: {server.last_words()}")
    load = json.loads(out.read_text())
    load["lost_on_wire"] = path.lost() - lost_before
    return load, receiving.within(load, scenario.warm_up_ms / 1_000) if receiving else None


def surroundings(said, who, scenarios):
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return {
        "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "processor": cpu[1] if cpu else platform.machine(),
        "processors": os.cpu_count(),
        "pinned": cores()[0] is not None,
        "wire": said.wire,
        "kernel": ".".join(platform.release().split(".")[:2]),
        "load_average_before": os.getloadavg()[0],
        "rounds": said.rounds,
        "peers": [
            {"name": p.name, "what": p.what, "version": p.version(), "floor": p.floor,
             "protocol": p.protocol}
            for p in who
        ],
        "scenarios": [
            dataclasses.asdict(scenario) | {"title": scenario.title} for scenario in scenarios
        ],
    }


def compare(said, scenarios, who, path, files):
    """All runs; after a signal those that were complete."""
    runs = []
    try:
        for turn, scenario, peer in course(said, scenarios, who):
            run = {"scenario": scenario.name, "round": turn, "peer": peer.name}
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                try:
                    run["load"], run["receiving"] = run_once(
                        said, scenario, peer, path, files, pathlib.Path(folder))
                    run["error"] = compare_report.complaint(run["load"])
                except Failed as failed:
                    run["load"], run["receiving"], run["error"] = None, None, str(failed)
            runs.append(run)
            print(compare_report.line(run, dataclasses.asdict(scenario)), flush=True)
    except KeyboardInterrupt:
        print("interrupted: what was measured so far is told")
    return runs


def course(said, scenarios, who):
    """Who runs what, in order, until the time is over."""
    end_at = time.monotonic() + said.minutes * 60
    for turn in range(said.rounds):
        for scenario in scenarios:
            for peer in who if turn % 2 == 0 else reversed(who):
                # The first round is everybody's, however long it takes.
                if turn > 0 and time.monotonic() > end_at:
                    print(f"{said.minutes} minutes are over: round {turn + 1} stays unfinished")
                    return
                if takes_part(peer, scenario, turn):
                    yield turn, scenario, peer


def interrupt(*_):
    raise KeyboardInterrupt


def main(argv=None):
    said = options(argv)
    scenarios, who = chosen(said)
    no_wire = compare_wire.missing() if said.wire and not said.list else None
    if no_wire:
        sys.exit(f"no wire here: {no_wire}")
    if not said.no_build and not said.list:
        build(who)
    absent = {peer.name: peer.missing() for peer in who if peer.missing()}
    for name, why in absent.items():
        print(f"without {name}: {why}")
    who = [peer for peer in who if peer.name not in absent]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = 20_000 if hard == resource.RLIM_INFINITY else min(hard, 20_000)
    scenarios = [fitting(scenario, files) for scenario in scenarios]
    if said.list:
        lines = [f"{one.name:<18} {getattr(one, 'title', one.what)}" for one in scenarios + who]
        print("\n".join(lines))
        return 0
    who = [peer for peer in who if any(takes_part(peer, one, 0) for one in scenarios)]
    # However this ends, the servers end with it.
    for kind in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(kind, interrupt)
    began = time.monotonic()
    results = surroundings(said, who, scenarios)
    results["absent"] = absent
    try:
        with compare_wire.Wire(cores()) if said.wire else compare_wire.Loopback() as path:
            results["runs"] = compare(said, scenarios, who, path, files)
    except compare_wire.NoWire as why:
        sys.exit(f"no wire here: {why}")
    results["took_s"] = round(time.monotonic() - began)
    said.out.mkdir(parents=True, exist_ok=True)
    (said.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    table = compare_report.table(results)
    (said.out / "table.md").write_text(table)
    for name, drawing in compare_report.plots(results).items():
        (said.out / f"{name}.svg").write_text(drawing)
    if said.manual:
        page = ROOT / "src/manual/benchmarks.md"
        page.write_text(compare_report.page_with(page.read_text(), table, said.wire))
    print(f"\n{table}\nin {said.out}: results.json, table.md and the plots")
    failed = [run for run in results["runs"] if run["error"] and run["peer"] == "heartwheel"]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
