"""A server to be started on a machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gpubroker.errors import InvalidValue
from gpubroker.model.jobs import Job
from gpubroker.model.names import is_a, is_text


@dataclass(frozen=True, slots=True, init=False)
class Service:
    """A server to be started on a machine, beside its jobs, and reached through a local address.

    Args:
        command: the words of a command, passed on exactly, or one text that is run as a script by
            ``sh``. It stays in the foreground. With `port` 0, ``{port}`` in it stands for the port.
        port: the TCP port that it listens on, on the machine's loopback address. 0: one is chosen,
            which machines that share this host's network need.
        ready: the path that is asked for over HTTP until it answers, with whatever status below
            500; ``None`` for a server that does not speak HTTP, which only has to accept and keep
            a connection.
        files: files to place in the server's folder, in which it starts. As those of a `Job`.
        env: its environment.
        start_timeout: seconds until it must be ready.
        health: a path that is asked for from then on; ``None`` asks for none.
        health_every: seconds between two such looks. The third one in a row that fails counts.

    Raises:
        InvalidValue: naming the argument and the value.
    """

    argv: tuple[str, ...]
    port: int
    ready: str | None = "/"
    files: Mapping[str, Path | bytes] = field(default_factory=dict[str, "Path | bytes"])
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    start_timeout: float = 600.0
    health: str | None = None
    health_every: float = 15.0

    def __init__(
        self,
        command: str | Sequence[str],
        port: int,
        *,
        ready: str | None = "/",
        files: Mapping[str, str | Path | bytes] | Iterable[str | Path] = (),
        env: Mapping[str, str] | None = None,
        start_timeout: float = 600.0,
        health: str | None = None,
        health_every: float = 15.0,
    ) -> None:
        job = Job(command, files=files, env=env)
        if not is_a(port, int) or not 0 <= port < 65536:
            raise InvalidValue("port", port, "a TCP port is between 1 and 65535, or 0 for any")
        for name, path in (("ready", ready), ("health", health)):
            if path is not None and not (is_text(path) and path.startswith("/")):
                raise InvalidValue(name, path, "must be a path that begins with /")
        for name, seconds in (("start_timeout", start_timeout), ("health_every", health_every)):
            if not is_a(seconds, int, float) or not 0 < seconds < float("inf"):
                raise InvalidValue(name, seconds, "must be a positive number of seconds")
        put = object.__setattr__
        put(self, "argv", job.argv)
        put(self, "port", port)
        put(self, "ready", ready)
        put(self, "files", job.files)
        put(self, "env", job.env)
        put(self, "start_timeout", start_timeout)
        put(self, "health", health)
        put(self, "health_every", health_every)

    def job(self, port: int) -> Job:
        """The server as a job, which is to listen on `port`."""
        argv = self.argv
        if self.port == 0:
            argv = tuple(word.replace("{port}", str(port)) for word in argv)
        return Job(argv, files=self.files, env=self.env, output_limit=OUTPUT_LIMIT)


OUTPUT_LIMIT = 256 * 1024 * 1024
"""Bytes of a server's output, of each stream, that are kept on the machine and brought here."""
