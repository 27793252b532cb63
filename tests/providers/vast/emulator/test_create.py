from __future__ import annotations

from typing import Any

import httpx
import pytest

from gpubroker_vast.emulator import VastEmulator

from .account import Account, eventually


class TestAnOrder:
    def test_makes_a_contract_that_comes_up(self, account: Account) -> None:
        """From accepted to running, with the texts of a pull on the way."""
        answer = account.create(label="mine", env={"A": "1", "-p 8000:8000": "1"})
        number = answer.json()["new_contract"]

        assert answer.json()["success"] is True
        row = account.until(number, lambda row: row["actual_status"] == "running")
        assert row["label"] == "mine"
        assert row["intended_status"] == row["cur_state"] == row["next_state"] == "running"
        assert row["status_msg"].startswith("success, running")
        assert ["A", "1"] in row["extra_env"]
        assert set(row["ports"]) == {"22/tcp", "8000/tcp"}
        assert row["public_ipaddr"].strip() == "127.0.0.1"
        assert row["public_ipaddr"] != row["public_ipaddr"].strip()

    def test_has_no_ports_before_it_runs(self, account: Account, cloud: VastEmulator) -> None:
        """Nothing is mapped, and nothing was reported, at first."""
        cloud.switch(scheduling=30.0)
        number = account.create().json()["new_contract"]

        row = account.show(number)

        assert row is not None
        assert row["actual_status"] is None
        assert row["ports"] is None

    @pytest.mark.parametrize("runtype", ["ssh_direct", "ssh_direc ssh_proxy"])
    def test_for_a_direct_way_maps_port_22(self, account: Account, runtype: str) -> None:
        """In the documented words, and in those of the vendor's own client."""
        number = account.rent(runtype=runtype)

        row = account.show(number)
        assert row is not None
        assert "22/tcp" in row["ports"]

    def test_on_a_host_without_ports_has_the_proxy_alone(self, account: Account) -> None:
        """The order is accepted all the same."""
        offer = account.search(direct_port_count={"lte": 1})[0]["id"]
        number = account.create(offer).json()["new_contract"]

        row = account.until(number, lambda row: row["actual_status"] == "running")
        assert "22/tcp" not in row["ports"]
        assert row["ssh_port"] > 0

    def test_with_a_price_is_a_bid(self, account: Account) -> None:
        """The answer does not say so; the row does, with the bid as the price."""
        offer = account.cheapest()
        number = account.create(offer["id"], price=offer["min_bid"] * 1.5).json()["new_contract"]

        row = account.show(number)
        assert row is not None
        assert row["is_bid"]
        assert row["dph_base"] == pytest.approx(offer["min_bid"] * 1.5)


class TestAnOfferThatIsTaken:
    def test_is_gone_for_one_who_would_not_wait(self, account: Account) -> None:
        """410, with the offer's number beside the error."""
        offer = account.cheapest()["id"]
        account.create(offer)

        answer = account.create(offer)

        assert answer.status_code == 410
        assert answer.json()["error"] == "no_such_ask"
        assert answer.json()["ask_id"] == offer

    def test_makes_a_stopped_contract_for_one_who_would(
        self, account: Account, cloud: VastEmulator
    ) -> None:
        """A refusal with a status of 200, and a disk that costs money."""
        offer = account.cheapest()["id"]
        cloud.change_offer(offer, taken=True)

        answer = account.create(offer, cancel_unavail=False)

        number = answer.json()["new_contract"]
        assert answer.status_code == 200
        assert answer.json()["success"] is False
        assert cloud.billing_now() == (str(number),)
        row = account.show(number)
        assert row is not None
        assert row["cur_state"] == "stopped"

    def test_is_unknown_if_it_never_was(self, account: Account) -> None:
        """404, with the code inside of the message as well."""
        answer = account.create(12345)

        assert answer.status_code == 404
        assert answer.json()["error"] == "no_such_ask"

    def test_a_bid_below_the_floor_does_not_win(self, account: Account) -> None:
        """For bids a stopped contract is what happens unless one says otherwise."""
        offer = account.cheapest()

        lost = account.create(offer["id"], price=offer["min_bid"] / 2, cancel_unavail=None)

        assert lost.json()["success"] is False
        assert "new_contract" in lost.json()


