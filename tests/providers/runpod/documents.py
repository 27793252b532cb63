"""RunPod's own description of its REST API v2, where it is at hand: what a message must look like."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import pytest

if TYPE_CHECKING:
    from gpubroker.testing.emulation import Answer, Call

FILE: Final = (
    Path(os.environ.get("GPUBROKER_REFERENCE", "/nowhere"))
    / "runpod-openapi"
    / "rest-v2-openapi.json"
)

needs_documents = pytest.mark.skipif(
    not FILE.is_file(), reason="GPUBROKER_REFERENCE does not name RunPod's documents"
)
"""Marks a test that holds something against them."""

#: Fields of later revisions of the document than the one at hand: where they stand, and their names.
LATER: Final[Mapping[str, frozenset[str]]] = {
    "query": frozenset({"cursor"}),
    "list": frozenset({"pagination"}),
    "pod": frozenset({"cmd", "entrypoint"}),
    "gpu": frozenset({"vcpuCount", "memory"}),
}

Operation = dict[str, Any]
_JSON: Final = ("application/json", "application/problem+json")


@contextmanager
def held_against_documents() -> Generator[None]:
    """At the end, each answer of an emulator and each request of the plugin has to conform.

    Not where there are no documents; nor where a planned fault spoilt the answer.
    """
    from gpubroker_runpod.emulator.assembly import RunPodAssembly

    plain, problems = RunPodAssembly.answer, list[str]()
    seen: list[tuple[Call, Answer | None]] = []

    async def answer(self: RunPodAssembly, call: Call) -> Answer:
        given = await plain(self, call)
        record = next((r for r in reversed(self.dispatcher.records) if r.at == call.at), None)
        seen.append((call, given if record is None or record.fault is None else None))
        return given

    with pytest.MonkeyPatch.context() as patched:
        if FILE.is_file():
            patched.setattr(RunPodAssembly, "answer", answer)
        yield
    for call, given in seen:
        problems += _call_problems(call)
        problems += [] if given is None else _answer_problems(call, given)
    assert not problems, "\n".join(problems)


def _call_problems(call: Call) -> list[str]:
    """Where a request of the plugin's to the REST API is not as described."""
    plugins = call.headers.get("user-agent", "").startswith("gpubroker/")
    if not plugins or not call.path.startswith("/v2/"):
        return []
    params = {name: value for name, value in call.query.items() if name not in LATER["query"]}
    body = call.json() if call.body else None
    return [
        *request_problems(call.method, call.path, body),
        *query_problems(call.method, call.path, params),
    ]


def _answer_problems(call: Call, answer: Answer) -> list[str]:
    """Where an answer of the emulator's is not as described. A page is the edge's, and not the API's."""
    if operation(call.method, call.path) is None or answer.content_type.startswith("text/plain"):
        return []
    body: Any = answer.body.decode()
    if answer.stream is None:
        body = answer.json() if answer.body else None
    return response_problems(call.method, call.path, answer.status, body)


def operation(method: str, path: str) -> Operation | None:
    """The description of a request by its method and path, such as ``/v2/pods/abc``."""
    found = _found(method, path)
    return None if found is None else found[1]


def query_problems(method: str, path: str, params: Mapping[str, str]) -> list[str]:
    """What is wrong with a query: parameters that nobody knows, or with a value that is not theirs."""
    described = operation(method, path)
    if described is None:
        return [f"{method} {path}: no such operation"]
    known = {
        parameter["name"]: parameter
        for parameter in map(_resolved, described.get("parameters", ()))
        if parameter["in"] == "query"
    }
    problems: list[str] = []
    for name, value in params.items():
        if name not in known:
            problems.append(f"{method} {path}: {name} is no parameter")
            continue
        schema = _resolved(known[name]["schema"])
        parsed: Any = value.split(",") if schema.get("type") == "array" else value
        if schema.get("type") in ("integer", "number", "boolean"):
            try:
                parsed = json.loads(value)
            except ValueError:
                parsed = value
        problems += (f"{method} {path}?{name}: {text}" for text in _violations(parsed, schema))
    return problems


