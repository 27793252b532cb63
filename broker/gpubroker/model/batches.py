"""Many jobs from one template: an item for each input, known again by what it does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpubroker.errors import InvalidValue
from gpubroker.model.jobs import Job

Template = Callable[[Any], "Job | str | Sequence[str]"] | Job | str | Sequence[str]
"""What makes a job of an input: a function of it, or a job, script or words in which ``{}`` stands
for the input as text and ``{n}`` for its number, counted from 0; in a job's `outputs` and
`output_dir` too."""


@dataclass(frozen=True, slots=True)
class Item:
    """One job of a batch.

    Attributes:
        index: the number of its input, counted from 0.
        key: names what it does; the same job at the same place has the same.
    """

    index: int
    key: str
    job: Job


def items(template: Template, inputs: Iterable[Any]) -> list[Item]:
    """An item for each input.

    Raises:
        InvalidValue: one of them is no job.
    """
    return [_item(index, _job(template, index, given)) for index, given in enumerate(inputs)]


def _item(index: int, job: Job) -> Item:
    what = [
        list(job.argv),
        sorted((name, _content(source)) for name, source in job.files.items()),
        list(job.outputs),
        str(job.output_dir.absolute()),
        sorted(job.env.items()),
        sorted(
            job.secrets
        ),  # their names: nothing that can be told from a hash is kept of a secret
    ]
    digest = hashlib.sha256(json.dumps(what).encode(errors="surrogatepass")).hexdigest()
    return Item(index, f"{index}:{digest[:32]}", job)


def _content(source: Path | bytes) -> str:
    """Names what is placed: bytes by their digest, a file by its path, size and time of change."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    try:
        found = source.stat()
    except OSError:
        return str(source)
    return f"{source}:{found.st_size}:{found.st_mtime_ns}"


def _job(template: Template, index: int, given: Any) -> Job:
    if callable(template):
        return Job.of(template(given))
    job = Job.of(template)

    def filled(text: str) -> str:
        return text.replace("{n}", str(index)).replace("{}", str(given))

    whole = [*job.argv, *job.outputs, str(job.output_dir)]
    if not any("{}" in text or "{n}" in text for text in whole):
        raise InvalidValue("template", job.title, "has neither {} nor {n} in it")
    return Job(
        [filled(word) for word in job.argv],
        files=job.files,
        outputs=[filled(name) for name in job.outputs],
        output_dir=filled(str(job.output_dir)),
        env=job.env,
        secrets=job.secrets,
        timeout=job.timeout,
        retries=job.retries,
        output_limit=job.output_limit,
        tags=job.tags,
    )
