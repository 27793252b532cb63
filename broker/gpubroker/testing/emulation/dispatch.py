"""The way of one request: log, fault, key, limit, handler."""

from __future__ import annotations

import inspect
import json
import traceback
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

from gpubroker.testing.emulation.endpoints import Endpoint, find
from gpubroker.testing.emulation.exchange import Answer, Call
from gpubroker.testing.emulation.faults import Fault, FaultRule

Gate = Callable[[Call, Endpoint], Answer | None]
"""Refuses a call: its key, its rate. ``None`` lets it pass."""

Pick = Callable[[Call], FaultRule | None]
"""The fault that a call meets."""

Dress = Callable[[Call, Answer], Answer]
"""Adds to what an endpoint, or its gate, answers, such as headers."""

_HIDDEN: Final = "***"
_MOST_RECORDS: Final = 200_000


@dataclass(slots=True, kw_only=True)
class RequestRecord:
    """One request that an emulator got. It holds no key.

    Attributes:
        endpoint: the name of the endpoint; "" if there is none.
        query, body: decoded; the body is ``None`` where it is no JSON.
        at: Unix seconds.
        status: of the answer; 0 for a connection that was cut, ``None`` while it is awaited.
        fault: the fault that it met.
    """

    endpoint: str
    method: str
    path: str
    query: Mapping[str, str]
    body: Any
    at: float
    parameters: Mapping[str, str] = field(default_factory=dict[str, str])
    status: int | None = None
    fault: str | None = None


class Dispatcher:
    """Answers calls by the endpoint that they are for.

    Args:
        endpoints: tried in this order.
        gate: asked before a handler acts.
        pick: the fault that a call meets.
        faults: what faults do, by name.
        otherwise: answers what no endpoint is for.
        invalid: the answer to a body that is no JSON object.
        hidden: names of values, in queries and bodies, that are not written down.
        dress: adds to each answer, before a fault may spoil it.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        *,
        gate: Gate,
        pick: Pick,
        faults: Mapping[str, Fault],
        otherwise: Callable[[Call], Answer],
        invalid: Answer,
        hidden: Collection[str] = (),
        dress: Dress | None = None,
    ) -> None:
        self._endpoints = endpoints
        self._gate = gate
        self._pick = pick
        self._faults = faults
        self._otherwise = otherwise
        self._invalid = invalid
        self._hidden = frozenset(hidden)
        self._dress = dress
        #: Every request so far, but for those of long ago.
        self.records: deque[RequestRecord] = deque(maxlen=_MOST_RECORDS)
        #: What handlers raised: faults of the emulator itself, as text.
        self.bugs: list[str] = []

    async def answer(self, call: Call) -> Answer:
        """Answer one call."""
        found = find(self._endpoints, call.method, call.path)
        if found is not None:
            endpoint, parameters = found
            call = replace(call, endpoint=endpoint.name, parameters=parameters)
        record = self._record(call)
        self.records.append(record)
        answer = await self._faulty(call, record, found[0] if found else None)
        record.status = 0 if answer.cut_at == -1 else answer.status
        return answer

    async def _faulty(self, call: Call, record: RequestRecord, endpoint: Endpoint | None) -> Answer:
        if endpoint is None:
            return self._otherwise(call)

        async def act() -> Answer:
            refusal = self._gate(call, endpoint)
            answer = refusal if refusal is not None else await self._handled(endpoint, call)
            return answer if self._dress is None else self._dress(call, answer)

        rule = self._pick(call)
        if rule is None:
            return await act()
        record.fault = rule.fault
        return await self._faults[rule.fault](act, call, **rule.options)

    async def _handled(self, endpoint: Endpoint, call: Call) -> Answer:
        try:
            answer = endpoint.handler(call)
            return await answer if inspect.isawaitable(answer) else answer
        except json.JSONDecodeError:
            return self._invalid
        except Exception:  # noqa: BLE001 - told at the end, where a test sees it
            self.bugs.append(f"{call.method} {call.path}\n{traceback.format_exc()}")
            return Answer.text("the emulator failed", 500)

    def _record(self, call: Call) -> RequestRecord:
        try:
            body = call.json()
        except ValueError:
            body = None
        return RequestRecord(
            endpoint=call.endpoint,
            method=call.method,
            path=call.path,
            query=self._shown(call.query),
            body=self._shown(body),
            at=call.at,
            parameters=call.parameters,
        )

    def _shown(self, value: Any) -> Any:
        """A value without what must not be written down."""
        if isinstance(value, Mapping):
            pairs = cast("Mapping[str, Any]", value).items()
            return {
                name: _HIDDEN if name in self._hidden and one else self._shown(one)
                for name, one in pairs
            }
        if isinstance(value, list):
            return [self._shown(one) for one in cast("list[object]", value)]
        return value
