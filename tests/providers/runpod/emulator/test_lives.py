from __future__ import annotations

from pathlib import Path

import pytest

from gpubroker import InvalidValue
from gpubroker_runpod.emulator import RunPodEmulator
from gpubroker_runpod.emulator.pod_faults import POD_FAULTS

from .account import L4, Account, account_of, container, eventually


class TestBoot:
    def test_goes_from_one_status_to_the_next(
        self, account: Account, cloud: RunPodEmulator
    ) -> None:
        """Placed, pulled, running; ports and figures come with the last."""
        cloud.switch(scheduling=0.1, boot=0.2)
        pod = account.order(ports=["22/tcp", "8000/tcp", "8888/http"])
        seen: list[str] = []

        def running() -> bool:
            row = account.show(pod)
            if row["status"] not in seen:
                seen.append(row["status"])
            return bool(row["status"] == "RUNNING")

        eventually(running)

        row = account.show(pod)
        assert seen == ["PROVISIONING", "STARTING", "RUNNING"]
        assert row["actions"] == ["stop", "restart", "terminate"]
        assert row["runtime"]["uptime"] >= 1
        assert len(row["runtime"]["gpus"]) == 1
        ports = {port["private"]: port for port in row["runtime"]["ports"]}
        assert ports[22]["public"] == row["ssh"]["direct"]["port"]
        assert (ports[8000]["public"], ports[8000]["ip"]) == (8000, "127.0.0.1")
        assert ports[8888]["ip"].startswith("100.65.")

    @pytest.mark.parametrize(
        ("fault", "status", "said"),
        [
            ("never-runs", "PROVISIONING", []),
            ("pull-stalled", "STARTING", ["create container ubuntu:24.04"]),
            ("pull-failure", "ERROR", ["failed to pull image: manifest unknown"]),
        ],
    )
    def test_may_not_come_to_its_end(
        self, account: Account, cloud: RunPodEmulator, fault: str, status: str, said: list[str]
    ) -> None:
        """It bills all the same; the host's own lines say why, if anything does."""
        cloud.next_pod(fault)
        pod = account.order()

        account.until(pod, lambda row: row["status"] == status)

        log = cloud.inside.world.lives.pods[pod].log
        eventually(lambda: set(said) <= {line.text for line in log.after(0)})
        assert cloud.billing_now() == (pod,)

    def test_may_be_slow(self, account: Account, cloud: RunPodEmulator) -> None:
        """As images of many GB are."""
        cloud.next_pod("slow-boot", seconds=30)
        pod = account.order()

        account.until(pod, lambda row: row["status"] == "STARTING")

    @pytest.mark.parametrize(("fault", "runtime"), [("no-runtime", None), ("empty-runtime", {})])
    def test_may_show_no_figures(
        self, account: Account, cloud: RunPodEmulator, fault: str, runtime: object
    ) -> None:
        """A dead container that looks as if it ran."""
        cloud.next_pod(fault)

        pod = account.rent()

        assert account.show(pod)["runtime"] == runtime

    def test_may_lack_its_cards_or_bring_others(
        self, account: Account, cloud: RunPodEmulator
    ) -> None:
        """What the driver says is what there is."""
        cloud.next_pod("zero-gpus")
        none = account.rent(args=container("nvidia-smi; echo end; sleep 100"))
        cloud.next_pod("wrong-card", name="Tesla T4", memory=15360)
        other = account.rent(args=container("nvidia-smi -L; echo end; sleep 100"))

        assert account.show(none)["runtime"]["gpus"] == []
        assert [event.line for event in account.read_until(none, "end")] == ["end"]
        assert "Tesla T4" in account.read_until(other, "end")[0].line

    def test_may_cost_more_than_was_quoted(self, account: Account, cloud: RunPodEmulator) -> None:
        """As its own row says, and the books."""
        cloud.next_pod("dear", factor=3)

        pod = account.order()

        assert account.show(pod)["cost"] == pytest.approx(3 * 0.39, abs=0.01)
        assert float(cloud.inside.world.books.hourly()) == pytest.approx(3 * 0.39, abs=0.01)


