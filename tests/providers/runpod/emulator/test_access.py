from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from gpubroker_runpod.emulator import RunPodEmulator

from .account import Account

#: One endpoint of each kind.
GUARDED = ("/v2/pods", "/v2/pods/abc", "/v2/catalog/gpus", "/v2/billing/pods")
PROBLEM = "application/problem+json"


class TestTheAccountKey:
    @pytest.mark.parametrize("path", GUARDED)
    def test_is_needed(self, account: Account, path: str) -> None:
        """Without one: 401, with a problem document and no word on limits."""
        del account.http.headers["authorization"]

        answer = account.http.get(path)

        assert answer.status_code == 401
        assert answer.headers["content-type"] == PROBLEM
        assert answer.json() == {
            "title": "Unauthorized",
            "status": 401,
            "detail": "missing bearer token",
        }
        assert "ratelimit" not in answer.headers

    def test_that_nobody_knows_is_refused(self, account: Account) -> None:
        """As one that is missing."""
        account.http.headers["authorization"] = "Bearer nonsense"

        assert account.http.get("/v2/pods").status_code == 401

    @pytest.mark.parametrize("status", [401, 403])
    def test_can_be_revoked_while_pods_run(
        self, account: Account, cloud: RunPodEmulator, status: int
    ) -> None:
        """They run on, and cost, until it is restored."""
        pod = account.order()

        cloud.revoke_key(status)

        assert account.delete(pod).status_code == status
        assert cloud.billing_now() == (pod,)
        cloud.restore_key()
        assert account.delete(pod).status_code == 204

    def test_that_may_only_read_changes_nothing(
        self, account: Account, cloud: RunPodEmulator
    ) -> None:
        """It is valid, and lacks the permission: 403."""
        account.http.headers["authorization"] = f"Bearer {cloud.read_only_key}"

        assert account.http.get("/v2/pods").status_code == 200
        refused = account.create()
        assert (refused.status_code, refused.json()["detail"]) == (403, "access denied")
        assert cloud.billing_now() == ()

    def test_belongs_in_the_header_alone(self, account: Account, cloud: RunPodEmulator) -> None:
        """Inside of a pod, or in a URL, it has been given away: that is written down."""
        account.order(env={"MINE": "1"})
        assert not cloud.leaks

        account.order(env={"RUNPOD_KEY": cloud.key})
        account.http.get("/v2/pods", params={"api_key": cloud.key})

        assert cloud.leaks == (
            "POST /v2/pods with the key in the body",
            "GET /v2/pods with the key in the query",
        )


class TestTheKeyOfAPod:
    def key_of(self, cloud: RunPodEmulator, pod: str) -> dict[str, str]:
        """The header that processes of a pod would send."""
        return {"Authorization": f"Bearer {cloud.inside.world.lives.pods[pod].key}"}

    def test_ends_that_pod(self, account: Account, cloud: RunPodEmulator) -> None:
        """Which is what a dead-man switch needs."""
        pod = account.order()
        key = self.key_of(cloud, pod)

        assert account.http.get(f"/v2/pods/{pod}", headers=key).status_code == 200
        assert account.http.delete(f"/v2/pods/{pod}", headers=key).status_code == 204
        assert cloud.billing_now() == ()

    def test_does_nothing_else(self, account: Account, cloud: RunPodEmulator) -> None:
        """No other pod, no list, no order."""
        pod, other = account.order(), account.order()
        key = self.key_of(cloud, pod)

        answers = [
            account.http.delete(f"/v2/pods/{other}", headers=key),
            account.http.get("/v2/pods", headers=key),
            account.http.post("/v2/pods", headers=key, json={}),
        ]

        assert [answer.status_code for answer in answers] == [403, 403, 403]
        assert set(cloud.billing_now()) == {pod, other}

    @pytest.mark.parametrize(("mode", "ended"), [("graphql", True), ("none", False)])
    def test_may_be_good_for_graphql_alone_or_for_nothing(
        self, account: Account, cloud: RunPodEmulator, mode: str, ended: bool
    ) -> None:
        """Reports differ, so each of them can be had."""
        cloud.switch(pod_key=mode)
        pod = account.order()
        key = self.key_of(cloud, pod)
        query = f'mutation {{ podTerminate(input: {{podId: "{pod}"}}) }}'

        assert account.http.delete(f"/v2/pods/{pod}", headers=key).status_code == 403
        answer = account.http.post("/graphql", headers=key, json={"query": query})

        assert ("errors" not in answer.json()) is ended
        assert (cloud.billing_now() == ()) is ended

    def test_ends_with_it(self, account: Account, cloud: RunPodEmulator) -> None:
        """A key of what is gone is unknown."""
        pod = account.order()
        key = self.key_of(cloud, pod)
        account.delete(pod)

        assert account.http.delete(f"/v2/pods/{pod}", headers=key).status_code == 401


