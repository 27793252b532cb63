from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.model.marks import Mark, ledger_id

KEY = b"k" * 32
LEDGER = "aaaaaaaa"

keys = st.binary(min_size=32, max_size=64)
entropy = st.binary(min_size=10, max_size=10)
ledgers = st.binary(min_size=5, max_size=5).map(ledger_id)
marks = st.builds(Mark.make, keys, ledgers, entropy)
#: What people and vendors put around a mark: it ends in no letter and no digit.
around = st.text(max_size=20).map(lambda text: re.sub(r"[a-zA-Z0-9]+$", "", text))


class TestRoundTrip:
    @given(keys, ledgers, entropy)
    def test_what_was_made_is_found_and_verifies(
        self, key: bytes, ledger: str, random: bytes
    ) -> None:
        """A mark survives being written down, with everything that is in it."""
        made = Mark.make(key, ledger, random)

        assert Mark.find(str(made)) == made
        assert made.verifies(key)
        assert made.ledger_id == ledger

    @given(marks)
    def test_it_fits_every_vendors_label(self, mark: Mark) -> None:
        """38 characters of lower-case letters, digits and hyphens."""
        assert re.fullmatch(r"gb1-[a-z2-7-]{34}", str(mark))
        assert len(str(mark)) == 38

    @given(st.lists(entropy, min_size=2, max_size=2, unique=True))
    def test_each_attempt_has_a_mark_of_its_own(self, random: list[bytes]) -> None:
        """All of the randomness is in the mark."""
        assert Mark.make(KEY, LEDGER, random[0]) != Mark.make(KEY, LEDGER, random[1])


class TestFinding:
    @given(around, marks, around.map(lambda text: text[::-1]))
    def test_it_is_found_inside_other_text(self, before: str, mark: Mark, after: str) -> None:
        """A vendor may put its own words around a label."""
        assert Mark.find(f"{before}{mark}{after}") == mark

    @pytest.mark.parametrize("text", ["my {}", "pod_{}", "{}_1", "({})", "a-{}-b", "job: {}\n"])
    def test_what_people_put_around_it(self, text: str) -> None:
        """Blanks, underscores, brackets and hyphens."""
        mark = Mark.make(KEY, LEDGER, bytes(10))

        assert Mark.find(text.format(mark)) == mark

    @pytest.mark.parametrize(
        "text",
        [
            None,
            "",
            "gb1-",
            "training run 7",
            "gb1-aaaaaaaa-bbbbbbbbbbbbbbbb",
            "gb2-aaaaaaaa-bbbbbbbbbbbbbbbb-cccccccc",
            "gb1-AAAAAAAA-bbbbbbbbbbbbbbbb-cccccccc",
            "gb1-aaaaaaa1-bbbbbbbbbbbbbbbb-cccccccc",
            "gb1-aaaaaaaa-bbbbbbbbbbbbbbbb-ccccccccc",
            "xgb1-aaaaaaaa-bbbbbbbbbbbbbbbb-cccccccc",
            "9gb1-aaaaaaaa-bbbbbbbbbbbbbbbb-cccccccc",
        ],
    )
    def test_what_is_no_mark_is_not_found(self, text: str | None) -> None:
        """Neither a part of one nor one with more at its ends."""
        assert Mark.find(text) is None

    @given(st.text() | st.text("gb1-2a7 "))
    def test_any_text_can_be_looked_at(self, text: str) -> None:
        """Labels are written by strangers."""
        found = Mark.find(text)

        assert found is None or str(found) in text


class TestForgery:
    @given(keys, ledgers, entropy)
    def test_a_mark_made_with_another_key_does_not_verify(
        self, key: bytes, ledger: str, random: bytes
    ) -> None:
        """Whoever has no key cannot make one."""
        assert not Mark.make(key, ledger, random).verifies(b"!" + key)

    @given(entropy, st.integers(0, 37), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
    def test_a_mark_with_one_letter_changed_does_not_verify(
        self, random: bytes, position: int, letter: str
    ) -> None:
        """Each part of it is under the MAC."""
        mark = Mark.make(KEY, LEDGER, random)
        text = str(mark)
        changed = Mark.find(text[:position] + letter + text[position + 1 :])

        if changed is not None and changed != mark:
            assert not changed.verifies(KEY)

    @given(entropy)
    def test_a_mark_moved_to_another_ledger_does_not_verify(self, random: bytes) -> None:
        """Even under the same key, which hosts may share."""
        mark = Mark.make(KEY, LEDGER, random)

        assert not Mark("bbbbbbbb", mark.token, mark.mac).verifies(KEY)


@given(st.binary(min_size=5, max_size=5))
def test_a_ledger_has_a_short_id(random: bytes) -> None:
    """Eight characters that fit a mark."""
    assert re.fullmatch("[a-z2-7]{8}", ledger_id(random))
