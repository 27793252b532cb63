"""What is public, where it comes from, and what importing it costs."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gpubroker
from gpubroker import errors

SOURCE = Path(gpubroker.__file__)
HEAVY = {"httpx", "pynvml", "pydantic", "sqlite3", "trio", "asyncio", "anyio", "pluggy", "typer"}

#: What programs may do without that have the brokers' names.
UNUSED = (HEAVY - {"anyio", "asyncio"}) | {
    "cronsim",
    "email",
    "psycopg",
    "rich",
    "statistics",
    "tomllib",
    "zoneinfo",
}


def run_alone(code: str, home: Path | None = None) -> str:
    """What a process of its own prints that runs `code`, with nothing set where it has a `home`."""
    set_up = None
    if home is not None:
        cards = str(home / "cards")
        set_up = {"HOME": str(home), "PATH": os.defpath, "GPUBROKER_LOCAL_LOCK_DIRECTORY": cards}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=home,
        env=set_up,
    )
    return done.stdout


def loaded_by(code: str, home: Path | None = None) -> set[str]:
    """Every module that there is in a process that has run `code`."""
    return set(run_alone(f"{code}; import sys; print(*sys.modules)", home).split())


def tree() -> ast.Module:
    return ast.parse(SOURCE.read_text())


def assigned(name: str) -> Any:
    """The value that the module gives to a name."""
    for node in tree().body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"{SOURCE} assigns no {name}")


def type_checking_imports() -> dict[str, str]:
    """Each public name with the module that type checkers take it from."""
    found: dict[str, str] = {}
    for node in tree().body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for imported in node.body:
                assert isinstance(imported, ast.ImportFrom)
                module = (imported.module or "").removeprefix("gpubroker.")
                found |= {alias.asname or alias.name: module for alias in imported.names}
    return found


def isort_order(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest, as ruff sorts them."""
    kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
    return kind, name


class TestNames:
    def test_the_list_is_sorted_and_names_nothing_twice(self) -> None:
        """Constants first, then classes, then functions."""
        names = list(gpubroker.__all__)

        assert names == sorted(set(names), key=isort_order)

    def test_the_three_lists_agree(self) -> None:
        """What type checkers see, what loads lazily and what is listed are the same names."""
        typed = type_checking_imports()
        listed = set(assigned("__all__")) - {"__version__"}

        assert set(typed) == set(assigned("_MODULE_OF")) == listed
        assert typed == assigned("_MODULE_OF")

    @pytest.mark.parametrize("name", gpubroker.__all__)
    def test_every_name_loads(self, name: str) -> None:
        """From where it says, once, and the same object each time."""
        value = getattr(gpubroker, name)

        assert getattr(gpubroker, name) is value
        assert name in dir(gpubroker)

    def test_what_is_not_there_is_an_attribute_error(self) -> None:
        """So that `hasattr` and `import` work as anywhere."""
        assert not hasattr(gpubroker, "Clout")
        with pytest.raises(ImportError, match="cannot import name 'Clout'"):
            exec("from gpubroker import Clout", {})

    def test_the_version_is_the_distributions(self) -> None:
        """Said in one place and true in the other."""
        from importlib.metadata import version

        assert gpubroker.__version__ == version("gpubroker")

    def test_types_are_shipped(self) -> None:
        """Users' type checkers read ours."""
        assert SOURCE.with_name("py.typed").is_file()


