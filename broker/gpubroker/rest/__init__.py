"""An HTTP client for provider plugins whose vendor has a REST API.

::

    LIST = Pace("list", interval=1.0)

    async with RestClient("https://api.example", key=settings.key) as client:
        reply = await client.request("GET", "/machines/", pace=LIST)

It never sends a request twice, follows no redirect, reads no more than it was told to, and puts
the key into one header and nowhere else. `RestClient.events` reads an answer that has no end as it
comes. What an answer means is left to the plugin; `rows` reads single values out of it, and
`options` the settings of an account. `RestProvider` is a base for the plugin itself.
"""

from __future__ import annotations

from gpubroker.rest import options, rows
from gpubroker.rest.client import RestClient, is_loopback
from gpubroker.rest.events import EventStream, ServerEvent
from gpubroker.rest.failures import create_unanswered, one_line, said, unreachable
from gpubroker.rest.pacing import Pace
from gpubroker.rest.provider import RestProvider
from gpubroker.rest.reply import Reply, RequestFailed
from gpubroker.rest.rows import Row

__all__ = [
    "EventStream",
    "Pace",
    "Reply",
    "RequestFailed",
    "RestClient",
    "RestProvider",
    "Row",
    "ServerEvent",
    "create_unanswered",
    "is_loopback",
    "one_line",
    "options",
    "rows",
    "said",
    "unreachable",
]
