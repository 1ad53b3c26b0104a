"""Whether the comparison counts right: `python3 -m unittest discover benches`."""

import os
import pathlib
import platform
import signal
import subprocess
import sys
import time
import unittest
import unittest.mock
import xml.etree.ElementTree

import compare
import compare_report
import compare_wire


def load(cpu_s=0.3, pongs=30_000, **changes):
    """What the load bench tells of a run: 3 s measured, 10 us of the server a beat."""
    rtt = {"n": pongs, "p50": 100, "p99": 900}
    window = {"lasted_s": 3.0, "beats_sent": 40_000, "pongs_received": pongs, "rtt_us": rtt,
              "server_cpu_s": cpu_s, "own_cpu_s": 1.5, "server_rss_bytes": 3_000_000}
    whole = {"clients": 1_000, "connected": 1_000, "false_offline": 0, "sent_away": 0,
             "connect_per_s": 20_000.0, "connect_server_cpu_s": 0.02,
             "server_rss_before_bytes": 1_000_000, "window": window}
    return whole | changes


def results(*runs):
    peer = lambda name, floor: {"name": name, "what": "", "version": "1", "floor": floor}
    scenario = {"name": "busy", "title": "busy clients", "clients": 1_000, "interval_ms": 1_000,
                "connects_per_s": 6_000, "replies": True}
    storm = scenario | {"name": "storm", "title": "a storm", "connects_per_s": 0}
    return {
        "when": "today", "processor": "one", "processors": 2, "kernel": "6", "pinned": True,
        "rounds": 2, "load_average_before": 0.0, "absent": {"nanomq": "not installed"},
        "peers": [peer("heartwheel", False), peer("bare", True), peer("broker", False)],
        "scenarios": [scenario, storm],
        "runs": [
            {"scenario": name, "round": 0, "peer": who, "load": told, "error": error}
            for name, who, told, error in runs
        ],
    }


class Figures(unittest.TestCase):
    def test_a_run_is_counted_in_the_units_of_the_table(self):
        one = compare_report.figures(load(), True)
        self.assertAlmostEqual(one["cpu_us"], 10)
        self.assertAlmostEqual(one["beats_per_s"], 10_000)
        self.assertAlmostEqual(one["busy"], 0.1)
        self.assertAlmostEqual(one["bench_busy"], 0.5)
        self.assertAlmostEqual(one["rss_bytes"], 2_000)
        self.assertAlmostEqual(one["connect_cpu_us"], 20)
        self.assertEqual((one["rtt_p50_us"], one["rtt_p99_us"]), (100, 900))

    def test_beats_without_answers_are_counted_as_sent(self):
        one = compare_report.figures(load(pongs=0), False)
        self.assertAlmostEqual(one["cpu_us"], 7.5)
        self.assertIsNone(one["rtt_p99_us"])

    def test_what_could_not_be_seen_is_no_zero(self):
        blind = load(connect_server_cpu_s=None, server_rss_before_bytes=None)
        blind["window"] |= {"server_cpu_s": None, "server_rss_bytes": None}
        one = compare_report.figures(blind, True)
        for figure in ("cpu_us", "busy", "rss_bytes", "connect_cpu_us"):
            self.assertIsNone(one[figure], figure)

    def test_a_run_that_lost_somebody_is_not_believed(self):
        self.assertIsNone(compare_report.complaint(load()))
        self.assertIsNone(compare_report.complaint(load(lost_on_wire=41)))
        for changes, words in [
            ({"connected": 999}, "999 of 1000"),
            ({"false_offline": 2}, "2 living"),
            ({"sent_away": 3}, "3 living"),
            ({"window": None}, "nothing"),
            ({"lost_on_wire": 42}, "the wire lost 42 packets"),
        ]:
            self.assertIn(words, compare_report.complaint(load(**changes)))


