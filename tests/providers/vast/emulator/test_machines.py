from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpubroker.policy.probe import COMMAND, mismatch
from gpubroker.testing import offer
from gpubroker.testing.emulation import sshd_path
from gpubroker_vast.emulator import VastEmulator

from .account import Account, SshKey, account_of, eventually


@pytest.fixture(params=["built-in", "system"])
def cloud(request: pytest.FixtureRequest) -> Iterator[VastEmulator]:
    """A cloud with each of the two SSH servers."""
    if request.param == "system" and sshd_path() is None:
        pytest.skip("needs OpenSSH's sshd, and to be root")
    with VastEmulator(
        seed=1,
        ssh_server=request.param,
        boot=0.02,
        scheduling=0.01,
        stopping=0.01,
        vanishing=0.05,
    ) as emulator:
        yield emulator


@pytest.fixture
def machine(account: Account, ssh_key: SshKey) -> int:
    """An instance that runs, and lets the key in."""
    return rent(account, ssh_key)


def rent(account: Account, ssh_key: SshKey, **body: object) -> int:
    """Rent an instance that lets a key in, and wait until its SSH server answers."""
    account.http.post("/api/v0/ssh/", json={"ssh_key": ssh_key.public})
    number = account.rent(**body)
    port = ways(account, number)[0]
    eventually(lambda: ssh_key.run(port, "true")[0] == 0)
    return number


def ways(account: Account, number: int) -> tuple[int, int]:
    """The ports of the direct way and of the proxy."""
    row = account.show(number)
    assert row is not None
    return int(row["ports"]["22/tcp"][0]["HostPort"]), int(row["ssh_port"])