class TestARefusal:
    @pytest.mark.parametrize(
        ("body", "error"),
        [
            ({"image": None}, "invalid_args"),
            ({"runtype": "ssh_direct", "use_ssh": True}, "invalid_args"),
            ({"label": "x" * 257}, "invalid_args"),
            ({"onstart": "x" * 5000}, "invalid_args"),
            ({"price": 1000}, "invalid_price"),
        ],
    )
    def test_makes_no_contract(
        self, account: Account, cloud: VastEmulator, body: dict[str, Any], error: str
    ) -> None:
        """What makes no sense is refused, and costs nothing."""
        answer = account.create(**body)

        assert answer.status_code == 400
        assert answer.json()["error"] == error
        assert cloud.instances() == []

    def test_without_credit_says_so(self, account: Account, cloud: VastEmulator) -> None:
        """An account that is empty rents nothing."""
        cloud.switch(credit=0)

        assert account.create().json()["error"] == "insufficient_credit"

    @pytest.mark.parametrize(("status", "inside"), [(404, False), (410, False), (400, True)])
    def test_of_a_stale_offer_has_many_forms(
        self, account: Account, cloud: VastEmulator, status: int, inside: bool
    ) -> None:
        """The code stands in the error or in the message."""
        cloud.faults.add("create", "no-such-ask", status=status, inside=inside)

        answer = account.create()

        assert answer.status_code == status
        body = answer.json()
        assert "no_such_ask" in (body["msg"] if inside else body["error"])
        assert cloud.instances() == []


class TestAnAnswerThatIsLost:
    @pytest.mark.parametrize(
        ("fault", "options"),
        [
            ("drop", {"when": "after"}),
            ("status", {"status": 502, "when": "after"}),
            ("garbage", {}),
            ("truncate", {}),
        ],
    )
    def test_leaves_exactly_one_machine(
        self, account: Account, cloud: VastEmulator, fault: str, options: dict[str, Any]
    ) -> None:
        """The order was carried out, although nobody was told."""
        cloud.faults.add("create", fault, **options)

        try:
            answer = account.create(label="lost")
        except httpx.TransportError:
            pass
        else:
            assert answer.status_code == 502 or not _is_json(answer)

        assert [row["label"] for row in account.listed()] == ["lost"]

    def test_may_have_been_lost_on_its_way_there(
        self, account: Account, cloud: VastEmulator
    ) -> None:
        """The client cannot tell the difference."""
        cloud.faults.add("create", "drop")

        with pytest.raises(httpx.TransportError):
            account.create()

        assert account.listed() == []

    def test_may_never_come(self, account: Account, cloud: VastEmulator) -> None:
        """The machine exists, and the connection stays open."""
        cloud.faults.add("create", "hang")
        offer = account.cheapest()["id"]

        with pytest.raises(httpx.ReadTimeout):
            account.http.put(f"/api/v0/asks/{offer}/", json={"image": "x"}, timeout=0.1)

        assert len(account.listed()) == 1

    def test_may_hide_a_second_machine(self, account: Account, cloud: VastEmulator) -> None:
        """One order, two contracts under one label; the answer names the first."""
        cloud.faults.add("create", "create-twice")

        answer = account.create(label="twin")

        rows = account.listed()
        assert [row["label"] for row in rows] == ["twin", "twin"]
        assert answer.json()["new_contract"] == rows[0]["id"]

    def test_may_refuse_and_bill(self, account: Account, cloud: VastEmulator) -> None:
        """``success: false``, and a contract beside it."""
        cloud.faults.add("create", "stopped-contract")

        answer = account.create()

        assert answer.json()["success"] is False
        assert cloud.billing_now() == (str(answer.json()["new_contract"]),)


def test_a_new_contract_may_be_seen_later(account: Account, cloud: VastEmulator) -> None:
    """Readings lag behind what was accepted."""
    cloud.switch(visibility=0.2)
    number = account.create().json()["new_contract"]

    assert account.show(number) is None
    assert account.listed() == []
    eventually(account.listed)


def test_several_offers_are_taken_in_one_request(account: Account) -> None:
    """Some of them may fail."""
    good = account.cheapest()["id"]

    body = {"image": "x", "ids": [good, 5]}
    answer = account.http.post("/api/v0/asks/bulk/", json=body)

    assert answer.status_code == 200
    assert answer.json()["failed"] == [5]
    assert len(answer.json()["created"]) == 1


def _is_json(answer: httpx.Response) -> bool:
    try:
        answer.json()
    except ValueError:
        return False
    return True
