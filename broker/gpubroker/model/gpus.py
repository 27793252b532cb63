"""One vocabulary for GPU models, whoever names them.

"RTX 4090", "rtx4090", "4090" and "NVIDIA GeForce RTX 4090" are the same card. A name stands for
a set of models: "A100" for all of its family, "A100 80GB" for two of them, "A100 80GB SXM" for
one. A wanted name accepts an offered one when it stands for every model the offered one may be.

Cards of different silicon or class never stand in for one another, however alike their names:
"RTX 4090" accepts neither "RTX 4090 Laptop" nor "RTX 4090 D", "L40" does not accept "L40S", and
no name accepts a MIG slice of its card.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Final

from gpubroker.errors import InvalidValue

if TYPE_CHECKING:
    from gpubroker.model.gpu_table import GpuModel

#: How far the memory that a driver reports may be from the nominal size, as a ratio. Drivers
#: count in MiB and leave out what error correction takes; modified cards are further away.
_DRIVER_TOLERANCE: Final = 1.15
#: Likewise for a size inside a name: vendors write 180 or 192 for the same B200.
_NAME_TOLERANCE: Final = 1.07
_BUSES: Final = ("SXM", "PCIe", "NVL", "FHHL")
#: Buses that say nothing new of a model made for one bus only.
_PLAIN_BUSES: Final = ("SXM", "PCIe", "OAM")
#: Labels that vendors and the driver give to one member, though they sound like the family.
_LABELS: Final = {"H200": "H200 SXM"}
#: Characters of the longest spelling in the table, and then some.
_LONGEST_SPELLING: Final = 40
_LONGEST_LABEL: Final = 80


def parse_gpu(name: str, field: str = "gpu") -> str:
    """The canonical name for what a caller asks for: a model, a family or part of a family.

    Raises:
        InvalidValue: no such GPU, or the name is that of two different ones; with the nearest
            valid name.
    """
    models = _resolve(name)
    canonical = _common_name(models)
    if canonical is not None:
        return canonical
    if models:
        names = [model.name for model in models]
        raise InvalidValue(field, name, f"ambiguous: {' or '.join(names)}", suggestion=names[-1])
    raise InvalidValue(field, name, "unknown GPU", suggestion=_nearest(name))


def gpu_name(text: str, vram: float | None = None) -> str:
    """The canonical name for a vendor's or driver's label; never raises.

    Args:
        text: the label. One that is not known is returned tidied up.
        vram: GB of memory on each GPU, where known: tells models of one label apart.
    """
    return _gpu_name(text, vram)


def gpu_matches(wanted: str, offered: str) -> bool:
    """Whether an offered GPU is certainly one that is wanted; both names are canonical.

    An offer that does not say which member of a family it is meets only those wishes that
    every member it may be would meet.
    """
    return _gpu_matches(wanted, offered)


def gpu_vram(name: str) -> float | None:
    """GB of memory of a GPU by its canonical name; ``None`` if unknown or not always the same."""
    sizes = {model.vram for model in _resolve(name)}
    return sizes.pop() if len(sizes) == 1 else None


def gpu_compute_capability(name: str) -> float | None:
    """NVIDIA's compute capability by canonical name; ``None`` if unknown or there is none."""
    values = {model.compute_capability for model in _resolve(name)}
    return values.pop() if len(values) == 1 else None


@lru_cache(maxsize=4096)
def _gpu_name(text: str, vram: float | None) -> str:
    models = _resolve(text)
    if vram is not None and vram > 0 and math.isfinite(vram):
        models = _nearest_in_size(models, vram, _DRIVER_TOLERANCE) or models
    name = _common_name(models)
    return _tidy(text) if name is None else _LABELS.get(name, name)


@lru_cache(maxsize=4096)
def _gpu_matches(wanted: str, offered: str) -> bool:
    if wanted == offered:
        return True
    may_be = _resolve(offered)
    return bool(may_be) and set(may_be) <= set(_resolve(wanted))


@lru_cache(maxsize=4096)
def _resolve(text: str) -> tuple[GpuModel, ...]:
    """Every model that `text` may stand for, in the table's order; empty if there is none."""
    key = _squeeze(text)
    spellings = _spellings()
    # The longest spelling that the text begins with; what follows must narrow it down.
    for end in range(min(len(key), _LONGEST_SPELLING), 0, -1):
        models = spellings.get(key[:end])
        if models is not None:
            narrowed = _narrow(models, key[end:])
            if narrowed:
                return narrowed
    return ()


def _narrow(models: tuple[GpuModel, ...], rest: str) -> tuple[GpuModel, ...]:
    """Those of `models` that fit what follows the family's name, such as ``sxm480gb``."""
    _, detail = _patterns()
    position = 0
    while position < len(rest):
        match = detail.match(rest, position)
        if match is None:
            return ()
        position = match.end()
        if match["size"]:
            models = _nearest_in_size(models, float(match["size"]), _NAME_TOLERANCE)
        elif match["bus"]:
            models = _on_bus(models, match["bus"])
    return models


