"""The one process that stands for a lease: starts its jobs, keeps their output, ends them all.

It is started with almost nothing imported, since its start-up is part of every lease's. Files are
the truth and FIFOs only say "look again", so any process of the user can take part at any time::

    runner.lock          locked as long as the runner lives; holds its pid
    inbox                FIFO: any byte makes the runner look at everything
    home/                $HOME of all jobs
    jobs/<id>/spec       what to run (see `jobs.Spec`); removed as soon as it was read
    jobs/<id>/cancel     exists: end this job
    jobs/<id>/stdout, stderr   output so far, up to the job's limit
    jobs/<id>/status     how it ended: state, exit code, bytes dropped, message; one per line
    jobs/<id>/wake       FIFO: a byte whenever there is news
    jobs/<id>/folder/    where the job runs

It ends, with everything it ever started, on SIGTERM and when the lease's deadline has passed.
"""

# A lease's start-up waits for this module, and pathlib alone would double it.
# ruff: noqa: PTH104, PTH108, PTH110, PTH113, PTH118, PTH119, PTH123, PTH208, SIM105
from __future__ import annotations

import os
import select
import sys
import time

from gpubroker_local import processes
from gpubroker_local.startup import adopt_orphans, signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

SPEC_VERSION = b"1"
_CHUNK = 64 * 1024
#: Seconds between SIGTERM and SIGKILL when a job is ended.
_GRACE = 2.0
#: Once a job's process has exited, its output ends with this many seconds of silence, or after
#: `_DRAIN_LIMIT`: what it left running may hold the pipes for ever.
_SILENCE = 0.2
_DRAIN_LIMIT = 2.0
#: The deadline is wall-clock time, which may jump: it is looked at this often (seconds).
_CLOCK_CHECK = 5.0
_DEFAULT_PATH = b"/usr/local/bin:/usr/bin:/bin"


class Stream:
    """One output pipe of a job, copied to its log up to a limit; the rest is counted."""

    def __init__(self, job: Job, source: int, log: str, room: int) -> None:
        self.job = job
        self.source = source
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.room = room
        self.dropped = 0

    def pump(self, buffer: bytearray) -> bool:
        """Copy what has come; ``False`` once the pipe has ended."""
        size = os.readv(self.source, [buffer])
        left = memoryview(buffer)[: min(size, self.room)]
        self.dropped += size - len(left)
        self.room -= len(left)
        try:
            while left:
                left = left[os.write(self.log, left) :]
        except OSError:  # a full disk must not end the job: its output is dropped from here on
            self.dropped += len(left)
            self.room = 0
        return size > 0

    def stop_keeping(self) -> None:
        """Drop what still comes: the job has ended, and only what it left running can write."""
        os.close(self.log)
        self.log = -1
        self.room = 0


