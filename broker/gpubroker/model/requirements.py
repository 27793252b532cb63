"""What machine is wanted."""

from __future__ import annotations

import enum
import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self, cast

from gpubroker.errors import InvalidValue
from gpubroker.model.gpus import parse_gpu
from gpubroker.model.money import Money, parse_money
from gpubroker.model.names import env_names, is_a, is_text, text_names
from gpubroker.model.ranges import Range, parse_range

_NO_SETUP: Final = "must be a script or a non-empty list of words"


class TrustTier(enum.StrEnum):
    """How far the owner of a machine is trusted; each tier includes those above it."""

    OWN = "own"  #: this machine, or one the user runs
    DATACENTER = "datacenter"  #: a company's data centre
    VERIFIED = "verified"  #: a stranger's machine that the marketplace has checked
    UNVERIFIED = "unverified"  #: a stranger's machine that nobody has checked

    def includes(self, other: TrustTier) -> bool:
        """Whether a machine of tier `other` is good enough where this tier is asked for."""
        order = list(TrustTier)
        return order.index(other) <= order.index(self)


@dataclass(frozen=True, slots=True)
class Setup:
    """What to run once on each machine before its first job.

    Attributes:
        argv: the command as a list of words; a script is run with ``sh``.
        timeout: seconds it may take.
    """

    argv: tuple[str, ...]
    timeout: float = 900.0

    def __post_init__(self) -> None:
        """Refuse what could not be run, or would never end."""
        if not any(self.argv) or not all(is_text(word) for word in self.argv):
            raise InvalidValue("setup", self.argv, _NO_SETUP)
        if not is_a(self.timeout, int, float) or not 0 < self.timeout < float("inf"):
            raise InvalidValue(
                "setup timeout", self.timeout, "must be a positive number of seconds"
            )

    @classmethod
    def of(cls, value: Setup | str | Sequence[str]) -> Setup:
        """A set-up from a script (text) or from the words of one command."""
        if isinstance(value, Setup):
            return value
        if not is_a(value, str, Sequence) or (isinstance(value, str) and not value.strip()):
            raise InvalidValue("setup", value, _NO_SETUP)
        return cls(("sh", "-c", value) if isinstance(value, str) else tuple(value))


