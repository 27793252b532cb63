"""Answers conform to the vendor's own document, where this is at hand."""

from __future__ import annotations

import json

import httpx
from tests.providers.runpod.documents import needs_documents, response_problems

from gpubroker_runpod.emulator import RunPodEmulator

from .account import Account, container, eventually

pytestmark = needs_documents


def test_answers_conform(account: Account, cloud: RunPodEmulator) -> None:
    """Each answer of a tour through the API, in every state that a pod can be in."""
    wrong: list[str] = []
    checked: set[tuple[str, str, int]] = set()
    for answer in tour(account, cloud):
        request = answer.request
        path = request.url.path
        body = answer.json() if answer.content else None
        wrong += response_problems(request.method, path, answer.status_code, body)
        checked.add((request.method, path.replace("/action", ""), answer.status_code))

    assert not wrong, "\n".join(wrong)
    assert len(checked) >= 25, checked


def test_events_of_logs_conform(account: Account) -> None:
    """Their data has what the document says, and nothing else."""
    pod = account.rent(args=container("echo one; sleep 1000"))

    for event in account.read_until(pod, "one"):
        assert {name: type(value) for name, value in event.data.items()} == {
            "ts": str,
            "source": str,
            "line": str,
        }


def tour(account: Account, cloud: RunPodEmulator) -> list[httpx.Response]:
    """Everything that there is to ask, with answers of every kind."""
    answers: list[httpx.Response] = []
    http = account.http

    def keep(answer: httpx.Response) -> None:
        answer.read()
        answers.append(answer)

    http.event_hooks["response"].append(keep)
    catalogue(http)
    http.get("/v2/account/ssh-keys")
    http.put("/v2/account/ssh-keys", json={"keys": ["ssh-ed25519 AAAA me"]})
    http.put("/v2/account/ssh-keys", json={"keys": ["nonsense"]})
    orders(account, cloud)
    http.get("/v2/billing/pods")
    http.get("/v2/billing/pods", params={"bucketSize": "hour", "lastN": 2, "podId": "x"})
    http.get("/v2/billing/pods", params={"bucketSize": "never"})
    refusals(account, cloud)
    return answers


def catalogue(http: httpx.Client) -> None:
    """Prices, stock and places."""
    available = {"include": "AVAILABILITY", "product": "POD"}
    for card in ("NVIDIA A40", "AMD Instinct MI300X OAM", "unheard-of"):
        http.get(f"/v2/catalog/gpus/{card}", params=available)
    for query in (
        {},
        available,
        {**available, "cloud": "COMMUNITY", "count": "8"},
        {**available, "minCudaVersion": "99.0"},
        {"include": "AVAILABILITY"},
        {"count": "0"},
    ):
        http.get("/v2/catalog/gpus", params=query)
    http.get("/v2/catalog/datacenters", params={"include": "GPU_AVAILABILITY"})
    http.get("/v2/catalog/datacenters/EU-RO-1")
    http.get("/v2/catalog/datacenters/nowhere")


def orders(account: Account, cloud: RunPodEmulator) -> None:
    """Pods in every state, and what may be done to them."""
    http = account.http
    cloud.next_pod("never-runs")
    account.order(env={"A": "1"}, ports=["22/tcp", "80/http"])
    cloud.next_pod("pull-failure")
    failed = account.order()
    cloud.next_pod("cluster")
    member = account.order()
    cloud.next_pod("empty-runtime")
    pod = account.rent(ports=["22/tcp", "80/http", "8000/tcp"], mounts=kept())
    cloud.switch(newer=True)
    account.order(args=json.dumps({"cmd": ["sleep", "9"]}), entrypoint=["sh"])
    account.listed(includeClusterPods="true")
    cloud.switch(newer=False)
    account.until(failed, lambda row: row["status"] == "ERROR")
    other = account.rent(ports=["22/tcp"], cloud="COMMUNITY", gpu={"id": "NVIDIA A40"})
    account.until(other, lambda row: row["runtime"])
    eventually(account.listed)
    for action in ("restart", "stop", "start", "fly"):
        account.act(pod, action)
    account.act(failed, "stop")
    account.delete(member)
    account.act(other, "terminate")
    account.delete(pod)
    account.delete(pod)
    http.get(f"/v2/pods/{pod}")
    http.get(f"/v2/pods/{pod}/logs")
    http.get(f"/v2/pods/{failed}/logs", params={"source": "nobody"})


def kept() -> dict[str, object]:
    """Storage on the host."""
    return {"persistent": {"size": 10, "path": "/workspace"}}


def refusals(account: Account, cloud: RunPodEmulator) -> None:
    """Orders that come to nothing, and keys that are no good."""
    http = account.http
    account.create(gpu={"id": "nothing"})
    account.create(interruptible=True)
    http.post("/v2/pods", json={"image": "x"})
    http.post("/v2/pods", content=b"{")
    http.post("/v2/pods", content=b" " * 200_000)
    cloud.switch(credit=0.1)
    account.create()
    cloud.switch(credit=100.0)
    for fault in ("server-error", "rate-limited", "forbidden"):
        cloud.faults.add("create", fault)
        account.create()
    http.headers["authorization"] = f"Bearer {cloud.read_only_key}"
    account.create()
    http.headers["authorization"] = "Bearer nonsense"
    account.create()
    http.get("/v2/pods")
