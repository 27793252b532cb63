"""Work over SSH against bare ``ssh``, both against the system's own sshd on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import anyio

from benchmarks.figures import Figure
from gpubroker import Job, JobIO, Outcome, Route
from gpubroker.transport import run_job
from gpubroker.transport.receive import Receiver
from gpubroker.transport.ssh import LeaseKey, SshChannel, open_channel

_SSHD: Final = "/usr/sbin/sshd"
_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Server:
    """The system's sshd on a port of this machine, and what lets us in."""

    folder: Path
    key: LeaseKey
    port: int

    def ssh(self, command: str) -> list[str]:
        """A bare ``ssh`` through its own control master."""
        return [
            *("ssh", "-F", "none", "-T", "-S", str(self.folder / "bare"), "-p", str(self.port)),
            *("-i", str(self.key.private), "-o", "BatchMode=yes"),
            *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
            *("-o", "LogLevel=ERROR", "root@127.0.0.1", command),
        ]


def over_ssh(rounds: int, home: Path) -> list[Figure]:
    """Short commands, and one large file each way."""
    if os.geteuid() != 0 or not Path(_SSHD).exists() or shutil.which("ssh") is None:
        return []
    size = 1024 if rounds > 1 else 64
    folder = Path("/tmp") / home.name[-12:]
    folder.mkdir(mode=0o700)
    try:
        return anyio.run(_measure, rounds, folder, size)
    finally:
        shutil.rmtree(folder)


async def _measure(rounds: int, folder: Path, size: int) -> list[Figure]:
    key = await LeaseKey.make(folder / "key")
    with _sshd(folder, key) as server, _bare_master(server):
        big = folder / "big"
        big.write_bytes(os.urandom(_MIB) * size)
        routes = [Route("127.0.0.1", server.port)]
        async with open_channel(routes, key=key, folder=folder) as channel:
            commands = await _commands(channel, server, 60 if rounds > 1 else 10)
            files = [await _both_ways(channel, server, big, n) for n in range(rounds)]
    up, bare_up, down, bare_down = (median(column) for column in zip(*files, strict=True))
    bare = "`tar | ssh` through a control master"
    return [
        commands,
        Figure(
            what=f"{size} MiB to the machine, and a job",
            value=up,
            unit="s",
            beside=bare,
            other=bare_up,
            limit=1.5,
            of_other=True,
            note=f"{size / up:.0f} MiB/s, checksum compared",
        ),
        Figure(
            what=f"{size} MiB back from a job, synced to disk",
            value=down,
            unit="s",
            beside=bare,
            other=bare_down,
            limit=1.5,
            of_other=True,
            note=f"{size / down:.0f} MiB/s, checksum compared",
        ),
    ]


async def _commands(channel: SshChannel, server: Server, count: int) -> Figure:
    ours: list[float] = []
    bare: list[float] = []
    for _ in range(count):
        ours.append(await _timed(lambda: _true(channel)))
        bare.append(_timed_run(server.ssh("true")))
    return Figure(
        what="a command over a warm connection",
        value=median(ours) * 1000,
        unit="ms",
        beside="`ssh` through a control master",
        other=median(bare) * 1000,
        limit=2,
        of_other=True,
    )


async def _true(channel: SshChannel) -> None:
    async with channel.execute("true") as execution:
        await execution.stdin.aclose()
        if await execution.wait() != 0:
            raise RuntimeError("true failed")


async def _both_ways(
    channel: SshChannel, server: Server, big: Path, number: int
) -> tuple[float, float, float, float]:
    folder = server.folder
    (folder / "there").mkdir(exist_ok=True)
    into, out_of = f"tar -xf - -C {folder}/there", f"tar -cf - -C {folder} big"
    bare_up = _timed_run(["sh", "-c", f'{out_of} | "$@"', "sh", *server.ssh(into)])
    up = await _timed(
        lambda: _job(channel, folder, Job(["true"], files={"big": big}), f"up{number}")
    )
    into = f"tar -xf - -C {folder}/there && sync {folder}/there/big"
    bare_down = _timed_run(["sh", "-c", f'"$@" | ({into})', "sh", *server.ssh(out_of)])
    link = Job(["ln", str(big), "big"], outputs=["big"])
    down = await _timed(lambda: _job(channel, folder, link, f"down{number}"))
    return up, bare_up, down, bare_down


async def _job(channel: SshChannel, folder: Path, job: Job, job_id: str) -> Outcome:
    receiver = Receiver(folder / "results", token=job_id)
    outcome = await run_job(channel, job, JobIO(job_id=job_id, env={}, receiver=receiver))
    receiver.commit()
    shutil.rmtree(folder / "results", ignore_errors=True)
    if outcome.exit_code != 0:
        raise RuntimeError(f"the job failed: {outcome}")
    return outcome


async def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    await work()  # type: ignore[misc]
    return time.perf_counter() - began


def _timed_run(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return time.perf_counter() - began


@contextmanager
def _sshd(folder: Path, key: LeaseKey) -> Generator[Server]:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    home, host_key, allowed = folder / "home", folder / "host_key", folder / "authorized_keys"
    home.mkdir()
    allowed.write_text(key.public + "\n")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host_key)], check=True)
    configuration = folder / "sshd_config"
    configuration.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {host_key}\nStrictModes no\nUsePAM no\n"
        f"AuthorizedKeysFile {allowed}\nPidFile none\nPrintMotd no\nPermitRootLogin yes\n"
        "SetEnv SHLVL=2\n"  # or bash reads ~/.bashrc for each command
        f'ForceCommand export HOME={home}; cd; exec sh -c "$SSH_ORIGINAL_COMMAND"\n'
    )
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    process = subprocess.Popen([_SSHD, "-D", "-f", str(configuration)])
    try:
        for _ in range(500):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
            except OSError:
                time.sleep(0.01)
            else:
                break
        yield Server(folder, key, port)
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _bare_master(server: Server) -> Generator[None]:
    words = server.ssh("")
    subprocess.run(
        [*words[:-2], "-o", "ControlPersist=yes", "-M", "-f", "-N", words[-2]], check=True
    )
    try:
        yield
    finally:
        subprocess.run([*words[:-2], "-O", "exit", words[-2]], check=True, capture_output=True)
