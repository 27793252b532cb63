"""Subjects that installed plugins declare, by the name of their provider."""

from __future__ import annotations

from importlib import metadata
from typing import Final, cast

from gpubroker.errors import BrokerError
from gpubroker.testing.conformance.subject import SubjectMaker

ENTRY_POINTS: Final = "gpubroker.conformance"


def subject_names() -> tuple[str, ...]:
    """The providers that declare a subject."""
    return tuple(sorted({point.name for point in metadata.entry_points(group=ENTRY_POINTS)}))


def declared_subject(name: str) -> SubjectMaker | None:
    """What makes the subject of a provider; ``None`` where its plugin declares none.

    Raises:
        BrokerError: what is declared cannot be imported.
    """
    points = metadata.entry_points(group=ENTRY_POINTS, name=name)
    if not points:
        return None
    point = next(iter(points))
    try:
        return cast("SubjectMaker", point.load())
    except (ImportError, AttributeError) as error:
        hint = ": pip install 'gpubroker[sandbox]'" if isinstance(error, ImportError) else ""
        raise BrokerError(
            f"the subject {point.value} cannot be imported ({error}){hint}"
        ) from error
