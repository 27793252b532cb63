"""ComfyUI on a lease: a preset, inputs by name, and images back that can be trusted to be images.

::

    preset = Preset.load("presets/portrait.toml")
    with lease.service(Service([*COMMAND, "--port", "8188"], 8188, ready="/system_stats")) as server:
        [image] = ComfyUI(server.url).generate(preset, {"image": Path("in.png"), "seed": 7})

A preset is a file: a workflow as ComfyUI exports it ("Export (API)"), and names for the inputs of
its nodes that an app fills in. How far a workflow is, is found out by asking, so that no
dependency on WebSockets is needed: it tells queued from running, but no steps. The server's
answers are never trusted: every size, name, type and picture is checked.
"""

from __future__ import annotations

from gpubroker.integrations.comfyui.client import AsyncComfyUI, ComfyUI
from gpubroker.integrations.comfyui.failures import GenerationFailed, Why
from gpubroker.integrations.comfyui.images import Image, read_image
from gpubroker.integrations.comfyui.presets import Preset, PresetInput
from gpubroker.integrations.comfyui.progress import Progress, Stage
from gpubroker.integrations.comfyui.workflow import Workflow

__all__ = [
    "AsyncComfyUI",
    "ComfyUI",
    "GenerationFailed",
    "Image",
    "Preset",
    "PresetInput",
    "Progress",
    "Stage",
    "Why",
    "Workflow",
    "read_image",
]
