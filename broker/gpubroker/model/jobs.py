"""Work to run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal, cast

from gpubroker.errors import InvalidValue
from gpubroker.model.names import env_names, is_a, is_text, text_names

Purpose = Literal["job", "setup", "probe", "service"]
"""A job of the caller's, set-up of the machine, a look at what was delivered, or a server."""


@dataclass(frozen=True, slots=True, init=False)
class Job:
    """Work to run on a machine: a command or a script, files in, files out.

    Args:
        command: the words of a command, passed on exactly, or one text that is run as a script
            by ``sh``.
        files: files to place in the job's folder before it starts: name there -> path here, or
            the bytes themselves. A list of paths places each under its own name. A folder is
            placed with everything in it.
        outputs: files to bring back: names or patterns (``*.png``, ``**/*.log``) inside the
            job's folder. A pattern that matches nothing counts as missing.
        output_dir: folder here that the outputs are put into, under the same relative names.
        env: environment of the job. Like its words it may travel with the order for a machine, where
            the provider sees it.
        secrets: environment whose values never appear in the ledger, in errors or in logs.
        timeout: seconds the job may run before it is ended; ``None`` leaves the lease's lifetime
            as the only limit.
        retries: how often it may be started again on another machine after its machine was lost.
        output_limit: bytes of standard output, and of standard error, that are kept and
            streamed; what comes after is counted and dropped.
        tags: names to find it and its cost by.

    Raises:
        InvalidValue: naming the argument and the value.
    """

    argv: tuple[str, ...]
    files: Mapping[str, Path | bytes] = field(default_factory=dict[str, "Path | bytes"])
    outputs: tuple[str, ...] = ()
    output_dir: Path = Path()
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    secrets: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    timeout: float | None = None
    retries: int = 0
    output_limit: int = 64 * 1024 * 1024
    tags: tuple[str, ...] = ()

    def __init__(
        self,
        command: str | Sequence[str],
        *,
        files: Mapping[str, str | Path | bytes] | Iterable[str | Path] = (),
        outputs: str | Iterable[str] = (),
        output_dir: str | Path = ".",
        env: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        timeout: float | None = None,
        retries: int = 0,
        output_limit: int = 64 * 1024 * 1024,
        tags: str | Iterable[str] = (),
    ) -> None:
        if not is_a(command, str, Sequence):
            raise InvalidValue("command", command, "must be a script or a list of words")
        argv = ("sh", "-c", command) if isinstance(command, str) else tuple(command)
        if not argv or not argv[0] or (isinstance(command, str) and not command.strip()):
            raise InvalidValue("command", command, "there is nothing to run")
        for word in argv:
            if not is_text(word):
                raise InvalidValue("command", word, "every word must be text without NUL")
        if timeout is not None and not (is_a(timeout, int, float) and 0 < timeout < float("inf")):
            raise InvalidValue("timeout", timeout, "must be a positive number of seconds")
        for name, limit in (("retries", retries), ("output_limit", output_limit)):
            if not is_a(limit, int) or limit < 0:
                raise InvalidValue(name, limit, "must be a whole number, 0 or more")
        put = object.__setattr__
        put(self, "argv", argv)
        put(self, "files", _files_in(files))
        put(
            self,
            "outputs",
            tuple(_inside("outputs", name) for name in text_names("outputs", outputs)),
        )
        put(self, "output_dir", Path(output_dir))
        put(self, "env", {} if env is None else env_names("env", env))
        put(self, "secrets", {} if secrets is None else env_names("secrets", secrets))
        put(self, "timeout", timeout)
        put(self, "retries", retries)
        put(self, "output_limit", output_limit)
        put(self, "tags", text_names("tags", tags))

    @classmethod
    def of(cls, job: Job | str | Sequence[str]) -> Job:
        """A job as it is, or one made from a command or script."""
        return job if isinstance(job, Job) else cls(job)

    @property
    def title(self) -> str:
        """The command on one short line, for people."""
        words = self.argv[2:] if self.argv[:2] == ("sh", "-c") else self.argv
        line = " ".join(" ".join(words).split())
        return line if len(line) <= 60 else line[:59] + "…"


def _files_in(
    files: Mapping[str, str | Path | bytes] | Iterable[str | Path],
) -> dict[str, Path | bytes]:
    if not is_a(files, Iterable) or is_a(files, str, bytes):
        raise InvalidValue("files", files, "must be a list of paths or a mapping of names")
    pairs = (
        cast("Mapping[str, str | Path | bytes]", files).items()
        if isinstance(files, Mapping)
        else [(_own_name(path), path) for path in files]
    )
    placed: dict[str, Path | bytes] = {}
    for name, source in pairs:
        inside = _inside("files", name)
        if inside in placed:
            raise InvalidValue("files", inside, "two files would have this name")
        if not is_a(source, str, Path, bytes):
            raise InvalidValue("files", source, "must be a path or bytes")
        placed[inside] = source if isinstance(source, bytes) else Path(source)
    return placed


def _own_name(path: str | Path) -> str:
    if not is_a(path, str, Path):
        raise InvalidValue("files", path, "must be a path")
    return Path(path).name


def _inside(field_name: str, name: str) -> str:
    """A relative POSIX name that cannot leave the job's folder."""
    path = PurePosixPath(name if is_text(name) else "")
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise InvalidValue(field_name, name, "must be a name inside the job's folder")
    return str(path)