class TestSsh:
    def test_runs_commands_both_ways(self, account: Account, machine: int, ssh_key: SshKey) -> None:
        """In the machine's home, with its exit status and both outputs."""
        for port in ways(account, machine):
            code, output = ssh_key.run(port, 'printf "$HOME"; echo no >&2; exit 3')

            assert code == 3
            assert output == str(account.cloud.folder(machine) / "home")

    def test_passes_bytes_as_they_are(
        self, account: Account, machine: int, ssh_key: SshKey
    ) -> None:
        """Any bytes, in any number, in both directions at once."""
        data = os.urandom(3_000_000)

        code, output = ssh_key.run(ways(account, machine)[0], "sha256sum; cat", data=data)

        assert code == 0
        assert output.split()[0] == hashlib.sha256(data).hexdigest()

    def test_reports_the_rented_cards(
        self, account: Account, machine: int, ssh_key: SshKey
    ) -> None:
        """The question of the broker's probe gets the answer that a real driver gives."""
        row = account.show(machine)
        assert row is not None
        rented = offer(
            row["gpu_name"], "1", count=row["num_gpus"], vram=row["gpu_ram"] * 1.048576 / 1000
        )

        code, output = ssh_key.run(ways(account, machine)[0], " ".join(COMMAND))

        assert mismatch(rented, code, output) is None

    def test_shows_none_of_the_variables_of_the_container(
        self, account: Account, machine: int, ssh_key: SshKey
    ) -> None:
        """They belong to the first process; sessions do not have them."""
        _, output = ssh_key.run(ways(account, machine)[0], "env")

        assert "CONTAINER_API_KEY" not in output

    def test_leaves_running_what_detached_itself(
        self, account: Account, machine: int, ssh_key: SshKey
    ) -> None:
        """A session's end is not the end of what it started."""
        port = ways(account, machine)[0]
        ssh_key.run(port, "setsid sleep 1000 >/dev/null 2>&1 & echo $! > pid")

        code, _ = ssh_key.run(port, 'kill -0 "$(cat pid)"')

        assert code == 0

    def test_forwards_ports(self, account: Account, machine: int, ssh_key: SshKey) -> None:
        """A service that listens on the machine's loopback address is reached."""
        with socket.create_server(("127.0.0.1", 0)) as service:
            service.settimeout(10)
            threading.Thread(target=_greet, args=(service,)).start()
            target = f"127.0.0.1:{service.getsockname()[1]}"

            _, output = ssh_key.run(ways(account, machine)[0], "ignored", "-W", target)

        assert output == "hello"

    def test_refuses_other_keys(self, account: Account, machine: int, tmp_path: Path) -> None:
        """Only keys of the account and of the instance are let in."""
        path = tmp_path / "other"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)

        code, reason = SshKey(path, "").run(ways(account, machine)[0], "true")

        assert code == 255
        assert "Permission denied" in reason

    def test_opens_ten_sessions_on_a_connection_and_no_more(
        self, account: Account, machine: int, ssh_key: SshKey, tmp_path: Path
    ) -> None:
        """As OpenSSH does by default."""
        port = ways(account, machine)[0]
        socket_path = str(tmp_path / "m")
        master = subprocess.Popen(
            [
                *("ssh", "-F", "none", "-i", str(ssh_key.private), "-p", str(port), "-M", "-N"),
                *("-S", socket_path, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"),
                *("-o", "UserKnownHostsFile=/dev/null", "root@127.0.0.1"),
            ],
            stderr=subprocess.DEVNULL,
        )
        through = ("ssh", "-F", "none", "-S", socket_path, "-o", "ProxyCommand=false", "x")
        sleepers: list[subprocess.Popen[bytes]] = []
        try:
            eventually(lambda: Path(socket_path).exists())
            for _ in range(10):
                sleeper = subprocess.Popen(
                    [*through, "echo in; exec sleep 100"], stdout=subprocess.PIPE
                )
                assert sleeper.stdout is not None
                assert sleeper.stdout.readline() == b"in\n"
                sleepers.append(sleeper)

            eleventh = subprocess.run([*through, "true"], capture_output=True, check=False)
        finally:
            for process in (*sleepers, master):
                process.kill()
                process.communicate()

        assert eleventh.returncode == 255


def _greet(service: socket.socket) -> None:
    connection, _ = service.accept()
    with connection:
        connection.sendall(b"hello")


class TestTheFirstScript:
    def test_is_really_run_and_its_output_is_the_log(
        self, account: Account, cloud: VastEmulator
    ) -> None:
        """With the variables of a container, and those that were ordered."""
        script = 'echo "$CONTAINER_ID $A"; cat "$GPUBROKER_SSH_DIR"/ssh_host_ed25519_key.pub'
        number = account.rent(onstart=script, env={"A": "ordered"})

        url = account.http.put(f"/api/v0/instances/request_logs/{number}/", json={}).json()
        with account_of(cloud) as other:
            del other.headers["authorization"]
            eventually(lambda: "ssh-ed25519" in other.get(url["result_url"]).text)
            text = other.get(url["result_url"]).text

        assert text.splitlines()[0] == f"{number} ordered"

    def test_can_destroy_its_own_machine(self, account: Account, cloud: VastEmulator) -> None:
        """With the key that it finds in its environment, over HTTP: a dead-man switch."""
        script = (
            f"{sys.executable} -c 'import os, urllib.request as u\n"
            'r = u.Request(os.environ["API"] + "/api/v0/instances/%s/" '
            '% os.environ["CONTAINER_ID"], method="DELETE", headers={"Authorization": '
            '"Bearer " + os.environ["CONTAINER_API_KEY"]})\n'
            "u.build_opener(u.ProxyHandler({})).open(r)'"
        )
        account.create(onstart=script, env={"API": cloud.url})

        eventually(lambda: cloud.instances() == [])

        assert cloud.billing_now() == ()


class TestIdentity:
    def test_the_server_has_the_key_whose_public_half_lies_in_the_folder(
        self, account: Account, cloud: VastEmulator, machine: int
    ) -> None:
        """So what the first script prints can be pinned."""
        [public] = (cloud.folder(machine) / "keys").glob("*.pub")

        assert _presented(ways(account, machine)[0]) == public.read_text().split()[1]

    def test_another_key_may_be_presented(
        self, account: Account, cloud: VastEmulator, ssh_key: SshKey
    ) -> None:
        """Somebody stands in between."""
        cloud.next_instance("wrong-host-key")
        number = rent(account, ssh_key)

        [public] = (cloud.folder(number) / "keys").glob("*.pub")
        assert _presented(ways(account, number)[0]) != public.read_text().split()[1]


def _presented(port: int) -> str:
    done = subprocess.run(
        ["ssh-keyscan", "-t", "ed25519", "-p", str(port), "127.0.0.1"],
        capture_output=True,
        check=True,
        text=True,
    )
    return done.stdout.split()[-1]


class TestTrouble:
    def test_the_direct_port_may_be_dead(
        self, account: Account, cloud: VastEmulator, ssh_key: SshKey
    ) -> None:
        """The proxy is alive."""
        account.http.post("/api/v0/ssh/", json={"ssh_key": ssh_key.public})
        cloud.next_instance("dead-direct-port")
        number = account.rent()
        direct, proxy = ways(account, number)

        eventually(lambda: ssh_key.run(proxy, "true")[0] == 0)

        assert "refused" in ssh_key.run(direct, "true")[1]

    def test_connections_can_be_cut_while_a_command_runs(
        self, account: Account, cloud: VastEmulator, machine: int, ssh_key: SshKey
    ) -> None:
        """The next one is let in."""
        port = ways(account, machine)[0]
        marker = cloud.folder(machine) / "home" / "running"
        results: list[tuple[int, str]] = []
        thread = threading.Thread(
            target=lambda: results.append(ssh_key.run(port, "touch running; sleep 1000"))
        )
        thread.start()
        eventually(marker.exists)

        cloud.afflict(machine, "cut")

        thread.join(10)
        assert results[0][0] == 255
        assert ssh_key.run(port, "true")[0] == 0

    def test_a_frozen_machine_keeps_its_connections_open(
        self, account: Account, cloud: VastEmulator, machine: int, ssh_key: SshKey
    ) -> None:
        """Half open: nothing comes, and nothing ends, until it goes on."""
        port = ways(account, machine)[0]
        cloud.afflict(machine, "freeze")

        with socket.create_connection(("127.0.0.1", port), timeout=0.1) as silent:
            with pytest.raises(TimeoutError):
                silent.recv(1)
        cloud.afflict(machine, "thaw")

        eventually(lambda: ssh_key.run(port, "true")[0] == 0)

    def test_keys_may_come_late(
        self, account: Account, cloud: VastEmulator, ssh_key: SshKey
    ) -> None:
        """The server answers, and refuses, and then does not."""
        account.http.post("/api/v0/ssh/", json={"ssh_key": ssh_key.public})
        cloud.next_instance("late-key", seconds=0.5)
        number = account.rent()
        port = ways(account, number)[1]
        answers: list[str] = []

        def let_in() -> bool:
            code, text = ssh_key.run(port, "true")
            answers.append(text)
            return code == 0

        eventually(let_in)

        assert any("Permission denied" in text for text in answers)

    def test_a_key_attached_later_is_let_in(
        self, account: Account, cloud: VastEmulator, ssh_key: SshKey
    ) -> None:
        """And what the first script wrote into the file is lost with that, as at the vendor."""
        number = account.rent(onstart="echo foreign >> ~/.ssh/authorized_keys; touch done")
        eventually((cloud.folder(number) / "home" / "done").exists)

        answer = account.http.post(
            f"/api/v0/instances/{number}/ssh/", json={"ssh_key": ssh_key.public}
        )

        assert answer.json()["success"] is True
        eventually(lambda: ssh_key.run(ways(account, number)[0], "true")[0] == 0)
        keys = cloud.folder(number) / "home" / ".ssh" / "authorized_keys"
        assert "foreign" not in keys.read_text()

    def test_other_cards_than_those_on_offer(
        self, account: Account, cloud: VastEmulator, ssh_key: SshKey
    ) -> None:
        """Hosts describe themselves, and some are wrong."""
        cloud.next_instance("other-cards", name="NVIDIA GeForce GT 1030", memory=2048)
        number = rent(account, ssh_key)

        _, output = ssh_key.run(ways(account, number)[0], " ".join(COMMAND))

        assert output.startswith("NVIDIA GeForce GT 1030, 2048")


class TestNothingIsLeft:
    def test_when_the_emulator_stops(self, account: Account, ssh_key: SshKey) -> None:
        """No process, no folder, whatever state its machines were in."""
        number = rent(account, ssh_key, onstart="setsid sleep 1000 &")
        ssh_key.run(ways(account, number)[0], "setsid sleep 1000 >/dev/null 2>&1 &")
        account.cloud.afflict(number, "freeze")
        root = account.cloud.folder(number).parent

        account.cloud.stop()

        assert not root.exists()
        assert _mentioning(str(root)) == []

    def test_when_it_is_killed(self, tmp_path: Path) -> None:
        """Its keeper sees it die."""
        program = (
            "import time\n"
            "from gpubroker_vast.emulator import VastEmulator\n"
            "import httpx\n"
            "cloud = VastEmulator(seed=1, boot=0.02).__enter__()\n"
            "http = httpx.Client(base_url=cloud.url, headers={'Authorization': 'Bearer ' + cloud.key})\n"
            "offer = http.post('/api/v0/bundles/', json={}).json()['offers'][0]['id']\n"
            "body = {'image': 'x', 'onstart': 'setsid sleep 1000 & touch up'}\n"
            "number = http.put(f'/api/v0/asks/{offer}/', json=body).json()['new_contract']\n"
            "while not (cloud.folder(number) / 'home' / 'up').exists(): time.sleep(0.01)\n"
            "print(cloud.folder(number).parent, flush=True)\n"
            "time.sleep(1000)\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
        ) as emulator:
            assert emulator.stdout is not None
            root = emulator.stdout.readline().strip()
            assert _mentioning(root)

            emulator.send_signal(signal.SIGKILL)

            eventually(lambda: not Path(root).exists() and not _mentioning(root))


def _mentioning(folder: str) -> list[int]:
    """Processes with a folder in their environment or arguments."""
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            said = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if f"{folder}/".encode() in said and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found
