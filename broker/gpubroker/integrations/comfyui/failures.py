"""Why there is no image."""

from __future__ import annotations

import enum

from gpubroker.errors import BrokerError


class Why(enum.StrEnum):
    """What went wrong, for whoever decides what to do next."""

    REFUSED = "refused"  #: the workflow or an input is wrong; trying it again is in vain
    FAILED = "failed"  #: a node failed
    OUT_OF_MEMORY = "out of memory"  #: the GPU has not enough memory for it
    INTERRUPTED = "interrupted"  #: somebody else ended it on the server
    TIMED_OUT = "timed out"  #: it took longer than was allowed
    LOST = "lost"  #: the server does not know it any more: it was started anew
    UNREACHABLE = "unreachable"  #: the server does not answer
    BAD_ANSWER = "bad answer"  #: what came is not what it should be, or no image at all


class GenerationFailed(BrokerError):
    """A workflow made no image.

    Attributes:
        why: what kind of failure it is.
    """

    def __init__(self, message: str, why: Why) -> None:
        self.why = why
        super().__init__(message)
