"""The parts that need no machine."""

from __future__ import annotations

import io
import itertools
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.transport.work import scripts
from gpubroker.transport.work.archive import archive
from gpubroker.transport.work.frames import Frames
from gpubroker.transport.work.lines import as_line
from gpubroker.transport.work.placing import Entry
from gpubroker.transport.work.selection import places, selected
from gpubroker.transport.work.unpack import TarReader

NAMES = st.text(st.characters(exclude_characters="\0/", codec="utf-8"), min_size=1)


def cut_up(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


class Unpacked:
    """What a reader found."""

    def __init__(self) -> None:
        self.files: list[tuple[str, bytes]] = []
        self.reader = TarReader(self._begin, self._end)
        self.ended = 0

    def _begin(self, name: str, size: int) -> Unpacked:
        self.files.append((name, b""))
        return self

    def _end(self) -> None:
        self.ended += 1

    def write(self, data: bytes) -> None:
        name, before = self.files.pop()
        self.files.append((name, before + data))


FILES = st.lists(st.tuples(NAMES | st.just("n" * 150), st.binary(max_size=1500)), max_size=5)


class TestArchives:
    @given(FILES, st.lists(st.integers(0), max_size=20), st.sampled_from([0, 1, 2]))
    def test_every_format_is_read_in_whatever_pieces_it_comes(
        self, files: list[tuple[str, bytes]], cuts: list[int], form: int
    ) -> None:
        """GNU, POSIX and old archives; names of any length."""
        held = io.BytesIO()
        forms = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
        if form == 0:
            files = [(name[:20], data) for name, data in files]
        with tarfile.open(fileobj=held, mode="w", format=forms[form]) as made:
            for name, data in files:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                made.addfile(info, io.BytesIO(data))
        unpacked = Unpacked()

        for piece in cut_up(held.getvalue(), cuts):
            unpacked.reader.feed(piece)

        assert unpacked.files == files
        assert unpacked.ended == len(files)
        assert unpacked.reader.ended

    @given(FILES)
    def test_what_is_made_here_is_what_tar_reads(self, files: list[tuple[str, bytes]]) -> None:
        """Names, contents, modes."""
        entries = [Entry(name, data, len(data), 0o640) for name, data in files]

        with tarfile.open(fileobj=io.BytesIO(b"".join(archive(entries)))) as read:
            found = [(one.name, one.mode, read.extractfile(one)) for one in read]

            assert [(name, mode, file and file.read()) for name, mode, file in found] == [
                (name, 0o640, data) for name, data in files
            ]


class TestFrames:
    @given(st.lists(st.integers(0), max_size=20))
    def test_pieces_are_put_together_however_they_come(self, cuts: list[int]) -> None:
        """Each stream whole and in order, signs noted."""
        data = b"S\nO 5\nO 5\nXA\nE 3\nX\n!O 1\nzX\nexited 0 6 3 0\n"
        frames, got = Frames(), {"stdout": b"", "stderr": b""}

        for piece in cut_up(data, cuts):
            for stream, part in frames.feed(piece):
                got[stream] += part

        assert got == {"stdout": b"O 5\nXz", "stderr": b"X\n!"}
        assert frames.signs == {"S", "A", "X"}
        assert frames.ending == b"exited 0 6 3 0\n"


class TestLines:
    @pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
    def test_every_byte_survives_every_shell(self, shell: str) -> None:
        """In a UTF-8 locale, and where they are no UTF-8."""
        where = shutil.which(shell)
        if where is None:
            pytest.skip(f"there is no {shell} here")
        data = bytes(range(1, 256)) + b"\\c\\0101%s\xe2\x82\n\n"
        text = data.decode("utf-8", "surrogateescape")
        command = [where, *(["sh"] if shell == "busybox" else []), "-c"]
        code = scripts._text("decode") + 'IFS= read -r line; decode "$line"; printf %s "$text"'  # pyright: ignore[reportPrivateUsage]

        said = subprocess.run(
            [*command, code],
            input=as_line(text),
            capture_output=True,
            check=False,
            env={"LC_ALL": "C.UTF-8"},
        )

        assert (said.stdout, said.stderr) == (b"./" + data, b"")


class TestSelection:
    @pytest.mark.parametrize(
        ("pattern", "chosen"),
        [
            ("*", ["a.png", "d/a.png", "d/e/b.png", ".h/x"]),
            ("*.png", ["a.png"]),
            ("**/*.png", ["a.png", "d/a.png", "d/e/b.png"]),
            ("**", ["a.png", "d/a.png", "d/e/b.png", ".h/x"]),
            ("d", ["d/a.png", "d/e/b.png"]),
            ("d/*", ["d/a.png", "d/e/b.png"]),
            ("d/*.png", ["d/a.png"]),
            ("d/**/b.png", ["d/e/b.png"]),
            ("[!d]*", ["a.png", ".h/x"]),
            ("a.png/b", []),
            ("e", []),
        ],
    )
    def test_patterns_mean_what_they_mean_on_this_host(
        self, pattern: str, chosen: list[str]
    ) -> None:
        """Part by part; a folder means everything in it."""
        names = ["a.png", "d/a.png", "d/e/b.png", ".h/x"]

        assert selected([pattern], names) == (chosen, [] if chosen else [pattern])

    @given(st.lists(st.text("ab*/", min_size=1, max_size=6), max_size=4), st.data())
    def test_no_output_lies_where_nobody_looks(
        self, patterns: list[str], data: st.DataObject
    ) -> None:
        """Whatever is chosen is in one of the places that are looked through, and in one only."""
        names = data.draw(st.lists(st.from_regex(r"[ab]{1,2}(/[ab]{1,2}){0,3}", fullmatch=True)))
        chosen, _ = selected(patterns, names)
        looked = places(patterns)

        for name in chosen:
            within = [path for path in looked if not path or f"{name}/".startswith(f"{path}/")]
            assert len(within) == 1


class TestScripts:
    @pytest.mark.parametrize("shell", ["dash", "bash --posix", "busybox sh"])
    def test_every_shell_takes_every_script(self, shell: str) -> None:
        """They are POSIX."""
        if shutil.which(shell.split(maxsplit=1)[0]) is None:
            pytest.skip(f"there is no {shell} here")
        for path in sorted((Path(scripts.__file__).parent / "scripts").glob("*.sh")):
            said = subprocess.run([*shell.split(), "-n", path], check=False, capture_output=True)
            assert (said.returncode, said.stderr) == (0, b""), path

    def test_each_fits_a_command_line_three_times_over(self) -> None:
        """Servers and shells have limits of their own."""
        assert max(len(scripts.script(name)) for name in get_args(scripts.Name)) < 30_000
