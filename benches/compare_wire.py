"""What is between the server and the load bench of `compare.py`: the loopback, or a virtual wire.

The wire is a veth pair between two network namespaces. Its kernel work of receiving is done by a
thread of each end (threaded NAPI), which is put on the core of that end, so that neither side does
the other's work inside its own system calls, and each side's can be counted.

`compare_wire.py DEVICE`, run in the namespace of a device, has such a thread receive for it.
"""

import array
import bisect
import contextlib
import fcntl
import itertools
import json
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

# For benchmarks between two networks (RFC 2544); no host on the Internet has such an address.
SERVER, BENCH = "198.18.0.1", "198.18.0.2"
FIRST_PORT = 7_100
# More than all clients together have under way. Nothing is lost in front of a wire that is full
# where veth holds its sender back (Linux 6.16), which it does where there is a queue.
QUEUE_PACKETS = 100_000
THREADS_PATIENCE_S = 2
# Often enough to see where a window of a second begins, and too seldom to be in the way.
SAMPLE_S = 0.05
# Of less than this part of the window nothing is told.
WINDOW_PART_MIN = 0.3
SIOCETHTOOL, ETHTOOL_STSO, ETHTOOL_SGRO = 0x8946, 0x1F, 0x2C


class NoWire(Exception):
    """Why no wire can be had here, and what would help."""


class Loopback:
    """Both sides on one loopback."""

    # What stands before the words of a command that is run on either side.
    at_server, at_bench = (), ()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def address(self):
        """Where the next server is to listen."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return f"127.0.0.1:{probe.getsockname()[1]}"

    def is_ready(self, _pid, address):
        """Whether the server listens there."""
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), 1).close()
            return True
        except OSError:
            return False

    def load_words(self, _pid):
        """What the load bench must know, beside the address."""
        return []

    def receiving(self):
        """What reads, during a run, what is done for the server beside its process."""
        return contextlib.nullcontext()

    def lost(self):
        """How many packets it has lost so far."""
        return 0


class Wire:
    """Two namespaces and the wire between them. Leaving the `with` removes it all."""

    def __init__(self, cores):
        self.cores = cores
        self.ends = [f"compare-{os.getpid()}-{side}" for side in ("server", "bench")]
        # A thread's name has 15 letters, and begins with `napi/` and the name of its device.
        self.devices = [f"{letter}{os.getpid()}" for letter in "sb"]
        self.at_server, self.at_bench = (["ip", "netns", "exec", end] for end in self.ends)
        self.ports = itertools.count(FIRST_PORT)
        self.receiver = None

    def __enter__(self):
        why = missing()
        if why:
            raise NoWire(why)
        try:
            self.lay()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        # A second signal must not keep half of it.
        kinds = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = [signal.signal(kind, signal.SIG_IGN) for kind in kinds]
        for end in self.ends:
            subprocess.run(["ip", "netns", "del", end], stderr=subprocess.DEVNULL)
        for kind, handler in zip(kinds, before):
            signal.signal(kind, handler)

    def lay(self):
        for end in self.ends:
            run("network namespaces cannot be made", "ip", "netns", "add", end)
        one, other = self.devices
        queues = ["numtxqueues", "1", "numrxqueues", "1"]
        run("no veth pair can be made", "ip", "link", "add", one, "netns", self.ends[0], *queues,
            "type", "veth", "peer", "name", other, "netns", self.ends[1], *queues)
        for end, device, address in zip(self.ends, self.devices, (SERVER, BENCH)):
            inside = ["ip", "-n", end]
            run("no address", *inside, "address", "add", f"{address}/24", "dev", device)
            run("no loopback", *inside, "link", "set", "lo", "up")
            run("no link", *inside, "link", "set", device, "up")
            run("no queue in front of the wire", "tc", "-n", end, "qdisc", "replace", "dev", device,
                "root", "pfifo", "limit", str(QUEUE_PACKETS))
        for end, device in zip(self.ends, self.devices):
            run("no threaded NAPI", "ip", "netns", "exec", end, sys.executable, "-B",
                os.path.abspath(__file__), device)
        threads = [thread_of(device) for device in self.devices]
        for thread, core in zip(threads, self.cores):
            if core is not None:
                os.sched_setaffinity(thread, {core})
        self.receiver = threads[0]

    def address(self):
        # All ports of a new namespace are free, and none is used twice.
        return f"{SERVER}:{next(self.ports)}"

    def is_ready(self, pid, address):
        # Looked up in the namespace where the process is by now.
        host, _, port = address.rpartition(":")
        packed = int.from_bytes(socket.inet_aton(host), sys.byteorder)
        wanted = f"{packed:08X}:{int(port):04X}"
        try:
            lines = pathlib.Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
        except OSError:
            return False
        return any(line.split()[1:4:2] == [wanted, "0A"] for line in lines)

    def load_words(self, pid):
        return ["--server-pid", str(pid)]

    def receiving(self):
        return Receiving(self.receiver)

    def lost(self):
        # The counters of a device are in the folder of its namespace alone.
        words = ["ip", "-json", "-stats", "-n"]
        told = [subprocess.run([*words, end, "link", "show", device], stdout=subprocess.PIPE)
                for end, device in zip(self.ends, self.devices)]
        return sum(json.loads(one.stdout)[0]["stats64"]["tx"]["dropped"] for one in told)


def missing():
    """What is missing for a wire, as far as can be seen without making one; None when nothing."""
    if os.geteuid() != 0:
        return "only the superuser may make network namespaces; run it as root"
    for command in ("ip", "tc"):
        if not shutil.which(command):
            return f"the command `{command}` is missing; install iproute2"
    return None


def run(failure, *words):
    done = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise NoWire(f"{failure}: {said[-1] if said else ' '.join(words)}")


def thread_of(device):
    """The kernel's thread that receives for a device."""
    patience = time.monotonic() + THREADS_PATIENCE_S
    while time.monotonic() < patience:
        for path in pathlib.Path("/proc").glob("[0-9]*/comm"):
            try:
                if path.read_text().startswith(f"napi/{device}-"):
                    return int(path.parent.name)
            except OSError:
                pass  # it has ended meanwhile
        time.sleep(0.02)
    raise NoWire("no threaded NAPI: the kernel's threads that receive cannot be seen from here")


