"""In which order the ways to one machine are tried."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from gpubroker.model.machines import Route

_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._:%-]{0,253}[A-Za-z0-9])?|::1?")
_USER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9._-]{0,63}")


def usable(route: Route) -> bool:
    """Whether a route is something to connect to, and nothing that a program would obey."""
    return bool(
        _HOST.fullmatch(route.host) and _USER.fullmatch(route.user) and 0 < route.port < 65536
    )


class Routes:
    """The ways to one machine: the one that worked last first, then straight before proxied."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes: tuple[Route, ...] = ()
        self.worked: Route | None = None
        self.replace(routes)

    def replace(self, routes: Sequence[Route]) -> None:
        """Take what the provider says now in place of what it said before."""
        self._routes = tuple(sorted(routes, key=lambda route: route.proxied))

    def in_order(self) -> tuple[Route, ...]:
        """All of them, in the order in which they are to be tried."""
        return tuple(sorted(self._routes, key=lambda route: route != self.worked))
