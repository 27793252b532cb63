from __future__ import annotations

import pytest

from gpubroker_vast.emulator import VastEmulator

from .account import Account


@pytest.fixture
def numbers(account: Account) -> list[int]:
    """Thirty contracts, more than a page."""
    offers = account.search(limit=64)
    made: list[int] = []
    for offer in offers:
        answer = account.create(offer["id"], label=f"l{len(made)}", target_state="stopped")
        if answer.status_code == 410:
            answer = account.create(
                offer["id"], label=f"l{len(made)}", target_state="stopped", cancel_unavail=False
            )
        made.append(answer.json()["new_contract"])
        if len(made) == 30:
            break
    return made


def pages(account: Account, **query: str) -> list[list[int]]:
    """The ids of each page."""
    found: list[list[int]] = []
    while True:
        answer = account.http.get("/api/v1/instances/", params=query).json()
        found.append([row["id"] for row in answer["instances"]])
        assert answer["instances_found"] == len(found[-1])
        if answer["next_token"] is None:
            return found
        query = {**query, "after_token": answer["next_token"]}


class TestPages:
    def test_hold_25_at_the_most(self, account: Account, numbers: list[int]) -> None:
        """Whatever was asked for; together they are everything."""
        assert pages(account, limit="1000") == [numbers[:25], numbers[25:]]

    def test_can_be_smaller_and_in_another_order(
        self, account: Account, numbers: list[int]
    ) -> None:
        """The token goes on where the last page ended."""
        order = '[{"col": "id", "dir": "desc"}]'

        found = pages(account, limit="7", order_by=order)

        assert [len(page) for page in found] == [7, 7, 7, 7, 2]
        assert [number for page in found for number in page] == numbers[::-1]

    def test_lose_nothing_when_a_row_goes_meanwhile(
        self, account: Account, cloud: VastEmulator, numbers: list[int]
    ) -> None:
        """The token does not count rows."""
        cloud.switch(vanishing=0.0)
        first = account.http.get("/api/v1/instances/", params={"limit": "10"}).json()
        for row in first["instances"]:
            account.destroy(row["id"])

        rest = pages(account, after_token=first["next_token"])

        assert [number for page in rest for number in page] == numbers[10:]

    def test_refuse_a_token_that_is_none(self, account: Account, numbers: list[int]) -> None:
        """With a code of its own."""
        answer = account.http.get("/api/v1/instances/", params={"after_token": "nonsense"})

        assert answer.status_code == 400
        assert answer.json()["error"] == "invalid_token"


class TestFilters:
    def test_find_by_label_and_id(self, account: Account, numbers: list[int]) -> None:
        """What is kept with the contract can be asked for."""
        by_label = account.listed(select_filters='{"label": {"in": ["l3", "l4"]}}')
        by_id = account.listed(select_filters=f'{{"id": {{"in": [{numbers[5]}]}}}}')

        assert [row["id"] for row in by_label] == numbers[3:5]
        assert [row["id"] for row in by_id] == [numbers[5]]

    def test_on_what_is_worked_out_are_refused(self, account: Account) -> None:
        """A price is no part of the contract's own record."""
        answer = account.http.get(
            "/api/v1/instances/", params={"select_filters": '{"dph_total": {"lt": 1}}'}
        )

        assert answer.status_code == 400
        assert "dph_total is not a valid search key" in answer.json()["msg"]


class TestOldPaths:
    def test_the_old_list_is_gone(self, account: Account) -> None:
        """410, which is no empty list."""
        answer = account.http.get("/api/v0/instances/")

        assert answer.status_code == 410
        assert answer.json()["error"] == "deprecated_endpoint"

    def test_old_accounts_still_have_it(self, account: Account, cloud: VastEmulator) -> None:
        """For as long as the roll-out takes."""
        cloud.switch(old_account=True)

        assert account.http.get("/api/v0/instances/").json()["instances"] == []

    def test_a_missing_slash_looks_like_an_empty_account(
        self, account: Account, numbers: list[int]
    ) -> None:
        """301, with a body that a careless client would believe."""
        answer = account.http.get("/api/v1/instances")

        assert answer.status_code == 301
        assert answer.json()["instances"] == []
        assert answer.headers["location"] == "/api/v1/instances/"

    def test_two_paths_need_no_slash(self, account: Account) -> None:
        """Those that the vendor's client uses without."""
        assert account.http.get("/api/v0/users/current").status_code == 200
        assert account.http.get("/api/v0/users/me/invoices").status_code == 200

    def test_logs_without_a_slash_are_a_bad_request(self, account: Account) -> None:
        """Nothing is sent elsewhere there."""
        assert account.http.put("/api/v0/instances/request_logs/1", json={}).status_code == 400


class TestListsThatLie:
    def test_empty(self, account: Account, cloud: VastEmulator, numbers: list[int]) -> None:
        """It says that there is nothing, and there is."""
        cloud.faults.add("list", "empty-list")

        assert account.listed() == []
        assert len(account.listed()) == 25

    def test_stale(self, account: Account, cloud: VastEmulator) -> None:
        """It shows what was, not what is."""
        number = account.create().json()["new_contract"]
        cloud.faults.add("list", "stale-list", age=3600)

        assert account.listed() == []
        assert [row["id"] for row in account.listed()] == [number]

    def test_partial(self, account: Account, cloud: VastEmulator, numbers: list[int]) -> None:
        """Its own count gives it away."""
        cloud.faults.add("list", "partial-list", keep=3)

        answer = account.http.get("/api/v1/instances/").json()

        assert len(answer["instances"]) == 3
        assert answer["total_instances"] == 30

    def test_a_lost_page(self, account: Account, cloud: VastEmulator, numbers: list[int]) -> None:
        """The first page says that it is the last one."""
        cloud.faults.add("list", "lost-page")

        answer = account.http.get("/api/v1/instances/").json()

        assert answer["next_token"] is None
        assert answer["total_instances"] == 30
        assert answer["instances_found"] == 25

    def test_a_row_that_is_none(
        self, account: Account, cloud: VastEmulator, numbers: list[int]
    ) -> None:
        """Null, where a row should be."""
        cloud.faults.add("list", "malformed-row")

        assert account.listed()[0] is None
