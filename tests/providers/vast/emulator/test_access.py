from __future__ import annotations

import httpx
import pytest

from gpubroker_vast.emulator import VastEmulator

from .account import Account

#: One endpoint of each kind.
GUARDED = ("/api/v1/instances/", "/api/v0/instances/1/", "/api/v0/charges/", "/api/v0/ssh/")


class TestTheAccountKey:
    @pytest.mark.parametrize("path", GUARDED)
    def test_is_needed(self, account: Account, path: str) -> None:
        """Without one: 403, in words of its own."""
        del account.http.headers["authorization"]

        answer = account.http.get(path)

        assert answer.status_code == 403
        assert answer.json() == {
            "success": False,
            "error": "auth_error",
            "msg": "This action requires login.",
        }

    @pytest.mark.parametrize("status", [404, 401])
    def test_that_nobody_knows_is_no_missing_instance(
        self, account: Account, cloud: VastEmulator, status: int
    ) -> None:
        """404 by default, 401 elsewhere: the code tells it from something that is gone."""
        cloud.switch(bad_key=status)
        account.http.headers["authorization"] = "Bearer nonsense"

        answer = account.http.get("/api/v0/instances/1/")

        assert answer.status_code == status
        assert answer.json()["error"] == "auth_error"
        assert answer.json()["msg"] == "Invalid user key"

    @pytest.mark.parametrize("status", [401, 403, 404])
    def test_can_be_revoked_while_machines_run(
        self, account: Account, cloud: VastEmulator, status: int
    ) -> None:
        """They run on, and cost, until it is restored."""
        number = account.rent()

        cloud.revoke_key(status)

        answer = account.destroy(number)
        assert answer.status_code == status
        assert answer.json()["error"] == "auth_error"
        assert cloud.billing_now() == (str(number),)
        cloud.restore_key()
        assert account.destroy(number).status_code == 200

    def test_may_come_in_the_query(self, account: Account, cloud: VastEmulator) -> None:
        """The old way still works, and is not written down."""
        del account.http.headers["authorization"]

        answer = account.http.get("/api/v1/instances/", params={"api_key": cloud.key})

        assert answer.status_code == 200
        assert cloud.key not in repr(cloud.requests)


class TestTheKeyOfAnInstance:
    @pytest.fixture
    def inside(self, account: Account, cloud: VastEmulator) -> tuple[int, dict[str, str]]:
        """An instance, and the header that its own processes would send."""
        made = account.create().json()
        return made["new_contract"], {"Authorization": f"Bearer {made['instance_api_key']}"}

    def test_destroys_that_instance(
        self, account: Account, cloud: VastEmulator, inside: tuple[int, dict[str, str]]
    ) -> None:
        """Which is what a dead-man switch needs."""
        number, headers = inside

        answer = account.http.delete(f"/api/v0/instances/{number}/", headers=headers)

        assert answer.json()["success"] is True
        assert cloud.billing_now() == ()

    def test_does_nothing_else(
        self, account: Account, cloud: VastEmulator, inside: tuple[int, dict[str, str]]
    ) -> None:
        """No other instance, no list, no order."""
        number, headers = inside
        other = account.create().json()["new_contract"]

        answers = [
            account.http.delete(f"/api/v0/instances/{other}/", headers=headers),
            account.http.get("/api/v1/instances/", headers=headers),
            account.http.put(f"/api/v0/asks/{account.cheapest()['id']}/", headers=headers),
        ]

        assert [answer.status_code for answer in answers] == [403, 403, 403]
        assert set(cloud.billing_now()) == {str(number), str(other)}

    def test_ends_with_it(self, account: Account, inside: tuple[int, dict[str, str]]) -> None:
        """A key of what is gone is unknown."""
        number, headers = inside
        account.destroy(number)

        answer = account.http.delete(f"/api/v0/instances/{number}/", headers=headers)

        assert answer.json()["error"] == "auth_error"


class TestLimits:
    @pytest.mark.parametrize(
        ("style", "media_type", "part"),
        [
            ("plain", "text/plain", "API requests too frequent: endpoint threshold="),
            ("detail", "application/json", '{"detail": "API requests too frequent endpoint'),
            ("bucket", "application/json", '"retry_after": 2'),
        ],
    )
    def test_a_request_that_comes_too_early_is_refused(
        self, account: Account, cloud: VastEmulator, style: str, media_type: str, part: str
    ) -> None:
        """In one of three ways; one of them says when to come again."""
        cloud.switch(limits=1.5, limit_style=style)
        account.listed()

        answer = account.http.get("/api/v1/instances/")

        assert answer.status_code == 429
        assert answer.headers["content-type"] == media_type
        assert part in answer.text
        assert ("retry-after" in answer.headers) == (style == "bucket")

    def test_each_endpoint_has_its_own(self, account: Account, cloud: VastEmulator) -> None:
        """Reading a list does not delay a destroy."""
        number = account.create().json()["new_contract"]
        cloud.switch(limits=1.0)

        account.listed()

        assert account.destroy(number).status_code == 200

    def test_a_refused_order_makes_nothing(self, account: Account, cloud: VastEmulator) -> None:
        """429 is a clear refusal."""
        offers = [row["id"] for row in account.search()[:2]]
        cloud.switch(limits=1.0)
        account.create(offers[0])

        assert account.create(offers[1]).status_code == 429
        assert len(cloud.instances()) == 1