@dataclass(frozen=True, slots=True, init=False)
class Requirements:
    """What machine is wanted. Every part left out is no constraint.

    Ranges are numbers, `Range` values, or text as people write it: ``"24GB.."``, ``"1..2"``.
    A single number means "at least" for amounts (VRAM, disk, RAM, CPUs, CUDA, bandwidth,
    reliability) and "exactly" for `count`.

    Args:
        gpu: a GPU model or several acceptable ones; every common spelling is understood, and a
            family such as ``"A100"`` accepts each of its members.
        count: how many GPUs; 1 when a GPU is asked for at all.
        vram: GB of memory on each GPU.
        compute_capability: NVIDIA's, such as ``"8.0.."``.
        cuda: the highest CUDA version the driver supports, such as ``12.4``.
        cpus: logical processors for this lease.
        ram: GB of main memory.
        disk: GB of disk to rent; the price of an offer is worked out with the low end.
        region: two-letter country codes or the provider's region names; any of them will do.
        reliability: the provider's reliability score, 0 to 1.
        trust: the least trusted tier still accepted.
        download: Mbit/s from the internet. upload: Mbit/s to the internet.
        spot: ``True`` for interruptible machines only, ``False`` for none of them, ``None`` for
            either.
        providers: only these. exclude: never these.
        max_price: the most to pay, in USD per hour for the whole machine, disk included.
        image: the container image. A provider that runs no images is ruled out.
        ports: TCP ports that must be reachable from outside.
        driver: the oldest NVIDIA driver that will do, such as ``"550"`` or ``"560.35.03"``.
        static_ip: whether the machine's address must stay the same.
        env: environment for everything that runs on the machine. Not for secrets: providers
            see it.
        setup: a script, or the words of a command, run once per machine before its first job.

    Raises:
        InvalidValue: naming the argument, the value and, for a name, the nearest valid one.
    """

    gpu: tuple[str, ...] = ()
    count: Range | None = None
    vram: Range | None = None
    compute_capability: Range | None = None
    cuda: Range | None = None
    cpus: Range | None = None
    ram: Range | None = None
    disk: Range | None = None
    region: tuple[str, ...] = ()
    reliability: Range | None = None
    trust: TrustTier = TrustTier.VERIFIED
    download: Range | None = None
    upload: Range | None = None
    spot: bool | None = False
    providers: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    max_price: Money | None = None
    image: str | None = None
    ports: tuple[int, ...] = ()
    driver: str | None = None
    static_ip: bool = False
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    setup: Setup | None = None

    def __init__(
        self,
        *,
        gpu: str | Iterable[str] = (),
        count: int | str | Range | None = None,
        vram: float | str | Range | None = None,
        compute_capability: float | str | Range | None = None,
        cuda: float | str | Range | None = None,
        cpus: float | str | Range | None = None,
        ram: float | str | Range | None = None,
        disk: float | str | Range | None = None,
        region: str | Iterable[str] = (),
        reliability: float | str | Range | None = None,
        trust: TrustTier | str = TrustTier.VERIFIED,
        download: float | str | Range | None = None,
        upload: float | str | Range | None = None,
        spot: bool | None = False,
        providers: str | Iterable[str] = (),
        exclude: str | Iterable[str] = (),
        max_price: Money | float | str | None = None,
        image: str | None = None,
        ports: Iterable[int] = (),
        driver: str | float | None = None,
        static_ip: bool = False,
        env: Mapping[str, str] | None = None,
        setup: Setup | str | Sequence[str] | None = None,
    ) -> None:
        put = object.__setattr__
        put(self, "gpu", tuple(parse_gpu(name) for name in text_names("gpu", gpu)))
        exact = None if count is None else parse_range("count", count, whole=True, minimum=1)
        needs_gpu = any(
            part not in ((), None) for part in (self.gpu, vram, compute_capability, cuda, driver)
        )
        put(self, "count", exact or (Range(1, 1) if needs_gpu else None))
        amounts: dict[str, tuple[float | str | Range | None, bool]] = {
            "vram": (vram, True),
            "compute_capability": (compute_capability, False),
            "cuda": (cuda, False),
            "cpus": (cpus, False),
            "ram": (ram, True),
            "disk": (disk, True),
            "reliability": (reliability, False),
            "download": (download, False),
            "upload": (upload, False),
        }
        for name, (given, gigabytes) in amounts.items():
            parsed = (
                None
                if given is None
                else parse_range(name, given, gigabytes=gigabytes, at_least=True)
            )
            put(self, name, parsed)
        score = self.reliability
        if score is not None and max(score.low or 0, score.high or 0) > 1:
            raise InvalidValue("reliability", reliability, "must be between 0 and 1")
        put(self, "region", text_names("region", region))
        put(self, "trust", _trust(trust))
        if spot is not None and not is_a(spot, bool):
            raise InvalidValue("spot", spot, "must be true, false or nothing")
        put(self, "spot", spot)
        put(self, "providers", text_names("providers", providers))
        put(self, "exclude", text_names("exclude", exclude))
        put(self, "max_price", None if max_price is None else parse_money("max_price", max_price))
        if image is not None and not (is_text(image) and image.strip()):
            raise InvalidValue("image", image, "must be a non-empty name")
        put(self, "image", image)
        put(self, "ports", _ports(ports))
        put(self, "driver", None if driver is None else _driver(driver))
        if not is_a(static_ip, bool):
            raise InvalidValue("static_ip", static_ip, "must be true or false")
        put(self, "static_ip", static_ip)
        put(self, "env", {} if env is None else env_names("env", env))
        put(self, "setup", None if setup is None else Setup.of(setup))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Requirements from a mapping such as a TOML table.

        Raises:
            InvalidValue: also for an unknown key, naming the nearest known one.
        """
        known = [name for name in inspect.signature(cls).parameters if name != "self"]
        for key in values:
            if key not in known:
                raise InvalidValue.unknown("requirements", key, known, noun="key")
        return cls(**values)

    def __str__(self) -> str:
        """What was asked for, on one line; environment and set-up are left out."""
        plain = Requirements()
        parts = [
            f"{name}={_shown(value)}"
            for name in self.__slots__
            if name not in ("env", "setup")
            and (value := getattr(self, name)) != getattr(plain, name)
        ]
        return " ".join(parts) or "any machine"

    @property
    def needs_gpu(self) -> bool:
        """Whether any GPU is asked for."""
        return self.count is not None

    @property
    def disk_gb(self) -> float:
        """GB of disk to rent and to price: the low end of `disk`; else 10, or less if need be."""
        if self.disk is None:
            return 10.0
        if self.disk.low is None:
            return min(10.0, self.disk.high or 10.0)
        return self.disk.low


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(str(item) for item in cast("tuple[object, ...]", value))
    return str(value)


def _trust(value: TrustTier | str) -> TrustTier:
    try:
        return TrustTier(value)
    except ValueError:
        raise InvalidValue.unknown(
            "trust", value, [tier.value for tier in TrustTier], noun="tier"
        ) from None


def _driver(value: str | float) -> str:
    text = str(value)
    if not is_a(value, str, int, float) or not version_of(text):
        raise InvalidValue("driver", value, "must be a version such as 560 or 560.35.03")
    return text


def version_of(text: str | None) -> tuple[int, ...]:
    """A driver's version in a form that can be compared; empty if it is none."""
    parts = (text or "").split(".")
    return tuple(map(int, parts)) if all(p.isascii() and p.isdigit() for p in parts) else ()


def _ports(values: Iterable[int]) -> tuple[int, ...]:
    if not is_a(values, Iterable) or is_a(values, str, bytes, Mapping):
        raise InvalidValue("ports", values, "must be a list of TCP ports")
    ports = tuple(values)
    for port in ports:
        if not is_a(port, int) or not 0 < port < 65536:
            raise InvalidValue("ports", port, "a TCP port is between 1 and 65535")
    return ports


def alternatives(
    wanted: Requirements | Sequence[Requirements] | None,
) -> tuple[Requirements, ...]:
    """Ordered alternatives from what callers give: nothing, one set of requirements, or several.

    Raises:
        InvalidValue: an empty sequence, or something else in it.
    """
    several = wanted if isinstance(wanted, Sequence) else (wanted or Requirements(),)
    if not several or not all(is_a(each, Requirements) for each in several):
        raise InvalidValue("requirements", wanted, "must be one or more Requirements")
    return tuple(several)
