"""What a soak asks of the gateway's admin API, and what it was answered."""

import collections
import http.client
import json
import random
import re
import threading
import time
import urllib.parse

GROUPS = ["north", "south", "east", "west"]
RESULTS = {"delivered", "acked", "queued", "offline", "slow", "unknown"}
METRIC = re.compile(r'^(\w+)(?:\{\w+="([^"]*)"(?:,[^}]*)?\})? (\S+)$')


class Caller:
    """Asks over one connection, and over another one when that is gone."""

    def __init__(self, admin):
        self.admin, self.connection = admin, None

    def call(self, method, path, body=None):
        """The status, and what was said."""
        data = None if body is None else json.dumps(body)
        for attempt in range(3):
            try:
                if self.connection is None:
                    self.connection = http.client.HTTPConnection(*self.admin, timeout=60)
                self.connection.request(method, path, data, {"content-type": "application/json"})
                answer = self.connection.getresponse()
                text = answer.read()
                kind = answer.headers.get("content-type", "")
                return answer.status, json.loads(text) if "json" in kind else text.decode()
            except (OSError, http.client.HTTPException):
                self.connection.close()
                self.connection = None
                # A connection that stood idle may be gone; an order must not be given twice.
                if method != "GET" or attempt == 2:
                    return None, None
        raise AssertionError("the last attempt returns")

    def get(self, path):
        status, said = self.call("GET", path)
        if status != 200:
            raise RuntimeError(f"GET {path}: {status} {said}")
        return said

    def metrics(self):
        """Numbers by name, or by name and the value of the first label."""
        found = {}
        for line in self.get("/metrics").splitlines():
            fits = METRIC.match(line)
            if not fits:
                continue
            name, label, value = fits.groups()
            number = float(value)
            if label is None:
                found[name] = number
            else:
                found.setdefault(name, {})[label] = number
        return found


