from __future__ import annotations

import signal
from typing import Any

import pytest

from gpubroker import DecisionRecord

from .program import PATIENCE, Program, line_with

CARDS = {
    "GPUBROKER_LOCAL_SIMULATE": "2x RTX 4090, 1x A100 80GB",
    "GPUBROKER_LOCAL_PRICE": "0.36",
    "GPUBROKER_BUDGET_JOB": "5",
}
#: No machine runs within this, so each attempt fails: a broken host.
HOPELESS = ("--attempt-timeout", "0.001")


def heading(program: Program, *words: str) -> str:
    """The first line of the offers."""
    shown = program("offers", *words, **CARDS)
    assert shown.returncode == 0, shown.stderr
    return shown.stdout.decode().splitlines()[0]


def attempts(program: Program, *words: str) -> list[dict[str, Any]]:
    """What was tried for a job that got no machine."""
    answer = program.json("run", "--json", "--gpu", "4090", *HOPELESS, *words, "true", **CARDS)
    tried: list[dict[str, Any]] = answer["error"]["record"]["attempts"]
    return tried


# ---- the words of the policy ---------------------------------------------------------------


def test_a_ranking_is_said_in_words(program: Program) -> None:
    """The same words as in a settings file, and the heading repeats them."""
    ranking = "prefer(local), 0.7*cheapest + 0.3*fastest"

    assert heading(program, "--gpu", "A100", "--gpu", "4090", "--rank", ranking).endswith(
        f"first of 2 by {ranking}"
    )


def test_what_the_job_needs_decides(program: Program) -> None:
    """A card that runs it twice as fast costs half as much to finish, at the same price."""
    cards = ("--gpu", "A100", "--gpu", "4090", "--rank", "cheapest_to_finish")

    slow = heading(program, *cards, "--work", "seconds=1h 'speed.RTX 4090=2'")
    fast = heading(program, *cards, "--work", "seconds=1h speed.A100=2")

    assert "RTX 4090 (simulated) from local" in slow
    assert "A100 80GB (simulated) from local" in fast


def test_rules_say_how_often_an_offer_is_tried(program: Program) -> None:
    """Two more tries there; and no more attempts than allowed, whatever the rules say."""
    often = attempts(program, "--retry", "host-broken=here(2), elsewhere(0.01)")
    limited = attempts(program, "--retry", "host broken=here(9)", "--max-attempts", "2")

    assert [attempt["kind"] for attempt in often] == ["host broken"] * 3
    assert len(limited) == 2


def test_time_for_a_machine_is_limited(program: Program) -> None:
    """The whole of it, waiting included."""
    ended = program("run", "--gpu", "H200", "--wait", "1h", "--acquire-timeout", "0.3s", "true")

    assert ended.returncode == 125
    assert b"no machine within 0.3 s" in ended.stderr


