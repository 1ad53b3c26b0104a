"""Whether the soak notices what it is there for: `python3 -m unittest discover benches`."""

import copy
import json
import unittest

import soak_checks
import soak_feeds

BOOT = 7


def event(kind, seq, client=None, epoch=None, **more):
    who = {"client": client, "epoch": epoch} if client else {}
    return {"event": kind, "boot": BOOT, "seq": seq, "at_unix_ms": 1_000 * seq, **who, **more}


def journal():
    """Two clients come; one is found dead, comes again and is kicked, the other leaves."""
    return [
        event("started", 1),
        event("online", 2, "mixed-1", 11),
        event("online", 3, "plain-1", 12),
        event("offline", 4, "mixed-1", 11, reason="heartbeat_timeout"),
        event("online", 5, "mixed-1", 13),
        event("offline", 6, "mixed-1", 13, reason="bye"),
        event("offline", 7, "plain-1", 12, reason="kicked"),
        event("stopped", 8),
    ]


def report(**changes):
    told = {"false_offline": 0, "detected_early": 0, "undetected": 0, "refused": 0, "errors": {},
            "connected": 1, "clients": 1, "sessions": 2, "parts": {"silent": 1}, "fell_silent": 1,
            "undecided": 0, "overslept": 0, "detection_ms": {"n": 1}}
    return told | changes


def push(client="plain-1", epoch=12, seq=1, result="acked", ack=True, text="a"):
    return {"client": client, "epoch": epoch, "seq": seq, "result": result, "ack": ack,
            "text": text}


class TheLedger(unittest.TestCase):
    def test_a_true_one_is_accepted(self):
        ledger = soak_checks.Ledger(journal(), BOOT)
        self.assertEqual(ledger.wrong, [])
        self.assertEqual(ledger.reasons["heartbeat_timeout"], 1)
        self.assertEqual(len(ledger.of("mixed")), 2)

    def test_whatever_is_missing_or_too_much_is_noticed(self):
        def numbered(events):
            return [{**one, "seq": seq} for seq, one in enumerate(events, 1)]

        events = journal()
        twice = numbered(events[:3] + [events[1]] + events[3:])
        younger = [one | ({"epoch": 11} if one.get("epoch") == 13 else {}) for one in events]
        for name, wrong in [
            ("a gap", events[:3] + events[4:]),
            ("an online twice", twice),
            ("never closed", numbered(events[:6] + events[7:])),
            ("closed twice", numbered(events[:4] + [events[3]] + events[4:])),
            ("an epoch again", younger),
            ("no end", events[:7]),
            ("a gap that is told", [*events[:4], {"event": "gap", "from_seq": 5}, *events[4:]]),
            ("nothing", []),
        ]:
            self.assertTrue(soak_checks.Ledger(wrong, BOOT).wrong, name)


class Copies(unittest.TestCase):
    def follower(self, events):
        taken = soak_feeds.Numbered("a feed")
        for one in events:
            taken.take(one["seq"], one)
        return taken

    def lines(self, taken):
        prints = {one["seq"]: soak_feeds.fingerprint(one) for one in journal()}
        return soak_checks.check_copies(prints, 7, [taken])

    def test_a_copy_may_repeat_and_nothing_else(self):
        events = journal()
        self.assertEqual(self.lines(self.follower(events[:5] + events[3:7])), [])
        self.assertTrue(self.lines(self.follower(events[:3] + events[4:7])), "a gap")
        self.assertTrue(self.lines(self.follower(events[:6])), "the end is missing")
        other = copy.deepcopy(events)
        other[3]["reason"] = "reset"
        self.assertTrue(self.lines(self.follower(other)), "another reason")
        self.assertTrue(self.lines(self.follower(events[:4] + other[3:7])), "other when repeated")


class TheFleet(unittest.TestCase):
    def lines(self, **changes):
        ledger = soak_checks.Ledger(journal(), BOOT)
        return soak_checks.check_fleet(report(**changes), ledger, "mixed", 60_000)

    def test_its_word_is_held_against_the_ledger(self):
        self.assertEqual(self.lines(), [])
        for changes in [
            {"false_offline": 1}, {"detected_early": 1}, {"undetected": 1}, {"refused": 1},
            {"connected": 0}, {"sessions": 1}, {"sessions": 3}, {"fell_silent": 2},
            {"detection_ms": {"n": 0}, "fell_silent": 0},
        ]:
            self.assertTrue(self.lines(**changes), changes)

    def test_kicks_are_as_many_as_were_asked_for(self):
        ledger = soak_checks.Ledger(journal(), BOOT)
        kick = {"client": "plain-1", "epoch": 12, "code": 300}
        heard = report(errors={"ended_kicked": 1})
        lines = lambda report, kicks: soak_checks.check_kicks(report, ledger, kicks)
        self.assertEqual(lines(heard, [kick]), [])
        self.assertTrue(lines(report(), [kick]), "not heard")
        self.assertTrue(lines(report(), []), "not asked for")
        self.assertTrue(lines(heard, [kick | {"epoch": 13}]), "another session")
        self.assertTrue(lines(heard, [kick | {"code": 1001}]), "another code")


