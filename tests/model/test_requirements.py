from __future__ import annotations

import contextlib
import math
import typing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpubroker.errors import InvalidValue
from gpubroker.model.money import Money
from gpubroker.model.ranges import Range
from gpubroker.model.requirements import Requirements, Setup, TrustTier, alternatives


class TestReading:
    def test_nothing_asked_is_no_constraint(self) -> None:
        """Without arguments every offer of a verified, uninterruptible machine fits."""
        wanted = Requirements()

        assert not wanted.needs_gpu
        assert wanted.gpu == ()
        assert (wanted.count, wanted.vram, wanted.max_price) == (None, None, None)
        assert (wanted.trust, wanted.spot) == (TrustTier.VERIFIED, False)

    def test_gpu_names_are_made_canonical(self) -> None:
        """One name or several, in any spelling."""
        assert Requirements(gpu="4090").gpu == ("RTX 4090",)
        assert Requirements(gpu=["a100-80gb", "h100"]).gpu == ("A100 80GB", "H100")

    @pytest.mark.parametrize("asked", [{"gpu": "A100"}, {"vram": 24}, {"cuda": 12.4}])
    def test_asking_for_a_gpu_in_any_way_asks_for_one(self, asked: dict[str, Any]) -> None:
        """One GPU is wanted when anything is said about GPUs."""
        assert Requirements(**asked).count == Range(1, 1)

    def test_a_single_number_means_at_least_for_amounts_and_exactly_for_count(self) -> None:
        """``vram=24`` accepts 80 GB, ``count=2`` does not accept 4."""
        wanted = Requirements(count=2, vram="24GB", ram=64, reliability=0.99)

        assert wanted.count == Range(2, 2)
        assert wanted.vram == Range(24, None)
        assert wanted.ram == Range(64, None)
        assert wanted.reliability == Range(0.99, None)

    def test_a_table_of_a_settings_file_gives_the_same_requirements(self) -> None:
        """`from_mapping` reads what keyword arguments would say."""
        table = {"gpu": "H100", "max_price": "2.50", "spot": True, "ports": [22]}

        assert Requirements.from_mapping(table) == Requirements(
            gpu="H100", max_price=2.5, spot=True, ports=[22]
        )

    def test_what_one_set_up_script_means(self) -> None:
        """A text is a script, a list is the words of a command."""
        assert Requirements(setup="pip install x").setup == Setup(("sh", "-c", "pip install x"))
        assert Requirements(setup=["make", "it"]).setup == Setup(("make", "it"))

    @pytest.mark.parametrize(
        ("disk", "gigabytes"), [(None, 10), (40, 40), ("..50", 10), ("..5", 5), ("20..30", 20)]
    )
    def test_the_disk_to_rent_lies_inside_what_is_wanted(
        self, disk: str | float | None, gigabytes: float
    ) -> None:
        """The low end, else 10 GB, but never more than the high end."""
        assert Requirements(disk=disk).disk_gb == gigabytes

    def test_fields_and_arguments_are_the_same(self) -> None:
        """Every field can be given, and the defaults of both agree."""
        import inspect

        parameters = inspect.signature(Requirements).parameters

        assert list(parameters) == [
            field.name for field in Requirements.__dataclass_fields__.values()
        ]
        assert all(
            getattr(Requirements(), name) in (parameter.default, {})
            for name, parameter in parameters.items()
        )
        assert Requirements.__dataclass_fields__["spot"].default is parameters["spot"].default
        assert typing.get_type_hints(Requirements).keys() == parameters.keys()

    def test_requirements_do_not_change_with_what_they_were_made_from(self) -> None:
        """Later changes to the caller's objects are not seen."""
        env = {"A": "1"}
        wanted = Requirements(env=env)

        env["A"] = "2"

        assert wanted.env == {"A": "1"}


