"""What makes a simulation the same each time, besides its seed."""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import anyio._backends._asyncio as anyio_asyncio

from gpubroker.testing.virtual_time import BackendName


@contextmanager
def repeatable(backend: BackendName, seed: int) -> Generator[None]:
    """Inside, nothing hangs on addresses in memory, on real time or on the system's randomness.

    Garbage is collected afterwards: what a killed process leaves behind must not come to life
    again in the middle of another one's step.
    """
    gc.disable()
    gc.freeze()  # what is there by now is nobody's garbage
    hook = sys.unraisablehook
    sys.unraisablehook = _silent
    try:
        with (
            warnings.catch_warnings(),
            _numbered_scopes() if backend == "asyncio" else _seeded_trio(seed),
        ):
            # A killed process leaves coroutines behind that nobody has awaited.
            warnings.simplefilter("ignore", RuntimeWarning)
            yield
            gc.collect()
    finally:
        sys.unraisablehook = hook
        gc.unfreeze()
        gc.enable()


def _silent(unraisable: Any) -> None:
    """Coroutines of killed processes may complain that they were not finished."""


@contextmanager
def _numbered_scopes() -> Generator[None]:
    """anyio keeps cancel scopes in sets, and cancels them in the order of those."""
    numbers: dict[int, tuple[int, object]] = {}  # with the scope, so that no id comes twice

    def number(scope: object) -> int:
        return numbers.setdefault(id(scope), (len(numbers), scope))[0]

    scope_class: Any = anyio_asyncio.CancelScope
    before = scope_class.__hash__
    scope_class.__hash__ = number
    try:
        yield
    finally:
        scope_class.__hash__ = before


@contextmanager
def _seeded_trio(seed: int) -> Generator[None]:
    """trio draws the order of tasks that can run at the same time, as pytest-trio seeds it."""
    import trio._core._run as run

    module: Any = run
    before = module._ALLOW_DETERMINISTIC_SCHEDULING
    state = module._r.getstate()
    module._ALLOW_DETERMINISTIC_SCHEDULING = True
    module._r.seed(seed)
    try:
        yield
    finally:
        module._ALLOW_DETERMINISTIC_SCHEDULING = before
        module._r.setstate(state)
