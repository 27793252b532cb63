from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.model.gpu_table import GPU_MODELS, GpuModel
from gpubroker.model.offers import Offer
from gpubroker.policy.probe import COMMAND, REFUSED, gate, mismatch
from gpubroker.testing import offer

ONE = offer("RTX 4090", vram=24.0)


def said(*cards: str) -> str:
    return "".join(f"{card}\n" for card in cards)


class TestHonestMachines:
    @pytest.mark.parametrize(
        ("offered", "output"),
        [
            (ONE, said("NVIDIA GeForce RTX 4090, 24564")),
            (offer("RTX 4090", count=2), said(*["NVIDIA GeForce RTX 4090, 24564"] * 2)),
            (offer("A100", vram=80.0), said("NVIDIA A100-SXM4-80GB, 81920")),
            (offer("A100 80GB SXM", vram=80.0), said("NVIDIA A100-SXM4-80GB, 81920")),
            (offer("H100", vram=None), said("NVIDIA H100 80GB HBM3, 81559")),
            (offer("RTX 4090", vram=None), said("NVIDIA GeForce RTX 4090, 24564")),
        ],
    )
    def test_what_was_offered_passes(self, offered: Offer, output: str) -> None:
        """The driver reports a little less memory than is printed on the box."""
        assert mismatch(offered, 0, output) is None

    def test_the_question_is_one_command_without_a_shell(self) -> None:
        """Words, not a line, so that nothing on the way can read it differently."""
        assert COMMAND[0] == "nvidia-smi"
        assert all(" " not in word for word in COMMAND)


class TestLyingMachines:
    @pytest.mark.parametrize(
        ("offered", "exit_code", "output", "problem"),
        [
            (ONE, None, "", "no working NVIDIA driver"),
            (ONE, 127, "not found", "no working NVIDIA driver"),
            (ONE, 9, said("NVIDIA GeForce RTX 4090, 24564"), "no working NVIDIA driver"),
            (ONE, 0, "", "offered 1 cards, found 0"),
            (ONE, 0, "No devices were found\n", "offered 1 cards, found 0"),
            (ONE, 0, said(*["NVIDIA GeForce RTX 4090, 24564"] * 2), "offered 1 cards, found 2"),
            (
                offer("RTX 4090", count=2),
                0,
                said("NVIDIA GeForce RTX 4090, 24564"),
                "offered 2 cards, found 1",
            ),
            (ONE, 0, said("NVIDIA GeForce RTX 3090, 24576"), "offered RTX 4090, found RTX 3090"),
            (
                offer("RTX 4090", count=2),
                0,
                said("NVIDIA GeForce RTX 4090, 24564", "NVIDIA GeForce RTX 3090, 24576"),
                "offered RTX 4090, found RTX 3090",
            ),
            (
                offer("A100", vram=80.0),
                0,
                said("NVIDIA A100-SXM4-40GB, 40960"),
                "offered 80 GB on each card, found 42.9 GB",
            ),
            (ONE, 0, said("NVIDIA GeForce RTX 4090, [N/A]"), "reports no memory"),
            (ONE, 0, said("NVIDIA GeForce RTX 4090, nan"), "found nan GB"),
        ],
    )
    def test_what_differs_is_said(
        self, offered: Offer, exit_code: int | None, output: str, problem: str
    ) -> None:
        """No driver, too few or too many cards, another card, less memory."""
        found = mismatch(offered, exit_code, output)

        assert found is not None
        assert problem in found

    @given(st.none() | st.integers(), st.text())
    def test_no_output_at_all_breaks_the_probe(self, exit_code: int | None, output: str) -> None:
        """It comes from a stranger's machine: senseless text is a mismatch, never an error."""
        found = mismatch(ONE, exit_code, output)

        assert found is None or len(found) < 500

    @given(st.integers().filter(bool), st.integers(1, 9))
    def test_a_driver_that_fails_never_passes(self, exit_code: int, count: int) -> None:
        """Whatever it printed before."""
        cards = said(*["NVIDIA GeForce RTX 4090, 24564"] * count)

        assert mismatch(offer(count=count), exit_code, cards) is not None

    @given(st.integers(1, 9), st.integers(0, 9))
    def test_the_number_of_cards_must_be_that_of_the_offer(self, count: int, found: int) -> None:
        """Neither fewer, which is a lie, nor more, which is somebody else's."""
        cards = said(*["NVIDIA GeForce RTX 4090, 24564"] * found)

        assert (mismatch(offer(count=count), 0, cards) is None) == (found == count)


