"""A vendor in memory, with its own books and faults: Acme rents one kind of card out."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

import anyio
from anyio.lowlevel import checkpoint

KEY: Final = "the-key-of-acme-0123456789"
#: Seconds for which a machine drains, listed and billed, once it was asked to end.
DRAINS: Final = 2.0
BILL: Final = (Decimal("0.001"), Decimal("0.0002"))
BALANCE: Final = Decimal("25.50")
_PRICE: Final = Decimal("0.30")
_DISK: Final = Decimal("0.0001")


class CutOff(Exception):
    """The connection was cut."""


@dataclass
class Vendor:
    """Acme: one kind of card, by ones and twos. `trouble` is what goes wrong there now."""

    trouble: str = ""
    targets: list[str] = field(default_factory=list[str])
    rows: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    creates: int = 0
    orders: list[str] = field(default_factory=list[str])
    _numbers: Any = field(default_factory=lambda: itertools.count(101))

    def running(self) -> set[str]:
        return {number for number, row in self.rows.items() if self._bills(row)}

    async def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> tuple[int, str]:
        """One request; the status and the body of its answer."""
        self.targets.append(path)
        await checkpoint()
        answer = self._answer(method, path, body or {})
        await checkpoint()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _answer(
        self, method: str, path: str, body: Mapping[str, Any]
    ) -> tuple[int, str] | Exception:
        if self.trouble == "echo":
            return 400, f"the key {KEY} may not do this"
        if method == "POST":
            return self._create(body)
        if method == "DELETE":
            return self._destroy(path)
        if path.startswith("/machines") and self.trouble in ("cut list", "page of errors"):
            return CutOff() if self.trouble == "cut list" else (500, "<html>")
        shown = [dict(row, state=self._state(row)) for row in self._listed()]
        listed = shown[1:] if self.trouble == "short list" else shown
        answers: dict[str, Any] = {
            "/machines": {"machines": listed, "count": len(shown)},
            "/charges": {"lines": [[number, str(usd)] for number in self.rows for usd in BILL]},
            "/balance": {"usd": str(BALANCE)},
        }
        answer = {"price": str(_PRICE), "disk": str(_DISK), **answers.get(path, {})}
        if self.trouble == "new":
            answer |= {"machines": [dict(row, state="hibernating", new=1) for row in shown]}
        return 200, json.dumps(answer)

    def _create(self, body: Mapping[str, Any]) -> tuple[int, str] | Exception:
        self.creates += 1
        self.orders.append(json.dumps(body))
        trouble, self.trouble = self.trouble, ""
        number = self.make(body.get("name"), 60.0 if trouble == "slow boot" else 0.0, body)
        if trouble == "cut create":
            return CutOff()
        if trouble == "502":
            return 502, "<html>"
        if trouble == "refusal":
            return 400, json.dumps({"error": "no capacity", "left": number})
        return 200, json.dumps({"id": number})

    def make(self, name: str | None, boot: float, body: Mapping[str, Any]) -> str:
        """A machine that bills."""
        number = str(next(self._numbers))
        self.rows[number] = {
            "id": number,
            "name": name,
            "price": str(
                _PRICE * body.get("count", 1) + _DISK * Decimal(str(body.get("disk", 10)))
            ),
            "ready": anyio.current_time() + boot,
            "jobs": body.get("jobs", []),
            "log": body.get("nonce", ""),
            "ends": math.inf,
            "stays": False,
        }
        return number

    def _bills(self, row: Mapping[str, Any]) -> bool:
        ends: float = row["ends"]
        return anyio.current_time() < ends

    def _listed(self) -> list[dict[str, Any]]:
        return [row for row in self.rows.values() if row["stays"] or self._bills(row)]

    def _state(self, row: Mapping[str, Any]) -> str:
        if row["ends"] < math.inf:
            return "draining"
        return "up" if anyio.current_time() >= row["ready"] else "starting"

    def _destroy(self, path: str) -> tuple[int, str]:
        number = path.partition("?")[0].rstrip("/").rpartition("/")[2]  # as lenient as servers are
        row = self.rows.get(number)
        if row is None or not self._bills(row):
            return 404, "no such machine"
        row["ends"] = min(row["ends"], anyio.current_time() + DRAINS)
        return 200, "{}"

    def others(self) -> list[str]:
        return [self.make("my notebook", 0.0, {}), self.make(None, 0.0, {})]
