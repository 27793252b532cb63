"""What containers print, and the few commands that stopped ones can be given."""

from __future__ import annotations

import subprocess
from typing import Final

from gpubroker.testing.emulation import Answer, Call, Endpoint
from gpubroker_vast.emulator.answers import ok, refused
from gpubroker_vast.emulator.contracts import Contract
from gpubroker_vast.emulator.world import World

_ALLOWED: Final = ("ls", "rm", "du")
_MOST_LOG: Final = 1 << 20


class OutputApi:
    """Endpoints of logs and commands, and the place where their results are read."""

    def __init__(self, world: World) -> None:
        self._world = world

    def endpoints(self) -> tuple[Endpoint, ...]:
        """All of them."""
        logs = "/api/v0/instances/request_logs/{id}"
        return (
            Endpoint("logs", "PUT", f"{logs}/", self._logs),
            Endpoint("logs-slashless", "PUT", logs, self._slashless),
            Endpoint("execute", "PUT", "/api/v0/instances/command/{id}/", self._execute),
            Endpoint("result", "GET", "/_results/{name}", self._result, open=True),
        )

    def _slashless(self, call: Call) -> Answer:  # noqa: ARG002
        return refused(400, "invalid_args", "Invalid request")

    def _logs(self, call: Call) -> Answer:
        contract = self._world.owned(call.parameters["id"])
        if contract is None:
            return refused(404, "invalid_id", "Invalid instance id.")
        body = call.object()
        tail = str(body.get("tail") or "1000")
        word = str(body.get("filter") or "")
        if not tail.isdigit():
            return refused(400, "invalid_args", "tail must be a number")

        def read(again: Call) -> Answer:  # noqa: ARG001
            if contract.log_polls > 0:
                contract.log_polls -= 1
                return Answer.text("<Error><Code>AccessDenied</Code></Error>", contract.log_status)
            if body.get("daemon_logs"):
                return Answer.text(f"{contract.message or ''}\n")
            return Answer.text(_tail(contract, int(tail), word))

        return ok(result_url=self._world.publish(read), msg="log request sent")

    def _execute(self, call: Call) -> Answer:
        contract = self._world.owned(call.parameters["id"])
        command = str(call.object().get("command") or "")
        if contract is None:
            return refused(404, "not_found", "Instance not found.")
        if not command:
            return refused(400, "invalid_args", "Missing command.")
        words = command.split()
        if len(command) > 512 or words[0] not in _ALLOWED:
            return refused(400, "invalid_args", "Invalid command given.")
        if contract.actual == "running":
            message = "Execute command only avail on stopped instances. Use ssh to connect."
            return refused(400, "invalid_args", message)
        machine = contract.machine
        if machine is None:
            return refused(400, "invalid_args", "Container not ready")
        done = subprocess.run(  # noqa: S603 - one of three programs, in the machine's own folder
            words,
            cwd=machine.home,
            env=machine.session_environment,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
        output = done.stdout + done.stderr
        url = self._world.publish(lambda again: Answer.text(output))  # noqa: ARG005
        return ok(writeable_path="", result_url=url, msg="command sent")

    def _result(self, call: Call) -> Answer:
        if "authorization" in call.headers:
            # The vendor's store of objects refuses this; here it is also written down, since
            # the key has just been given to somebody else.
            self._world.leaks.append(f"{call.method} {call.path} with an Authorization header")
            return Answer.text("<Error><Code>InvalidArgument</Code></Error>", 400)
        found = self._world.results.get(call.parameters["name"])
        if found is None:
            return Answer.text("<Error><Code>NoSuchKey</Code></Error>", 404)
        return found(call)


def _tail(contract: Contract, lines: int, word: str) -> str:
    """The last lines of what a container printed, those with a word in them."""
    if contract.log_empty or contract.machine is None:
        return ""
    try:
        with contract.machine.log.open("rb") as file:
            file.seek(max(contract.machine.log.stat().st_size - _MOST_LOG, 0))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    kept = [line for line in text.splitlines() if word in line][-lines:] if lines else []
    return "".join(f"{line}\n" for line in kept)
