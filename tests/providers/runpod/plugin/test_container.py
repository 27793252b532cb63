"""What pods run, run for real by POSIX shells: it never returns, and never runs work twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpubroker import ErrorKind, PlannedJob, ProviderError
from gpubroker.transport.host_identity import host_keys
from gpubroker_runpod.container import LIMIT, jobs_command, ssh_command

from .contained import (
    FAKE_SSH_KEYGEN,
    FAKE_SSHD,
    HOST_KEY,
    NONCE,
    POD,
    POD_KEY,
    PUBLIC_KEY,
    Api,
    Container,
    Heard,
    serving,
    shells,
    until,
)

NOWHERE = "http://127.0.0.1:9"
SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin")


@pytest.fixture(params=shells)
def container(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Container]:
    """One for each shell that there is; whatever runs in it is ended."""
    made = Container(tmp_path, request.param)
    yield made
    made.stop()


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Container]:
    """One whose shell does not matter."""
    made = Container(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def api() -> Iterator[Api]:
    with serving() as api:
        yield api


def planned(*argv: str, **parts: Any) -> PlannedJob:
    usual: dict[str, Any] = {"purpose": "job", "argv": argv}
    return PlannedJob(**{**usual, **parts})


def script(text: str, **parts: Any) -> PlannedJob:
    return planned("sh", "-c", text, **parts)


def jobs(*given: PlannedJob, api: str = NOWHERE, lifetime: float = 3600, **parts: Any) -> str:
    return jobs_command(api=api, nonce=NONCE, lifetime=lifetime, jobs=given, **parts)


def over_ssh(api: str = NOWHERE, *, lifetime: float = 3600, **parts: Any) -> str:
    parts = {"sbin": "/nonexistent", "pause": 0.05, **parts}
    return ssh_command(api=api, nonce=NONCE, lifetime=lifetime, **parts)


def output(log: str, purpose: str = "job") -> str:
    """What a job printed: between our two lines, without the newline before each."""
    begin, end = (
        f"\nGPUBROKER-LOG {NONCE} start {purpose}\n",
        f"\nGPUBROKER-LOG {NONCE} end {purpose}",
    )
    return log.partition(begin)[2].partition(end)[0]


class TestJobs:
    def test_they_run_in_order_and_say_how_they_ended(self, container: Container) -> None:
        """First that it has begun, then each job with its output, then it waits to be ended."""
        container.start(
            jobs(
                script("echo a card", purpose="probe"),
                script("echo installed", purpose="setup"),
                script("echo result; echo trouble >&2; exit 3"),
            )
        )

        container.says("end job exited 3")
        own = [line for line in container.log.splitlines() if NONCE in line]
        assert [line.removeprefix(f"GPUBROKER-LOG {NONCE} ") for line in own[:7]] == [
            "begin",
            *("start probe", "end probe exited 0"),
            *("start setup", "end setup exited 0"),
            *("start job", "end job exited 3"),
        ]
        assert output(container.log, "probe") == "a card\n"
        assert output(container.log) == "result\ntrouble\n"
        assert container.runs

    def test_words_and_environment_arrive_exactly(self, container: Container) -> None:
        """Nothing of them is ever read by a shell."""
        words = ["", "-n", "a b", "'\"", "$(exit 9)`x`", "\\n\\0", "über\n\tzwei", "*", "--", "%s"]
        show = """import os,sys;print(sys.argv[1:]==eval(os.environ['W']),os.environ['V']=='a\\n$b ')"""
        container.link("python3", sys.executable)
        env = {"W": repr(words), "V": "a\n$b ", "PYTHONUTF8": "1"}

        container.start(jobs(planned("python3", "-c", show, *words, env=env)))

        container.says("end job exited 0")
        assert output(container.log) == "True True\n"

    @pytest.mark.parametrize("text", ["", "x", "x\n", "x\n\n", "\n", "a\n\nb"])
    def test_output_is_what_stands_between(self, one: Container, text: str) -> None:
        """Whether or not it ends with a newline."""
        one.start(jobs(planned("printf", "%s", text)))
        one.link("printf", shutil.which("printf"))

        one.says("end job exited 0")
        assert output(one.log) == text

    def test_each_has_a_folder_of_its_own_but_set_up(self, one: Container) -> None:
        """Set-up runs where all of them see what it made."""
        one.start(
            jobs(
                script("pwd; echo x >made", purpose="setup", shared=True),
                script('pwd; cat ~/made; [ "$PWD" != ~ ]'),
            )
        )

        one.says("end job exited 0")
        assert output(one.log, "setup") == f"{one.home}\n"
        assert output(one.log).endswith("\nx\n")

    def test_after_set_up_that_failed_nothing_is_run(self, one: Container) -> None:
        """And the log says so."""
        one.start(jobs(script("exit 4", purpose="setup"), script("echo ran")))

        one.says("end job not-run")
        one.says("end setup exited 4")
        assert "ran\n" not in one.log

    @pytest.mark.parametrize(
        ("probe", "how"),
        [
            (("nvidia-smi",), "not-started command not found: nvidia-smi"),
            (("sh", "-c", "exit 75"), "exited 75"),
        ],
    )
    def test_after_a_probe_that_failed_nothing_is_run(
        self, one: Container, probe: tuple[str, ...], how: str
    ) -> None:
        """The broker gives the pod up and takes another: nobody's work may run twice for it."""
        one.start(jobs(planned(*probe, purpose="probe"), script("echo ran")))

        one.says(f"end probe {how}")
        one.says("end job not-run")
        assert "ran\n" not in one.log

    def test_what_cannot_be_started_is_told_from_what_exits_with_127(
        self, container: Container
    ) -> None:
        """Only the second one ran."""
        container.start(jobs(script("exit 127", purpose="setup")))
        container.says("end setup exited 127")

        container.start_again(jobs(planned("no-such-thing")), wiped=True)
        container.says("end job not-started command not found: no-such-thing")

    def test_a_job_that_is_killed_says_by_what(self, container: Container) -> None:
        """As in a shell, and the shell's own remark on it is no output."""
        container.start(jobs(script("kill -9 $$")))

        container.says("end job exited 137")
        assert output(container.log) == ""

    @pytest.mark.parametrize("setsid", [True, False], ids=["setsid", "alone"])
    def test_its_time_is_all_that_it_gets(self, container: Container, setsid: bool) -> None:
        """Everything that it started ends with it, even what has a group of its own."""
        if not setsid:
            (container.programs / "setsid").unlink()
            container.link("another", shutil.which("setsid"))
        away = "setsid" if setsid else "another"
        stubborn = f"trap '' TERM; echo $$ >~/one; {away} sh -c 'echo $$ >~/two; sleep 300' & "

        container.start(jobs(script(f"{stubborn} while :; do sleep 1; done", timeout=0.3)))

        container.says("end job timed-out")
        pids = [int(container.note(name)) for name in ("one", "two")]
        until(lambda: not any(_lives(pid) for pid in pids))

    def test_time_that_is_up_before_it_began_is_up(self, one: Container) -> None:
        """On a machine that is slow to start a process."""
        (one.programs / "setsid").unlink()
        (one.programs / "setsid").write_text(
            f'#!/bin/sh\nsleep 0.6\nexec {shutil.which("setsid")} "$@"\n'
        )
        (one.programs / "setsid").chmod(0o700)

        one.start(jobs(script("echo ran; sleep 300", timeout=0.1)))

        one.says("end job timed-out")
        assert "ran\n" not in output(one.log)

    def test_what_it_leaves_running_keeps_nothing_waiting(self, one: Container) -> None:
        """Its end is the end of its command."""
        one.start(jobs(script("sleep 300 & echo done")))

        one.says("end job exited 0")

    def test_endings_are_repeated(self, one: Container) -> None:
        """A line that is lost is not the last word."""
        one.start(jobs(script("exit 0", purpose="probe"), script("exit 2")))

        one.says("end job exited 2", times=2)
        one.says("end probe exited 0", times=2)

    def test_the_pods_key_is_no_jobs_business(self, one: Container) -> None:
        """Nor is it printed, nor on any command line."""
        one.start(jobs(script("env; cat /proc/$PPID/cmdline")))

        one.says("end job exited 0")
        assert "HOME=" in output(one.log)
        assert POD_KEY not in one.log


