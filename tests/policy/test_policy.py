from __future__ import annotations

import contextlib
import math
import pickle
import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpubroker.errors import ErrorKind, InvalidValue
from gpubroker.policy.estimate import Work
from gpubroker.policy.policy import Policy, parse_rule
from gpubroker.policy.ranking import cheapest, prefer
from gpubroker.policy.retry import Retry, Rule, elsewhere, here, stop

TOML = """
rank = "prefer(local), cheapest_to_finish"
acquire_timeout = "1h30m"
attempt_timeout = 300
quote_timeout = "5s"
wait = "2h"
max_attempts = 7

[retry]
capacity = "here(3), elsewhere(90)"
"rate limit" = "here(2)"
host_broken = "elsewhere(2h)"
create-unknown = "stop"

[work]
seconds = "10m"
sends = 2.5
speed = { A100 = 2.0 }
"""


class TestWords:
    def test_a_settings_file_says_the_same_as_code(self) -> None:
        """The same words, the same policy."""
        policy = Policy.from_mapping(tomllib.loads(TOML))

        assert policy.rank.name == "prefer(local), cheapest_to_finish"
        assert policy.retry == Retry(
            {
                ErrorKind.CAPACITY: here(3) | elsewhere(cooldown=90.0),
                ErrorKind.RATE_LIMIT: here(2),
                ErrorKind.HOST_BROKEN: elsewhere(cooldown=7200.0),
                ErrorKind.CREATE_UNKNOWN: stop(),
            },
            max_attempts=7,
        )
        assert (policy.acquire_timeout, policy.attempt_timeout) == (5400.0, 300.0)
        assert (policy.quote_timeout, policy.wait) == (5.0, 7200.0)
        assert policy.work == Work(600.0, sends=2.5, speed={"A100": 2.0})

    def test_nothing_said_is_the_default(self) -> None:
        """An empty table and no argument at all mean the same."""
        assert Policy.from_mapping({}) == Policy()
        assert Policy().rank.name == "cheapest"
        assert Policy().retry == Retry()

    def test_no_wait_may_be_said(self) -> None:
        """Nothing is the default of ``wait``, and may be written down; of a deadline it is not."""
        assert Policy.from_mapping({"wait": 0}).wait == 0
        assert Policy.from_mapping({"wait": "0s"}).wait == 0
        with pytest.raises(InvalidValue, match="more than no time"):
            Policy.from_mapping({"acquire_timeout": 0})

    @pytest.mark.parametrize(
        ("table", "problem"),
        [
            ({"rnak": "cheapest"}, "unknown word; did you mean 'rank'"),
            ({"max_attemps": 3}, "did you mean 'max_attempts'"),
            ({"acquire_timout": 3}, "did you mean 'acquire_timeout'"),
            ({"rank": "cheepest"}, "did you mean 'cheapest'"),
            ({"rank": 3}, "must be a ranking"),
            ({"retry": {"capacty": "stop"}}, "unknown kind; did you mean 'capacity'"),
            ({"retry": {"host-brokn": "stop"}}, "did you mean 'host broken'"),
            ({"retry": {"capacity": "her(3)"}}, "not a rule"),
            ({"retry": {"capacity": 3}}, "must be words"),
            ({"retry": {"create unknown": "here(1)"}}, "never repeated"),
            ({"retry": "stop"}, "must be a table"),
            ({"work": {"second": 5}}, "did you mean 'seconds'"),
            ({"work": 5}, "must be a table"),
            ({"work": {"seconds": "soon"}}, "must be seconds, or a time"),
            ({"work": {"speed": {"RTX 4909": 1}}}, "did you mean 'RTX 4090'"),
            ({"wait": "soon"}, "must be seconds, or a time"),
            ({"wait": -1}, "must not be negative"),
            ({"wait": True}, "must be seconds, or a time"),
            ({"max_attempts": "many"}, "must be a whole number"),
            ({"max_attempts": 1.5}, "must be a whole number"),
            ({"max_attempts": True}, "must be a whole number"),
            ({"max_attempts": 0}, "at least 1"),
        ],
    )
    def test_a_senseless_word_is_refused_with_the_nearest(
        self, table: dict[str, Any], problem: str
    ) -> None:
        """A misspelt word of a settings file is not passed over."""
        with pytest.raises(InvalidValue, match=problem):
            Policy.from_mapping(table)

    @settings(deadline=None)
    @given(
        st.sampled_from(
            ["rank", "retry", "work", "wait", "acquire_timeout", "quote_timeout", "max_attempts"]
        ),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text()
        | st.lists(st.text() | st.integers())
        | st.dictionaries(
            st.sampled_from(["capacity", "seconds", "sends", "speed"]) | st.text(),
            st.text() | st.integers() | st.floats() | st.none(),
        ),
    )
    def test_no_value_at_all_gives_another_error(self, word: str, value: Any) -> None:
        """Whatever a settings file holds, it is understood or refused with `InvalidValue`."""
        with contextlib.suppress(InvalidValue):
            Policy.from_mapping({word: value})


