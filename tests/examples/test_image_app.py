"""The image app: pictures on demand, what they cost, and nothing of a stranger's believed."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from gpubroker import Broker, InvalidValue, PoolFull
from gpubroker.testing.comfyui_server import picture
from image_app.studio import Studio
from image_app.words import in_words

PHOTO = picture(b"a photo")
OURS = {"X-Image-App": "1"}


def paint(app: Flask, preset: str = "restyle", photo: bytes = PHOTO, **fields: str) -> TestResponse:
    """What the page sends."""
    form: dict[str, Any] = {"preset": preset, "prompt": "a dog", **fields}
    if photo:
        form["image"] = (io.BytesIO(photo), "../../<script>.png")
    return app.test_client().post("/pictures", data=form, headers=OURS)


def lines(response: TestResponse) -> list[dict[str, Any]]:
    """The lines of its answer, up to the end."""
    return [json.loads(line) for line in response.get_data(as_text=True).splitlines()]


def test_pictures_come_from_one_warm_machine(app: Flask) -> None:
    """Progress, the picture, its cost and the month's; the second one rents nothing anew."""
    first, second = lines(paint(app, seed="7")), lines(paint(app, seed="8"))
    with app.test_client().get(f"/pictures/{first[-1]['picture']}") as shown:
        mimetype, data = shown.mimetype, shown.data
    costs = app.test_client().get("/costs").get_json()
    studio: Studio = app.extensions["studio"]
    studio.close()
    with Broker() as broker:
        leases = broker.leases(open_only=False)

    stages = [line.get("stage", "") for line in first]
    assert any(stage.startswith("on ") for stage in stages)
    assert stages[-2] == "fetching"
    assert (first[-1]["width"], first[-1]["height"]) == (192, 192)
    assert first[-1]["cost"].startswith("$")
    assert second[-1]["picture"] != first[-1]["picture"]
    assert (mimetype, data[:4]) == ("image/png", b"\x89PNG")
    assert costs["cap"] == "$50.00"
    assert first[-1]["costs"].keys() == costs.keys()
    assert len(leases) == 1
    assert not leases[0].state.open


def test_a_failure_is_said_in_words_and_the_app_goes_on(app: Flask) -> None:
    """What a node says stays in the log; a machine that lacks memory is replaced once."""
    refused = lines(paint(app, prompt="!refuse"))
    lacking = lines(paint(app, prompt="!oom"))
    well = lines(paint(app))
    with Broker() as broker:
        leases = broker.leases(open_only=False)

    assert refused[-1]["error"].startswith("ComfyUI does not accept this preset")
    assert lacking[-1]["error"] == "The GPU has not enough memory for this picture."
    assert "picture" in well[-1]
    assert len(leases) == 2


def test_when_the_budget_is_reached_it_says_so(
    app_environment: dict[str, str], app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And rents nothing."""
    monkeypatch.setenv("GPUBROKER_BUDGET_MONTH", "0.0001")
    from image_app import create_app

    poor = create_app()
    said = lines(paint(poor))
    poor.extensions["studio"].close()

    assert said[-1]["error"].startswith("The budget is reached.")


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"preset": "../restyle"}, 404, "no such preset"),
        ({"photo": b""}, 400, "image: must be given"),
        ({"photo": b"GIF89a"}, 400, "not a PNG, JPEG or WebP"),
        ({"photo": PHOTO[:-20]}, 400, "cut short"),
        ({"seed": "x"}, 400, "seed: must be a number"),
        ({"strength": "7"}, 400, "number: 0.1 to 1"),
        ({"prompt": "x" * 501}, 400, "characters"),
        ({"photo": b"x" * 200_001}, 413, "0.2 MB"),
    ],
)
def test_what_is_sent_is_checked_before_a_machine_is_asked_for(
    app: Flask, fields: dict[str, Any], status: int, words: str
) -> None:
    """Each with a status and a sentence."""
    response = paint(app, **fields)

    assert response.status_code == status
    assert words in response.get_json(force=True)["error"]


def test_another_site_cannot_spend_money(app: Flask) -> None:
    """Its form lacks the header that a page of ours adds; its name is not ours if it leads here."""
    form = {"preset": "imagine", "prompt": "x"}
    response = app.test_client().post("/pictures", data=form)
    named = app.test_client().post("http://evil.example/pictures", data=form, headers=OURS)

    assert response.status_code == 403
    assert named.status_code == 400


@pytest.mark.parametrize(
    "name", ["x", "..%2f..%2fetc%2fpasswd", "A" * 22, "%2e%2e/ledger.db", "A" * 21 + "\n"]
)
def test_only_pictures_are_served(app: Flask, name: str) -> None:
    """By ids that nobody can guess, and that lead nowhere else."""
    assert app.test_client().get(f"/pictures/{name}").status_code == 404


def test_the_page_runs_no_script_but_its_own(app: Flask) -> None:
    """Whatever a preset, a machine or a visitor says."""
    studio: Studio = app.extensions["studio"]
    studio.presets["restyle"] = type(studio.presets["restyle"])(
        name="restyle",
        workflow=studio.presets["restyle"].workflow,
        title="<script>alert(1)</script>",
    )

    page = app.test_client().get("/")

    assert "<script>alert" not in page.text
    assert "&lt;script&gt;alert(1)" in page.text
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]
    assert page.headers["X-Content-Type-Options"] == "nosniff"


def test_every_failure_has_words() -> None:
    """Also one that nobody has thought of, which tells nothing of itself."""
    assert in_words(PoolFull("20 wait")).startswith("Too many people")
    assert in_words(InvalidValue("seed", "x", "must be a number")) == "seed: must be a number."
    assert "secret" not in in_words(RuntimeError("secret"))
