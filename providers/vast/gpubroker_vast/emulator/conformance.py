"""Vast.ai as a subject of the conformance checks: its emulator, and what can go wrong there."""

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
from gpubroker_vast import create
from gpubroker_vast.emulator.cloud import VastEmulator

#: Creates that are carried out, and of which no answer says so.
_LOST: Final[dict[str, Fault]] = {
    "a cut connection": ("drop", {"when": "after"}),
    "a 502": ("status", {"status": 502, "when": "after"}),
    "the vendor's own 500": ("server-error", {"when": "after"}),
    "half of the JSON": ("garbage", {}),
    "half of the body": ("truncate", {}),
}
#: Ways in which what the listing says is wrong, and can be seen to be: a fault and its options.
_BROKEN: Final[dict[str, Fault]] = {
    "a cut connection": ("drop", {}),
    "a 500": ("status", {"status": 500}),
    "a 502 that looks like an empty list": ("status", {"status": 502, "body": {"instances": []}}),
    "half of the JSON": ("garbage", {}),
    "half of the body": ("truncate", {}),
    "a page for people": ("html", {"status": 200}),
    "a retired endpoint": ("gone-410", {}),
    "a redirect": ("redirect", {"body": '{"success": true, "instances": []}'}),
    "nothing": ("empty-list", {"body": ""}),
    "an empty object": ("garbage", {"body": "{}"}),
    "fewer rows than were counted": ("partial-list", {}),
    "a row that is null": ("malformed-row", {}),
    "a refused key": ("bad-key", {}),
}

_FIRST_PAGE: Final[dict[str, Any]] = {
    "success": True,
    "instances_found": 0,
    "total_instances": 1,
    "next_token": "eyJ2YWx1ZXMiOiB7fX0=",
    "instances": [],
}


@contextmanager
def subject() -> Generator[Subject]:
    """A calm cloud that boots at once, and everything that an account there can do."""
    cloud = VastEmulator(
        seed=1,
        ssh_server="built-in",
        scheduling=0.01,
        boot=0.04,
        stopping=0.01,
        vanishing=0.02,
        charge_digits=6,
    )
    with served(cloud):
        options = {**cloud.options, "poll_interval": "0.02", "absence_interval": "0.02"}
        yield Subject(
            name="vast",
            factory=create,
            settings=AccountSettings("vast", options, cloud.key, cloud.url),
            wanted={"gpu": "RTX 4090", "disk": 20.5, "ports": [8000]},
            books=books_of(cloud),
            troubles=troubles(cloud),
            unknown_id="99999999",
            ssh=True,
            logs=True,
            charges=True,
            balance=True,
            spot=True,
            doubles=True,
            bills_disk=True,
            announces=True,
        )


def troubles(cloud: VastEmulator) -> Troubles:
    """What can be made to go wrong there."""
    quoted = {"success": False, "error": "invalid_key", "msg": f"the key {cloud.key} may not"}
    return Troubles(
        calm=cloud.faults.clear,
        lost_creates=at(cloud, "create", _LOST),
        billing_refusal=partial(cloud.faults.add, "create", "stopped-contract"),
        broken_listings={
            **at(cloud, "list", _BROKEN, times=None),
            "a second page that fails": partial(second_page_fails, cloud, _FIRST_PAGE),
        },
        slow_boot=partial(cloud.next_instance, "slow-boot", seconds=60),
        others=partial(ordered_by_others, cloud),
        echoes=at(
            cloud,
            "*",
            {
                "a 400": ("status", {"status": 400, "body": quoted}),
                "a 500 in text": ("status", {"status": 500, "body": f"<p>{cloud.key}</p>"}),
            },
            times=None,
        ),
        newer=partial(
            answer_with_news,
            cloud,
            {"search-get": "/api/v0/bundles/", "list": "/api/v1/instances/"},
            new_state,
        ),
    )


def ordered_by_others(cloud: VastEmulator) -> list[str]:
    """Two machines, ordered by hand: one with a label, one without."""
    hosts = {row["machine_id"]: row["id"] for row in cloud.offers() if row["rentable"]}
    made: list[str] = []
    with owner(cloud) as client:
        for ask, label in zip(list(hosts.values())[-2:], ("my notebook", None), strict=True):
            body = {"client_id": "me", "image": "ubuntu", "disk": 10, "label": label}
            answer = client.put(f"/api/v0/asks/{ask}/", json=body).json()
            made.append(str(answer["new_contract"]))
    return made


def new_state(row: dict[str, Any]) -> None:
    """A word for what a machine does that nobody knows yet."""
    if "actual_status" in row:
        row["actual_status"] = "hibernating"
