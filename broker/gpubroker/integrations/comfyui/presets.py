"""Presets: a workflow, and names for what an app fills in."""

from __future__ import annotations

import math
import random
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Self, cast, get_args

from gpubroker.errors import InvalidValue
from gpubroker.integrations.comfyui.workflow import Workflow

Kind = Literal["image", "text", "integer", "number", "boolean", "seed"]
Value = str | int | float | bool | bytes | Path

_SEEDS: Final = random.SystemRandom()
_TOP: Final = ("title", "description", "workflow", "models", "notes", "inputs")
_INPUT: Final = ("node", "input", "kind", "default", "choices", "minimum", "maximum")
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "image": (bytes, Path),
    "text": (str,),
    "integer": (int,),
    "seed": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PresetInput:
    """One thing that is filled in.

    Attributes:
        node: the title of its node, or ``#`` and the node's id.
        input: the name of the node's input.
        kind: what it takes. An image is bytes or a path, which is uploaded; a seed that is left
            out is drawn anew each time.
        default: what it is where it is left out; ``None``: it must be given.
        choices: the only values that it may have, where there are any.
        minimum, maximum: of numbers; of texts, characters.
    """

    node: str
    input: str
    kind: Kind = "text"
    default: str | int | float | bool | None = None
    choices: tuple[str | int | float, ...] = ()
    minimum: float = -math.inf
    maximum: float = math.inf

    def checked(self, name: str, value: object) -> Value:
        """`value`, if it may be filled in.

        Raises:
            InvalidValue: it may not.
        """
        kinds = _TYPES[self.kind]
        if not isinstance(value, kinds) or (isinstance(value, bool) and self.kind != "boolean"):
            raise InvalidValue(name, _shown(value), f"must be {_an(self.kind)}")
        if self.choices and value not in self.choices:
            raise InvalidValue.unknown(name, value, map(str, self.choices), noun="choice")
        size = len(value) if isinstance(value, str) else value
        if isinstance(size, int | float) and not self.minimum <= size <= self.maximum:
            what = "characters" if isinstance(value, str) else self.kind
            raise InvalidValue(name, _shown(value), f"{what}: {self.minimum:g} to {self.maximum:g}")
        return cast("Value", value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A workflow that is ready to be filled in.

    Attributes:
        name: what it is known by: letters, digits, ``-`` and ``_``.
        title, description: for people.
        models: what must be on the machine for it, for people and set-up scripts.
        inputs: what is filled in, by name.

    Raises:
        InvalidValue: an input is none of the workflow's.
    """

    name: str
    workflow: Workflow
    inputs: Mapping[str, PresetInput] = field(default_factory=dict[str, PresetInput])
    title: str = ""
    description: str = ""
    models: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, wanted in self.inputs.items():
            self.workflow.check(wanted.node, wanted.input)
            if wanted.default is not None:
                wanted.checked(name, wanted.default)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """From a TOML file; its name without the ending is the preset's.

        ::

            title = "Portrait"
            workflow = "portrait.json"      # beside this file
            models = ["checkpoints/sd_xl_base_1.0.safetensors"]

            [inputs.image]
            node = "Load Image"
            input = "image"
            kind = "image"

            [inputs.seed]
            node = "KSampler"
            input = "seed"
            kind = "seed"

        Raises:
            InvalidValue: something in it makes no sense. OSError: it cannot be read.
        """
        path = Path(path)
        try:
            told = tomllib.loads(path.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise InvalidValue("preset", path.name, str(error)) from error
        _known("preset", told, _TOP)
        if not isinstance(told.get("workflow"), str):
            raise InvalidValue("workflow", told.get("workflow"), "must be the name of a file")
        tables = told.get("inputs", {})
        if not isinstance(tables, dict):
            raise InvalidValue("inputs", tables, "must be a table of tables")
        return cls(
            name=path.stem,
            workflow=Workflow.load(path.parent / told["workflow"]),
            inputs={
                name: _input(f"inputs.{name}", table)
                for name, table in cast("dict[str, object]", tables).items()
            },
            title=_text("title", told.get("title", path.stem)),
            description=_text("description", told.get("description", "")),
            models=tuple(_text("models", model) for model in told.get("models", ())),
        )

    def values(self, given: Mapping[str, object]) -> dict[str, Value]:
        """Every input's value: what is given, checked, and the defaults.

        Raises:
            InvalidValue: one is missing, unknown, or not what it may be.
        """
        _known("input", given, self.inputs)
        values: dict[str, Value] = {}
        for name, wanted in self.inputs.items():
            value = given.get(name, wanted.default)
            if value is None and wanted.kind == "seed":
                value = _SEEDS.getrandbits(48)
            if value is None:
                raise InvalidValue(name, None, "must be given")
            values[name] = wanted.checked(name, value)
        return values

    def filled(self, values: Mapping[str, object]) -> Workflow:
        """The workflow with the values of `values`, whose images are names on the server by now."""
        return self.workflow.filled(
            {(self.inputs[name].node, self.inputs[name].input): v for name, v in values.items()}
        )


def _input(name: str, table: object) -> PresetInput:
    if not isinstance(table, dict):
        raise InvalidValue(name, table, "must be a table")
    told = cast("dict[str, Any]", table)
    _known(name, told, _INPUT)
    kind = told.get("kind", "text")
    if kind not in get_args(Kind):
        raise InvalidValue.unknown(f"{name}.kind", kind, get_args(Kind), noun="kind")
    for key in ("node", "input"):
        if not isinstance(told.get(key), str):
            raise InvalidValue(f"{name}.{key}", told.get(key), "must be a name")
    fields: dict[str, Any] = {**told, "choices": tuple(told.get("choices", ()))}
    return PresetInput(**fields)


def _known(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise InvalidValue.unknown(what, name, known)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidValue(name, value, "must be text")
    return value


def _an(kind: str) -> str:
    if kind == "image":
        return "bytes or a path"
    return f"{'an' if kind == 'integer' else 'a'} {kind}"


def _shown(value: object) -> object:
    return "…" if isinstance(value, bytes) else value
