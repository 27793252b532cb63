"""A client of ComfyUI's HTTP API."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import anyio
from anyio.from_thread import start_blocking_portal

from gpubroker.errors import InvalidValue
from gpubroker.integrations.comfyui import answers
from gpubroker.integrations.comfyui.failures import GenerationFailed, Why
from gpubroker.integrations.comfyui.images import Image, read_image
from gpubroker.integrations.comfyui.presets import Preset, Value
from gpubroker.integrations.comfyui.progress import Progress, ProgressCallback, Stage
from gpubroker.integrations.comfyui.workflow import Workflow

if TYPE_CHECKING:
    import httpx

#: Bytes of an answer in JSON: a history holds the whole workflow.
_JSON: Final = 32 * 1024 * 1024
#: Bytes of an uploaded image, and of one that comes back.
_IMAGE: Final = 64 * 1024 * 1024
#: Seconds that one request may be silent for, and that ending a workflow may take.
_SILENCE: Final = 30.0
_ENDING: Final = 5.0
#: Looks in a row that must find a workflow nowhere: it may move between two of them.
_LOOKS: Final = 3


class AsyncComfyUI:
    """A ComfyUI server at an address, for asyncio and trio.

    Args:
        url: where it is, such as that of a server on a lease.
        every: seconds between two looks how far a workflow is.
        patience: seconds for which it may be out of reach meanwhile: the way to it is made anew.
    """

    def __init__(self, url: str, *, every: float = 0.5, patience: float = 60.0) -> None:
        self._url = url
        self._every = every
        self._patience = patience

    async def generate(
        self,
        preset: Preset,
        inputs: Mapping[str, object] | None = None,
        *,
        on_progress: ProgressCallback | None = None,
        timeout: float = 600.0,  # noqa: ASYNC109
    ) -> list[Image]:
        """Have a preset's workflow run, and fetch the images that it makes.

        A caller who leaves takes the workflow out of the server's queue, or interrupts it.

        Args:
            preset: what to run.
            inputs: what to fill in, by the preset's names; images as bytes or paths.
            on_progress: called with each change of stage, or of the place in the queue.
            timeout: seconds for all of it.

        Returns:
            One image at the least. Each is whole, and really is a PNG, JPEG or WebP.

        Raises:
            InvalidValue: an input is missing, unknown or wrong. Nothing was sent.
            GenerationFailed: there are no images; ``error.why`` says what kind of failure it is.
            OSError: an image cannot be read here.
        """
        import httpx

        values = preset.values(inputs or {})
        pictures = {
            name: read_image(await _bytes(value))
            for name, value in values.items()
            if isinstance(value, bytes | Path)
        }
        one = _Told(on_progress)
        with anyio.move_on_after(timeout):
            async with httpx.AsyncClient(
                base_url=self._url, trust_env=False, timeout=_SILENCE
            ) as client:
                http = _Http(client)
                return await self._generate(http, preset, values, pictures, one)
        raise GenerationFailed(f"it took longer than {timeout:g} s", Why.TIMED_OUT)

    async def _generate(
        self,
        http: _Http,
        preset: Preset,
        values: Mapping[str, Value],
        pictures: Mapping[str, Image],
        told: _Told,
    ) -> list[Image]:
        names: dict[str, str] = {}
        for name, picture in pictures.items():
            told.tell(Progress(Stage.UPLOADING))
            names[name] = await http.upload(picture)
        workflow = preset.filled({**values, **names})
        wanted = await http.submit(workflow)
        try:
            made = await self._wait(http, wanted, workflow, told)
        except GenerationFailed:
            raise
        except BaseException:
            with anyio.move_on_after(_ENDING, shield=True):
                await http.end(wanted)
            raise
        told.tell(Progress(Stage.FETCHING))
        return [await http.fetch(one) for one in made]

    async def _wait(
        self, http: _Http, wanted: str, workflow: Workflow, told: _Told
    ) -> list[answers.Made]:
        nowhere, seen = 0, anyio.current_time()
        while nowhere < _LOOKS:
            try:
                history = await http.ask("GET", f"/history/{wanted}")
                if (made := answers.ended(history, wanted, workflow)) is not None:
                    return made
                place = answers.standing(await http.ask("GET", "/queue"), wanted)
            except GenerationFailed as error:
                overdue = anyio.current_time() - seen > self._patience
                if error.why is not Why.UNREACHABLE or overdue:
                    raise
            else:
                seen = anyio.current_time()
                if isinstance(place, Progress):
                    nowhere = 0
                    told.tell(place)
                else:
                    nowhere += 1
            await anyio.sleep(self._every)
        raise GenerationFailed("the server was started anew, and knows nothing of it", Why.LOST)


class ComfyUI:
    """A ComfyUI server at an address, for synchronous code. As `AsyncComfyUI`."""

    def __init__(self, url: str, *, every: float = 0.5, patience: float = 60.0) -> None:
        self._client = AsyncComfyUI(url, every=every, patience=patience)

    def generate(
        self,
        preset: Preset,
        inputs: Mapping[str, object] | None = None,
        *,
        on_progress: ProgressCallback | None = None,
        timeout: float = 600.0,
    ) -> list[Image]:
        """As `AsyncComfyUI.generate`; `on_progress` is called in another thread.

        An interrupt, such as Ctrl-C, interrupts the workflow too.
        """
        call = partial(
            self._client.generate, preset, inputs, on_progress=on_progress, timeout=timeout
        )
        with start_blocking_portal("asyncio", name="comfyui") as portal:
            return portal.call(call)


class _Told:
    """Hands on progress, and only what is new."""

    def __init__(self, callback: ProgressCallback | None) -> None:
        self._callback = callback
        self._last: Progress | None = None

    def tell(self, progress: Progress) -> None:
        if self._callback is not None and progress != self._last:
            self._last = progress
            self._callback(progress)


class _Http:
    """The requests, each with a limit on what it may answer."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def upload(self, picture: Image) -> str:
        """Put an image into the server's folder; its name in a workflow."""
        name = f"gpubroker-{hashlib.sha256(picture.data).hexdigest()[:32]}.{picture.format}"
        return answers.uploaded_name(
            await self.ask(
                "POST",
                "/upload/image",
                files={"image": (name, picture.data, picture.content_type)},
                data={"type": "input", "overwrite": "true"},
            )
        )

    async def submit(self, workflow: Workflow) -> str:
        """Queue a workflow; its id."""
        body = {"prompt": workflow.nodes, "client_id": uuid4().hex}
        status, answer = await self._json("POST", "/prompt", json=body)
        if status == 400:
            raise answers.refusal(answer, workflow)
        _check(status, "/prompt")
        return answers.prompt_id(answer)

    async def end(self, wanted: str) -> None:
        """Have a workflow not run, or not go on. Another one's is left alone."""
        await self.ask("POST", "/queue", json={"delete": [wanted]})
        place = answers.standing(await self.ask("GET", "/queue"), wanted)
        if isinstance(place, Progress) and place.stage is Stage.RUNNING:
            await self.ask("POST", "/interrupt", json={"prompt_id": wanted})

    async def fetch(self, made: answers.Made) -> Image:
        """An image that a workflow has made."""
        query = {"filename": made.filename, "subfolder": made.subfolder, "type": made.type}
        status, kind, data = await self._send("GET", "/view", _IMAGE, params=query)
        _check(status, "/view")
        try:
            image = read_image(data, made.filename)
        except InvalidValue as error:
            raise answers.bad(f"an image was not accepted: {error.problem}") from error
        if kind != image.content_type:
            raise answers.bad(f"an image was not accepted: it is no {kind[:40]!r}")
        return image

    async def ask(self, method: str, path: str, **request: Any) -> object:
        """What the server answers, read from JSON; ``None`` for nothing.

        Raises:
            GenerationFailed: it does not answer, or with an error.
        """
        status, answer = await self._json(method, path, **request)
        _check(status, path)
        return answer

    async def _json(self, method: str, path: str, **request: Any) -> tuple[int, object]:
        status, _, data = await self._send(method, path, _JSON, **request)
        try:
            return status, json.loads(data) if data.strip() else {}
        except (ValueError, RecursionError) as error:
            if status >= 400:
                return status, {}
            raise answers.bad(f"the server's answer to {path} is no JSON") from error

    async def _send(
        self, method: str, path: str, limit: int, **request: Any
    ) -> tuple[int, str, bytes]:
        """Status, content type and body."""
        import httpx

        data = bytearray()
        try:
            async with self._client.stream(method, path, **request) as response:
                async for piece in response.aiter_bytes():
                    data += piece
                    if len(data) > limit:
                        raise answers.bad(f"the server's answer to {path[:40]} has no end")
        except httpx.HTTPError as error:
            text = f"the server does not answer: {error or type(error).__name__}"
            raise GenerationFailed(text, Why.UNREACHABLE) from error
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        return response.status_code, kind, bytes(data)


def _check(status: int, path: str) -> None:
    if status >= 500:
        raise GenerationFailed(f"the server answered {path} with {status}", Why.UNREACHABLE)
    if status >= 300:
        raise answers.bad(f"the server answered {path} with {status}")


async def _bytes(value: bytes | Path) -> bytes:
    data = value if isinstance(value, bytes) else await anyio.Path(value).read_bytes()
    if len(data) > _IMAGE:
        raise InvalidValue("image", "…", f"it has more than {_IMAGE // 1024**2} MiB")
    return data
