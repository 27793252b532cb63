"""One rentable thing at a price."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Context, Decimal
from typing import Final

from gpubroker.errors import InvalidValue
from gpubroker.model.money import ZERO, Money
from gpubroker.model.requirements import TrustTier

_HOUR: Final = Decimal(3600)
#: Counting quanta is exact, whatever the caller's context says.
_EXACT: Final = Context(prec=64)

DOWNLOADED: Final = 20
"""GB that a machine is reserved to take in: its image, and what its jobs fetch."""

UPLOADED: Final = 5
"""GB that a machine is reserved to send out."""

SAME_MOMENT: Final = Decimal("0.000001")
"""Two moments closer than this, in seconds, are one: Unix time as a float is no finer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """A price, split the way vendors bill it.

    Attributes:
        machine: USD per hour for the machine with its GPUs.
        disk: USD per hour for the disk that was asked for.
        upload: USD per GB sent from the machine. download: USD per GB sent to it.
    """

    machine: Money
    disk: Money = ZERO
    upload: Money = ZERO
    download: Money = ZERO
    _hourly: Money = field(init=False, repr=False, compare=False)
    _traffic: Money = field(init=False, repr=False, compare=False)
    _least: Money = field(init=False, repr=False, compare=False)
    _usd: float = field(init=False, repr=False, compare=False)
    _flawed: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("machine", "disk", "upload", "download"):
            if not isinstance(getattr(self, name), Money):
                raise InvalidValue(name, getattr(self, name), "a part of a price must be Money")
        # Asked for again and again for thousands of offers, so worked out once.
        object.__setattr__(self, "_hourly", self.machine + self.disk)
        traffic = ZERO
        if self.upload is not ZERO or self.download is not ZERO:
            traffic = self.upload * UPLOADED + self.download * DOWNLOADED
        object.__setattr__(self, "_traffic", traffic)
        object.__setattr__(self, "_usd", float(self._hourly.amount))
        parts = (self.machine, self.disk, self.upload, self.download)
        object.__setattr__(self, "_least", min(parts, key=lambda money: money.amount))
        object.__setattr__(self, "_flawed", self._least.amount < 0)

    @property
    def flawed(self) -> bool:
        """Whether some part of it is below zero, which makes no sense."""
        return self._flawed

    @property
    def least(self) -> Money:
        """The lowest of all its parts: below zero, the price makes no sense."""
        return self._least

    @property
    def hourly_usd(self) -> float:
        """`hourly` as a float: for putting offers in order, never for paying."""
        return self._usd

    @property
    def traffic(self) -> Money:
        """USD reserved for traffic: an allowance, since what is sent is only known afterwards."""
        return self._traffic

    @property
    def hourly(self) -> Money:
        """USD per hour, disk included: what the machine costs while it does nothing."""
        return self._hourly

    def for_seconds(self, seconds: float, *, quantum: float = 1.0) -> Money:
        """USD for a machine held this long, in whole billing quanta (seconds).

        A quantum is begun once it is longer than `SAME_MOMENT`.

        Raises:
            InvalidValue: `seconds` is not finite.
        """
        if not math.isfinite(seconds):
            raise InvalidValue("seconds", seconds, "must be a finite number")
        length = _EXACT.subtract(Decimal(str(seconds)), SAME_MOMENT)
        unit = Decimal(str(quantum))
        whole, begun = _EXACT.divmod(max(length, Decimal(0)), unit)
        quanta = whole + 1 if begun else whole
        return self.hourly * _EXACT.multiply(quanta, unit) / _HOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One rentable machine at a price, as a provider's ``quote`` returned it.

    ``None`` means the provider does not say; a requirement on such a part is not met.

    Attributes:
        provider: the provider's name. The broker fills it in.
        id: the provider's id for this offer, unique among its offers.
        price: what it costs; prices are per machine, never per GPU.
        gpu: canonical GPU name (`gpubroker.gpu_name` makes one from a vendor's), ``None`` for a
            machine without GPUs.
        count: number of GPUs. vram: GB on each GPU.
        compute_capability: NVIDIA's. cuda: highest CUDA version the driver supports.
        cpus: logical processors. ram: GB of memory. disk: GB of disk available.
        region: two-letter country code, or the provider's region name.
        reliability: the provider's score, 0 to 1.
        trust: trust tier of this host, where it differs from the provider's.
        download: Mbit/s from the internet. upload: Mbit/s to the internet.
        spot: interruptible.
        single: there is one of it: while somebody has it, nobody else can.
        driver: version of the NVIDIA driver, such as ``"560.35.03"``.
        open_ports: TCP ports that it can make reachable from outside, SSH's included.
        static_ip: whether its address stays the same.
        ssh: whether it is certain that it will be reached over SSH, where its provider declares
            that at all. What is not, is rented for jobs alone that can be handed over with the order.
        host: the vendor's id of the physical machine, which outlives single offers.
        expires_at: Unix time after which the price no longer holds.
        simulated: not real hardware; always shown to people.
        extra: the provider's own data, handed back to its ``provision`` unread.
    """

    id: str
    price: Price
    provider: str = ""
    gpu: str | None = None
    count: int = 0
    vram: float | None = None
    compute_capability: float | None = None
    cuda: float | None = None
    cpus: float | None = None
    ram: float | None = None
    disk: float | None = None
    region: str | None = None
    reliability: float | None = None
    trust: TrustTier | None = None
    download: float | None = None
    upload: float | None = None
    spot: bool = False
    single: bool = False
    driver: str | None = None
    open_ports: int | None = None
    static_ip: bool | None = None
    ssh: bool = True
    host: str | None = None
    expires_at: float | None = None
    simulated: bool = False
    extra: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def title(self) -> str:
        """What it is, for people: ``2x RTX 4090`` or ``8 CPUs``."""
        if self.count and self.gpu:
            name = self.gpu if self.count == 1 else f"{self.count}x {self.gpu}"
        else:
            name = f"{self.cpus:g} CPUs" if self.cpus else "CPU"
        return f"{name} (simulated)" if self.simulated else name
