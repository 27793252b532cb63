"""Work that would hold the event loop up, done beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def aside(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function` in a thread; here and now where the interpreter gives none any more.

    A program may close its sandbox at its exit, by `atexit`, and by then threads are over.
    """
    call = partial(function, *args, **kwargs)
    try:
        future = asyncio.get_running_loop().run_in_executor(None, call)
    except RuntimeError:
        return call()
    return await future