class TestRefusing:
    @pytest.mark.parametrize(
        ("field", "value", "problem"),
        [
            ("gpu", "RTX 4909", "unknown GPU; did you mean 'RTX 4090'"),
            ("gpu", "", "non-empty name"),
            ("gpu", 4090, "name or a list of names"),
            ("gpu", [4090], "non-empty name"),
            ("count", 0, "at least 1"),
            ("count", -2, "at least 1"),
            ("count", 1.5, "whole number"),
            ("count", True, "must be a number"),
            ("vram", math.nan, "finite"),
            ("vram", "80..24", "impossible range"),
            ("vram", "lots", "not a number or a range"),
            ("ram", -1, "at least 0"),
            ("disk", math.inf, "finite"),
            ("cuda", "twelve", "not a number or a range"),
            ("cpus", "4GB", "not a number or a range"),
            ("reliability", 99, "between 0 and 1"),
            ("reliability", "0.5..99", "between 0 and 1"),
            ("trust", "verifed", "unknown tier; did you mean 'verified'"),
            ("trust", ["own"], "unknown tier"),
            ("max_price", -0.5, "not be negative"),
            ("max_price", math.nan, "amount of US dollars"),
            ("max_price", "cheap", "amount of US dollars"),
            ("spot", "no", "true, false or nothing"),
            ("region", " ", "non-empty name"),
            ("region", 7, "name or a list of names"),
            ("providers", [None], "non-empty name"),
            ("image", "", "non-empty name"),
            ("image", 5, "non-empty name"),
            ("ports", [0], "between 1 and 65535"),
            ("ports", [22, 65536], "between 1 and 65535"),
            ("ports", ["22"], "between 1 and 65535"),
            ("ports", [True], "between 1 and 65535"),
            ("ports", "22", "list of TCP ports"),
            ("ports", 22, "list of TCP ports"),
            ("env", {"1A": "x"}, "not a name for an environment variable"),
            ("env", {"A\n": "x"}, "not a name for an environment variable"),
            ("env", {"GPUBROKER_MARK": "x"}, "reserved"),
            ("env", ["A=1"], "names and values"),
            ("setup", [], "non-empty list of words"),
            ("setup", "  ", "non-empty list of words"),
            ("setup", ["make", "a\0b"], "non-empty list of words"),
            ("setup", 5, "non-empty list of words"),
        ],
    )
    def test_a_senseless_value_gives_one_error_that_names_it(
        self, field: str, value: Any, problem: str
    ) -> None:
        """The error names the argument, what was given and what is wrong with it."""
        with pytest.raises(InvalidValue, match=problem) as caught:
            Requirements(**{field: value})

        assert caught.value.field == field
        assert repr(caught.value.value) in repr(value) or field in ("env", "setup")

    def test_an_unknown_key_is_refused_with_the_nearest_one(self) -> None:
        """A misspelt key of a settings file is not passed over."""
        with pytest.raises(InvalidValue, match="did you mean 'max_price'") as caught:
            Requirements.from_mapping({"gpu": "A100", "max_prize": 1})

        assert caught.value.value == "max_prize"
        assert caught.value.suggestion == "max_price"

    def test_the_value_of_an_environment_variable_is_not_shown(self) -> None:
        """It may be a secret, so the error says the name alone."""
        with pytest.raises(InvalidValue) as caught:
            Requirements(env={"TOKEN": "hunter2\0"})

        assert caught.value.field == "env[TOKEN]"
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf])
    def test_set_up_must_end(self, seconds: float) -> None:
        """The time that a set-up may take is a positive number of seconds."""
        with pytest.raises(InvalidValue, match="setup timeout"):
            Setup(("true",), timeout=seconds)

    @settings(deadline=None)
    @given(
        st.sampled_from(sorted(Requirements.__dataclass_fields__)),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text()
        | st.lists(st.text() | st.integers())
        | st.dictionaries(st.text(), st.text() | st.integers()),
    )
    def test_no_value_at_all_gives_another_error(self, field: str, value: Any) -> None:
        """Whatever a settings file holds, it is understood or refused with `InvalidValue`."""
        with contextlib.suppress(InvalidValue):
            Requirements.from_mapping({field: value})


class TestTrustTier:
    def test_each_tier_includes_those_above_it(self) -> None:
        """Who accepts strangers accepts data centres and their own machines too."""
        for low, tier in enumerate(TrustTier):
            for high, other in enumerate(TrustTier):
                assert tier.includes(other) == (high <= low)


def test_the_price_limit_is_exact() -> None:
    """A float price limit is taken at its decimal spelling."""
    assert Requirements(max_price=0.1).max_price == Money("0.10")


class TestAlternatives:
    def test_one_several_or_nothing_is_a_sequence(self) -> None:
        """In the order given; nothing at all is any machine."""
        one, other = Requirements(gpu="A100"), Requirements(gpu="4090", count=2)

        assert alternatives(None) == (Requirements(),)
        assert alternatives(one) == (one,)
        assert alternatives([one, other]) == (one, other)
        assert alternatives((other, one)) == (other, one)

    @pytest.mark.parametrize("wanted", [[], (), "A100", [Requirements(), "A100"], [None]])
    def test_anything_else_is_refused(self, wanted: Any) -> None:
        """A list of nothing would rent nothing, and text is no requirements."""
        with pytest.raises(InvalidValue, match="must be one or more Requirements"):
            alternatives(wanted)