class TestTheEdge:
    @pytest.mark.parametrize("agent", ["Python-urllib/3.11", ""])
    def test_refuses_clients_without_a_name(
        self, account: Account, cloud: RunPodEmulator, agent: str
    ) -> None:
        """In plain text, before the API sees them."""
        answer = account.http.get("/v2/pods", headers={"User-Agent": agent})

        assert (answer.status_code, answer.text) == (403, "error code: 1010")
        cloud.switch(edge=False)
        assert account.http.get("/v2/pods", headers={"User-Agent": agent}).status_code == 200

    def test_knows_the_retired_api(self, account: Account) -> None:
        """410, with or without a key."""
        del account.http.headers["authorization"]

        answer = account.http.get("/v1/pods")

        assert (answer.status_code, answer.json()["title"]) == (410, "Gone")

    def test_refuses_large_bodies_before_it_looks_at_the_key(self, account: Account) -> None:
        """102 400 bytes may be sent, and not one more."""
        del account.http.headers["authorization"]

        fits = account.http.post("/v2/pods", content=b" " * 102_400)
        large = account.http.post("/v2/pods", content=b" " * 102_401)

        assert (fits.status_code, large.status_code) == (401, 413)

    def test_numbers_every_answer(self, account: Account, cloud: RunPodEmulator) -> None:
        """Those to wrong paths and methods, too."""
        cloud.faults.add("list", "html")
        paths = ("/v2/pods", "/v2/pods", "/nowhere", "/v1/pods", "/v2/pods/x/logs")
        answers = [account.http.get(path) for path in paths]

        ids = {answer.headers["x-request-id"] for answer in answers}

        assert len(ids) == len(answers)


class TestPathsAndMethods:
    def test_that_do_not_exist_are_told_apart(self, account: Account) -> None:
        """404 with one text, 405 with another and with the methods that there are."""
        path = account.http.get("/v2/nonsense")
        method = account.http.patch("/v2/pods/abc", json={"name": "x"})

        assert (path.status_code, path.json()["detail"]) == (
            404,
            "The requested path was not found.",
        )
        assert (method.status_code, method.headers["allow"]) == (405, "DELETE, GET")


class TestLimits:
    def test_are_told_with_each_answer(self, account: Account) -> None:
        """Three windows: what is left, when each begins anew, and how much there is of it."""
        first, second = (account.http.get("/v2/pods").headers["ratelimit"] for _ in range(2))

        form = r'"minute";r=(\d+);t=\d+, "hour";r=\d+;t=\d+, "day";r=\d+;t=\d+'
        left = [int(re.fullmatch(form, text)[1]) for text in (first, second)]  # type: ignore[index]
        assert left[0] - left[1] == 1 or left[1] == 5_999  # a new minute may have begun
        policy = account.http.get("/v2/pods").headers["ratelimit-policy"]
        assert policy == '"minute";q=6000;w=60, "hour";q=300000;w=3600, "day";q=5000000;w=86400'

    def test_that_are_used_up_say_which_and_for_how_long(
        self, account: Account, cloud: RunPodEmulator
    ) -> None:
        """429, and nothing was done."""
        cloud.switch(day=2)
        account.http.get("/v2/pods")
        account.http.get("/v2/pods")

        answer = account.create()

        assert answer.status_code == 429
        assert answer.json()["detail"] == "rate limit exceeded for the day window"
        assert 0 < int(answer.headers["retry-after"]) <= 86_400
        assert '"day";r=0;' in answer.headers["ratelimit"]
        assert cloud.billing_now() == ()

    def test_do_not_exist_for_some_accounts(self, account: Account, cloud: RunPodEmulator) -> None:
        """They get no headers, either."""
        cloud.switch(exempt=True, day=0)

        answer = account.http.get("/v2/pods")

        assert answer.status_code == 200
        assert "ratelimit" not in answer.headers