class TestNeverReturning:
    def test_signals_do_not_end_it(self, container: Container) -> None:
        """A job may send them by mistake, and the host would run everything again."""
        container.start(jobs(script("trap '' TERM INT HUP; kill -TERM -$PPID; exit 5")))
        container.says("begin")
        assert container.process is not None

        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
            container.process.send_signal(number)

        container.says("end job exited 5")
        assert container.runs

    def test_work_whose_keeper_is_killed_is_reported(self, container: Container) -> None:
        """For want of memory, or by the job itself."""
        container.start(jobs(script("kill -9 $PPID; sleep 300")))

        container.says("broken")
        assert container.runs

    def test_without_a_place_to_write_it_still_says_so(self, container: Container) -> None:
        """Rather than to end, and to be started again for ever."""
        container.env["HOME"] = "/dev/null"
        container.start(jobs(script("echo ran")))

        container.says("end job not-started its folder cannot be made")
        assert container.runs

    def test_started_again_it_runs_nothing_twice(self, container: Container) -> None:
        """Where the disk was kept, what had ended is told again."""
        args = jobs(script("echo ran >>~/runs", purpose="probe"), script("sleep 300"))
        container.start(args)
        container.says("start job")

        container.start_again(args, wiped=False)

        container.says("again")
        container.says("end probe exited 0", times=2)
        assert container.note("runs") == "ran\n"
        assert "end job" not in container.log

    def test_on_a_wiped_disk_the_log_tells(self, one: Container) -> None:
        """Nothing there remembers; but it begins a second time."""
        args = jobs(script("sleep 300"))
        one.start(args)
        one.says("start job")

        one.start_again(args, wiped=True)

        one.says("begin", times=2)

    def test_over_ssh_it_does_not_return_either(self, container: Container, api: Api) -> None:
        """Whatever is missing in its image; and the dead-man switch is armed all the same."""
        container.link("curl", shutil.which("curl"))
        container.start(over_ssh(api.url, lifetime=1))
        until(lambda: "none could be installed" in container.log)
        assert container.process is not None

        container.process.send_signal(signal.SIGTERM)

        until(lambda: api.heard != [])
        assert container.runs


