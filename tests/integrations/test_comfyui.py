"""The client of ComfyUI, against a server that speaks its API."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from gpubroker import InvalidValue
from gpubroker.integrations.comfyui import (
    AsyncComfyUI,
    ComfyUI,
    GenerationFailed,
    Preset,
    Progress,
    Stage,
    Why,
    Workflow,
    read_image,
)
from gpubroker.testing.comfyui_server import picture

pytestmark = pytest.mark.anyio

PHOTO = picture(b"a photo")


async def queued(url: str, which: str) -> int:
    """How many workflows run, or wait."""
    async with httpx.AsyncClient(trust_env=False) as client:
        return len((await client.get(f"{url}/queue")).json()[which])


async def test_a_picture_is_made_of_what_was_filled_in(url: str, preset: Preset) -> None:
    """Uploaded, run, fetched; the same inputs make the same picture, and others another one."""
    stages: list[Progress] = []
    client = AsyncComfyUI(url, every=0.01)

    with anyio.fail_after(30):
        inputs = {"image": PHOTO, "prompt": "a dog", "seed": 7}
        [first] = await client.generate(preset, inputs, on_progress=stages.append)
        [again] = await client.generate(preset, inputs)
        [other] = await client.generate(preset, {**inputs, "seed": 8})

    assert (first.format, first.width, first.height) == ("png", 192, 192)
    assert first.name.startswith("ComfyUI_")
    assert first.name.endswith(".png")
    assert first.data == again.data != other.data
    assert stages[0] == Progress(Stage.UPLOADING)
    assert stages[-1] == Progress(Stage.FETCHING)


def test_synchronous_code_has_pictures_too(url: str, preset: Preset, tmp_path: Path) -> None:
    """The same without an event loop of one's own, and from a file."""
    (tmp_path / "in.png").write_bytes(PHOTO)
    stages: list[Progress] = []

    [image] = ComfyUI(url, every=0.01).generate(
        preset, {"image": tmp_path / "in.png"}, on_progress=stages.append, timeout=30
    )

    assert image.content_type == "image/png"
    assert str(stages[0]) == "uploading"


@pytest.mark.parametrize(
    ("told", "why", "words"),
    [
        (
            "!refuse",
            Why.REFUSED,
            r"refused the workflow: Positive prompt: Value not in list \(ckpt",
        ),
        ("!error", Why.FAILED, "Save Image failed: the model file is damaged"),
        ("!oom", Why.OUT_OF_MEMORY, "not enough memory for Save Image"),
        ("!interrupt", Why.INTERRUPTED, "interrupted on the server"),
        ("!nothing", Why.BAD_ANSWER, "without an image"),
        ("!truncated", Why.BAD_ANSWER, "cut short"),
        ("!text", Why.BAD_ANSWER, "not a PNG, JPEG or WebP"),
        ("!hostile", Why.BAD_ANSWER, "leads elsewhere"),
        ("!forget", Why.LOST, "started anew"),
    ],
)
async def test_what_goes_wrong_is_said_in_words(
    url: str, preset: Preset, told: str, why: Why, words: str
) -> None:
    """Each kind of failure by its name, with the node by the title that people gave it."""
    with anyio.fail_after(30), pytest.raises(GenerationFailed, match=words) as failure:
        await AsyncComfyUI(url, every=0.01).generate(preset, {"image": PHOTO, "prompt": told})

    assert failure.value.why is why


@pytest.mark.parametrize("url", [60.0], indirect=True)
async def test_whoever_leaves_takes_the_workflow_along(url: str, preset: Preset) -> None:
    """What waits is taken out, what runs is interrupted; another's is left alone."""
    client = AsyncComfyUI(url, every=0.01)
    leaving = anyio.CancelScope()
    stages: list[Progress] = []
    others = (0, 0)

    def note(progress: Progress) -> None:
        stages.append(progress)
        if progress.stage is Stage.QUEUED:
            leaving.cancel()

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.generate, preset, {"image": PHOTO})
            while not await queued(url, "queue_running"):
                await anyio.sleep(0.01)
            with leaving:
                await client.generate(preset, {"image": PHOTO}, on_progress=note)
            others = await queued(url, "queue_running"), await queued(url, "queue_pending")
            tasks.cancel_scope.cancel()
        while await queued(url, "queue_running"):
            await anyio.sleep(0.01)

    assert leaving.cancelled_caught
    assert stages[-1] == Progress(Stage.QUEUED, 1)
    assert others == (1, 0)


