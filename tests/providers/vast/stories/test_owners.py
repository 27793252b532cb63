"""Brokers that die over a running job, and those that go on with it: real processes, really killed."""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpubroker import JobState, LeaseRow, LeaseState
from gpubroker.ledger.ledger import Ledger
from gpubroker_vast.emulator import VastEmulator

PATIENCE = 90.0


class Home:
    """A user's home on one computer: its ledger, its programs, and a job that waits for a word."""

    def __init__(self, cloud: VastEmulator, folder: Path) -> None:
        self.folder = folder
        self.ledger = folder / "ledger.db"
        self.kept = folder / "ledger.db.leases"
        self.results = folder / "results"
        self.go = folder / "go"
        self.runs = folder / "runs"
        options = {f"GPUBROKER_VAST_{name.upper()}": value for name, value in cloud.options.items()}
        self.env = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(folder),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "GPUBROKER_LEDGER": str(self.ledger),
            "GPUBROKER_LOCAL_ENABLED": "false",
            "GPUBROKER_VAST_URL": cloud.url,
            "VAST_API_KEY": cloud.key,
            **options,
        }
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start ``gpubroker``; it does not outlive the test."""
        process = subprocess.Popen(
            [sys.executable, "-m", "gpubroker.cli", *words],
            env=self.env,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def do(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run ``gpubroker`` to its end."""
        process = self.start(*words)
        out, err = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def run_job(self, on_owner_death: str) -> subprocess.Popen[str]:
        """Start the job in a process of its own; returns once it prints.

        It notes each run, prints, waits for the word, leaves an output, and exits with 3.
        """
        script = (
            f"echo run >>{self.runs}; echo begun; echo aside >&2;"
            f" until [ -e {self.go} ]; do sleep 0.05; done;"
            " echo ended; echo whole >out.txt; exit 3"
        )
        words = ["--provider", "vast", "--budget", "0.50", "--gpu", "RTX 4090"]
        words += ["--secret", "TOKEN", "--on-owner-death", on_owner_death]
        words += ["--out", "out.txt", "--out-dir", "results"]
        self.env["TOKEN"] = "not-to-be-written-down"
        process = self.start("run", *words, "--", "sh", "-c", script)
        del self.env["TOKEN"]
        self.wait_for(process, "begun")
        return process

    def wait_for(self, process: subprocess.Popen[str], line: str) -> None:
        """Read a process's standard output up to a line."""
        assert process.stdout is not None
        for text in process.stdout:
            if text.strip() == line:
                return
        raise AssertionError(process.communicate())

    def wait_until_it_goes_on(self, process: subprocess.Popen[str]) -> None:
        """Read what a process says until it has adopted the job."""
        assert process.stderr is not None
        said = list(
            itertools.takewhile(
                lambda line: "going on with job-" not in line, itertools.islice(process.stderr, 50)
            )
        )
        assert process.poll() is None, said

    def kill(self, process: subprocess.Popen[str]) -> None:
        """As ``kill -9`` does."""
        process.kill()
        process.communicate(timeout=PATIENCE)

    def lease(self) -> LeaseRow:
        """The only lease."""
        ledger = Ledger(self.ledger, entropy=bytes(5))
        (row,) = ledger.leases(open_only=False)
        ledger.close()
        return row

    def job(self) -> tuple[str, int | None]:
        """What is on record of its only job."""
        ledger = Ledger(self.ledger, entropy=bytes(5))
        (job,) = ledger.jobs(self.lease().id)
        ledger.close()
        return job.state, job.exit_code

    def end(self) -> None:
        """End what the test left running."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate()


@pytest.fixture
def home(cloud: VastEmulator, tmp_path: Path) -> Iterator[Home]:
    """The home of somebody whose programs are killed."""
    home = Home(cloud, tmp_path)
    yield home
    home.go.touch()
    home.end()


def assert_delivered(cloud: VastEmulator, home: Home) -> None:
    """The one run's output is in place, its exit code on record, and nothing is left."""
    assert home.runs.read_text() == "run\n"
    assert (home.results / "out.txt").read_text() == "whole\n"
    assert [path for path in home.results.iterdir() if path.name.startswith(".")] == []
    assert home.job() == (JobState.EXITED, 3)
    assert home.lease().state is LeaseState.RELEASED
    assert cloud.billing_now() == ()
    assert home.do("verify").stdout == "1 lease, no violation\n"