class Job:
    """One job that has been started and has not ended yet."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.id = os.path.basename(path)
        self.pid = 0
        self.streams: list[Stream] = []
        self.exit_code: int | None = None
        self.ended_at = 0.0
        self.silent_at = 0.0
        self.state = "exited"
        self.times_out_at = float("inf")
        self.killed_at = float("inf")
        self._listener = -1

    def wake(self) -> None:
        """Tell whoever listens that there is news; nobody need listen."""
        try:
            if self._listener < 0:
                self._listener = os.open(f"{self.path}/wake", os.O_WRONLY | os.O_NONBLOCK)
            os.write(self._listener, b"!")
        except BlockingIOError:
            pass  # it has not read the last news yet
        except OSError:
            self.forget_listener()

    def forget_listener(self) -> None:
        """Look for a new listener next time."""
        if self._listener >= 0:
            os.close(self._listener)
            self._listener = -1

    def finish(self, state: str, message: str = "") -> None:
        """Say how it ended: last of all, since whoever waits goes by this."""
        code = "" if self.exit_code is None or state != "exited" else str(self.exit_code)
        dropped = sum(stream.dropped for stream in self.streams)
        text = f"{state}\n{code}\n{dropped}\n{message}\n".encode(errors="replace")
        for stream in self.streams:
            stream.stop_keeping()
        try:
            descriptor = os.open(f"{self.path}/status.new", os.O_WRONLY | os.O_CREAT, 0o600)
            os.write(descriptor, text)
            os.close(descriptor)
            os.rename(f"{self.path}/status.new", f"{self.path}/status")
        except OSError as problem:
            print(
                f"job {self.id}: its end is not on record: {problem}", file=sys.stderr, flush=True
            )
        self.wake()
        self.forget_listener()


class Runner:
    """Serves one lease's folder until it is told to end or the deadline has passed."""

    def __init__(self, folder: str, deadline: float) -> None:
        self.folder = folder
        self.deadline = deadline
        self.ending = False
        self._inbox = os.open(f"{folder}/inbox", os.O_RDWR | os.O_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._inbox, select.POLLIN)
        self._jobs: dict[int, Job] = {}
        self._groups: set[int] = set()
        self._streams: dict[int, Stream] = {}
        self._buffer = bytearray(_CHUNK)

    def prepare(self) -> None:
        """Take signals as news, and become the parent of whatever a job leaves behind."""
        signal.set_wakeup_fd(self._inbox, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGCHLD, _ignored)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        adopt_orphans()

    def _on_term(self, *_: object) -> None:
        self.ending = True

    def serve(self) -> None:
        """Run jobs until the end."""
        self._look()
        while True:
            news = False
            for descriptor, _ in self._poll.poll(self._patience() * 1000):
                if descriptor == self._inbox:
                    os.read(self._inbox, 4096)
                    news = True
                else:
                    self._copy(self._streams[descriptor])
            if self.ending or time.time() >= self.deadline:
                return
            if news:
                self._reap()
                self._look()
            self._attend()

    def _patience(self) -> float:
        """Seconds until something is due, whatever happens."""
        now = time.monotonic()
        due = [self.deadline - time.time(), _CLOCK_CHECK]
        for job in self._jobs.values():
            due += [job.times_out_at - now, job.killed_at - now]
            if job.ended_at:
                due.append(job.silent_at - now)
        return max(0.0, min(due))

    def _copy(self, stream: Stream) -> None:
        job, room = stream.job, stream.room
        if not stream.pump(self._buffer):
            self._poll.unregister(stream.source)
            del self._streams[stream.source]
            os.close(stream.source)
        if stream.room != room:
            job.wake()
        if job.ended_at:
            quiet = time.monotonic() + _SILENCE
            job.silent_at = min(quiet, job.ended_at + _DRAIN_LIMIT)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            job = self._jobs.get(pid)
            if job is not None:
                code = os.waitstatus_to_exitcode(status)
                job.exit_code = code if code >= 0 else 128 - code
                job.ended_at = time.monotonic()
                job.silent_at = job.ended_at + _SILENCE

    def _look(self) -> None:
        """Start jobs that were placed, and end those that are not wanted any more."""
        for name in os.listdir(f"{self.folder}/jobs"):
            path = f"{self.folder}/jobs/{name}"
            if os.path.exists(f"{path}/spec"):
                self._start(Job(path))
        for job in self._jobs.values():
            if job.state == "exited" and not job.ended_at and os.path.exists(f"{job.path}/cancel"):
                self._end(job, "cancelled")

    def _attend(self) -> None:
        """Enforce time limits; finish jobs whose output is complete."""
        now = time.monotonic()
        for job in list(self._jobs.values()):
            if now >= job.times_out_at and not job.ended_at:
                self._end(job, "timed out")
            if now >= job.killed_at or (job.ended_at and job.killed_at < float("inf")):
                kill_job(job)
                job.killed_at = float("inf")
            if job.ended_at and (
                now >= job.silent_at or not any(s.source in self._streams for s in job.streams)
            ):
                del self._jobs[job.pid]
                job.finish(job.state)

    def _end(self, job: Job, state: str) -> None:
        """Ask a job to end; `_attend` makes sure of it."""
        job.state = state
        job.times_out_at = float("inf")
        job.killed_at = time.monotonic() + _GRACE
        _signal_group(job.pid, signal.SIGTERM)  # not reaped yet: the group cannot be another's

    def _start(self, job: Job) -> None:
        argv = [b""]
        try:
            spec = _take_spec(job.path)
            if spec[0] != SPEC_VERSION:
                raise OSError(0, "this machine was started by another version of gpubroker")
            where, timeout, limit, words = spec[1], spec[2], int(spec[3]), int(spec[4])
            argv, env = spec[5 : 5 + words], spec[5 + words :]
            if os.path.exists(f"{job.path}/cancel"):
                job.finish("cancelled")
                return
            os.chdir(f"{self.folder}/home" if where == b"home" else f"{job.path}/folder")
            self._spawn(job, argv, dict(_pairs(env)), limit)
        except OSError as problem:
            job.finish("not started", _why_not_started(argv[0], problem))
        else:
            self._jobs[job.pid] = job
            self._groups.add(job.pid)
            if timeout:
                job.times_out_at = time.monotonic() + float(timeout)
        finally:
            os.chdir("/")

    def _spawn(self, job: Job, argv: list[bytes], env: dict[bytes, bytes], limit: int) -> None:
        """Start a job's program in the current folder, with its output on pipes to us."""
        sinks: list[int] = []
        try:
            for name in ("stdout", "stderr"):
                source, sink = os.pipe()
                sinks.append(sink)
                job.streams.append(Stream(job, source, f"{job.path}/{name}", limit))
            job.pid = _spawn(argv, env, *sinks)
        except OSError:
            for stream in job.streams:
                os.close(stream.source)
            raise
        finally:
            for sink in sinks:
                os.close(sink)
        for stream in job.streams:
            self._streams[stream.source] = stream
            self._poll.register(stream.source, select.POLLIN)

    def end_everything(self) -> None:
        """Kill all that ever descended from this process, and return when none is left.

        Only children are looked for, which nobody but this process can reap, so that no pid can
        have been reused; their own children then become ours, down to the last. They are killed by
        process group, all at once, or programs that keep forking would always be ahead.
        """
        if sys.platform != "linux":
            for group in self._groups:
                _signal_group(group, signal.SIGKILL)
        me = os.getpid()
        while _children_left():
            for pid in processes.pids():
                if processes.lineage(pid)[0] == me:
                    processes.kill_group(processes.group_of(pid))
                    os.kill(pid, signal.SIGKILL)
            if _children_left():
                time.sleep(0.001)


