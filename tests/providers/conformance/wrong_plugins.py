"""Plugins that break one promise each, and the checks that must find them out."""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import anyio

from gpubroker import (
    Charge,
    CreateUnknown,
    ErrorKind,
    Job,
    JobIO,
    JobState,
    Machine,
    MachineState,
    Money,
    Offer,
    Order,
    Outcome,
    ProviderError,
    Requirements,
    hookimpl,
)

from .acme import Acme
from .acme_vendor import CutOff, Vendor


@dataclass(frozen=True)
class Wrong:
    """A plugin that breaks promises, and the checks that must find it out."""

    plugin: type[Acme]
    broken: frozenset[str]
    ssh: bool


WRONG: Final[list[Wrong]] = []


def breaks(*broken: str, ssh: bool = True) -> Callable[[type[Acme]], type[Acme]]:
    """Note a wrong plugin, with all the checks that it fails."""

    def note(plugin: type[Acme]) -> type[Acme]:
        WRONG.append(Wrong(plugin, frozenset(broken), ssh))
        return plugin

    return note


# What it says of itself, and offers


@breaks("facts_and_hooks_agree")
class IsPaidAndDoesNotSay(Acme):
    def __init__(self, vendor: Vendor, *, ssh: bool) -> None:
        super().__init__(vendor, ssh=ssh)
        self.facts = replace(self.facts, paid=False)


@breaks("facts_and_hooks_agree")
class ForgetsALostCreateTooEarly(Acme):
    def __init__(self, vendor: Vendor, *, ssh: bool) -> None:
        super().__init__(vendor, ssh=ssh)
        self.facts = replace(self.facts, late_create_watch=1.0)


@breaks("quote_of_the_impossible_is_empty")
class TakesNothingForAnError(Acme):
    @hookimpl
    async def quote(self, requirements: Requirements) -> list[Offer]:
        offers = await super().quote(requirements)
        if not offers:
            raise ProviderError("there is nothing", kind=ErrorKind.CAPACITY)
        return offers


@breaks("quote_can_be_asked_again")
class NumbersItsOffers(Acme):
    _numbers = itertools.count()

    def offer_id(self, count: int) -> str:
        return f"offer {next(self._numbers)}"


@breaks("prices_are_exact")
class CalculatesInFloats(Acme):
    def machine_price(self, price: str, count: int) -> Money:
        return Money((float(price) - 0.1 + 0.1) * count + 1e-16)


@breaks("prices_are_for_the_whole_machine")
class PricesOneGpu(Acme):
    def machine_price(self, price: str, count: int) -> Money:
        return Money(price)


@breaks("disk_is_priced")
class ForgetsTheDisk(Acme):
    @hookimpl
    async def quote(self, requirements: Requirements) -> list[Offer]:
        return [
            replace(offer, price=replace(offer.price, disk=Money(0)))
            for offer in await super().quote(requirements)
        ]


@breaks("the_price_is_what_bills")
class PricesAMinute(Acme):
    def machine_price(self, price: str, count: int) -> Money:
        return Money("0.005") * count


@breaks("the_price_is_what_bills", "price_ceiling_is_kept")
class PricesInCents(Acme):
    def machine_price(self, price: str, count: int) -> Money:
        return super().machine_price(price, count) * 100


@breaks("the_price_is_what_bills")
class ListsPricesInCents(Acme):
    def machine_from(self, row: Mapping[str, Any]) -> Machine:
        found = super().machine_from(row)
        return replace(found, hourly=None if found.hourly is None else found.hourly * 100)


# Creating


@breaks("one_create_for_each_order", "a_cancelled_create_is_found")
class RentsASpare(Acme):
    async def create(self, body: Mapping[str, Any]) -> str:
        number = await super().create(body)
        await super().create({**body, "name": "spare"})
        return number


@breaks("the_order_is_passed_on")
class LetsNobodyIn(Acme):
    def body_of(self, offer: Offer, order: Order) -> dict[str, Any]:
        return {**super().body_of(offer, order), "key": ""}


