"""A vendor made of answers: each test says what is answered to which request."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from gpubroker import ProviderError
from gpubroker.rest import Reply

Answer = httpx.Response | Exception
Said = Answer | Callable[[httpx.Request], Answer]


@dataclass
class Answers:
    """Answers requests from a list for each endpoint; the last answer is given again and again."""

    asked: list[httpx.Request] = field(default_factory=list[httpx.Request])
    events: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    _answers: dict[str, list[Said]] = field(default_factory=dict[str, list[Said]])

    def on(self, method: str, path: str, *answers: Said) -> None:
        """What to answer to a method and a path, one after the other."""
        self._answers[f"{method} {path}"] = list(answers)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answers = self._answers[f"{request.method} {request.url.path}"]
        said = answers.pop(0) if len(answers) > 1 else answers[0]
        answer = said(request) if callable(said) else said
        if isinstance(answer, Exception):
            raise answer
        # Each answer is read once.
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    def count(self, method: str, path: str) -> int:
        return sum((r.method, r.url.path) == (method, path) for r in self.asked)

    def sent(self, method: str, path: str) -> list[Any]:
        """The JSON that came with each of these requests."""
        return [
            json.loads(r.content)
            for r in self.asked
            if (r.method, r.url.path) == (method, path) and r.content
        ]


def said(status: int = 200, body: Any = None, **headers: str) -> httpx.Response:
    """An answer in JSON."""
    return httpx.Response(status, json={} if body is None else body, headers=headers)


def page(text: str = "<html><body>Attention required</body></html>", status: int = 403) -> Any:
    """An answer in HTML, as a guard or a gateway in front of the API gives it."""
    return httpx.Response(status, text=text, headers={"content-type": "text/html"})


def as_sent(value: Any) -> Any:
    """A value as it is read from an answer's JSON."""
    return Reply(200, {}, json.dumps(value).encode()).json()


def received(answer: httpx.Response) -> Reply:
    """An answer as the client hands it on."""
    return Reply(answer.status_code, dict(answer.headers), answer.content)


def meaning(error: ProviderError) -> tuple[str, str]:
    """An error's kind and scope, as their words."""
    return str(error.kind), str(error.scope)
