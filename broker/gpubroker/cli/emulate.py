"""``gpubroker emulate``: a vendor's API on this machine, until interrupted."""

from __future__ import annotations

import signal
import threading
from types import FrameType

from gpubroker.testing.sandboxing import Emulator, emulator_names, make_emulator


def emulate(name: str | None, *, port: int, seed: int, scenario: str) -> int:
    """Serve, and say how to get there. ``list`` as the scenario shows those that there are."""
    if name is None:
        print("\n".join(emulator_names()))
        return 0
    if scenario == "list":
        for word, sentence in make_emulator(name).scenarios.items():
            print(f"{word:16}{sentence}")
        return 0
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        stopping.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with make_emulator(name, seed=seed, scenario=scenario, port=port) as emulator:
            print(_introduction(emulator), flush=True)
            stopping.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _introduction(emulator: Emulator) -> str:
    name, options = emulator.name, emulator.options
    settings = [f'url = "{emulator.url}"', f'key = "{emulator.key}"']
    settings += [f'{option} = "{value}"' for option, value in options.items()]
    return "\n".join(
        (
            f"{name} is emulated at {emulator.url}, with the key {emulator.key}",
            "",
            "In gpubroker.toml:",
            f"  [providers.{name}]",
            *(f"  {line}" for line in settings),
            "  [budget]",
            '  job = "1.00"',
            "",
            "With the vendor's own client:",
            *(f"  {line}" for line in emulator.hints),
            "",
            "Ctrl-C ends it, and every machine.",
        )
    )
