"""What is made of a master's words, and of its silence."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, suppress
from pathlib import Path

import anyio
import pytest
from anyio.abc import SocketStream

from gpubroker.errors import ChannelLost
from gpubroker.transport.blocks import background
from gpubroker.transport.ssh.mux import MasterGone, OpenRefused, encode, open_session

pytestmark = pytest.mark.anyio

HELLO = encode(1, 4)
REFUSED = encode(0x80000003, 1, b"\x1b[31mrefused by peer")
OPENED = encode(0x80000006, 1, 7)
EXITED = encode(0x80000004, 7, 255)


@pytest.fixture
def control() -> Generator[Path]:
    """Where a master of the test's own listens."""
    with tempfile.TemporaryDirectory(prefix="gbm-", dir="/tmp") as folder:
        yield Path(folder) / "control"


@pytest.fixture
def files() -> Generator[list[socket.socket]]:
    """Three streams to hand over."""
    with ExitStack() as stack:
        yield [end for _ in range(3) for end in map(stack.enter_context, socket.socketpair())][::2]


async def exit_of(control: Path, files: list[socket.socket], *pieces: bytes) -> int | None:
    """Ask a master that says `pieces`, one after another, and then closes."""

    async def talk(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            with suppress(anyio.BrokenResourceError):
                for piece in pieces:
                    await stream.send(piece)

    async with await anyio.create_unix_listener(control) as listener, background() as tasks:
        tasks.start_soon(listener.serve, talk)
        opened = await open_session(control, b"true", files)
        try:
            return await opened.wait_exit()
        finally:
            opened.close()


async def test_an_exit_code_is_read_however_it_is_cut(
    control: Path, files: list[socket.socket]
) -> None:
    """Byte by byte it is the same."""
    said = HELLO + OPENED + EXITED

    assert await exit_of(control, files, *(said[i : i + 1] for i in range(len(said)))) == 255


@pytest.mark.parametrize(
    ("said", "problem", "words"),
    [
        (b"", MasterGone, "ended"),
        (HELLO[:-1], MasterGone, "ended"),
        (HELLO, ChannelLost, "broke"),
        (HELLO + b"\xff" * 4, ChannelLost, "broke"),
        (HELLO + REFUSED, OpenRefused, r"^refused by peer$"),
        (encode(1, 5), OpenRefused, "another version"),
    ],
)
async def test_what_may_be_asked_again_is_told_apart(
    control: Path,
    files: list[socket.socket],
    said: bytes,
    problem: type[Exception],
    words: str,
) -> None:
    """Before its greeting a master has started nothing; after it, only a refusal says so."""
    with pytest.raises(problem, match=words):
        await exit_of(control, files, said)


async def test_an_end_without_a_code_is_none(control: Path, files: list[socket.socket]) -> None:
    """No number is made up."""
    assert await exit_of(control, files, HELLO, OPENED) is None


async def test_without_a_master_nothing_was_started(
    control: Path, files: list[socket.socket]
) -> None:
    """No socket, and one that nobody listens at, are the same."""
    with pytest.raises(MasterGone):
        await open_session(control, b"true", files)
    with socket.socket(socket.AF_UNIX) as nobody:
        nobody.bind(str(control))
    with pytest.raises(MasterGone):
        await open_session(control, b"true", files)
