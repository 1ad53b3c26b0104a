"""What must hold after a soak. Each check gives back lines, one for whatever does not fit."""

import collections
import statistics
import time

import soak_feeds
import soak_orders

# Memory may grow by this much between a third of the run and its end: what has a bound is touched
# for the first time now and then, receive buffers for one (2 MiB a ring). Beside that, events in
# memory, of which the latest 16,384 are kept, take their room.
GROWTH_SHARE, GROWTH_KIB = 0.05, 4_096
EVENTS_KEPT, EVENT_BYTES = 16_384, 512
# Connections of the API that stay open for a while after an answer.
DESCRIPTORS_TOLERANCE = 4
# How far the clock of an event and of an order may be apart.
CLOCK_MS = 250
LISTED_MAX = 5


def until(wait_s, is_so):
    """Waits until it is so, for so long at most. Whether it is."""
    end = time.monotonic() + wait_s
    while not is_so():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def few(lines):
    """Some of many lines that say the same."""
    more = len(lines) - LISTED_MAX
    return lines[:LISTED_MAX] + ([f"… and {more} more of these"] if more > 0 else [])


class Session:
    """From an ONLINE to its OFFLINE."""

    def __init__(self, online):
        self.client, self.epoch = online["client"], online["epoch"]
        self.since_ms, self.ended_ms, self.reason = online["at_unix_ms"], None, None

    @property
    def fleet(self):
        return self.client.rsplit("-", 1)[0]


class Ledger:
    """The journal, read once from its first event to its last."""

    def __init__(self, events, boot):
        self.wrong, self.sessions, self.open = [], {}, {}
        self.kinds, self.reasons = collections.Counter(), collections.Counter()
        self.last, self.epochs = 0, {}
        for event in events:
            self.take(event, boot)
        if not events or events[0]["event"] != "started" or events[-1]["event"] != "stopped":
            self.wrong.append("it does not begin with started and end with stopped")
        for session in self.open.values():
            self.wrong.append(f"{session.client} came online and was never closed")

    def take(self, event, boot):
        kind, seq = event["event"], event.get("seq")
        if kind in ("gap", "damaged"):
            self.wrong.append(f"{kind} in the journal: {event}")
            return
        if (event["boot"], seq) != (boot, self.last + 1):
            self.wrong.append(f"{event['boot']}:{seq} comes right after {boot}:{self.last}")
        self.last = seq
        self.kinds[kind] += 1
        {"online": self.online, "offline": self.offline}.get(kind, lambda _: None)(event)

    def online(self, event):
        session = Session(event)
        if session.client in self.open:
            self.wrong.append(f"{session.client} came online twice (seq {event['seq']})")
        if session.epoch <= self.epochs.get(session.client, 0):
            self.wrong.append(f"{session.client} has an epoch that is not larger than before")
        self.epochs[session.client] = session.epoch
        self.open[session.client] = self.sessions[session.client, session.epoch] = session

    def offline(self, event):
        session = self.open.pop(event["client"], None)
        self.reasons[event["reason"]] += 1
        if session is None or session.epoch != event["epoch"]:
            self.wrong.append(f"{event['client']} went offline and was not online: {event['seq']}")
            return
        session.ended_ms, session.reason = event["at_unix_ms"], event["reason"]

    def of(self, fleet):
        return [session for session in self.sessions.values() if session.fleet == fleet]


def check_copies(prints, last, copies):
    """Every copy has what the journal has up to a number."""
    failed = []
    for copy in copies:
        failed += few(copy.wrong)
        other = [seq for seq in range(1, last + 1) if copy.prints.get(seq) != prints.get(seq)]
        failed += few([f"{copy.name}: event {seq} is not the one of the journal" for seq in other])
    return failed


