"""What a decision record says, in words that a test can compare."""

from __future__ import annotations

from gpubroker.model.decisions import Attempt, AttemptState, DecisionRecord


def tried(record: DecisionRecord) -> list[str]:
    """Each attempt in order, such as ``["vendor-a: capacity", "vendor-b: won"]``.

    A failed one says of what kind its failure was, any other how it ended.
    """
    return [f"{attempt.provider}: {_ending(attempt)}" for attempt in record.attempts]


def ruled_out(record: DecisionRecord) -> dict[str, str]:
    """By offer, why it was not even tried: the first requirement that it does not meet."""
    return {
        verdict.offer.id: str(verdict.rejection.constraint)
        for verdict in record.verdicts
        if verdict.rejection is not None
    }


def _ending(attempt: Attempt) -> str:
    failed = attempt.state is AttemptState.FAILED and attempt.kind is not None
    return str(attempt.kind if failed else attempt.state)
