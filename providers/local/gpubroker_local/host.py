"""What this machine has, as offers say it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

_GIGABYTE: Final = 1e9


def processors() -> int:
    """Logical processors that this process, and so its jobs, may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory() -> float | None:
    """GB of main memory, if the system says."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIGABYTE, 1)
    except (ValueError, OSError):
        return None


def free_disk(directory: Path) -> float | None:
    """GB that are free where `directory` is or will be, if the system says."""
    existing = next((path for path in (directory, *directory.parents) if path.exists()), None)
    return None if existing is None else round(shutil.disk_usage(existing).free / _GIGABYTE, 1)
