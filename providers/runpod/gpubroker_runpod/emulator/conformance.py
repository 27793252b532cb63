"""RunPod as a subject of the conformance checks: its emulator, and what can go wrong there."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from gpubroker import AccountSettings
from gpubroker.testing.conformance import Subject, Troubles
from gpubroker.testing.conformance.emulated import (
    Fault,
    answer_with_news,
    at,
    books_of,
    owner,
    second_page_fails,
    served,
)
from gpubroker_runpod import create
from gpubroker_runpod.emulator.cloud import RunPodEmulator

#: Creates that are carried out, and of which no answer says so.
_LOST: Final[dict[str, Fault]] = {
    "a cut connection": ("drop", {"when": "after"}),
    "a 502": ("status", {"status": 502, "when": "after"}),
    "the vendor's own 500": ("server-error", {"when": "after"}),
    "half of the body": ("truncate", {}),
    "an empty object": ("garbage", {"body": "{}"}),
}
#: Ways in which what the listing says is wrong, and can be seen to be. It counts nothing, so that
#: a list with fewer rows cannot be.
_BROKEN: Final[dict[str, Fault]] = {
    "a cut connection": ("drop", {}),
    "the vendor's own 500": ("server-error", {}),
    "a 502 that looks like an empty list": ("status", {"status": 502, "body": {"pods": []}}),
    "half of the JSON": ("garbage", {}),
    "half of the body": ("truncate", {}),
    "a page for people": ("html", {"status": 200}),
    "a retired endpoint": ("gone-410", {}),
    "a redirect": ("redirect", {"body": '{"pods": []}'}),
    "nothing": ("empty-list", {"body": ""}),
    "an empty object": ("garbage", {"body": "{}"}),
    "a page that leads nowhere": (
        "garbage",
        {"body": '{"pods": [], "pagination": {"hasNextPage": true, "nextCursor": null}}'},
    ),
    "a row that is null": ("malformed-row", {}),
    "a refused key": ("bad-key", {}),
    "a key that may not": ("forbidden", {}),
}

_FIRST_PAGE: Final[dict[str, Any]] = {
    "pods": [],
    "pagination": {"hasNextPage": True, "nextCursor": "1"},
}


@contextmanager
def subject() -> Generator[Subject]:
    """A calm cloud that boots at once, and everything that an account there can do.

    All of its pods have a public port; the jobs of an order run without one.
    """
    cloud = RunPodEmulator(
        seed=1,
        ssh_server="built-in",
        scheduling=0.01,
        boot=0.04,
        vanishing=0.02,
        charge_digits=9,
    )
    with served(cloud):
        options = {
            **cloud.options,
            "poll_interval": "0.02",
            "absence_interval": "0.02",
            "clouds": "secure",
            "way": "log",
        }
        yield Subject(
            name="runpod",
            factory=create,
            settings=AccountSettings("runpod", options, cloud.key, cloud.url),
            wanted={"gpu": "RTX 4090", "disk": 20.5},
            books=books_of(cloud),
            troubles=troubles(cloud),
            unknown_id="nosuchpod12345",
            ssh=True,
            logs=True,
            charges=True,
            balance=True,
            doubles=True,
            bills_disk=True,
            runs_jobs=True,
            announces=True,
        )


def troubles(cloud: RunPodEmulator) -> Troubles:
    """What can be made to go wrong there."""
    said = f"the key {cloud.key} may not do this"
    quoted = {"title": said, "status": 400, "detail": said, "errors": [said]}
    graphql = {"errors": [{"message": said}], "data": None}
    return Troubles(
        calm=cloud.faults.clear,
        lost_creates=at(cloud, "create", _LOST),
        billing_refusal=partial(refuse_and_bill, cloud),
        broken_listings={
            **at(cloud, "list", _BROKEN, times=None),
            "a second page that fails": partial(second_page_fails, cloud, _FIRST_PAGE),
        },
        slow_boot=partial(cloud.next_pod, "slow-boot", seconds=60),
        others=partial(ordered_by_others, cloud),
        echoes=at(
            cloud,
            "*",
            {
                "a 400": ("status", {"status": 400, "body": quoted}),
                "a 500 in text": ("status", {"status": 500, "body": f"<p>{said}</p>"}),
                "a 200": ("status", {"status": 200, "body": graphql}),
            },
            times=None,
        ),
        newer=partial(
            answer_with_news,
            cloud,
            {"gpus": "/v2/catalog/gpus", "list": "/v2/pods"},
            new_state,
        ),
    )


def ordered(cloud: RunPodEmulator, name: str) -> str:
    """A pod that was ordered by hand."""
    body = {
        "name": name,
        "image": "ubuntu:24.04",
        "gpu": {"id": "NVIDIA GeForce RTX 4090", "count": 1},
        "disk": 10,
    }
    with owner(cloud) as client:
        return str(client.post("/v2/pods", json=body).raise_for_status().json()["id"])


def ordered_by_others(cloud: RunPodEmulator) -> list[str]:
    """Two pods: one with a name like a mark, one with any other; a pod always has a name."""
    return [ordered(cloud, "gb1-mine"), ordered(cloud, "my notebook")]


def refuse_and_bill(cloud: RunPodEmulator) -> None:
    """The next create is refused, and the refusal names a pod that there is."""
    body = {"title": "Bad Request", "status": 400, "id": ordered(cloud, "left behind")}
    cloud.faults.add("create", "status", status=400, body=body)


def new_state(row: dict[str, Any]) -> None:
    """A word for what a pod does that nobody knows yet."""
    if "cost" in row and "status" in row:
        row["status"] = "HIBERNATING"
