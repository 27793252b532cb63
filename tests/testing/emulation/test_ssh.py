"""The emulator's own SSH server."""

from __future__ import annotations

import asyncio
import gc
import socket
from asyncio.base_events import Server
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("asyncssh", reason="the extra sandbox is not installed")

from gpubroker.testing.emulation.ssh import BuiltInSsh, SshSpec, fresh_key


def test_leaves_nothing_open_when_its_start_is_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled in the moment in which it begins to listen, it does not listen on."""
    spec = SshSpec(
        folder=tmp_path, home=tmp_path, environment={}, authorized_keys=tmp_path / "keys"
    )
    begin: Any = getattr(Server, "_start_serving")  # noqa: B009 - private, and the moment in question
    ports: list[int] = []

    def begin_and_cancel(server: Server) -> None:
        begin(server)
        ports.extend(listener.getsockname()[1] for listener in server.sockets)
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    monkeypatch.setattr(Server, "_start_serving", begin_and_cancel)

    async def cut_short() -> None:
        server = BuiltInSsh(spec)
        await asyncio.gather(asyncio.create_task(server.start(fresh_key())), return_exceptions=True)
        server.stop()

    asyncio.run(cut_short())
    gc.collect()  # a socket left to the collector is an error here

    [port] = ports
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=2)