class TestFaultsOnTheWire:
    def test_hit_the_nth_call_and_as_many_as_were_planned(
        self, account: Account, cloud: VastEmulator
    ) -> None:
        """And are counted."""
        rule = cloud.faults.add("list", "status", status=503, nth=2, times=2)

        statuses = [account.http.get("/api/v1/instances/").status_code for _ in range(4)]

        assert statuses == [200, 503, 503, 200]
        assert (rule.seen, rule.met) == (4, 2)

    def test_can_be_about_one_instance(self, account: Account, cloud: VastEmulator) -> None:
        """Others are answered as usual."""
        cloud.faults.add("show", "html", parameters={"id": "7"}, times=None)

        assert account.show(8) is None
        answer = account.http.get("/api/v0/instances/7/")
        assert answer.status_code == 403
        assert answer.headers["content-type"].startswith("text/html")

    def test_cut_a_body_short(self, account: Account, cloud: VastEmulator) -> None:
        """The connection ends before the promised length."""
        cloud.faults.add("user", "truncate", at=5)

        with pytest.raises(httpx.RemoteProtocolError):
            account.http.get("/api/v0/users/current")

    def test_send_far_too_much(self, account: Account, cloud: VastEmulator) -> None:
        """As much as was asked for."""
        cloud.faults.add("user", "oversize", size=1 << 20)

        assert len(account.http.get("/api/v0/users/current").content) > 1 << 20

    def test_send_a_body_slowly(self, account: Account, cloud: VastEmulator) -> None:
        """Each piece comes in time, the whole does not."""
        cloud.faults.add("user", "slow", seconds=0.05)
        pieces = 0

        with account.http.stream("GET", "/api/v0/users/current") as answer:
            for _ in answer.iter_raw():
                pieces += 1
                if pieces == 3:
                    break

        assert pieces == 3

    def test_send_elsewhere(self, account: Account, cloud: VastEmulator) -> None:
        """With a body that is JSON all the same."""
        cloud.faults.add("list", "redirect")

        answer = account.http.get("/api/v1/instances/")

        assert answer.status_code == 301
        assert answer.json() == {}

    def test_with_an_unknown_name_are_refused_with_the_nearest(self, cloud: VastEmulator) -> None:
        """A fault that never happens would make a test that cannot fail."""
        with pytest.raises(ValueError, match="did you mean 'create'"):
            cloud.faults.add("creates", "drop")
        with pytest.raises(ValueError, match="did you mean 'drop'"):
            cloud.faults.add("create", "drops")


class TestControl:
    def test_faults_are_planned_over_http(self, account: Account) -> None:
        """As from Python."""
        body = {"endpoint": "list", "fault": "status", "status": 500}
        assert account.http.post("/_emulator/faults", json=body).json() == {"ok": True}

        assert account.http.get("/api/v1/instances/").status_code == 500
        [rule] = account.http.get("/_emulator/faults").json()["faults"]
        assert rule["met"] == 1

    def test_instances_are_afflicted_over_http(self, account: Account) -> None:
        """And the next ones are given their fate."""
        body = {"endpoint": "instance", "fault": "boot-failure"}
        account.http.post("/_emulator/faults", json=body)
        number = account.create().json()["new_contract"]

        account.until(number, lambda row: row["actual_status"] == "created")
        label = {"fault": "label", "label": "other"}
        account.http.post(f"/_emulator/instances/{number}", json=label)

        row = account.show(number)
        assert row is not None
        assert row["label"] == "other"

    def test_the_key_is_revoked_over_http(self, account: Account) -> None:
        """And restored with itself; a word that is no switch is refused, or nothing would happen."""
        refused = account.http.post("/_emulator/key", json={"status": 404})
        senseless = account.http.post("/_emulator/key", json={"revoked": "soon"})
        assert (refused.status_code, senseless.status_code) == (400, 400)
        assert account.http.get("/api/v1/instances/").status_code == 200

        account.http.post("/_emulator/key", json={"revoked": 404})
        assert account.http.get("/api/v1/instances/").status_code == 404

        account.http.post("/_emulator/key", json={"revoked": None})
        assert account.http.get("/api/v1/instances/").status_code == 200

    def test_books_and_requests_are_read_over_http(self, account: Account) -> None:
        """For tests in other languages, and for people."""
        number = account.create().json()["new_contract"]

        books = account.http.get("/_emulator/books").json()
        requests = account.http.get("/_emulator/requests").json()["requests"]

        assert books["billing_now"] == [str(number)]
        assert requests[-1]["path"] == "/_emulator/requests"
        assert "create" in {one["endpoint"] for one in requests}

    def test_needs_the_key(self, account: Account) -> None:
        """A page in a browser cannot reach it."""
        del account.http.headers["authorization"]

        assert account.http.get("/_emulator/state").status_code == 403
