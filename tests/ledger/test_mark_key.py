"""The key that marks are made with."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from gpubroker.errors import InvalidValue, LedgerUnusable
from gpubroker.ledger.mark_key import load_mark_key
from gpubroker.model.places import PostgresUrl

ENTROPY = bytes(range(32))
OTHER = bytes(32)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db.key"


def test_a_new_key_is_kept_beside_the_ledger_for_its_owner_alone(
    ledger: Path, key_file: Path
) -> None:
    """Mode 0600 whatever the umask, and no draft is left behind."""
    before = os.umask(0)
    try:
        key = load_mark_key(ledger, {}, ENTROPY)
    finally:
        os.umask(before)

    assert key == ENTROPY
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert list(ledger.parent.iterdir()) == [key_file]


def test_the_first_key_is_the_key(ledger: Path) -> None:
    """Marks made before must verify for ever."""
    load_mark_key(ledger, {}, ENTROPY)

    assert load_mark_key(ledger, {}, OTHER) == ENTROPY


def test_brokers_that_start_together_get_the_same_key(ledger: Path) -> None:
    """Of many drafts one becomes the key; nobody fails, nobody has another."""
    keys: list[bytes] = []
    together = threading.Barrier(8)

    def start(number: int) -> None:
        together.wait()
        keys.append(load_mark_key(ledger, {}, bytes([number]) * 32))

    threads = [threading.Thread(target=start, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(keys) == 8
    assert len(set(keys)) == 1
    assert len(list(ledger.parent.iterdir())) == 1


def test_a_draft_that_a_crash_left_is_in_nobodys_way(ledger: Path, key_file: Path) -> None:
    """In a container every process has the same number: a restart must not find its way barred."""
    key_file.with_name(f"{key_file.name}.{os.getpid()}").write_text("half a k")

    assert load_mark_key(ledger, {}, ENTROPY) == ENTROPY


def test_hosts_that_share_a_ledger_share_a_key(ledger: Path, key_file: Path) -> None:
    """Given in the environment, it is used as it is and written nowhere."""
    shared = {"GPUBROKER_MARK_KEY": "x" * 32}

    assert load_mark_key(ledger, shared, ENTROPY) == b"x" * 32
    assert not key_file.exists()


def test_a_short_shared_key_is_refused_without_being_shown(ledger: Path) -> None:
    """Marks made with it could be forged."""
    with pytest.raises(InvalidValue, match="at least 32 characters") as refused:
        load_mark_key(ledger, {"GPUBROKER_MARK_KEY": "hunter2"}, ENTROPY)

    assert "hunter2" not in f"{refused.value!r}{refused.value}{refused.value.value}"


def test_a_ledger_in_memory_has_a_key_in_memory() -> None:
    """Nothing is written for it."""
    assert load_mark_key(None, {}, ENTROPY) == ENTROPY


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_may_read_is_refused(ledger: Path, key_file: Path, mode: int) -> None:
    """Whoever has it can make us destroy a machine; the remedy is in the error."""
    load_mark_key(ledger, {}, ENTROPY)
    key_file.chmod(mode)

    with pytest.raises(LedgerUnusable, match="chmod 600"):
        load_mark_key(ledger, {}, OTHER)


@pytest.mark.parametrize("content", ["", "\n", "no hex digits", "ab" * 31, "ab" * 15 + "a"])
def test_what_is_no_key_is_refused(ledger: Path, key_file: Path, content: str) -> None:
    """An empty file would be a key that everybody knows; a new one would disown every machine."""
    key_file.touch(0o600)
    key_file.write_text(content)

    with pytest.raises(LedgerUnusable, match=r"ledger\.db\.key"):
        load_mark_key(ledger, {}, ENTROPY)

    assert key_file.read_text() == content


def test_a_key_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """Without one no machine could be told from a stranger's."""
    with pytest.raises(LedgerUnusable, match="mark key"):
        load_mark_key(tmp_path / "missing" / "ledger.db", {}, ENTROPY)


def test_a_missing_key_is_not_replaced_while_it_is_needed(tmp_path: Path) -> None:
    """While leases are open, a new key would make strangers of our own machines."""
    with pytest.raises(LedgerUnusable, match="missing while leases are open"):
        load_mark_key(tmp_path / "ledger.db", {}, b"k" * 32, needed=True)


class TestPostgres:
    def test_hosts_of_one_ledger_need_the_same_key(self) -> None:
        """Never one at random: the error says how to make one."""
        with pytest.raises(InvalidValue, match="openssl rand -hex 32"):
            load_mark_key(PostgresUrl("postgresql:///x"), {}, ENTROPY)

    def test_the_shared_key_is_used(self) -> None:
        """From the environment of each host."""
        environ = {"GPUBROKER_MARK_KEY": "k" * 32}

        assert load_mark_key(PostgresUrl("postgresql:///x"), environ, ENTROPY) == b"k" * 32
