"""What this broker remembers of failures and hosts, and what it has yet to write down.

Read from the ledger at each request, so that other requests and other processes are heard of;
changed at once when something happens; written with the decision record, so that going on to the
next offer costs no extra commit.
"""

from __future__ import annotations

from gpubroker.errors import ErrorKind, ProviderError, Scope
from gpubroker.ledger.access import LedgerAccess
from gpubroker.model.offers import Offer
from gpubroker.policy.cooldown import Cooldown, condemned, cool_down
from gpubroker.policy.experience import Experience, Memory
from gpubroker.policy.retry import Retry

#: Failures that say something about the host itself.
_OF_THE_HOST = frozenset({ErrorKind.HOST_BROKEN, ErrorKind.CREATE_UNKNOWN})


class Recall:
    """Cooldowns and experience of one open broker."""

    def __init__(self) -> None:
        self._cooldowns: dict[tuple[str, Scope, str], Cooldown] = {}
        self._experiences: dict[tuple[str, str, str], Experience] = {}
        self._new_cooldowns: set[tuple[str, Scope, str]] = set()
        self._new_experiences: set[tuple[str, str, str]] = set()

    async def read(self, ledger: LedgerAccess) -> None:
        """Hear of what other requests and processes have learnt."""
        cooldowns, experiences = await ledger(lambda ledger: ledger.memory())
        for cooldown in cooldowns:
            place = (cooldown.provider, cooldown.scope, cooldown.key)
            if place not in self._new_cooldowns:
                self._cooldowns[place] = cooldown
        for experience in experiences:
            host = (experience.provider, experience.host, experience.image)
            if host not in self._new_experiences:
                self._experiences[host] = experience

    @property
    def cooldowns(self) -> list[Cooldown]:
        """Every cooldown, those that are over included."""
        return list(self._cooldowns.values())

    def memory(self, now: float) -> Memory:
        """What was seen of hosts, as it counts at Unix time `now`."""
        return Memory(self._experiences.values(), now)

    def unwritten(self) -> tuple[list[Cooldown], list[Experience]]:
        """What the ledger has not been told yet; `written` says that it was."""
        return (
            [self._cooldowns[place] for place in sorted(self._new_cooldowns)],
            [self._experiences[host] for host in sorted(self._new_experiences)],
        )

    def written(self) -> None:
        """The ledger has been told everything."""
        self._new_cooldowns.clear()
        self._new_experiences.clear()

    # ---- what happens ---------------------------------------------------------------------

    def provider_failed(
        self, failure: ProviderError, provider: str, retry: Retry, now: float
    ) -> None:
        """A provider could not be asked."""
        self._cool(failure, provider, (Scope.PROVIDER, ""), retry, now)

    def attempt_failed(
        self, failure: ProviderError, offer: Offer, image: str | None, retry: Retry, now: float
    ) -> None:
        """An attempt at an offer failed, or its machine was lost under a job."""
        self._cool(failure, offer.provider, condemned(failure, offer), retry, now)
        if failure.kind in _OF_THE_HOST:
            self._learn(self._experience(offer, image).failed(now))

    def attempt_worked(self, offer: Offer, image: str | None, boot: float, now: float) -> None:
        """An attempt gave a usable machine, `boot` seconds after it was asked for."""
        self._learn(self._experience(offer, image).worked(boot, now))
        # What works again is not left alone any longer, nor counted as failing in a row.
        for place, cooldown in list(self._cooldowns.items()):
            if cooldown.covers(offer) and cooldown.until > now:
                self._cooldowns[place] = cooldown.ended(now)
                self._new_cooldowns.add(place)

    def set_up(self, offer: Offer, image: str | None, seconds: float, now: float) -> None:
        """A machine was set up."""
        self._learn(self._experience(offer, image).was_set_up(seconds, now))

    def _cool(
        self,
        failure: ProviderError,
        provider: str,
        thing: tuple[Scope, str],
        retry: Retry,
        now: float,
    ) -> None:
        cooldown = cool_down(failure, provider, thing, self._cooldowns.values(), retry, now)
        place = (cooldown.provider, cooldown.scope, cooldown.key)
        self._cooldowns[place] = cooldown
        self._new_cooldowns.add(place)

    def _experience(self, offer: Offer, image: str | None) -> Experience:
        host = (offer.provider, offer.host or "", image or "")
        new = Experience(provider=host[0], host=host[1], image=host[2])
        return self._experiences.get(host, new)

    def _learn(self, experience: Experience) -> None:
        host = (experience.provider, experience.host, experience.image)
        self._experiences[host] = experience
        self._new_experiences.add(host)