class TestEndingItself:
    def test_after_its_work_it_waits_and_then_ends_itself(
        self, container: Container, api: Api
    ) -> None:
        """With its own key, again and again, and still without returning."""
        container.link("curl", shutil.which("curl"))
        container.start(jobs(script(":"), api=api.url, repeats=(), grace=0, pause=0.05))

        until(lambda: len(api.heard) >= 3)
        asked = Heard("DELETE", f"/v2/pods/{POD}", f"Bearer {POD_KEY}", "gpubroker", "")
        assert api.heard[:3] == [asked] * 3
        assert container.runs

    def test_where_that_is_refused_there_are_two_more_ways(self, one: Container, api: Api) -> None:
        """Nobody knows which of them a pod's key is good for."""
        api.refuses |= {"DELETE", "POST"}
        one.link("curl", shutil.which("curl"))
        one.install("runpodctl", '#!/bin/sh\necho "$RUNPOD_API_KEY $*" >>"$HOME/ctl"\n')
        one.start(jobs(script("sleep 300"), api=api.url, lifetime=1, pause=0.05))

        assert one.note("ctl").splitlines()[0] == f"{POD_KEY} remove pod {POD}"
        first, second = api.heard[:2]
        assert (first.method, first.path) == ("DELETE", f"/v2/pods/{POD}")
        assert (second.method, second.path) == ("POST", "/graphql")
        assert second.key == f"Bearer {POD_KEY}"
        query = json.loads(second.body)["query"]
        assert query == f'mutation{{podTerminate(input:{{podId:"{POD}"}})}}'

    def test_the_key_is_on_no_command_line(self, one: Container, api: Api) -> None:
        """Anybody may read those, and the container's log may show them."""
        curl = shutil.which("curl")
        one.install("curl", f'#!/bin/sh\necho "$*" >>"$HOME/words"\nexec {curl} "$@"\n')
        one.start(over_ssh(api.url, lifetime=1))

        until(lambda: api.heard != [])
        assert POD in one.note("words")
        assert POD_KEY not in one.note("words") + one.log
        assert POD_KEY not in json.dumps(over_ssh(api.url))

    def test_the_deadline_holds_while_a_job_runs(self, one: Container, api: Api) -> None:
        """Whatever the job does."""
        one.link("curl", shutil.which("curl"))
        one.start(jobs(script("sleep 300"), api=api.url, lifetime=1, pause=0.05))

        until(lambda: api.heard != [])

    def test_a_broker_that_fell_silent_ends_it(self, one: Container, api: Api) -> None:
        """Once it had given signs of life."""
        one.link("curl", shutil.which("curl"))
        one.start(over_ssh(api.url, silence=60))
        _looked_twice(one)
        assert api.heard == []
        beat = one.home / ".gpubroker/heartbeat"
        beat.touch()

        os.utime(beat, (time.time() - 120, time.time() - 120))

        until(lambda: api.heard != [])


