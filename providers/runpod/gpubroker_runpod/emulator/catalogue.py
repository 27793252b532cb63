"""What the emulated market is made of: types of card, prices per hour, data centers.

Names and sizes are the vendor's; prices are of the order that such cards were rented at in 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class CardType:
    """One type of card.

    Attributes:
        id: what an order names. name: what people read.
        memory: GB of each. driver_memory: MiB, as the card's own driver reports it.
        secure, community: USD per hour and card in each cloud; 0 where it is not sold there.
        most: cards on the largest machine.
        stock: cards in each of its data centers when nobody has any; 0 is a rare type.
        pool: where serverless workers use it.
    """

    id: str
    name: str
    memory: int
    driver_memory: int
    secure: float
    community: float
    most: int
    stock: int
    pool: str | None = None

    @property
    def manufacturer(self) -> str:
        """As the vendor writes it."""
        return "AMD" if self.id.startswith("AMD") else "NVIDIA"


_GEFORCE: Final = "NVIDIA GeForce RTX"
CARDS: Final = (
    CardType("NVIDIA RTX A2000", "RTX A2000", 6, 6138, 0.0, 0.12, 4, 6),
    CardType(f"{_GEFORCE} 3070", "RTX 3070", 8, 8192, 0.0, 0.13, 4, 6),
    CardType("NVIDIA RTX A4000", "RTX A4000", 16, 16376, 0.25, 0.17, 7, 12, "AMPERE_16"),
    CardType("NVIDIA RTX A4500", "RTX A4500", 20, 20470, 0.25, 0.19, 7, 8, "AMPERE_16"),
    CardType("NVIDIA RTX A5000", "RTX A5000", 24, 24564, 0.27, 0.16, 8, 16, "AMPERE_24"),
    CardType("NVIDIA L4", "L4", 24, 23034, 0.39, 0.0, 8, 12, "AMPERE_24"),
    CardType(f"{_GEFORCE} 3090", "RTX 3090", 24, 24576, 0.46, 0.22, 8, 16, "AMPERE_24"),
    CardType(f"{_GEFORCE} 4080", "RTX 4080", 16, 16376, 0.0, 0.27, 4, 4),
    CardType(f"{_GEFORCE} 4090", "RTX 4090", 24, 24564, 0.69, 0.34, 8, 24, "ADA_24"),
    CardType(f"{_GEFORCE} 5090", "RTX 5090", 32, 32607, 0.94, 0.69, 8, 10, "ADA_32_PRO"),
    CardType("NVIDIA RTX 2000 Ada Generation", "RTX 2000 Ada", 16, 16380, 0.24, 0.0, 4, 6),
    CardType("NVIDIA RTX 4000 Ada Generation", "RTX 4000 Ada", 20, 20475, 0.26, 0.20, 7, 8),
    CardType("NVIDIA A40", "A40", 48, 46068, 0.40, 0.35, 10, 12, "AMPERE_48"),
    CardType("NVIDIA RTX A6000", "RTX A6000", 48, 49140, 0.49, 0.33, 8, 12, "AMPERE_48"),
    CardType(
        "NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada", 48, 49140, 0.77, 0.74, 8, 8, "ADA_48_PRO"
    ),
    CardType("NVIDIA L40", "L40", 48, 46068, 0.99, 0.69, 8, 6, "ADA_48_PRO"),
    CardType("NVIDIA L40S", "L40S", 48, 46068, 0.86, 0.79, 8, 10, "ADA_48_PRO"),
    CardType("NVIDIA A100 80GB PCIe", "A100 PCIe", 80, 81920, 1.64, 1.19, 8, 8, "AMPERE_80"),
    CardType("NVIDIA A100-SXM4-80GB", "A100 SXM", 80, 81920, 1.74, 1.39, 8, 8, "AMPERE_80"),
    CardType("NVIDIA H100 PCIe", "H100 PCIe", 80, 81559, 2.39, 1.99, 8, 6, "ADA_80_PRO"),
    CardType("NVIDIA H100 80GB HBM3", "H100 SXM", 80, 81559, 2.99, 2.69, 8, 16, "ADA_80_PRO"),
    CardType("NVIDIA H100 NVL", "H100 NVL", 94, 95830, 3.07, 2.59, 8, 4, "ADA_80_PRO"),
    CardType("NVIDIA H200", "H200 SXM", 141, 143771, 3.59, 0.0, 8, 8, "HOPPER_141"),
    CardType("NVIDIA B200", "B200", 180, 183359, 5.49, 0.0, 8, 8, "BLACKWELL_180"),
    CardType(
        "NVIDIA RTX PRO 6000 Blackwell Server Edition",
        "RTX PRO 6000",
        96,
        97887,
        1.89,
        1.69,
        8,
        8,
        "BLACKWELL_96",
    ),
    CardType(
        "NVIDIA RTX PRO 6000 Blackwell Server Edition MIG 1g.24gb",
        "PRO 6000 MIG 24GB",
        24,
        24192,
        0.49,
        0.0,
        4,
        4,
    ),
    CardType("AMD Instinct MI300X OAM", "MI300X", 192, 196592, 2.49, 0.0, 8, 4),
)

#: USD per hour for one card of a serverless worker, by pool.
SERVERLESS: Final[Mapping[str, float]] = {
    "AMPERE_16": 0.58,
    "AMPERE_24": 0.68,
    "ADA_24": 1.12,
    "ADA_32_PRO": 1.58,
    "AMPERE_48": 1.22,
    "ADA_48_PRO": 1.91,
    "AMPERE_80": 2.74,
    "ADA_80_PRO": 4.18,
    "HOPPER_141": 5.58,
    "BLACKWELL_96": 4.0,
    "BLACKWELL_180": 8.64,
}


@dataclass(frozen=True, slots=True)
class Place:
    """One data center.

    Attributes:
        country: two letters. cuda: the version that its hosts report.
    """

    id: str
    name: str
    region: str
    country: str
    cuda: str
    compliance: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ("STANDARD",)
    global_network: bool = True


PLACES: Final = (
    Place("EU-RO-1", "EU Romania 1", "EUROPE", "RO", "12.8", ("GDPR", "ISO_IEC_27001")),
    Place("EU-SE-1", "EU Sweden 1", "EUROPE", "SE", "12.4", ("GDPR",)),
    Place("EU-CZ-1", "EU Czechia 1", "EUROPE", "CZ", "12.8", ("GDPR",)),
    Place("EU-NL-1", "EU Netherlands 1", "EUROPE", "NL", "12.7", ("GDPR", "SOC_2_TYPE_2")),
    Place("EUR-IS-1", "EUR Iceland 1", "EUROPE", "IS", "12.8", ("GDPR", "RENEWABLE")),
    Place("EUR-NO-1", "EUR Norway 1", "EUROPE", "NO", "13.0", ("GDPR", "RENEWABLE")),
    Place("CA-MTL-1", "CA Montreal 1", "NORTH_AMERICA", "CA", "12.8", ("SOC_2_TYPE_2",)),
    Place("CA-MTL-3", "CA Montreal 3", "NORTH_AMERICA", "CA", "12.4"),
    Place("US-TX-3", "US Texas 3", "NORTH_AMERICA", "US", "12.8", ("SOC_2_TYPE_2", "HIPAA")),
    Place("US-KS-2", "US Kansas 2", "NORTH_AMERICA", "US", "12.8", ("SOC_2_TYPE_2",)),
    Place("US-GA-2", "US Georgia 2", "NORTH_AMERICA", "US", "12.4", (), ()),
    Place("US-CA-2", "US California 2", "NORTH_AMERICA", "US", "13.0"),
    Place("US-NC-1", "US North Carolina 1", "NORTH_AMERICA", "US", "12.8"),
    Place("OC-AU-1", "OC Australia 1", "OCEANIA", "AU", "12.8", (), (), global_network=False),
    Place("AP-JP-1", "AP Japan 1", "ASIA", "JP", "12.8", (), ("STANDARD", "HIGH_PERFORMANCE")),
)
