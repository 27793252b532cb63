"""The image app as it is served: gunicorn's processes, the sandbox, and a browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from gpubroker import Broker
from gpubroker.testing.comfyui_server import picture
from gpubroker.transport.ssh import missing_client

pytest.importorskip("asyncssh", reason="the extra sandbox is not installed")
if (problem := missing_client()) is not None:
    pytest.skip(problem, allow_module_level=True)

pytestmark = pytest.mark.deep

APP = Path(__file__).parents[2] / "examples/image_app"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

Serve = Callable[..., str]


def started(home: Path, **env: str) -> subprocess.Popen[str]:
    """The app in the sandbox, with two processes."""
    return subprocess.Popen(
        [sys.executable, "-m", "image_app", "--sandbox", "--port", "0"],
        cwd=APP,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "IMAGE_APP_PICTURES": str(home / "pictures"),
            "IMAGE_APP_KEEP_WARM": "120",
            "IMAGE_APP_TINY": "0.5",
            **env,
        },
        text=True,
        stderr=subprocess.PIPE,
    )


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Serve]:
    """Starts the app in the sandbox with two processes; gives its address."""
    programs: list[subprocess.Popen[str]] = []

    def serve(**env: str) -> str:
        program = started(tmp_path, **env)
        programs.append(program)
        assert program.stderr is not None
        for line in program.stderr:
            if found := re.search(r"Listening at: (http://\S+)", line):
                # Read on, so that it never waits for a reader.
                threading.Thread(target=program.stderr.read, daemon=True).start()
                return found[1]
        raise AssertionError("it does not serve")

    yield serve
    for program in programs:
        program.terminate()
        program.wait(90)
        assert program.stderr is not None
        program.stderr.close()


def test_the_sandbox_says_where_to_look_and_what_is_left(tmp_path: Path) -> None:
    """Its ledger is thrown away with it, so that both are told while it is there."""
    program = started(tmp_path)
    assert program.stderr is not None
    lines: list[str] = []
    try:
        while not (lines and "Listening at" in lines[-1]):
            lines.append(program.stderr.readline())
            assert lines[-1], "it does not serve"
        painted(lines[-1].split()[-2], "a dog")
        (ledger,) = re.findall(r"gpubroker --ledger (\S+) ps", "".join(lines))
        with Broker(ledger=ledger, sweep=False) as broker:
            (lease,) = broker.leases()
    finally:
        program.terminate()
        _, rest = program.communicate(timeout=90)

    assert lease.pool == "image-app"
    assert re.search(
        r"^sandbox: \$[0-9.]+ of play money were spent; no machine bills$", rest, re.MULTILINE
    )


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[WebDriver]:
    """Chromium without a window, and with nothing of the user's."""
    if BROWSER is None or DRIVER is None:
        pytest.skip("Chromium and its driver are not installed")
    options = ChromeOptions()
    options.binary_location = BROWSER
    for option in (*OPTIONS, f"--user-data-dir={tmp_path / 'browser'}"):
        options.add_argument(option)
    # The driver is named, so that nothing is looked for elsewhere.
    driver = Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def painted(url: str, prompt: str) -> dict[str, Any]:
    """The last line of a request's answer."""
    response = httpx.post(
        f"{url}/pictures",
        data={"preset": "imagine", "prompt": prompt},
        headers={"X-Image-App": "1"},
        timeout=120,
        trust_env=False,
    )
    return dict(json.loads(response.text.splitlines()[-1]))


def test_two_processes_share_one_machine(served: Serve) -> None:
    """Eight requests at once, in gunicorn's two workers: one machine, and all get their picture."""
    url = served()

    with ThreadPoolExecutor(8) as threads:
        last = list(threads.map(partial(painted, url), [f"dog {n}" for n in range(8)]))
    costs = [line["costs"] for line in last]
    spent = httpx.get(f"{url}/costs", trust_env=False).json()

    assert len({line["picture"] for line in last}) == 8
    assert len({line["lease"] for line in last}) == 1
    assert {cost["cap"] for cost in costs} == {"$200.00"}
    assert spent["today"] == spent["month"]


def test_a_visitor_gets_a_picture(served: Serve, browser: WebDriver, tmp_path: Path) -> None:
    """Choosing a preset and a photo, progress, the picture, what it cost; and what goes wrong."""
    (tmp_path / "photo.png").write_bytes(picture(b"a photo"))
    browser.get(served())
    wait = WebDriverWait(browser, 90)

    def first(kind: str) -> WebElement:
        return wait.until(lambda page: page.find_element(By.CSS_SELECTOR, kind))

    browser.find_element(By.CSS_SELECTOR, "select option[value=restyle]").click()
    fields = browser.find_element(By.CSS_SELECTOR, "fieldset[data-preset=restyle]")
    fields.find_element(By.NAME, "image").send_keys(str(tmp_path / "photo.png"))
    browser.find_element(By.TAG_NAME, "button").click()
    progress = first("figure figcaption").text
    done = first("figure.done")
    picture_at = done.find_element(By.TAG_NAME, "img").get_attribute("src")
    costs = browser.find_element(By.ID, "costs").text

    prompt = fields.find_element(By.NAME, "prompt")
    prompt.clear()
    prompt.send_keys("!error")
    browser.find_element(By.TAG_NAME, "button").click()
    failed = first("figure.failed")

    assert re.match(r"(sending|waiting|on |uploading).* \(\d+ s\)", progress)
    assert re.search(r"/pictures/[\w-]{22}$", picture_at or "")
    assert re.fullmatch(r"this picture: \$\d+\.\d+", done.text)
    assert re.fullmatch(r"today \$[\d.]+, this month \$[\d.]+ of \$200\.00", costs)
    assert failed.text == "ComfyUI failed at this picture."


def test_whoever_looks_sees_nothing_of_another_preset(served: Serve, browser: WebDriver) -> None:
    """Fields of a preset that is not chosen are neither shown nor sent."""
    browser.get(served())

    def shown() -> list[str]:
        fields = browser.find_elements(By.TAG_NAME, "fieldset")
        return [str(one.get_attribute("data-preset")) for one in fields if one.is_displayed()]

    before = shown()
    browser.find_element(By.CSS_SELECTOR, "select option[value=restyle]").click()

    assert (before, shown()) == (["imagine"], ["restyle"])


def edges(element: Any) -> tuple[float, float]:
    """The left and the right edge of an element of the page."""
    box = element.rect
    return box["x"], box["x"] + box["width"]


def test_the_form_and_the_pictures_do_not_overlap(served: Serve, browser: WebDriver) -> None:
    """Whatever a field would like to be as wide as."""
    browser.get(served())
    Select(browser.find_element(By.ID, "preset")).select_by_value("restyle")
    fields = browser.find_elements(By.CSS_SELECTOR, "#form :is(input, select, textarea, button)")
    shown = [field for field in fields if field.is_displayed()]
    left, _ = edges(browser.find_element(By.ID, "work"))

    assert len(shown) == 6
    assert [field.text for field in shown if edges(field)[1] > left] == []
