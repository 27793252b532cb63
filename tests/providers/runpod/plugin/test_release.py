"""The end of a pod: asked for until it is there, and never a stop."""

from __future__ import annotations

import httpx
import pytest
from tests.providers.answers import meaning, page

from gpubroker import Machine, ProviderError

from .vendor import MACHINE, POD, Vendor, problem, shows_no_key

pytestmark = pytest.mark.anyio

PATH = f"/v2/pods/{POD}"


async def release(vendor: Vendor, answer: httpx.Response | Exception) -> None:
    vendor.on("DELETE", PATH, answer)
    async with vendor.provider() as provider:
        await provider.release(MACHINE)


@pytest.mark.parametrize("answer", [httpx.Response(204), problem(404, "pod not found")])
async def test_it_is_terminated_and_never_stopped(vendor: Vendor, answer: httpx.Response) -> None:
    """A stopped pod goes on billing its disk, at twice the price. One that is gone is no error."""
    await release(vendor, answer)

    assert [(r.method, r.url.path, r.content) for r in vendor.asked] == [("DELETE", PATH, b"")]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (problem(404, "The requested path was not found."), ("transient", "provider")),
        (page("<html>not here</html>", 404), ("transient", "provider")),
        (problem(410, "Gone"), ("transient", "provider")),
        (problem(401, "expired"), ("auth", "account")),
        (problem(403, "access denied"), ("auth", "account")),
        (page("error code: 1010", 403), ("transient", "provider")),
        (problem(409, "pod belongs to a cluster"), ("bad request", "offer")),
        (problem(500, "oops"), ("transient", "provider")),
        (page("<html>bad gateway</html>", 502), ("transient", "provider")),
        (httpx.ReadTimeout("slow"), ("transient", "provider")),
    ],
)
async def test_anything_else_means_not_yet(
    vendor: Vendor, answer: httpx.Response | Exception, expected: tuple[str, str]
) -> None:
    """A 404 of the path, or of whatever stands in front, says nothing of the pod."""
    with pytest.raises(ProviderError) as caught:
        await release(vendor, answer)

    assert meaning(caught.value) == expected
    assert vendor.count("DELETE", PATH) == 1, "the broker repeats it, and nobody else"
    assert shows_no_key(caught.value)


async def test_the_vendors_words_are_told(vendor: Vendor) -> None:
    """A person may have to see to it."""
    with pytest.raises(ProviderError, match="belongs to a cluster"):
        await release(vendor, problem(409, "pod belongs to a cluster"))


@pytest.mark.parametrize("pod_id", ["", "../account/ssh-keys", "a b", "a/b", "a?b", "é", "x" * 65])
async def test_what_is_no_id_stands_in_no_path(vendor: Vendor, pod_id: str) -> None:
    """It would destroy something else, or nothing."""
    async with vendor.provider() as provider:
        with pytest.raises(ProviderError, match="no pod's id"):
            await provider.release(Machine(id=pod_id))
        with pytest.raises(ProviderError, match="no pod's id"):
            await provider.logs(Machine(id=pod_id))

    assert vendor.asked == []
