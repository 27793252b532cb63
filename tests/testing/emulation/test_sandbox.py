from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpubroker import Broker, BrokerError, InvalidValue
from gpubroker.testing.sandboxing import emulator_names, make_emulator, sandbox


class TestSandbox:
    def test_points_every_provider_that_has_an_emulator_at_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With a budget, a key and a ledger of its own, and nothing of the user's."""
        monkeypatch.setenv("VAST_API_KEY", "the user's own")

        with sandbox(seed=1) as box:
            for name, emulator in box.emulators.items():
                account = box.settings.account(name)
                assert account.url == emulator.url
                assert account.key == emulator.key
            with Broker(settings=box.settings) as broker:
                taking_part = {status.name for status in broker.providers() if status.on}
            assert taking_part == set(box.emulators)
            assert box.settings.budget.set
            assert isinstance(box.settings.ledger, Path)
            folder = box.settings.ledger.parent
            assert folder.is_dir()

        assert not folder.exists()

    def test_may_be_closed_at_the_end_of_the_program(self) -> None:
        """As an app does that keeps a pool for its life: nothing hangs, and all is given up."""
        program = (
            "import atexit, contextlib\n"
            "from gpubroker import Broker, Requirements, fixed\n"
            "from gpubroker.testing import sandbox\n"
            "stack = contextlib.ExitStack()\n"
            "box = stack.enter_context(sandbox())\n"
            "broker = stack.enter_context(Broker(settings=box.settings))\n"
            "wanted = Requirements(gpu='RTX 4090')\n"
            "pool = stack.enter_context(broker.pool(wanted, keep_warm=fixed(60)))\n"
            "pool.run('true')\n"
            "atexit.register(print, 'over')\n"
            "atexit.register(stack.close)\n"
        )

        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )

        assert (done.stdout, done.stderr) == ("over\n", "")

    def test_says_that_there_is_no_ssh_client(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """In one sentence, before anything is started."""

        def nowhere(name: str) -> None:
            return None

        monkeypatch.setattr(shutil, "which", nowhere)

        with pytest.raises(BrokerError, match="has no ssh and no ssh-keygen: install OpenSSH"):
            with sandbox():
                pass

    def test_says_that_the_extra_is_not_installed(self) -> None:
        """And how to install it."""
        program = (
            "import sys\n"
            "sys.modules['asyncssh'] = None\n"
            "from gpubroker.testing.sandboxing import sandbox\n"
            "try:\n"
            "    with sandbox(): pass\n"
            "except Exception as error: print(error)\n"
        )

        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )

        assert "pip install 'gpubroker[sandbox]' (asyncssh is missing)" in done.stdout


class TestEmulators:
    def test_are_found_by_their_entry_points(self) -> None:
        """And each can be made, and says how it can behave."""
        for name in emulator_names():
            emulator = make_emulator(name)

            assert emulator.name == name
            assert "calm" in emulator.scenarios

    def test_that_do_not_exist_are_named(self) -> None:
        """With the nearest one that does."""
        with pytest.raises(InvalidValue, match="unknown emulator"):
            make_emulator("nonsense")


def test_testing_is_imported_without_the_extra() -> None:
    """Only what emulates needs it."""
    program = (
        "import sys, gpubroker.testing, gpubroker.testing.sandboxing\n"
        "print({'starlette', 'uvicorn', 'asyncssh'} & set(sys.modules))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "set()"
