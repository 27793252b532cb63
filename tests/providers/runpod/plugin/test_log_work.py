"""Jobs that pods run by themselves, read out of a log that is cut, repeated, or gone."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpubroker import (
    ErrorKind,
    Job,
    JobState,
    Machine,
    Outcome,
    PlannedJob,
    ProviderError,
    Scope,
)
from gpubroker_runpod.container import jobs_command
from gpubroker_runpod.log_work import CUT, GONE, TAIL, LogWork, snapshot
from gpubroker_runpod.sentinels import AGAIN, BROKEN, NOT_RUN

from .contained import NONCE, POD, Container
from .told import UP, Caller, Connection, Log, transient

pytestmark = pytest.mark.anyio

MACHINE = Machine(id=POD, ssh=False)
PROBE = PlannedJob(purpose="probe", argv=("nvidia-smi",))
SETUP = PlannedJob(purpose="setup", argv=("sh", "-c", "echo installing"))
WORK = PlannedJob(purpose="job", argv=("sh", "-c", "work"))


def own(what: str, nonce: str = NONCE) -> list[str]:
    """One of the container's own lines, with the newline that it prints before each."""
    return ["", f"GPUBROKER-LOG {nonce} {what}"]


def printed(*parts: str | list[str]) -> list[str | bytes]:
    """The log of a container that printed all this."""
    lines: list[str | bytes] = []
    for part in parts:
        lines += [part] if isinstance(part, str) else part
    return lines


def a_job(*output: str, ending: str = "exited 0") -> list[str]:
    """The lines of a job whose output ends without a newline."""
    return [*own("start job"), *output, *own(f"end job {ending}")[bool(output) :]]


def reader(log: Log, *plan: PlannedJob) -> LogWork:
    """One that waits for nothing, and knows the order unless there is no plan."""
    work = LogWork(log, idle=0.01, pause=0)
    if plan:
        work.ordered(POD, NONCE, plan)
    return work


async def ask(work: LogWork, caller: Caller, **parts: Any) -> Outcome:
    """Run the job of the caller's purpose, as it was planned."""
    words = {"probe": PROBE, "setup": SETUP, "job": WORK}[caller.io.purpose].argv
    with anyio.fail_after(10):
        return await work.run(MACHINE, Job(words, **parts), caller.io)


@pytest.fixture
def caller(tmp_path: Path) -> Caller:
    return Caller(tmp_path)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str | bytes], bytes]:
    """The log of a real container, and what its job printed."""
    text = "one\n\ntwo  \n\tthree\r\n\nübrig\n\n"
    container = Container(tmp_path_factory.mktemp("pod"))
    container.link("printf", "/usr/bin/printf")
    plan = [
        PlannedJob(purpose="setup", argv=("sh", "-c", "echo set up; echo up >&2")),
        PlannedJob(purpose="job", argv=("printf", "%s", text)),
    ]
    container.start(
        jobs_command(api="http://127.0.0.1:9", nonce=NONCE, lifetime=60, jobs=plan, repeats=[0])
    )
    container.says("end job exited 0", times=2)
    container.stop()
    data = container.log_file.read_bytes().decode()
    return [*data.removesuffix("\n").split("\n")], text.encode()


