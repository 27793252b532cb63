from __future__ import annotations

from typing import Any

import pytest

from gpubroker_runpod.emulator import RunPodEmulator

from .account import L4, Account

CAPACITY = "There are no longer any instances available with the requested specifications"


class TestAnOrder:
    def test_is_echoed_and_bills_at_once(self, account: Account, cloud: RunPodEmulator) -> None:
        """Before anything runs; its variables come back in full."""
        answer = account.create(name="mark", env={"A": "1"}, ports=["22/tcp"], args="sleep 1")

        row = answer.json()
        assert answer.status_code == 201
        assert row["status"] == "PROVISIONING"
        assert row["actions"] == ["stop", "terminate"]
        assert (row["name"], row["env"], row["args"]) == ("mark", {"A": "1"}, "sleep 1")
        assert row["gpu"] == {"id": L4, "count": 1}
        assert (row["runtime"], row["startedAt"]) == (None, None)
        assert row["ssh"] == {"proxy": None, "direct": None}
        assert row["cost"] == pytest.approx(0.39 + 0.1 * 20 / 730, abs=1e-6)
        assert cloud.billing_now() == (row["id"],)

    def test_costs_as_many_cards_as_it_has(self, account: Account) -> None:
        """And its storage on the host, too."""
        kept = {"persistent": {"size": 100, "path": "/workspace"}}

        row = account.create(gpu={"id": L4, "count": 2}, mounts=kept).json()

        assert row["cost"] == pytest.approx(2 * 0.39 + 0.1 * 120 / 730, abs=1e-6)
        assert row["mounts"] == kept

    def test_is_at_the_price_of_its_moment(self, account: Account, cloud: RunPodEmulator) -> None:
        """What it costs stays as it was, whatever the catalogue says later."""
        pod = account.order()

        cloud.set_price(L4, "1.25")

        assert account.gpu()["price"]["secure"] == 1.25
        assert account.show(pod)["cost"] == pytest.approx(0.39, abs=0.01)
        assert account.create().json()["cost"] == pytest.approx(1.25, abs=0.01)

    def test_may_name_data_centers(self, account: Account, cloud: RunPodEmulator) -> None:
        """Which is more than a preference."""
        row = account.create(dataCenterIds=["EUR-NO-1", "EUR-IS-1"]).json()

        assert row["dataCenterId"] in ("EUR-NO-1", "EUR-IS-1")
        refused = account.create(dataCenterIds=["OC-AU-1"])
        assert refused.status_code == 400
        assert refused.json()["detail"].startswith(CAPACITY)

    def test_may_want_versions_of_cuda(self, account: Account) -> None:
        """Just some, or one and later ones."""
        exact = account.create(gpu={"id": L4, "allowedCudaVersions": ["12.4"]}).json()
        later = account.create(gpu={"id": L4, "minCudaVersion": "12.10"}).json()

        assert (exact["cudaVersion"], later["cudaVersion"]) == ("12.4", "13.0")

    @pytest.mark.parametrize(
        "changes",
        [
            {"gpu": {"id": "NVIDIA nonsense"}},
            {"gpu": {"id": L4, "count": 9}},
            {"cloud": "COMMUNITY"},
            {"gpu": {"id": L4, "minCudaVersion": "14.0"}},
        ],
    )
    def test_that_nothing_suits_is_told_the_same_as_one_too_late(
        self, account: Account, changes: dict[str, Any]
    ) -> None:
        """400 and a text for people; nothing else tells the two apart."""
        answer = account.create(**changes)

        assert answer.status_code == 400
        assert answer.json()["detail"].startswith(CAPACITY)
        assert set(answer.json()) == {"title", "status", "detail"}

    def test_may_find_its_machine_taken(self, account: Account, cloud: RunPodEmulator) -> None:
        """Again and again, and then not."""
        cloud.faults.add("create", "other-machine", times=2)

        answers = [account.create() for _ in range(3)]

        assert [answer.status_code for answer in answers] == [400, 400, 201]
        assert "try a different machine" in answers[0].json()["detail"]


