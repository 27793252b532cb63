"""Which machines are taken for ours after the loss of a ledger."""

from __future__ import annotations

from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from gpubroker.model.machines import Machine, MachineState
from gpubroker.model.marks import Mark
from gpubroker.policy.strays import strays

KEY: Final = b"k" * 32
OURS: Final = [Mark.make(KEY, "aaaaaaaa", bytes([n]) * 10) for n in range(4)]
FORGED: Final = Mark.make(b"f" * 32, "aaaaaaaa", bytes(10))


def machine(name: str, mark: object, state: MachineState = MachineState.RUNNING) -> Machine:
    return Machine(id=name, provider="acme", mark=None if mark is None else str(mark), state=state)


def doubts(
    *machines: Machine, recorded: tuple[Mark, ...] = (), held: tuple[str, ...] = ()
) -> dict[str, str]:
    found = strays(
        machines, recorded=recorded.__contains__, held=held, verifies=lambda m: m.verifies(KEY)
    )
    return {stray.machine.id: stray.doubt for stray in found}


def test_a_machine_with_our_mark_and_no_row_is_ours() -> None:
    """Whatever ledger it names: that one may be the lost one."""
    assert doubts(machine("m", OURS[0])) == {"m": ""}


def test_a_forged_mark_proves_nothing() -> None:
    """It is listed, with the reason to leave it alone."""
    assert doubts(machine("m", FORGED)) == {"m": "its mark was not made with this key"}


def test_a_copied_mark_proves_nothing_for_any_of_its_machines() -> None:
    """Which of them is ours cannot be told."""
    assert doubts(machine("a", OURS[0]), machine("b", f"copy of {OURS[0]}")) == dict.fromkeys(
        "ab", "2 machines carry its mark"
    )


def test_what_is_known_gone_or_nobodys_is_not_listed() -> None:
    """Machines of leases, copies of their marks, tombstones, and those without a mark."""
    assert (
        doubts(
            machine("held", OURS[0]),
            machine("copy", OURS[1]),
            machine("gone", OURS[2], MachineState.GONE),
            machine("other", None),
            machine("words", "gb1-nonsense"),
            recorded=(OURS[1],),
            held=("held",),
        )
        == {}
    )


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*OURS, FORGED, None]),
            st.sampled_from(MachineState),
            st.booleans(),
        ),
        max_size=8,
    )
)
def test_only_a_mark_that_verifies_and_is_there_once_is_beyond_doubt(
    rows: list[tuple[Mark | None, MachineState, bool]],
) -> None:
    """In any listing; and nothing that the ledger knows is ever proposed."""
    machines = [machine(str(n), mark, state) for n, (mark, state, _) in enumerate(rows)]
    held = tuple(str(n) for n, (_, _, is_held) in enumerate(rows) if is_held)
    living = [mark for mark, state, _ in rows if state is not MachineState.GONE]

    found = doubts(*machines, held=held)

    assert not {*found} & {*held}
    for name, doubt in found.items():
        mark = rows[int(name)][0]
        assert mark is not None
        assert (doubt == "") == (mark in OURS and living.count(mark) == 1)


def test_a_ledger_that_shares_the_key_may_be_in_use() -> None:
    """What another live broker rented is not taken from it without being told to."""
    found = strays(
        [machine("m", OURS[0])],
        recorded=lambda _: False,
        held=(),
        verifies=lambda mark: mark.verifies(KEY),
        in_use="aaaaaaaa".__eq__,
    )

    assert [stray.doubt for stray in found] == [
        "the ledger aaaaaaaa shares this key, and may be in use"
    ]
