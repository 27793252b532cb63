"""Destroying: what counts as accepted, and many at once."""

from __future__ import annotations

import anyio
import httpx
import pytest
from tests.providers.answers import Answer, meaning, page, said

from gpubroker import ErrorKind, Machine, ProviderError
from gpubroker_vast.provider import VastProvider

from .vendor import MACHINE, Vendor, no, shows_no_key

pytestmark = pytest.mark.anyio

ONE = "/api/v0/instances/31337042/"
MANY = "/api/v0/instances/"


async def release(vendor: Vendor, answer: Answer) -> None:
    vendor.on("DELETE", ONE, answer)
    async with vendor.provider() as provider:
        await provider.release(MACHINE)


@pytest.mark.parametrize(
    "answer",
    [
        said(body={"success": True}),
        said(body={"success": True, "msg": "destroying instance 31337042."}),
        no(404, "no_such_instance", "Instance 31337042 not found."),
        no(200, "no_such_instance", "Instance 31337042 not found."),
    ],
)
async def test_accepted_or_gone(vendor: Vendor, answer: Answer) -> None:
    """A machine that is gone already is released quietly."""
    await release(vendor, answer)

    assert vendor.sent("DELETE", ONE) == [{}]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (no(401, "auth_error"), ErrorKind.AUTH),
        (no(403, "auth_error"), ErrorKind.AUTH),
        (no(404, "auth_error", "Invalid user key"), ErrorKind.AUTH),
        (no(503, "no_such_instance"), ErrorKind.TRANSIENT),
        (no(429, "rate_limit_exceeded"), ErrorKind.RATE_LIMIT),
        (said(404, {"msg": "Not Found"}), ErrorKind.TRANSIENT),
        (page(status=404), ErrorKind.TRANSIENT),
        (page(status=403), ErrorKind.TRANSIENT),
        (httpx.Response(404), ErrorKind.TRANSIENT),
        (httpx.Response(200), ErrorKind.TRANSIENT),
        (httpx.Response(502), ErrorKind.TRANSIENT),
        (httpx.Response(301, json={"success": True}), ErrorKind.TRANSIENT),
        (said(body={"success": False}), ErrorKind.TRANSIENT),
        (httpx.ReadTimeout("late"), ErrorKind.TRANSIENT),
        (httpx.ConnectError("refused"), ErrorKind.TRANSIENT),
    ],
)
async def test_not_yet(vendor: Vendor, answer: Answer, kind: ErrorKind) -> None:
    """Nothing else is taken for an end, least of all a 404 that is about the key."""
    with pytest.raises(ProviderError) as failed:
        await release(vendor, answer)

    assert failed.value.kind is kind
    assert shows_no_key(failed.value)


@pytest.mark.parametrize("name", ["", "x", "1/2", "\uff11\uff12", "1" * 40])
async def test_only_an_id_goes_into_the_path(vendor: Vendor, name: str) -> None:
    """What is no id of the vendor's is refused unsent."""
    async with vendor.provider() as provider:
        with pytest.raises(ProviderError):
            await provider.release(Machine(id=name))

    assert vendor.asked == []


class Releases:
    """Several releases at the same time, and how each of them ended."""

    def __init__(self) -> None:
        self.ended: dict[str, ProviderError | None] = {}

    async def one(self, provider: VastProvider, machine_id: str) -> None:
        try:
            await provider.release(Machine(id=machine_id))
        except ProviderError as error:
            self.ended[machine_id] = error
        else:
            self.ended[machine_id] = None

    async def all(self, provider: VastProvider, *machine_ids: str) -> None:
        async with anyio.create_task_group() as tasks:
            for machine_id in machine_ids:
                tasks.start_soon(self.one, provider, machine_id)


