"""An HTTP client for provider plugins whose vendor has a REST API.

::

    LIST = Pace("list", interval=1.0)

    async with RestClient("https://api.example", key=settings.key) as client:
        reply = await client.request("GET", "/machines/", pace=LIST)

It never sends a request twice, follows no redirect, reads no more than it was told to, and puts
the key into one header and nowhere else. What an answer means is left to the plugin.
"""

from __future__ import annotations

from gpubroker.rest.client import RestClient, is_loopback
from gpubroker.rest.pacing import Pace
from gpubroker.rest.reply import Reply, RequestFailed

__all__ = ["Pace", "Reply", "RequestFailed", "RestClient", "is_loopback"]
