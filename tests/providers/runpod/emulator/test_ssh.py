from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from gpubroker.testing.emulation import sshd_path
from gpubroker.transport.host_identity import announcement, host_keys
from gpubroker_runpod.emulator import RunPodEmulator

from .account import Account, SshKey, container, eventually

NONCE = "nonce-of-this-test"
#: What a container must do so that somebody gets in.
OPEN = 'mkdir -p ~/.ssh; echo "$PUBLIC_KEY" > ~/.ssh/authorized_keys; ssh-keygen -A; sshd'


@pytest.fixture(params=["built-in", "system"])
def cloud(request: pytest.FixtureRequest) -> Iterator[RunPodEmulator]:
    """A cloud with each of the two SSH servers."""
    if request.param == "system" and sshd_path() is None:
        pytest.skip("needs OpenSSH's sshd, and to be root")
    with RunPodEmulator(
        seed=1, ssh_server=request.param, boot=0.02, scheduling=0.01, restart_pause=0.01
    ) as emulator:
        yield emulator


def order(account: Account, key: SshKey, script: str | None = OPEN, **body: Any) -> str:
    """Order a pod that lets a key in."""
    args = {} if script is None else {"args": container(f"{script}; sleep 1000")}
    return account.order(env={"PUBLIC_KEY": key.public}, ports=["22/tcp"], **args, **body)


def port_of(account: Account, pod: str) -> int:
    """The public port of a pod's SSH server, once it is shown."""
    row = account.until(pod, lambda row: row["ssh"]["direct"])
    assert row["runtime"]["ports"][0]["public"] == row["ssh"]["direct"]["port"]
    return int(row["ssh"]["direct"]["port"])


def gets_in(key: SshKey, port: int) -> bool:
    """Whether a key is let in."""
    return key.run(port, "true")[0] == 0


