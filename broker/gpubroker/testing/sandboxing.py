"""Everything with no account: emulators of the vendors, and settings that point at them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self, cast

from gpubroker.errors import BrokerError, InvalidValue
from gpubroker.model.money import Money
from gpubroker.plugins import discover
from gpubroker.policy.budget import Budget
from gpubroker.settings import Setting, Settings

ENTRY_POINTS: Final = "gpubroker.emulators"
_PROGRAMS: Final = ("ssh", "ssh-keygen")


class Emulator(Protocol):
    """A vendor's API on loopback, as the entry points of the group `ENTRY_POINTS` make it.

    They are called with the keyword arguments ``seed``, ``scenario`` and ``port``.

    Attributes:
        name: the provider's name.
        scenarios: how it can behave: names, each with one sentence.
    """

    name: str
    scenarios: Mapping[str, str]

    def __enter__(self) -> Self:
        """Serve."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End every machine, and leave nothing behind."""
        ...

    @property
    def url(self) -> str:
        """Where it is."""
        ...

    @property
    def key(self) -> str:
        """The key of its only account."""
        ...

    @property
    def options(self) -> Mapping[str, str]:
        """Settings of the provider that suit an emulator."""
        ...

    @property
    def hints(self) -> tuple[str, ...]:
        """How to point the vendor's own programs at it, as lines for people."""
        ...

    def sell_out(self) -> None:
        """From now on others have all that it offers, and what it has just offered too."""
        ...

    def lose_all(self, *, after: float = 0.0) -> None:
        """Every machine that it runs now is gone without notice, that many seconds from now."""
        ...

    def billing_now(self) -> tuple[str, ...]:
        """Machines that cost money at this moment, whatever anybody was told."""
        ...

    def billed(self, machine: int | str) -> Money:
        """USD that the vendor's own account of one machine comes to, once it has settled."""
        ...

    def charges(self) -> dict[str, Money]:
        """USD that each machine has really cost so far."""
        ...


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Emulators that run, and what points a broker at them.

    ::

        with sandbox() as box, Broker(settings=box.settings) as broker:
            ...

    Attributes:
        settings: nothing of the user's own: a ledger that is thrown away, a budget, and the
            address and the key of each emulator. Providers without one are switched off.
        emulators: by name.
    """

    settings: Settings
    emulators: Mapping[str, Any]

    @property
    def environment(self) -> dict[str, str]:
        """The settings as environment variables, for programs that are started from here."""
        told = self.settings
        words = {"ledger": str(told.ledger)}
        for limit in ("job", "day"):
            words[f"budget_{limit}"] = str(getattr(told.budget, limit).amount)
        for name, options in told.providers.items():
            words |= {f"{name}_{word}": value for word, value in options.items()}
        words |= {f"{name}_key": key for name, key in told.keys.items()}
        return {f"GPUBROKER_{word.upper()}": value for word, value in words.items()}


def emulator_names() -> tuple[str, ...]:
    """The emulators that are installed."""
    return tuple(sorted({point.name for point in metadata.entry_points(group=ENTRY_POINTS)}))


def make_emulator(name: str, *, seed: int = 0, scenario: str = "calm", port: int = 0) -> Emulator:
    """One emulator, not yet started.

    Raises:
        InvalidValue: there is no such emulator or scenario.
        BrokerError: something that it needs is not installed.
    """
    points = metadata.entry_points(group=ENTRY_POINTS, name=name)
    if not points:
        raise InvalidValue.unknown("emulator", name, emulator_names(), noun="emulator")
    try:
        factory = next(iter(points)).load()
    except ImportError as error:
        needed = f"{error.name} is missing" if error.name else str(error)
        raise BrokerError(
            f"emulators need the extra sandbox: pip install 'gpubroker[sandbox]' ({needed})"
        ) from error
    return cast("Emulator", factory(seed=seed, scenario=scenario, port=port))


@contextmanager
def sandbox(seed: int = 0, *, scenario: str = "calm") -> Generator[Sandbox]:
    """Start every emulator, for as long as the block lasts.

    Args:
        seed: of the markets, and of everything that happens by chance.
        scenario: how they behave; one that does not know the name behaves as usual.

    Raises:
        BrokerError: this system has no SSH client, or the extra ``sandbox`` is not installed.
    """
    lacking = [program for program in _PROGRAMS if shutil.which(program) is None]
    if lacking:
        raise BrokerError(
            f"machines in the sandbox are reached over SSH, and this system has no "
            f"{' and no '.join(lacking)}: install OpenSSH's client"
        )
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gpubroker-sandbox-")))
        emulators: dict[str, Emulator] = {}
        for name in emulator_names():
            emulator = make_emulator(name, seed=seed)
            if scenario in emulator.scenarios:
                emulator = make_emulator(name, seed=seed, scenario=scenario)
            emulators[name] = stack.enter_context(emulator)
        yield Sandbox(_settings(folder, emulators), emulators)


def _settings(folder: Path, emulators: Mapping[str, Emulator]) -> Settings:
    others = {plugin.name for plugin in discover()[0]} - emulators.keys()
    return Settings(
        ledger=folder / "ledger.db",
        budget=Budget(job=Money(10), day=Money(100)),
        providers={
            name: {"url": emulator.url, "enabled": "true", **emulator.options}
            for name, emulator in emulators.items()
        }
        | {name: {"enabled": "false"} for name in others},
        keys={name: emulator.key for name, emulator in emulators.items()},
        sources=tuple(
            Setting(f"{name}.url", emulator.url, "sandbox") for name, emulator in emulators.items()
        ),
    )