class Orders:
    """Everything that was asked, and every answer that matters at the end."""

    def __init__(self, said, admin, plan, witnesses, quiet_at):
        self.said, self.admin, self.plan = said, admin, plan
        self.witnesses, self.quiet_at = witnesses, quiet_at
        self.count = 0
        self.numbers = 0
        self.lock = threading.Lock()
        self.pushes = []
        self.broadcasts = []
        self.kicks = []
        self.answers = collections.Counter()
        self.rhythms = collections.Counter()
        self.wrong = []
        works = [self.push_to_one] * 4 + [self.push_to_slow] * 2
        works += [self.push_to_many, self.disturb]
        self.threads = [threading.Thread(target=self.work, args=(work, number), daemon=True)
                        for number, work in enumerate(works)]

    def work(self, work, number):
        dice, caller = random.Random(self.said.seed * 10 + number), Caller(self.admin)
        try:
            while time.monotonic() < self.quiet_at:
                time.sleep(work(dice, caller))
        except Exception as fault:  # whatever it is, it is a line of the verdict
            self.wrong.append(f"the orders of {work.__name__} ended early: {fault!r}")

    def join(self):
        for thread in self.threads:
            thread.join(90)
            if thread.is_alive():
                self.wrong.append("an order was not answered within a minute and a half")

    def order(self, caller, method, path, body, expected):
        """Gives one and counts its answer; whatever is not expected is wrong."""
        self.count += 1
        status, said = caller.call(method, path, body)
        self.answers[status] += 1
        if status not in expected:
            self.wrong.append(f"{method} {path}: {status} {json.dumps(said)[:300]}")
            said = None
        return status, said

    def text(self):
        with self.lock:
            self.numbers += 1
            return f"message {self.numbers}"

    def name(self, dice, fleet):
        return f"{fleet}-{dice.randint(1, self.plan[fleet])}"

    def anybody(self, dice):
        fleet = dice.choice(["mixed", "mixed", "plain", "witness", "slow", "nobody"])
        if fleet == "witness":
            return dice.choice(self.witnesses)
        return self.name(dice, fleet) if fleet in self.plan else f"nobody-{dice.randint(1, 99)}"

    def note(self, result, text, ack):
        result = {**result, "text": text, "ack": ack}
        with self.lock:
            self.pushes.append(result)

    def push_to_one(self, dice, caller):
        name, text, ack = self.anybody(dice), self.text(), dice.random() < 0.6
        body = {"topic": "soak", "text": text, "ack": ack}
        if dice.random() < 0.7:
            body["wait_ms"] = dice.choice([100, 1_000])
        if dice.random() < 0.2:
            body["ttl_ms"] = dice.choice([500, 5_000])
        path = f"/v1/clients/{urllib.parse.quote(name)}/push"
        status, said = self.order(caller, "POST", path, body, {200})
        if said:
            self.note(said, text, ack)
        return dice.uniform(0, 0.05)

    def push_to_many(self, dice, caller):
        choice = dice.random()
        if choice < 0.5:
            names = sorted({self.anybody(dice) for _ in range(dice.randint(1, 256))})
            text, ack = self.text(), dice.random() < 0.5
            body = {"clients": names, "topic": "soak", "text": text, "ack": ack, "wait_ms": 500}
            status, said = self.order(caller, "POST", "/v1/push", body, {200})
            if said:
                if [result["client"] for result in said["results"]] != names:
                    self.wrong.append("a push to many was answered for others")
                for result in said["results"]:
                    self.note(result, text, ack)
        elif choice < 0.75:
            for _ in range(20):
                name = dice.choice([self.name(dice, "plain"), dice.choice(self.witnesses)])
                method = "PUT" if dice.random() < 0.8 else "DELETE"
                path = f"/v1/groups/{dice.choice(GROUPS)}/clients/{name}"
                self.order(caller, method, path, None, {200, 404})
        else:
            self.broadcast(dice, caller)
        return dice.uniform(0, 0.5)

    def broadcast(self, dice, caller):
        group = dice.choice([*GROUPS, None, None])
        path = f"/v1/groups/{group}/push" if group else "/v1/broadcast"
        text = self.text()
        body = {"topic": "soak", "text": text, "ack": dice.random() < 0.5, "ttl_ms": 3_000}
        began = time.time()
        status, said = self.order(caller, "POST", path, body, {202})
        until = time.monotonic() + 30
        while said and said["state"] != "done" and time.monotonic() < until:
            time.sleep(0.1)
            status, said = self.order(caller, "GET", f"/v1/broadcasts/{said['id']}", None, {200})
        if said:
            self.broadcasts.append({**said, "group": group, "began": began, "ended": time.time(),
                                    "text": text})

    def disturb(self, dice, caller):
        if dice.random() < 0.4:
            name = self.name(dice, "plain")
            interval_s = self.said.interval * dice.choice([0.8, 1, 1.5])
            body = {"interval_ms": max(1_000, int(interval_s * 1_000)),
                    "timeout_ms": int(1_000 * (2.5 * interval_s + 2))}
            path = f"/v1/clients/{name}/rhythm"
            status, said = self.order(caller, "POST", path, body, {200, 404})
            self.rhythms[status] += 1
        else:
            self.kick(dice, caller)
        return dice.uniform(0, 1)

    def kick(self, dice, caller):
        name, body = self.name(dice, "plain"), {"text": "a soak"}
        status, client = self.order(caller, "GET", f"/v1/clients/{name}", None, {200, 404})
        epoch = client["epoch"] if status == 200 else None
        if dice.random() < 0.3:
            body["code"] = 1001
        other = dice.random() < 0.2
        if epoch is not None and (other or dice.random() < 0.5):
            body["epoch"] = epoch + 1 if other else epoch
        expected = {404} if epoch is None else {404, 409} if other else {404, 200}
        status, said = self.order(caller, "POST", f"/v1/clients/{name}/kick", body, expected)
        if status == 200:
            self.kicks.append({"client": name, "epoch": epoch, "code": body.get("code", 300)})

    def push_to_slow(self, dice, caller):
        """To a few at a time who do not read, until they have no room: nobody else may notice."""
        past = 1 - (self.quiet_at - time.monotonic()) / self.said.run_s
        number = int(past * self.plan["slow"]) + dice.randrange(3)
        name, ack = f"slow-{min(number + 1, self.plan['slow'])}", dice.random() < 0.5
        text = self.text() + " " + "long " * 3_000
        body = {"topic": "soak", "text": text, "ack": ack}
        if dice.random() < 0.05:
            body["wait_ms"] = 1_500
        status, said = self.order(caller, "POST", f"/v1/clients/{name}/push", body, {200})
        if said:
            self.note(said, text[:20], ack)
        return dice.uniform(0, 0.05)


def start(said, admin, plan, witnesses, quiet_at):
    orders = Orders(said, admin, plan, witnesses, quiet_at)
    for thread in orders.threads:
        thread.start()
    return orders
