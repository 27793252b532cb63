"""Reading the catalogue: types of card, and data centers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from gpubroker.testing.emulation import Answer, Call, Endpoint
from gpubroker_runpod.emulator.answers import invalid, problem
from gpubroker_runpod.emulator.catalogue import CARDS, PLACES, SERVERLESS, CardType, Place
from gpubroker_runpod.emulator.market import CLOUDS, COMMUNITY, SECURE, Wish, card_of
from gpubroker_runpod.emulator.world import World

_PRODUCTS: Final = ("POD", "CLUSTER", "SERVERLESS")
_LEVELS: Final = ("NONE", "LOW", "MEDIUM", "HIGH")
_REGIONS: Final = (
    *("NORTH_AMERICA", "SOUTH_AMERICA", "EUROPE", "ASIA", "MIDDLE_EAST", "AFRICA", "OCEANIA"),
    *("ANTARCTICA", "UNKNOWN"),
)
#: An entry that stands for nothing; the vendor's list has it, too.
_SENTINEL: Final[Mapping[str, Any]] = {
    "id": "unknown",
    "name": "unknown",
    "pool": None,
    "manufacturer": "UNKNOWN",
    "memory": 0,
    "secure": False,
    "community": False,
    "price": {"secure": 0, "community": 0},
    "maxCount": {"secure": 0, "community": 0},
}


class _Refused(Exception):
    """A query breaks a rule. Its only argument is the answer."""


class CatalogueApi:
    """Endpoints of the catalogue."""

    def __init__(self, world: World) -> None:
        self._world = world

    def endpoints(self) -> tuple[Endpoint, ...]:
        """All of them."""
        return (
            Endpoint("gpus", "GET", "/v2/catalog/gpus", self._gpus),
            Endpoint("gpu", "GET", "/v2/catalog/gpus/{id}", self._gpu),
            Endpoint("datacenters", "GET", "/v2/catalog/datacenters", self._places),
            Endpoint("datacenter", "GET", "/v2/catalog/datacenters/{id}", self._place),
        )

    def _gpus(self, call: Call) -> Answer:
        try:
            wish, product = _wish(call.query)
        except _Refused as refused:
            return _answer_of(refused)
        rows = [self._card(card, wish, product, call.at) for card in CARDS]
        return Answer.of({"gpus": [*rows, _unknown(wish)]})

    def _gpu(self, call: Call) -> Answer:
        card = card_of(call.parameters["id"])
        try:
            wish, product = _wish(call.query)
        except _Refused as refused:
            return _answer_of(refused)
        if card is None:
            return problem(404, "resource not found")
        return Answer.of(self._card(card, wish, product, call.at))

    def _card(
        self, card: CardType, wish: Wish | None, product: str | None, now: float
    ) -> dict[str, Any]:
        market = self._world.market
        secure, community = (market.prices[card.id, cloud] for cloud in CLOUDS)
        row: dict[str, Any] = {
            "id": card.id,
            "name": card.name,
            "pool": card.pool,
            "manufacturer": card.manufacturer,
            "memory": card.memory,
            "secure": bool(secure),
            "community": bool(community),
            "price": {"secure": secure, "community": community},
            "maxCount": {
                "secure": card.most if secure else 0,
                "community": card.most if community else 0,
            },
        }
        if card.pool is not None:
            row["price"]["serverless"] = SERVERLESS[card.pool]
        if wish is not None:
            row |= self._availability(card, wish, product, now)
        return row

    def _availability(
        self, card: CardType, wish: Wish, product: str | None, now: float
    ) -> dict[str, Any]:
        # Only pods are emulated: for other products there is nothing.
        lag = self._world.behaviour.catalogue_lag
        shown = self._world.market.shown(card, wish, now, lag) if product == "POD" else []
        best = max((_LEVELS.index(level) for _, level, _ in shown), default=0)
        parts: dict[str, Any] = {"availability": _LEVELS[best]}
        if shown:
            parts["dataCenters"] = [
                {"id": place.id, "name": place.name, "availability": level}
                for place, level, _ in shown
            ]
        if card.manufacturer == "NVIDIA" and shown:
            versions = {place.cuda: False for place, _, _ in shown}
            versions |= {place.cuda: True for place, _, free in shown if free}
            parts["cudaVersions"] = [
                {"version": version, "available": free} for version, free in versions.items()
            ]
        return parts

    def _places(self, call: Call) -> Answer:
        try:
            wanted = _many(call.query, "include", ("GPU_AVAILABILITY", "CPU_AVAILABILITY"))
            regions = _many(call.query, "regions", _REGIONS)
            volumes = _many(call.query, "networkVolumeTypes", ("STANDARD", "HIGH_PERFORMANCE"))
        except _Refused as refused:
            return _answer_of(refused)
        compliance = [one for one in call.query.get("compliance", "").split(",") if one]
        network = call.query.get("globalNetwork")
        rows = [
            self._place_row(place, call.at, cards="GPU_AVAILABILITY" in wanted)
            for place in PLACES
            if (not regions or place.region in regions)
            and set(volumes) <= set(place.volumes)
            and set(compliance) <= set(place.compliance)
            and (network is None or place.global_network == (network.lower() == "true"))
        ]
        return Answer.of({"dataCenters": rows})

    def _place(self, call: Call) -> Answer:
        place = next((one for one in PLACES if one.id == call.parameters["id"]), None)
        if place is None:
            return problem(404, "resource not found")
        cards = "GPU_AVAILABILITY" in call.query.get("include", "").split(",")
        return Answer.of(self._place_row(place, call.at, cards=cards))

    def _place_row(self, place: Place, now: float, *, cards: bool) -> dict[str, Any]:
        row: dict[str, Any] = {
            "id": place.id,
            "name": place.name,
            "region": place.region,
            "networkVolumeTypes": list(place.volumes),
            "compliance": list(place.compliance),
            "globalNetwork": place.global_network,
        }
        lag = self._world.behaviour.catalogue_lag
        found: list[dict[str, Any]] = []
        for card in CARDS if cards else ():
            levels = [
                level
                for cloud in CLOUDS
                for _, level, _ in self._world.market.shown(
                    card, Wish(cloud=cloud, places=(place.id,)), now, lag
                )
            ]
            if levels:
                best = max(levels, key=_LEVELS.index)
                found.append({"id": card.id, "name": card.name, "availability": best})
        return row | {"gpuAvailability": found} if found else row


def _wish(query: Mapping[str, str]) -> tuple[Wish | None, str | None]:
    """What a look at the catalogue is about; ``None``: not about availability.

    Raises:
        _Refused: the parameters break a rule.
    """
    include = _many(query, "include", ("AVAILABILITY",))
    product = query.get("product")
    if product is not None and product not in _PRODUCTS:
        raise _Refused(invalid(f"product: value must be one of {', '.join(_PRODUCTS)}"))
    cloud = query.get("cloud", SECURE)
    if cloud not in (SECURE, COMMUNITY):
        raise _Refused(invalid("cloud: value must be one of SECURE, COMMUNITY"))
    count = query.get("count", "1")
    if not re.fullmatch(r"[1-9]\d{0,3}", count):
        raise _Refused(invalid("count: must be at least 1"))
    countries = _words(query, "countryCodes", "[A-Z]{2}")
    cuda = _words(query, "cudaVersions", r"\d+\.\d+")
    cuda_from = query.get("minCudaVersion")
    if cuda_from is not None and not re.fullmatch(r"\d+(\.\d+)?", cuda_from):
        raise _Refused(invalid("minCudaVersion: is malformed"))
    if bool(include) != (product is not None):
        raise _Refused(problem(400, "include=AVAILABILITY and product must be given together"))
    if cuda and cuda_from:
        raise _Refused(problem(400, "cudaVersions and minCudaVersion are mutually exclusive"))
    if not include:
        for name in ("count", "cloud"):
            if name in query:
                raise _Refused(problem(400, f"{name} needs include=AVAILABILITY"))
        return None, None
    wish = Wish(cloud=cloud, count=int(count), countries=countries, cuda=cuda, cuda_from=cuda_from)
    return wish, product


def _many(query: Mapping[str, str], name: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """A parameter with several of some known words."""
    words = tuple(word for word in query.get(name, "").split(",") if word)
    if not set(words) <= set(known):
        raise _Refused(invalid(f"{name}: value must be one of {', '.join(known)}"))
    return words


def _words(query: Mapping[str, str], name: str, pattern: str) -> tuple[str, ...]:
    """A parameter with several words of one form."""
    words = tuple(word for word in query.get(name, "").split(",") if word)
    if not all(re.fullmatch(pattern, word) for word in words):
        raise _Refused(invalid(f"{name}: is malformed"))
    return words


def _answer_of(refused: _Refused) -> Answer:
    answer: Answer = refused.args[0]
    return answer


def _unknown(wish: Wish | None) -> dict[str, Any]:
    return {**_SENTINEL, **({} if wish is None else {"availability": "NONE"})}
