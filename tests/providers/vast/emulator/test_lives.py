from __future__ import annotations

from pathlib import Path

from gpubroker_vast.emulator import VastEmulator

from .account import Account, eventually


class TestBoot:
    def test_shows_how_far_the_pull_is(self, account: Account, cloud: VastEmulator) -> None:
        """Its text changes while layers come."""
        cloud.switch(boot=0.4)
        number = account.create().json()["new_contract"]
        seen: set[str] = set()

        def running() -> bool:
            row = account.show(number)
            assert row is not None
            seen.add(str(row["status_msg"]))
            return bool(row["actual_status"] == "running")

        eventually(running)

        assert len([text for text in seen if "Pulling" in text]) >= 2

    def test_may_fail_with_the_words_of_the_daemon(
        self, account: Account, cloud: VastEmulator
    ) -> None:
        """The container was made, does not run, and its disk is billed."""
        cloud.next_instance("boot-failure")
        number = account.create().json()["new_contract"]

        row = account.until(number, lambda row: row["actual_status"] == "created")

        assert "OCI runtime create failed" in row["status_msg"]
        assert row["cur_state"] == "stopped"
        assert cloud.billing_now() == (str(number),)

    def test_may_never_end(self, account: Account, cloud: VastEmulator) -> None:
        """It stays where it is, with a text that stays as it is."""
        cloud.next_instance("stuck-loading")
        number = account.create().json()["new_contract"]

        account.until(number, lambda row: row["actual_status"] == "loading")

        row = account.show(number)
        assert row is not None
        assert row["ports"] is None


class TestStop:
    def test_ends_processes_and_keeps_files_and_the_bill_for_them(
        self, account: Account, cloud: VastEmulator
    ) -> None:
        """A stopped instance is not free."""
        number = account.rent(onstart="echo kept > file; sleep 1000 & echo $! > pid; wait")
        home = cloud.folder(number) / "home"
        eventually(lambda: (home / "pid").is_file() and (home / "pid").read_text().strip())

        account.http.put(f"/api/v0/instances/{number}/", json={"state": "stopped"})
        row = account.until(number, lambda row: row["actual_status"] == "exited")

        assert row["cur_state"] == row["intended_status"] == "stopped"
        assert row["instance"]["gpuCostPerHour"] == 0
        assert (home / "file").read_text() == "kept\n"
        eventually(lambda: not _alive(int((home / "pid").read_text())))
        assert cloud.billing_now() == (str(number),)

    def test_is_undone_while_the_cards_are_free(self, account: Account) -> None:
        """Its first script runs again, with the files that were there."""
        number = account.rent(onstart="date +%N >> starts")
        url = f"/api/v0/instances/{number}/"
        account.http.put(url, json={"state": "stopped"})
        account.until(number, lambda row: row["actual_status"] == "exited")

        answer = account.http.put(url, json={"state": "running"})

        assert answer.json() == {"success": True}
        account.until(number, lambda row: row["actual_status"] == "running")
        starts = account.cloud.folder(number) / "home" / "starts"
        eventually(lambda: len(starts.read_text().splitlines()) == 2)

    def test_may_be_undone_hours_later(self, account: Account, cloud: VastEmulator) -> None:
        """Somebody took the cards: the start is queued, and happens by itself."""
        offer = account.cheapest()["id"]
        number = account.create(offer).json()["new_contract"]
        url = f"/api/v0/instances/{number}/"
        account.http.put(url, json={"state": "stopped"})
        account.until(number, lambda row: row["cur_state"] == "stopped")
        cloud.change_offer(offer, taken=True)

        answer = account.http.put(url, json={"state": "running"})

        assert answer.status_code == 200
        assert answer.json()["error"] == "resources_unavailable"
        cloud.change_offer(offer, taken=False)
        account.until(number, lambda row: row["actual_status"] == "running")