class TestEndings:
    @pytest.mark.parametrize(
        ("ending", "outcome"),
        [
            ("exited 0", Outcome(state=JobState.EXITED, exit_code=0)),
            ("exited 137", Outcome(state=JobState.EXITED, exit_code=137)),
            ("timed-out", Outcome(state=JobState.TIMED_OUT)),
            (
                "not-started command not found: \x1b[31mx",
                Outcome(state=JobState.NOT_STARTED, message="command not found:  [31mx"),
            ),
            ("not-run", Outcome(state=JobState.NOT_STARTED, message=NOT_RUN)),
        ],
    )
    async def test_each_is_told_as_it_is(
        self, caller: Caller, ending: str, outcome: Outcome
    ) -> None:
        """In the broker's words, with nothing in them that a terminal would obey."""
        log = Log(printed(own("begin"), a_job("out", ending=ending)))

        assert await ask(reader(log, WORK), caller) == outcome
        assert bytes(caller.told) == b"out"

    @pytest.mark.parametrize("ending", ["exited 256", "exited -1", "exited", "flew away"])
    async def test_one_that_makes_no_sense_is_none(self, caller: Caller, ending: str) -> None:
        """What became of the job is then unknown, and no exit code is made up."""
        log = Log(printed(own("begin"), a_job(ending=ending)))

        assert (await ask(reader(log, WORK), caller)).state is JobState.LOST

    async def test_a_line_that_only_looks_like_one_is_output(self, caller: Caller) -> None:
        """It needs this order's nonce, and to be a line of its own."""
        forged = [
            own("end job exited 0", nonce="nonce-of-another")[1],
            f"said: GPUBROKER-LOG {NONCE} end job exited 0",
            f"GPUBROKER-LOG {NONCE} end job exited 0 or so",
            "GPUBROKER-LOG $nonce end $*",
        ]
        log = Log(printed(own("begin"), a_job(*forged[:2], forged[3], ending="exited 7")))

        outcome = await ask(reader(log, WORK), caller)

        assert outcome.exit_code == 7
        assert caller.told.decode().split("\n") == [*forged[:2], forged[3]]

    async def test_a_repetition_makes_up_for_a_lost_line(self, caller: Caller) -> None:
        """The last lines of a pod tell all endings once more."""
        lines = printed(own("begin"), a_job("x"))[:-1]
        log = Log([*lines, "", own("end job exited 3")[1]])

        assert (await ask(reader(log, WORK), caller)).exit_code == 3

    async def test_jobs_are_told_apart(self, tmp_path: Path) -> None:
        """Each gets its own output and ending, from where the one before was left."""
        lines = printed(
            own("begin"),
            [*own("start probe"), "L4, 23034", *own("end probe exited 0")],
            [*own("start setup"), "installing", *own("end setup exited 0")],
            "left over",
            a_job("result", ending="exited 2"),
        )
        log = Log(lines)
        work = reader(log, PROBE, SETUP, WORK)
        found = list[tuple[bytes, int | None]]()

        for purpose in ("probe", "setup", "job"):
            caller = Caller(tmp_path, purpose)
            outcome = await ask(work, caller)
            found.append((bytes(caller.told), outcome.exit_code))

        assert found == [(b"L4, 23034\n", 0), (b"installing\n", 0), (b"result", 2)]
        assert log.asked[0] is None
        assert None not in log.asked[1:]


class TestOutput:
    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    @settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        cuts=st.lists(
            st.builds(
                Connection,
                sends=st.integers(0, 6),
                repeats=st.integers(0, 4),
                ends=st.sampled_from(["quiet", "closed", "broken"]),
            )
        )
    )
    def test_it_is_the_same_however_the_log_is_cut(
        self,
        real: tuple[list[str | bytes], bytes],
        backend: str,
        cuts: list[Connection],
        tmp_path: Path,
    ) -> None:
        """Byte for byte, and once, wherever streams end and whatever they repeat."""
        lines, expected = real
        log = Log(lines, connections=[*cuts, Connection()])
        caller = Caller(tmp_path)
        work = LogWork(log, idle=0.01, pause=0)

        outcome = anyio.run(partial(work.run, MACHINE, Job(["x"]), caller.io), backend=backend)

        assert outcome == Outcome(state=JobState.EXITED, exit_code=0)
        assert bytes(caller.told) == expected

    async def test_it_comes_as_it_is_printed(self, caller: Caller) -> None:
        """And not when the job has ended; only the newline of each line waits for the next."""
        seen = list[bytes]()
        log = Log(printed(own("begin"), own("start job"), "epoch 1"))

        def print_more() -> None:
            seen.append(bytes(caller.told))
            log.lines += printed("epoch 2", own("end job exited 0"))

        log.on_look = print_more

        await ask(reader(log, WORK), caller)

        assert seen == [b"epoch 1"]
        assert bytes(caller.told) == b"epoch 1\nepoch 2\n"

    async def test_what_is_beyond_the_limit_is_counted(self, caller: Caller) -> None:
        """And goes no further."""
        log = Log(printed(own("begin"), a_job("12345", "67890")))

        outcome = await ask(reader(log, WORK), caller, output_limit=7)

        assert (bytes(caller.told), outcome.dropped) == (b"12345\n6", 4)

    async def test_lines_that_cannot_be_read_are_not_made_up(self, caller: Caller) -> None:
        """The outcome says how many there were."""
        lines = printed(own("begin"), own("start job"), "a")
        lines += [b"not JSON", b'{"source":"container"}', b"[" * 100_000, b'{"line":7}', b"7"]
        log = Log([*lines, "b", *own("end job exited 0")])

        outcome = await ask(reader(log, WORK), caller)

        assert outcome.exit_code == 0
        assert outcome.message == "5 lines of the log could not be read"
        assert bytes(caller.told) == b"a\nb\n"

    async def test_the_systems_lines_are_not_the_jobs(self, caller: Caller) -> None:
        """Where the vendor mixes them in."""
        system = b'{"source":"system","line":"pulling"}'
        log = Log([*printed(own("begin"), own("start job")), system, "x", *own("end job exited 0")])

        outcome = await ask(reader(log, WORK), caller)

        assert (bytes(caller.told), outcome.message) == (b"x\n", "")


