"""Machines that carry a mark but are not in the ledger, as after the loss of one. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from gpubroker.model.machines import Machine, MachineState
from gpubroker.model.marks import Mark


@dataclass(frozen=True, slots=True)
class Stray:
    """A machine with a mark that the ledger does not know.

    Attributes:
        ledger_id: the ledger that its mark names; another one than this where that was lost.
        doubt: why it may be somebody else's; empty if its mark was made with this key.
    """

    machine: Machine
    ledger_id: str
    doubt: str = ""


def strays(
    machines: Iterable[Machine],
    *,
    recorded: Callable[[Mark], bool],
    held: Collection[str],
    verifies: Callable[[Mark], bool],
    in_use: Callable[[str], bool] = lambda _: False,
) -> list[Stray]:
    """The machines of one complete listing that nobody has a row for, by id.

    A mark that several machines carry was copied, by a vendor or by a person: which of them it was
    made for cannot be told, so none of them is taken for ours.

    Args:
        recorded: whether the ledger has a lease, open or closed, with a mark.
        held: ids of the machines of open leases.
        verifies: whether a mark was made with this installation's key.
        in_use: whether a ledger may be in use elsewhere, by its id: others may share the key.
    """
    marked = [
        (machine, mark)
        for machine in sorted(machines, key=lambda machine: machine.id)
        if machine.state is not MachineState.GONE and (mark := Mark.find(machine.mark)) is not None
    ]
    times = Counter(mark for _, mark in marked)
    return [
        Stray(machine, mark.ledger_id, _doubt(mark, times[mark], verifies, in_use))
        for machine, mark in marked
        if machine.id not in held and not recorded(mark)
    ]


def _doubt(
    mark: Mark, times: int, verifies: Callable[[Mark], bool], in_use: Callable[[str], bool]
) -> str:
    if not verifies(mark):
        return "its mark was not made with this key"
    if in_use(mark.ledger_id):
        return f"the ledger {mark.ledger_id} shares this key, and may be in use"
    return f"{times} machines carry its mark" if times > 1 else ""