class TestSight:
    def test_of_a_new_pod_may_come_late(self, account: Account, cloud: RunPodEmulator) -> None:
        """Until then it is neither found nor listed, and bills."""
        cloud.next_pod("invisible", seconds=0.2)

        pod = account.order()

        assert account.http.get(f"/v2/pods/{pod}").status_code == 404
        assert account.listed() == []
        assert cloud.billing_now() == (pod,)
        eventually(lambda: [row["id"] for row in account.listed()] == [pod])

    def test_of_a_pod_may_never_come(self, account: Account, cloud: RunPodEmulator) -> None:
        """It bills for ever, unless it is deleted by the id that the create told."""
        cloud.next_pod("never-listed")
        pod = account.order()

        assert account.http.get(f"/v2/pods/{pod}").status_code == 404
        assert account.listed() == []
        assert account.delete(pod).status_code == 204
        assert cloud.billing_now() == ()

    def test_is_of_the_newest_first(self, account: Account) -> None:
        """All of them, without pages."""
        pods = [account.order(name=str(n)) for n in range(3)]

        assert [row["id"] for row in account.listed()] == pods[::-1]

    def test_comes_in_pages_in_a_later_revision(
        self, account: Account, cloud: RunPodEmulator
    ) -> None:
        """With a cursor for the next one."""
        cloud.switch(newer=True)
        pods = [account.order(name=str(n)) for n in range(3)]

        first = account.http.get("/v2/pods", params={"limit": 2}).json()
        cursor = first["pagination"]["nextCursor"]
        rest = account.http.get("/v2/pods", params={"limit": 2, "cursor": cursor}).json()

        assert [row["id"] for row in first["pods"] + rest["pods"]] == pods[::-1]
        assert rest["pagination"] == {"nextCursor": None, "hasNextPage": False}
        assert account.http.get("/v2/pods", params={"limit": 0}).status_code == 422

    def test_of_names_is_not_to_be_relied_on(self, account: Account, cloud: RunPodEmulator) -> None:
        """Somebody edits them."""
        pod = account.order(name="mark", env={"MARK": "mark"})

        cloud.afflict(pod, "rename", name="other", env={})

        row = account.show(pod)
        assert (row["name"], row["env"]) == ("other", {})


class TestTheContainer:
    def test_gets_its_own_variables_and_those_of_the_vendor(self, account: Account) -> None:
        """The vendor's win; the key is good for this pod alone."""
        env = {"MINE": "1", "RUNPOD_API_KEY": "mine"}
        pod = account.rent(env=env, args=container("env; echo end; sleep 100"), ports=["22/tcp"])

        lines = [event.line for event in account.read_until(pod, "end")]
        found = dict(line.split("=", 1) for line in lines if "=" in line)

        assert found["MINE"] == "1"
        assert found["RUNPOD_POD_ID"] == pod
        assert found["RUNPOD_API_KEY"].startswith("rpa_")
        assert found["RUNPOD_GPU_COUNT"] == "1"
        port = account.show(pod)["ssh"]["direct"]["port"]
        assert found["RUNPOD_TCP_PORT_22"] == str(port)

    def test_takes_its_command_as_words_or_as_a_line(self, account: Account) -> None:
        """Quotes and all."""
        words = account.rent(args=container('printf "%s\\n" "a  b"; echo end; sleep 100'))
        line = account.rent(args='sh -c \'printf "%s\\n" "a  b"; echo end; sleep 100\'')

        for pod in (words, line):
            assert [event.line for event in account.read_until(pod, "end")] == ["a  b", "end"]

    def test_is_started_again_when_its_command_ends(
        self, account: Account, cloud: RunPodEmulator
    ) -> None:
        """With what it wrote gone, its log kept, its time anew, and the bill going on."""
        pod = account.order(args=container("ls; echo run > file; sleep 0.05; exit 3"))

        eventually(lambda: said(cloud, pod).count("start container") >= 3)

        assert "container exited with status 3; restarting" in said(cloud, pod)
        assert cloud.log(pod) == []
        assert account.show(pod)["status"] == "RUNNING"
        assert cloud.billing_now() == (pod,)

    def test_keeps_what_it_wrote_where_that_is_how_it_is(
        self, account: Account, cloud: RunPodEmulator
    ) -> None:
        """And loses its log, likewise."""
        cloud.switch(keep_home=True, keep_log=False)
        pod = account.order(args=container("ls; echo run > file; sleep 0.05"))

        eventually(lambda: cloud.log(pod) == ["file"])

    def test_ends_with_everything_that_it_started(
        self, account: Account, cloud: RunPodEmulator
    ) -> None:
        """Its command's end is the end of all its processes."""
        script = "[ -e ../pid ] || { setsid sleep 1000 & echo $! > ../pid; exit; }; sleep 1000"
        pod = account.order(args=container(script))
        file = cloud.folder(pod) / "pid"

        eventually(lambda: "restarting" in " ".join(said(cloud, pod)))
        eventually(lambda: account.show(pod)["status"] == "RUNNING")

        eventually(lambda: not alive(int(file.read_text())))

    def test_that_cannot_be_run_is_an_error(self, account: Account, cloud: RunPodEmulator) -> None:
        """The pod bills, and is never up."""
        pod = account.order(args="no-such-program --at all")

        account.until(pod, lambda row: row["status"] == "ERROR")

        assert any("error creating container" in line for line in said(cloud, pod))
        assert cloud.billing_now() == (pod,)

    def test_ends_its_own_pod(self, account: Account, cloud: RunPodEmulator) -> None:
        """With the key that it finds inside."""
        script = (
            'curl -s -X DELETE -H "Authorization: Bearer $RUNPOD_API_KEY" '
            f'"{cloud.url}/v2/pods/$RUNPOD_POD_ID"; sleep 1000'
        )
        pod = account.order(args=container(script))

        eventually(lambda: cloud.billing_now() == ())

        assert account.http.get(f"/v2/pods/{pod}").status_code == 404


