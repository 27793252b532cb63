"""One create, and what each answer to it means."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import anyio
import httpx
import pytest
from tests.providers.answers import Answer, meaning, page, said

from gpubroker import CreateUnknown, ErrorKind, Machine, MachineState, Money, ProviderError, Scope
from gpubroker.policy.retry import Retry, Step
from gpubroker_runpod.failures import Streak
from gpubroker_runpod.options import IMAGE
from gpubroker_runpod.orders import BODY_LIMIT

from .vendor import (
    JOBS,
    KEY,
    MARK,
    NO_CAPACITY,
    NONCE,
    POD,
    PUBLIC_KEY,
    Vendor,
    booting_row,
    community_offer,
    offer,
    order,
    problem,
    shows_no_key,
)

pytestmark = pytest.mark.anyio

PODS = "/v2/pods"
MADE = said(201, booting_row())
BUSY = (
    "create pod: This machine does not have the resources to deploy your pod."
    " Please try a different machine"
)
LIMIT = "Renting this pod would put you over your current spending limit ($80.00/hr)."


async def rent(vendor: Vendor, *answers: Answer, ordered: Any = None, at: Any = None) -> Machine:
    vendor.on("POST", PODS, *answers)
    async with vendor.provider() as provider:
        return await provider.provision(at or offer(), ordered or order())


async def refused(vendor: Vendor, answer: Answer) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await rent(vendor, answer)
    assert vendor.count("POST", PODS) == 1, "a create is sent once"
    assert shows_no_key(caught.value)
    return caught.value


class TestTheRequest:
    async def test_every_field_that_is_needed_is_sent(self, vendor: Vendor) -> None:
        """Without the disk the vendor refuses all of it; and nothing is sent that it may not know."""
        ordered = order(disk=30.2, ports=(8000,), env={"A": "1"}, image="acme/train:7")
        await rent(vendor, MADE, ordered=ordered)

        (body,) = vendor.sent("POST", PODS)
        command = json.loads(body.pop("args"))
        assert body == {
            "name": MARK,
            "image": "acme/train:7",
            "gpu": {"id": "NVIDIA L4", "count": 1},
            "cloud": "SECURE",
            "dataCenterIds": ["EU-RO-1"],
            "disk": 31,
            "ports": ["22/tcp", "8000/tcp"],
            "env": {"A": "1", "GPUBROKER_MARK": MARK, "PUBLIC_KEY": PUBLIC_KEY},
        }
        assert set(command) == {"entrypoint", "cmd"}
        assert NONCE in json.dumps(command)

    async def test_an_offer_of_anywhere_pins_nothing(self, vendor: Vendor) -> None:
        """One data centre gives the same bad host again and again."""
        await rent(vendor, MADE, at=offer(extra={"gpu": "NVIDIA L4", "cloud": "SECURE"}))

        assert "dataCenterIds" not in vendor.sent("POST", PODS)[0]

    async def test_a_cuda_version_that_was_asked_for_is_ordered(self, vendor: Vendor) -> None:
        """Otherwise the pod may land on an older driver than was offered."""
        await rent(vendor, MADE, at=offer(extra={**offer().extra, "cuda": "12.4"}))

        assert vendor.sent("POST", PODS)[0]["gpu"]["minCudaVersion"] == "12.4"

    async def test_the_settings_add_an_image_and_its_registry(self, vendor: Vendor) -> None:
        """Anonymous pulls are counted per host, and run out: credentials get around that."""
        vendor.on("POST", PODS, MADE)
        async with vendor.provider(registry="clx123") as provider:
            await provider.provision(offer(), order())

        (body,) = vendor.sent("POST", PODS)
        assert (body["image"], body["registry"]) == (IMAGE, "clx123")

    async def test_the_accounts_key_is_nowhere_in_it(self, vendor: Vendor) -> None:
        """A pod with the account's key in it is ended by the vendor within minutes."""
        await rent(vendor, MADE)
        await rent(vendor, MADE, at=community_offer(), ordered=order(jobs=JOBS))

        assert all(KEY.encode() not in request.content for request in vendor.asked)
        assert all(r.headers["authorization"] == f"Bearer {KEY}" for r in vendor.asked)

    @pytest.mark.parametrize(
        "ordered",
        [
            order(env={f"N{number}": "" for number in range(49)}),
            order(env={"RUNPOD_API_KEY": "x"}),
            order(env={"runpod_pod_id": "x"}),
            order(env={"A": "x" * BODY_LIMIT}),
        ],
        ids=["many", "reserved", "reserved in small letters", "long"],
    )
    async def test_what_the_vendor_could_not_take_is_not_sent(
        self, vendor: Vendor, ordered: Any
    ) -> None:
        """The error says what is too much; nothing was asked for."""
        with pytest.raises(ProviderError) as caught:
            await rent(vendor, MADE, ordered=ordered)

        assert meaning(caught.value) == ("bad request", "provider")
        assert vendor.asked == []

    async def test_it_has_as_long_as_the_vendor_takes(
        self, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Making a pod may take a minute: giving up earlier would leave a doubt each time."""
        timeouts: list[float] = []

        def answer(request: httpx.Request) -> httpx.Response:
            timeouts.append(request.extensions["timeout"]["read"])
            return MADE

        vendor.on("POST", PODS, answer)
        async with vendor.provider() as provider:
            await provider.provision(offer(), order())

        assert timeouts == [90]


class TestTheWay:
    async def test_a_pod_of_the_secure_cloud_is_reached_over_ssh(self, vendor: Vendor) -> None:
        """Also where its job would allow the other way."""
        machine = await rent(vendor, MADE, ordered=order(jobs=JOBS))

        assert machine.ssh
        assert [kind for kind, _ in vendor.events] == ["way"]
        assert "over SSH" in vendor.events[0][1]

    async def test_a_pod_without_a_certain_port_runs_its_job_by_itself(
        self, vendor: Vendor
    ) -> None:
        """Nobody's key is let in, and no port is opened; an event says so."""
        machine = await rent(vendor, MADE, at=community_offer(), ordered=order(jobs=JOBS))

        (body,) = vendor.sent("POST", PODS)
        assert not machine.ssh
        assert (body["ports"], set(body["env"])) == ([], {"GPUBROKER_MARK"})
        assert "python3" in body["args"]
        assert "through its log" in vendor.events[0][1]

    @pytest.mark.parametrize(
        "ordered", [order(), order(jobs=JOBS, ports=(8000,))], ids=["not all known", "ports"]
    )
    async def test_a_job_that_needs_it_is_reached_over_ssh_anywhere(
        self, vendor: Vendor, ordered: Any
    ) -> None:
        """If the port turns out to be missing, the boot ends as one that failed."""
        assert (await rent(vendor, MADE, at=community_offer(), ordered=ordered)).ssh

    @pytest.mark.parametrize(("way", "ssh"), [("ssh", True), ("log", False), ("auto", True)])
    async def test_the_settings_may_choose(self, vendor: Vendor, way: str, ssh: bool) -> None:
        """Within what the job allows."""
        vendor.on("POST", PODS, MADE)
        async with vendor.provider(way=way) as provider:
            machine = await provider.provision(offer(), order(jobs=JOBS))
            other = await provider.provision(offer(), order())

        assert (machine.ssh, other.ssh) == (ssh, True)

    async def test_one_too_long_is_not_for_an_offer_that_may_have_no_port(
        self, vendor: Vendor
    ) -> None:
        """Nothing is asked for, and other offers may do."""
        long = (replace(JOBS[0], argv=("echo", "x" * BODY_LIMIT)),)
        community = replace(community_offer(), ssh=False)

        with pytest.raises(ProviderError, match="may not be reached over SSH") as caught:
            await rent(vendor, MADE, at=community, ordered=order(jobs=long))

        assert (caught.value.kind, caught.value.scope) == (ErrorKind.CAPACITY, Scope.OFFER)
        assert vendor.asked == []

    async def test_a_job_too_long_for_a_command_goes_over_ssh(self, vendor: Vendor) -> None:
        """A request has room for 100 kB."""
        long = (replace(JOBS[0], argv=("echo", "x" * BODY_LIMIT)),)
        machine = await rent(vendor, MADE, at=community_offer(), ordered=order(jobs=long))

        assert machine.ssh
        assert "do not fit" in vendor.events[0][1]


class TestASuccess:
    async def test_the_machine_has_the_vendors_id_and_rate(self, vendor: Vendor) -> None:
        """The rate is the real one: the broker holds it against the offer."""
        machine = await rent(vendor, said(201, booting_row(cost=1.39)))

        assert (machine.id, machine.mark, machine.state) == (POD, MARK, MachineState.BOOTING)
        assert machine.hourly == Money("1.39")

    async def test_no_rate_yet_is_none(self, vendor: Vendor) -> None:
        """Zero is said of what does not run; no paid machine is free."""
        assert (await rent(vendor, said(201, booting_row(cost=0.0)))).hourly is None


#: What the vendor says on a 400, as its users have seen it, and what it means.
TEXTS = [
    (NO_CAPACITY, ("capacity", "offer")),
    (NO_CAPACITY.upper(), ("capacity", "offer")),
    (
        "There are no longer any instances available with enough disk space.",
        ("capacity", "offer"),
    ),
    ("create pod: There are no instances currently available", ("capacity", "offer")),
    (
        "There are not enough free GPUs on the host machine to start this pod.",
        ("capacity", "offer"),
    ),
    ("insufficient capacity", ("capacity", "offer")),
    ("no available machine", ("capacity", "offer")),
    ("GPU type is out of stock", ("capacity", "offer")),
    (LIMIT, ("credit", "account")),
    (
        "You must either provide a template id or pod configuration parameters",
        ("bad request", "provider"),
    ),
    ("a rule that nobody knows", ("capacity", "offer")),
]


class TestRefusals:
    @pytest.mark.parametrize(("text", "expected"), TEXTS)
    async def test_no_capacity_is_told_from_a_bad_request_by_its_text(
        self, vendor: Vendor, text: str, expected: tuple[str, str]
    ) -> None:
        """The status is 400 for both. What is not known is taken for the former, at first."""
        error = await refused(vendor, problem(400, text))

        assert meaning(error) == expected
        assert text in str(error)

    @pytest.mark.parametrize(
        "text",
        [
            BUSY,
            "This machine does not have the resources to deploy your pod.",
            "Please try a different machine",
        ],
    )
    async def test_a_lost_race_for_a_host_is_worth_another_try(
        self, vendor: Vendor, text: str
    ) -> None:
        """Ten seconds later the scheduler picks another host; after a few tries, the next offer."""
        error = await refused(vendor, problem(400, text))

        retry = Retry()
        steps = [retry.step(error.kind, failures) for failures in range(1, 6)]
        assert (error.scope, error.retry_after) == (Scope.OFFER, 10)
        assert steps == [Step.HERE] * 4 + [Step.ELSEWHERE]

    @pytest.mark.parametrize(
        ("answer", "expected"),
        [
            (problem(401, "missing bearer token"), ("auth", "account")),
            (httpx.Response(401), ("auth", "account")),
            (problem(402, "top up"), ("credit", "account")),
            (problem(403, "access denied"), ("quota", "offer")),
            (page("error code: 1010", 403), ("capacity", "provider")),
            (problem(404, "The requested path was not found."), ("capacity", "provider")),
            (problem(405, "not allowed"), ("capacity", "provider")),
            (problem(409, "conflict"), ("capacity", "provider")),
            (problem(410, "retired"), ("capacity", "provider")),
            (problem(413, "too large"), ("bad request", "provider")),
            (page("<html>too large</html>", 413), ("bad request", "provider")),
            (problem(422, "Request validation failed."), ("bad request", "provider")),
            (problem(429, "often"), ("rate limit", "account")),
            (page("<html>slow down</html>", 429), ("rate limit", "account")),
        ],
        ids=lambda value: str(value.status_code) if isinstance(value, httpx.Response) else "",
    )
    async def test_a_refusal_is_an_error_of_its_kind(
        self, vendor: Vendor, answer: httpx.Response, expected: tuple[str, str]
    ) -> None:
        """None of them leaves a doubt, so that the broker may go on at once."""
        assert meaning(await refused(vendor, answer)) == expected

    async def test_an_unknown_field_is_named(self, vendor: Vendor) -> None:
        """The vendor forgets fields; the error shows which one it no longer takes."""
        answer = problem(422, "Request validation failed.", "$: additional properties 'disk'")

        assert "additional properties 'disk'" in str(await refused(vendor, answer))

    async def test_a_retired_api_is_called_that(self, vendor: Vendor) -> None:
        """Two earlier ones end so; the user is to know that it is not the request."""
        assert "retired" in str(await refused(vendor, problem(410, "Gone")))

    async def test_a_pause_that_is_asked_for_is_handed_on(self, vendor: Vendor) -> None:
        """With the request's id, for the vendor's support."""
        answer = problem(429, "often", **{"retry-after": "12", "x-request-id": "req-1"})
        error = await refused(vendor, answer)

        assert error.retry_after == 12
        assert "req-1" in str(error)

    async def test_what_is_refused_everywhere_is_our_mistake(self, vendor: Vendor) -> None:
        """A broken rule fails in the same way at every candidate: the third one in a row stops."""
        vendor.on("POST", PODS, problem(400, "request could not be processed"))
        kinds: list[tuple[str, str]] = []
        async with vendor.provider() as provider:
            for number in range(3):
                with pytest.raises(ProviderError) as caught:
                    await provider.provision(offer(id=f"offer {number}"), order())
                kinds.append(meaning(caught.value))

        assert kinds == [("capacity", "offer")] * 2 + [("bad request", "provider")]

    @pytest.mark.parametrize("between", [MADE, problem(400, NO_CAPACITY)])
    async def test_an_answer_that_shows_that_we_are_understood_starts_the_count_afresh(
        self, vendor: Vendor, between: httpx.Response
    ) -> None:
        """A pod, or a lack of capacity: the request as such is fine."""
        unclear = problem(400, "request could not be processed")
        vendor.on("POST", PODS, unclear, unclear, between, unclear)
        async with vendor.provider() as provider:
            for answer in (unclear, unclear, between, unclear):
                if answer is MADE:
                    await provider.provision(offer(), order())
                    continue
                with pytest.raises(ProviderError) as caught:
                    await provider.provision(offer(), order())
                assert caught.value.kind is ErrorKind.CAPACITY

    async def test_a_key_that_may_rent_nothing_is_found_out(self, vendor: Vendor) -> None:
        """One pool may be closed to an account; all of them are closed to a key without rights."""
        vendor.on("POST", PODS, problem(403, "access denied"))
        kinds: list[ErrorKind] = []
        async with vendor.provider() as provider:
            for _ in range(3):
                with pytest.raises(ProviderError) as caught:
                    await provider.provision(offer(), order())
                kinds.append(caught.value.kind)

        assert kinds == [ErrorKind.QUOTA, ErrorKind.QUOTA, ErrorKind.AUTH]

    def test_a_streak_counts_what_is_in_a_row(self) -> None:
        """And nothing else."""
        streak = Streak(2)

        assert [streak.one_more(), streak.one_more()] == [False, True]
        streak.end()
        assert not streak.one_more()


class TestDoubt:
    @pytest.mark.parametrize(
        "answer",
        [
            problem(500, "create pod: There are no instances currently available"),
            problem(500, "Something went wrong. Please try again later or contact support."),
            problem(400, "Something went wrong."),
            problem(400, "Please contact support."),
            page("<html>bad gateway</html>", 502),
            problem(503, "unavailable"),
            problem(408, "timeout"),
            page("<html>proxy</html>", 400),
            page("<html>moved</html>", 302),
            said(201, {}),
            said(201, {"id": "../x"}),
            said(200, {"errors": [{"message": NO_CAPACITY}], "data": None}),
            httpx.Response(201, text="{"),
            httpx.Response(204),
            httpx.ReadTimeout("slow"),
            httpx.RemoteProtocolError("cut"),
        ],
        ids=lambda value: str(getattr(value, "status_code", type(value).__name__)),
    )
    async def test_an_answer_that_leaves_a_doubt_is_a_lost_one(
        self, vendor: Vendor, answer: Answer
    ) -> None:
        """A 500 was seen for pods that were made and billed: only a listing tells."""
        error = await refused(vendor, answer)

        assert isinstance(error, CreateUnknown)
        assert error.machine_id is None

    @pytest.mark.parametrize("status", [400, 500, 502])
    async def test_an_error_that_names_a_pod_is_no_refusal(
        self, vendor: Vendor, status: int
    ) -> None:
        """The id is kept, so that the pod can be released."""
        error = await refused(vendor, said(status, {"id": POD, "detail": NO_CAPACITY}))

        assert isinstance(error, CreateUnknown)
        assert error.machine_id == POD

    async def test_without_a_connection_nothing_was_made(self, vendor: Vendor) -> None:
        """So there is no doubt, and the broker may try another provider at once."""
        error = await refused(vendor, httpx.ConnectError("refused"))

        assert meaning(error) == ("capacity", "provider")

    async def test_a_create_that_is_left_alone_is_not_sent_again(self, vendor: Vendor) -> None:
        """Cancelled, it was sent at the most once."""

        async def hang(request: httpx.Request) -> httpx.Response:
            vendor.asked.append(request)
            await anyio.sleep_forever()
            raise AssertionError

        async with vendor.provider(transport=httpx.MockTransport(hang)) as provider:
            with anyio.move_on_after(0.05):
                await provider.provision(offer(), order())

        assert vendor.count("POST", PODS) == 1
