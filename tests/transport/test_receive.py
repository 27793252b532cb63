"""Files that come back from a machine whose owner means us no good."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpubroker.errors import ErrorKind, ProviderError, Scope
from gpubroker.transport.receive import Receiver


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def receiver(out: Path) -> Receiver:
    return Receiver(out, token="job-1", room=0)


def take(receiver: Receiver, name: str, data: bytes = b"data") -> None:
    with receiver.receive(name) as file:
        file.write(data)


def fail(receiver: Receiver, name: str) -> None:
    """A transfer that is cut in the middle."""
    with receiver.receive(name) as file:
        file.write(b"half")
        raise ConnectionError


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder: files with what is in them, folders with nothing."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


class TestGoodFiles:
    def test_a_file_is_where_it_belongs_with_its_size_and_hash(
        self, receiver: Receiver, out: Path
    ) -> None:
        """Under its own relative name, whole."""
        with receiver.receive("models/best.bin") as file:
            file.write(b"one ")
            file.write(b"two")
        files = receiver.commit()

        ((name, one),) = files.items()
        assert name == "models/best.bin"
        assert one.path == out / "models/best.bin"
        assert one.path.read_bytes() == b"one two"
        assert (one.size, one.sha256) == (7, hashlib.sha256(b"one two").hexdigest())

    def test_nothing_is_at_its_place_before_everything_is_known_to_be_good(
        self, receiver: Receiver, out: Path
    ) -> None:
        """A cut transfer leaves no half result among the caller's files."""
        take(receiver, "a")
        assert [path.name for path in out.iterdir()] == [".gpubroker-job-1"]

        receiver.commit()
        assert tree(out) == {"a": b"data"}

    def test_what_was_not_committed_leaves_no_trace(self, receiver: Receiver, out: Path) -> None:
        """Discarding twice, or before anything came, is no error."""
        receiver.discard()
        take(receiver, "deep/er/a")
        receiver.discard()
        receiver.discard()

        assert tree(out) == {}

    def test_without_outputs_no_folder_is_made(self, receiver: Receiver, out: Path) -> None:
        """A job without outputs leaves nothing, anywhere."""
        assert receiver.commit() == {}
        assert not out.exists()

    def test_a_newer_output_replaces_an_older_one(self, receiver: Receiver, out: Path) -> None:
        """As the same command would, run here; other files are left alone."""
        out.mkdir()
        (out / "a").write_bytes(b"old")
        (out / "mine").write_bytes(b"mine")
        take(receiver, "a", b"new")
        receiver.commit()

        assert tree(out) == {"a": b"new", "mine": b"mine"}

    def test_only_this_user_sees_what_is_not_yet_whole(self, receiver: Receiver, out: Path) -> None:
        """The staging folder is private."""
        take(receiver, "a")

        assert stat.S_IMODE((out / ".gpubroker-job-1").stat().st_mode) == 0o700

    def test_the_destination_may_be_reached_through_a_link(
        self, receiver: Receiver, tmp_path: Path, out: Path
    ) -> None:
        """It is the caller's own word where it is."""
        (tmp_path / "real").mkdir()
        out.symlink_to(tmp_path / "real")
        take(receiver, "a/b")
        receiver.commit()

        assert tree(tmp_path / "real") == {"a": None, "a/b": b"data"}

    @pytest.mark.parametrize(
        ("sent", "name"),
        [("./a", "a"), ("a//b", "a/b"), ("a/./b", "a/b"), ("a b\t", "a b\t"), ("ü/日本", "ü/日本")],
    )
    def test_odd_names_are_names(self, receiver: Receiver, out: Path, sent: str, name: str) -> None:
        """What a machine may rightly call a file is kept, in its plain form."""
        take(receiver, sent)

        assert list(receiver.commit()) == [name]
        assert (out / name).read_bytes() == b"data"

    def test_a_file_whose_transfer_failed_can_be_sent_again(
        self, receiver: Receiver, out: Path
    ) -> None:
        """A cut link is no reason to lose a result; what came of the first try is gone."""
        with pytest.raises(ConnectionError):
            fail(receiver, "a")
        assert receiver.commit() == {}

        again = Receiver(out, token="job-1", room=0, max_bytes=8, max_files=1)
        for _ in range(5):
            with pytest.raises(ConnectionError):
                fail(again, "a")
        take(again, "a", b"complete")

        assert again.commit()["a"].size == 8
        assert tree(out) == {"a": b"complete"}


