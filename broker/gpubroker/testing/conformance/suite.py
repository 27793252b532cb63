"""The checks as tests: the class that a test module of a plugin subclasses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from gpubroker.testing.conformance import ending, manners, quoting, renting, working
from gpubroker.testing.conformance.subject import NotDeclared, Subject


async def _keeps(check: Callable[[Subject], Awaitable[None]], subject: Subject) -> None:
    """Carry a check out; where it does not apply, the test is skipped and says why."""
    try:
        await check(subject)
    except NotDeclared as reason:
        pytest.skip(str(reason))


@pytest.mark.anyio
class ProviderConformance:
    """The tests that every plugin passes. Subclass it, and give it the fixture `subject`.

    What is promised, why it matters and how to mend it is said by the check that a test carries out.
    """

    @pytest.fixture
    def subject(self) -> Subject:
        """What is tested; to be given by the subclass."""
        raise NotImplementedError("a subclass of ProviderConformance has a fixture `subject`")

    async def test_facts_and_hooks_agree(self, subject: Subject) -> None:
        """The provider is what its subject says, in its facts and its hooks."""
        await _keeps(quoting.check_facts_and_hooks_agree, subject)

    async def test_quote_has_what_fits(self, subject: Subject) -> None:
        """What the vendor surely has is offered, with enough said for the broker to see that it fits."""
        await _keeps(quoting.check_quote_has_what_fits, subject)

    async def test_quote_of_the_impossible_is_empty(self, subject: Subject) -> None:
        """That nothing can be rented is an answer, and no failure."""
        await _keeps(quoting.check_quote_of_the_impossible_is_empty, subject)

    async def test_quote_can_be_asked_again(self, subject: Subject) -> None:
        """Asking twice rents nothing, and a thing that is offered twice is the same both times."""
        await _keeps(quoting.check_quote_can_be_asked_again, subject)

    async def test_prices_are_exact(self, subject: Subject) -> None:
        """No part of a price has digits that no vendor wrote."""
        await _keeps(quoting.check_prices_are_exact, subject)

    async def test_prices_are_for_the_whole_machine(self, subject: Subject) -> None:
        """Two GPUs cost about twice what one costs."""
        await _keeps(quoting.check_prices_are_for_the_whole_machine, subject)

    async def test_disk_is_priced(self, subject: Subject) -> None:
        """More disk costs more, where the vendor bills it."""
        await _keeps(quoting.check_disk_is_priced, subject)

    async def test_one_create_for_each_order(self, subject: Subject) -> None:
        """One call of ``provision`` is one create at the vendor, and one machine with the answer's id."""
        await _keeps(renting.check_one_create_for_each_order, subject)

    async def test_the_order_is_passed_on(self, subject: Subject) -> None:
        """The key that must be let in, and the moment at which the machine must end, reach the vendor."""
        await _keeps(renting.check_the_order_is_passed_on, subject)

    async def test_inventory_shows_mark_and_id(self, subject: Subject) -> None:
        """A new machine is listed with its mark, under the id that ``provision`` returned."""
        await _keeps(renting.check_inventory_shows_mark_and_id, subject)

    async def test_provision_does_not_wait_for_the_boot(self, subject: Subject) -> None:
        """``provision`` returns when the vendor has accepted, however long the machine takes to boot."""
        await _keeps(renting.check_provision_does_not_wait_for_the_boot, subject)

    async def test_price_ceiling_is_kept(self, subject: Subject) -> None:
        """An order that costs more than its ceiling is refused, or the machine's price is told."""
        await _keeps(renting.check_price_ceiling_is_kept, subject)

    async def test_the_price_is_what_bills(self, subject: Subject) -> None:
        """What an offer says is what its machine costs, and so is ``Machine.hourly``."""
        await _keeps(renting.check_the_price_is_what_bills, subject)

    async def test_lost_answers_are_unknown(self, subject: Subject) -> None:
        """A create whose answer is lost is `CreateUnknown`, never sent again, and found by its mark."""
        await _keeps(renting.check_lost_answers_are_unknown, subject)

    async def test_a_refusal_that_bills_names_its_machine(self, subject: Subject) -> None:
        """A refusal that names a machine is raised with ``machine_id``, so that it is released."""
        await _keeps(renting.check_a_refusal_that_bills_names_its_machine, subject)

    async def test_inventory_is_complete_or_raises(self, subject: Subject) -> None:
        """A list that may lack a machine is an error, never a shorter list."""
        await _keeps(renting.check_inventory_is_complete_or_raises, subject)

    async def test_inventory_is_read_each_time(self, subject: Subject) -> None:
        """Every inventory asks the vendor anew; no list is remembered for the next call."""
        await _keeps(renting.check_inventory_is_read_each_time, subject)

    async def test_inventory_lists_every_machine(self, subject: Subject) -> None:
        """Machines that this broker did not order are listed as well, marked or not."""
        await _keeps(renting.check_inventory_lists_every_machine, subject)

    async def test_a_way_to_the_machine_appears(self, subject: Subject) -> None:
        """A machine that is reached over SSH says where, once it runs."""
        await _keeps(working.check_a_way_to_the_machine_appears, subject)

    async def test_log_shows_the_nonce(self, subject: Subject) -> None:
        """The log is text while the machine boots, and shows the order's nonce once it runs."""
        await _keeps(working.check_log_shows_the_nonce, subject)

    async def test_exit_code_is_the_jobs_own(self, subject: Subject) -> None:
        """Zero, another code, and the death by a signal are told apart, as a shell tells them."""
        await _keeps(working.check_exit_code_is_the_jobs_own, subject)

    async def test_output_comes_back_whole(self, subject: Subject) -> None:
        """Both streams, apart from each other, byte for byte, up to the last one."""
        await _keeps(working.check_output_comes_back_whole, subject)

    async def test_words_and_environment_arrive(self, subject: Subject) -> None:
        """A command's words and its environment arrive exactly as given."""
        await _keeps(working.check_words_and_environment_arrive, subject)

    async def test_timeout_ends_the_job(self, subject: Subject) -> None:
        """A job whose time is up is ended, reported as such, and its output is kept."""
        await _keeps(working.check_timeout_ends_the_job, subject)

    async def test_jobs_of_an_order_run_by_themselves(self, subject: Subject) -> None:
        """A machine that is not reached over SSH runs the jobs of its order, and says how they ended."""
        await _keeps(working.check_jobs_of_an_order_run_by_themselves, subject)

    async def test_release_ends_billing(self, subject: Subject) -> None:
        """After a release the vendor bills no more, and the machine leaves the list."""
        await _keeps(ending.check_release_ends_billing, subject)

    async def test_what_is_gone_bills_no_more(self, subject: Subject) -> None:
        """A machine that lists prove gone costs nothing any more, at that moment."""
        await _keeps(ending.check_what_is_gone_bills_no_more, subject)

    async def test_release_can_be_repeated(self, subject: Subject) -> None:
        """Releasing what is gone already, or never was, returns quietly."""
        await _keeps(ending.check_release_can_be_repeated, subject)

    async def test_an_id_is_enough_to_release(self, subject: Subject) -> None:
        """A new instance of the plugin releases a machine of which it knows the id alone."""
        await _keeps(ending.check_an_id_is_enough_to_release, subject)

    async def test_only_ids_reach_the_vendor(self, subject: Subject) -> None:
        """Text that is no id of the vendor's ends no machine, and stands in no request's path."""
        await _keeps(ending.check_only_ids_reach_the_vendor, subject)

    async def test_charges_are_told(self, subject: Subject) -> None:
        """What a machine really cost is told, once, as money that makes sense."""
        await _keeps(ending.check_charges_are_told, subject)

    async def test_balance_is_told(self, subject: Subject) -> None:
        """What the account has left is an amount of US dollars, not cents, and asking changes nothing."""
        await _keeps(ending.check_balance_is_told, subject)

    async def test_no_hook_blocks_the_event_loop(self, subject: Subject) -> None:
        """No hook keeps the event loop from everything else."""
        await _keeps(manners.check_no_hook_blocks_the_event_loop, subject)

    async def test_a_cancelled_create_is_found(self, subject: Subject) -> None:
        """Wherever ``provision`` is cancelled, one machine at the most comes of it, and it is listed."""
        await _keeps(manners.check_a_cancelled_create_is_found, subject)

    async def test_a_cancelled_release_can_be_repeated(self, subject: Subject) -> None:
        """Wherever ``release`` is cancelled, the next release ends the machine."""
        await _keeps(manners.check_a_cancelled_release_can_be_repeated, subject)

    async def test_what_was_cancelled_can_be_asked_again(self, subject: Subject) -> None:
        """Wherever a hook that reads is cancelled, the next call of it is answered as usual."""
        await _keeps(manners.check_what_was_cancelled_can_be_asked_again, subject)

    async def test_the_key_is_shown_nowhere(self, subject: Subject) -> None:
        """The account key is in no log, error, repr, path or query, even where the vendor quotes it."""
        await _keeps(manners.check_the_key_is_shown_nowhere, subject)

    async def test_news_of_the_vendor_are_tolerated(self, subject: Subject) -> None:
        """Parts and words that nobody knows yet change nothing about those that are known."""
        await _keeps(manners.check_news_of_the_vendor_are_tolerated, subject)

    async def test_it_can_be_closed_and_opened_again(self, subject: Subject) -> None:
        """A closed plugin may be closed again, and the factory makes another that works."""
        await _keeps(manners.check_it_can_be_closed_and_opened_again, subject)
