"""The settings of one RunPod account, checked."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from gpubroker import AccountSettings, InvalidValue
from gpubroker.rest.options import EMULATOR_ONLY, address, check_names, number, switch
from gpubroker_runpod.vocabulary import Cloud

API: Final = "https://api.runpod.io"
IMAGE: Final = "runpod/pytorch:1.0.2-cu1281-torch280-ubuntu2404"

_KNOWN: Final = (
    *("image", "registry", "clouds", "way"),
    *("boot_timeout", "identity_timeout", "charges_after"),
)
_REGISTRY: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class WayChoice(enum.StrEnum):
    """What decides how work reaches a pod."""

    AUTO = "auto"  #: the cloud and the job
    SSH = "ssh"  #: always over SSH
    LOG = "log"  #: through the log wherever the job allows it


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What one account was set to; see the package for the meanings."""

    url: str = API
    key: str | None = field(default=None, repr=False)
    emulated: bool = False
    image: str = IMAGE
    registry: str | None = None
    clouds: tuple[Cloud, ...] = (Cloud.SECURE, Cloud.COMMUNITY)
    way: WayChoice = WayChoice.AUTO
    charges_after: float = 3600.0
    boot_timeout: float = 900.0
    identity_timeout: float = 120.0
    poll_interval: float = 2.0
    visibility_horizon: float = 60.0
    absence_interval: float = 5.0
    release_margin: float = 120.0
    pacing: bool = True

    @classmethod
    def read(cls, settings: AccountSettings) -> Options:
        """The options in `settings`.

        Raises:
            InvalidValue: one is unknown or makes no sense.
        """
        given = settings.options
        url, emulated = address(settings.url, API)
        check_names(settings.name, given, _KNOWN, emulated=emulated, emulator_only=EMULATOR_ONLY)
        plain = cls()
        return cls(
            url=url,
            key=settings.key or None,
            emulated=emulated,
            image=given.get("image") or IMAGE,
            registry=_registry(given),
            clouds=_clouds(given),
            way=_way(given),
            charges_after=float(number(given, "charges_after", plain.charges_after, 0, 10**7)),
            boot_timeout=float(number(given, "boot_timeout", plain.boot_timeout, 1, 86_400)),
            identity_timeout=float(
                number(given, "identity_timeout", plain.identity_timeout, 0, 86_400)
            ),
            release_margin=float(number(given, "release_margin", plain.release_margin, 0, 600)),
            poll_interval=float(number(given, "poll_interval", plain.poll_interval, 0, 600)),
            visibility_horizon=float(
                number(given, "visibility_horizon", plain.visibility_horizon, 0, 3600)
            ),
            absence_interval=float(
                number(given, "absence_interval", plain.absence_interval, 0, 600)
            ),
            pacing=switch(given, "pacing"),
        )


def _registry(given: Mapping[str, str]) -> str | None:
    text = given.get("registry", "").strip()
    if text and not _REGISTRY.fullmatch(text):
        raise InvalidValue("registry", "…", "must be RunPod's id of a registry's credentials")
    return text or None


def _clouds(given: Mapping[str, str]) -> tuple[Cloud, ...]:
    text = given.get("clouds") or ",".join(Cloud)
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word.upper() not in set(Cloud):
            raise InvalidValue.unknown("clouds", word, [c.lower() for c in Cloud], noun="cloud")
    return tuple(cloud for cloud in Cloud if cloud in {word.upper() for word in words})


def _way(given: Mapping[str, str]) -> WayChoice:
    text = (given.get("way") or WayChoice.AUTO).strip().lower()
    if text not in set(WayChoice):
        raise InvalidValue.unknown("way", text, [way.value for way in WayChoice], noun="way")
    return WayChoice(text)
