"""Renting: what is ordered, and what each answer to the one create means."""

from __future__ import annotations

from typing import Any

import anyio
import httpx
import pytest
from tests.providers.answers import Answer, meaning, page, said

from gpubroker import (
    CreateUnknown,
    ErrorKind,
    Machine,
    MachineState,
    Money,
    Order,
    Price,
    ProviderError,
)
from gpubroker_vast.onstart import LIMIT

from .vendor import KEY, MARK, NONCE, PUBLIC_KEY, Vendor, no, offer, order, shows_no_key

pytestmark = pytest.mark.anyio

PATH = "/api/v0/asks/27418355/"
KEYS = "/api/v0/instances/31337042/ssh/"
MADE = {"success": True, "new_contract": 31337042, "instance_api_key": "5be1"}


async def rent(
    vendor: Vendor, *answers: Answer, what: Order | None = None, **parts: Any
) -> Machine:
    """Rent the usual offer, with keys taken at once."""
    vendor.on("PUT", PATH, *(answers or (said(body=MADE),)))
    vendor.on("POST", KEYS, said(body={"success": True}))
    async with vendor.provider(**parts) as provider:
        return await provider.provision(offer(), what or order())


async def refusal(vendor: Vendor, answer: Answer) -> ProviderError:
    """What renting the usual offer raises, after exactly one request."""
    with pytest.raises(ProviderError) as failed:
        await rent(vendor, answer)
    assert vendor.count("PUT", PATH) == 1, "a create is sent once, whatever becomes of it"
    assert shows_no_key(failed.value)
    return failed.value


class TestOrder:
    async def test_what_is_ordered(self, vendor: Vendor) -> None:
        """The mark is the label, a machine that is taken is not queued, and SSH is straight."""
        machine = await rent(
            vendor, what=order(image="me/mine:1", ports=(8000,), env={"MODE": "fast"})
        )

        (body,) = vendor.sent("PUT", PATH)
        assert (machine.id, machine.mark, machine.state) == ("31337042", MARK, MachineState.BOOTING)
        assert (body["label"], body["image"], body["disk"]) == (MARK, "me/mine:1", 40.0)
        assert (body["cancel_unavail"], body["target_state"]) == (True, "running")
        assert body["runtype"] == "ssh_direct"
        assert body["env"] == {"MODE": "fast", "-p 8000:8000": "1"}
        assert NONCE in body["onstart"]
        assert PUBLIC_KEY in body["onstart"]
        assert "price" not in body

    async def test_no_secret_goes_along(self, vendor: Vendor) -> None:
        """The account's key is in no part of what a rented machine gets."""
        await rent(vendor)

        (request,) = [r for r in vendor.asked if r.url.path == PATH]
        assert KEY not in request.content.decode()
        assert "image_login" not in request.content.decode()

    async def test_a_registry_is_logged_in_to_where_that_is_set(self, vendor: Vendor) -> None:
        """As the vendor wants it."""
        await rent(vendor, image_login="-u me -p hush r.example")

        assert vendor.sent("PUT", PATH)[0]["image_login"] == "-u me -p hush r.example"

    async def test_a_bid_is_the_offered_price(self, vendor: Vendor) -> None:
        """Which makes the machine an interruptible one, and says so explicitly."""
        spot = offer(
            id="27418355:bid", spot=True, price=Price(machine=Money("0.182"), disk=Money("0.01"))
        )
        vendor.on("PUT", PATH, said(body=MADE))
        vendor.on("POST", KEYS, said())
        async with vendor.provider() as provider:
            await provider.provision(spot, order(price_ceiling=Money("0.192")))
            await provider.provision(spot, order(price_ceiling=Money("0.15")))

        assert [body["price"] for body in vendor.sent("PUT", PATH)] == [0.182, 0.14]
        assert vendor.sent("PUT", PATH)[0]["cancel_unavail"] is True

    async def test_a_ceiling_below_the_disk_is_no_bid(self, vendor: Vendor) -> None:
        """Nothing is sent: without a price it would be rented on demand."""
        async with vendor.provider() as provider:
            with pytest.raises(ProviderError) as refused:
                await provider.provision(offer(spot=True), order(price_ceiling=Money("0.008")))

        assert (refused.value.kind, vendor.asked) == (ErrorKind.CAPACITY, [])

    async def test_a_script_fits_with_the_longest_of_everything(self, vendor: Vendor) -> None:
        """The vendor's limits differ by document; the lowest is kept."""
        await rent(vendor, what=order(nonce="n" * 64, public_key=PUBLIC_KEY + "x" * 40))

        assert len(vendor.sent("PUT", PATH)[0]["onstart"]) <= LIMIT

    @pytest.mark.parametrize(
        "parts",
        [
            {"env": {"A": "x" * 300}},
            {"env": {f"A{n}": "x" * 200 for n in range(200)}},
            {"ports": tuple(range(1, 66))},
            {"public_key": "ssh-ed25519 AAAA' ; reboot '"},
        ],
    )
    async def test_what_cannot_be_ordered_is_not_sent(
        self, vendor: Vendor, parts: dict[str, Any]
    ) -> None:
        """Beyond the vendor's limits, or not fit for a script."""
        async with vendor.provider() as provider:
            with pytest.raises(ProviderError) as refused:
                await provider.provision(offer(), order(**parts))

        assert (refused.value.kind, vendor.asked) == (ErrorKind.BAD_REQUEST, [])

    async def test_only_an_id_goes_into_the_path(self, vendor: Vendor) -> None:
        """Whatever an offer brings along."""
        async with vendor.provider() as provider:
            with pytest.raises(ProviderError):
                await provider.provision(offer(extra={"ask": "1/../../instances"}), order())

        assert vendor.asked == []