def receive_by_thread(device):
    """Inside of the device's namespace: has a thread of the kernel receive for it."""
    # A veth device receives by NAPI where GRO is on and the sender does no TSO; both ends of the
    # pair send, and both receive.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for command, value in ((ETHTOOL_STSO, 0), (ETHTOOL_SGRO, 1)):
            asked = array.array("B", struct.pack("II", command, value))
            request = struct.pack("16sP16x", device.encode(), asked.buffer_info()[0])
            fcntl.ioctl(any_socket, SIOCETHTOOL, request)
    pathlib.Path(f"/sys/class/net/{device}/threaded").write_text("1")


class Receiving:
    """Reads again and again what a thread of the kernel has used, until the `with` is left."""

    def __init__(self, thread):
        self.thread = thread
        self.samples = []
        self.is_over = threading.Event()
        self.reader = threading.Thread(target=self.read, daemon=True)

    def __enter__(self):
        self.began = time.monotonic()
        self.reader.start()
        return self

    def __exit__(self, *_):
        self.ended = time.monotonic()
        self.is_over.set()
        self.reader.join()

    def read(self):
        path = f"/proc/{self.thread}/schedstat"
        while not self.is_over.wait(SAMPLE_S):
            try:
                used_ns, _waited_ns, turns = map(int, pathlib.Path(path).read_text().split())
            except OSError:
                self.samples.clear()  # it is gone, and what it used before says nothing
                return
            self.samples.append((time.monotonic(), used_ns, turns))

    def within(self, load, warm_up_s):
        """What it used inside the window of a run that began and ended with us."""
        window, connected, rate = load["window"], load["connected"], load["connect_per_s"]
        if not window or not rate:
            return None
        return between(self.samples, self.began, self.ended, connected / rate + warm_up_s,
                       window["lasted_s"])


def between(samples, began, ended, before_s, lasted_s):
    """What samples say of a window, or None.

    The run was started at `began`; from its first connection it took `before_s` until the window
    was opened, which lasted `lasted_s`; all was over at `ended`. How long the start and the end
    took is not known. But the window cannot have been opened later than `lasted_s` before the end,
    nor closed earlier than if the start had taken no time; what is between the two is inside.
    """
    at = [moment for moment, *_ in samples]
    first = bisect.bisect_left(at, ended - lasted_s)
    last = bisect.bisect_right(at, began + before_s + lasted_s) - 1
    if last <= first or at[last] - at[first] < lasted_s * WINDOW_PART_MIN:
        return None
    return {
        "what": "processor time that the kernel's thread which receives for the server used "
                "between two moments inside of the window, how far they are apart, and in how "
                "many turns on the processor it was used",
        "cpu_s": (samples[last][1] - samples[first][1]) / 1e9,
        "lasted_s": at[last] - at[first],
        "turns": samples[last][2] - samples[first][2],
    }


if __name__ == "__main__":
    try:
        receive_by_thread(sys.argv[1])
    except OSError as error:
        sys.exit(f"{error}; it needs a kernel that receives for veth devices by threads of NAPI")