class TestTrouble:
    def test_an_outbid_instance_stops_and_its_status_lags(
        self, account: Account, cloud: VastEmulator
    ) -> None:
        """What was wanted changes at once, what the host reports later."""
        cloud.switch(stopping=0.1)
        offer = account.cheapest()
        body = {"price": offer["dph_base"]}
        number = account.create(offer["id"], **body).json()["new_contract"]
        account.until(number, lambda row: row["actual_status"] == "running")

        cloud.afflict(number, "outbid")

        row = account.show(number)
        assert row is not None
        assert row["intended_status"] == row["cur_state"] == row["next_state"] == "stopped"
        assert row["actual_status"] == "running"
        account.until(number, lambda row: row["actual_status"] == "exited")

    def test_a_lost_host_is_unknown_and_then_offline(
        self, account: Account, cloud: VastEmulator
    ) -> None:
        """Its time costs nothing, it runs nothing, and it is still on the list."""
        number = account.rent()

        cloud.afflict(number, "vanish")

        account.until(number, lambda row: row["actual_status"] == "offline")
        assert cloud.billing_now() == ()
        assert [row["id"] for row in account.listed()] == [number]

    def test_a_label_can_be_wiped(self, account: Account, cloud: VastEmulator) -> None:
        """Other people use the account, too."""
        number = account.create(label="mine").json()["new_contract"]

        cloud.afflict(number, "label", label=None)

        assert account.listed()[0]["label"] is None

    def test_a_main_process_that_ends_leaves_an_instance(
        self, account: Account, cloud: VastEmulator
    ) -> None:
        """It has exited, although it is wanted running."""
        number = account.rent()

        cloud.afflict(number, "exit")

        row = account.until(number, lambda row: row["actual_status"] == "exited")
        assert row["intended_status"] == "running"


class TestDestroy:
    def test_ends_everything(self, account: Account, cloud: VastEmulator) -> None:
        """Billing at once; the row, the processes and the files soon."""
        number = account.rent(onstart="setsid sleep 1000 & echo $! > pid")
        pid_file = cloud.folder(number) / "home" / "pid"
        eventually(lambda: pid_file.is_file() and pid_file.read_text().strip())
        pid = int(pid_file.read_text())

        answer = account.destroy(number)

        assert answer.json()["success"] is True
        assert cloud.billing_now() == ()
        eventually(lambda: account.show(number) is None and not account.listed())
        eventually(lambda: not cloud.folder(number).exists())
        assert not _alive(pid)

    def test_shows_the_row_for_a_while(self, account: Account, cloud: VastEmulator) -> None:
        """With the state that it is moving to."""
        cloud.switch(vanishing=30.0)
        number = account.rent()

        account.destroy(number)

        [row] = account.listed()
        assert row["next_state"] == "unloaded"

    def test_of_what_is_gone_says_so(self, account: Account) -> None:
        """The second time, and for what never was."""
        number = account.create().json()["new_contract"]
        account.destroy(number)

        again = account.destroy(number)

        assert again.status_code == 404
        assert again.json()["error"] == "no_such_instance"

    def test_of_many_is_one_request(self, account: Account) -> None:
        """Under another word than other requests for many."""
        numbers = [account.create().json()["new_contract"] for _ in range(3)]

        done = account.http.request(
            "DELETE", "/api/v0/instances/", json={"instance_ids": [*numbers, 1]}
        )
        again = account.http.request("DELETE", "/api/v0/instances/", json={"instance_ids": numbers})

        assert done.status_code == 200
        assert again.status_code == 404
        assert again.json()["error"] == "instances_not_found"

    def test_may_fail_once(self, account: Account, cloud: VastEmulator) -> None:
        """And work the next time."""
        number = account.rent()
        cloud.afflict(number, "destroy-errors", times=1)

        assert account.destroy(number).status_code == 503
        assert account.destroy(number).status_code == 200

    def test_may_do_nothing_while_it_says_yes(self, account: Account, cloud: VastEmulator) -> None:
        """The worst that a vendor can do: it goes on to run, and to cost."""
        number = account.rent()
        cloud.afflict(number, "stubborn")

        assert account.destroy(number).json()["success"] is True

        assert cloud.billing_now() == (str(number),)
        assert [row["id"] for row in account.listed()] == [number]


def _alive(pid: int) -> bool:
    """Whether a process runs; one that only awaits its burial does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")