def request_problems(method: str, path: str, body: Any) -> list[str]:
    """Where a request's body is not as described; an unknown property is a problem."""
    described = operation(method, path)
    if described is None:
        return [f"{method} {path}: no such operation"]
    content = _resolved(described.get("requestBody", {})).get("content", {})
    schema = content.get("application/json", {}).get("schema")
    if schema is None:
        return [] if body is None else [f"{method} {path}: takes no body"]
    return [f"{method} {path}: {text}" for text in _violations(body, schema)]


def response_problems(method: str, path: str, status: int, body: Any) -> list[str]:
    """Where an answer is not as described, save for what is known to differ.

    Allowed: a ``runtime`` that is ``{}``, as in the document's own example; the fields in `LATER`.

    Args:
        body: what the JSON says; ``None`` for an answer without a body; the text of a stream.
    """
    described = operation(method, path)
    if described is None:
        return [f"{method} {path}: no such operation"]
    answers = described["responses"]
    answer = answers.get(str(status), answers["default"] if status >= 400 else None)
    if answer is None:
        return [f"{method} {path}: HTTP {status} is not among its answers"]
    content = _resolved(answer).get("content", {})
    if not content:
        return [] if body is None else [f"{method} {path}: HTTP {status} has no body"]
    schema = next(
        (content[media]["schema"] for media in _JSON if media in content),
        content.get("text/event-stream", {}).get("schema"),
    )
    return [f"{method} {path} {status}: {text}" for text in _violations(_allowed(body), schema)]


def _allowed(body: Any) -> Any:
    """An answer's body without what may differ."""
    if not isinstance(body, dict):
        return body
    row = cast("dict[str, Any]", body)
    if isinstance(row.get("pods"), list):
        pods = [_allowed(pod) for pod in row["pods"]]
        return {**_without(row, LATER["list"]), "pods": pods}
    if "actions" in row and "gpu" in row:
        runtime = None if row.get("runtime") == {} else row.get("runtime")
        gpu = _without(row["gpu"], LATER["gpu"]) if isinstance(row["gpu"], dict) else row["gpu"]
        return {**_without(row, LATER["pod"]), "runtime": runtime, "gpu": gpu}
    return row


def _without(row: Any, names: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


@cache
def _document() -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads(FILE.read_text()))


@cache
def _registry() -> Any:
    referencing: Any = pytest.importorskip("referencing")
    drafts: Any = pytest.importorskip("referencing.jsonschema")
    resource = drafts.DRAFT202012.create_resource(_document())
    return referencing.Registry().with_resource("urn:runpod", resource)


@cache
def _paths() -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    return [
        (re.compile(re.sub(r"\\\{\w+\\\}", r"[^/]+", re.escape(path))), methods)
        for path, methods in _document()["paths"].items()
    ]


def _found(method: str, path: str) -> tuple[str, Operation] | None:
    # A path without parameters comes before one that would take its last word for a parameter.
    for pattern, methods in sorted(_paths(), key=lambda entry: "[^/]+" in entry[0].pattern):
        if method.lower() in methods and pattern.fullmatch(path):
            return pattern.pattern, methods[method.lower()]
    return None


def _resolved(described: Any) -> Any:
    while isinstance(described, dict) and "$ref" in described:
        target: Any = _document()
        for word in str(cast("Any", described)["$ref"]).removeprefix("#/").split("/"):
            target = target[word]
        described = target
    return cast("Any", described)


def _absolute(schema: object) -> Any:
    """A schema whose references say in which document they are to be looked up."""
    if isinstance(schema, list):
        return [_absolute(part) for part in cast("list[object]", schema)]
    if not isinstance(schema, dict):
        return schema
    table = cast("dict[str, Any]", schema)
    return {
        name: f"urn:runpod{part}" if name == "$ref" and isinstance(part, str) else _absolute(part)
        for name, part in table.items()
    }


@cache
def _validator(schema: str) -> Any:
    jsonschema: Any = pytest.importorskip("jsonschema")
    absolute = _absolute(json.loads(schema))
    return jsonschema.Draft202012Validator(absolute, registry=_registry())


def _violations(value: Any, schema: Any) -> Iterator[str]:
    for error in _validator(json.dumps(schema)).iter_errors(value):
        at = "/".join(str(step) for step in error.absolute_path) or "$"
        yield f"{at}: {error.message}"