class TestIdFirst:
    async def test_no_that_names_a_machine_hands_it_over(self, vendor: Vendor) -> None:
        """A 200 that says "false" has made a stopped machine, which bills its disk."""
        failed = await refusal(vendor, no(200, "", "GPUs busy", new_contract=31337042))

        assert not isinstance(failed, CreateUnknown)
        assert (failed.machine_id, meaning(failed)) == ("31337042", ("capacity", "offer"))

    @pytest.mark.parametrize("status", [400, 409, 500, 502])
    async def test_an_error_that_names_a_machine_hands_it_over(
        self, vendor: Vendor, status: int
    ) -> None:
        """Whatever the status."""
        failed = await refusal(vendor, no(status, "server_error", new_contract=31337042))

        assert failed.machine_id == "31337042"

    async def test_success_that_is_not_said_is_meant(self, vendor: Vendor) -> None:
        """An id alone is a machine."""
        assert (await rent(vendor, said(body={"new_contract": 31337042}))).id == "31337042"

    @pytest.mark.parametrize("value", [True, None, "x", -1, 0, 1.5, [31337042], {"id": 1}])
    async def test_what_is_no_id_is_none(self, vendor: Vendor, value: Any) -> None:
        """A success without a machine's id is a machine that nobody knows."""
        failed = await refusal(vendor, said(body={"success": True, "new_contract": value}))

        assert isinstance(failed, CreateUnknown)
        assert failed.machine_id is None


class TestRefused:
    @pytest.mark.parametrize(
        ("answer", "means"),
        [
            (
                no(404, "no_such_ask", "error 404/3603: no_such_ask Instance…"),
                ("capacity", "offer"),
            ),
            (
                no(410, "no_such_ask", "Instance type 7 is no longer available."),
                ("capacity", "offer"),
            ),
            (no(400, "no_such_ask"), ("capacity", "offer")),
            (no(404, "invalid_args", "error 404/3603: no_such_ask …"), ("capacity", "offer")),
            (no(400, "invalid_args", "host is blacklisted"), ("capacity", "host")),
            (no(400, "invalid_args", "'id' must be a valid offer ID"), ("bad request", "offer")),
            (no(400, "invalid_args", "runtype and use_ssh"), ("bad request", "provider")),
            (no(400, "invalid_price"), ("bad request", "offer")),
            (no(400, "no_ssh_key_for_vm"), ("bad request", "offer")),
            (no(400, "insufficient_credit", "You lack credit"), ("credit", "account")),
            (no(400, "missing_billing", "You lack credit, see…"), ("credit", "account")),
            (no(400, "spend_rate_limit"), ("quota", "account")),
            (no(200, "no_such_ask"), ("capacity", "offer")),
            (no(401, "auth_error", "Invalid user key"), ("auth", "account")),
            (no(403, "auth_error", "This action requires login."), ("auth", "account")),
            (no(404, "auth_error", "Invalid user key"), ("auth", "account")),
            (said(403, {"msg": "hosts can only rent their own machines"}), ("auth", "account")),
            (page(status=401), ("auth", "account")),
            (no(429, "rate_limit_exceeded"), ("rate limit", "account")),
            (httpx.Response(429, text="API requests too frequent"), ("rate limit", "account")),
            (said(429, {"detail": "API requests too frequent"}), ("rate limit", "account")),
        ],
    )
    async def test_a_clear_no(
        self, vendor: Vendor, answer: httpx.Response, means: tuple[str, str]
    ) -> None:
        """Each says what kind of failure it is, and what it condemns."""
        failed = await refusal(vendor, answer)

        assert not isinstance(failed, CreateUnknown)
        assert (meaning(failed), failed.machine_id) == (means, None)

    async def test_no_connection_is_a_clear_no(self, vendor: Vendor) -> None:
        """Nothing was sent, so no machine need be looked for."""
        failed = await refusal(vendor, httpx.ConnectError("refused"))

        assert meaning(failed) == ("capacity", "provider")

    @pytest.mark.parametrize(
        ("answer", "seconds"),
        [
            (said(429, {"msg": "x"}, **{"Retry-After": "7"}), 7.0),
            (said(429, {"error": "HTTPTooManyRequests", "retry_after": 3}), 3.0),
            (httpx.Response(429, text="API requests too frequent: endpoint threshold=4.5"), 4.5),
            (said(429, {"detail": "API requests too frequent endpoint threshold=2.0"}), 2.0),
            (httpx.Response(429, text="API requests too frequent"), None),
        ],
    )
    async def test_how_long_to_wait_is_read_wherever_it_stands(
        self, vendor: Vendor, answer: httpx.Response, seconds: float | None
    ) -> None:
        """In a header, in the body, in a sentence, or nowhere."""
        assert (await refusal(vendor, answer)).retry_after == seconds

    async def test_the_next_create_waits_as_it_was_told(self, vendor: Vendor) -> None:
        """A pause that is too long to wait for is refused without a request."""
        vendor.on("PUT", PATH, said(429, {"msg": "too many", "retry_after": 100}))
        async with vendor.provider() as provider:
            with pytest.raises(ProviderError):
                await provider.provision(offer(), order())
            with pytest.raises(ProviderError) as failed:
                await provider.provision(offer(), order())

        assert vendor.count("PUT", PATH) == 1
        assert failed.value.kind is ErrorKind.RATE_LIMIT
        assert failed.value.retry_after == pytest.approx(100, abs=5)


