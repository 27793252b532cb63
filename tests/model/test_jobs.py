from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.errors import InvalidValue
from gpubroker.model.jobs import Job


class TestCommand:
    def test_a_text_is_a_script_and_a_list_is_passed_on_exactly(self) -> None:
        """Only a text is read by a shell."""
        assert Job("echo $HOME | wc").argv == ("sh", "-c", "echo $HOME | wc")
        assert Job(["echo", "$HOME", ""]).argv == ("echo", "$HOME", "")

    @pytest.mark.parametrize("command", ["", "  \n", [], [""], ["", "x"]])
    def test_there_must_be_something_to_run(self, command: Any) -> None:
        """A blank script or command is refused."""
        with pytest.raises(InvalidValue, match="nothing to run"):
            Job(command)

    @pytest.mark.parametrize("command", ["a\0b", ["a", "b\0"], ["a", 5], b"ls", 5, None])
    def test_every_word_is_text(self, command: Any) -> None:
        """What cannot be a word of a command is refused."""
        with pytest.raises(InvalidValue, match="command"):
            Job(command)

    def test_a_job_is_made_once(self) -> None:
        """`Job.of` leaves a job alone and makes one from anything else."""
        job = Job("true")

        assert Job.of(job) is job
        assert Job.of(["true"]) == Job(["true"])

    @given(st.text(min_size=1).filter(lambda s: s.strip() and "\0" not in s))
    def test_the_title_is_one_short_line(self, script: str) -> None:
        """Whatever is run, people see one line of at most 60 characters."""
        title = Job(script).title

        assert len(title) <= 60
        assert "\n" not in title


class TestFiles:
    def test_files_are_placed_under_their_own_names_or_given_ones(self) -> None:
        """A list keeps each file's name; a mapping says where each goes."""
        assert Job("true", files=["data/in.csv", Path("x.py")]).files == {
            "in.csv": Path("data/in.csv"),
            "x.py": Path("x.py"),
        }
        assert Job("true", files={"./a/b": b"bytes", "c": "d"}).files == {
            "a/b": b"bytes",
            "c": Path("d"),
        }

    @pytest.mark.parametrize(
        "files", [["a/x.csv", "b/x.csv"], {"x": b"1", "./x": b"2"}, ["x.csv", "x.csv"]]
    )
    def test_two_files_cannot_have_one_name(self, files: Any) -> None:
        """No file takes another's place without a word."""
        with pytest.raises(InvalidValue, match="two files would have this name"):
            Job("true", files=files)

    @pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "", ".", "a\0b", 5])
    def test_a_name_cannot_leave_the_jobs_folder(self, name: Any) -> None:
        """Neither files nor outputs are outside of the folder."""
        with pytest.raises(InvalidValue, match="inside the job's folder"):
            Job("true", files={name: b""})
        with pytest.raises(InvalidValue, match="outputs"):
            Job("true", outputs=[name])

    @pytest.mark.parametrize("files", ["in.csv", b"bytes", 5, [5], {"x": 5}])
    def test_files_are_paths_or_bytes(self, files: Any) -> None:
        """A single text, which would be read letter by letter, and other things are refused."""
        with pytest.raises(InvalidValue, match="files"):
            Job("true", files=files)

    def test_outputs_are_names_or_patterns(self) -> None:
        """One text is one output, and patterns are kept as they are."""
        assert Job("true", outputs="out/*.png").outputs == ("out/*.png",)
        assert Job("true", outputs=["**/*.log", "./a"]).outputs == ("**/*.log", "a")


class TestLimits:
    @pytest.mark.parametrize(
        ("field", "value"),
        [
            *[("timeout", value) for value in (0, -1, math.nan, math.inf, "60", True)],
            *[("retries", value) for value in (-1, 1.5, math.nan, "1", True)],
            *[("output_limit", value) for value in (-1, 0.5, math.nan, "1", True)],
        ],
    )
    def test_a_senseless_limit_is_refused(self, field: str, value: Any) -> None:
        """The error names the argument and the value."""
        with pytest.raises(InvalidValue) as caught:
            Job("true", **{field: value})

        assert caught.value.field == field
        assert repr(caught.value.value) == repr(value)

    def test_limits_are_kept(self) -> None:
        """What makes sense is taken over."""
        job = Job("true", timeout=1.5, retries=2, output_limit=0, tags="nightly")

        assert (job.timeout, job.retries, job.output_limit) == (1.5, 2, 0)
        assert job.tags == ("nightly",)


class TestSecrets:
    def test_secrets_are_not_shown(self) -> None:
        """The text of a job says nothing of its secrets."""
        assert "hunter2" not in repr(Job("true", secrets={"TOKEN": "hunter2"}))

    @pytest.mark.parametrize("secrets", [{"TOKEN": "hunter2\0"}, {"TOKEN": ["hunter2"]}, "hunter2"])
    def test_a_refused_secret_is_not_shown_either(self, secrets: Any) -> None:
        """The error names the variable alone."""
        with pytest.raises(InvalidValue, match="secrets") as caught:
            Job("true", secrets=secrets)

        assert "hunter2" not in f"{caught.value} {caught.value.value}"
