"""Run the benchmarks and print one table: ``python -m benchmarks``, from the repository's root.

Nothing here fails because something is slow; a benchmark fails when what it measures goes wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks import (
    emulated_leases,
    failover,
    keep_warm,
    many_leases,
    month,
    much_output,
    one_job,
    over_ssh,
    planning,
    start_up,
)
from benchmarks.figures import Figure, table

#: Each benchmark with its rounds, and its rounds under ``--quick``.
BENCHMARKS: Final[dict[str, tuple[Callable[[int, Path], list[Figure]], int, int]]] = {
    "import": (start_up.imports, 21, 5),
    "help": (start_up.help_text, 15, 3),
    "packages": (start_up.packages, 1, 1),
    "job": (one_job.local_run, 40, 5),
    "command": (one_job.command, 15, 3),
    "plan": (planning.plans, 10, 2),
    "failover": (failover.failovers, 10, 2),
    "keep_warm": (keep_warm.keep_warm, 2, 1),
    "leases": (many_leases.leases, 3, 1),
    "ssh": (over_ssh.over_ssh, 3, 1),
    "emulated": (emulated_leases.emulated_leases, 2, 1),
    "output": (much_output.output, 1, 1),
    "month": (month.month, 30, 1),
}
#: Takes a package index, so that it runs only when it is named.
_NAMED_ONLY: Final = ("packages",)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    usual = [name for name in BENCHMARKS if name not in _NAMED_ONLY]
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"what to run, of {', '.join(BENCHMARKS)}; all but {', '.join(_NAMED_ONLY)} if left out",
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds: does it work at all?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    given = parser.parse_args()
    names: list[str] = given.names or usual
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        parser.error(
            f"no benchmark is called {', '.join(unknown)}: there is {', '.join(BENCHMARKS)}"
        )
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    figures: list[Figure] = []
    for name in names:
        benchmark, rounds, quick = BENCHMARKS[name]
        print(f"{name} …", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="gpubroker-benchmark-") as folder:
            measured = benchmark(quick if given.quick else rounds, Path(folder))
        if not measured:
            print(f"{name}: not measured; it needs gpubroker[cli]", file=sys.stderr)
        figures += measured
    machine = f"Python {platform.python_version()}, {platform.system()}, {os.cpu_count()} CPUs"
    print(f"{machine}\n\n{table(figures)}")
    if given.json is not None:
        measured_here = {"machine": machine, "figures": [figure.to_dict() for figure in figures]}
        given.json.write_text(json.dumps(measured_here, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
