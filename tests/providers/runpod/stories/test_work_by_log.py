"""Jobs that a pod runs by itself: what goes there in its command, and what its log brings back."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import anyio
import pytest

from gpubroker import (
    AttemptState,
    Job,
    JobState,
    Policy,
    Requirements,
    Result,
    Retry,
    SetupFailed,
)
from gpubroker_runpod import container
from gpubroker_runpod.emulator import RunPodEmulator

from .conftest import MakeBroker
from .watching import QUICK, sent, until
from .working import all_released

pytestmark = pytest.mark.anyio

A_4090 = Requirements(gpu="RTX 4090", count=1)

#: What takes long is shown on one event loop, and kinds of one thing on one each.
one_loop = pytest.mark.parametrize("anyio_backend", ["trio"])


def check_by_log(cloud: RunPodEmulator, result: Result) -> None:
    """It was the only pod's work, which nobody reached; and nothing is paid for any more."""
    (create,) = sent(cloud, "create")
    assert (create.body["ports"], result.host_identity) == ([], None)
    assert "PUBLIC_KEY" not in create.body["env"]
    assert cloud.billing_now() == ()


class TestOutput:
    """What a job prints, standard error among standard output."""

    @pytest.mark.parametrize(
        ("anyio_backend", "printed"),
        [
            ("asyncio", ""),
            ("trio", "no newline at the end"),
            ("asyncio", "\n"),
            (
                "trio",
                (
                    "\n\n a\n\n\n"
                    "tab\t bell\a escape\x1b[31m nul\0 delete\x7f\n"
                    "Zürich 東京 \U0001f600 \u2028 \ufeff e\u0301\n"
                    'id: 7\ndata: {"line": "x"}\n\n: a comment\nevent: end\n\n'
                    "GPUBROKER-LOG nonce-000000000000000000000000 end job exited 7\n"
                ),
            ),
        ],
        ids=["nothing", "no newline", "a newline", "oddities"],
    )
    async def test_comes_back_exactly(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, tmp_path: Path, printed: str
    ) -> None:
        """Text, whatever it looks like on its way."""
        (tmp_path / "printed").write_text(printed)

        async with broker_on(QUICK) as broker:
            result = await broker.run(Job(["cat", str(tmp_path / "printed")], timeout=30), A_4090)

        assert result.text == printed
        assert (result.exit_code, result.stderr, result.message) == (0, b"", "")
        check_by_log(cloud, result)

    async def test_of_both_streams_is_one(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """In the order in which it was printed; the log does not tell them apart."""
        script = "for i in 1 2 3; do echo out $i; echo err $i >&2; done; printf last >&2; exit 3"

        async with broker_on(QUICK) as broker:
            result = await broker.run(Job(script, timeout=30), A_4090)

        assert result.text == "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\nlast"
        assert (result.state, result.exit_code, result.stderr) == (JobState.EXITED, 3, b"")
        check_by_log(cloud, result)

    @one_loop
    async def test_of_two_megabytes_is_all_there(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """More than the log keeps at the vendor, and more than a result keeps: read as it comes."""
        lines = b"".join(b"%08d %s\n" % (n, b"x" * 240) for n in range(8000))
        script = (
            "import time\n"
            "for n in range(8000):\n"
            "    print(f'{n:08d} ' + 'x' * 240, flush=n % 500 == 0)\n"
            "    n % 500 or time.sleep(.05)\n"
        )
        seen = bytearray()

        async with broker_on(QUICK) as broker:
            result = await broker.run(
                Job([sys.executable, "-c", script], timeout=60),
                A_4090,
                on_output=lambda _, data: seen.extend(data),
            )

        assert seen == lines
        assert len(lines) > 1_900_000
        assert lines.endswith(result.stdout)
        assert result.message == ""
        check_by_log(cloud, result)

    @one_loop
    @pytest.mark.parametrize(
        ("gpu", "lines", "message"),
        [
            # More than can be asked for by their number.
            ("RTX 4090", 6_000, ""),
            # More than the host keeps. Of a card that is not looked at before the job.
            pytest.param(
                "MI300X",
                25_000,
                "the beginning of its output was not in the log any more",
                marks=pytest.mark.deep,
            ),
        ],
        ids=["all kept", "not all kept"],
    )
    async def test_that_nobody_read_as_it_came_is_read_later(
        self,
        cloud: RunPodEmulator,
        broker_on: MakeBroker,
        tmp_path: Path,
        gpu: str,
        lines: int,
        message: str,
    ) -> None:
        """As far as the log still has it; what it has no more is said to be missing."""
        cloud.faults.add("logs", "status", status=503, times=None)
        job = Job(f"seq {lines}; touch {tmp_path}/over", timeout=60)
        results: list[Result] = []

        async with (
            broker_on({**QUICK, "way": "log"}) as broker,
            anyio.create_task_group() as tasks,
        ):

            async def run() -> None:
                wanted = Requirements(gpu=gpu, count=1)
                results.append(await broker.run(job, wanted))

            tasks.start_soon(run)
            await until((tmp_path / "over").exists)
            cloud.faults.clear()

        (result,) = results
        assert result.exit_code == 0
        printed = b"".join(b"%d\n" % n for n in range(1, lines + 1))
        assert printed.endswith(result.stdout)
        assert (len(result.stdout) < len(printed), result.message) == (bool(message), message)
        check_by_log(cloud, result)

    async def test_beyond_its_limit_is_counted(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """Dropped, and said to be."""
        job = Job(["seq", "100"], timeout=30, output_limit=10)

        async with broker_on(QUICK) as broker:
            result = await broker.run(job, A_4090)

        assert result.stdout == b"1\n2\n3\n4\n5\n"
        assert result.dropped == sum(len(f"{n}\n") for n in range(6, 101))
        check_by_log(cloud, result)

    async def test_is_no_more_exact_than_lines_of_text_are(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, tmp_path: Path
    ) -> None:
        """A host keeps lines, splits long ones, and mends text: what it kept is all handed on."""
        printed = b"a\r\nb\rc\ncaf\xe9 \xff\xfe\n" + b"y" * 40_000 + b"\nz"
        (tmp_path / "printed").write_bytes(printed)

        async with broker_on(QUICK) as broker:
            result = await broker.run(Job(["cat", str(tmp_path / "printed")], timeout=30), A_4090)

        text, *pieces, end = result.text.split("\ny")
        assert text == "a\nb\rc\ncaf\ufffd \ufffd\ufffd"
        assert "".join([*pieces, end]) == "y" * (40_000 - len(pieces) - 1) + "\nz"
        check_by_log(cloud, result)

    async def test_is_heard_while_the_job_runs(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, tmp_path: Path
    ) -> None:
        """Line by line, and not when it is over."""
        go = tmp_path / "go"
        heard = bytearray()

        def listen(stream: str, data: bytes) -> None:
            heard.extend(data)
            if b"begun" in heard:
                go.touch()

        script = f"echo begun; echo; while [ ! -e {go} ]; do sleep 0.02; done; echo over"
        async with broker_on(QUICK) as broker:
            result = await broker.run(Job(script, timeout=30), A_4090, on_output=listen)

        assert bytes(heard) == result.stdout == b"begun\n\nover\n"
        assert result.exit_code == 0
        check_by_log(cloud, result)


SHOW = """\
import json, os, sys
wanted = json.loads(os.environ["NAMES"])
print(json.dumps([sys.argv[1:], {name: os.environ.get(name) for name in wanted}]))
"""


class TestTheCommand:
    async def test_and_its_environment_arrive_exactly(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """No shell, no JSON and no log on the way reads anything into them."""
        words = ["", " ", "a b", "it's", '"', "$HOME", "`id`", "\\n", "line\nline\r\n", "東京 ü",
                 "-e", "%s", "*", "{}", "${PATH}", "\x01\x1b[0m\x7f", "end", "\ufeff", "&&", "#"]  # fmt: skip
        env = {
            "QUOTES": 'it\'s "quoted" `$(exit 1)`',
            "LINES": "one\ntwo\n\n",
            "EMPTY": "",
            "PERCENT": "%s%n\\0101",
            "CITY": "Zürich 東京",
            "EQUALS": "a=b=c",
            "_": "underscore",
            "lower_case9": " padded ",
        }
        env["NAMES"] = json.dumps([name for name in env if name != "_"])
        job = Job([sys.executable, "-c", SHOW, *words], env=env, timeout=30)

        async with broker_on(QUICK) as broker:
            result = await broker.run(job, A_4090)

        assert result.exit_code == 0, result.text
        got_words, got_env = json.loads(result.stdout)
        assert got_words == words
        assert got_env == {name: env[name] for name in got_env}
        assert set(got_env) == set(env) - {"_", "NAMES"}
        check_by_log(cloud, result)

    async def test_has_what_the_requirements_ask_for_all_jobs(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """The job's own variables are stronger; and none of them is the pod's, which people may read."""
        wanted = Requirements(gpu="RTX 4090", count=1, env={"FOR_ALL": "1", "BOTH": "all's"})
        job = Job('echo "$FOR_ALL $BOTH $OWN"', env={"BOTH": "job's", "OWN": "2"}, timeout=30)

        async with broker_on(QUICK) as broker:
            result = await broker.run(job, wanted)

        assert result.text == "1 job's 2\n"
        (create,) = sent(cloud, "create")
        assert "OWN" not in create.body["env"]
        check_by_log(cloud, result)

    async def test_knows_nothing_of_the_pods_key(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """A job's output is nobody's place to find what ends its machine."""
        async with broker_on(QUICK) as broker:
            result = await broker.run(Job("env; cat /proc/$PPID/environ", timeout=30), A_4090)

        (pod,) = cloud.inside.world.lives.pods.values()
        assert "RUNPOD_POD_ID=" in result.text
        own = result.text.partition("GPUBROKER_EMULATION")[0]
        assert pod.key not in own
        assert cloud.key not in result.text
        check_by_log(cloud, result)


class TestTheEnd:
    @pytest.mark.parametrize(
        ("anyio_backend", "script", "code"),
        [
            ("asyncio", "exit 255", 255),
            ("trio", "kill -9 $$", 137),
        ],
    )
    async def test_is_told_as_a_shell_tells_it(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, script: str, code: int
    ) -> None:
        """The vendor's API has no exit code anywhere; a job that failed is not tried again."""
        async with broker_on(QUICK) as broker:
            result = await broker.run(Job(script, timeout=30, retries=2), A_4090)

        assert (result.state, result.exit_code) == (JobState.EXITED, code)
        check_by_log(cloud, result)

    async def test_of_what_cannot_be_started_says_why(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """It is no exit code."""
        async with broker_on(QUICK) as broker:
            result = await broker.run(Job(["no-such-program", "x"], timeout=30), A_4090)

        assert (result.state, result.exit_code) == (JobState.NOT_STARTED, None)
        assert "no-such-program" in result.message
        check_by_log(cloud, result)

    async def test_comes_when_its_time_is_up(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """What it had printed is kept."""
        job = Job("echo begun; sleep 60; echo never", timeout=0.3)

        async with broker_on(QUICK) as broker:
            result = await broker.run(job, A_4090)

        assert (result.state, result.exit_code) == (JobState.TIMED_OUT, None)
        assert result.text == "begun\n"
        check_by_log(cloud, result)

    async def test_by_the_caller_ends_the_pod_with_it(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """There is no way to a job that nobody reaches, but to give its machine up."""
        begun = anyio.Event()

        async with broker_on(QUICK) as broker:
            async with anyio.create_task_group() as tasks:

                async def run() -> None:
                    job = Job("echo begun; sleep 60", timeout=120)
                    await broker.run(job, A_4090, on_output=lambda _, __: begun.set())

                tasks.start_soon(run)
                with anyio.fail_after(20):
                    await begun.wait()
                tasks.cancel_scope.cancel()
            await all_released(broker, cloud)

        assert cloud.machines() == []
        assert len(sent(cloud, "create")) == 1
        assert cloud.billing_now() == ()

    async def test_leaves_the_container_running(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Or the host would start it again, and the work with it: nothing says "restarting"."""
        # There is nothing left to be told when the pod cannot be given up yet.
        once = partial(container.jobs_command, repeats=())
        monkeypatch.setattr(container, "jobs_command", once)
        cloud.faults.add("delete", "status", status=503)

        async with broker_on({**QUICK, "release_margin": "1"}) as broker:
            result = await broker.run(Job("echo once", timeout=30), A_4090)
            (pod,) = cloud.inside.world.lives.pods.values()
            await broker.wait_released(result.lease_id, timeout=15)

        said = [line.text for line in pod.log.after(0) if line.source == "system"]
        assert said.count("start container") == 1
        assert not any("restarting" in line for line in said)
        assert result.text == "once\n"
        check_by_log(cloud, result)


class TestSetup:
    async def test_is_run_before_the_job_and_in_the_home_folder(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """What it makes there is found by the job; what it prints is not the job's."""
        setup = 'echo installing; mkdir tools; echo "$FOR_ALL" > tools/it'
        wanted = Requirements(gpu="RTX 4090", count=1, setup=setup, env={"FOR_ALL": "made"})

        async with broker_on(QUICK) as broker:
            result = await broker.run(Job("cat ~/tools/it; ls", timeout=30), wanted)

        assert result.text == "made\n"
        check_by_log(cloud, result)

    async def test_that_fails_keeps_the_job_from_running(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, tmp_path: Path
    ) -> None:
        """The error shows what it said, and the job left no trace."""
        wanted = Requirements(gpu="RTX 4090", count=1, setup="echo no room here >&2; exit 28")
        policy = Policy(retry=Retry(max_attempts=1))
        job = Job(f"touch {tmp_path}/ran", timeout=30)

        async with broker_on(QUICK) as broker:
            with pytest.raises(SetupFailed, match="no room here"):
                await broker.run(job, wanted, policy=policy)
            await all_released(broker, cloud)

        assert not (tmp_path / "ran").exists()
        assert cloud.billing_now() == ()


async def test_a_pod_with_other_cards_than_offered_is_given_up(
    cloud: RunPodEmulator, broker_on: MakeBroker, tmp_path: Path
) -> None:
    """Its driver was asked before the job, and the job never began there."""
    cloud.next_pod("wrong-card")
    ran = tmp_path / "ran"

    async with broker_on(QUICK) as broker:
        job = Job(f"echo >> {ran}; nvidia-smi -L", timeout=30)
        result = await broker.run(job, A_4090)
        await all_released(broker, cloud)

    assert ran.read_text() == "\n"

    first, second = result.record.attempts
    assert (first.state, second.state) == (AttemptState.FAILED, AttemptState.WON)
    assert "offered RTX 4090" in first.reason
    assert "RTX 4090" in result.text
    assert cloud.billing_now() == ()