class TestOverSsh:
    @pytest.fixture(autouse=True)
    def programs(self, container: Container) -> None:
        container.install("ssh-keygen", FAKE_SSH_KEYGEN)

    def test_the_key_is_let_in_once(self, container: Container) -> None:
        """However often the container starts, beside the keys that were there."""
        container.install("sshd", FAKE_SSHD)
        keys = container.home / ".ssh/authorized_keys"
        keys.parent.mkdir()
        keys.write_text("ssh-ed25519 AAAAold somebody")

        for _ in range(2):
            container.start_again(over_ssh(), wiped=False)
            container.note("sshd")
            (container.home / "sshd").unlink()

        assert keys.read_text().split("\n") == ["ssh-ed25519 AAAAold somebody", PUBLIC_KEY, ""]
        assert (keys.stat().st_mode & 0o777, keys.parent.stat().st_mode & 0o777) == (0o600, 0o700)

    def test_its_log_shows_fresh_host_keys(self, container: Container) -> None:
        """Those of an image are known to everybody who has the image."""
        container.install("sshd", FAKE_SSHD)
        baked = container.etc_ssh / "ssh_host_rsa_key.pub"
        baked.write_text("ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQD0 image\n")

        container.start(over_ssh())

        until(lambda: host_keys(container.log, NONCE) != ())
        assert host_keys(container.log, NONCE) == (HOST_KEY,)
        assert container.note(".gpubroker/nonce") == f"{NONCE}\n"
        assert not baked.exists()

    def test_sessions_get_the_images_environment(self, container: Container) -> None:
        """Its programs, its libraries and the cards; not the pod's key."""
        container.install("sshd", FAKE_SSHD)
        container.env |= {
            "LD_LIBRARY_PATH": "/usr/local/nvidia/lib64",
            "CUDA_VERSION": "12.8",
            "NVIDIA_VISIBLE_DEVICES": "all",
            "RUNPOD_GPU_COUNT": "1",
        }

        container.start(over_ssh())

        container.note("sshd")
        lines = container.note(".ssh/environment").splitlines()
        assert f"PATH={container.programs}" in lines
        assert "LD_LIBRARY_PATH=/usr/local/nvidia/lib64" in lines
        assert "CUDA_VERSION=12.8" in lines
        assert "NVIDIA_VISIBLE_DEVICES=all" in lines
        assert {f"RUNPOD_POD_ID={POD}", "RUNPOD_GPU_COUNT=1"} <= {*lines}
        names = {line.partition("=")[0] for line in lines}
        assert not names & {"RUNPOD_API_KEY", "PUBLIC_KEY", "HOME", "PWD", "GPUBROKER_SSH_DIR"}

    def test_an_image_without_a_server_gets_one(self, container: Container) -> None:
        """With the package manager that it has."""
        container.install("sshd.packed", FAKE_SSHD)
        container.install(
            "apt-get",
            '#!/bin/sh\necho "$*" >>"$HOME/apt"\n'
            '[ "$1" = update ] || mv "${0%/*}/sshd.packed" "${0%/*}/sshd"\n',
        )

        container.start(over_ssh())

        container.note("sshd")
        assert container.note("apt").splitlines() == [
            "update",
            "install -y --no-install-recommends openssh-server",
        ]

    def test_one_that_fails_to_start_is_tried_again(self, container: Container) -> None:
        """And the log says that it does not start."""
        container.install("sshd", "#!/bin/sh\nexit 1\n")

        container.start(over_ssh())

        until(lambda: "sshd does not start" in container.log)
        assert container.runs

    @pytest.mark.skipif(SSHD is None, reason="there is no sshd here")
    def test_the_real_one_takes_what_it_is_told(self, container: Container) -> None:
        """Every option is one of OpenSSH's."""
        container.install("sshd", FAKE_SSHD)
        container.start(over_ssh())
        words = container.note("sshd").splitlines()
        key = container.root / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        Path("/run/sshd").mkdir(exist_ok=True)

        tried = subprocess.run(
            [str(SSHD), "-T", "-f", "/dev/null", "-h", str(key), *words],
            capture_output=True,
            text=True,
            check=False,
        )

        assert tried.stderr == ""
        settings = tried.stdout.splitlines()
        assert "permituserenvironment yes" in settings
        assert "passwordauthentication no" in settings
        assert f"authorizedkeysfile {container.home}/.ssh/authorized_keys" in settings


