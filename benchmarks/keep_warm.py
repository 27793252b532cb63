"""What keeping idle machines costs by each rule, over what knowing the future would have cost.

A request takes the machine of its pool that was used last and is still there; else one boots, and
the boot is billed. Work takes as long as in the trace. What is counted is idle and boot time in
the second half of each trace; the first half is what the rules may have learnt from.
"""

from __future__ import annotations

import csv
import gzip
import os
import random
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks.figures import Figure
from gpubroker.policy.keep_warm import Gaps, KeepWarm, break_even, learnt

Request = tuple[float, float, str]
"""When it came, in seconds, how many seconds of work it was, and for which model."""

_IMAGES: Final = "genai-serving-alibaba-2026/lora_request_trace.csv.gz"
_JOBS: Final = "gpu-jobs-alibaba-2023/openb_pod_list_default.csv.gz"
_WORDS: Final = "llm-requests-azure-2023/AzureLLMInferenceTrace_{}.csv"
#: Seconds that a token is taken to need: that trace tells tokens only.
_TOKEN: Final = 0.03


@dataclass(slots=True)
class Score:
    """What was paid and what had to be, in seconds, and how many requests were cold, of all."""

    paid: float = 0.0
    least: float = 0.0
    cold: int = 0
    requests: int = 0

    @property
    def ratio(self) -> float:
        return self.paid / self.least

    @property
    def share(self) -> float:
        return self.cold / self.requests

    def told(self, cold_start: float) -> str:
        """Cold starts and the wait of 95 of 100 requests, for people."""
        wait = cold_start if self.share > 0.05 else 0.0
        return f"{self.share:.1%} cold, p95 wait {wait:g} s"


def keep_warm(rounds: int, home: Path) -> list[Figure]:
    """Every trace by both rules; with one round the synthetic ones only."""
    del home
    traces = dict(_synthetic())
    if rounds > 1:
        traces |= _recorded()
    figures: list[Figure] = []
    worst = 0.0
    for name, (requests, cold_start) in traces.items():
        usual = score(requests, break_even(), cold_start)
        ours = score(requests, learnt(), cold_start)
        worst = max(worst, usual.ratio)
        if name in _TARGETS:
            figures += _headline(name, ours, cold_start)
        figures.append(
            Figure(
                what=f"idle and boot, {name}: `learnt`",
                value=ours.ratio,
                unit="x the least",
                beside="`break_even`",
                other=usual.ratio,
                limit=1.05,
                of_other=True,
                note=f"{ours.told(cold_start)}; break-even {usual.told(cold_start)}",
            )
        )
    everywhere = Figure(
        what="idle and boot, the worst of all: `break_even`",
        value=worst,
        unit="x the least",
        limit=2,
    )
    return [*figures, everywhere]


#: What the default rule must reach, over the least and in cold starts (%).
_TARGETS: Final = {
    "images, one pool, boot 300 s": (1.40, 10.0),
    "images, a pool per model, boot 120 s": (1.50, None),
}


def _headline(name: str, found: Score, cold_start: float) -> Iterator[Figure]:
    ratio, cold = _TARGETS[name]
    yield Figure(
        what=f"target: {name}",
        value=found.ratio,
        unit="x the least",
        limit=ratio,
        note=found.told(cold_start),
    )
    if cold is not None:
        yield Figure(
            what=f"target: {name}, cold starts", value=found.share * 100, unit="%", limit=cold
        )


def score(requests: list[Request], rule: KeepWarm, cold_start: float) -> Score:
    """What a rule costs in the second half of a trace, pools of different models apart."""
    half = (requests[0][0] + requests[-1][0]) / 2
    pools: defaultdict[str, list[Request]] = defaultdict(list)
    for request in requests:
        pools[request[2]].append(request)
    found = Score()
    for pool in pools.values():
        _replay(pool, rule, cold_start, half, found)
    return found


def _replay(
    pool: list[Request], rule: KeepWarm, cold_start: float, half: float, found: Score
) -> None:
    gaps, end = Gaps(), pool[-1][0]
    idle: list[float] = []  # since when, had all been kept
    kept: list[tuple[float, float]] = []  # since when and until when those are that were
    for at, begins in _edges(pool):
        gone = [each for each in kept if each[1] < at]
        kept = [each for each in kept if each[1] >= at]
        found.paid += sum(max(0.0, until - max(since, half)) for since, until in gone)
        if not begins:
            idle.append(at)
            gaps.ended(at)
            kept.append((at, at + rule(gaps, cold_start)))
            continue
        gaps.began(at)
        gap = at - idle.pop() if idle else cold_start
        cold = not kept
        if kept:
            found.paid += max(0.0, at - max(kept.pop()[0], half))
        if at >= half:
            found.requests += 1
            found.least += min(gap, cold_start)
            found.cold += cold
            found.paid += cold_start * cold
    found.paid += sum(max(0.0, min(until, end) - max(since, half)) for since, until in kept)


