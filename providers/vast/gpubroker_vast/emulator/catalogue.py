"""What the emulated market is made of: cards, prices per hour, places.

Sizes are the makers' published figures as their driver reports them; prices are of the order
that such cards were rented at in 2026.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class CardModel:
    """One model of card.

    Attributes:
        name: as the vendor writes it. driver_name: as the card's own driver does.
        memory: MiB.
        capability: CUDA compute capability times 100.
        bandwidth: GB/s of memory. flops: TFLOPS. power: W.
        price: USD per hour and card, in a middling place.
        weight: how often it is on offer, against the others.
    """

    name: str
    driver_name: str
    memory: int
    capability: int
    bandwidth: float
    flops: float
    power: float
    price: float
    weight: int


CARDS: Final = (
    CardModel("RTX 3060", "NVIDIA GeForce RTX 3060", 12288, 860, 360, 12.7, 170, 0.06, 8),
    CardModel("RTX 3090", "NVIDIA GeForce RTX 3090", 24576, 860, 936, 35.6, 350, 0.18, 14),
    CardModel("RTX 4060 Ti", "NVIDIA GeForce RTX 4060 Ti", 16380, 890, 288, 22.1, 165, 0.09, 6),
    CardModel(
        "RTX 4070S Ti", "NVIDIA GeForce RTX 4070 Ti SUPER", 16376, 890, 672, 44.1, 285, 0.19, 5
    ),
    CardModel("RTX 4090", "NVIDIA GeForce RTX 4090", 24564, 890, 1008, 82.6, 450, 0.38, 22),
    CardModel("RTX 5070", "NVIDIA GeForce RTX 5070", 12227, 1200, 672, 30.9, 250, 0.12, 5),
    CardModel("RTX 5090", "NVIDIA GeForce RTX 5090", 32607, 1200, 1792, 104.8, 575, 0.46, 16),
    CardModel("RTX A5000", "NVIDIA RTX A5000", 24564, 860, 768, 27.8, 230, 0.22, 5),
    CardModel("RTX A6000", "NVIDIA RTX A6000", 49140, 860, 768, 38.7, 300, 0.41, 6),
    CardModel("RTX 6000Ada", "NVIDIA RTX 6000 Ada Generation", 49140, 890, 960, 91.1, 300, 0.54, 4),
    CardModel("L40S", "NVIDIA L40S", 46068, 890, 864, 91.6, 350, 0.62, 5),
    CardModel("Tesla V100", "Tesla V100-SXM2-16GB", 16384, 700, 897, 15.7, 300, 0.17, 4),
    CardModel("A100 PCIE", "NVIDIA A100-PCIE-40GB", 40960, 800, 1555, 19.5, 250, 0.66, 4),
    CardModel("A100 SXM4", "NVIDIA A100-SXM4-80GB", 81920, 800, 2039, 19.5, 400, 0.93, 8),
    CardModel("H100 SXM", "NVIDIA H100 80GB HBM3", 81559, 900, 3352, 66.9, 700, 1.87, 8),
    CardModel("H100 NVL", "NVIDIA H100 NVL", 95830, 900, 3938, 60.0, 400, 1.98, 3),
    CardModel("H200", "NVIDIA H200", 143771, 900, 4800, 66.9, 700, 2.45, 5),
)

#: Where hosts stand: how the vendor writes it, and how many there are, against the others.
PLACES: Final = (
    ("California, US", 8),
    ("Texas, US", 7),
    ("Washington, US", 5),
    ("Quebec, CA", 6),
    ("British Columbia, CA", 4),
    ("Germany, DE", 6),
    ("Sweden, SE", 4),
    ("Norway, NO", 4),
    ("Czechia, CZ", 4),
    ("Bulgaria, BG", 3),
    ("Iceland, IS", 2),
    ("United Kingdom, GB", 3),
    ("Japan, JP", 3),
    ("South Korea, KR", 4),
    ("Taiwan, TW", 4),
    ("Vietnam, VN", 2),
)

#: Name, cores, GHz.
PROCESSORS: Final = (
    ("AMD EPYC 7713 64-Core Processor", 128, 3.7),
    ("AMD EPYC 9354 32-Core Processor", 64, 3.8),
    ("AMD Ryzen 9 7950X 16-Core Processor", 32, 5.7),
    ("Intel(R) Xeon(R) Gold 6448Y", 64, 4.1),
    ("AMD EPYC 7402 24-Core Processor", 48, 3.3),
)

#: Version, as an integer, and the highest CUDA version that it supports.
DRIVERS: Final = (
    ("535.183.01", 535183001, 12.2),
    ("550.144.03", 550144003, 12.4),
    ("570.133.20", 570133020, 12.8),
    ("580.82.07", 580082007, 13.0),
)
