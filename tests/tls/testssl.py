#!/usr/bin/env python3
"""What does testssl.sh say of the port of clients and of the admin API? Four minutes.

    cargo build --release
    tests/tls/testssl.py                     # Debian: the package testssl.sh
    tests/tls/testssl.py --small             # versions only, half a minute

Starts a gateway with a certificate of an authority made for it, has both ports tried, and prints a
summary. The exit code is 0 when nothing was found but the remarks that are known, each with its
reason below; 1 when there is something else; 2 when it could not be tried.
"""

import argparse
import collections
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SECONDS_MAX = 900
START_SECONDS_MAX = 30
# What it finds fault with, and why that stands.
KNOWN = {
    "cipher_order": "the client's order counts: each is as good as another, and it knows its hardware",
    "cert_revocation": "the certificate of this test names no list of revoked ones",
    "cert_trust": "the authority of this test is nobody's",
    "DNS_CAArecord": "nobody has said in DNS who signs for localhost",
    "HSTS": "it would hold for every port of the host, others' too",
}
FAULTS = {"LOW", "MEDIUM", "HIGH", "CRITICAL", "WARN", "FATAL"}


def options():
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("--program", default=str(ROOT / "target/release/heartwheel"))
    words.add_argument("--testssl", help="where testssl.sh is (default: in PATH)")
    words.add_argument("--small", action="store_true", help="look at versions only")
    words.add_argument("--json", help="file for all that was found")
    return words.parse_args()


def fail(line):
    print(f"testssl.py: {line}", file=sys.stderr)
    sys.exit(2)


def make_papers(folder):
    """An authority, and a certificate of it for localhost."""
    curve = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    for words in [
        f"req -x509 {curve} -subj /CN=authority -days 300 -keyout ca.key -out ca.pem",
        f"req {curve} -subj /CN=localhost -keyout gate.key -out gate.csr",
        "x509 -req -in gate.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 200"
        " -extfile names -out gate.pem",
    ]:
        subprocess.run(["openssl", *words.split()], cwd=folder, check=True, capture_output=True)


def start(program, folder):
    """The gateway, and where its two ports are."""
    pair = ["--tls-cert", "gate.pem", "--tls-key", "gate.key"]
    admin = ["--admin", "127.0.0.1:0", "--admin-tls-cert", "gate.pem", "--admin-tls-key", "gate.key"]
    with open(folder / "log", "w") as log:
        gate = subprocess.Popen(
            [program, "serve", "--listen", "127.0.0.1:0", "--events", "off", *pair, *admin],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
        )
    ended, until = False, time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < until and not ended:
        ended = gate.poll() is not None
        said = (folder / "log").read_text()
        found = re.search(r"listening on \S+:(\d+) .*admin API on \S+:(\d+)\)", said)
        if found:
            return gate, [("clients", found[1]), ("admin API", found[2])]
        time.sleep(0.05)
    gate.kill()
    gate.wait()
    fail("the gateway did not start: " + (said.strip().splitlines() or ["it said nothing"])[-1])


def scan(testssl, port, folder, small):
    """All that testssl.sh finds at a port."""
    findings = folder / f"{port}.json"
    words = [testssl, "--quiet", "--warnings", "off", "--color", "0", "--add-ca", "ca.pem"]
    words += ["--protocols"] if small else []
    words += ["--jsonfile", str(findings), f"localhost:{port}"]
    # It starts many others, which end with it.
    run = subprocess.Popen(
        words, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )
    try:
        printed, _ = run.communicate(timeout=SECONDS_MAX)
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate()
        fail(f"testssl.sh did not end within {SECONDS_MAX} s")
    try:
        return json.loads(findings.read_text())
    except (OSError, ValueError):
        fail("testssl.sh found nothing: " + (printed.strip().splitlines() or ["it is silent"])[-1])


def summary(name, found, small):
    """What is to be said of a port, and what should not be there."""
    lines, by_id = [f"{name}:"], {entry["id"]: entry for entry in found}
    wrong = []
    offered = [word for word in ("SSLv2", "SSLv3", "TLS1", "TLS1_1", "TLS1_2", "TLS1_3")
               if by_id.get(word, {}).get("finding", "").startswith("offered")]
    lines.append(f"  versions: {', '.join(offered)}")
    if offered != ["TLS1_2", "TLS1_3"]:
        wrong.append(f"{name}: expected TLS 1.2 and 1.3, and nothing older")
    counts = collections.Counter(entry["severity"] for entry in found)
    lines.append("  " + ", ".join(f"{severity} {count}" for severity, count in sorted(counts.items())))
    if not small:
        ciphers = [entry for entry in found if entry["id"].startswith("cipher_x")]
        lines.append(f"  ciphers: {len(ciphers)}")
        plays = [entry for entry in found if entry["id"].startswith("clientsimulation-")]
        out = [entry["id"].split("-", 1)[1] for entry in plays if entry["finding"] == "No connection"]
        lines.append(f"  clients that it plays: {len(plays)}, not let in: {', '.join(out) or 'none'}")
        if len(ciphers) == 0 or len(plays) < 10:
            wrong.append(f"{name}: it did not look at everything")
    for entry in found:
        if entry["severity"] in FAULTS:
            said = f"{entry['id']} ({entry['severity']}): {entry['finding']}"
            lines.append(f"  remark {said}; {KNOWN.get(entry['id'], 'NOT KNOWN')}")
            if entry["id"] not in KNOWN:
                wrong.append(f"{name}: {said}")
    return lines, wrong


def main():
    said = options()
    testssl = said.testssl or shutil.which("testssl") or shutil.which("testssl.sh")
    if testssl is None or shutil.which(testssl) is None:
        fail("testssl.sh is not installed; install the package testssl.sh, or say --testssl FILE")
    if shutil.which(said.program) is None:
        fail(f"there is no {said.program}; build it, or say --program FILE")
    everything, wrong = {}, []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        make_papers(folder)
        gate, ports = start(os.path.abspath(said.program), folder)
        try:
            for name, port in ports:
                found = scan(os.path.abspath(shutil.which(testssl)), port, folder, said.small)
                everything[name] = found
                lines, faults = summary(name, found, said.small)
                print("\n".join(lines), flush=True)
                wrong += faults
        finally:
            gate.terminate()
            gate.wait()
    if said.json:
        pathlib.Path(said.json).write_text(json.dumps(everything, indent=1))
    for line in wrong:
        print(f"testssl.py: {line}", file=sys.stderr)
    if not wrong:
        print("nothing but what is known")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