def ask(folder: Path, offered: Offer, output: str, code: int = 0) -> tuple[int, str]:
    """What the gate exits with and prints, where the driver exits with `code`."""
    folder.mkdir(exist_ok=True)
    (folder / "said").write_text(output)
    driver = folder / "nvidia-smi"
    driver.write_text(f'#!/bin/sh\ncat "{folder}/said"\nexit {code}\n')
    driver.chmod(0o700)
    done = subprocess.run(
        gate(offered), env={"PATH": f"{folder}:/usr/bin:/bin"}, stdout=subprocess.PIPE, check=False
    )
    return done.returncode, done.stdout.decode()


class TestMachinesThatNobodyAsks:
    """One that runs its jobs by itself must not begin somebody's work on the wrong cards."""

    @pytest.mark.parametrize(
        ("offered", "output"),
        [
            (ONE, said("NVIDIA GeForce RTX 4090, 24564")),
            (ONE, said("Warning: persistence mode", "NVIDIA GeForce RTX 4090, 24564")),
            (offer("RTX 4090", count=2), said(*["NVIDIA GeForce RTX 4090, 24564"] * 2)),
            (offer("H100", vram=None), said("NVIDIA H100 80GB HBM3, 81559")),
        ],
    )
    def test_the_cards_that_were_offered_pass(
        self, tmp_path: Path, offered: Offer, output: str
    ) -> None:
        """And what the driver says is printed as it is, for the broker to look at again."""
        assert ask(tmp_path / "bin", offered, output) == (0, output)
        assert mismatch(offered, 0, output) is None

    @pytest.mark.parametrize(
        ("offered", "output"),
        [
            (ONE, ""),
            (ONE, said("NVIDIA GeForce RTX 3090, 24576")),
            (ONE, said("NVIDIA GeForce RTX 4090, 20000")),
            (ONE, said("NVIDIA GeForce RTX 4090, [N/A]")),
            (ONE, said(*["NVIDIA GeForce RTX 4090, 24564"] * 2)),
            (offer("RTX 4090", count=2), said("NVIDIA GeForce RTX 4090, 24564")),
        ],
    )
    def test_other_cards_do_not(self, tmp_path: Path, offered: Offer, output: str) -> None:
        """The code is one that no driver exits with, and the broker calls it a mismatch too."""
        code, printed = ask(tmp_path / "bin", offered, output)

        assert code == REFUSED
        assert mismatch(offered, code, printed) is not None

    def test_a_machine_without_a_driver_does_not(self, tmp_path: Path) -> None:
        """Neither one whose driver fails."""
        code, printed = ask(tmp_path / "bin", ONE, said("NVIDIA GeForce RTX 4090, 24564"), code=9)
        assert mismatch(ONE, code, printed) == "the machine has no working NVIDIA driver"
        (tmp_path / "bin" / "nvidia-smi").unlink()
        done = subprocess.run(gate(ONE), env={"PATH": "/bin:/usr/bin"}, check=False)
        assert mismatch(ONE, done.returncode, "") == "the machine has no working NVIDIA driver"

    @pytest.mark.parametrize("model", GPU_MODELS, ids=lambda model: model.name)
    def test_the_number_looked_for_is_in_every_name_of_a_model(self, model: GpuModel) -> None:
        """So that the gate refuses nothing that the broker accepts."""
        number = gate(offer(model.name))[4]

        assert all(number in name for name in (model.name, model.family, *model.aliases))