class TestRules:
    @pytest.mark.parametrize(
        ("words", "rule"),
        [
            ("stop", stop()),
            ("stop(0)", stop(cooldown=0.0)),
            ("elsewhere", elsewhere()),
            ("elsewhere(90)", elsewhere(cooldown=90.0)),
            ("elsewhere(1h30m)", elsewhere(cooldown=5400.0)),
            ("here", here(1)),
            ("here(3)", here(3)),
            ("here(3), elsewhere(60)", here(3) | elsewhere(cooldown=60.0)),
            (" here(2) ,stop ", here(2) | stop()),
        ],
    )
    def test_words_say_what_code_says(self, words: str, rule: Rule) -> None:
        """``here`` takes how often, the others take how long."""
        assert parse_rule(words) == rule

    @pytest.mark.parametrize(
        "words",
        [
            "",
            "never",
            "here(x)",
            "here(0)",
            "here(-1)",
            "here(1.5)",
            "elsewhere(soon)",
            "stop(-1)",
            "stop, elsewhere",
            "elsewhere, here(3)",
            "here(1), here(2), stop",
            "here(3) elsewhere",
            "here(3), ",
        ],
    )
    def test_other_words_are_refused(self, words: str) -> None:
        """One error that names the rule."""
        with pytest.raises(InvalidValue):
            parse_rule(words)

    @given(st.text() | st.text("here(3), elsewhere(60) stop"))
    def test_any_text_is_a_rule_or_refused(self, words: str) -> None:
        """Nothing but `InvalidValue` comes out of senseless text."""
        with contextlib.suppress(InvalidValue):
            parse_rule(words)


class TestFromCode:
    def test_a_function_or_words_are_a_ranking(self) -> None:
        """Whatever is handier."""
        assert Policy(rank="fastest").rank.name == "fastest"
        assert Policy(rank=lambda offer: offer.count).rank.name == "<lambda>"
        assert Policy(rank=prefer("own")).rank.name == "prefer(own)"
        assert Policy(rank=cheapest()).retry == Retry()

    def test_the_same_words_give_the_same_policy_in_every_process(self) -> None:
        """Equal policies are equal, and stay so when they are handed on."""
        policy = Policy.from_mapping(tomllib.loads(TOML))

        assert policy == Policy.from_mapping(tomllib.loads(TOML))
        assert policy != Policy()
        assert pickle.loads(pickle.dumps(policy)) == policy

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            (name, value)
            for name in ("acquire_timeout", "attempt_timeout", "quote_timeout", "wait")
            for value in (-1.0, math.nan, math.inf)
        ]
        + [("acquire_timeout", 0.0), ("attempt_timeout", 0.0), ("quote_timeout", 0.0)],
    )
    def test_nothing_waits_without_a_deadline(self, field: str, value: float) -> None:
        """Every time ends: endless and negative ones are refused, by name."""
        times: dict[str, Any] = {field: value}
        with pytest.raises(InvalidValue) as caught:
            Policy(**times)

        assert caught.value.field == field
