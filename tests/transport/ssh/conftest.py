"""Fixtures: real SSH servers on loopback ports, and channels to them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gpubroker.model.machines import Route
from gpubroker.transport.ssh import SshChannel, open_channel
from gpubroker.transport.ssh.lease_key import LeaseKey

from .servers import Server, ServerKind, Wire, children, make_key, missing, serve


@dataclass(frozen=True)
class Site:
    """A server, and the key that it lets in."""

    server: Server
    key: LeaseKey


def site_of(kind: ServerKind, folder: Path, stack: ExitStack, **options: Any) -> Site:
    reason = missing(kind)
    if reason is not None:
        pytest.skip(reason)
    folder.mkdir(parents=True, exist_ok=True)
    public = make_key(folder / "lease_key")
    server = stack.enter_context(serve(kind, folder / "server", public, **options))
    return Site(server, LeaseKey(folder / "lease_key", public))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Generator[Site]:
    """A server, for what does not depend on which; shared by the tests of one module."""
    with ExitStack() as stack:
        yield site_of("asyncssh", tmp_path_factory.mktemp("asyncssh"), stack)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Generator[Site]:
    """The system's own server alone."""
    with ExitStack() as stack:
        yield site_of("sshd", tmp_path_factory.mktemp("sshd"), stack)


@pytest.fixture
def each_site(request: pytest.FixtureRequest, anyio_backend: tuple[str, object]) -> Site:
    """One kind of server on one event loop, the other kind on the other."""
    system = anyio_backend[0] == "asyncio" and missing("sshd") is None
    site: Site = request.getfixturevalue("sshd" if system else "site")
    return site


MakeSite = Callable[..., Site]


@pytest.fixture
def sshd_with(tmp_path: Path) -> Generator[MakeSite]:
    """Starts the system's own server with lines of configuration."""
    with ExitStack() as stack:

        def make(options: str) -> Site:
            return site_of("sshd", tmp_path / "site", stack, options=options)

        yield make


@pytest.fixture
def wire(site: Site) -> Generator[Wire]:
    """A wire to the server, which can be cut."""
    with Wire(site.server.port) as wire:
        yield wire


@pytest.fixture
def each_wire(each_site: Site) -> Generator[Wire]:
    """The same to `each_site`."""
    with Wire(each_site.server.port) as wire:
        yield wire


Connect = Callable[..., AbstractAsyncContextManager[SshChannel]]


@pytest.fixture
def lease_folder(tmp_path: Path) -> Path:
    """What a lease keeps here."""
    folder = tmp_path / "lease"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def connect(lease_folder: Path) -> Connect:
    """Opens a channel to a site: straight and with the right host key unless told otherwise."""

    def connect(
        site: Site,
        *,
        port: int | None = None,
        routes: Sequence[Route] | None = None,
        host_keys: Sequence[str] | None = None,
        folder: Path | None = None,
        **options: float,
    ) -> AbstractAsyncContextManager[SshChannel]:
        straight = Route("127.0.0.1", port or site.server.port)
        return open_channel(
            [straight] if routes is None else routes,
            key=site.key,
            host_keys=[site.server.host_key] if host_keys is None else host_keys,
            folder=folder or lease_folder,
            **options,
        )

    return connect


def masters() -> list[int]:
    """The connections that this process has."""
    return [pid for pid in children(os.getpid()) if "-M" in command_of(pid)]


def command_of(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []


@pytest.fixture(autouse=True)
def sockets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Generator[Path]:
    """Where control sockets are. No test leaves one behind, nor a connection."""
    del tmp_path  # has its place by now, which is not in here
    with tempfile.TemporaryDirectory(prefix="gbt-", dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)
        assert masters() == []
        assert list(Path(folder).iterdir()) == []