class Table(unittest.TestCase):
    def test_rounds_become_median_spread_and_ratio(self):
        runs = [("busy", "heartwheel", load(cpu_s), None) for cpu_s in (0.3, 0.33)]
        runs += [("busy", "broker", load(cpu_s), None) for cpu_s in (0.6, 0.66)]
        text = compare_report.table(results(*runs))
        self.assertIn("| **heartwheel** | 10.5 (10.0 to 11.0) | 1.00 |", text)
        self.assertIn("| broker | 21.0 (20.0 to 22.0) | 2.00 |", text)
        self.assertIn("Nothing here", text)
        self.assertIn("| nanomq | absent: not installed |", text)

    def test_what_heartwheel_loses_at_is_said(self):
        text = compare_report.table(results(
            ("busy", "heartwheel", load(), None), ("busy", "bare", load(0.2), None),
            ("storm", "heartwheel", load(), None),
            ("storm", "broker", load(connect_per_s=30_000.0), None),
        ))
        servers, floors = text.split("**How far the floors are below it**")
        self.assertIn("- CPU per beat, busy clients: bare 6.67, heartwheel 10.0", floors)
        self.assertIn("- connects/s, a storm: broker 30,000, heartwheel 20,000", servers)
        self.assertNotIn("Nothing here", text)

    def test_overlapping_rounds_and_a_hair_are_no_loss(self):
        for base, other in [((10, 9, 12), (9, 8, 9.5)), ((10, 10, 10), (9.6, 9.6, 9.6))]:
            self.assertFalse(compare_report.is_better(other, base, False))
        self.assertTrue(compare_report.is_better((9, 8, 9.4), (10, 9.5, 11), False))

    def test_a_failed_run_says_why_and_counts_nothing(self):
        text = compare_report.table(results(
            ("busy", "heartwheel", load(), None), ("busy", "broker", None, "does not start"),
        ))
        self.assertIn("| broker | failed: does not start |", text)

    def test_the_table_of_the_manual_is_replaced_and_nothing_else(self):
        begins, ends = compare_report.TABLE_BEGINS, compare_report.TABLE_ENDS
        once = compare_report.page_with(f"# Page\n\n{begins}\nold\n{ends}\n\nrest\n", "new\n")
        self.assertEqual(once, f"# Page\n\n{begins}\n\nnew\n\n{ends}\n\nrest\n")
        self.assertEqual(compare_report.page_with(once, "new\n"), once)
        page = (compare.ROOT / "src/manual/benchmarks.md").read_text()
        self.assertIn("\nnewest\n", compare_report.page_with(page, "newest\n"))

    def test_a_run_is_told_in_one_line(self):
        told = results(("busy", "heartwheel", load(), None), ("storm", "broker", load(), None),
                       ("busy", "broker", None, "does not start"))
        scenario = {one["name"]: one for one in told["scenarios"]}
        lines = [compare_report.line(run, scenario[run["scenario"]]) for run in told["runs"]]
        for line, words in zip(lines, ["10.0 us a beat, 10,000 beats/s", "20.0 us a connect",
                                       "failed: does not start"]):
            self.assertIn(words, line)

    def test_plots_are_drawings_with_a_bar_for_each(self):
        drawn = compare_report.plots(results(
            ("busy", "heartwheel", load(), None), ("busy", "broker", load(0.6), None),
            ("storm", "broker", load(), None),
        ))
        self.assertEqual(
            sorted(drawn), ["cpu-per-beat", "cpu-per-connect", "memory", "round-trip-p99"]
        )
        for name, bars in [("cpu-per-beat", 2), ("cpu-per-connect", 1), ("memory", 2)]:
            picture = xml.etree.ElementTree.fromstring(drawn[name])
            rects = picture.findall("{http://www.w3.org/2000/svg}rect")
            self.assertEqual(len(rects), bars + 1, name)  # and the background