@breaks("the_order_is_passed_on", ssh=False)
class OutlivesItsBroker(Acme):
    def body_of(self, offer: Offer, order: Order) -> dict[str, Any]:
        return {**super().body_of(offer, order), "ends": None}


@breaks("inventory_shows_mark_and_id", "lost_answers_are_unknown", "a_cancelled_create_is_found")
class ListsNoMarks(Acme):
    def machine_from(self, row: Mapping[str, Any]) -> Machine:
        return replace(super().machine_from(row), mark=None)


@breaks("lost_answers_are_unknown", "a_cancelled_create_is_found")
class MarksAfterwards(Acme):
    async def create(self, body: Mapping[str, Any]) -> str:
        number = await super().create({**body, "name": None})
        self.vendor.rows[number]["name"] = body["name"]
        return number


@breaks("lost_answers_are_unknown")
class SendsAgain(Acme):
    async def create(self, body: Mapping[str, Any]) -> str:
        try:
            return await super().create(body)
        except CreateUnknown:
            return await super().create(body)


@breaks("lost_answers_are_unknown")
class SendsAgainAndStillFails(Acme):
    async def create(self, body: Mapping[str, Any]) -> str:
        try:
            return await super().create(body)
        except CreateUnknown:
            await super().create(body)
            raise


@breaks("lost_answers_are_unknown")
class TakesALostAnswerForARefusal(Acme):
    async def create(self, body: Mapping[str, Any]) -> str:
        try:
            return await super().create(body)
        except ProviderError as error:
            raise self.refusal(str(error), error.machine_id) from None


@breaks("provision_does_not_wait_for_the_boot")
class WaitsForTheBoot(Acme):
    async def create(self, body: Mapping[str, Any]) -> str:
        number = await super().create(body)
        await anyio.sleep(self.vendor.rows[number]["ready"] - anyio.current_time())
        return number


@breaks("provision_does_not_wait_for_the_boot")
class CallsEverythingRunning(Acme):
    def state_from(self, word: str) -> MachineState:
        return MachineState.RUNNING


@breaks("price_ceiling_is_kept")
class KeepsThePriceToItself(Acme):
    def machine_from(self, row: Mapping[str, Any]) -> Machine:
        return replace(super().machine_from(row), hourly=None)


@breaks("a_refusal_that_bills_names_its_machine")
class ForgetsWhatARefusalLeft(Acme):
    def refusal(self, text: str, left: str | None) -> ProviderError:
        return super().refusal(text, None)


# Listing


@breaks("inventory_is_complete_or_raises")
class TakesAnErrorForAnEmptyList(Acme):
    @hookimpl
    async def inventory(self) -> list[Machine]:
        try:
            return await super().inventory()
        except ProviderError:
            return []


@breaks("inventory_is_complete_or_raises")
class BelievesAShortList(Acme):
    def count(self, found: Sequence[object], said: int) -> None:
        """Whatever comes is taken for all."""


@breaks("inventory_is_read_each_time")
class RemembersItsList(Acme):
    def __init__(self, vendor: Vendor, *, ssh: bool) -> None:
        super().__init__(vendor, ssh=ssh)
        self.known: tuple[float, list[Machine]] = (-math.inf, [])

    @hookimpl
    async def inventory(self) -> list[Machine]:
        at, listed = self.known
        if anyio.current_time() - at > 3:
            listed = await super().inventory()
            self.known = (anyio.current_time(), listed)
        return listed


@breaks("inventory_lists_every_machine")
class ListsItsOwnAlone(Acme):
    @hookimpl
    async def inventory(self) -> list[Machine]:
        return [m for m in await super().inventory() if (m.mark or "").startswith("gb1-")]


@breaks("inventory_lists_every_machine")
class DropsWhatHasNoMark(Acme):
    @hookimpl
    async def inventory(self) -> list[Machine]:
        return [machine for machine in await super().inventory() if machine.mark]


# Working


@breaks("a_way_to_the_machine_appears")
class ShowsNoWay(Acme):
    def machine_from(self, row: Mapping[str, Any]) -> Machine:
        return replace(super().machine_from(row), routes=())