#: Names that a machine may send and that could hurt.
BAD_NAMES = [
    "",
    ".",
    "/",
    "/etc/passwd",
    "//etc/passwd",
    "..",
    "../a",
    "a/../../b",
    "a/..",
    "a\0b",
    "a\\..\\b",
    "x" * 256,
    "é" * 128,
    "/".join(["d"] * 33),
    "a/" * 2000 + "b",
    "\ud800",
    os.fsdecode(b"caf\xe9.txt"),
    ".gpubroker-job-1",
    ".gpubroker-job-1/a",
    "./.gpubroker-job-1/a",
]


class TestHostileNames:
    @pytest.mark.parametrize("name", BAD_NAMES)
    def test_a_name_that_could_lead_elsewhere_is_refused(
        self, receiver: Receiver, tmp_path: Path, name: str
    ) -> None:
        """The host is then taken as hostile, and nothing was written anywhere."""
        with pytest.raises(ProviderError, match="impossible name") as refused:
            receiver.receive(name)

        assert (refused.value.kind, refused.value.scope) == (ErrorKind.HOST_BROKEN, Scope.HOST)
        assert len(str(refused.value)) < 300
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]

    @pytest.mark.parametrize("names", [("a", "a"), ("a", "./a"), ("a", "a/b"), ("a/b", "a")])
    def test_two_outputs_of_one_name_are_refused(
        self, receiver: Receiver, names: tuple[str, str]
    ) -> None:
        """Nor may a name be a file and a folder at once."""
        take(receiver, names[0])

        with pytest.raises(ProviderError) as refused:
            take(receiver, names[1])

        assert refused.value.kind is ErrorKind.HOST_BROKEN

    def test_a_folder_of_the_callers_is_never_replaced_by_a_file(
        self, receiver: Receiver, out: Path
    ) -> None:
        """An error of this side's files, and they are as they were."""
        (out / "a").mkdir(parents=True)
        (out / "a/mine").write_bytes(b"mine")
        take(receiver, "a")

        with pytest.raises(OSError, match="a"):
            receiver.commit()
        receiver.discard()

        assert tree(out) == {"a": None, "a/mine": b"mine"}

    @settings(max_examples=300)
    @given(
        st.lists(
            st.text(st.sampled_from("ab./\\\0é\ud800-"), max_size=12)
            | st.sampled_from([*BAD_NAMES, "link/a", "a/link/b"]),
            max_size=6,
        )
    )
    def test_no_name_leads_out_of_the_destination(
        self, tmp_path_factory: pytest.TempPathFactory, names: list[str]
    ) -> None:
        """Whatever is sent, in whatever order: all that is written is below it, where it says."""
        root = tmp_path_factory.mktemp("world")
        (root / "elsewhere").mkdir()
        (root / "out").mkdir()
        (root / "out/link").symlink_to(root / "elsewhere")
        receiver = Receiver(root / "out", token="t", room=0)
        for name in names:
            with suppress(ProviderError):
                take(receiver, name, name.encode(errors="replace"))
        try:
            files = receiver.commit()
        except (ProviderError, OSError):
            files = {}
        receiver.discard()

        assert list((root / "elsewhere").iterdir()) == []
        assert {path.name for path in root.iterdir()} == {"elsewhere", "out"}
        for name, one in files.items():
            assert one.path == root / "out" / PurePosixPath(name)
            assert one.path.is_file()
            assert not one.path.is_symlink()


