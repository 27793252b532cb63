"""Answers conform to the vendor's own documents, where these are at hand."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from gpubroker_vast.emulator import VastEmulator

from .account import Account

FOLDER = Path(os.environ.get("GPUBROKER_REFERENCE", "/nowhere")) / "vast-openapi"

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="GPUBROKER_REFERENCE does not name the vendor's documents"
)

yaml: Any = pytest.importorskip("yaml", reason="PyYAML is not installed")

#: Where the documents are known to be wrong: the end of the path to a value, and why.
KNOWN_ERRORS = {
    "ports": "documented as a list of numbers; really docker's map",
    "ssh_keys": "documented as a list; really a text that holds one",
    "key": "documented as an object; really a text that holds one, for instances",
    "extra_env": "documented as texts in one place, and as pairs in another; really pairs",
}

Operation = dict[str, Any]


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, Operation]]:
    """Method, path and description of each operation."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if isinstance(operation, dict) and "responses" in operation:
                yield method.upper(), path, operation


@pytest.fixture(scope="session")
def documents() -> list[tuple[str, re.Pattern[str], Operation, dict[str, Any]]]:
    """Every documented operation, with the document that it is in."""
    found: list[tuple[str, re.Pattern[str], Operation, dict[str, Any]]] = []
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for file in sorted(FOLDER.glob("*/*.yaml")):
        document = yaml.load(file.read_text(), Loader=loader)
        for method, path, operation in operations(document):
            words = re.sub(r"\\\{\w+\\\}", r"[^/]+", re.escape(path.rstrip("/")))
            found.append((method, re.compile(words + "/?"), operation, document))
    return found


def problems(value: Any, schema: Any, document: dict[str, Any], at: str) -> Iterator[str]:
    """Where a value is not what a schema says. What is left out is allowed everywhere."""
    # The documents say "or null" in their prose more often than in their types.
    if value is None or not schema or at.rpartition(".")[2] in KNOWN_ERRORS:
        return
    if "$ref" in schema:
        target: Any = document
        for word in str(schema["$ref"]).removeprefix("#/").split("/"):
            target = target[word]
        yield from problems(value, target, document, at)
        return
    kinds: Any = schema.get("type")
    if kinds and not any(
        is_a(value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)
    ):
        yield f"{at}: {value!r} is no {kinds}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{at}: {value!r} is not one of {schema['enum']}"
    if isinstance(value, dict):
        row = cast("dict[str, Any]", value)
        yield from (f"{at}: no {name}" for name in schema.get("required", ()) if name not in row)
        for name, part in schema.get("properties", {}).items():
            yield from problems(row.get(name), part, document, f"{at}.{name}")
    if isinstance(value, list):
        for one in cast("list[object]", value):
            yield from problems(one, schema.get("items"), document, f"{at}[]")


def is_a(value: Any, kind: str) -> bool:
    """Whether a value has a type of JSON schema."""
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    types: dict[str, Any] = {
        "number": (int, float),
        "string": str,
        "object": dict,
        "array": list,
        "boolean": (),
        "null": (),
    }
    return isinstance(value, types[kind])


def test_answers_conform(
    account: Account,
    cloud: VastEmulator,
    documents: list[tuple[str, re.Pattern[str], Operation, dict[str, Any]]],
) -> None:
    """Each answer of a tour through the API, held against each document of its operation."""
    answers = tour(account, cloud)
    wrong: list[str] = []
    checked: set[str] = set()
    for answer in answers:
        request = answer.request
        for method, pattern, operation, document in documents:
            if method != request.method or not pattern.fullmatch(request.url.path):
                continue
            described = operation["responses"].get(str(answer.status_code))
            if described is None:
                continue
            for media in described.get("content", {}).values():
                label = f"{method} {request.url.path} {answer.status_code}"
                checked.add(f"{method} {pattern.pattern}")
                wrong += problems(answer.json(), media.get("schema"), document, label)

    assert not wrong, "\n".join(wrong)
    assert len(checked) >= 15, checked


def tour(account: Account, cloud: VastEmulator) -> list[httpx.Response]:
    """Everything that there is to ask, with answers of every kind."""
    answers: list[httpx.Response] = []
    account.http.event_hooks["response"].append(answers.append)
    account.search(limit=5)
    key = {"ssh_key": "ssh-ed25519 AAAA one"}
    made = account.http.post("/api/v0/ssh/", json=key).json()
    number = account.rent(label="mine", env={"A": "1", "-p 8000:8000": "1"})
    account.create(12345)
    for path, body in (
        (f"{number}/", {"label": "other"}),
        (f"request_logs/{number}/", {"tail": "10"}),
        (f"reboot/{number}/", {}),
        (f"bid_price/{number}/", {"client_id": "me", "price": 0.2}),
        (f"{number}/", {"state": "stopped"}),
        (f"{number}/", {"state": "flying"}),
        ("999/", {"state": "stopped"}),
    ):
        account.http.put(f"/api/v0/instances/{path}", json=body)
    account.http.post(f"/api/v0/instances/{number}/ssh/", json={"ssh_key": "ssh-ed25519 BBBB"})
    day = '{"day": {"gte": 0, "lte": 4000000000}}'
    for path in (
        "/api/v1/instances/",
        f"/api/v0/instances/{number}/",
        f"/api/v0/instances/{number}/ssh/",
        "/api/v0/instances/1/",
        "/api/v0/instances/",
        f"/api/v0/instances/balance/{number}/",
        "/api/v0/users/current/",
        "/api/v0/users/spend-rate/",
        "/api/v0/ssh/",
        f"/api/v0/charges/?select_filters={day}",
        "/api/v0/charges/",
        "/api/v1/invoices/",
        "/api/v0/auth/apikeys/",
    ):
        account.http.get(path)
    cloud.switch(limits=50.0, limit_style="detail")
    for _ in range(2):
        account.http.get("/api/v0/charges/")
    cloud.switch(limits=0.0)
    account.destroy(number)
    account.destroy(number)
    account.http.request("DELETE", f"/api/v0/ssh/{made['key']['id']}/", json={})
    account.http.headers["authorization"] = "Bearer nonsense"
    account.http.get("/api/v0/charges/")
    return answers
