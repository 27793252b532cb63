"""What is going on, on stderr: one line that changes on a terminal, one line per step elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from gpubroker.cli.durations import shown
from gpubroker.cli.neutralise import harmless
from gpubroker.cli.sink import Sink
from gpubroker.model.money import Money

#: Seconds between two drawings of the line that changes, and between two readings elsewhere.
_DRAWN_EVERY: Final = 0.2
_READ_EVERY: Final = 2.0
#: Seconds between two lines on how far the same thing has come, where lines stay.
_ADVANCED_EVERY: Final = 5.0
_ERASE: Final = b"\r\x1b[K"


class Progress:
    """Shows the step under way, how long it has been going on, and what it has cost.

    Args:
        sink: where to show it.
        quiet: show nothing but what is `wrong`.
    """

    def __init__(self, sink: Sink, *, quiet: bool) -> None:
        self._sink = sink
        self._quiet = quiet
        self._live = sink.terminal and os.environ.get("TERM") != "dumb" and not quiet
        self._coloured = self._live and not os.environ.get("NO_COLOR")
        self._encoding = sys.stderr.encoding or "utf-8"
        unicode = self._encoding.lower().replace("-", "") == "utf8"
        self._frames = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏" if unicode else "-\\|/"
        self._began = time.monotonic()
        self._step = ""
        self._advanced = 0.0
        self._drawn = False
        self._midline = False
        self.cost: Money | None = None

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def step(self, text: str) -> None:
        """Something new goes on."""
        self._step = harmless(text)
        if self._live:
            self._draw()
        elif not self._quiet:
            self._put(f"gpubroker: {self._meter()}  {self._step}\n")

    def advance(self, text: str) -> None:
        """What goes on has come a little further; not every bit of it is worth a line."""
        self._step = harmless(text)
        if self._live:
            self._draw()
        elif not self._quiet and self.elapsed - self._advanced >= _ADVANCED_EVERY:
            self._advanced = self.elapsed
            self._put(f"gpubroker: {self._meter()}  {self._step}\n")

    def line(self, text: str) -> None:
        """Something to keep on the screen."""
        if not self._quiet:
            self._put_line(harmless(text))

    def wrong(self, text: str) -> None:
        """Something that went wrong; said even if it should be quiet."""
        self._put_line(harmless(text), "31")

    def make_way(self, data: bytes) -> None:
        """Clear the screen's last line for output of the job that is about to be shown there."""
        if self._drawn:
            self._sink.put(_ERASE)
            self._drawn = False
        if data:
            self._midline = not data.endswith(b"\n")

    async def keep_up(self, read_cost: Callable[[], Awaitable[Money | None]]) -> None:
        """Keep the cost, and the line that changes, up to date. Ends only by cancellation."""
        while True:
            self.cost = await read_cost() or self.cost
            if self._live and self._step:
                self._draw()
            await anyio.sleep(_DRAWN_EVERY if self._live else _READ_EVERY)

    def end(self) -> None:
        """Nothing goes on any more."""
        self.make_way(b"")
        self._step = ""

    def _meter(self) -> str:
        cost = "" if self.cost is None else f"  {_cents(self.cost)}"
        return f"{shown(self.elapsed):>6}{cost}"

    def _draw(self) -> None:
        if self._midline:
            return  # the job is in the middle of a line of its own
        frame = self._frames[int(self.elapsed / _DRAWN_EVERY) % len(self._frames)]
        meter = self._meter()
        room = shutil.get_terminal_size().columns - len(meter) - 6
        step = self._step if len(self._step) <= room else f"{self._step[: max(room - 3, 0)]}..."
        text = f"{frame} {step}  {self._painted(meter, '2')}"
        self._sink.put(_ERASE + text.encode(self._encoding, "replace"))
        self._drawn = True

    def _put_line(self, text: str, colour: str = "") -> None:
        self.make_way(b"")
        newline = "\n" if self._midline else ""
        self._midline = False
        self._put(f"{newline}{self._painted(f'gpubroker: {text}', colour)}\n")
        if self._live and self._step:
            self._draw()

    def _painted(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if colour and self._coloured else text

    def _put(self, text: str) -> None:
        self._sink.put(text.encode(self._encoding, "replace"))


def _cents(money: Money) -> str:
    """A running cost, to a hundredth of a cent: more digits would only flicker."""
    return str(Money(f"{money.amount:.4f}"))
