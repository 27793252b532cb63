"""What is planted, and where each of it should be noticed."""

from __future__ import annotations

import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


class NotArmed(Exception):
    """A mutant cannot be planted: what it replaces is not there exactly once, or it has no suite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One failure of another system, planted by one line.

    Attributes:
        failure: what goes wrong. whose: where it was seen.
        file: what is changed, from the root of the repository.
        old: the text that `new` replaces; it is in the file exactly once.
        suite: words for pytest: the tests that should notice.
        equivalent: why nothing can notice; empty where something can.
    """

    id: str
    failure: str
    whose: str
    file: str
    old: str
    new: str
    suite: tuple[str, ...] = ()
    equivalent: str = ""

    def changed(self, tree: Path) -> str:
        """The file's text with the mutant in it.

        Raises:
            NotArmed: the old text is not there exactly once.
        """
        text = (tree / self.file).read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise NotArmed(f"{self.id}: {text.count(self.old)} times in {self.file}: {self.old!r}")
        return text.replace(self.old, self.new)


def planted() -> list[Mutant]:
    """Every mutant, in the order of the list.

    Raises:
        NotArmed: one has neither a suite nor a reason why nothing can notice it, or both.
    """
    listed: list[dict[str, str]] = _read("planted.toml")["mutant"]
    told = _read("suites.toml")
    suites: dict[str, str] = told["suites"]
    reasons: dict[str, str] = told.get("equivalent", {})
    found = [
        Mutant(
            **values,
            suite=tuple(shlex.split(suites.get(values["id"], ""))),
            equivalent=reasons.get(values["id"], ""),
        )
        for values in listed
    ]
    for mutant in found:
        if bool(mutant.suite) == bool(mutant.equivalent):
            raise NotArmed(f"{mutant.id} needs a suite, or a reason for having none")
    unknown = {*suites, *reasons} - {mutant.id for mutant in found}
    if unknown or len({mutant.id for mutant in found}) < len(found):
        raise NotArmed(f"unknown or named twice: {', '.join(sorted(unknown)) or 'an id'}")
    return found


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((HERE / name).read_text(encoding="utf-8"))