def shown_key(port: int) -> str:
    """The host key that a server proves to have; nothing while it does not answer."""
    seen = subprocess.run(
        ["ssh-keyscan", "-t", "ed25519", "-p", str(port), "127.0.0.1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=10,
    )
    return seen.stdout.split()[-1] if seen.stdout else ""


class TestTheServer:
    def test_is_opened_by_the_container_itself(self, account: Account, ssh_key: SshKey) -> None:
        """Commands run in the pod's home, with both ways for data and an exit code."""
        pod = order(account, ssh_key)
        port = port_of(account, pod)
        eventually(lambda: gets_in(ssh_key, port))

        code, output = ssh_key.run(port, "pwd; cat; nvidia-smi -L; exit 7", data=b"in\n")

        assert code == 7
        assert output.splitlines()[:2] == [str(account.cloud.folder(pod) / "home"), "in"]
        assert "NVIDIA L4" in output

    def test_is_started_by_the_vendors_own_images(self, account: Account, ssh_key: SshKey) -> None:
        """Where there is a key, and no command."""
        pod = order(account, ssh_key, None)

        port = port_of(account, pod)

        eventually(lambda: gets_in(ssh_key, port))

    def test_knows_nothing_of_the_containers_variables(
        self, account: Account, ssh_key: SshKey
    ) -> None:
        """Unless they are in the user's own file, and the server is told to read it."""
        pod = order(account, ssh_key, f"echo A=1 > ~/.ssh/environment; {OPEN}")
        other = order(
            account,
            ssh_key,
            f"{OPEN.removesuffix('sshd')} echo A=1 > ~/.ssh/environment; "
            "sshd -o PermitUserEnvironment=yes",
        )
        ports = [port_of(account, pod), port_of(account, other)]
        for port in ports:
            eventually(lambda port=port: gets_in(ssh_key, port))  # type: ignore[misc]

        outputs = [ssh_key.run(port, 'echo "$A $RUNPOD_POD_ID"')[1] for port in ports]

        assert outputs == [" \n", "1 \n"]

    def test_lets_in_whom_the_pods_own_file_names(self, account: Account, ssh_key: SshKey) -> None:
        """Nobody, if there is no such file."""
        pod = order(account, ssh_key, "ssh-keygen -A; sshd")
        port = port_of(account, pod)
        home = account.cloud.folder(pod) / "home"
        eventually(lambda: "Permission denied" in ssh_key.run(port, "true")[1])

        (home / ".ssh" / "authorized_keys").write_text(ssh_key.public)

        assert gets_in(ssh_key, port)

    def test_proves_to_be_who_the_log_says(
        self, account: Account, ssh_key: SshKey, cloud: RunPodEmulator
    ) -> None:
        """The host key is the one that the container made, and showed where only we can read."""
        pod = order(account, ssh_key, f"{OPEN}; {announcement(NONCE)}wait")
        port = port_of(account, pod)
        eventually(lambda: host_keys("\n".join(cloud.log(pod)), NONCE))

        [told] = host_keys("\n".join(cloud.log(pod)), NONCE)
        eventually(lambda: shown_key(port))

        assert told.split()[1] == shown_key(port)

    def test_may_be_another_than_the_log_says(
        self, account: Account, ssh_key: SshKey, cloud: RunPodEmulator
    ) -> None:
        """Somebody stands between."""
        cloud.next_pod("wrong-host-key")
        pod = order(account, ssh_key)
        port = port_of(account, pod)
        eventually(lambda: gets_in(ssh_key, port))

        eventually(lambda: shown_key(port))

        told = (cloud.folder(pod) / "keys" / "ssh_host_ed25519_key.pub").read_text()
        assert told.split()[1] != shown_key(port)

    def test_has_other_keys_and_another_port_after_a_restart(
        self, account: Account, ssh_key: SshKey, cloud: RunPodEmulator
    ) -> None:
        """And the old port may be shown for a while."""
        cloud.next_pod("stale-port", seconds=0.3)
        pod = order(account, ssh_key)
        before = port_of(account, pod)
        file = cloud.folder(pod) / "keys" / "ssh_host_ed25519_key.pub"
        eventually(lambda: gets_in(ssh_key, before))
        key = file.read_text()

        started = cloud.inside.world.lives.pods[pod].started_at
        cloud.afflict(pod, "restarts")
        eventually(lambda: cloud.inside.world.lives.pods[pod].started_at != started)

        assert port_of(account, pod) == before
        assert not gets_in(ssh_key, before)
        account.until(pod, lambda row: row["ssh"]["direct"]["port"] != before)
        after = port_of(account, pod)
        eventually(lambda: gets_in(ssh_key, after))
        assert file.read_text() != key


class TestTheWay:
    @pytest.fixture
    def cloud(self) -> Iterator[RunPodEmulator]:
        """The same with each server."""
        with RunPodEmulator(seed=1, ssh_server="built-in", boot=0.02, scheduling=0.01) as emulator:
            yield emulator

    def test_is_not_there_in_the_community_cloud(
        self, account: Account, ssh_key: SshKey, cloud: RunPodEmulator
    ) -> None:
        """Unless one is lucky."""
        card: dict[str, Any] = {"gpu": {"id": "NVIDIA GeForce RTX 4090"}, "cloud": "COMMUNITY"}
        pod = order(account, ssh_key, **card)
        row = account.until(pod, lambda row: row["status"] == "RUNNING")

        assert row["ssh"]["direct"] is None
        assert row["runtime"]["ports"] == [
            {"private": 22, "public": None, "type": "tcp", "ip": None}
        ]
        cloud.switch(public_community=1.0)
        lucky = order(account, ssh_key, **card)
        assert port_of(account, lucky)

    def test_is_not_there_unless_it_was_ordered(self, account: Account, ssh_key: SshKey) -> None:
        """A server that nobody can reach."""
        pod = account.rent(args=container(f"{OPEN}; echo end; sleep 1000"))

        account.read_until(pod, "end")

        assert account.show(pod)["ssh"]["direct"] is None

    def test_may_come_late_or_never(
        self, account: Account, ssh_key: SshKey, cloud: RunPodEmulator
    ) -> None:
        """The port, or what answers there."""
        pods: dict[str, str] = {}
        for fault in ("late-port", "late-ssh", "no-ssh", "no-public-port"):
            options = {"seconds": 60} if fault.startswith("late") else {}
            cloud.next_pod(fault, **options)
            pods[fault] = order(account, ssh_key)

        for pod in pods.values():
            account.until(pod, lambda row: row["status"] == "RUNNING")

        assert account.show(pods["late-port"])["ssh"]["direct"] is None
        assert account.show(pods["no-public-port"])["ssh"]["direct"] is None
        for fault in ("late-ssh", "no-ssh"):
            assert not gets_in(ssh_key, port_of(account, pods[fault]))

    def test_can_be_cut_frozen_and_restored(
        self, account: Account, ssh_key: SshKey, cloud: RunPodEmulator
    ) -> None:
        """While everything else goes on."""
        pod = order(account, ssh_key)
        port = port_of(account, pod)
        eventually(lambda: gets_in(ssh_key, port))

        cloud.afflict(pod, "cut", route="direct")
        assert not gets_in(ssh_key, port)
        assert account.show(pod)["status"] == "RUNNING"

        cloud.afflict(pod, "restore")
        eventually(lambda: gets_in(ssh_key, port))


class TestStandIns:
    def said(self, account: Account, script: str) -> list[str]:
        """What a script prints in a container with an SSH port."""
        pod = account.rent(ports=["22/tcp"], args=container(f"{script}; echo end; sleep 1000"))
        return [event.line for event in account.read_until(pod, "end")][:-1]

    def test_of_sshd_needs_host_keys(self, account: Account) -> None:
        """As the real one, which says so and fails."""
        said = self.said(account, "sshd; echo $?; ssh-keygen -A >/dev/null; sshd; echo $?")

        assert said == ["sshd: no hostkeys available -- exiting.", "1", "0"]

    def test_of_sshd_stays_where_it_is_told_to(self, account: Account) -> None:
        """In the foreground."""
        said = self.said(account, "ssh-keygen -A; timeout 0.1 sshd -D -o A=B; echo $?; sshd -t")

        assert said[-1] == "124"

    def test_of_ssh_keygen_makes_host_keys_once(self, account: Account) -> None:
        """Those that were removed are made again; whatever else it is asked for, it does."""
        look = 'md5sum < "$GPUBROKER_SSH_DIR"/ssh_host_ed25519_key.pub'
        remove = 'rm -f "$GPUBROKER_SSH_DIR"/ssh_host_*'
        said = self.said(
            account,
            f"ssh-keygen -A >/dev/null; {look}; {remove}; ssh-keygen -A >/dev/null; {look}; "
            "ssh-keygen -q -t ed25519 -N '' -f key; ls key",
        )

        assert said[0] == said[1]
        assert said[2] == "key"


def test_keys_of_the_account_are_let_in_where_that_was_ordered(
    account: Account, ssh_key: SshKey
) -> None:
    """Into pods made afterwards; the list is replaced as a whole."""
    url = "/v2/account/ssh-keys"
    assert account.http.put(url, json={"keys": ["nonsense"]}).status_code == 422
    assert account.http.put(url, json={"keys": [ssh_key.public]}).json() == {
        "keys": [ssh_key.public]
    }
    assert account.http.get(url).json() == {"keys": [ssh_key.public]}

    pod = account.order(startSsh=True, ports=["22/tcp"])

    port = port_of(account, pod)
    eventually(lambda: gets_in(ssh_key, port))
    assert account.show(pod)["env"] == {"PUBLIC_KEY": ssh_key.public}