class TestActions:
    def test_stop_frees_cards_and_costs_no_more(
        self, account: Account, cloud: RunPodEmulator
    ) -> None:
        """But for storage on the host, at twice the price."""
        cloud.set_stock(1, gpu=L4)
        kept = {"persistent": {"size": 100, "path": "/workspace"}}
        pod = account.rent(mounts=kept, args=container("sleep 1000"))

        row = account.act(pod, "stop").json()

        assert (row["status"], row["cost"], row["runtime"]) == ("EXITED", 0.0, None)
        assert row["actions"] == ["start", "terminate"]
        assert float(cloud.inside.world.books.hourly()) == pytest.approx(0.2 * 100 / 730)
        assert account.gpu(count=1)["availability"] == "LOW"

    def test_start_needs_cards_on_the_same_host(
        self, account: Account, cloud: RunPodEmulator
    ) -> None:
        """Which others may have by then."""
        pod = account.rent()
        account.act(pod, "stop")
        cloud.set_stock(0)

        refused = account.act(pod, "start")
        cloud.set_stock(1, gpu=L4)
        allowed = account.act(pod, "start")

        assert refused.status_code == 400
        assert "not enough free GPUs on the host machine" in refused.json()["detail"]
        assert allowed.status_code == 200
        account.until(pod, lambda row: row["status"] == "RUNNING")
        assert cloud.billing_now() == (pod,)

    def test_restart_changes_the_public_port(self, account: Account) -> None:
        """Without a word about it."""
        pod = account.rent(ports=["22/tcp"])
        before = account.show(pod)["ssh"]["direct"]["port"]

        assert account.act(pod, "restart").status_code == 200

        account.until(pod, lambda row: row["ssh"]["direct"]["port"] != before)

    def test_terminate_is_a_delete(self, account: Account, cloud: RunPodEmulator) -> None:
        """Without a body."""
        pod = account.order()

        answer = account.act(pod, "terminate")

        assert (answer.status_code, answer.content) == (204, b"")
        assert cloud.billing_now() == ()

    def test_that_do_not_fit_are_refused(self, account: Account, cloud: RunPodEmulator) -> None:
        """409 for the status, 422 for a word that nobody knows, 404 for a pod."""
        cloud.next_pod("never-runs")
        pod = account.order()

        assert account.act(pod, "restart").status_code == 409
        assert account.act(pod, "reset").status_code == 422
        assert account.act("nobody", "stop").status_code == 404


