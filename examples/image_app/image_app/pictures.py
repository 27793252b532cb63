"""Finished pictures, in a folder that all processes of the app share."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

from gpubroker.integrations.comfyui import Image

_ID = re.compile(r"[A-Za-z0-9_-]{22}")
_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}


class Pictures:
    """The folder. What a picture is called there is chosen here, and by nobody else."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, image: Image) -> str:
        """Keep a picture. Its id cannot be guessed."""
        self._folder.mkdir(parents=True, exist_ok=True)
        name = secrets.token_urlsafe(16)
        draft = self._folder / f"{name}.new"
        draft.write_bytes(image.data)
        draft.rename(self._folder / f"{name}.{image.format}")
        return name

    def find(self, name: str) -> tuple[Path, str] | None:
        """Where a picture is, and its content type."""
        if not _ID.fullmatch(name):
            return None
        for ending, content_type in _TYPES.items():
            path = self._folder.absolute() / f"{name}.{ending}"
            if path.is_file():
                return path, content_type
        return None