def check_fleet(report, ledger, name, ended_ms):
    """What the fleet says of itself, against the ledger."""
    failed = []
    for what in ("false_offline", "detected_early", "undetected", "refused"):
        if report[what]:
            failed.append(f"fleet {name}: {what} is {report[what]}: {report['errors']}")
    if report["connected"] != report["clients"]:
        failed.append(f"fleet {name}: {report['connected']} of {report['clients']} connected")
    sessions = ledger.of(name)
    known = report["sessions"] + report["parts"].get("slow_readers", 0)
    # Whoever came right before the end was perhaps cut off before it heard its welcome.
    unheard = sum(session.since_ms > ended_ms - 2_000 for session in sessions)
    if not known <= len(sessions) <= known + unheard:
        failed.append(f"fleet {name}: it knows of {known} sessions, the ledger of {len(sessions)}")
    found = report["detection_ms"]["n"]
    if report["fell_silent"] != found + report["undecided"]:
        failed.append(f"fleet {name}: {report['fell_silent']} fell silent, {found} were found")
    timed_out = sum(session.reason == "heartbeat_timeout" for session in sessions)
    most = found + report["overslept"] + report["undecided"]
    if not found <= timed_out <= most:
        failed.append(f"fleet {name}: {found} to {most} timed out, by the ledger {timed_out}")
    return failed


def check_kicks(report, ledger, kicks):
    failed = []
    kicked = [s for s in ledger.sessions.values() if s.reason == "kicked"]
    if len(kicked) != len(kicks):
        failed.append(f"{len(kicks)} kicks were done, the ledger has {len(kicked)}")
    for kick in kicks:
        session = ledger.sessions.get((kick["client"], kick["epoch"]))
        if session is None or session.reason != "kicked":
            failed.append(f"{kick['client']} was kicked, its session {kick['epoch']} not closed so")
    heard = report["errors"].get("ended_kicked", 0), report["errors"].get("ended_unknown_code", 0)
    asked = tuple(sum((kick["code"] == 300) == ours for kick in kicks) for ours in (True, False))
    if heard != asked:
        failed.append(f"kicked with 300 and 1001: {asked}, the fleet heard {heard}")
    return few(failed)


def check_pushes(ledger, pushes):
    """Every result speaks of a session that was, and no number is given out twice."""
    failed, numbers = [], collections.Counter()
    names = {client for client, _ in ledger.sessions}
    for push in pushes:
        client, epoch, result = push["client"], push["epoch"], push["result"]
        if result not in soak_orders.RESULTS:
            failed.append(f"push to {client}: result {result!r}")
        if epoch is not None and (client, epoch) not in ledger.sessions:
            failed.append(f"push to {client}: no session has the epoch {epoch}")
        if result in ("delivered", "acked", "queued") and None in (epoch, push["seq"]):
            failed.append(f"push to {client}: {result} without a number")
        if result == "unknown" and client in names and not client.startswith("nobody"):
            failed.append(f"push to {client}: unknown, and it was here")
        if client not in names and result != "unknown":
            failed.append(f"push to {client}: {result}, and it never was here")
        if result == "acked" and (not push["ack"] or client.startswith("slow-")):
            failed.append(f"push to {client}: acked, by one who does not")
        if push["seq"] is not None:
            numbers[client, epoch, push["seq"]] += 1
    failed += [f"push: number {key} was given {n} times" for key, n in numbers.items() if n > 1]
    return few(failed)


def check_broadcasts(ledger, broadcasts):
    failed = []
    for cast in broadcasts:
        results, targets = cast["results"], cast["targets"]
        if cast["state"] != "done":
            failed.append(f"broadcast {cast['id']} did not end within 30 s")
        if sum(results.values()) != targets or not set(results) <= soak_orders.RESULTS:
            failed.append(f"broadcast {cast['id']}: {targets} targets, results {results}")
        began, ended = cast["began"] * 1_000 - CLOCK_MS, cast["ended"] * 1_000 + CLOCK_MS
        most = sum(session.since_ms <= ended and session.ended_ms >= began
                   for session in ledger.sessions.values() if session.ended_ms)
        least = sum(session.since_ms <= began and session.ended_ms >= ended
                    for session in ledger.sessions.values() if session.ended_ms)
        if not (0 if cast["group"] else least) <= targets <= most:
            failed.append(f"broadcast {cast['id']}: {targets} targets of {least} to {most} online")
    return few(failed)


