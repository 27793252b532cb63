"""Imports point one way, and nothing in the core knows a vendor's name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
CORE: Final = ROOT / "broker/gpubroker"
PROVIDERS: Final = ROOT / "providers"

#: part -> the parts that it may import when it runs. Within itself each part may do as it likes.
BELOW: Final = {
    "errors": set[str](),
    "model": {"errors"},
    "hookspecs": {"errors", "model"},
    "policy": {"errors", "model"},
    "watchdog": set[str](),
    "rest": {"errors"},
    "settings": {"errors", "model", "hookspecs", "policy"},
    "ledger": {"errors", "model", "hookspecs", "policy"},
    "transport": {"errors", "model", "hookspecs", "policy"},
    "plugins": {"errors", "model", "hookspecs", "policy", "watchdog"},
}
BELOW["lifecycle"] = {*BELOW}
BELOW["broker"] = {*BELOW}
BELOW["integrations"] = {*BELOW}
BELOW["sync"] = {*BELOW} - {"integrations"}
#: On top: these may use everything, each other's insides excepted.
TOP: Final = ("cli", "testing")

#: What providers may import besides ``from gpubroker import …``.
FOR_PROVIDERS: Final = (
    "gpubroker.hookspecs",
    "gpubroker.transport",
    "gpubroker.testing",
    "gpubroker.rest",
)

FORBIDDEN_NAMES: Final = {"utils", "util", "common", "helpers", "manager", "base", "misc"}


def modules(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def part_of(path: Path) -> str:
    """The part of the core that a module belongs to."""
    return path.relative_to(CORE).parts[0].removesuffix(".py")


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Everything that may be executed: what only type checkers read is left out."""
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child):
            assert isinstance(child, ast.If)
            for other in child.orelse:
                yield other
                yield from runtime_nodes(other)
        else:
            yield child
            yield from runtime_nodes(child)


def imported(path: Path) -> Iterator[str]:
    """Modules that `path` imports when it runs, functions' own imports included."""
    for node in runtime_nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            module = node.module or ""
            yield module
            if module == "gpubroker":
                yield from (f"gpubroker.{alias.name}" for alias in node.names)


def parts_imported(path: Path) -> set[str]:
    """Parts of the core that a module of the core imports when it runs."""
    known = {part_of(module) for module in modules(CORE)} - {"__init__"}
    found = {name.split(".")[1] for name in imported(path) if name.startswith("gpubroker.")}
    return (found & known) - {part_of(path)}


CORE_MODULES: Final = [path for path in modules(CORE) if part_of(path) != "__init__"]


class TestCore:
    @pytest.mark.parametrize("path", CORE_MODULES, ids=lambda p: str(p.relative_to(CORE)))
    def test_imports_point_down(self, path: Path) -> None:
        """Each module imports only what lies below its part."""
        part = part_of(path)
        if part in TOP:
            return

        assert parts_imported(path) <= BELOW[part]

    def test_every_part_has_its_place(self) -> None:
        """A new folder is put somewhere before it is used."""
        assert {part_of(path) for path in CORE_MODULES} <= {*BELOW, *TOP}

    @pytest.mark.parametrize(
        "path",
        [p for p in CORE_MODULES if part_of(p) in TOP],
        ids=lambda p: str(p.relative_to(CORE)),
    )
    def test_nothing_rests_on_the_top(self, path: Path) -> None:
        """Both know the core; the command line also starts sandboxes, and nothing knows it."""
        allowed = {part_of(path), *(["testing"] if part_of(path) == "cli" else [])}

        assert not parts_imported(path) & set(TOP) - allowed

    def test_the_public_namespace_is_nothing_else(self) -> None:
        """`gpubroker` itself imports nothing of ours until a name is asked for."""
        found = {name for name in imported(CORE / "__init__.py") if name.startswith("gpubroker")}

        assert found == set()

    def test_no_vendor_is_known(self) -> None:
        """Their names stand where users keep their keys, and nowhere else."""
        found = [
            f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
            for path in modules(CORE)
            for number, line in enumerate(path.read_text().splitlines(), start=1)
            if re.search(r"(?<![a-z])(vast|runpod)(?![a-z])", line, re.IGNORECASE)
            and not (path.name == "settings.py" and line.startswith("_KEYS: Final = {"))
        ]

        assert found == []


class TestProviders:
    @pytest.mark.parametrize(
        "path", modules(PROVIDERS), ids=lambda path: str(path.relative_to(PROVIDERS))
    )
    def test_providers_import_public_names_only(self, path: Path) -> None:
        """The built-in ones are ordinary plugins: what they need, everybody can have."""
        own = path.relative_to(PROVIDERS).parts[1]
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
                assert not [n for n in names if n.startswith("gpubroker.")]
            elif isinstance(node, ast.ImportFrom):
                module = node.module or ""
                if module.split(".")[0].startswith("gpubroker_"):
                    assert module.split(".")[0] == own, "one provider knows no other"
                elif module.startswith("gpubroker."):
                    assert module.startswith(FOR_PROVIDERS)

    @pytest.mark.parametrize(
        "path", modules(PROVIDERS), ids=lambda path: str(path.relative_to(PROVIDERS))
    )
    def test_what_they_import_is_public(self, path: Path) -> None:
        """Each name is in ``gpubroker.__all__``."""
        import gpubroker

        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "gpubroker":
                modules_named = {"hookspecs", "testing", "transport"}
                assert {a.name for a in node.names} <= {*gpubroker.__all__, *modules_named}


@pytest.mark.parametrize("folder", [CORE, PROVIDERS], ids=["core", "providers"])
def test_every_module_is_named_after_something(folder: Path) -> None:
    """What is called "utils" has no place yet: a function lives with the noun it serves."""
    inside = [path.relative_to(folder) for path in modules(folder)]
    parts = {part.removesuffix(".py") for path in inside for part in path.parts}

    assert not parts & FORBIDDEN_NAMES
