"""What the app is told by its environment. How money may be spent is told to gpubroker."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from gpubroker import Requirements, Service
from gpubroker.testing import comfyui_server

_HERE = Path(__file__).parent
#: Starts ComfyUI where its usual images have it.
_COMMAND = "python main.py --listen 127.0.0.1 --port {port}"
_TINY = "python3 comfyui_server.py --port {port} --seconds {seconds}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The environment variables ``IMAGE_APP_…``, each with a default.

    Attributes:
        presets: the folder of preset files.
        pictures: the folder that pictures are kept in.
        requirements: what machine is rented (``GPU``, ``IMAGE``, ``SETUP``, ``DISK``).
        service: how ComfyUI is started there (``COMMAND``, ``PORT``), or the tiny one (``TINY``,
            seconds that a picture takes).
        machines: how many there are at the most, in all processes together (``MACHINES``).
        queue: how many requests may wait in one process (``QUEUE``).
        keep_warm: seconds that a machine is kept when nobody uses it (``KEEP_WARM``); ``None``
            leaves that to the pool's own rule.
        timeout: seconds that one picture may take (``TIMEOUT``).
        upload: bytes that an uploaded picture may have (``UPLOAD_MB``).
        hosts: names under which visitors reach the app (``HOSTS``): under others it answers nothing,
            so that a page whose name leads here cannot use it.
    """

    presets: Path
    pictures: Path
    requirements: Requirements
    service: Service
    machines: int = 1
    queue: int = 20
    keep_warm: float | None = None
    timeout: float = 300.0
    upload: int = 20 * 1000**2
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost")

    @classmethod
    def read(cls, env: Mapping[str, str] | None = None) -> Self:
        """From the environment.

        Raises:
            InvalidValue, ValueError: one of them makes no sense.
        """
        told = os.environ if env is None else env

        def word(name: str, default: str = "") -> str:
            return told.get(f"IMAGE_APP_{name}") or default

        keep_warm = word("KEEP_WARM")
        return cls(
            presets=Path(word("PRESETS", str(_HERE.parent / "presets"))),
            pictures=Path(word("PICTURES", "pictures")),
            requirements=Requirements(
                gpu=word("GPU").split(",") if word("GPU") else (),
                image=word("IMAGE") or None,
                disk=word("DISK") or None,
                setup=word("SETUP") or None,
            ),
            service=_service(word("COMMAND", _COMMAND), word("PORT", "0"), word("TINY")),
            machines=int(word("MACHINES", "1")),
            queue=int(word("QUEUE", "20")),
            keep_warm=float(keep_warm) if keep_warm else None,
            timeout=float(word("TIMEOUT", "300")),
            upload=round(float(word("UPLOAD_MB", "20")) * 1000**2),
            hosts=tuple(word("HOSTS", "127.0.0.1,localhost").split(",")),
        )


def _service(command: str, port: str, tiny: str) -> Service:
    """ComfyUI on the machine; the tiny one is sent there first."""
    files: dict[str, Path] = {}
    if tiny:
        command = _TINY.replace("{seconds}", str(float(tiny)))
        files = {"comfyui_server.py": Path(comfyui_server.__file__)}
    return Service(
        shlex.split(command),
        int(port),
        files=files,
        ready="/system_stats",
        health="/system_stats",
    )