class TestComingLate:
    async def test_another_process_finds_it_in_the_log(self, caller: Caller) -> None:
        """It knows neither the nonce nor the plan; the first line of the container's own counts."""
        log = Log(printed(own("begin"), a_job("out", ending="exited 5")))

        outcome = await ask(reader(log), caller)

        assert (outcome.exit_code, bytes(caller.told)) == (5, b"out")

    async def test_asked_again_it_is_read_again(self, tmp_path: Path) -> None:
        """From the beginning, for somebody who has nothing of it."""
        log = Log(printed(own("begin"), a_job("out")))
        work = reader(log, WORK)
        for _ in range(2):
            caller = Caller(tmp_path)

            assert (await ask(work, caller)).exit_code == 0
            assert bytes(caller.told) == b"out"

    @pytest.mark.parametrize(("kept", "left"), [(1, b""), (2, b"three"), (3, b"two\nthree")])
    async def test_a_beginning_that_is_gone_is_said_to_be(
        self, caller: Caller, kept: int, left: bytes
    ) -> None:
        """Nothing is made up for it."""
        lines = printed(own("begin"), a_job("one", "two", "three"))
        log = Log(lines, kept=kept)

        outcome = await ask(reader(log, WORK), caller)

        assert (outcome.exit_code, outcome.message) == (0, CUT)
        assert bytes(caller.told) == left

    async def test_what_stands_before_everything_is_not_taken_for_another_jobs(
        self, tmp_path: Path
    ) -> None:
        """The tail of a log may begin within the output of any job."""
        lines = printed("of set-up", own("end setup exited 0"), a_job("of the job"))
        caller = Caller(tmp_path)

        await ask(reader(Log(lines)), caller)

        assert bytes(caller.told) == b"of the job"


