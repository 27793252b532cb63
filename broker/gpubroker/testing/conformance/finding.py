"""Subjects that installed plugins declare, by the name of their provider."""

from __future__ import annotations

from importlib import metadata
from typing import Final, cast

from gpubroker.errors import BrokerError
from gpubroker.testing.conformance.subject import SubjectMaker

#: What the extra ``sandbox`` installs, as it is imported.
_SANDBOX: Final = ("asyncssh", "starlette", "uvicorn")
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
    except Exception as error:
        origin = point.dist.name if point.dist is not None else "its plugin"
        missing = isinstance(error, ImportError) and (error.name or "").partition(".")[0]
        hint = ": pip install 'gpubroker[sandbox]'" if missing in _SANDBOX else ""
        raise BrokerError(
            f"the subject of {name}, {point.value} from {origin}, cannot be imported "
            f"({type(error).__name__}: {error}){hint}"
        ) from error