class TestSchema:
    @pytest.mark.parametrize(
        ("changes", "error"),
        [
            ({"interruptible": False}, "$: additional properties 'interruptible' not allowed"),
            ({"gpu": {"id": L4, "ids": []}}, "$.gpu: additional properties 'ids' not allowed"),
            ({"gpu": {}}, "$.gpu: missing property 'id'"),
            ({"name": ""}, "$.name: "),
            ({"disk": 0}, "$.disk: "),
            ({"disk": "20"}, "$.disk: "),
            ({"gpu": {"id": L4, "count": 0}}, "$.gpu.count: "),
            ({"cloud": "ALL"}, "$.cloud: "),
            ({"env": {"A": 1}}, "$.env.A: "),
            ({"ports": "22/tcp"}, "$.ports: "),
            ({"image": None}, "$.image: "),
            ({"mounts": {"persistent": {"size": 5, "path": "/a"}}}, "$.mounts.persistent.size: "),
            ({"cmd": ["a"]}, "$: additional properties 'cmd' not allowed"),
        ],
    )
    def test_that_is_broken_is_told_in_detail(
        self, account: Account, changes: dict[str, Any], error: str
    ) -> None:
        """422, with each violation; nothing is converted."""
        answer = account.create(**changes)

        assert answer.status_code == 422
        assert answer.json()["detail"] == "Request validation failed."
        assert any(one.startswith(error) for one in answer.json()["errors"])

    @pytest.mark.parametrize("name", ["name", "image"])
    def test_wants_a_name_and_an_image(self, account: Account, name: str) -> None:
        """What is missing is named first."""
        body = {"name": "a", "image": "b", "gpu": {"id": L4}, "disk": 20}
        del body[name]

        answer = account.http.post("/v2/pods", json=body)

        assert answer.status_code == 422
        assert answer.json()["errors"][0] == f"$: missing property '{name}'"

    def test_of_a_later_revision_knows_more(self, account: Account, cloud: RunPodEmulator) -> None:
        """Commands in their exec form, and what a host must have."""
        cloud.switch(newer=True)

        row = account.create(cmd=["sleep", "1"], gpu={"id": L4, "minRamPerGpu": 8}).json()

        assert row["cmd"] == ["sleep", "1"]
        assert row["gpu"]["vcpuCount"] == 8

    def test_is_not_asked_of_what_is_no_object(self, account: Account) -> None:
        """400."""
        for body in (b"[]", b"{", b"1"):
            assert account.http.post("/v2/pods", content=body).status_code == 400


class TestRules:
    @pytest.mark.parametrize(
        ("changes", "part"),
        [
            ({"gpu": None}, "exactly one of gpu or cpu"),
            ({"cpu": {"id": "cpu3c", "vcpuCount": 2}}, "exactly one of gpu or cpu"),
            ({"disk": None}, "You must either provide a template id or pod configuration"),
            (
                {"gpu": {"id": L4, "allowedCudaVersions": ["12.8"], "minCudaVersion": "12.4"}},
                "mutually exclusive",
            ),
            ({"ports": [f"{n}/http" for n in range(8000, 8011)]}, "at most 10 http ports"),
            ({"ports": ["53/udp"]}, "invalid port"),
            ({"env": {f"A{n}": "" for n in range(51)}}, "at most 50 environment variables"),
        ],
    )
    def test_that_are_broken_are_told_in_words(
        self, account: Account, changes: dict[str, Any], part: str
    ) -> None:
        """400, as when there is no capacity."""
        wanted = {"name": "a", "image": "b", "gpu": {"id": L4}, "disk": 20, **changes}
        body = {name: value for name, value in wanted.items() if value is not None}

        answer = account.http.post("/v2/pods", json=body)

        assert answer.status_code == 400
        assert part in answer.json()["detail"]

    def test_do_not_want_a_disk_everywhere(self, account: Account, cloud: RunPodEmulator) -> None:
        """The document says that it may be left out."""
        cloud.switch(disk_needed=False)
        body = {"name": "a", "image": "b", "gpu": {"id": L4}}

        assert account.http.post("/v2/pods", json=body).json()["disk"] == 20

    def test_know_no_templates(self, account: Account) -> None:
        """There are none here."""
        assert account.create(templateId="abc").status_code == 404


class TestMoney:
    def test_must_last_for_an_hour(self, account: Account, cloud: RunPodEmulator) -> None:
        """402, and nothing was made."""
        cloud.switch(credit=0.3)

        assert account.create().status_code == 402
        assert cloud.billing_now() == ()

    def test_may_be_spent_at_a_limited_rate(self, account: Account, cloud: RunPodEmulator) -> None:
        """By all pods together."""
        cloud.switch(spend_limit=0.5)
        account.order()

        answer = account.create()

        assert answer.status_code == 400
        assert "over your current spending limit ($0.50/hr)" in answer.json()["detail"]