def _edges(pool: Iterable[Request]) -> list[tuple[float, bool]]:
    ends = [(at + seconds, False) for at, seconds, _ in pool]
    return sorted([*((at, True) for at, _, _ in pool), *ends])


# ---- traces --------------------------------------------------------------------------------


def _recorded() -> Iterator[tuple[str, tuple[list[Request], float]]]:
    folder = Path(os.environ.get("GPUBROKER_REFERENCE", "/nowhere")) / "traces"
    if not folder.is_dir():
        print("keep_warm: GPUBROKER_REFERENCE names no folder that has traces/", file=sys.stderr)
        return
    images = sorted(_images(folder / _IMAGES))
    shared = [(at, seconds, "") for at, seconds, _ in images]
    yield "images, one pool, boot 300 s", (shared, 300.0)
    yield "images, one pool, boot 120 s", (shared, 120.0)
    yield "images, a pool per model, boot 300 s", (images, 300.0)
    yield "images, a pool per model, boot 120 s", (images, 120.0)
    yield "GPU jobs, boot 300 s", (sorted(_jobs(folder / _JOBS)), 300.0)
    for kind in ("code", "conv"):
        words = sorted(_words(folder / _WORDS.format(kind)))
        yield f"LLM requests ({kind}), boot 120 s", (words, 120.0)


def _images(path: Path) -> Iterator[Request]:
    with gzip.open(path, "rt") as file:
        for row in csv.DictReader(file):
            if row["exec_time_seconds"]:
                at = datetime.fromisoformat(row["gmt_create"]).replace(tzinfo=UTC).timestamp()
                yield at, float(row["exec_time_seconds"]), row["checkpoint_model_version_id"]


def _jobs(path: Path) -> Iterator[Request]:
    with gzip.open(path, "rt") as file:
        for row in csv.DictReader(file):
            if int(row["num_gpu"]) and row["deletion_time"]:
                at = float(row["creation_time"])
                if (until := float(row["deletion_time"])) > at:
                    yield at, until - at, ""


def _words(path: Path) -> Iterator[Request]:
    with path.open() as file:
        for row in csv.DictReader(file):
            at = datetime.fromisoformat(row["TIMESTAMP"][:26]).replace(tzinfo=UTC).timestamp()
            yield at, _TOKEN * (1 + int(row["GeneratedTokens"])), ""


def _synthetic() -> Iterator[tuple[str, tuple[list[Request], float]]]:
    """Always the same ones: one seed each."""
    for gap in (30, 120, 300, 900):
        yield f"Poisson, every {gap} s, boot 300 s", (_poisson(random.Random(gap), gap), 300.0)
    yield "bursts, boot 300 s", (_bursts(random.Random(1)), 300.0)
    for rate in (0.2, 1.0, 5.0):
        rush = _rushes(random.Random(3), rate)
        yield f"rushes of {rate:g} a second, boot 120 s", (rush, 120.0)
    for per_day in (30, 100, 400):
        hours = _office_hours(random.Random(per_day), per_day)
        yield f"office hours, {per_day} a day, boot 120 s", (hours, 120.0)
    yield "from quiet to busy and back, boot 300 s", (_changing(random.Random(2)), 300.0)


def _poisson(source: random.Random, gap: float) -> list[Request]:
    at, requests = 0.0, list[Request]()
    for _ in range(3_000):
        at += source.expovariate(1 / gap)
        requests.append((at, source.expovariate(1 / 60), ""))
    return requests


def _bursts(source: random.Random) -> list[Request]:
    at, requests = 0.0, list[Request]()
    for _ in range(250):
        at += source.expovariate(1 / 5_400)
        each = at
        for _ in range(source.randint(3, 25)):
            each += source.expovariate(1 / 40)
            requests.append((each, source.uniform(20, 60), ""))
    return sorted(requests)


def _rushes(source: random.Random, rate: float) -> list[Request]:
    at, requests = 0.0, list[Request]()
    for _ in range(40):
        at += source.expovariate(1 / 600)
        for _ in range(source.randint(20, 200)):
            at += source.expovariate(rate)
            requests.append((at, source.expovariate(1 / 10), ""))
    return requests


def _office_hours(source: random.Random, per_day: int) -> list[Request]:
    days = [day for day in range(56) if day % 7 < 5]
    moments = (day * 86_400 + source.uniform(9, 18) * 3_600 for day in days for _ in range(per_day))
    return [(at, source.expovariate(1 / 60), "") for at in sorted(moments)]


def _changing(source: random.Random) -> list[Request]:
    at, requests = 0.0, list[Request]()
    for number in range(4_000):
        busy = number // 200 % 2
        at += source.expovariate(1 / (60 if busy else 900))
        requests.append((at, source.expovariate(1 / 60), ""))
    return requests
