"""What a ComfyUI server answers, taken apart. Nothing in it is trusted."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from gpubroker.integrations.comfyui.failures import GenerationFailed, Why
from gpubroker.integrations.comfyui.progress import Progress, Stage
from gpubroker.integrations.comfyui.workflow import Workflow
from gpubroker.transport.said import said

MAX_IMAGES: Final = 64
"""Images of one workflow."""

_MEMORY: Final = re.compile(r"out ?of ?memory|allocation on device", re.IGNORECASE)
_NAME: Final = re.compile(r"[^/\\\x00-\x1f\x7f]{1,200}")
_TYPES: Final = ("output", "temp")


@dataclass(frozen=True, slots=True)
class Made:
    """An image as the server knows it."""

    filename: str
    subfolder: str
    type: str


def uploaded_name(answer: object) -> str:
    """What an uploaded image is called in a workflow.

    Raises:
        GenerationFailed: the server does not say.
    """
    told = _table(answer)
    name, folder = told.get("name"), told.get("subfolder") or ""
    if not isinstance(name, str) or not isinstance(folder, str) or not _is_plain(name, folder):
        raise bad("the server does not say where it has put an image")
    return f"{folder}/{name}" if folder else name


def prompt_id(answer: object) -> str:
    """The id that the server has given to a workflow.

    Raises:
        GenerationFailed: the server does not say.
    """
    told = _table(answer).get("prompt_id")
    if not isinstance(told, str) or not re.fullmatch(r"[A-Za-z0-9-]{1,64}", told):
        raise bad("the server does not say what it calls the workflow")
    return told


def refusal(answer: object, workflow: Workflow) -> GenerationFailed:
    """Why the server does not take a workflow, node by node."""
    told = _table(answer)
    found = [
        f"{workflow.title(node)}: {_words(error)}"
        for node, problems in _table(told.get("node_errors")).items()
        for error in _list(_table(problems).get("errors"))
    ]
    text = "; ".join(found) or _words(told.get("error")) or "it does not say why"
    return GenerationFailed(f"the server refused the workflow: {_plain(text)}", Why.REFUSED)


class Standing(enum.Enum):
    """Where a workflow is, other than in the queue."""

    NOWHERE = enum.auto()


def standing(answer: object, wanted: str) -> Progress | Standing:
    """How far a workflow has come, by the server's queue."""
    told = _table(answer)
    if wanted in _ids(told.get("queue_running")):
        return Progress(Stage.RUNNING)
    waiting = sorted(_turns(told.get("queue_pending")))
    for place, (_, name) in enumerate(waiting):
        if name == wanted:
            return Progress(Stage.QUEUED, place + len(list(_ids(told.get("queue_running")))))
    return Standing.NOWHERE


def ended(answer: object, wanted: str, workflow: Workflow) -> list[Made] | None:
    """The images of a workflow that has ended; ``None`` while it has not.

    Raises:
        GenerationFailed: it failed, or made no image.
    """
    entry = _table(answer).get(wanted)
    if not isinstance(entry, Mapping):
        return None
    told = _table(cast("object", entry))
    status = _table(told.get("status"))
    for message in _list(status.get("messages")):
        _check_message(message, workflow)
    if status.get("status_str") == "error":
        raise GenerationFailed("the workflow failed; the server does not say why", Why.FAILED)
    made = list(_images(told.get("outputs")))
    kept = [image for image in made if image.type == "output"] or made
    if not kept:
        raise bad("the workflow ended without an image: has it a node that saves one?")
    if len(kept) > MAX_IMAGES:
        raise bad(f"the workflow made {len(kept)} images; {MAX_IMAGES} are the most")
    return kept


def _check_message(message: object, workflow: Workflow) -> None:
    parts = _list(message)
    if len(parts) != 2:
        return
    what, told = parts[0], _table(parts[1])
    node = workflow.title(str(told.get("node_id")))
    if what == "execution_interrupted":
        raise GenerationFailed("the workflow was interrupted on the server", Why.INTERRUPTED)
    if what == "execution_error":
        kind, words = str(told.get("exception_type", "")), str(told.get("exception_message", ""))
        if _MEMORY.search(kind) or _MEMORY.search(words):
            text = f"the GPU has not enough memory for {node}"
            raise GenerationFailed(_plain(text), Why.OUT_OF_MEMORY)
        raise GenerationFailed(_plain(f"{node} failed: {words or kind}"), Why.FAILED)


def _images(outputs: object) -> Iterator[Made]:
    for output in _table(outputs).values():
        for one in _list(_table(output).get("images")):
            told = _table(one)
            name, folder, kind = told.get("filename"), told.get("subfolder", ""), told.get("type")
            if not isinstance(name, str) or not isinstance(folder, str) or kind not in _TYPES:
                raise bad("the server does not say where an image is")
            if not _is_plain(name, folder):
                raise bad(f"an image has a name that leads elsewhere: {_plain(name)!r}")
            yield Made(name, folder, cast("str", kind))


def _is_plain(name: str, folder: str) -> bool:
    parts = [name, *(folder.split("/") if folder else ())]
    return all(_NAME.fullmatch(part) and part not in (".", "..") for part in parts)


def _ids(entries: object) -> Iterator[str]:
    yield from (name for _, name in _turns(entries))


def _turns(entries: object) -> Iterator[tuple[float, str]]:
    """The turn and the id of each entry of a queue."""
    for entry in _list(entries):
        parts = _list(entry)
        if len(parts) >= 2 and isinstance(parts[0], int | float) and isinstance(parts[1], str):
            yield float(parts[0]), parts[1]


def _words(error: object) -> str:
    """An error's message and details, as one sentence."""
    if isinstance(error, str):
        return error
    told = _table(error)
    message, details = str(told.get("message", "")), str(told.get("details", ""))
    return f"{message} ({details})" if message and details else message or details


def _plain(text: str) -> str:
    return said(text.encode(errors="replace"))


def _table(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _list(value: object) -> Sequence[Any]:
    return cast("Sequence[Any]", value) if isinstance(value, list | tuple) else ()


def bad(problem: str) -> GenerationFailed:
    """An answer that is not what it should be."""
    return GenerationFailed(problem, Why.BAD_ANSWER)
