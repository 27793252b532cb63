"""The guide for authors of providers is true: what it shows is what is tested, and what runs."""

from __future__ import annotations

import re
import textwrap
import tomllib
from pathlib import Path
from typing import Final

import pytest

pytest.importorskip("typer", reason="the extra cli is not installed")

from tests.cli.program import Program

from gpubroker import ErrorKind, ProviderFacts, Scope
from gpubroker.testing.conformance import CHECKS

ROOT: Final = Path(__file__).parent.parent
EXAMPLE: Final = ROOT / "examples" / "third_party_provider"
TEXT: Final = (ROOT / "docs" / "providers.md").read_text()
SOURCES: Final = [*EXAMPLE.rglob("*.py"), EXAMPLE / "pyproject.toml", EXAMPLE / "README.md"]


def blocks(language: str) -> list[str]:
    """The code blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def flush(text: str) -> str:
    """Lines without what they are indented by, whatever that is."""
    return "\n".join(line.strip() for line in textwrap.dedent(text).strip().splitlines())


@pytest.mark.parametrize("block", [*blocks("python"), *blocks("toml")])
def test_what_is_shown_is_part_of_the_example(block: str) -> None:
    """Word for word: the example's own tests carry it out."""
    assert any(flush(block) in flush(path.read_text()) for path in SOURCES), block


@pytest.mark.deep
def test_the_commands_run_as_printed(tmp_path: Path) -> None:
    """But for pip, all of them, in this order; what pip would have done is done by hand."""
    program = Program(tmp_path)
    environment = dict[str, str]()
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    for line in lines:
        words = [word.strip("'") for word in line.split()]
        if words[0] == "cd":
            program.work /= words[1]
            environment["PYTHONPATH"] = f"{installed(program.work)}:{program.work / 'src'}"
        elif words[0] == "gpubroker":
            done = program(*words[1:], **environment)
            assert done.returncode == 0, done.stderr

    assert {line.split()[0] for line in lines} == {"pip", "cd", "pytest", "gpubroker"}
    assert (program.work / "src" / "gpubroker_nimbus" / "__init__.py").is_file()


def installed(folder: Path) -> Path:
    """What an installer would write down of a distribution: its name and its entry points."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    information = folder / "site" / f"{project['name'].replace('-', '_')}-0.1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Name: {project['name']}\nVersion: 0.1.0\n")
    lines = [
        line
        for group, points in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in points.items()))
    ]
    (information / "entry_points.txt").write_text("\n".join(lines))
    return information.parent


def test_every_name_in_it_is_one() -> None:
    """Checks, facts, kinds and scopes that it speaks of exist."""
    table = TEXT[TEXT.index("| what plugins get wrong") : TEXT.index("## Be listed")]
    checks = {name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+_\w+)`", row)}
    facts = re.findall(r"^- ((?:`\w+`(?:, )?)+):", TEXT, re.MULTILINE)
    words = {
        word for word in re.findall(r"`([A-Z]+(?:_[A-Z]+)*)`", TEXT) if "GPUBROKER" not in word
    }

    assert checks <= CHECKS.keys()
    assert {name for line in facts for name in re.findall(r"\w+", line)} <= {
        *ProviderFacts.__dataclass_fields__
    }
    assert words <= {*ErrorKind.__members__, *Scope.__members__}