class Pushes(unittest.TestCase):
    def test_every_result_fits_the_ledger(self):
        ledger = soak_checks.Ledger(journal(), BOOT)
        lines = lambda *pushes: soak_checks.check_pushes(ledger, pushes)
        nobody = push("nobody-1", None, None, "unknown")
        self.assertEqual(lines(push(), push(seq=2, result="queued"), nobody), [])
        for wrong in [
            [push(), push()], [push(epoch=13)], [push(seq=None)], [push(ack=False)],
            [push(result="unknown", epoch=None, seq=None)], [push(result="lost")],
            [nobody | {"result": "offline"}],
        ]:
            self.assertTrue(lines(*wrong), wrong)

    def test_a_broadcast_reaches_whoever_is_online(self):
        ledger = soak_checks.Ledger(journal(), BOOT)
        cast = {"id": "1", "state": "done", "targets": 2, "results": {"delivered": 2},
                "group": None, "began": 3.3, "ended": 3.5}
        lines = lambda **changes: soak_checks.check_broadcasts(ledger, [cast | changes])
        self.assertEqual(lines(), [])
        self.assertTrue(lines(state="running"))
        self.assertTrue(lines(targets=1))
        self.assertTrue(lines(targets=1, results={"delivered": 1}))
        self.assertTrue(lines(targets=3, results={"delivered": 3}))
        self.assertTrue(lines(results={"lost": 2}))


class AWitness:
    name, said, taken, ended, repeated = "witness-0", 1, 1, None, 0
    heard = [(1, "a")]

    def text(self, number):
        return f"{self.name} says {number}"


class Witnesses(unittest.TestCase):
    def lines(self, pushes=(), said=("witness-0 says 1",), **changes):
        witness, messages = AWitness(), soak_feeds.Numbered("messages")
        for name, value in changes.items():
            setattr(witness, name, value)
        for number, text in enumerate(said, 1):
            messages.take(number, {"client": "witness-0", "text": text}, keep=True)
        return soak_checks.check_witnesses([witness], pushes, messages, messages)

    def test_what_was_acked_was_heard_and_what_was_said_came_up(self):
        sent = push("witness-0", 1, 1, "acked", text="a")
        self.assertEqual(self.lines([sent]), [])
        self.assertTrue(self.lines([sent | {"text": "b"}]), "acked and not heard")
        self.assertTrue(self.lines([sent | {"result": "offline"}]), "it is here")
        self.assertTrue(self.lines(heard=[(1, "a"), (2, "a")]), "heard twice")
        self.assertTrue(self.lines(said=()), "nothing came up")
        self.assertTrue(self.lines(said=("witness-0 says 1",) * 2), "it came up twice")
        self.assertTrue(self.lines(taken=0), "it was not told that it was taken")
        self.assertTrue(self.lines(ended="code 202"))


class Sums(unittest.TestCase):
    METRICS = {
        "heartwheel_connections": {"online": 0, "held": 0}, "heartwheel_events_total": 7,
        "heartwheel_verdict_lateness_seconds_count": 1, "heartwheel_false_offline_total": 0,
        "heartwheel_data_received_total": 5, "heartwheel_data_taken_total": 5,
        "heartwheel_up_bytes": 0, "heartwheel_journal_dropped_total": 0,
        "heartwheel_journal_gaps_total": 0, "heartwheel_connections_accepted_total": 3,
        "heartwheel_sessions_began_total": 3,
        "heartwheel_sessions_ended_total": {"heartbeat_timeout": 1, "kicked": 1, "bye": 1},
        "heartwheel_connections_ended_total": {"heartbeat_timeout": 1, "kicked": 1, "bye": 1},
    }

    def test_each_one_agrees_with_the_ledger(self):
        ledger = soak_checks.Ledger(journal(), BOOT)
        lines = lambda metrics: soak_checks.check_metrics(metrics, ledger, 7, 5)
        self.assertEqual(lines(self.METRICS), [])
        for name, value in self.METRICS.items():
            for key in value if isinstance(value, dict) else [None]:
                other = json.loads(json.dumps(self.METRICS))
                if key is None:
                    other[name] += 1
                else:
                    other[name][key] += 1
                self.assertTrue(lines(other), f"{name} {key}")


class Leaks(unittest.TestCase):
    def growth(self, per_s_kib, run_s=300):
        samples = [{"at": at, "rss_kib": 50_000 + per_s_kib * at} for at in range(run_s)]
        warm, end, allowed = soak_checks.growth(samples, 0, run_s, 20_000, 100_000)
        return end - warm > allowed

    def test_memory_that_grows_with_time_is_noticed(self):
        self.assertFalse(self.growth(0))
        self.assertFalse(self.growth(5))
        self.assertTrue(self.growth(30))


if __name__ == "__main__":
    unittest.main()
