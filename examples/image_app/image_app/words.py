"""What a visitor is told when there is no picture. Details are for the log."""

from __future__ import annotations

from gpubroker import (
    AcquireError,
    BrokerClosed,
    BudgetExceeded,
    InvalidValue,
    LedgerError,
    PoolFull,
    PoolTimeout,
    ServiceFailed,
    SetupFailed,
)
from gpubroker.integrations.comfyui import GenerationFailed, Why

_WHY = {
    Why.REFUSED: "ComfyUI does not accept this preset. Its models may be missing.",
    Why.FAILED: "ComfyUI failed at this picture.",
    Why.OUT_OF_MEMORY: "The GPU has not enough memory for this picture.",
    Why.INTERRUPTED: "The picture was interrupted.",
    Why.TIMED_OUT: "The picture took too long, and was given up.",
    Why.BAD_ANSWER: "What came back was no picture.",
    Why.LOST: "The machine was lost. Please try again.",
    Why.UNREACHABLE: "The machine was lost. Please try again.",
}


def in_words(error: Exception) -> str:
    """One sentence or two, without anything that a machine has said."""
    match error:
        case InvalidValue():
            return f"{error.field}: {error.problem}."
        case GenerationFailed():
            return _WHY[error.why]
        case BudgetExceeded():
            return "The budget is reached. No machine is rented until there is money again."
        case PoolFull():
            return "Too many people are waiting already. Please come back in a few minutes."
        case PoolTimeout() | AcquireError():
            return "There is no machine to be had at the moment. Please try again later."
        case SetupFailed() | ServiceFailed():
            return "A machine was rented, but ComfyUI did not start on it."
        case BrokerClosed():
            return "The app is being restarted. Please try again in a minute."
        case LedgerError():
            return "The record of what is spent cannot be reached, so that nothing is rented."
        case _:
            return "Something went wrong. It is in the app's log."