class TestTrouble:
    def test_a_pod_may_disappear(self, account: Account, cloud: RunPodEmulator) -> None:
        """Without notice, with its processes; and it costs no more."""
        pod = account.rent(args=container("echo $$ > ../pid; sleep 1000"))
        file = cloud.folder(pod) / "pid"
        eventually(lambda: file.exists() and file.read_text().strip())
        pid = int(file.read_text())

        cloud.afflict(pod, "dies")

        assert account.http.get(f"/v2/pods/{pod}").status_code == 404
        assert account.listed() == []
        assert cloud.billing_now() == ()
        eventually(lambda: not alive(pid))

    def test_a_container_may_die_and_stay_dead(
        self, account: Account, cloud: RunPodEmulator
    ) -> None:
        """Its pod says RUNNING and bills; only that it has no figures any more tells."""
        pod = account.rent(args=container("echo $$ > ../pid; sleep 1000"))
        file = cloud.folder(pod) / "pid"
        eventually(lambda: file.exists() and file.read_text().strip())
        pid = int(file.read_text())

        cloud.afflict(pod, "container-dies")

        eventually(lambda: not alive(pid))
        row = account.show(pod)
        assert (row["status"], row["runtime"]) == ("RUNNING", None)
        assert cloud.billing_now() == (pod,)

    def test_a_container_may_be_restarted(self, account: Account) -> None:
        """By its host, in a while."""
        pod = account.rent(args=container("echo begin; sleep 1000"))
        account.cloud.afflict(pod, "restarts", after=0.01)

        eventually(lambda: account.cloud.log(pod) == ["begin", "begin"])

    def test_a_pod_may_fail(self, account: Account, cloud: RunPodEmulator) -> None:
        """It is an error from then on, and bills."""
        pod = account.rent()

        cloud.afflict(pod, "error", reason="no such device")

        assert account.show(pod)["status"] == "ERROR"
        assert cloud.billing_now() == (pod,)

    def test_of_any_kind_ends_with_the_pod(self, account: Account, cloud: RunPodEmulator) -> None:
        """Whatever befell it, a delete leaves nothing that runs or bills."""
        lasting = {"stubborn", "cluster"}
        for fault in sorted(POD_FAULTS.keys() - lasting):
            cloud.next_pod(fault)
            account.order(args=container("sleep 1000"), ports=["22/tcp"])
        pods = cloud.billing_now()
        for pod in pods[::2]:
            cloud.afflict(pod, "freeze", after=0.01)

        for pod in pods:
            eventually(lambda pod=pod: account.delete(pod).status_code == 204)  # type: ignore[misc]

        assert cloud.billing_now() == ()
        eventually(lambda: not any(cloud.folder(pod).exists() for pod in pods))

    def test_what_does_not_exist_is_said(self, account: Account, cloud: RunPodEmulator) -> None:
        """A fault that never happens would make a test that cannot fail."""
        pod = account.order()

        with pytest.raises(InvalidValue, match="dies"):
            cloud.afflict(pod, "dise")
        with pytest.raises(InvalidValue, match="there is no such pod"):
            cloud.afflict("nobody", "dies")
        with pytest.raises(ValueError, match="did you mean 'dies'"):
            cloud.next_pod("dise")


class TestDelete:
    def test_ends_everything(self, account: Account, cloud: RunPodEmulator) -> None:
        """Billing at once; the row, the processes and the files soon; the second time is 404."""
        pod = account.rent(args=container("setsid sleep 1000 & echo $! > ../pid; wait"))
        file = cloud.folder(pod) / "pid"
        eventually(lambda: file.exists() and file.read_text().strip())
        pid = int(file.read_text())

        answer, again = account.delete(pod), account.delete(pod)

        assert (answer.status_code, answer.content) == (204, b"")
        assert (again.status_code, again.json()["detail"]) == (404, "pod not found")
        assert cloud.billing_now() == ()
        assert account.http.get(f"/v2/pods/{pod}").status_code == 404
        eventually(lambda: not account.listed())
        eventually(lambda: not cloud.folder(pod).exists())
        assert not alive(pid)

    def test_leaves_a_row_on_the_list_for_a_moment(
        self, account: Account, cloud: RunPodEmulator
    ) -> None:
        """As it was."""
        cloud.switch(vanishing=30.0)
        pod = account.rent()

        account.delete(pod)

        assert [(row["id"], row["status"]) for row in account.listed()] == [(pod, "RUNNING")]
        assert account.http.get(f"/v2/pods/{pod}").status_code == 404

    def test_of_a_part_of_a_cluster_is_refused(
        self, account: Account, cloud: RunPodEmulator
    ) -> None:
        """It is on the list only for those who ask."""
        cloud.next_pod("cluster")
        pod = account.order()

        assert account.listed() == []
        assert [row["id"] for row in account.listed(includeClusterPods="true")] == [pod]
        assert account.delete(pod).status_code == 409

    def test_may_fail_or_do_nothing(self, account: Account, cloud: RunPodEmulator) -> None:
        """The worst that a vendor can do is to say yes."""
        pod = account.order()
        cloud.afflict(pod, "destroy-errors", times=1)
        cloud.afflict(pod, "stubborn")

        assert account.delete(pod).status_code == 500
        assert account.delete(pod).status_code == 204
        assert cloud.billing_now() == (pod,)
        assert account.show(pod)["id"] == pod


class TestScenarios:
    def test_are_unlucky_by_chance_alone(self) -> None:
        """One seed has one fate."""
        fates: list[list[list[str]]] = []
        for _ in range(2):
            with RunPodEmulator(seed=4, scenario="bad-hosts", boot=10) as cloud:
                with account_of(cloud) as http:
                    pods = [Account(cloud, http).order() for _ in range(8)]
                known = cloud.inside.world.lives.pods
                fates.append([[name for name, _ in known[pod].conditions] for pod in pods])

        assert fates[0] == fates[1]
        assert any(fates[0])


def said(cloud: RunPodEmulator, pod: str) -> list[str]:
    """What the host said of a pod."""
    log = cloud.inside.world.lives.pods[pod].log
    return [line.text for line in log.after(0) if line.source == "system"]


def alive(pid: int) -> bool:
    """Whether a process runs; one that only awaits its burial does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")
