"""Machines whose answers are lies: nothing is written elsewhere, nothing goes on for ever."""

from __future__ import annotations

import io as bytes_io
import itertools
import tarfile
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.abc import ByteReceiveStream, ByteSendStream

from gpubroker.errors import ErrorKind, ProviderError, Scope
from gpubroker.model.jobs import Job
from gpubroker.transport import run_job
from gpubroker.transport.work import download
from gpubroker.transport.work.scripts import Name
from gpubroker.transport.work.scripts import script as text_of

if TYPE_CHECKING:
    from .conftest import Desk

pytestmark = pytest.mark.anyio

ENDED = b"S\nX\nexited 0 0 0 0\n"


Answer = bytes | Callable[[], Iterator[bytes]]


class LyingMachine:
    """Answers each script with what it is told to, whatever it was asked."""

    def __init__(self, answers: Mapping[Name, Answer]) -> None:
        self.answers = {text_of(name): answer for name, answer in answers.items()}

    @asynccontextmanager
    async def execute(self, script: str, *arguments: str) -> AsyncGenerator[Any]:
        answer = self.answers.get(script, b"")
        yield _Lie(iter([answer]) if isinstance(answer, bytes) else answer())

    @asynccontextmanager
    async def forward(self, port: int) -> AsyncGenerator[int]:
        yield port


class _Lie(ByteReceiveStream, ByteSendStream):
    stderr = b"\x1b]0;title\x07\x1b[2Jno\n"

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.stdin = self.stdout = self
        self._pieces = pieces
        self._held = b""

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await anyio.lowlevel.checkpoint()
        while not self._held:
            piece = next(self._pieces, None)
            if piece is None:
                raise anyio.EndOfStream
            self._held = piece
        data, self._held = self._held[:max_bytes], self._held[max_bytes:]
        return data

    async def send(self, item: bytes) -> None:
        await anyio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        pass

    async def wait(self) -> int:
        return 0


def forever(piece: bytes) -> Answer:
    return lambda: itertools.repeat(piece)


def several(*pieces: bytes) -> Answer:
    return lambda: iter(pieces)


def tar(*members: tuple[str, bytes | None], kind: bytes = tarfile.REGTYPE, **parts: Any) -> bytes:
    """An archive, of any members and with any fields."""
    held = bytes_io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.size = len(data or b"")
            for field, value in parts.items():
                setattr(info, field, value)
            archive.addfile(info, bytes_io.BytesIO(data or b""))
    return held.getvalue()