class OverTheWire(unittest.TestCase):
    def test_the_time_of_receiving_is_counted_by_the_rate(self):
        # A tenth of a core at 10,000 beats a second.
        one = compare_report.figures(load(), True, {"cpu_s": 0.2, "lasted_s": 2.0})
        self.assertAlmostEqual(one["received_us"], 10)
        self.assertAlmostEqual(one["with_receiving_us"], 20)
        self.assertAlmostEqual(one["cpu_us"], 10)
        unseen = compare_report.figures(load(), True, None)
        self.assertIsNone(unseen["with_receiving_us"])
        self.assertAlmostEqual(unseen["cpu_us"], 10)

    def test_the_table_has_a_column_more_and_says_that_it_was_the_wire(self):
        told = results(("busy", "heartwheel", load(), None), ("busy", "broker", load(0.2), None),
                       ("busy", "bare", None, "does not start"))
        without = compare_report.table(told)
        self.assertNotIn("receiving", without)
        self.assertNotIn("wire", without)
        told["wire"] = True
        told["runs"][0]["receiving"] = {"cpu_s": 0.3, "lasted_s": 2.0}
        told["runs"][1]["receiving"] = {"cpu_s": 0.6, "lasted_s": 2.0}
        text = compare_report.table(told)
        self.assertIn("over a wire (veth, threaded NAPI)", text)
        self.assertIn("**busy clients, over the wire**", text)
        self.assertIn("| **heartwheel** | 10.0 | 1.00 | 25.0 | 1.00 |", text)
        self.assertIn("| broker | 6.67 | 0.67 | 36.7 | 1.47 |", text)
        heads, *rows = [row for row in text.splitlines() if row.count("|") > 6]
        self.assertEqual(len(rows), 4)
        for row in rows:
            self.assertEqual(row.count("|"), heads.count("|"), row)
        self.assertIn("- CPU per beat, busy clients: broker 6.67, heartwheel 10.0", text)
        self.assertNotIn("- CPU per beat with receiving", text)
        self.assertIn("cpu-with-receiving", compare_report.plots(told))
        line = compare_report.line(told["runs"][0], told["scenarios"][0])
        self.assertIn("10.0 us a beat, 25.0 with receiving,", line)

    def test_either_table_of_the_manual_is_replaced_alone(self):
        page = (compare.ROOT / "src/manual/benchmarks.md").read_text()
        loopback = compare_report.page_with(page, "of the loopback\n")
        both = compare_report.page_with(loopback, "of the wire\n", True)
        self.assertIn("\nof the loopback\n", both)
        self.assertIn("\nof the wire\n", both)
        self.assertLess(both.index("of the loopback"), both.index("## Beside others, over a wire"))
        self.assertEqual(compare_report.page_with(both, "of the wire\n", True), both)

    def test_what_is_surely_inside_of_the_window_is_counted(self):
        # Half a second to start, two until all are in and warm, three measured, a quarter to end:
        # the window is from 12.5 to 15.5. Outside of it the thread is three times as busy.
        used = lambda at: int(1e8 * (at + 2 * (min(at, 12.5) + max(at - 15.5, 0))))
        samples = [(at / 20, used(at / 20), at) for at in range(200, 316)]
        seen = compare_wire.between(samples, 10, 15.75, 2, 3)
        self.assertAlmostEqual(seen["cpu_s"] / seen["lasted_s"], 0.1)
        self.assertAlmostEqual(seen["lasted_s"], 2.25, delta=0.11)
        self.assertAlmostEqual(seen["turns"], seen["lasted_s"] * 20)

    def test_where_the_window_cannot_be_placed_nothing_is_told(self):
        samples = [(at / 20, at, at) for at in range(200, 400)]
        self.assertIsNone(compare_wire.between(samples, 10, 18.5, 2, 3))
        self.assertIsNone(compare_wire.between([], 10, 15.5, 2, 3))

    def test_heartwheel_is_told_that_strangers_may_reach_it(self):
        for words, is_told in ((["--wire"], True), ([], False)):
            ours = compare.peers(compare.options(words))[0].command("198.18.0.1:7", None)
            self.assertEqual("anybody" in ours, is_told)
            self.assertIn("198.18.0.1:7", ours)

    def test_who_is_not_root_or_has_no_ip_hears_it_in_one_line(self):
        for uid, ip, words in ((1_000, "/sbin/ip", "run it as root"), (0, None, "iproute2")):
            with unittest.mock.patch("os.geteuid", lambda: uid), \
                    unittest.mock.patch("shutil.which", lambda _: ip), \
                    self.assertRaises(SystemExit) as refused:
                compare.main(["--wire", "--no-build"])
            self.assertIn("no wire here: ", refused.exception.code)
            self.assertIn(words, refused.exception.code)
            self.assertNotIn("\n", refused.exception.code)