async def test_a_destroy_waits_behind_nothing_else() -> None:
    """However many listings hang, a destroy is sent."""

    class Stuck(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if request.method != "DELETE":
                asked.append(request)
                await anyio.sleep_forever()
            return httpx.Response(200, json={"success": True})

    asked: list[httpx.Request] = []
    released: list[str] = []
    async with Vendor().provider(transport=Stuck()) as provider:
        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(provider.inventory)
            await anyio.wait_all_tasks_blocked()
            with anyio.move_on_after(10):
                await provider.release(Machine(id="1"))
                released.append("1")
            tasks.cancel_scope.cancel()

    assert (len(asked), released) == (8, ["1"])


class TestTogether:
    async def test_all_that_wait_go_in_one_request(self, vendor: Vendor) -> None:
        """Ten machines are not half a minute of single destroys."""
        names = [str(number) for number in range(1, 11)]
        vendor.on("DELETE", MANY, said())
        releases = Releases()
        async with vendor.provider() as provider:
            await releases.all(provider, *names)

        (body,) = vendor.sent("DELETE", MANY)
        assert sorted(body["instance_ids"]) == list(range(1, 11))
        assert (releases.ended, len(vendor.asked)) == (dict.fromkeys(names), 1)

    async def test_no_more_than_64_at_once(self, vendor: Vendor) -> None:
        """The vendor refuses longer lists."""
        names = [str(number) for number in range(1, 151)]
        vendor.on("DELETE", MANY, said())
        for name in names:
            vendor.on("DELETE", f"{MANY}{name}/", said())
        releases = Releases()
        async with vendor.provider() as provider:
            await releases.all(provider, *names)

        sizes = [len(body["instance_ids"]) for body in vendor.sent("DELETE", MANY)]
        assert sorted(sizes, reverse=True)[:2] == [64, 64]
        assert releases.ended == dict.fromkeys(names)

    async def test_the_same_machine_twice_is_one_request(self, vendor: Vendor) -> None:
        """Two callers, one destroy."""
        vendor.on("DELETE", f"{MANY}1/", said())
        async with vendor.provider() as provider, anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(provider.release, Machine(id="1"))

        assert len(vendor.asked) == 1

    async def test_none_of_them_there_means_all_gone(self, vendor: Vendor) -> None:
        """As for one."""
        vendor.on("DELETE", f"{MANY}1/", no(404, "no_such_instance"))
        vendor.on("DELETE", MANY, no(404, "instances_not_found", "Instances 2, 3 not found."))
        releases = Releases()
        async with vendor.provider() as provider:
            await releases.all(provider, "1", "2", "3")

        assert releases.ended == {"1": None, "2": None, "3": None}

    async def test_a_refused_key_is_everybodys_error(self, vendor: Vendor) -> None:
        """None of them is released."""
        for path in (MANY, *(f"{MANY}{name}/" for name in "123")):
            vendor.on("DELETE", path, no(404, "auth_error", "Invalid user key"))
        releases = Releases()
        async with vendor.provider() as provider:
            await releases.all(provider, "1", "2", "3")

        errors = [error for error in releases.ended.values() if error is not None]
        assert [meaning(error) for error in errors] == [("auth", "account")] * 3
        assert len({id(error) for error in errors}) == 3

    async def test_where_lists_are_refused_each_goes_alone(self, vendor: Vendor) -> None:
        """A vendor that forgets how to destroy many can still destroy each."""
        vendor.on("DELETE", MANY, no(400, "invalid_args", "instance_ids array is required"))
        for name in "1234":
            vendor.on("DELETE", f"{MANY}{name}/", said())
        releases = Releases()
        async with vendor.provider() as provider:
            await releases.all(provider, *"1234")

        assert releases.ended == dict.fromkeys("1234")
        assert vendor.count("DELETE", MANY) == 1

    async def test_a_cancelled_release_takes_nobody_along(self, vendor: Vendor) -> None:
        """Whoever sent for all was cancelled: the next one sends for those that are left."""
        sending = anyio.Event()

        class Stuck(httpx.AsyncBaseTransport):
            async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                if not sending.is_set():
                    sending.set()
                    await anyio.sleep_forever()
                return vendor(request)

        vendor.on("DELETE", MANY, said())
        for name in "123":
            vendor.on("DELETE", f"{MANY}{name}/", said())
        releases = Releases()
        async with vendor.provider(transport=Stuck()) as provider:
            async with anyio.create_task_group() as tasks:
                with anyio.CancelScope() as first:
                    async with anyio.create_task_group() as inner:
                        inner.start_soon(releases.one, provider, "1")
                        await sending.wait()
                        tasks.start_soon(releases.one, provider, "2")
                        tasks.start_soon(releases.one, provider, "3")
                        await anyio.sleep(0)
                        first.cancel()

        assert releases.ended == {"2": None, "3": None}
