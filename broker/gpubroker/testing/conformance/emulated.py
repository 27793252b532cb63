"""A vendor's emulator as the vendor of a subject: its books, and what is done to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from gpubroker.testing.conformance.session import expect
from gpubroker.testing.conformance.subject import Do, VendorBooks

if TYPE_CHECKING:
    import httpx

    from gpubroker.testing.emulation import EmulatedVendor

    Cloud = EmulatedVendor[Any, Any]

Fault = tuple[str, Mapping[str, Any]]
"""A fault of the API, and its options."""


@contextmanager
def served(cloud: Cloud) -> Generator[None]:
    """The emulator runs; at the end nothing bills, and the account key leaked nowhere.

    Raises:
        AssertionError: something does, or it did.
    """
    with cloud:
        yield
        expect(not cloud.leaks, f"the account key leaked: {cloud.leaks}")
        expect(not cloud.billing_now(), f"left behind, and billing: {cloud.billing_now()}")


def books_of(cloud: Cloud) -> VendorBooks:
    """What the emulator knows."""
    return VendorBooks(
        running=cloud.billing_now,
        creates=lambda: sum(request.endpoint == "create" for request in cloud.requests),
        targets=lambda: [f"{r.path}?{dict(r.query)}" for r in cloud.requests],
        orders=lambda: [json.dumps(r.body) for r in cloud.requests if r.endpoint == "create"],
        hourly=cloud.hourly,
        billed=cloud.billed,
        balance=cloud.credit,
    )


def at(
    cloud: Cloud, endpoint: str, faults: Mapping[str, Fault], *, times: int | None = 1
) -> Mapping[str, Do]:
    """Each of the faults, as it is planned for an endpoint."""
    return {
        name: partial(cloud.faults.add, endpoint, fault, times=times, **options)
        for name, (fault, options) in faults.items()
    }


def second_page_fails(cloud: Cloud, first: Mapping[str, Any]) -> None:
    """The first page of the list is `first`, which says that there is another; that one is a 500."""
    cloud.faults.add("list", "garbage", body=json.dumps(first))
    cloud.faults.add("list", "server-error", nth=2, times=None)


def owner(cloud: Cloud) -> httpx.Client:
    """The owner of the account, who uses another tool."""
    import httpx

    headers = {"Authorization": f"Bearer {cloud.key}", "User-Agent": "another-tool/1.0"}
    return httpx.Client(base_url=cloud.url, headers=headers, trust_env=False)


def answer_with_news(
    cloud: Cloud, endpoints: Mapping[str, str], change: Callable[[dict[str, Any]], None]
) -> None:
    """Answer as before, with parts that nobody knows in every object.

    Args:
        endpoints: what is read of each: its path. The query is the last one that it got.
        change: puts new words into an object, where that has such a part.
    """
    for endpoint, path in endpoints.items():
        asked = [request for request in cloud.requests if request.endpoint == endpoint]
        with owner(cloud) as client:
            answer = client.get(path, params=asked[-1].query).raise_for_status().json()
        body = json.dumps(_with_news(answer, change))
        cloud.faults.add(endpoint, "garbage", times=None, body=body)


def _with_news(value: object, change: Callable[[dict[str, Any]], None]) -> object:
    if isinstance(value, list):
        return [_with_news(one, change) for one in cast("list[object]", value)]
    if not isinstance(value, dict):
        return value
    members = cast("dict[str, object]", value)
    news: dict[str, Any] = {name: _with_news(one, change) for name, one in members.items()}
    change(news)
    return {**news, "something_new": [{"nobody": "knows"}]}