class TestLinks:
    @pytest.fixture
    def elsewhere(self, tmp_path: Path) -> Iterator[Path]:
        """A folder outside that must stay as it is."""
        folder = tmp_path / "elsewhere"
        folder.mkdir()
        (folder / "a").write_bytes(b"untouched")
        yield folder
        assert tree(folder) == {"a": b"untouched"}

    def test_a_link_in_the_destination_is_not_followed(
        self, receiver: Receiver, out: Path, elsewhere: Path
    ) -> None:
        """An earlier job, or another user, may have put one there."""
        out.mkdir()
        (out / "sub").symlink_to(elsewhere)
        take(receiver, "sub/a")

        with pytest.raises((ProviderError, OSError)):
            receiver.commit()

    def test_a_link_in_place_of_the_file_is_replaced(
        self, receiver: Receiver, out: Path, elsewhere: Path
    ) -> None:
        """Not written through."""
        out.mkdir()
        (out / "a").symlink_to(elsewhere / "a")
        take(receiver, "a")
        receiver.commit()

        assert not (out / "a").is_symlink()
        assert (out / "a").read_bytes() == b"data"

    def test_a_link_slipped_into_the_staging_folder_is_not_followed(
        self, receiver: Receiver, out: Path, elsewhere: Path
    ) -> None:
        """Whoever races us there wins nothing."""
        take(receiver, "sub/first")
        staging = out / ".gpubroker-job-1"
        (staging / "sub/first").unlink()
        (staging / "sub").rmdir()
        (staging / "sub").symlink_to(elsewhere)
        (staging / "link").symlink_to(elsewhere / "a")

        for name in ("sub/a", "link"):
            with pytest.raises((ProviderError, OSError)):
                take(receiver, name)

    def test_discarding_removes_links_and_not_what_they_lead_to(
        self, receiver: Receiver, out: Path, elsewhere: Path
    ) -> None:
        """The staging folder is removed without leaving it."""
        take(receiver, "a")
        (out / ".gpubroker-job-1/link").symlink_to(elsewhere)

        receiver.discard()

        assert tree(out) == {}


class TestCaps:
    def test_more_bytes_than_allowed_are_refused_before_they_are_written(self, out: Path) -> None:
        """All files together; the host is taken as hostile."""
        receiver = Receiver(out, token="t", max_bytes=10, room=0)
        take(receiver, "a", b"x" * 6)

        with pytest.raises(ProviderError, match="more than 10 bytes") as refused:
            take(receiver, "b", b"x" * 5)

        assert refused.value.kind is ErrorKind.HOST_BROKEN
        assert list(receiver.commit()) == ["a"]

    def test_more_files_than_allowed_are_refused(self, out: Path) -> None:
        """A million empty files are an attack, too."""
        receiver = Receiver(out, token="t", max_files=3, room=0)
        for number in range(3):
            take(receiver, f"{number}", b"")

        with pytest.raises(ProviderError, match="more than 3 outputs"):
            receiver.receive("one more")

    def test_the_disk_is_not_filled_up(self, out: Path) -> None:
        """Room is left for everybody else; the error is this side's, not the host's."""
        receiver = Receiver(out, token="t", room=2**60)

        with pytest.raises(OSError, match="no space left for the job's outputs") as full:
            take(receiver, "a")

        assert full.value.errno == 28


class TestSecondThoughts:
    def test_an_output_that_was_rejected_can_be_sent_again(
        self, receiver: Receiver, out: Path
    ) -> None:
        """It counts neither as a file nor against the caps, and its name is free."""
        take(receiver, "d/a", b"wrong")
        receiver.reject("d/a")
        assert receiver.commit() == {}

        take(receiver, "d/a", b"right")
        assert receiver.commit()["d/a"].size == 5
        assert (out / "d/a").read_bytes() == b"right"

    def test_what_was_synced_early_is_committed_as_ever(
        self, receiver: Receiver, out: Path
    ) -> None:
        """Also where more came, or some was rejected, after the first time."""
        take(receiver, "a")
        take(receiver, "d/b")
        receiver.sync()
        receiver.reject("a")
        take(receiver, "d/c")
        receiver.sync()

        assert set(receiver.commit()) == {"d/b", "d/c"}
        assert tree(out) == {"d": None, "d/b": b"data", "d/c": b"data"}

    def test_what_cannot_be_synced_is_not_put_into_place(
        self, receiver: Receiver, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The error says where it is kept."""

        def fail_to_sync(_descriptor: int) -> None:
            raise OSError(5, "Input/output error")

        take(receiver, "a")
        monkeypatch.setattr(os, "fsync", fail_to_sync)

        with pytest.raises(OSError, match=r"kept in .*\.gpubroker-job-1"):
            receiver.commit()
        assert tree(out) == {".gpubroker-job-1": None, ".gpubroker-job-1/a": b"data"}
