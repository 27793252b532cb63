"""The ground that emulated machines stand on: a folder that leaves nothing behind."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from gpubroker.testing.emulation import keeper
from gpubroker.testing.emulation.aside import aside


class Ground:
    """A temporary folder, and a keeper that ends what runs there when this process dies.

    The keeper is there from the first machine on.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gpubroker-emulation-"))
        self._keeper: subprocess.Popen[bytes] | None = None
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        self._ending: asyncio.Task[None] | None = None

    def place(self, name: str) -> Path:
        """The folder for one machine, not yet made."""
        if self._keeper is None:
            self._keeper = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-I", "-S", keeper.__file__, str(self.folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        return self.folder / name

    async def end(self, folder: str) -> None:
        """End every process of one machine. Many at a time cost little more than one."""
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        self._waiting.setdefault(folder, []).append(over)
        if self._ending is None or self._ending.done():
            self._ending = loop.create_task(self._end_waiting())
        await over

    def close(self) -> None:
        """End every process, remove the folder, and let the keeper go. Again: nothing."""
        if self._keeper is not None:
            keeper.end_processes({str(self.folder)})
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._keeper is not None:
            assert self._keeper.stdin is not None
            self._keeper.stdin.close()
            self._keeper.wait()
            self._keeper = None

    async def _end_waiting(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, {}
            await aside(keeper.end_processes, set(batch))
            for futures in batch.values():
                for future in futures:
                    if not future.done():
                        future.set_result(None)
