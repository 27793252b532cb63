"""Whether the machine delivered is the machine that was offered, asked of the machine itself.

Hosts of a marketplace describe themselves; some are wrong. Before the first byte of a user's work
leaves, the machine's own driver is asked which cards there are.
"""

from __future__ import annotations

import re
from typing import Final

from gpubroker.model.facts import ProviderFacts
from gpubroker.model.gpus import gpu_compute_capability, gpu_matches, gpu_name
from gpubroker.model.offers import Offer

COMMAND: Final = (
    "nvidia-smi",
    "--query-gpu=name,memory.total",
    "--format=csv,noheader,nounits",
)

TIMEOUT: Final = 120.0
"""Seconds that the driver of a machine may take to say which cards there are."""

REFUSED: Final = 75
"""What `gate` exits with if the cards are not as offered."""

_GATE: Final = """\
number=$1 least=$2 count=$3
shift 3
cards=$("$@") || exit
printf '%s\\n' "$cards"
printf '%s\\n' "$cards" | {
  while IFS= read -r card; do
    case $card in
    *,*) ;;
    *) continue ;;
    esac
    case ${card%,*} in
    *"$number"*) ;;
    *) exit @REFUSED@ ;;
    esac
    [ "${card##*[, ]}" -ge "$least" ] || exit @REFUSED@
    count=$((count - 1))
  done
  [ "$count" -eq 0 ] || exit @REFUSED@
}
""".replace("@REFUSED@", str(REFUSED))

#: A card's driver reports a little less memory than is printed on its box.
_TOLERANCE: Final = 0.9


def wanted(offer: Offer, facts: ProviderFacts) -> bool:
    """Whether there is anything to ask: a card of NVIDIA's that is paid for."""
    return facts.paid and offer.gpu is not None and gpu_compute_capability(offer.gpu) is not None


def gate(offer: Offer) -> tuple[str, ...]:
    """`COMMAND` for a machine that nobody asks before it goes on: it fails on wrong cards itself.

    It prints the same, and refuses nothing that `mismatch` accepts. It knows a model by its number
    alone; what it lets through is looked at again.
    """
    number = re.search(r"\d+", offer.gpu or "")
    least = 0 if offer.vram is None else _least(offer.vram) * 1000 / 1.048576
    words = number[0] if number else "", str(int(least)), str(offer.count)
    return "sh", "-c", _GATE, "sh", *words, *COMMAND


def mismatch(offer: Offer, exit_code: int | None, output: str) -> str | None:
    """What is wrong with the cards that a machine reports, or ``None`` if they are as offered.

    Args:
        exit_code: of `COMMAND` or of `gate`; ``None`` if it could not be started.
        output: what it printed: one line per card, name and memory in MiB.
    """
    if exit_code not in (0, REFUSED):
        return "the machine has no working NVIDIA driver"
    cards = [line.rsplit(",", 1) for line in output.splitlines() if "," in line]
    if len(cards) != offer.count:
        return f"offered {offer.count} cards, found {len(cards)}"
    for label, memory in cards:
        try:
            vram = float(memory) * 1.048576 / 1000
        except ValueError:
            return f"the driver reports no memory for {label.strip()[:60]!r}"
        found = gpu_name(label, vram)
        if offer.gpu is not None and not _same(offer.gpu, found):
            return f"offered {offer.gpu}, found {found}"
        if offer.vram is not None and not vram >= _least(offer.vram):
            return f"offered {offer.vram:g} GB on each card, found {vram:.1f} GB"
    return None if exit_code == 0 else "the machine itself found other cards than were offered"


def _least(vram: float) -> float:
    return vram * _TOLERANCE


def _same(offered: str, found: str) -> bool:
    """Either name may say more than the other."""
    return gpu_matches(offered, found) or gpu_matches(found, offered)
