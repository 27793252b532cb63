"""Fixtures: a tiny ComfyUI on loopback, and a preset for it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpubroker.integrations.comfyui import Preset
from gpubroker.testing.comfyui_server import serve

WORKFLOW: dict[str, Any] = {
    "3": {
        "class_type": "KSampler",
        "inputs": {"seed": 1, "steps": 20, "positive": ["6", 0], "latent_image": ["10", 0]},
        "_meta": {"title": "Sampler"},
    },
    "6": {
        "class_type": "CLIPTextEncode",
        "inputs": {"text": "a cat"},
        "_meta": {"title": "Positive prompt"},
    },
    "9": {
        "class_type": "SaveImage",
        "inputs": {"filename_prefix": "ComfyUI", "images": ["3", 0]},
        "_meta": {"title": "Save Image"},
    },
    "10": {
        "class_type": "LoadImage",
        "inputs": {"image": "example.png"},
        "_meta": {"title": "Load Image"},
    },
}

PRESET = """\
title = "Portrait"
description = "A picture from a picture."
workflow = "portrait.json"
models = ["checkpoints/sd_xl_base_1.0.safetensors"]

[inputs.image]
node = "Load Image"
input = "image"
kind = "image"

[inputs.prompt]
node = "Positive prompt"
input = "text"
default = "a portrait"
maximum = 200

[inputs.steps]
node = "Sampler"
input = "steps"
kind = "integer"
default = 20
minimum = 1
maximum = 50

[inputs.seed]
node = "#3"
input = "seed"
kind = "seed"
"""


@pytest.fixture
def preset_file(tmp_path: Path) -> Path:
    """A preset file, with its workflow beside it."""
    (tmp_path / "portrait.json").write_text(json.dumps(WORKFLOW))
    path = tmp_path / "portrait.toml"
    path.write_text(PRESET)
    return path


@pytest.fixture
def preset(preset_file: Path) -> Preset:
    """The preset of that file."""
    return Preset.load(preset_file)


@pytest.fixture(params=[0.0])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A tiny ComfyUI. Its parameter: seconds that a picture takes."""
    with serve(0, request.param) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()
        thread.join()
