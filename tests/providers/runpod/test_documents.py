"""The reader of RunPod's own documents finds what differs from them, and lets pass what may."""

from __future__ import annotations

from typing import Any

import pytest

from .documents import needs_documents, query_problems, request_problems, response_problems

pytestmark = needs_documents

CREATE: dict[str, Any] = {
    "name": "mark",
    "image": "runpod/base:1",
    "gpu": {"id": "NVIDIA L4", "count": 1},
    "disk": 20,
}
POD: dict[str, Any] = {
    "id": "q7x2m0c4v9tzkd",
    "name": "mark",
    "image": "i",
    "args": "",
    "disk": 30,
    "ports": ["22/tcp"],
    "env": {},
    "registry": None,
    "status": "PROVISIONING",
    "actions": ["stop", "terminate"],
    "mounts": {},
    "cloud": "SECURE",
    "locked": False,
    "gpu": {"id": "NVIDIA L4", "count": 1},
    "dataCenterId": None,
    "cudaVersion": None,
    "ssh": {"proxy": None, "direct": None},
    "template": None,
    "cost": 0.39,
    "runtime": None,
    "globalNetworking": {"enabled": False},
    "createdAt": "2026-11-20T09:00:00Z",
    "startedAt": None,
}


@pytest.mark.parametrize(
    ("body", "right"),
    [
        (CREATE, True),
        ({**CREATE, "interruptible": False}, False),
        ({**CREATE, "gpu": {"id": "NVIDIA L4", "bid": 1}}, False),
        ({k: v for k, v in CREATE.items() if k != "name"}, False),
        ({**CREATE, "disk": 0}, False),
    ],
)
def test_a_create_is_held_against_the_schema(body: Any, right: bool) -> None:
    """An unknown or missing property, or a value out of range, is a problem."""
    assert bool(request_problems("POST", "/v2/pods", body)) is not right


@pytest.mark.parametrize(
    ("params", "right"),
    [
        ({"include": "AVAILABILITY", "product": "POD", "count": "2", "cloud": "COMMUNITY"}, True),
        ({"cloud": "ALL"}, False),
        ({"count": "none"}, False),
        ({"spot": "true"}, False),
    ],
)
def test_a_query_is_held_against_its_parameters(params: dict[str, str], right: bool) -> None:
    """An unknown parameter, or an unknown value of a known one, is a problem."""
    assert bool(query_problems("GET", "/v2/catalog/gpus", params)) is not right


def test_an_answer_is_held_against_the_schema_of_its_status() -> None:
    """Each status has its own; a status that is not documented is an error's."""
    problem = {"title": "Not Found", "status": 404, "detail": "pod not found"}

    assert response_problems("POST", "/v2/pods", 201, POD) == []
    assert response_problems("GET", "/v2/pods/abc", 200, POD) == []
    assert response_problems("GET", "/v2/pods/abc", 404, problem) == []
    assert response_problems("POST", "/v2/pods", 402, problem) == []
    assert response_problems("DELETE", "/v2/pods/abc", 204, None) == []
    assert response_problems("POST", "/v2/pods", 201, {**POD, "status": "UP"})
    assert response_problems("POST", "/v2/pods", 402, {"error": "no"})
    assert response_problems("DELETE", "/v2/pods/abc", 204, {})
    assert response_problems("GET", "/v3/pods", 200, {})


def test_known_differences_are_allowed() -> None:
    """An empty runtime, and the fields of later revisions, are no problem."""
    later: dict[str, Any] = {
        **POD,
        "runtime": {},
        "gpu": {**POD["gpu"], "vcpuCount": 8, "memory": 50},
        "cmd": [],
    }
    page: dict[str, Any] = {
        "pods": [later],
        "pagination": {"nextCursor": None, "hasNextPage": False},
    }

    assert response_problems("GET", "/v2/pods", 200, page) == []
