"""What every load is made of."""

import random
import string
import time
from dataclasses import dataclass


RATE = ("MB/s", "CPU-s/GiB")
DELAY = ("p50 ms", "p99 ms")


@dataclass
class Result:
    """What one run of a load gave: figures by their column, and how many bytes of payload they cost."""

    figures: dict
    payload_bytes: int = 0


@dataclass
class Load:
    name: str
    what: str
    # The brokers it is for, by name.
    brokers: tuple
    # Called with the broker after it has started; its answer is given to `run`. Costs are measured for `run` alone.
    run: object
    prepare: object = None
    # Left out unless named: takes long.
    long: bool = False
    # The load measures the start itself, so the broker is given unstarted.
    unstarted: bool = False
    # The columns that the summary shows; the first tells which peer is the best.
    headline: tuple = RATE


def name(prefix="bench"):
    return prefix + "-" + "".join(random.choices(string.ascii_lowercase, k=8))


def quantiles(values, *parts):
    ordered = sorted(values)
    return [ordered[min(int(len(ordered) * part), len(ordered) - 1)] for part in parts]


class Stopwatch:
    def __enter__(self):
        self.began = time.perf_counter()
        return self

    def __exit__(self, *_):
        self.seconds = time.perf_counter() - self.began