class TestUnknown:
    @pytest.mark.parametrize(
        "answer",
        [
            httpx.ReadTimeout("late"),
            httpx.ReadError("cut"),
            httpx.RemoteProtocolError("cut"),
            said(500, {"success": False, "error": "server_error"}),
            no(503, "no_such_ask", "an error of the gateway, whatever it says"),
            page("<html>502</html>", 502),
            httpx.Response(502),
            httpx.Response(200, text='{"success": tru'),
            httpx.Response(200),
            page(status=200),
            page(status=400),
            page(status=403),
            page(status=404),
            said(body={"success": True}),
            said(body={"success": False}),
            said(body={"success": False, "error": "never heard of"}),
            said(body=[]),
            httpx.Response(301, headers={"Location": "/elsewhere"}, json={"success": True}),
            said(404, {"msg": "Not Found"}),
            said(408, {}),
        ],
    )
    async def test_whatever_is_no_clear_answer(self, vendor: Vendor, answer: Answer) -> None:
        """A machine may exist, and is looked for; the create is never sent again."""
        failed = await refusal(vendor, answer)

        assert isinstance(failed, CreateUnknown)
        assert failed.machine_id is None

    async def test_a_message_that_repeats_the_key_is_struck_out(self, vendor: Vendor) -> None:
        """Also at the place where a long message is cut."""
        failed = await refusal(vendor, no(400, "invalid_args", "x" * 250 + f" key {KEY}"))

        assert "account-key" not in str(failed)


class TestKeyAttached:
    async def test_in_the_background_until_it_is_taken(
        self, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The machine may be too new to be found; nothing waits for it."""
        monkeypatch.setattr("gpubroker_vast.provider._KEY_PAUSE", 0.01)
        done = anyio.Event()

        def taken(request: httpx.Request) -> httpx.Response:
            done.set()
            return no(200, "", "SSH key already associated with instance.")

        vendor.on("PUT", PATH, said(body=MADE))
        vendor.on(
            "POST",
            KEYS,
            no(404, "no_such_instance"),
            page(status=502),
            httpx.ReadError("cut"),
            taken,
        )
        async with vendor.provider() as provider:
            await provider.provision(offer(), order())
            with anyio.fail_after(5):
                await done.wait()
            await anyio.sleep(0.05)

        assert vendor.sent("POST", KEYS) == [{"ssh_key": PUBLIC_KEY}] * 4

    async def test_one_that_cannot_be_taken_is_noted(self, vendor: Vendor) -> None:
        """The script lets the key in too; only a person can do more."""
        vendor.on("PUT", PATH, said(body=MADE))
        vendor.on("POST", KEYS, no(400, "team_ssh_keys_not_supported"))
        async with vendor.provider() as provider:
            await provider.provision(offer(), order())
            with anyio.fail_after(5):
                while not vendor.events:
                    await anyio.sleep(0.01)

        assert "team_ssh_keys_not_supported" in vendor.events[0][1]
        assert vendor.count("POST", KEYS) == 1

    async def test_closing_does_not_wait_for_it(self, vendor: Vendor) -> None:
        """A key that is never taken holds nobody up."""
        vendor.on("PUT", PATH, said(body=MADE))
        vendor.on("POST", KEYS, page(status=502))
        with anyio.fail_after(5):
            async with vendor.provider() as provider:
                await provider.provision(offer(), order())
