"""A person with an account."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from tests.providers.machines import SshKey, eventually

from gpubroker_runpod.emulator import RunPodEmulator

__all__ = ["Account", "Event", "SshKey", "account_of", "container", "eventually"]

L4 = "NVIDIA L4"
Row = dict[str, Any]


@dataclass(frozen=True)
class Event:
    """One event of a stream of logs."""

    id: str
    data: Row

    @property
    def line(self) -> str:
        """What was printed."""
        return str(self.data["line"])


@dataclass(frozen=True)
class Account:
    """What a person with the account key does over HTTP."""

    cloud: RunPodEmulator
    http: httpx.Client

    def gpus(self, **query: Any) -> list[Row]:
        """The catalogue, with what is free for pods."""
        wanted = {"include": "AVAILABILITY", "product": "POD", **query}
        answer = self.http.get("/v2/catalog/gpus", params=wanted)
        assert answer.status_code == 200, answer.text
        rows: list[Row] = answer.json()["gpus"]
        return rows

    def gpu(self, card: str = L4, **query: Any) -> Row:
        """One type of the catalogue."""
        return next(row for row in self.gpus(**query) if row["id"] == card)

    def create(self, **body: Any) -> httpx.Response:
        """Order a pod."""
        wanted = {"name": "mine", "image": "ubuntu:24.04", "gpu": {"id": L4}, "disk": 20}
        return self.http.post("/v2/pods", json={**wanted, **body})

    def order(self, **body: Any) -> str:
        """Order a pod: its id."""
        answer = self.create(**body)
        assert answer.status_code == 201, answer.text
        pod: str = answer.json()["id"]
        return pod

    def rent(self, **body: Any) -> str:
        """Order a pod, and wait until it runs: its id."""
        pod = self.order(**body)
        self.until(pod, lambda row: row["status"] == "RUNNING")
        return pod

    def show(self, pod: str) -> Row:
        """One pod; the refusal, if there is none."""
        row: Row = self.http.get(f"/v2/pods/{pod}").json()
        return row

    def listed(self, **query: str) -> list[Row]:
        """The pods of the account."""
        answer = self.http.get("/v2/pods", params=query)
        assert answer.status_code == 200, answer.text
        rows: list[Row] = answer.json()["pods"]
        return rows

    def until(self, pod: str, holds: Callable[[Row], object]) -> Row:
        """Wait until something holds of a pod."""
        found: list[Row] = []

        def look() -> bool:
            row = self.show(pod)
            if "id" in row and holds(row):
                found.append(row)
            return bool(found)

        eventually(look)
        return found[0]

    def delete(self, pod: str) -> httpx.Response:
        """End one pod."""
        return self.http.delete(f"/v2/pods/{pod}")

    def act(self, pod: str, action: str) -> httpx.Response:
        """Let something happen to a pod."""
        return self.http.post(f"/v2/pods/{pod}/action", json={"action": action})

    @contextmanager
    def logs(
        self, pod: str, *, after: str | None = None, **query: Any
    ) -> Generator[Iterator[Event]]:
        """The stream of a pod's logs."""
        headers = {} if after is None else {"Last-Event-ID": after}
        url = f"/v2/pods/{pod}/logs"
        with self.http.stream("GET", url, params=query, headers=headers) as answer:
            assert answer.status_code == 200, answer.read()
            yield events(answer)

    def read_until(self, pod: str, word: str, **query: Any) -> list[Event]:
        """The events of a pod's container up to the first one with a word in it."""
        found: list[Event] = []
        with self.logs(pod, source="container", **query) as stream:
            for event in stream:
                found.append(event)
                if word in event.line:
                    break
        return found


def events(answer: httpx.Response) -> Iterator[Event]:
    """The whole events of a stream, until it ends."""
    rest = b""
    for data in answer.iter_raw():
        *whole, rest = (rest + data).split(b"\n\n")
        for one in whole:
            lines = [line for line in one.decode().split("\n") if not line.startswith(":")]
            if lines:
                fields = dict(line.split(": ", 1) for line in lines)
                yield Event(fields["id"], json.loads(fields["data"]))


def container(script: str) -> str:
    """A shell script as the command of a container."""
    return json.dumps({"entrypoint": ["sh", "-c"], "cmd": [script]})


def account_of(cloud: RunPodEmulator) -> httpx.Client:
    """A client with the account key, and a name of its own."""
    headers = {"Authorization": f"Bearer {cloud.key}", "User-Agent": "somebody/1"}
    return httpx.Client(base_url=cloud.url, headers=headers, trust_env=False, timeout=10)
