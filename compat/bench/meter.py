"""What a broker costs: its CPU time, memory and written bytes, read from /proc for the whole tree of its processes."""

import mmap
import os
import threading
import time
from dataclasses import dataclass

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def tree(pid):
    """The process and all its descendants."""
    found = [pid]
    for parent in found:
        try:
            for task in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{task}/children") as children:
                    found += [int(child) for child in children.read().split()]
        except OSError:
            pass  # It has ended meanwhile.
    return found


def cpu_seconds(pid):
    total = 0
    for one in tree(pid):
        try:
            with open(f"/proc/{one}/stat") as stat:
                fields = stat.read().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        except OSError:
            pass
    return total / TICKS


def resident_bytes(pid):
    total = 0
    for one in tree(pid):
        try:
            with open(f"/proc/{one}/statm") as statm:
                total += int(statm.read().split()[1]) * PAGE
        except OSError:
            pass
    return total


def written_bytes(pid):
    """Bytes sent towards the disk. What the page cache still holds counts, what was dropped from it does not."""
    total = 0
    for one in tree(pid):
        try:
            with open(f"/proc/{one}/io") as io:
                lines = dict(line.split(": ") for line in io.read().splitlines())
            total += int(lines["write_bytes"]) - int(lines["cancelled_write_bytes"])
        except OSError:
            pass
    return total


def quiet(pid, patience_seconds=30):
    """Waits until it does next to nothing, so that what one load has left to do is not counted to the next."""
    until = time.monotonic() + patience_seconds
    while time.monotonic() < until:
        before = cpu_seconds(pid)
        time.sleep(0.5)
        if cpu_seconds(pid) - before <= 0.05:
            return


# What a load makes the system take, at most.
IN_HAND_BYTES = 6 << 30


def memory_in_hand():
    """Leaves the system with free memory that was just in use. A virtual machine may have given the rest to its host, and
    whoever comes first after a pause would be measured getting it back."""
    with open("/proc/meminfo") as meminfo:
        free = next(int(line.split()[1]) for line in meminfo if line.startswith("MemFree:")) << 10
    size = min(IN_HAND_BYTES, free * 3 // 4) // PAGE * PAGE
    with mmap.mmap(-1, size) as memory:
        memory[::PAGE] = bytes(size // PAGE)


@dataclass
class Cost:
    cpu_seconds: float
    peak_bytes: int
    written_bytes: int


class Meter:
    """Measures from `with` to its end; the cost is there afterwards."""

    def __init__(self, pid, every_seconds=0.05):
        self.pid, self.every = pid, every_seconds
        self.peak, self.cost = 0, None
        self.over = threading.Event()
        self.watcher = threading.Thread(target=self.watch, daemon=True)

    def watch(self):
        while True:
            self.peak = max(self.peak, resident_bytes(self.pid))
            if self.over.wait(self.every):
                return

    def __enter__(self):
        self.cpu, self.written = cpu_seconds(self.pid), written_bytes(self.pid)
        self.watcher.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.watcher.join()
        self.cost = Cost(cpu_seconds(self.pid) - self.cpu, self.peak, written_bytes(self.pid) - self.written)