def test_reap_adopts_the_job_of_a_killed_owner(cloud: VastEmulator, home: Home) -> None:
    """Its output, files and exit code come as if its owner had lived; it ran once."""
    home.kill(home.run_job("adopt"))
    secret = [path for path in home.kept.rglob("*") if path.is_file()]
    modes = {stat.S_IMODE(path.stat().st_mode) for path in secret}
    written = "".join(path.read_text() for path in secret)
    reap = home.start("reap")
    home.wait_until_it_goes_on(reap)
    home.go.touch()

    _, err = reap.communicate(timeout=PATIENCE)

    assert reap.returncode == 0, err
    assert_delivered(cloud, home)
    (out,) = home.results.glob("job-*.stdout")
    assert out.read_text() == "begun\nended\n"
    assert out.with_suffix(".stderr").read_text() == "aside\n"
    assert modes == {0o600}
    assert "not-to-be-written-down" not in written
    assert not home.kept.exists() or home.do("reap").returncode == 0
    assert not home.kept.exists()


def test_attach_goes_on_as_if_nothing_had_happened(cloud: VastEmulator, home: Home) -> None:
    """All of the output, the outputs, and the job's own exit code; and once more, if asked again."""
    home.kill(home.run_job("adopt"))
    home.go.touch()

    attached = home.do("attach")
    again = home.do("attach", home.lease().id)

    assert (attached.returncode, attached.stdout) == (3, "begun\nended\n"), attached.stderr
    assert "aside" in attached.stderr
    assert_delivered(cloud, home)
    assert again.returncode == 3
    assert f"its files are in {home.results}" in again.stderr


def test_release_is_what_happens_unless_it_is_said(cloud: VastEmulator, home: Home) -> None:
    """The machine of a killed owner is gone, its job with it."""
    home.kill(home.run_job("release"))

    reaped = home.do("reap")
    attached = home.do("attach", home.lease().id)

    assert reaped.returncode == 0, reaped.stderr
    assert home.lease().state is LeaseState.RELEASED
    assert cloud.billing_now() == ()
    assert attached.returncode == 2
    assert "no job runs on it that is to be adopted" in attached.stderr


def test_an_owner_that_comes_back_can_change_nothing(cloud: VastEmulator, home: Home) -> None:
    """Stopped for so long that its job was adopted, it neither ends the job nor the machine."""
    owner = home.run_job("adopt")
    owner.send_signal(signal.SIGSTOP)
    with sqlite3.connect(home.ledger) as sql:
        sql.execute("UPDATE owners SET expires_at = 0")
    sql.close()
    adopter = home.start("attach")
    home.wait_for(adopter, "begun")
    before = cloud.billing_now()

    owner.send_signal(signal.SIGCONT)
    owner.send_signal(signal.SIGINT)
    _, said = owner.communicate(timeout=PATIENCE)
    between = cloud.billing_now()
    home.go.touch()
    out, err = adopter.communicate(timeout=PATIENCE)

    assert before == between != ()
    assert owner.returncode != 0, said
    assert (adopter.returncode, out) == (3, "ended\n"), err
    assert_delivered(cloud, home)


@pytest.mark.parametrize("command", ["attach", "reap"])
def test_an_adopter_may_be_killed_too(cloud: VastEmulator, home: Home, command: str) -> None:
    """Whoever comes third delivers the result; the job has not noticed any of it."""
    home.kill(home.run_job("adopt"))
    adopter = home.start(command)
    home.wait_until_it_goes_on(adopter)
    home.kill(adopter)
    home.go.touch()

    third = home.do("attach")

    assert (third.returncode, third.stdout) == (3, "begun\nended\n"), third.stderr
    assert home.lease().epoch == 3
    assert_delivered(cloud, home)


def test_a_reaper_that_is_asked_to_end_leaves_the_job_to_the_next(
    cloud: VastEmulator, home: Home
) -> None:
    """A restart of the service that reaps costs no result."""
    home.kill(home.run_job("adopt"))
    reaper = home.start("reap", "--loop")
    home.wait_until_it_goes_on(reaper)

    reaper.send_signal(signal.SIGTERM)
    _, said = reaper.communicate(timeout=PATIENCE)
    home.go.touch()
    reaped = home.do("reap")

    assert reaper.returncode == 143
    assert "is left running" in said
    assert reaped.returncode == 0, reaped.stderr
    assert_delivered(cloud, home)


def test_without_what_was_kept_it_is_released_and_said_so(cloud: VastEmulator, home: Home) -> None:
    """On another computer, say: nobody there can reach the machine, so it must not bill on."""
    home.kill(home.run_job("adopt"))
    home.kept.rename(home.folder / "elsewhere")

    reaped = home.do("reap")

    assert reaped.returncode == 0, reaped.stderr
    assert "is released and not adopted: what is needed for that lies with" in reaped.stderr
    assert home.lease().state is LeaseState.RELEASED
    assert cloud.billing_now() == ()