def namespaces():
    out = subprocess.run(["ip", "netns", "list"], stdout=subprocess.PIPE, text=True, check=True)
    return {line.split()[0] for line in out.stdout.splitlines()}


class Namespaces(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # What the machine does not allow is known only by trying.
        try:
            with compare_wire.Wire((None, None)):
                pass
        except compare_wire.NoWire as why:
            raise unittest.SkipTest(f"nothing is proved: {why}")

    def test_receiving_is_done_by_a_thread_of_each_side(self):
        with compare_wire.Wire((None, None)) as wire:
            before = used(wire.receiver)
            send = ("import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
                    f"[s.sendto(b'x', ('{compare_wire.SERVER}', 9)) for _ in range(1000)]")
            subprocess.run([*wire.at_bench, sys.executable, "-c", send], check=True)
            patience = time.monotonic() + 5
            while used(wire.receiver) == before and time.monotonic() < patience:
                time.sleep(0.01)
            self.assertGreater(used(wire.receiver), before)
            self.assertLessEqual(set(wire.ends), namespaces())
        self.assertFalse(set(wire.ends) & namespaces())

    def test_a_wire_that_is_full_holds_its_sender_back(self):
        core = min(os.sched_getaffinity(0))
        with compare_wire.Wire((core, core)) as wire:
            # The thread that receives does not get to it before all are sent, which are more than
            # the 256 that are on their way at most. The first asks who has the address.
            send = ("import os, socket, time; "
                    "s = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(10)]; "
                    f"[one.connect(('{compare_wire.SERVER}', 9)) for one in s]; "
                    f"s[0].send(b'x'); time.sleep(0.2); os.sched_setaffinity(0, {{{core}}}); "
                    "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)); "
                    "[s[1 + n % 9].send(b'x') for n in range(900)]")
            subprocess.run([*wire.at_bench, sys.executable, "-c", send], check=True)
            lost = wire.lost()
        kernel = tuple(map(int, platform.release().split(".")[:2]))
        if kernel >= (6, 16):
            self.assertEqual(lost, 0)
        else:
            self.assertGreater(lost, 0)

    def test_they_are_gone_after_a_failure(self):
        with self.assertRaises(ZeroDivisionError), compare_wire.Wire((None, None)) as wire:
            1 / 0
        self.assertFalse(set(wire.ends) & namespaces())
        # Half made.
        wire = compare_wire.Wire((None, None))
        with unittest.mock.patch("compare_wire.thread_of", side_effect=KeyboardInterrupt), \
                self.assertRaises(KeyboardInterrupt), wire:
            self.fail("there is a wire without threads")
        self.assertFalse(set(wire.ends) & namespaces())

    def test_they_are_gone_after_a_signal(self):
        for kind in (signal.SIGTERM, signal.SIGINT):
            words = "import signal, time, compare, compare_wire\n" \
                "signal.signal(signal.SIGTERM, compare.interrupt)\n" \
                "with compare_wire.Wire((None, None)) as wire:\n" \
                "    print(*wire.ends, flush=True)\n    time.sleep(60)"
            child = subprocess.Popen(
                [sys.executable, "-B", "-c", words], stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, text=True, cwd=pathlib.Path(__file__).parent)
            ends = set(child.stdout.readline().split())
            self.assertEqual(len(ends), 2)
            self.assertLessEqual(ends, namespaces())
            child.send_signal(kind)
            child.communicate(timeout=20)
            self.assertFalse(ends & namespaces())

    def test_what_the_kernel_lacks_is_said_in_one_line(self):
        wire = compare_wire.Wire((None, None))
        with unittest.mock.patch.object(wire, "devices", ["a-name-that-is-too-long", "b"]), \
                self.assertRaises(compare_wire.NoWire) as failed, wire:
            self.fail("there is a device with such a name")
        self.assertIn("no veth pair can be made: ", str(failed.exception))
        self.assertNotIn("\n", str(failed.exception))
        self.assertFalse(set(wire.ends) & namespaces())


def used(thread):
    return int(pathlib.Path(f"/proc/{thread}/schedstat").read_text().split()[0])


class Course(unittest.TestCase):
    def test_who_has_a_run_in_what(self):
        who = {peer.name: peer for peer in compare.peers(compare.options([]))}
        what = {scenario.name: scenario for scenario in compare.SCENARIOS}
        for peer, scenario, turn, is_in in [
            ("heartwheel", "no-reply-18000", 1, True),
            ("mosquitto", "no-reply-18000", 0, False),
            ("mosquitto", "connect-15000", 1, True),
            ("accept_loop", "connect-15000", 0, True),
            ("accept_loop", "quiet-18000", 0, False),
            ("rumqttd", "saturated-10000", 0, True),
            ("rumqttd", "saturated-10000", 1, False),
            ("rumqttd", "quiet-18000", 0, False),
        ]:
            found = compare.takes_part(who[peer], what[scenario], turn)
            self.assertEqual(found, is_in, (peer, scenario, turn))

    def test_rounds_turn_round_and_end_when_the_time_is_over(self):
        def course(words):
            said = compare.options(words + ["--peers", "heartwheel,mosquitto,accept_loop"])
            return [
                (turn, scenario.name, peer.name)
                for turn, scenario, peer in compare.course(said, *compare.chosen(said))
            ]

        two = course(["--scenarios", "quiet-18000"])
        self.assertEqual([(turn, peer) for turn, _, peer in two], [
            (0, "heartwheel"), (0, "mosquitto"), (1, "mosquitto"), (1, "heartwheel")
        ])
        one = course(["--minutes", "0", "--rounds", "3"])
        self.assertEqual({turn for turn, _, _ in one}, {0})
        self.assertEqual({name for _, name, _ in one}, {one.name for one in compare.SCENARIOS})

    def test_where_files_are_few_there_are_fewer_clients(self):
        scenario = compare.fitting(compare.SCENARIOS[-2], 1_024)
        self.assertEqual(scenario.clients, 1_024 - compare.FILES_BESIDE)
        self.assertEqual(scenario.words, ("--no-reply", str(scenario.clients)))
        self.assertIn("524 clients", scenario.title)

    def test_names_nobody_has_are_refused(self):
        for words in (["--peers", "nobody"], ["--scenarios", "nothing"]):
            with self.assertRaises(SystemExit):
                compare.chosen(compare.options(words))

    def test_a_variant_is_heartwheel_with_more_words(self):
        said = compare.options(["--serve", "--tick 20ms", "--variant", "calm=--probe off"])
        words = {peer.name: peer.command("127.0.0.1:1", None) for peer in compare.peers(said)[:2]}
        self.assertEqual(words["heartwheel"][-2:], ["--tick", "20ms"])
        self.assertEqual(words["calm"][-4:], ["--tick", "20ms", "--probe", "off"])


if __name__ == "__main__":
    unittest.main()
