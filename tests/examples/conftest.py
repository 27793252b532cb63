"""Fixtures: the image app's environment, all of it in the test's own folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from image_app import create_app


@pytest.fixture
def app_environment(tmp_path: Path) -> dict[str, str]:
    """This machine as the provider, and a tiny ComfyUI on it."""
    return {
        "HOME": str(tmp_path),
        "GPUBROKER_LEDGER": str(tmp_path / "ledger.db"),
        "GPUBROKER_LOCAL_DIRECTORY": str(tmp_path / "leases"),
        "GPUBROKER_LOCAL_LOCK_DIRECTORY": str(tmp_path / "cards"),
        "GPUBROKER_LOCAL_PRICE": "0.36",
        "GPUBROKER_BUDGET_MONTH": "50",
        "GPUBROKER_BUDGET_JOB": "5",
        "IMAGE_APP_PICTURES": str(tmp_path / "pictures"),
        "IMAGE_APP_TINY": "0.05",
        "IMAGE_APP_KEEP_WARM": "60",
        "IMAGE_APP_UPLOAD_MB": "0.2",
    }


@pytest.fixture
def app(app_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    """The app, in this process."""
    for name, value in app_environment.items():
        monkeypatch.setenv(name, value)
    made = create_app()
    yield made
    made.extensions["studio"].close()
