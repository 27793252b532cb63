"""Jobs and their files, over any channel."""

from __future__ import annotations

from gpubroker.transport.work.running import run_job

__all__ = ["run_job"]