def header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def everything_in(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        ({"attach": b"hello\n"}, "nonsense"),
        ({"attach": b"x" * 10_000}, "nonsense"),
        ({"attach": b"O 99999999999\n"}, "nonsense"),
        ({"attach": b"O -1\n"}, "nonsense"),
        ({"attach": b"O 0\n"}, "nonsense"),
        ({"attach": b"S\nO 5\nab"}, "does not say how the job ended"),
        ({"attach": b"S\n"}, "does not say how the job ended"),
        ({"attach": b"S\nX\nexited 99999 0 0 0\n"}, "does not say"),
        ({"attach": b"S\nX\nperfect 0 0 0 0\n"}, "does not say"),
        ({"attach": forever(b"O 1000\n" + b"x" * 1000)}, "more output than it was asked for"),
        ({"attach": several(b"S\nX\n", *[b"x" * 1000] * 100)}, "nonsense"),
        ({"list": forever(b"F./" + b"x" * 100_000 + b"\0")}, "more than"),
        ({"list": b"F./a\0"}, "has no end"),
        ({"list": b"Fa\0E\0"}, "holds"),
        ({"list": b"D./a\0E\0"}, "holds"),
        ({"pack": b"x" * 1000}, "nonsense"),
        ({"pack": b"-5\n"}, "where a number"),
        ({"pack": b"9" * 50 + b"\n"}, "where a number"),
        ({"pack": b"1\n" + b"x" * 1024}, "broken archive"),
        ({"pack": b"1\n" + tar(("./other", b"1"))}, "not asked for"),
        ({"pack": b"1\n" + tar(("../a", b"1"))}, "not asked for"),
        ({"pack": b"1\n" + tar(("/a", b"1"))}, "not asked for"),
        ({"pack": b"1\n" + tar(("./a", b"1"), ("./a", b"2"))}, "not asked for"),
        ({"pack": b"1\n" + tar(("./a", b"1")) + b"x" * 2_000_000}, "no end"),
        ({"pack": b"1\n" + tar(("./a", b"1" * 600), kind=tarfile.GNUTYPE_SPARSE)}, "of type"),
        ({"pack": b"1\n" + tar(("./a", b"1"), kind=b"Z")}, "of type"),
        ({"pack": several(b"1\n" + header("./a", 2**60), *[b"x" * 1_000_000] * 5)}, "too early"),
        ({"pack": b"1\n" + header("././@LongLink", 2**40)}, "not asked for"),
        ({"pack": b"1\n" + tar(("././@LongLink", b"x" * 70_000), kind=b"L")}, "a name of 70000"),
        ({"pack": b"1\n" + tar(("p", b"99 path=a\n"), kind=b"x")}, "attributes"),
        ({"pack": b"1\n" + tar(("p", b"12 size=-99\n"), kind=b"x")}, "a size of"),
        ({"pack": b"1\n" + tar(("./a", b""), kind=tarfile.SYMTYPE, linkname="/etc/passwd")}, None),
        ({"pack": b"1\n" + tar(("./a", b""), kind=tarfile.LNKTYPE, linkname="/etc/passwd")}, None),
        ({"pack": b"1\n" + tar(("./a", b""), kind=tarfile.CHRTYPE)}, None),
        ({"pack": b"1\n" + tar(("./a", b"1")), "digests": b"0" * 64 + b"  ./a\n"}, "too early"),
        ({"pack": b"1\n" + tar(("./a", b"1")), "digests": forever(b"\n" * 9999)}, "more than"),
        ({"send": b"no number\n"}, "no number"),
        ({"send": b"9" * 60 + b"\n"}, "bytes"),
        ({"send": b"10\nxx"}, "too early"),
    ],
)
async def test_a_lie_is_an_error_and_leads_nowhere(
    desk: Desk, tmp_path: Path, answers: dict[Name, Any], problem: str | None
) -> None:
    """The machine is condemned, and nothing is outside of the output folder."""
    good: dict[Name, Any] = {"attach": ENDED, "list": b"F./a\0E\0", "pack": b"0\n", "send": b"-\n"}
    if "pack" in answers and "send" not in answers and problem == "too early":
        good["send"] = b"10\nxx"
    io, receiver = desk.io()
    job = Job("x", outputs="a", output_limit=10_000)

    with anyio.fail_after(20):
        if problem is None:
            await run_job(LyingMachine({**good, **answers}), job, io)
        else:
            with pytest.raises(ProviderError, match=problem) as condemned:
                await run_job(LyingMachine({**good, **answers}), job, io)
            assert (condemned.value.kind, condemned.value.scope) == (
                ErrorKind.HOST_BROKEN,
                Scope.HOST,
            )
            assert str(condemned.value).isprintable()
    receiver.commit()
    assert everything_in(tmp_path) <= {"out-1/a"}


@pytest.mark.parametrize("name", ["../a", "/etc/a", "b/../../a", "x" * 300, "\udcff", "a\\b"])
async def test_a_listed_name_that_leads_elsewhere_is_refused(
    desk: Desk, tmp_path: Path, name: str
) -> None:
    """Also where it is fetched by itself; all that has a good name is here."""
    listed = b"F./good\0F./" + name.encode("utf-8", "surrogateescape") + b"\0E\0"
    answers: dict[Name, Any] = {"attach": ENDED, "list": listed, "send": b"1\nx"}
    io, receiver = desk.io()

    with pytest.raises(ProviderError, match="impossible name"):
        await run_job(
            LyingMachine({**answers, "pack": b"1\n" + tar(("./good", b"1"))}),
            Job("x", outputs="*"),
            io,
        )

    receiver.commit()
    assert everything_in(tmp_path) <= {"out-1/good"}


async def test_more_files_and_bytes_than_the_receiver_takes(desk: Desk) -> None:
    """The caps hold for what comes in a stream, too."""
    io, receiver = desk.io()
    receiver.__init__(receiver.destination, token="t", room=0, max_bytes=1000)  # type: ignore[misc]
    pack = several(b"1\n", header("./a", 2**50), *[b"x" * 500] * 5)
    answers: dict[Name, Any] = {"attach": ENDED, "list": b"F./a\0E\0", "pack": pack}

    with pytest.raises(ProviderError, match="more than 1000 bytes"):
        await run_job(LyingMachine(answers), Job("x", outputs="a"), io)


async def test_an_output_that_never_is_as_the_machine_says_is_an_error(
    desk: Desk, tmp_path: Path
) -> None:
    """It is fetched once more, and then the machine is condemned; what differed is not kept."""
    answers: dict[Name, Any] = {"attach": ENDED, "list": b"F./a\0E\0", "send": b"1\nx"}
    answers |= {"pack": b"1\n" + tar(("./a", b"1")), "digests": b"0" * 64 + b"  ./a\n"}
    io, receiver = desk.io()

    with pytest.raises(ProviderError, match="does not arrive as the machine has it"):
        await run_job(LyingMachine(answers), Job("x", outputs="a"), io)

    receiver.commit()
    assert everything_in(tmp_path) == set()


def test_files_may_be_listed_up_to_a_limit() -> None:
    """So that no list fills the memory here."""
    assert download._NAMES <= 2**26  # pyright: ignore[reportPrivateUsage]
