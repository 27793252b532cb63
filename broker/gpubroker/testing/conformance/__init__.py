"""Conformance: the promises that every provider plugin keeps, as checks that can be run.

A vendor is emulated, the plugin rents from it as the broker does, and what the vendor's own books
say is compared with what the plugin says. In the tests of a plugin::

    class TestAcme(ProviderConformance):
        @pytest.fixture
        def subject(self):
            with AcmeEmulator() as cloud:
                yield Subject(
                    name="acme",
                    factory=gpubroker_acme.create,
                    settings=AccountSettings("acme", {}, cloud.key, cloud.url),
                    wanted={"gpu": "RTX 4090", "disk": 20},
                    books=VendorBooks(running=cloud.running, creates=cloud.creates),
                    unknown_id="4711",
                )

Each test says in its docstring what is promised, why, and how to mend a plugin that breaks it. A
test for which the subject declares nothing is skipped and says so. They run on every event loop
that the module's ``anyio_backend`` names: both, if it is left alone.

``gpubroker conformance acme`` carries all of them out without pytest, and says for each how it ended.
It finds the subject under the entry-point group ``gpubroker.conformance``, where a plugin names
a function that makes one::

    [project.entry-points."gpubroker.conformance"]
    acme = "gpubroker_acme.testing:subject"

    @contextmanager
    def subject():
        with AcmeEmulator() as cloud:
            yield Subject(...)

In Python, `CHECKS` holds the same as plain coroutine functions of a `Subject`; they raise
``AssertionError`` where a promise is broken, and `NotDeclared` where they do not apply.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from gpubroker.testing.conformance.ending import (
    check_an_id_is_enough_to_release,
    check_balance_is_told,
    check_charges_are_told,
    check_only_ids_reach_the_vendor,
    check_release_can_be_repeated,
    check_release_ends_billing,
    check_what_is_gone_bills_no_more,
)
from gpubroker.testing.conformance.manners import (
    check_a_cancelled_create_is_found,
    check_a_cancelled_release_can_be_repeated,
    check_it_can_be_closed_and_opened_again,
    check_news_of_the_vendor_are_tolerated,
    check_no_hook_blocks_the_event_loop,
    check_the_key_is_shown_nowhere,
    check_what_was_cancelled_can_be_asked_again,
)
from gpubroker.testing.conformance.quoting import (
    check_disk_is_priced,
    check_facts_and_hooks_agree,
    check_prices_are_exact,
    check_prices_are_for_the_whole_machine,
    check_quote_can_be_asked_again,
    check_quote_has_what_fits,
    check_quote_of_the_impossible_is_empty,
)
from gpubroker.testing.conformance.renting import (
    check_a_refusal_that_bills_names_its_machine,
    check_inventory_is_complete_or_raises,
    check_inventory_is_read_each_time,
    check_inventory_lists_every_machine,
    check_inventory_shows_mark_and_id,
    check_lost_answers_are_unknown,
    check_one_create_for_each_order,
    check_price_ceiling_is_kept,
    check_provision_does_not_wait_for_the_boot,
    check_the_order_is_passed_on,
    check_the_price_is_what_bills,
)
from gpubroker.testing.conformance.report import Check
from gpubroker.testing.conformance.subject import (
    Do,
    NotDeclared,
    Subject,
    SubjectMaker,
    Troubles,
    VendorBooks,
)
from gpubroker.testing.conformance.working import (
    check_a_way_to_the_machine_appears,
    check_exit_code_is_the_jobs_own,
    check_jobs_of_an_order_run_by_themselves,
    check_log_shows_the_nonce,
    check_output_comes_back_whole,
    check_timeout_ends_the_job,
    check_words_and_environment_arrive,
)

if TYPE_CHECKING:
    from gpubroker.testing.conformance.suite import ProviderConformance

CHECKS: Final[Mapping[str, Check]] = {
    check.__name__.removeprefix("check_"): check
    for check in (
        check_facts_and_hooks_agree,
        check_quote_has_what_fits,
        check_quote_of_the_impossible_is_empty,
        check_quote_can_be_asked_again,
        check_prices_are_exact,
        check_prices_are_for_the_whole_machine,
        check_disk_is_priced,
        check_one_create_for_each_order,
        check_the_order_is_passed_on,
        check_inventory_shows_mark_and_id,
        check_provision_does_not_wait_for_the_boot,
        check_price_ceiling_is_kept,
        check_the_price_is_what_bills,
        check_lost_answers_are_unknown,
        check_a_refusal_that_bills_names_its_machine,
        check_inventory_is_complete_or_raises,
        check_inventory_is_read_each_time,
        check_inventory_lists_every_machine,
        check_a_way_to_the_machine_appears,
        check_log_shows_the_nonce,
        check_exit_code_is_the_jobs_own,
        check_output_comes_back_whole,
        check_words_and_environment_arrive,
        check_timeout_ends_the_job,
        check_jobs_of_an_order_run_by_themselves,
        check_release_ends_billing,
        check_what_is_gone_bills_no_more,
        check_release_can_be_repeated,
        check_an_id_is_enough_to_release,
        check_only_ids_reach_the_vendor,
        check_charges_are_told,
        check_balance_is_told,
        check_no_hook_blocks_the_event_loop,
        check_a_cancelled_create_is_found,
        check_a_cancelled_release_can_be_repeated,
        check_what_was_cancelled_can_be_asked_again,
        check_the_key_is_shown_nowhere,
        check_news_of_the_vendor_are_tolerated,
        check_it_can_be_closed_and_opened_again,
    )
}
"""All of them by name, in the order in which the broker would come across what they are about."""

__all__ = [
    "CHECKS",
    "Check",
    "Do",
    "NotDeclared",
    "ProviderConformance",
    "Subject",
    "SubjectMaker",
    "Troubles",
    "VendorBooks",
]


def __getattr__(name: str) -> Any:
    """The class of tests, which alone needs pytest, when it is asked for."""
    if name != "ProviderConformance":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from gpubroker.testing.conformance.suite import ProviderConformance

    return ProviderConformance