@breaks("log_shows_the_nonce", "jobs_of_an_order_run_by_themselves")
class ShowsAnEmptyLog(Acme):
    @hookimpl
    async def logs(self, machine: Machine) -> str:
        return ""


@breaks("exit_code_is_the_jobs_own", ssh=False)
class SignalsExitWithOne(Acme):
    async def run_here(self, *arguments: Any) -> Outcome:
        outcome = await super().run_here(*arguments)
        return replace(outcome, exit_code=1) if (outcome.exit_code or 0) > 128 else outcome


@breaks("output_comes_back_whole", ssh=False)
class TakesOutputForText(Acme):
    def stdout(self, data: bytes) -> bytes:
        return data.decode(errors="replace").encode()


@breaks("words_and_environment_arrive", ssh=False)
class StripsTheEnvironment(Acme):
    async def run_here(self, argv: Any, env: Mapping[str, str], *rest: Any) -> Outcome:
        return await super().run_here(
            argv, {n: v.replace("\n", " ") for n, v in env.items()}, *rest
        )


@breaks("timeout_ends_the_job", ssh=False)
class TakesATimeoutForAnExit(Acme):
    def late(self) -> Outcome:
        return Outcome(state=JobState.EXITED, exit_code=143)


@breaks("jobs_of_an_order_run_by_themselves")
class ReportsTheLastJobForEach(Acme):
    @hookimpl
    async def run(self, machine: Machine, job: Job, io: JobIO) -> Outcome:
        io.purpose = "job"
        return await super().run(machine, job, io)


# Ending


@breaks("release_ends_billing")
class ListsWhatIsGone(Acme):
    async def destroy(self, number: str) -> None:
        await super().destroy(number)
        if number in self.vendor.rows:
            self.vendor.rows[number]["stays"] = True


@breaks("what_is_gone_bills_no_more")
class TakesDrainingForGone(Acme):
    def state_from(self, word: str) -> MachineState:
        return MachineState.GONE if word == "draining" else super().state_from(word)


@breaks("what_is_gone_bills_no_more")
class LeavesOutWhatDrains(Acme):
    def __init__(self, vendor: Vendor, *, ssh: bool) -> None:
        super().__init__(vendor, ssh=ssh)
        self.facts = replace(self.facts, absence_readings=1)

    @hookimpl
    async def inventory(self) -> list[Machine]:
        return [m for m in await super().inventory() if m.state is not MachineState.STOPPED]


@breaks(
    *("release_ends_billing", "release_can_be_repeated", "an_id_is_enough_to_release"),
    *("charges_are_told", "a_cancelled_release_can_be_repeated"),
)
class MerelyStops(Acme):
    async def destroy(self, number: str) -> None:
        await self.vendor.ask("GET", f"/machines/{number}/stop")


@breaks("release_can_be_repeated")
class InsistsOnAMachine(Acme):
    async def destroy(self, number: str) -> None:
        status, text = await self.vendor.ask("DELETE", f"/machines/{number}")
        if status != 200:
            raise self.failure(text, status)


@breaks("an_id_is_enough_to_release")
class ReleasesWhatItRemembers(Acme):
    def __init__(self, vendor: Vendor, *, ssh: bool) -> None:
        super().__init__(vendor, ssh=ssh)
        self.known: set[str] = set()

    @hookimpl
    async def inventory(self) -> list[Machine]:
        found = await super().inventory()
        self.known |= {machine.id for machine in found}
        return found

    async def create(self, body: Mapping[str, Any]) -> str:
        number = await super().create(body)
        self.known.add(number)
        return number

    async def destroy(self, number: str) -> None:
        if number in self.known:
            await super().destroy(number)


@breaks("only_ids_reach_the_vendor")
class PutsAnythingIntoAPath(Acme):
    @hookimpl
    async def release(self, machine: Machine) -> None:
        await self.destroy(machine.id)


@breaks("charges_are_told")
class ChargesInParts(Acme):
    @hookimpl
    async def charges(self, since: float, until: float) -> list[Charge]:
        return [*await super().charges(since, until), *await super().charges(since, until)]