class TestText:
    def test_it_is_the_form_that_the_vendor_takes(self) -> None:
        """JSON text with an entry point and its words."""
        command = json.loads(jobs(planned("a", "b")))

        assert command["entrypoint"] == ["sh", "-c"]
        assert command["cmd"][1:] == ["gpubroker", "job", "work", "-", "2\na\nb\nend\n"]

    def test_both_leave_room_for_the_rest_of_the_request(self) -> None:
        """At the vendor's real address."""
        api = "https://api.runpod.io"

        assert len(json.dumps(over_ssh(api))) < LIMIT / 10
        assert len(json.dumps(jobs(script("x"), api=api))) < LIMIT / 10

    @pytest.mark.parametrize(
        "job", [planned("x" * LIMIT), planned("\ud800"), planned("x", env={"A": "\udcff"})]
    )
    def test_a_job_that_cannot_be_expressed_is_refused(self, job: PlannedJob) -> None:
        """Before anything is rented."""
        with pytest.raises(ProviderError) as refused:
            jobs(job)

        assert refused.value.kind is ErrorKind.BAD_REQUEST

    @pytest.mark.parametrize("api", ["https://x.test/$(reboot)", "https://x.test/;reboot", ""])
    def test_no_address_is_read_by_a_shell(self, api: str) -> None:
        """One with anything that means something there is refused."""
        with pytest.raises(ProviderError):
            over_ssh(api)


def _lives(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def _looked_twice(container: Container) -> None:
    """Wait until the dead-man switch has looked more than once."""
    deadline = container.home / ".gpubroker/deadline"
    until(deadline.exists)
    calls = container.home / "dates"
    date = shutil.which("date")
    (container.programs / "date").unlink()
    container.install("date", f'#!/bin/sh\necho >>{calls}\nexec {date} "$@"\n')
    until(lambda: calls.exists() and len(calls.read_text()) >= 3)