def _on_bus(models: tuple[GpuModel, ...], spelling: str) -> tuple[GpuModel, ...]:
    bus = next(bus for bus in (*_BUSES, "OAM") if spelling.startswith(bus.lower()))
    if bus in _PLAIN_BUSES and not any(set(m.name.split()) & set(_BUSES) for m in models):
        return models
    return tuple(model for model in models if bus in model.name.split())


def _nearest_in_size(
    models: Iterable[GpuModel], size: float, tolerance: float
) -> tuple[GpuModel, ...]:
    """The models whose memory is nearest to `size` GB and within the tolerance."""
    ratios = [(max(model.vram / size, size / model.vram), model) for model in models]
    best = min((ratio for ratio, _ in ratios), default=math.inf)
    return tuple(model for ratio, model in ratios if ratio == best <= tolerance)


def _common_name(models: tuple[GpuModel, ...]) -> str | None:
    """The canonical name for exactly these models; ``None`` if there are none, or of two kinds."""
    if len(models) == 1:
        return models[0].name
    families = {model.family for model in models}
    if len(families) != 1:
        return None
    family = families.pop()
    members = _spellings()[_squeeze(family)]
    sizes = {model.vram for model in models}
    if len(models) == len(members):
        return family
    details = [f"{sizes.pop():g}GB"] if len(sizes) == 1 < len({m.vram for m in members}) else []
    details += [bus for bus in _BUSES if all(bus in model.name.split() for model in models)]
    return " ".join((family, *details))


def _nearest(name: str) -> str | None:
    """The valid name that `name` begins with, else the one that is spelt most like it."""
    import difflib

    key, spellings = _squeeze(name)[:_LONGEST_SPELLING], _spellings()
    starts = [key[:end] for end in range(len(key), len(key) // 2 - 1, -1)]
    for near in (*starts, *difflib.get_close_matches(key, spellings, n=3)):
        canonical = _common_name(spellings.get(near, ()))
        if canonical is not None:
            return canonical
    return None


def _tidy(text: str) -> str:
    """An unknown label, made fit to be shown and compared."""
    printable = "".join(c if c.isprintable() and c != "_" else " " for c in text)
    words = printable.split()
    while len(words) > 1 and words[0].lower() in ("nvidia", "amd"):
        del words[0]
    label = " ".join(words) or "unknown GPU"
    if len(label) > _LONGEST_LABEL:
        # What was cut off may have told two cards apart: the mark keeps the rest unknown.
        return f"{label[: _LONGEST_LABEL - 6].rstrip()} (cut)"
    return label


def _squeeze(text: str) -> str:
    """Small letters and digits only, without the words that tell no two models apart."""
    noise, _ = _patterns()
    key = noise.sub("", text.lower())
    # "RTX PRO 6000" and "RTX PRO 6000 Blackwell" are one; "RTX 6000" and "… Blackwell" are not.
    return key.replace("blackwell", "") if "pro" in key else key


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What to leave out of a name, and one detail after a family's name."""
    noise = re.compile(
        r"[^a-z0-9]+|nvidia|geforce|tesla|amd|instinct|radeon|generation|edition|gpu"
    )
    detail = re.compile(
        r"(?P<size>[1-9][0-9]{0,2})(?:gib|gb|g)"
        # The digit after SXM is the socket's unless the size needs it: "sxm480gb", "sxm40gb".
        r"|(?P<bus>sxm(?:[2-6](?=[1-9][0-9]|[a-z]|$))?|pcie|nvl|fhhl|oam)"
        r"|hbm[23]?e?"
    )
    return noise, detail


@cache
def _spellings() -> dict[str, tuple[GpuModel, ...]]:
    """Every squeezed spelling of a family, a model or an alias, and the models it stands for."""
    from gpubroker.model.gpu_table import GPU_MODELS

    found: dict[str, dict[GpuModel, None]] = {}
    for model in GPU_MODELS:
        for name in (model.family, model.name, *model.aliases):
            for key in _variants(_squeeze(name)):
                found.setdefault(key, {})[model] = None
    return {key: tuple(models) for key, models in found.items()}


def _variants(key: str) -> set[str]:
    """`key`, and the shorter ways in which people and vendors write it."""
    keys = {key}
    if key.startswith("rtxpro"):
        number = key.removeprefix("rtxpro")
        keys |= {f"rtx{number[:4]}pro{number[4:]}", f"rtx{number[:4]}blackwell{number[4:]}"}
    if key.startswith("quadro"):
        keys.add("q" + key.removeprefix("quadro"))
    if key.endswith("tisuper"):
        keys |= {key.replace("tisuper", end) for end in ("tis", "sti", "superti")}
    elif key.endswith("super"):
        keys.add(key.removesuffix("uper"))
    if key.endswith("laptop"):
        keys.add(key.removesuffix("laptop") + "mobile")
    # Four digits and no "RTX" are a GeForce card: "6000" alone would be anything.
    bare = {k[3:] for k in keys if k.startswith(("rtx", "gtx"))}
    return keys | {k for k in bare if not k[:4] in {"4000", "5000", "6000", "8000"} or k[4:]}