def check_witnesses(witnesses, pushes, messages, hooked):
    """What a few clients heard is what they were sent, and what they said came up."""
    failed = []
    said_of = collections.defaultdict(list)
    for taken in messages.values.values():
        said_of[taken["client"]].append(taken["text"])
    sent = collections.defaultdict(list)
    for push in pushes:
        sent[push["client"]].append(push)
    for witness in witnesses:
        name = witness.name
        if witness.ended:
            failed.append(f"{name} was ended: {witness.ended}")
        heard = collections.Counter(text for _, text in witness.heard)
        failed += [f"{name} heard {text!r} {n} times" for text, n in heard.items() if n > 1]
        for push in sent[name]:
            has = heard[push["text"]] == 1
            if push["result"] in ("acked", "delivered") and not has:
                failed.append(f"{name} did not hear what was {push['result']}: {push['text']}")
            if push["result"] in ("offline", "unknown"):
                failed.append(f"{name} was here all the time, and a push was {push['result']}")
        if witness.repeated:
            failed.append(f"{name} heard numbers of DATA that do not grow")
        expected = [witness.text(number) for number in range(1, witness.said + 1)]
        if witness.taken != witness.said:
            failed.append(f"{name} said {witness.said}, and {witness.taken} were taken")
        if said_of[name] != expected:
            failed.append(f"{name} said {witness.said}, {len(said_of[name])} came up in its order")
    failed += messages.wrong + hooked.wrong
    both = set(messages.prints) & set(hooked.prints)
    if any(messages.prints[number] != hooked.prints[number] for number in both):
        failed.append("followers of messages heard different things")
    if messages.last != hooked.last:
        failed.append(f"messages up to {messages.last} by SSE, to {hooked.last} by webhook")
    return few(failed)


def check_metrics(metrics, ledger, last, said):
    """Sums that must agree with the ledger, up to its number `last`."""
    ended = metrics["heartwheel_connections_ended_total"]
    rows = [
        ("sessions that began", metrics["heartwheel_sessions_began_total"], ledger.kinds["online"]),
        ("connections online", metrics["heartwheel_connections"]["online"], 0),
        ("sessions held", metrics["heartwheel_connections"]["held"], 0),
        ("events", metrics["heartwheel_events_total"], last),
        ("verdicts", metrics["heartwheel_verdict_lateness_seconds_count"],
         ledger.reasons["heartbeat_timeout"]),
        ("false offline", metrics["heartwheel_false_offline_total"], 0),
        ("DATA received", metrics["heartwheel_data_received_total"], said),
        ("DATA taken", metrics["heartwheel_data_taken_total"], said),
        ("DATA waiting", metrics["heartwheel_up_bytes"], 0),
        ("journal dropped", metrics["heartwheel_journal_dropped_total"], 0),
        ("journal gaps", metrics["heartwheel_journal_gaps_total"], 0),
    ]
    # Connections without a session may end so too, but not for these reasons.
    for reason in ("heartbeat_timeout", "kicked", "slow_consumer", "bye"):
        rows.append((f"ended by {reason}", ended.get(reason, 0), ledger.reasons[reason]))
    for reason, number in metrics["heartwheel_sessions_ended_total"].items():
        rows.append((f"sessions ended by {reason}", number, ledger.reasons[reason]))
    failed = [f"metrics: {what} is {is_:.0f}, not {ought}" for what, is_, ought in rows
              if is_ != ought]
    accepted, gone = metrics["heartwheel_connections_accepted_total"], sum(ended.values())
    if accepted != gone:
        failed.append(f"metrics: {accepted:.0f} connections accepted, {gone:.0f} ended")
    return failed


def growth(samples, began, run_s, events_warm, events_end):
    """Memory when warm and at the end, in KiB, and how much more is allowed."""
    part = lambda low, high: statistics.median(
        sample["rss_kib"] for sample in samples
        if began + low * run_s <= sample["at"] <= began + high * run_s)
    warm, end = part(0.3, 0.45), part(0.85, 1)
    filling = min(EVENTS_KEPT, events_end) - min(EVENTS_KEPT, events_warm)
    allowed = max(GROWTH_SHARE * warm, GROWTH_KIB) + filling * EVENT_BYTES / 1_024
    return warm, end, allowed


def events_until(journal, seconds):
    """How many events there were so many seconds after the first."""
    first = journal[0]["at_unix_ms"]
    return sum(event["at_unix_ms"] <= first + seconds * 1_000 for event in journal)


