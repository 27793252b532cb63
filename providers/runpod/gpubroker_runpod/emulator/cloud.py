"""The emulator itself: the handle that tests hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from gpubroker import InvalidValue
from gpubroker.testing.emulation import EmulatedVendor, FaultRule, Setup
from gpubroker_runpod.emulator.assembly import RunPodAssembly, set_stock
from gpubroker_runpod.emulator.scenarios import SCENARIOS, Behaviour

#: Requests per minute from which on nobody needs to spare them.
_GENEROUS: Final = 1_000


class RunPodEmulator(EmulatedVendor[RunPodAssembly, Behaviour]):
    """RunPod's API on loopback, with real pods behind it.

    ::

        with RunPodEmulator(seed=1) as cloud:
            ...  # talk to cloud.url with cloud.key

    The arguments are those of `gpubroker.testing.emulation.EmulatedVendor`; its switches are the
    parts of `Behaviour`.
    """

    name: ClassVar[str] = "runpod"
    noun: ClassVar[str] = "pod"
    loss: ClassVar[str] = "dies"
    scenarios: ClassVar[Mapping[str, str]] = {name: text for name, (text, _) in SCENARIOS.items()}
    behaviours: ClassVar[Mapping[str, Behaviour]] = {
        name: behaviour for name, (_, behaviour) in SCENARIOS.items()
    }

    def assemble(self, setup: Setup[Behaviour]) -> RunPodAssembly:
        """Make the inside."""
        return RunPodAssembly(setup)

    def switched(self) -> None:
        """Let the windows of requests be those of the behaviour."""
        self.inside.behave()

    @property
    def options(self) -> Mapping[str, str]:
        """Settings of the provider that suit an emulator, which need not be spared."""
        behaviour = self.behaviour
        if behaviour.minute < _GENEROUS:
            return {}
        return {
            "pacing": "off",
            "poll_interval": "0.2",
            "absence_interval": "0.2",
            "visibility_horizon": str(behaviour.visibility * 2),
            "charges_after": str(behaviour.settling),
        }

    @property
    def hints(self) -> tuple[str, ...]:
        """How to point the vendor's own programs here, as lines for people."""
        own = f"RUNPOD_API_URL={self.url} RUNPOD_GRAPHQL_URL={self.url}/graphql"
        return (f"{own} RUNPOD_API_KEY={self.key} runpodctl get pod",)

    @property
    def read_only_key(self) -> str:
        """A key of the account that may read, and change nothing."""
        return self.inside.world.read_only

    def next_pod(
        self, fault: str, *, nth: int = 1, times: int | None = 1, **options: object
    ) -> FaultRule:
        """Give a fault to the next pod that is made, or to the `nth` from now."""
        return self.next_machine(fault, nth=nth, times=times, **options)

    def sell_out(self) -> None:
        """From now on others have every card, what was just offered too."""
        self.set_stock(0)

    def revoke_key(self, status: int = 401) -> None:
        """Refuse the account key: with 401 or 403, each in the vendor's words."""
        super().revoke_key(status)

    def log(self, pod: str) -> list[str]:
        """What a pod's container has printed so far, by lines; those kept.

        Raises:
            InvalidValue: there is no such pod.
        """

        def read() -> list[str]:
            found = self.inside.world.lives.pods.get(pod)
            if found is None:
                raise InvalidValue("pod", pod, "there is no such pod")
            return [line.text for line in found.log.after(0) if line.source == "container"]

        return self._server.call(read)

    def set_stock(
        self,
        cards: int,
        *,
        gpu: str | None = None,
        cloud: str | None = None,
        place: str | None = None,
    ) -> None:
        """Set how many cards are free, for each type, cloud and data center that is meant.

        Args:
            gpu: a type's id. cloud: ``SECURE`` or ``COMMUNITY``. place: a data center's id.
                ``None`` is all of them.

        Raises:
            InvalidValue: nothing is sold there.
        """
        spots = self._server.call(lambda: set_stock(self.inside.world, cards, gpu, cloud, place))
        if not spots:
            raise InvalidValue("stock", (gpu, cloud, place), "nothing is sold there")

    def set_price(self, gpu: str, price: str, *, cloud: str = "SECURE") -> None:
        """Set the price of one card of a type, USD per hour.

        Raises:
            InvalidValue: there is no such type.
        """
        self._server.call(lambda: self.inside.set_price(gpu, cloud, price))
