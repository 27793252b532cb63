from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("asyncssh", reason="the extra sandbox is not installed")

from gpubroker.cli.conformance import Asked
from gpubroker.errors import InvalidValue
from gpubroker.model.money import Money
from gpubroker.testing.conformance import CHECKS
from gpubroker_vast.emulator import VastEmulator

from .program import Program

ROOT = Path(__file__).parent.parent.parent
WRONG = """
from contextlib import contextmanager

from tests.providers.conformance.acme import subject_of
from tests.providers.conformance.wrong_plugins import CalculatesInFloats


@contextmanager
def subject():
    yield subject_of(CalculatesInFloats)
"""


def installed(folder: Path, entry_points: str, module: str = "") -> dict[str, str]:
    """A plugin of somebody else's, and the environment in which it is installed."""
    information = folder / "acme-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(entry_points)
    (folder / "acme_subject.py").write_text(module)
    return {"PYTHONPATH": f"{folder}:{ROOT}"}


def test_a_sound_provider_passes(program: Program) -> None:
    """Every check that was asked for is in the report, with how it ended and why."""
    found = program.json(
        "conformance", "local", "--only", "prices_are_exact", "--only", "disk_is_priced", "--json"
    )

    assert (found["passed"], found["failed"], found["skipped"]) == (1, 0, 1)
    passed, skipped = found["verdicts"]
    assert passed["check"] == "prices_are_exact"
    assert passed["promise"] == "No part of a price has digits that no vendor wrote."
    assert skipped["said"] == "local: does not bill disk"


def test_a_broken_promise_is_told_with_how_to_mend_it(program: Program, tmp_path: Path) -> None:
    """What was promised, why it matters and what was seen; and the exit code says it too."""
    points = "[gpubroker.conformance]\nacme = acme_subject:subject\n"
    environment = installed(tmp_path / "site", points, WRONG)

    shown = program("conformance", "acme", "--only", "prices_are_exact", **environment)

    lines = shown.stdout.decode().splitlines()
    assert shown.returncode == 1
    assert "FAILED prices_are_exact" in lines
    assert "  promised: No part of a price has digits that no vendor wrote." in lines
    assert any(
        line.startswith("  why, and how to mend it: `0.1 + 0.2` in floats") for line in lines
    )
    assert any("more than 9 decimals" in line for line in lines)


@pytest.mark.parametrize(
    ("module", "seen", "extra"),
    [
        ("def subject(:", "SyntaxError", False),
        ("import no_such_library", "No module named 'no_such_library'", False),
        ("raise ModuleNotFoundError('no uvicorn', name='uvicorn')", "no uvicorn", True),
    ],
)
def test_a_subject_that_cannot_be_imported_is_named(
    program: Program, tmp_path: Path, module: str, seen: str, extra: bool
) -> None:
    """In one sentence; the extra is spoken of only where that is what is missing."""
    points = "[gpubroker.conformance]\nacme = acme_subject:subject\n"

    done = program("conformance", "acme", **installed(tmp_path / "site", points, module))

    told = done.stderr.decode()
    assert "the subject of acme, acme_subject:subject from acme, cannot be imported" in told
    assert seen in told
    assert ("gpubroker[sandbox]" in told, "Traceback" in told) == (extra, False)


def test_an_emulator_without_a_subject_is_rented_from(program: Program, tmp_path: Path) -> None:
    """What needs no books and disturbs nothing is tried there, with the other checks named."""
    points = (
        "[gpubroker]\nacme = gpubroker_vast:create\n"
        "[gpubroker.emulators]\nacme = gpubroker_vast.emulator:VastEmulator\n"
    )
    only = ("--only", "balance_is_told", "--only", "lost_answers_are_unknown")

    found = program.json(
        "conformance", "acme", *only, "--json", **installed(tmp_path / "s", points)
    )

    assert found["on"] == "its emulator"
    assert [verdict["standing"] for verdict in found["verdicts"]] == ["passed", "skipped"]


def test_a_real_account_is_rented_from_up_to_the_ceiling(program: Program) -> None:
    """One machine fits, the next one would not: it is not ordered, and nothing is left."""
    with VastEmulator(seed=1, ssh_server="built-in", scheduling=0.01, boot=0.04) as cloud:
        settings = {f"GPUBROKER_VAST_{name.upper()}": text for name, text in cloud.options.items()}
        settings |= {"VAST_API_KEY": cloud.key, "GPUBROKER_VAST_URL": cloud.url}
        only = ("--only", "one_create_for_each_order", "--only", "release_ends_billing")
        wanted = ("--gpu", "RTX 4090", "--disk", "20")

        shown = program(
            "conformance",
            "vast",
            "--real",
            "--ceiling",
            "0.20",
            *only,
            *wanted,
            "--json",
            **settings,
        )
        orders = [request for request in cloud.requests if request.endpoint == "create"]
        billing = cloud.billing_now()

    found = shown.stdout.decode()
    assert shown.returncode == 0
    assert '"passed": 1, "failed": 0, "skipped": 1' in found
    assert "of the ceiling of $0.20 are taken" in found
    assert '"left": []' in found
    assert (len(orders), billing) == (1, ())


class TestOptions:
    @pytest.mark.parametrize(
        ("given", "field"),
        [
            ({"real": True}, "ceiling"),
            ({"real": True, "ceiling": "0"}, "ceiling"),
            ({"real": True, "ceiling": "nan"}, "ceiling"),
            ({"ceiling": "1"}, "ceiling"),
            ({"wanted": {"gpu": ["A100"]}}, "gpu"),
            ({"only": ["prices"]}, "only"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, given: dict[str, Any], field: str) -> None:
        """A real account needs a ceiling, and nothing else has one."""
        words: dict[str, Any] = {"only": (), "real": False, "ceiling": None, "wanted": {}, **given}

        with pytest.raises(InvalidValue) as refused:
            Asked.of("acme", **words)

        assert refused.value.field == field
        assert field != "only" or "prices_are_exact" in str(refused.value)

    def test_a_ceiling_is_exact_money(self) -> None:
        """As it was written."""
        asked = Asked.of("acme", [*CHECKS][:1], real=True, ceiling="0.10", wanted={"gpu": None})

        assert (asked.ceiling, asked.wanted) == (Money("0.10"), {})