class TestLosses:
    @pytest.mark.parametrize("row", [None, {"status": "TERMINATED"}])
    async def test_a_pod_that_is_gone_is_lost(self, caller: Caller, row: object) -> None:
        """Once two looks agree."""
        log = Log(printed(own("begin"), own("start job"), "half"), rows=[row])

        outcome = await ask(reader(log, WORK), caller)

        assert (outcome.state, outcome.message) == (JobState.LOST, GONE)
        assert (bytes(caller.told), log.looks) == (b"half", 2)

    async def test_one_look_in_vain_is_none(self, caller: Caller) -> None:
        """A pod may be missing from one answer."""
        log = Log(
            printed(own("begin"), a_job()),
            connections=[Connection(sends=2), Connection()],
            rows=[None, UP],
        )

        assert (await ask(reader(log, WORK), caller)).exit_code == 0

    @pytest.mark.parametrize("status", ["EXITED", "ERROR"])
    async def test_a_pod_that_broke_down_is_an_error(self, caller: Caller, status: str) -> None:
        """Its host is to blame."""
        log = Log(printed(own("begin"), own("start job")), rows=[{"status": status}])

        with pytest.raises(ProviderError) as broken:
            await ask(reader(log, WORK), caller)

        assert (broken.value.kind, broken.value.scope) == (ErrorKind.HOST_BROKEN, Scope.HOST)

    @pytest.mark.parametrize("sign", ["begin", "again", "broken"])
    async def test_a_container_that_started_again_is_a_loss(
        self, caller: Caller, sign: str
    ) -> None:
        """Its log tells: the work is not run twice, and nobody waits for the first time's end."""
        log = Log(printed(own("begin"), own("start job"), "half", own(sign), a_job("twice")))

        outcome = await ask(reader(log, WORK), caller)

        message = BROKEN if sign == "broken" else AGAIN
        assert (outcome.state, outcome.message) == (JobState.LOST, message)
        assert bytes(caller.told) == b"half\n"

    async def test_a_job_that_had_ended_before_is_none(self, caller: Caller) -> None:
        """What is told again before the container says so counts."""
        log = Log(
            printed(own("begin"), own("start job"), "x", "", own("end job exited 9"), own("again"))
        )

        assert (await ask(reader(log, WORK), caller)).exit_code == 9

    @pytest.mark.parametrize(
        "later",
        [
            {**UP, "startedAt": "2026-11-20T09:20:00Z"},
            {**UP, "runtime": {"uptime": 3}},
        ],
        ids=["started later", "ran for less"],
    )
    async def test_the_vendor_tells_too(self, caller: Caller, later: dict[str, Any]) -> None:
        """Where the log does not: its beginning moves, or its uptime goes down."""
        log = Log(printed(own("begin"), own("start job")), rows=[UP, later])

        outcome = await ask(reader(log, WORK), caller)

        assert (outcome.state, outcome.message) == (JobState.LOST, AGAIN)

    async def test_but_only_once_its_log_was_read(self, caller: Caller) -> None:
        """The job may have ended before."""
        log = Log(
            printed(own("begin"), a_job()),
            connections=[
                Connection(sends=1, ends="closed"),
                Connection(sends=1, ends="broken"),
                Connection(),
            ],
            rows=[UP, {**UP, "startedAt": "2026-11-20T09:20:00Z"}],
        )

        assert (await ask(reader(log, WORK), caller)).exit_code == 0

    @pytest.mark.parametrize(
        "later",
        [
            {**UP, "startedAt": "2026-11-20T09:01:11Z"},
            {**UP, "startedAt": None, "runtime": None},
            {**UP, "startedAt": "soon", "runtime": {"uptime": 0}},
            {"runtime": "?"},
        ],
    )
    async def test_what_says_nothing_is_no_restart(
        self, caller: Caller, later: dict[str, Any]
    ) -> None:
        """Values that are missing, wrong, or a second off are known of this vendor."""
        lines = printed(own("begin"), own("start job"))
        log = Log(
            [*lines, *own("end job exited 0")],
            connections=[Connection(sends=2), Connection(sends=1), Connection()],
            rows=[UP, later],
        )

        assert (await ask(reader(log, WORK), caller)).exit_code == 0

    async def test_a_log_that_cannot_be_read_now_is_read_later(self, caller: Caller) -> None:
        """Neither a cut nor a refusal says anything about the job."""
        refused = [
            Connection(refused=transient("busy", kind=ErrorKind.RATE_LIMIT, retry_after=0.01)),
            Connection(refused=transient("bad gateway")),
            Connection(refused=transient("no such pod yet", kind=ErrorKind.BAD_REQUEST)),
            Connection(sends=0, ends="broken"),
        ]
        log = Log(
            printed(own("begin"), a_job("x")),
            connections=[*refused * 3, Connection()],
            rows=[transient("bad gateway"), UP],
        )

        assert (await ask(reader(log, WORK), caller)).exit_code == 0

    async def test_a_key_without_rights_is_an_error_at_once(self, caller: Caller) -> None:
        """It will not get better by itself."""
        refused = transient("denied", kind=ErrorKind.AUTH, scope=Scope.ACCOUNT)
        log = Log(connections=[Connection(refused=refused)])

        with pytest.raises(ProviderError) as denied:
            await ask(reader(log, WORK), caller)

        assert (denied.value.kind, len(log.asked)) == (ErrorKind.AUTH, 1)

    async def test_a_log_that_will_not_be_had_is_an_error_in_the_end(self, caller: Caller) -> None:
        """Refused time after time, although the pod is there."""
        refused = transient("no such path", kind=ErrorKind.BAD_REQUEST)
        log = Log(connections=[Connection(refused=refused)])

        with pytest.raises(ProviderError) as denied:
            await ask(reader(log, WORK), caller)

        assert denied.value.kind is ErrorKind.BAD_REQUEST
        assert len(log.asked) > 1

    async def test_cancelled_it_stops_reading(self, caller: Caller) -> None:
        """At once, and what was told before stays told."""
        log = Log(
            printed(own("begin"), own("start job"), "half"), connections=[Connection(ends="never")]
        )
        work = reader(log, WORK)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, work, caller)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()

        assert bytes(caller.told) == b"half"


