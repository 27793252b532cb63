"""A picture of a plan: for each strategy a bar for its cost, and one for the wait. SVG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from xml.etree import ElementTree as Xml

from gpubroker.cli.durations import shown
from gpubroker.cli.neutralise import harmless
from gpubroker.policy.outlook import Outlook

_WIDTH: Final = 860
_ROW: Final = 34
_TOP: Final = 92
_NAMES: Final = 150
#: Where the two columns of bars begin, and how long a full bar is.
_COST, _WAIT, _BAR = 160, 520, 220
_INK, _QUIET, _MONEY, _TIME, _BEST = "#1f2430", "#667085", "#2f6fb5", "#d97a2b", "#eef4fb"


def picture(outlooks: Sequence[Outlook], title: str, best: Outlook | None) -> bytes:
    """The strategies one below the other, the recommended one set off. UTF-8."""
    height = _TOP + _ROW * len(outlooks) + 44
    svg = Xml.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {_WIDTH} {height}",
            "width": str(_WIDTH),
            "height": str(height),
            "font-family": "system-ui, sans-serif",
            "font-size": "14",
            "role": "img",
        },
    )
    Xml.SubElement(svg, "title").text = harmless(f"What keeping machines costs: {title}")
    _box(svg, 0, 0, _WIDTH, height, "#ffffff")
    _text(svg, 20, 34, title, size=17, weight="600")
    _text(svg, _COST, 76, "USD a month", fill=_QUIET)
    _text(svg, _WAIT, 76, "95 of 100 requests wait at most", fill=_QUIET)
    dearest = max((each.month.amount for each in outlooks), default=0) or 1
    longest = max((each.wait_p95 for each in outlooks), default=0.0) or 1.0
    for number, each in enumerate(outlooks):
        top = _TOP + number * _ROW
        if each is best:
            _box(svg, 10, top, _WIDTH - 20, _ROW, _BEST)
        fill = _INK if each.built else _QUIET
        line = top + 22
        weight = "600" if each is best else "400"
        _text(svg, _NAMES, line, each.strategy, anchor="end", fill=fill, weight=weight)
        _bar(
            svg, _COST, top, float(each.month.amount / dearest), _MONEY, f"${each.month.amount:.2f}"
        )
        _bar(svg, _WAIT, top, each.wait_p95 / longest, _TIME, shown(each.wait_p95))
    note = "Stopping machines and keeping their disks is not built: it is there for comparison."
    _text(svg, 20, height - 18, note, size=12, fill=_QUIET)
    return Xml.tostring(svg, encoding="unicode").encode()


def _bar(svg: Xml.Element, left: int, top: int, part: float, fill: str, label: str) -> None:
    length = max(1, round(part * _BAR))
    _box(svg, left, top + 8, length, _ROW - 16, fill)
    _text(svg, left + length + 8, top + 22, label)


def _box(svg: Xml.Element, left: int, top: int, width: int, height: int, fill: str) -> None:
    places = {"x": left, "y": top, "width": width, "height": height}
    Xml.SubElement(svg, "rect", {name: str(at) for name, at in places.items()} | {"fill": fill})


def _text(
    svg: Xml.Element,
    left: int,
    line: int,
    text: str,
    *,
    anchor: str = "start",
    fill: str = _INK,
    size: int = 14,
    weight: str = "400",
) -> None:
    attributes = {
        "x": str(left),
        "y": str(line),
        "text-anchor": anchor,
        "fill": fill,
        "font-size": str(size),
        "font-weight": weight,
    }
    Xml.SubElement(svg, "text", attributes).text = harmless(text)
