"""The pages. One request makes one picture: its answer is a stream of lines that ends with it."""

from __future__ import annotations

import atexit
import json
import queue
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from flask import Flask, Response, abort, render_template, request, send_file

from gpubroker import BrokerError, InvalidValue
from gpubroker.integrations.comfyui import Preset, PresetInput, read_image
from image_app.pictures import Pictures
from image_app.settings import Settings
from image_app.studio import Studio
from image_app.words import in_words

#: Seconds between two lines at the most, so that nobody between takes the stream for dead.
_BEAT = 1.0

#: Whatever a machine or a visitor says, the page runs no script but its own.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:;"
        " connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def create_app(settings: Settings | None = None) -> Flask:
    """The app, for gunicorn and for tests. It rents nothing until somebody wants a picture."""
    settings = settings or Settings.read()
    studio = Studio(settings)
    pictures = Pictures(settings.pictures)
    atexit.register(studio.close)
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = settings.upload
    app.config["TRUSTED_HOSTS"] = list(settings.hosts)
    app.extensions["studio"] = studio

    @app.get("/")
    def page() -> str:
        return render_template("index.html", presets=studio.presets.values())

    @app.get("/costs")
    def costs() -> Mapping[str, Any]:
        return _spending(studio)

    @app.post("/pictures")
    def paint() -> Response:
        # A page of another site can send a form here, but not this header.
        if request.headers.get("X-Image-App") != "1":
            abort(403)
        preset = studio.presets.get(request.form.get("preset", ""))
        if preset is None:
            return _refused("There is no such preset.", 404)
        try:
            inputs = _inputs(preset)
            preset.values(inputs)
        except InvalidValue as error:
            return _refused(in_words(error), 400)
        lines = _lines(app, studio, pictures, preset, inputs)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return Response(lines, mimetype="application/x-ndjson", headers=headers)

    @app.get("/pictures/<name>")
    def picture(name: str) -> Response:
        found = pictures.find(name)
        if found is None:
            abort(404)
        path, content_type = found
        return send_file(path, mimetype=content_type, max_age=86400)

    @app.errorhandler(413)
    def too_large(_: Exception) -> Response:
        return _refused(f"A picture may have {settings.upload / 1e6:g} MB.", 413)

    @app.after_request
    def guard(response: Response) -> Response:
        response.headers.update(_HEADERS)
        return response

    return app


def _refused(words: str, status: int) -> Response:
    return Response(json.dumps({"error": words}), status, mimetype="application/json")


def _inputs(preset: Preset) -> dict[str, object]:
    """What the form gives, as the preset wants it; what was left empty is left out.

    Raises:
        InvalidValue: it cannot be read so.
    """
    found: dict[str, object] = {}
    for name, wanted in preset.inputs.items():
        if wanted.kind == "image":
            upload = request.files.get(name)
            data = b"" if upload is None else upload.read()
            if data:
                read_image(data)
                found[name] = data
        elif wanted.kind == "boolean":
            found[name] = name in request.form
        elif text := request.form.get(name, "").strip():
            found[name] = _value(name, wanted, text)
    return found


def _value(name: str, wanted: PresetInput, text: str) -> object:
    try:
        if wanted.kind in ("integer", "seed"):
            return int(text)
        return float(text) if wanted.kind == "number" else text
    except ValueError:
        raise InvalidValue(name, text, "must be a number") from None


def _lines(
    app: Flask, studio: Studio, pictures: Pictures, preset: Preset, inputs: Mapping[str, object]
) -> Iterator[str]:
    """Progress, and at last the picture or what went wrong; each one line of JSON."""
    said: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def work() -> None:
        try:
            painted = studio.paint(preset, inputs, lambda text: said.put({"stage": text}))
            image = painted.image
            done = {"picture": pictures.put(image), "width": image.width, "height": image.height}
            bill = {"lease": painted.lease, "cost": str(painted.cost), "costs": _spending(studio)}
            said.put({**done, **bill})
        except BrokerError as error:
            app.logger.warning("no picture: %s: %s", type(error).__name__, error)
            said.put({"error": in_words(error)})
        except Exception:
            app.logger.exception("no picture")
            said.put({"error": in_words(Exception())})

    # A thread of its own: a visitor who leaves must not leave a machine half-used.
    threading.Thread(target=work, name="picture").start()
    begun = False
    while True:
        try:
            line = said.get(timeout=_BEAT)
            begun = True
        except queue.Empty:
            line = {} if begun else {"stage": f"waiting for a machine: {studio.news}"}
        yield json.dumps(line) + "\n"
        if "picture" in line or "error" in line:
            return


def _spending(studio: Studio) -> dict[str, str | None]:
    spent = studio.spending()
    cap = None if spent.cap is None else str(spent.cap)
    return {"today": str(spent.today), "month": str(spent.month), "cap": cap}