class TestAsking:
    @pytest.mark.parametrize(
        "parts", [{"files": {"a": b""}}, {"outputs": "x"}, {"secrets": {"TOKEN": "s"}}]
    )
    async def test_nothing_can_be_sent_there(self, caller: Caller, parts: dict[str, Any]) -> None:
        """A job with files or secrets cannot be one that the pod runs by itself."""
        with pytest.raises(ProviderError) as refused:
            await ask(reader(Log(), WORK), caller, **parts)

        assert refused.value.kind is ErrorKind.BAD_REQUEST

    async def test_a_job_that_was_not_ordered_is_refused(self, tmp_path: Path) -> None:
        """Its outcome would be another job's."""
        work = reader(Log(), WORK)
        with pytest.raises(ProviderError, match="no other job"):
            await work.run(MACHINE, Job(["another"]), Caller(tmp_path).io)
        with pytest.raises(ProviderError, match="no other probe"):
            await ask(work, Caller(tmp_path, "probe"))

    async def test_jobs_are_asked_for_in_their_order(self, caller: Caller) -> None:
        """What is skipped would be read past."""
        with pytest.raises(ProviderError, match="before probe"):
            await ask(reader(Log(), PROBE, WORK), caller)

    async def test_a_pod_that_was_given_up_is_forgotten(self, caller: Caller) -> None:
        """Whoever asks after all finds what the log has."""
        log = Log(printed(own("begin"), a_job("out")))
        work = reader(log, PROBE, WORK)

        work.forget(POD)

        assert (await ask(work, caller)).exit_code == 0


class TestSnapshots:
    async def test_a_log_is_what_it_has_now(self) -> None:
        """The stream has no end; silence is taken for one."""
        log = Log(["one", b"nonsense", "two"])

        assert await snapshot(log, POD) == "one\ntwo"

    async def test_nobody_waits_long_for_one(self) -> None:
        """Not even where lines keep coming, or nothing ever comes."""
        log = Log(["one"], connections=[Connection(ends="never")])

        assert await snapshot(log, POD, patience=0.05) == "one"

    async def test_one_that_shows_that_work_began_is_enough(self) -> None:
        """It is not waited for what comes after."""
        log = Log(
            printed(own("begin"), own("start job"), "x"), connections=[Connection(ends="never")]
        )

        with anyio.fail_after(5):
            text = await reader(log, WORK).log(POD)

        assert NONCE in text
        assert not text.endswith("x")

    async def test_a_log_that_is_full_shows_it_too(self) -> None:
        """A job that prints much pushes out the lines that came first."""
        lines: list[str | bytes] = [f"line {number}" for number in range(TAIL + 10)]
        work = reader(Log([*own("begin"), *lines]), WORK)

        assert NONCE in await work.log(POD)

    async def test_one_that_is_not_does_not(self) -> None:
        """Nothing of ours in it means that nothing of ours has begun."""
        assert NONCE not in await reader(Log(["pulling", "image"]), WORK).log(POD)

    async def test_a_log_that_cannot_be_had_is_an_error(self) -> None:
        """And no empty log."""
        log = Log(connections=[Connection(refused=transient("not yet"))])

        with pytest.raises(ProviderError):
            await reader(log, WORK).log(POD)