Answers = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answers], None]:
    """Has the client meet a server that answers as it is told."""

    def answer(handle: Answers) -> None:
        class Client(httpx.AsyncClient):
            def __init__(self, **options: Any) -> None:
                super().__init__(**options, transport=httpx.MockTransport(handle))

        monkeypatch.setattr(httpx, "AsyncClient", Client)

    return answer


Generate = Callable[[], Awaitable[object]]


@pytest.fixture
def generate(preset: Preset) -> Generate:
    """Asks that server for a picture."""
    client = AsyncComfyUI("http://127.0.0.1:1", every=0.001, patience=0.05)
    return lambda: client.generate(preset, {"image": PHOTO}, timeout=20)


ENDED = {"status": {"status_str": "success"}}


@pytest.mark.parametrize(
    ("history", "why", "words"),
    [
        ([], Why.LOST, "knows nothing"),
        ({"p": "?"}, Why.LOST, "knows nothing"),
        ({"p": {"status": {"status_str": "error"}}}, Why.FAILED, "does not say why"),
        (
            {"p": {**ENDED, "outputs": {"9": {"images": [{"filename": 3}]}}}},
            Why.BAD_ANSWER,
            "where",
        ),
        (
            {
                "p": {
                    **ENDED,
                    "outputs": {"9": {"images": [{"filename": "a.png", "type": "input"}]}},
                }
            },
            Why.BAD_ANSWER,
            "where",
        ),
        (
            {
                "p": {
                    **ENDED,
                    "outputs": {
                        "9": {"images": [{"filename": "a", "subfolder": "../x", "type": "temp"}]}
                    },
                }
            },
            Why.BAD_ANSWER,
            "leads elsewhere",
        ),
        (
            {
                "p": {
                    **ENDED,
                    "outputs": {"9": {"images": [{"filename": "a", "type": "output"}] * 65}},
                }
            },
            Why.BAD_ANSWER,
            "65 images",
        ),
    ],
)
async def test_nonsense_from_the_server_is_no_surprise(
    answering: Callable[[Answers], None],
    generate: Generate,
    history: object,
    why: Why,
    words: str,
) -> None:
    """Whatever it answers, what comes out is an error that says so, or an image."""

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/upload/image":
            return httpx.Response(200, json={"name": "x.png"})
        if request.url.path == "/prompt":
            return httpx.Response(200, json={"prompt_id": "p"})
        return httpx.Response(200, json=history if "history" in request.url.path else {})

    answering(handle)
    with pytest.raises(GenerationFailed, match=words) as failure:
        await generate()

    assert failure.value.why is why


@pytest.mark.parametrize(
    ("path", "response", "why"),
    [
        ("/upload/image", httpx.Response(200, json={"name": "../x"}), Why.BAD_ANSWER),
        ("/upload/image", httpx.Response(413), Why.BAD_ANSWER),
        ("/upload/image", httpx.Response(200, text="<html>"), Why.BAD_ANSWER),
        ("/prompt", httpx.Response(200, json={}), Why.BAD_ANSWER),
        ("/prompt", httpx.Response(400, text="?"), Why.REFUSED),
        ("/prompt", httpx.Response(502), Why.UNREACHABLE),
        ("/history/p", httpx.Response(502), Why.UNREACHABLE),
    ],
)
async def test_other_answers_than_the_right_one(
    answering: Callable[[Answers], None],
    generate: Generate,
    path: str,
    response: httpx.Response,
    why: Why,
) -> None:
    """Pages of proxies, refusals without a reason, and a server that stays away."""

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == path:
            return httpx.Response(response.status_code, content=response.content)
        return httpx.Response(200, json={"name": "x.png", "prompt_id": "p"})

    answering(handle)
    with pytest.raises(GenerationFailed) as failure:
        await generate()

    assert failure.value.why is why


async def test_time_runs_out(answering: Callable[[Answers], None], preset: Preset) -> None:
    """A picture that takes too long is one that failed, and it is interrupted."""
    asked: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        running = {"queue_running": [[1, "p"]]}
        return httpx.Response(200, json={"name": "x.png", "prompt_id": "p", **running})

    answering(handle)
    client = AsyncComfyUI("http://127.0.0.1:1", every=0.01)
    with pytest.raises(GenerationFailed, match=r"longer than 0\.1 s") as late:
        await client.generate(preset, {"image": PHOTO}, timeout=0.1)

    assert late.value.why is Why.TIMED_OUT
    assert asked[-1] == "/interrupt"