@breaks("charges_are_told")
class ChargesInCents(Acme):
    @hookimpl
    async def charges(self, since: float, until: float) -> list[Charge]:
        found = await super().charges(since, until)
        return [replace(charge, amount=charge.amount * 100) for charge in found]


@breaks("charges_are_told")
class KeepsTheLastLineOfABill(Acme):
    def sum_of(self, before: Money, line: Money) -> Money:
        return line


@breaks("balance_is_told")
class CountsCents(Acme):
    @hookimpl
    async def balance(self) -> Money:
        return await super().balance() * 100


@breaks("balance_is_told")
class CountsMicroDollars(Acme):
    @hookimpl
    async def balance(self) -> Money:
        return await super().balance() * 1_000_000


# Manners


@breaks("no_hook_blocks_the_event_loop")
class SleepsInTheEventLoop(Acme):
    slept = False

    @hookimpl
    async def balance(self) -> Money:
        if not self.slept:
            self.slept = True
            time.sleep(0.3)
        return await super().balance()


@breaks("a_cancelled_release_can_be_repeated")
class TakesAReleaseForDone(Acme):
    def __init__(self, vendor: Vendor, *, ssh: bool) -> None:
        super().__init__(vendor, ssh=ssh)
        self.done: set[str] = set()

    async def destroy(self, number: str) -> None:
        if number not in self.done:
            self.done.add(number)
            await super().destroy(number)


@breaks("a_cancelled_create_is_found")
class SendsAgainWhenCancelled(Acme):
    async def create(self, body: Mapping[str, Any]) -> str:
        try:
            return await super().create(body)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await super().create(body)
            raise


@breaks("what_was_cancelled_can_be_asked_again")
class KeepsALock(Acme):
    def __init__(self, vendor: Vendor, *, ssh: bool) -> None:
        super().__init__(vendor, ssh=ssh)
        self.lock = anyio.Semaphore(1)

    @hookimpl
    async def balance(self) -> Money:
        await self.lock.acquire()
        try:
            found = await super().balance()
        except ProviderError:
            self.lock.release()
            raise
        self.lock.release()
        return found


@breaks("the_key_is_shown_nowhere")
class QuotesTheVendor(Acme):
    def failure(self, text: str, status: int = 500) -> ProviderError:
        return ProviderError(text, kind=super().failure(text, status).kind)


@breaks("the_key_is_shown_nowhere")
class ShowsTheKeyInItsRepr(Acme):
    def __repr__(self) -> str:
        return f"<Acme {self.key}>"


@breaks("the_key_is_shown_nowhere")
class LogsItsKey(Acme):
    async def answer(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        logging.getLogger("acme").debug("%s %s with %s", method, path, self.key)
        return await super().answer(method, path, body)


@breaks("the_key_is_shown_nowhere")
class SendsTheKeyInTheQuery(Acme):
    async def answer(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        self.vendor.targets.append(f"{path}?key={self.key}")
        return await super().answer(method, path, body)


@breaks("the_key_is_shown_nowhere")
class ShowsTheKeyInACause(Acme):
    async def answer(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        try:
            return await super().answer(method, path, body)
        except ProviderError as error:
            raise error from ValueError(f"sent with {self.key}")


@breaks("news_of_the_vendor_are_tolerated")
class KnowsAllStates(Acme):
    def state_from(self, word: str) -> MachineState:
        if word == "hibernating":
            raise KeyError(word)
        return super().state_from(word)


@breaks("it_can_be_closed_and_opened_again")
class ClosesOnce(Acme):
    closed = False

    async def __aexit__(self, *error: object) -> None:
        if self.closed:
            raise CutOff
        self.closed = True


class SaysTooLittle(Acme):
    """Nobody can tell whether its offers fit, so that nothing else can be tried either."""

    @hookimpl
    async def quote(self, requirements: Requirements) -> list[Offer]:
        return [replace(offer, disk=None) for offer in await super().quote(requirements)]
