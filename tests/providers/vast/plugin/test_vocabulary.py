"""No word that the vendor documents is missing from the tables."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from tests.providers.answers import received, said

from gpubroker import ErrorKind, MachineState, gpu_name, parse_gpu
from gpubroker_vast.failures import failure
from gpubroker_vast.vocabulary import ERRORS, GPU_LABELS, PHRASES, STATES

from .vendor import no

#: Every error code that the vendor is known to answer with.
DOCUMENTED = (
    *("add_ssh_to_instance", "auth_error", "deprecated_endpoint", "empty_input"),
    *("HTTPTooManyRequests", "instances_not_found", "insufficient_credit", "invalid_args"),
    *("Invalid date range", "invalid_id", "invalid_instance_id", "invalid_json_body"),
    *("invalid_price", "invalid_request", "invalid_token", "label_too_long", "missing_billing"),
    *("missing_id", "missing_input", "no_ssh_key", "no_ssh_key_for_vm", "no_such_ask"),
    *("no_such_instance", "no_such_ssh_key", "not_authorized", "not_found", "offer_not_found"),
    *("rate_limit_exceeded", "rental_too_long", "resources_unavailable", "search_quota_exceeded"),
    *("server_error", "spend_rate_limit", "team_ssh_keys_not_supported", "unauthorized"),
)

#: In the vendor's own documents, as values of ``error``.
_CODE = re.compile(
    r"""\berror["']?: *["']{0,2}([A-Za-z][A-Za-z_ ]*[A-Za-z])(?=["'},\n]|$)""", re.MULTILINE
)
_OBSERVED = re.compile(r"Observed values include ([^.]*)")


@pytest.mark.parametrize("code", DOCUMENTED)
def test_every_documented_error_is_in_the_table(code: str) -> None:
    """Each has a meaning of its own, and is not left to what its status means."""
    assert code.lower() in ERRORS


def test_every_error_in_the_vendors_documents_is_in_the_table() -> None:
    """Where they are at hand: they are the vendor's, and not part of this project."""
    folder = Path(os.environ.get("GPUBROKER_REFERENCE", "")) / "vast-openapi"
    if not folder.is_dir():
        pytest.skip("GPUBROKER_REFERENCE names no folder that has vast-openapi/")
    found: set[str] = set()
    for path in sorted(folder.rglob("*.yaml")):
        text = path.read_text()
        found |= {match[1] for match in _CODE.finditer(text)}
        for match in _OBSERVED.finditer(text):
            found |= set(re.findall(r"`([^`]+)`", match[1]))
    # A property of that name has a type, and no value.
    codes = {code for code in found if " " not in code or code == "Invalid date range"}

    assert len(codes) > 10
    assert {code.lower() for code in codes} - set(ERRORS) == set()


def test_codes_and_phrases_are_small_letters() -> None:
    """What is looked up in them is too."""
    words = [*ERRORS, *(phrase for phrase, _ in PHRASES), *STATES]

    assert words == [word.lower() for word in words]


@pytest.mark.parametrize("code", sorted(ERRORS))
def test_a_code_means_the_same_by_phrase_and_by_table(code: str) -> None:
    """A phrase that is part of a code does not take another one's meaning."""
    error = failure(received(no(400, code)), "trying")

    assert (error.kind, error.scope) == ERRORS[code]


@pytest.mark.parametrize("status", [500, 502, 503, 504, 520, 301, 302])
def test_no_code_makes_a_fault_of_the_service_certain(status: int) -> None:
    """A gateway may repeat any words; nobody knows what was done."""
    assert failure(received(no(status, "no_such_ask")), "trying").kind is ErrorKind.TRANSIENT


def test_every_status_without_a_word_has_some_meaning() -> None:
    """Also the ones that nobody has seen yet."""
    for status in range(400, 600):
        assert failure(received(said(status)), "trying").kind in ErrorKind


@pytest.mark.parametrize("label", GPU_LABELS)
def test_every_label_is_that_of_a_gpu_that_we_know(label: str) -> None:
    """With each of the sizes that it comes in."""
    for size in GPU_LABELS[label] or (None,):
        assert parse_gpu(gpu_name(label, size))


def test_every_documented_state_is_in_the_table() -> None:
    """As the vendor lists them."""
    documented = {
        *("created", "loading", "running", "stopped", "exited", "frozen"),
        *("rebooting", "recycling", "restarting", "unknown", "offline"),
    }

    assert documented == set(STATES)
    assert MachineState.GONE not in STATES.values(), "a row that is there is not gone"
