from __future__ import annotations

import subprocess
from pathlib import Path

from gpubroker.testing.emulation import Cards
from gpubroker.testing.emulation.cards import nvidia_smi


def ask(tmp_path: Path, cards: Cards, *words: str) -> str:
    """What the stand-in prints."""
    program = tmp_path / "nvidia-smi"
    program.write_text(nvidia_smi(cards))
    done = subprocess.run(["sh", str(program), *words], capture_output=True, text=True, check=True)
    return done.stdout


class TestNvidiaSmi:
    cards = Cards(name="NVIDIA GeForce RTX 4090", memory=24564, count=2)

    def test_answers_the_questions_that_scripts_ask(self, tmp_path: Path) -> None:
        """One line for each card, in the order of the fields."""
        words = ("--query-gpu=name,memory.total", "--format=csv,noheader,nounits")

        output = ask(tmp_path, self.cards, *words)

        assert output == "NVIDIA GeForce RTX 4090, 24564\n" * 2

    def test_has_a_header_and_units_unless_told_otherwise(self, tmp_path: Path) -> None:
        """As the real one."""
        output = ask(tmp_path, self.cards, "--query-gpu=index,memory.total", "--format=csv")

        assert output == "index, memory.total\n0, 24564 MiB\n1, 24564 MiB\n"

    def test_lists_cards(self, tmp_path: Path) -> None:
        """For people."""
        assert ask(tmp_path, self.cards, "-L").startswith("GPU 0: NVIDIA GeForce RTX 4090 (UUID:")