def check_leaks(world, found):
    failed = []
    began = world.began - world.before["at"]
    events_warm = events_until(world.journal, began + 2 + 0.3 * world.run_s)
    warm, end, allowed = growth(
        world.server.samples, world.began, world.run_s, events_warm, len(world.journal))
    found.update(rss_warm_mib=warm / 1024, rss_end_mib=end / 1024,
                 rss_growth_allowed_mib=allowed / 1024, rss_after_mib=world.after["rss_kib"] / 1024,
                 rss_before_mib=world.before["rss_kib"] / 1024,
                 descriptors_before=world.before["descriptors"],
                 descriptors_most=max(s["descriptors"] for s in world.server.samples),
                 descriptors_after=world.after["descriptors"],
                 sockets_before=world.sockets_before, sockets_after=world.sockets_after)
    if end - warm > allowed:
        failed.append(f"memory grew from {warm} to {end} KiB; {allowed:.0f} more are allowed")
    more = world.after["descriptors"] - world.before["descriptors"]
    if more > DESCRIPTORS_TOLERANCE:
        failed.append(f"{more} descriptors more are open than before the first client")
    if world.sockets_after > world.sockets_before:
        failed.append(f"sockets: {world.sockets_before} before, {world.sockets_after} after")
    return failed


def verdict(world):
    """All that does not fit, and the figures."""
    ledger = Ledger(world.journal, world.boot)
    reports, orders, hook = world.reports, world.orders, world.receiver.streams
    witnesses = world.witnesses.all
    talked = sum(witness.said for witness in witnesses)
    found = figures(world, ledger, talked)
    failed = [f"ledger: {line}" for line in few(ledger.wrong)]
    if world.journal_error:
        failed.append(f"the journal cannot be read: {world.journal_error}")
    prints = {e["seq"]: soak_feeds.fingerprint(e) for e in world.journal if "seq" in e}
    copies = [world.ledger.taken, world.steady.taken, hook["events"]]
    failed += check_copies(prints, world.last, copies)
    failed += few(world.receiver.wrong)
    for name, report in reports.items():
        ended_ms = max((s.ended_ms or 0 for s in ledger.of(name)), default=0)
        failed += check_fleet(report, ledger, name, ended_ms)
    failed += check_kicks(reports["plain"], ledger, orders.kicks)
    failed += few(orders.wrong)
    failed += check_pushes(ledger, orders.pushes)
    failed += check_broadcasts(ledger, orders.broadcasts)
    failed += check_witnesses(witnesses, orders.pushes, world.messages.taken, hook["messages"])
    failed += check_metrics(world.metrics, ledger, world.last, talked)
    failed += check_leaks(world, found)
    if world.server_exit != 0:
        failed.append(f"the gateway's exit code is {world.server_exit}")
    return failed, found


def figures(world, ledger, talked):
    said, reports, orders = world.said, world.reports.values(), world.orders
    total = lambda name: sum(report[name] for report in reports)
    pushed = collections.Counter(push["result"] for push in orders.pushes)
    casts = orders.broadcasts
    receiver = world.receiver
    return {
        "clients": said.clients, "run_s": world.run_s, "seed": said.seed, "shards": said.shards,
        "interval_s": said.interval, "timeout_s": said.timeout,
        "beats_sent": total("beats_sent"), "sessions": len(ledger.sessions),
        "events": ledger.last, "journal_segments": world.journal_segments,
        "ended": dict(ledger.reasons.most_common()),
        "fell_silent": total("fell_silent"), "found": sum(r["detection_ms"]["n"] for r in reports),
        "detection_ms_p99": max(r["detection_ms"]["p99"] for r in reports),
        "detection_ms_max": max(r["detection_ms"]["max"] for r in reports),
        "false_offline": total("false_offline"), "overslept": total("overslept"),
        "rtt_us_p50": max(r["rtt_us"]["p50"] for r in reports),
        "rtt_us_p99": max(r["rtt_us"]["p99"] for r in reports),
        "orders": orders.count, "pushes": dict(pushed.most_common()),
        "broadcasts": len(casts), "broadcast_targets": sum(cast["targets"] for cast in casts),
        "kicks": len(orders.kicks), "rhythms": orders.rhythms[200],
        "messages_up": talked,
        "heard_by_witnesses": sum(len(witness.heard) for witness in world.witnesses.all),
        "feeds_resumed": sum(feed.resumed for feed in world.feeds),
        "webhook_batches": receiver.batches, "webhook_restarts": receiver.restarts,
        "webhook_refused": receiver.refused, "webhook_unanswered": receiver.unanswered,
        "webhook_repeated": sum(taken.repeated for taken in receiver.streams.values()),
        "server_cpu_s": world.server.samples[-1]["cpu_s"],
        "machine": next(iter(reports))["machine"], "version": next(iter(reports))["version"],
    }