def test_options_go_before_the_settings_word_by_word(program: Program) -> None:
    """What is not said stays as the settings have it, down to one rule and one number."""
    (program.work / "gpubroker.toml").write_text(
        '[policy]\nrank = "cheapest_to_finish"\nmax_attempts = 2\n'
        '[policy.retry]\nhost_broken = "here(9)"\ncapacity = "stop"\n'
        "[policy.work]\nseconds = 7200\nsends = 1\n"
    )

    kept = heading(program, "--vram", "24")
    text = program("offers", "--json", "--work", "sends=2", **CARDS).stdout.decode()
    made = DecisionRecord.from_json(text).verdicts[0].estimate
    other = heading(program, "--vram", "24", "--rank", "fastest")

    assert kept.endswith("first of 2 by cheapest_to_finish")
    assert made is not None
    assert (made.run, made.transfer) == (7200, 160)
    assert other.endswith("first of 2 by fastest")
    assert len(attempts(program)) == 2
    program.ledger.unlink()
    assert len(attempts(program, "--retry", "host-broken=elsewhere(0.01)")) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--rank", "chepest"), b"rank = 'chepest': unknown ranking; did you mean 'cheapest'?"),
        (("--retry", "capacty=stop"), b"'capacty': unknown kind; did you mean 'capacity'?"),
        (("--retry", "capacity=heer(3)"), b"'heer': unknown rule; did you mean 'here'?"),
        (("--retry", "capacity=here(3), elswhere"), b"'elswhere': unknown rule; did you mean 'els"),
        (("--retry", "capacity=here(x)"), b"'x' is no number"),
        (("--retry", "capacity"), b"retry = 'capacity': must be KIND=RULE"),
        (("--retry", "auth=stop", "--retry", "AUTH=stop"), b"there are two rules for AUTH"),
        (("--retry", "create-unknown=here(1)"), b"is never repeated at the same offer"),
        (("--wait", "soon"), b"policy.wait = 'soon': must be seconds, or a time such as 90s"),
        (("--max-attempts", "0"), b"max_attempts = 0: must be at least 1"),
        (("--work", "secnods=4"), b"'secnods': unknown word; did you mean 'seconds'?"),
        (("--work", "sends=much"), b"work sends = 'much': must be a number"),
        (("--work", "speed.A101=2"), b"'A101': unknown GPU; did you mean 'A10"),
        (("--work", "40"), b"'40' must be name=value"),
        (("--or", "gpuu=A100"), b"or = 'gpuu': unknown word; did you mean 'gpu'?"),
        (("--or", "gpu=A101"), b"'A101': unknown GPU; did you mean 'A10"),
        (("--or", "gpu='A100"), b"cannot be read: no closing quotation"),
        (("--or", "count=1 count=2"), b"says count twice"),
        (("--or", "spot=maybe"), b"spot = 'maybe': must be yes, no or any"),
        (("--or", "port=http"), b"port = 'http': a TCP port is between 1 and 65535"),
        (("--or", ""), b"or = '': must be words such as name=value"),
    ],
)
def test_a_word_that_makes_no_sense_is_named(
    program: Program, options: tuple[str, ...], said: bytes
) -> None:
    """Exit code 2, with the nearest word that there is; nothing is asked of anybody."""
    ended = program("run", *options, "true")

    assert ended.returncode == 2
    assert said in ended.stderr
    assert not program.ledger.exists()


# ---- alternatives --------------------------------------------------------------------------


def test_an_alternative_is_taken_where_the_first_choice_is_not_there(program: Program) -> None:
    """An H200, or two 4090s: the job gets the two, and `explain` says which choice that was."""
    words = ("--gpu", "H200", "--or", "gpu='RTX 4090' count=2", "--or", "gpu=A100")

    ended = program("run", *words, "true", **CARDS)
    shown = program("explain").stdout.decode()

    assert b"renting 2x RTX 4090 (simulated)" in ended.stderr
    assert "wanted: gpu=H200 count=1, or gpu=RTX 4090 count=2, or gpu=A100 count=1" in shown
    assert "   1  2       2x RTX 4090 (simulated)" in shown
    assert "   2  3       A100 80GB (simulated)" in shown
    assert "gpu: wanted H200, offered RTX 4090" in shown


def test_an_alternative_keeps_what_it_does_not_say(program: Program) -> None:
    """All but the cards: whoever limits the price limits it for every choice."""
    options = ("--gpu", "A100", "--vram", "80", "--max-price", "2", "--region", "local")
    others = ("--or", "gpu=4090 max-price=0.5", "--or", "region=DE spot=any port=80 port=443")

    wanted = program.json("offers", "--json", *options, *others, **CARDS)["wanted"]

    assert wanted.split(", or ") == [
        "gpu=A100 count=1 vram=80.. region=local max_price=$2.00",
        "gpu=RTX 4090 count=1 region=local max_price=$0.50",
        "gpu=A100 count=1 vram=80.. region=DE spot=None max_price=$2.00 ports=80, 443",
    ]


# ---- waiting -------------------------------------------------------------------------------


def test_waiting_for_capacity_is_told(program: Program) -> None:
    """The length of the pause comes first, since the reason may be cut off."""
    waiting = program.start("run", "--gpu", "H200", "--wait", "1h", "--", "true", **CARDS)

    told = line_with(waiting.stderr, b"waiting ")
    waiting.terminate()

    assert b" s for capacity: none of 2 offers fits" in told
    assert waiting.wait(PATIENCE) == 128 + signal.SIGTERM


def test_a_pause_before_another_try_is_told(program: Program) -> None:
    """It is for the same offer, not for capacity."""
    rules = ("--retry", "host-broken=here(1), elsewhere(1)")

    ended = program("run", *HOPELESS, *rules, "--gpu", "4090", "true", **CARDS)

    assert b" s to try it again: no running machine within 0.001 s" in ended.stderr