def _ignored(*_: object) -> None:
    """The wake-up that comes with a signal is all that matters."""


def kill_job(job: Job) -> None:
    """Kill what a job started, its main process and whatever left its session included."""

    def belongs(pid: int) -> bool:
        _, session = processes.lineage(pid)
        return session == job.pid or processes.belongings(pid).get(processes.JOB) == job.id

    if not job.ended_at or sys.platform != "linux":
        _signal_group(job.pid, signal.SIGKILL)
    for pid in processes.pids():
        if belongs(pid):
            processes.strike(pid, belongs)


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        pass  # all of it is gone, or has become another user's


def _children_left() -> bool:
    """Reap what has ended; whether any child is left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _take_spec(path: str) -> list[bytes]:
    """Read what to run and remove it from the disk: it holds the job's secrets."""
    for name in ("stdout", "stderr"):
        os.close(os.open(f"{path}/{name}", os.O_WRONLY | os.O_CREAT, 0o600))
    with open(f"{path}/spec", "rb") as file:
        text = file.read()
    os.unlink(f"{path}/spec")
    return text.split(b"\0")


def _pairs(env: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    for item in env:
        name, _, value = item.partition(b"=")
        yield name, value


def _spawn(argv: list[bytes], env: dict[bytes, bytes], stdout: int, stderr: int) -> int:
    """Start a program in the current folder, found through the job's own PATH."""
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, stdout, 1),
        (os.POSIX_SPAWN_DUP2, stderr, 2),
    ]
    restored = [signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGHUP]
    path = _found(argv[0], env.get(b"PATH", _DEFAULT_PATH))
    try:
        return os.posix_spawn(
            path,
            argv,
            env,
            file_actions=actions,
            setsid=True,
            setsigmask=[],
            setsigdef=restored,
        )
    except FileNotFoundError as problem:
        if os.path.exists(path):
            raise OSError(8, "its interpreter does not exist") from problem
        raise


def _found(program: bytes, path: bytes) -> bytes:
    """Where a program is. One that cannot be executed is named only if there is no other.

    Looked for before anything is started: each try at a name that is not there costs a process.
    """
    if b"/" in program:
        return program
    candidates = [os.path.join(folder or b".", program) for folder in path.split(b":")]
    existing = [candidate for candidate in candidates if os.path.isfile(candidate)]
    executable = [candidate for candidate in existing if os.access(candidate, os.X_OK)]
    return (executable or existing or candidates)[0]


def _why_not_started(program: bytes, problem: OSError) -> str:
    name = os.fsdecode(program)
    if isinstance(problem, FileNotFoundError):
        return f"command not found: {name}"
    if isinstance(problem, PermissionError):
        return f"not executable: {name}"
    return f"cannot run {name}: {problem.strerror}"


def main() -> None:
    """Serve the lease whose folder, deadline and descriptors the arguments name."""
    folder, deadline, lock, ready = sys.argv[1], float(sys.argv[2]), *map(int, sys.argv[3:5])
    for descriptor in (lock, ready):
        os.set_inheritable(descriptor, False)
    if os.getsid(0) != os.getpid():
        os.setsid()
    os.chdir("/")
    os.pwrite(lock, b"%d\n" % os.getpid(), 0)
    runner = Runner(folder, deadline)
    runner.prepare()
    try:
        os.write(ready, b"!")
    except BrokenPipeError:
        pass  # the broker is gone; a later one finds this lease by its folder
    os.close(ready)
    try:
        runner.serve()
    finally:
        runner.end_everything()
    os._exit(0)