async def test_a_short_absence_is_waited_out(
    answering: Callable[[Answers], None], generate: Generate
) -> None:
    """A tunnel that is made anew is no reason to give a picture up."""
    asked = 0

    def handle(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        if "history" in request.url.path:
            asked += 1
            if asked < 4:
                raise httpx.ConnectError("refused")
            image = {"filename": "a.png", "subfolder": "x/y", "type": "output"}
            return httpx.Response(200, json={"p": {**ENDED, "outputs": {"9": {"images": [image]}}}})
        if request.url.path == "/view":
            assert dict(request.url.params) == image_query
            return httpx.Response(200, content=PHOTO, headers={"content-type": "image/png"})
        return httpx.Response(200, json={"name": "x.png", "prompt_id": "p"})

    image_query = {"filename": "a.png", "subfolder": "x/y", "type": "output"}
    answering(handle)

    assert await generate() == [read_image(PHOTO, "a.png")]


def test_a_preset_says_what_it_takes(preset: Preset) -> None:
    """Titles, defaults, a seed drawn anew; its workflow is not changed by filling it in."""
    values = preset.values({"image": PHOTO, "prompt": "a dog"})
    filled = preset.filled({**values, "image": "x.png"})

    assert (preset.name, preset.title) == ("portrait", "Portrait")
    assert preset.models == ("checkpoints/sd_xl_base_1.0.safetensors",)
    assert values["steps"] == 20
    assert values["seed"] != preset.values({"image": PHOTO})["seed"]
    assert filled.nodes["6"]["inputs"]["text"] == "a dog"
    assert filled.nodes["10"]["inputs"]["image"] == "x.png"
    assert preset.workflow.nodes["6"]["inputs"]["text"] == "a cat"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "image = None: must be given"),
        ({"image": "a name"}, "must be bytes or a path"),
        ({"image": PHOTO, "promt": "x"}, "did you mean 'prompt'"),
        ({"image": PHOTO, "steps": 51}, "1 to 50"),
        ({"image": PHOTO, "steps": True}, "must be an integer"),
        ({"image": PHOTO, "prompt": "x" * 201}, "characters"),
        ({"image": PHOTO, "seed": "7"}, "must be a seed"),
    ],
)
def test_inputs_are_checked_before_anything_is_sent(
    preset: Preset, given: dict[str, object], words: str
) -> None:
    """By name, with the value, and the nearest name that there is."""
    with pytest.raises(InvalidValue, match=words):
        preset.values(given)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('title = "Portrait"', 'titel = "Portrait"', "did you mean 'title'"),
        ('node = "Load Image"', 'node = "Load image"', "did you mean 'Load Image'"),
        ('input = "text"', 'input = "texts"', "did you mean 'text'"),
        ('input = "steps"', 'input = "positive"', "fed by another node"),
        ('kind = "seed"', 'kind = "seeds"', "did you mean 'seed'"),
        ("default = 20", "default = 99", "1 to 50"),
        ("[inputs.seed]", "[inputs.seed", "preset"),
    ],
)
def test_a_wrong_preset_file_is_refused(preset_file: Path, old: str, new: str, words: str) -> None:
    """When it is loaded, and not when the first customer asks for it."""
    preset_file.write_text(preset_file.read_text().replace(old, new))

    with pytest.raises(InvalidValue, match=words):
        Preset.load(preset_file)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no JSON"),
        ("[]", "no JSON object"),
        ("{}", "no nodes"),
        (json.dumps({"nodes": [], "links": []}), r"Export \(API\)"),
        (json.dumps({"3": {"inputs": {}}}), "class_type"),
    ],
)
def test_a_file_that_is_no_workflow_is_refused(text: str, words: str) -> None:
    """With what to do about it, where the editor's own format was saved."""
    with pytest.raises(InvalidValue, match=words):
        Workflow.parse(text)


def test_two_nodes_of_one_title_need_their_ids() -> None:
    """A title that says not enough is never guessed at."""
    node = {"class_type": "CLIPTextEncode", "inputs": {"text": ""}}
    workflow = Workflow({"6": node, "7": node})

    with pytest.raises(InvalidValue, match="say #6 or #7"):
        workflow.find("CLIPTextEncode")
    assert workflow.find("#7") == "7"
