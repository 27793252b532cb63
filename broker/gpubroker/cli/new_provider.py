"""``gpubroker new-provider``: a plugin that works, under its author's name."""

from __future__ import annotations

import re
import shutil
import tempfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from gpubroker.cli.screen import Page, show
from gpubroker.errors import BrokerError, InvalidValue
from gpubroker.plugins import ENTRY_POINTS
from gpubroker.settings import RESERVED

_NAME: Final = re.compile(r"[a-z][a-z0-9]{1,19}")
_EXAMPLE: Final = "third_party_provider"
#: The name in the example; every spelling of it becomes one of the new name.
_THEIRS: Final = "acme"
_LEFT_OUT: Final = ("__pycache__", "*.pyc", ".*", "*.egg-info", "build", "dist")


def new_provider(name: str, into: Path) -> int:
    """Copy the example under a new name, and say what to do next.

    Raises:
        InvalidValue: no provider can be called that.
        BrokerError: the folder is there already.
    """
    check_name(name)
    folder = into / f"gpubroker-{name}"
    if folder.exists():
        raise BrokerError(
            f"{folder} is there already: remove it, or name another place with --into"
        )
    if not into.is_dir():
        raise InvalidValue("into", str(into), "there is no such folder")
    with tempfile.TemporaryDirectory(prefix=".gpubroker-", dir=into) as place:
        draft = Path(place, "draft")
        shutil.copytree(example(), draft, ignore=shutil.ignore_patterns(*_LEFT_OUT))
        _rename(draft, name)
        draft.rename(folder)
    package = folder / "src" / f"gpubroker_{name}"
    show(
        Page(
            [
                f"made {folder}",
                f"the plugin: {package / '__init__.py'}",
                f"a vendor in memory for its tests: {package / 'pretend.py'}",
                "",
                f"  cd {folder}",
                "  pip install -e '.[test]' && pytest",
                f"  gpubroker conformance {name}",
            ]
        )
    )
    return 0


def check_name(name: str) -> None:
    """Refuse a name that no provider can have.

    Raises:
        InvalidValue: it has other characters, means something else in settings, or is taken.
    """
    if not _NAME.fullmatch(name):
        raise InvalidValue(
            "name",
            name,
            "must be 2 to 20 small letters and digits, the first a letter: it becomes part of "
            "module names and of variables such as GPUBROKER_ACME_KEY",
        )
    if name.upper() in RESERVED:
        raise InvalidValue("name", name, f"GPUBROKER_{name.upper()}_… means something else")
    taken = [point for point in metadata.entry_points(group=ENTRY_POINTS) if point.name == name]
    if taken:
        owner = taken[0].dist
        whose = "installed" if owner is None else f"of {owner.name}"
        raise InvalidValue("name", name, f"is taken: a provider {whose} is called that")
    if find_spec(f"gpubroker_{name}") is not None:
        raise InvalidValue("name", name, f"is taken: a module gpubroker_{name} is installed")


def example() -> Path:
    """The example: beside this module in a wheel, in its own folder in a checkout."""
    here = Path(__file__).parent
    places = (here / _EXAMPLE, here.parents[2] / "examples" / _EXAMPLE)
    return next(place for place in places if place.is_dir())


def _rename(folder: Path, name: str) -> None:
    """Put the new name into every file, and into the files' own names."""
    spellings = {
        _THEIRS: name,
        _THEIRS.capitalize(): name.capitalize(),
        _THEIRS.upper(): name.upper(),
    }
    # The deepest first: a folder is renamed when all in it has been.
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file():
            text = path.read_text()
            for theirs, ours in spellings.items():
                text = text.replace(theirs, ours)
            path.write_text(text)
        if _THEIRS in path.name:
            path.rename(path.with_name(path.name.replace(_THEIRS, name)))