class TestFaults:
    @pytest.mark.parametrize(
        ("fault", "status"),
        [
            ("rate-limited", 429),
            ("bad-key", 401),
            ("forbidden", 403),
            ("edge", 403),
            ("gone-410", 410),
            ("server-error", 500),
            ("low-balance", 402),
            ("spend-limit", 400),
            ("other-machine", 400),
            ("no-capacity", 400),
            ("problem", 400),
            ("status", 502),
        ],
    )
    def test_refuse_an_order(
        self, account: Account, cloud: RunPodEmulator, fault: str, status: int
    ) -> None:
        """And make nothing."""
        cloud.faults.add("create", fault)

        assert account.create().status_code == status
        assert cloud.billing_now() == ()
        assert account.create().status_code == 201

    @pytest.mark.parametrize(
        ("fault", "options"),
        [("server-error", {}), ("status", {"status": 504}), ("drop", {}), ("hang", {})],
    )
    def test_hide_an_order_that_was_carried_out(
        self, account: Account, cloud: RunPodEmulator, fault: str, options: dict[str, Any]
    ) -> None:
        """The answer is lost, and the pod bills."""
        cloud.faults.add("create", fault, when="after", **options)

        try:
            account.http.timeout = 0.2
            assert account.create().status_code >= 500
        except httpx.TransportError:
            pass

        assert len(cloud.billing_now()) == 1
        assert [row["name"] for row in account.listed()] == ["mine"]

    def test_make_two_pods_of_one_order(self, account: Account, cloud: RunPodEmulator) -> None:
        """Of one name; the answer tells of the first."""
        cloud.faults.add("create", "create-twice")

        account.order()

        assert [row["name"] for row in account.listed()] == ["mine", "mine"]

    def test_show_a_list_that_is_old_short_or_broken(
        self, account: Account, cloud: RunPodEmulator
    ) -> None:
        """Each time with a status of 200."""
        account.order()
        for fault in ("stale-list", "empty-list", "partial-list"):
            cloud.faults.add("list", fault)
            assert account.listed() == []
        cloud.faults.add("list", "malformed-row")

        assert account.listed() == [None]
        assert len(account.listed()) == 1


class TestControl:
    def test_faults_are_planned_over_http(self, account: Account) -> None:
        """As from Python: of the API, and of the next pods."""
        for body in (
            {"endpoint": "list", "fault": "status", "status": 500},
            {"endpoint": "pod", "fault": "never-runs"},
        ):
            assert account.http.post("/_emulator/faults", json=body).json() == {"ok": True}

        assert account.http.get("/v2/pods").status_code == 500
        account.order()
        rules = account.http.get("/_emulator/faults").json()["faults"]
        assert [rule["met"] for rule in rules] == [1, 1]

    def test_pods_are_afflicted_and_cards_taken_over_http(self, account: Account) -> None:
        """What cannot be done is said."""
        pod = account.order()

        body = {"fault": "rename", "name": "other"}
        account.http.post(f"/_emulator/pods/{pod}", json=body)
        account.http.post("/_emulator/stock", json={"gpu": "NVIDIA L4", "cards": 0})

        assert account.show(pod)["name"] == "other"
        assert account.create().status_code == 400
        wrong = account.http.post(f"/_emulator/pods/{pod}", json={"fault": "nonsense"})
        assert wrong.status_code == 400

    def test_books_and_requests_are_read_over_http(self, account: Account) -> None:
        """For tests in other languages, and for people."""
        pod = account.order()

        books = account.http.get("/_emulator/books").json()
        requests = account.http.get("/_emulator/requests").json()["requests"]
        state = account.http.get("/_emulator/state").json()

        assert books["billing_now"] == [pod]
        assert "create" in {one["endpoint"] for one in requests}
        assert [row["id"] for row in state["pods"]] == [pod]

    def test_needs_the_key(self, account: Account) -> None:
        """A page in a browser cannot reach it."""
        del account.http.headers["authorization"]

        assert account.http.get("/_emulator/state").status_code == 401