class TestImportCost:
    def test_importing_loads_nothing_heavy(self) -> None:
        """No event loop, no database, no HTTP, no validation before it is needed."""
        code = "import gpubroker, sys; print(*sorted({m.split('.')[0] for m in sys.modules}))"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
        )

        assert set(done.stdout.split()) & HEAVY == set()

    def test_importing_starts_nothing(self) -> None:
        """No thread, no open file, no socket."""
        code = (
            "import os, threading; before = set(os.listdir('/dev/fd'))\n"
            "import gpubroker\n"
            "print(threading.active_count(), len(set(os.listdir('/dev/fd')) - before))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
        )

        assert done.stdout.split() == ["1", "0"]

    def test_the_brokers_load_nothing_that_they_work_with(self) -> None:
        """A program that may rent something has their names for little more than an event loop."""
        loaded = loaded_by("from gpubroker import AsyncBroker, Broker")

        ours = {name.split(".")[1] for name in loaded if name.startswith("gpubroker.")}
        assert ours <= {"broker", "errors", "model", "sync"}
        assert {name.split(".")[0] for name in loaded} & UNUSED == set()

    def test_pools_and_alerts_are_loaded_by_those_who_have_them(self, tmp_path: Path) -> None:
        """A broker that is made loads what every job needs."""
        loaded = loaded_by("import gpubroker; gpubroker.AsyncBroker(ledger=':memory:')", tmp_path)

        assert "gpubroker.lifecycle.releasing.release" in loaded
        for name in ("gpubroker.lifecycle.pooling", "gpubroker.rest", "httpx", "tomllib"):
            assert name not in loaded

    def test_giving_a_machine_up_loads_nothing_more_of_ours(self, tmp_path: Path) -> None:
        """It works where nothing can be read any more: an upgrade under way, no free descriptor."""
        code = (
            "import anyio, gpubroker, gpubroker_local, sys\n"
            "here = gpubroker.Plugin('local', gpubroker_local.create, '', given=True)\n"
            "async def main():\n"
            "    broker = gpubroker.AsyncBroker(ledger=':memory:', plugins=[here])\n"
            "    async with broker:\n"
            "        async with broker.lease() as lease:\n"
            "            held = set(sys.modules)\n"
            "        print(await broker.wait_released(lease.id))\n"
            "    print(*(m for m in set(sys.modules) - held if m.startswith('gpubroker.')))\n"
            "anyio.run(main)"
        )

        assert run_alone(code, tmp_path).split() == ["proven"]

    def test_values_need_no_event_loop_and_no_database(self) -> None:
        """Writing down what is wanted is quick, too."""
        code = (
            "from gpubroker import Requirements, Job, Money, InvalidValue\n"
            "Requirements(gpu='4090'); Job(['x'])\n"
            "import sys; print(*sorted({m.split('.')[0] for m in sys.modules}))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
        )

        assert set(done.stdout.split()) & HEAVY == set()


def documented() -> Iterator[tuple[str, object]]:
    """Every public class and function, and every public method and property of those classes."""
    for name in gpubroker.__all__:
        value = getattr(gpubroker, name)
        if inspect.isclass(value):
            yield name, value
            for attribute, member in vars(value).items():
                if not attribute.startswith("_") and isinstance(
                    member, (types.FunctionType, property, classmethod, staticmethod)
                ):
                    yield f"{name}.{attribute}", member
        elif inspect.isfunction(value):
            yield name, value


class TestDocumentation:
    @pytest.mark.parametrize(("name", "value"), [pytest.param(*p, id=p[0]) for p in documented()])
    def test_everything_public_says_what_it_does(self, name: str, value: object) -> None:
        """In one sentence at the least, of its own."""
        text = value.__doc__ or ""

        assert text.strip()
        # A dataclass without a docstring gets its signature for one.
        assert not text.startswith(f"{name}(")
        assert re.search(r"[.:]$", text.strip().split("\n\n")[0]), "the first part is a sentence"


def drawn() -> dict[str, str]:
    """Each class of the tree at the top of `gpubroker.errors`, with the one that it hangs on."""
    parents: dict[str, str] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^    ((?:[│ ] {3})*(?:[├└]── )?)([A-Z]\w+)  ", f"{line}  ")
        if match:
            depth = len(match[1]) // 4
            above[depth:] = [match[2]]
            if depth:
                parents[match[2]] = above[depth - 1]
    return parents


class TestErrors:
    def test_the_tree_is_drawn_as_it_is(self) -> None:
        """Every error class is in the drawing, under the class that it is made from."""
        real = {
            name: value.__bases__[0].__name__
            for name, value in vars(errors).items()
            if inspect.isclass(value)
            and issubclass(value, errors.BrokerError)
            and value is not errors.BrokerError
        }

        assert drawn() == real

    def test_every_error_is_public(self) -> None:
        """What can be raised can be caught by name."""
        assert set(drawn()) <= set(gpubroker.__all__)
