"""How a machine's log comes to show its host keys, and what is read out of a log."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.errors import InvalidValue
from gpubroker.transport.host_identity import announcement, host_keys

from .servers import make_key

NONCE = "nonce-0123456789abcdef"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"

Announce = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def announce(tmp_path: Path) -> Generator[Announce]:
    """Runs the announcement with a shell, as a machine's start does."""
    started: list[subprocess.Popen[str]] = []

    def announce(shell: str) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [shell, "-c", announcement(NONCE) + "echo started\n"],
                env={
                    "PATH": os.environ["PATH"],
                    "HOME": str(tmp_path / "home"),
                    "GPUBROKER_SSH_DIR": str(tmp_path / "ssh"),
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return started[-1]

    (tmp_path / "home").mkdir()
    (tmp_path / "ssh").mkdir()
    yield announce
    for process in started:
        with process:
            os.killpg(process.pid, signal.SIGKILL)


class TestAnnouncement:
    """What a machine runs when it starts."""

    @pytest.mark.parametrize("shell", ["sh", "dash", "bash"])
    def test_the_log_shows_all_keys(self, announce: Announce, tmp_path: Path, shell: str) -> None:
        """They are read back as they are, and the machine's start was not held up."""
        keys = {
            make_key(tmp_path / f"ssh/ssh_host_{kind}_key", kind=kind)
            for kind in ("ed25519", "ecdsa")
        }

        process = announce(shell)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]

        assert "started\n" in lines
        assert set(host_keys("".join(lines), NONCE)) == keys
        nonce = tmp_path / "home/.gpubroker/nonce"
        assert nonce.read_text() == NONCE + "\n"
        assert stat.S_IMODE(nonce.stat().st_mode) == 0o600

    def test_keys_may_come_later(self, announce: Announce, tmp_path: Path) -> None:
        """A server makes its keys when it starts, which may be after this."""
        process = announce("sh")
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        key = make_key(tmp_path / "ssh/ssh_host_ed25519_key")

        assert host_keys(process.stdout.readline(), NONCE) == (key,)

    def test_it_fits_into_what_vendors_take(self) -> None:
        """Fewer than 700 characters, with the longest nonce."""
        assert len(announcement("x" * 128)) < 700

    @pytest.mark.parametrize(
        "nonce", ["", "short", "x" * 129, "eight 88", "$(reboot)", "abcdefg\n"]
    )
    def test_a_nonce_is_no_place_for_a_script(self, nonce: str) -> None:
        """Only letters, digits, _ and - are put into what a machine runs."""
        with pytest.raises(InvalidValue):
            announcement(nonce)


class TestReading:
    """What is read out of a log that the job, or anybody, may have written to."""

    def test_only_whole_keys_with_our_nonce_count(self) -> None:
        """Lines of others, lines that were cut, and other types are passed over."""
        word = "GPUBROKER-HOST-KEY"
        log = "\n".join(
            [
                f"{word} other-nonce-0000 {KEY}",
                f"{word} {NONCE} {KEY[:-4]}",
                f"{word} {NONCE} {KEY}AAAA",
                f"{word} {NONCE} ssh-dss {KEY.split()[1]}",
                f"{word} {NONCE} ssh-rsa {KEY.split()[1]}",
                f"{word} {NONCE} ssh-ed25519",
            ]
        )

        assert host_keys(log, NONCE) == ()
        assert host_keys(f"{log}\n2026-01-01T00:00 {word} {NONCE} {KEY}\n", NONCE) == (KEY,)

    def test_of_each_type_the_last_counts(self, tmp_path: Path) -> None:
        """Keys that an image brought along are replaced by those that its server made."""
        new = make_key(tmp_path / "new")
        lines = [f"GPUBROKER-HOST-KEY {NONCE} {key}\n" for key in (KEY, new)]

        assert host_keys("".join(lines), NONCE) == (new,)

    @given(st.text(), st.text())
    def test_any_log_can_be_read(self, before: str, after: str) -> None:
        """Whatever stands around the line, it is found, and nothing else is."""
        line = f"GPUBROKER-HOST-KEY {NONCE} {KEY}\n"

        assert host_keys(f"{before}{line}{after}", NONCE) == (KEY,)
        assert host_keys(before + after, NONCE) == ()
