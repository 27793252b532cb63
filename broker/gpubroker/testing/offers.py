"""Offers for tests, with everything said that a vendor usually says."""

from __future__ import annotations

from gpubroker.model.money import Money
from gpubroker.model.offers import Offer, Price
from gpubroker.model.requirements import TrustTier


def offer(
    gpu: str | None = "RTX 4090",
    price: Money | str = "0.40",
    *,
    id: str | None = None,  # noqa: A002 - the field's name
    count: int = 1,
    vram: float | None = 24.0,
    disk_price: Money | str = "0",
    upload_price: Money | str = "0",
    download_price: Money | str = "0",
    compute_capability: float | None = 8.9,
    cuda: float | None = 12.8,
    cpus: float | None = 16.0,
    ram: float | None = 64.0,
    disk: float | None = 500.0,
    region: str | None = "US",
    reliability: float | None = 0.99,
    trust: TrustTier | None = None,
    download: float | None = 1000.0,
    upload: float | None = 1000.0,
    spot: bool = False,
    driver: str | None = "560.35.03",
    open_ports: int | None = None,
    static_ip: bool | None = None,
    host: str | None = None,
    expires_at: float | None = None,
) -> Offer:
    """An offer that meets ordinary requirements.

    Args:
        gpu: canonical GPU name; ``None`` for a machine without GPUs.
        price: USD per hour for the machine. disk_price: USD per hour for its disk.
        upload_price: USD per GB. download_price: likewise.
        id: made from the GPU, the count and the price, where it is not given.

    The other arguments are the fields of `gpubroker.Offer`.
    """
    name = "-".join((gpu or "cpu").lower().split())
    money = Money(price)
    return Offer(
        id=id or f"{count if gpu else 0}x-{name}-{money.amount:f}",
        price=Price(
            machine=money,
            disk=Money(disk_price),
            upload=Money(upload_price),
            download=Money(download_price),
        ),
        gpu=gpu,
        count=count if gpu else 0,
        vram=vram if gpu else None,
        compute_capability=compute_capability if gpu else None,
        cuda=cuda if gpu else None,
        cpus=cpus,
        ram=ram,
        disk=disk,
        region=region,
        reliability=reliability,
        trust=trust,
        download=download,
        upload=upload,
        spot=spot,
        driver=driver,
        open_ports=open_ports,
        static_ip=static_ip,
        host=host,
        expires_at=expires_at,
    )
