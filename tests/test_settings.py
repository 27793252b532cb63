"""Settings: which of them counts, where it came from, and what is never shown."""

from __future__ import annotations

import pickle
import traceback
import zoneinfo
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from gpubroker.errors import InvalidValue
from gpubroker.hookspecs import AccountSettings
from gpubroker.model.alerts import Alerts
from gpubroker.model.facts import ProviderFacts
from gpubroker.model.money import Money
from gpubroker.model.places import PostgresUrl
from gpubroker.policy.budget import AtLimit, Budget, Limits
from gpubroker.settings import Settings, load, masked, why_off

SECRET = "sk-0123456789-abcdefghij-SECRET"

Write = Callable[[str], Path]


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory and a home without settings."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a settings file and says where it is."""

    def write_it(text: str) -> Path:
        path = tmp_path / "settings.toml"
        path.write_text(text)
        return path

    return write_it


def sources(settings: Settings) -> dict[str, tuple[str, str]]:
    """Each setting as it is shown, with where it came from."""
    names = [setting.name for setting in settings.sources]
    assert len(names) == len(set(names)), "each setting is shown once"
    return {setting.name: (setting.value, setting.source) for setting in settings.sources}


class TestPrecedence:
    def test_every_limit_can_be_said_in_the_file_and_most_in_the_environment(
        self, write: Write
    ) -> None:
        """Of providers in both; of tags, which may have any name, in the file."""
        path = write(
            """[budget]
            lease = 1
            month = "100"
            machines = 4
            alert_at = [0.25, 1]
            at_limit = "drain"
            [budget.provider.vast]
            day = 5
            [budget.tag."night run"]
            total = 40
            machines = 2"""
        )
        env = {
            "GPUBROKER_BUDGET_MONTH": "90",
            "GPUBROKER_BUDGET_ALERT_AT": "0.5, 0.9",
            "GPUBROKER_BUDGET_AT_LIMIT": "release",
            "GPUBROKER_BUDGET_PROVIDER_VAST_MACHINES": "3",
            "GPUBROKER_BUDGET_PROVIDER_MY_CLOUD_DAY": "2",
        }

        said, replaced = load({}, config=path), load(env, config=path)

        night = Limits(total=Money(40), machines=2)
        assert said.budget == Budget(
            lease=Money(1),
            month=Money(100),
            machines=4,
            alert_at=(0.25, 1.0),
            at_limit=AtLimit.DRAIN,
            provider={"vast": Limits(day=Money(5))},
            tag={"night run": night},
        )
        assert replaced.budget.provider == {
            "vast": Limits(day=Money(5), machines=3),
            "my_cloud": Limits(day=Money(2)),
        }
        assert replaced.budget.month == Money(90)
        assert replaced.budget.alert_at == (0.5, 0.9)
        assert replaced.budget.at_limit is AtLimit.RELEASE
        shown = sources(replaced)
        assert shown["budget.provider.vast.day"] == ("5", str(path))
        assert shown["budget.provider.vast.machines"][1].startswith("GPUBROKER_BUDGET_PROVIDER")

    def test_without_any_settings_there_is_a_default(self, tmp_path: Path) -> None:
        """A ledger in the state folder, no limit, no key."""
        settings = load({})

        assert settings.ledger == tmp_path / "home/.local/state/gpubroker/ledger.db"
        assert settings.budget == Budget()
        assert not settings.budget.set
        assert sources(settings) == {"ledger": (str(settings.ledger), "default")}

    def test_an_argument_wins_over_the_environment_and_that_over_the_file(
        self, write: Write
    ) -> None:
        """Each step down counts only where nothing above it is said."""
        path = write('ledger = "file.db"')
        env = {"GPUBROKER_LEDGER": "env.db"}

        assert load(env, ledger="argument.db", config=path).ledger == Path("argument.db")
        assert load(env, config=path).ledger == Path("env.db")
        assert load({}, config=path).ledger == Path("file.db")
        assert load({"XDG_STATE_HOME": "/state"}).ledger == Path("/state/gpubroker/ledger.db")

    def test_a_ledger_may_be_a_database_whose_password_is_shown_nowhere(self, write: Write) -> None:
        """From an argument, the environment or the file."""
        url = f"postgresql://me:{SECRET}@db.example/gpus"
        path = write(f'ledger = "{url}"')

        for settings in (
            load({}, ledger=url),
            load({"GPUBROKER_LEDGER": url}),
            load({}, config=path),
        ):
            assert settings.ledger == PostgresUrl(url)
            assert sources(settings)["ledger"][0] == "postgresql://me:…@db.example/gpus"
            assert SECRET not in repr(settings)
        with pytest.raises(InvalidValue, match="begin with postgresql://") as refused:
            load({"GPUBROKER_LEDGER": f"mysql://me:{SECRET}@db.example/gpus"})
        assert SECRET not in str(refused.value)

    def test_each_limit_is_taken_from_where_it_is_said(self, write: Write) -> None:
        """The environment replaces single settings, not the whole file."""
        path = write('[budget]\njob = 2\nday = 10.5\ntimezone = "Europe/Berlin"')

        settings = load({"GPUBROKER_BUDGET_JOB": "$1.50"}, config=path)

        assert settings.budget == Budget(
            job=Money("1.50"), day=Money("10.5"), timezone="Europe/Berlin"
        )
        assert sources(settings)["budget.job"] == ("$1.50", "GPUBROKER_BUDGET_JOB")
        assert sources(settings)["budget.day"] == ("10.5", str(path))

    def test_an_empty_variable_says_nothing(self, write: Write) -> None:
        """As where a shell script passes on what is not set."""
        path = write("[budget]\njob = 2")
        env = {"GPUBROKER_BUDGET_JOB": "", "GPUBROKER_LEDGER": "", "VAST_API_KEY": ""}

        settings = load(env, config=path)

        assert settings.budget.job == Money(2)
        assert settings.keys == {}

    def test_the_file_is_found_where_it_usually_is(self, tmp_path: Path) -> None:
        """Named, in the working directory, or in the user's own configuration; in that order."""
        home = tmp_path / "home/.config/gpubroker/gpubroker.toml"
        home.parent.mkdir(parents=True)
        home.write_text("[budget]\njob = 3")
        assert load({}).budget.job == Money(3)
        assert load({"XDG_CONFIG_HOME": "/nowhere"}).budget.job is None

        Path("gpubroker.toml").write_text("[budget]\njob = 2")
        assert load({}).budget.job == Money(2)

        (tmp_path / "named.toml").write_text("[budget]\njob = 1")
        assert load({"GPUBROKER_CONFIG": str(tmp_path / "named.toml")}).budget.job == Money(1)
        assert load({}, config=home).budget.job == Money(3)

    def test_a_named_file_must_be_there(self, tmp_path: Path) -> None:
        """Whoever names one means it: a typing error must not mean "no limits"."""
        with pytest.raises(InvalidValue, match="there is no such file"):
            load({"GPUBROKER_CONFIG": str(tmp_path / "missing.toml")})
        with pytest.raises(InvalidValue, match="there is no such file"):
            load({}, config=tmp_path / "missing.toml")


class TestProviders:
    def test_options_come_from_the_file_and_the_environment(self, write: Write) -> None:
        """As text, whatever they were written as; the environment wins."""
        path = write('[providers.local]\nsimulate = "4090"\nprice = 0.5\nimages = true')

        settings = load({"GPUBROKER_LOCAL_SIMULATE": "H100"}, config=path)

        assert settings.providers["local"] == {
            "simulate": "H100",
            "price": "0.5",
            "images": "true",
        }
        assert sources(settings)["providers.local.simulate"] == (
            "H100",
            "GPUBROKER_LOCAL_SIMULATE",
        )

    def test_a_list_is_a_text_with_commas(self, write: Write) -> None:
        """The way options of several names are written."""
        path = write('[providers.local]\npass_env = ["A", "B"]')

        assert load({}, config=path).providers["local"] == {"pass_env": "A, B"}

    def test_an_account_gets_its_own_settings_and_no_other(self, write: Write) -> None:
        """Its options, its key and its address; not whether it is enabled."""
        path = write(
            f'[providers.acme]\nkey = "{SECRET}"\nurl = "http://localhost:1"\n'
            'enabled = true\nregion = "DE"\n[providers.other]\nkey = "x"'
        )

        settings = load({}, config=path)

        assert settings.account("acme") == AccountSettings(
            "acme", {"region": "DE"}, SECRET, "http://localhost:1"
        )
        assert settings.account("unheard of") == AccountSettings("unheard of")

    @pytest.mark.parametrize(
        ("env", "source"),
        [
            ({"VAST_API_KEY": "b"}, "VAST_API_KEY"),
            ({"GPUBROKER_VAST_KEY": "b"}, "GPUBROKER_VAST_KEY"),
            ({"GPUBROKER_VAST_API_KEY": "b"}, "GPUBROKER_VAST_API_KEY"),
            ({"VAST_API_KEY": "a", "GPUBROKER_VAST_KEY": "b"}, "GPUBROKER_VAST_KEY"),
        ],
    )
    def test_a_key_is_found_where_users_keep_it(
        self, write: Write, env: dict[str, str], source: str
    ) -> None:
        """Under the vendor's usual name, or under ours, which wins; both win over the file."""
        path = write('[providers.vast]\nkey = "a"')

        settings = load(env, config=path)

        assert settings.keys == {"vast": "b"}
        assert settings.providers == {}
        assert sources(settings)["providers.vast.key"] == ("…", source)

    @pytest.mark.parametrize(
        "name", ["GPUBROKER_MARK_KEY", "GPUBROKER_LEASE_ID", "GPUBROKER_CONFIG_X", "GPUBROKER_X"]
    )
    def test_our_own_variables_are_no_providers(self, name: str) -> None:
        """What names something else makes no provider."""
        settings = load({name: "x" * 40})

        assert settings.providers == {}
        assert settings.keys == {}


class TestMistakes:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("[bugdet]\njob = 1", "did you mean 'budget'"),
            ("[budget]\njobs = 1", "did you mean 'job'"),
            ("[budget]\njob = -1", r"budget\.job = -1: must not be negative"),
            ("[budget]\njob = nan", r"budget\.job = nan: must be an amount"),
            ("[budget]\njob = inf", r"budget\.job = inf: must be an amount"),
            ("[budget]\njob = true", r"budget\.job = True: must be an amount"),
            ('[budget]\nday = "much"', r"budget\.day = 'much': must be an amount"),
            ("[budget]\nday = [1]", r"budget\.day"),
            ('[budget]\ntimezone = "Europe/Berln"', "did you mean 'Europe/Berlin'"),
            ('[budget]\ntimezone = "Europe"', r"budget\.timezone"),
            ('[budget]\ntimezone = "../../etc/passwd"', r"budget\.timezone"),
            ("budget = 5", "budget = .*must be a table"),
            ("[budget]\nmachines = 1.5", r"budget\.machines = 1.5: must be a number of machines"),
            ("[budget]\nalert_at = 80", r"budget\.alert_at = 80.0: must be above 0"),
            ('[budget]\nalert_at = "half"', r"budget\.alert_at = \['half'\]: must be fractions"),
            ('[budget]\nat_limit = "drian"', "did you mean 'drain'"),
            ("[budget.provider]\nvast = 5", r"budget\.provider\.vast = .*must be a table"),
            ("[budget.provider.vast]\ndya = 5", "did you mean 'day'"),
            ("[budget.tag.night]\nday = -5", r"budget\.tag\.night\.day = -5: must not be negative"),
            ("ledger = 5", "ledger = 5: must be a path"),
            ("[providers]\nlocal = 5", r"providers\.local = .*must be a table"),
            ("[providers.local.price]\nx = 1", r"providers\.local\.price = .*must be"),
            ("[budget", "config = .*cannot be read"),
            ("[alerts]\ncomand = []", "did you mean 'command'"),
            ("[alerts]\ncommand = 5", r"alerts\.command = .*must be the words of a command"),
            ("[alerts]\ncommand = ['']", r"alerts\.command = .*must be the words of a command"),
            ("[alerts]\nwebhook = 'ftp://x'", r"alerts\.webhook = .*must be an address"),
        ],
    )
    def test_what_makes_no_sense_is_named(self, write: Write, text: str, said: str) -> None:
        """Which setting, what it says, what is wrong with it, and the nearest right name."""
        with pytest.raises(InvalidValue, match=said):
            load({}, config=write(text))

    @pytest.mark.parametrize(
        ("name", "value", "said"),
        [
            ("GPUBROKER_BUDGET_JOB", "-1", r"budget\.job = '-1': must not be negative"),
            ("GPUBROKER_BUDGET_JOB", "cheap", r"budget\.job = 'cheap'"),
            ("GPUBROKER_BUDGET_PROVIDER_VAST_DYA", "5", "unknown variable"),
            ("GPUBROKER_BUDGET_TIMEZONE", "Mars", r"budget\.timezone = 'Mars': unknown time zone"),
            ("GPUBROKER_BUDGET_DAYS", "5", "GPUBROKER_BUDGET_DAY'"),
            ("GPUBROKER_ALERTS_HOOK", "https://x", "GPUBROKER_ALERTS_WEBHOOK'"),
            ("GPUBROKER_ALERTS_COMMAND", "sh '", r"alerts\.command"),
            ("GPUBROKER_POLICY_RANK", "fastest", "the policy is set in gpubroker.toml"),
        ],
    )
    def test_a_limit_is_never_left_out_for_a_typing_error(
        self, name: str, value: str, said: str
    ) -> None:
        """A limit that somebody believes in must be there, or said not to be."""
        with pytest.raises(InvalidValue, match=said):
            load({name: value})

    def test_a_file_that_is_no_text_is_named(self, tmp_path: Path) -> None:
        """Bytes that are no UTF-8."""
        path = tmp_path / "settings.toml"
        path.write_bytes(b"\xff\xfe")

        with pytest.raises(InvalidValue, match="cannot be read"):
            load({}, config=path)

    def test_the_default_time_zone_needs_no_zone_data(self, no_zone_data: None) -> None:
        """A slim container has none."""
        assert load({"GPUBROKER_BUDGET_DAY": "1"}).budget.timezone == "UTC"

    @pytest.fixture
    def no_zone_data(self) -> Iterator[None]:
        """No zone database on this system."""
        before = zoneinfo.TZPATH
        zoneinfo.reset_tzpath(())
        ZoneInfo.clear_cache()
        yield
        zoneinfo.reset_tzpath(before)
        ZoneInfo.clear_cache()


class TestSecrets:
    def test_a_key_is_in_no_representation(self, write: Write) -> None:
        """Neither of the settings nor of an account; the list of settings shows its end at most."""
        path = write(f'[providers.acme]\nkey = "{SECRET}"')

        settings = load({"VAST_API_KEY": SECRET, "RUNPOD_API_KEY": "short"}, config=path)
        shown = f"{settings!r} {settings} {settings.sources} {settings.account('acme')!r}"

        assert SECRET not in shown
        assert "short" not in shown
        assert sources(settings)["providers.vast.key"] == ("…CRET", "VAST_API_KEY")
        assert sources(settings)["providers.runpod.key"] == ("…", "RUNPOD_API_KEY")
        assert settings.account("acme").key == SECRET

    @pytest.mark.parametrize("word", ["token", "password", "client_secret", "access_key"])
    def test_an_option_that_sounds_like_a_secret_is_not_shown(
        self, write: Write, word: str
    ) -> None:
        """A plugin may have secrets of its own; it gets them, and nobody else does."""
        settings = load({}, config=write(f'[providers.acme]\n{word} = "{SECRET}"'))

        assert SECRET not in f"{settings!r} {settings.sources}"
        assert settings.account("acme").options == {word: SECRET}

    @pytest.mark.parametrize(
        "text",
        [
            f'[providers]\nvast = "{SECRET}"',
            f'[providers.vast.key]\nx = "{SECRET}"',
            f'providers = "{SECRET}"',
            f'[providers.vast]\nkey = "{SECRET}',
        ],
    )
    def test_a_key_in_the_wrong_place_is_in_no_error(self, write: Write, text: str) -> None:
        """Errors are pasted into bug reports."""
        with pytest.raises(InvalidValue) as refused:
            load({}, config=write(text))

        error = refused.value
        assert SECRET not in "".join(traceback.format_exception(error))
        assert SECRET not in f"{error!r} {error.value}"

    @pytest.mark.parametrize(
        ("secret", "shown"), [("", "…"), ("x" * 19, "…"), ("x" * 16 + "abcd", "…abcd")]
    )
    def test_only_the_end_of_a_long_secret_is_shown(self, secret: str, shown: str) -> None:
        """Enough to tell two keys apart, too little to guess one."""
        assert masked(secret) == shown

    def test_settings_can_be_handed_to_another_process(self) -> None:
        """Keys included: they are hidden from people, not from the program."""
        settings = load({"VAST_API_KEY": SECRET})

        assert pickle.loads(pickle.dumps(settings)) == settings


PAID = ProviderFacts(paid=True)
FREE = ProviderFacts(paid=False)
#: what holds -> why it does not take part. All is well where nothing is said.
WHY_OFF: list[tuple[dict[str, Any], str | None]] = [
    ({}, None),
    ({"named": False}, "off: not named in the settings (providers.acme.enabled = true)"),
    ({"keyed": False}, "off: no key"),
    ({"limited": False}, "off: no budget"),
    (
        {"under_test": True},
        "off: a test is running, and it is not pointed at an emulator",
    ),
    ({"under_test": True, "real": False}, None),
    ({"real": False, "limited": False}, "off: no budget"),
    ({"keyed": False, "limited": False}, "off: no key"),
]


class TestWhyOff:
    @pytest.mark.parametrize(("changed", "why"), WHY_OFF)
    def test_a_paid_provider_takes_part_only_if_everything_is_settled(
        self, changed: dict[str, Any], why: str | None
    ) -> None:
        """Nothing is rented by surprise: named, keyed, limited, and not in a test."""
        holds = {"named": True, "keyed": True, "limited": True, "real": True, "under_test": False}

        assert why_off(PAID, AccountSettings("acme"), **(holds | changed)) == why

    def test_a_free_provider_always_takes_part(self) -> None:
        """It costs nothing."""
        no = dict.fromkeys(("named", "keyed", "limited"), False)
        yes = dict.fromkeys(("real", "under_test"), True)

        assert why_off(FREE, AccountSettings("acme"), **no, **yes) is None


def test_a_settings_file_of_the_working_directory_may_not_redirect_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cloned repository's `gpubroker.toml` cannot have the user's own key sent elsewhere."""
    (tmp_path / "gpubroker.toml").write_text('[providers.vast]\nurl = "http://127.0.0.1:9"\n')
    monkeypatch.chdir(tmp_path)
    key = {"HOME": str(tmp_path), "VAST_API_KEY": "k" * 30}

    with pytest.raises(InvalidValue, match="may not say where the key from VAST_API_KEY is sent"):
        load(key)
    settings = load({**key, "GPUBROKER_VAST_URL": "http://127.0.0.1:8"})

    assert settings.account("vast").url == "http://127.0.0.1:8"


class TestAlerts:
    def test_they_are_said_in_the_file_or_in_the_environment(self, write: Write) -> None:
        """The environment wins; a command is a list of words, or a text as a shell reads it."""
        path = write('[alerts]\ncommand = ["notify", "a b"]\nwebhook = "https://example.org/a"')

        filed = load({}, config=path)
        said = load({"GPUBROKER_ALERTS_COMMAND": "mail -s 'look here'"}, config=path)

        assert filed.alerts == Alerts(command=("notify", "a b"), webhook="https://example.org/a")
        assert said.alerts.command == ("mail", "-s", "look here")
        assert sources(said)["alerts.command"] == ("mail …", "GPUBROKER_ALERTS_COMMAND")
        assert not load({}).alerts

    def test_neither_is_shown(self, write: Write) -> None:
        """A webhook is as good as a key, and so may a word of a command be."""
        hook = f"https://example.org/{SECRET}"
        path = write(f'[alerts]\ncommand = ["curl", "{hook}"]\nwebhook = "{hook}"')

        settings = load({}, config=path)

        assert settings.alerts.webhook == hook
        assert SECRET not in f"{settings!r} {settings.sources}"
        with pytest.raises(InvalidValue) as refused:
            load({"GPUBROKER_ALERTS_WEBHOOK": f"gopher://{SECRET}"})
        assert SECRET not in f"{refused.value!r} {refused.value}"

    @pytest.mark.parametrize("line", ['command = ["evil"]', 'webhook = "https://evil.example"'])
    def test_a_file_of_the_working_directory_may_not_say_them(self, line: str) -> None:
        """A cloned repository's `gpubroker.toml` neither runs programs nor is told anything."""
        Path("gpubroker.toml").write_text(f"[alerts]\n{line}\n")

        with pytest.raises(InvalidValue, match=r"in the working directory may not say this"):
            load({})

    def test_a_file_of_the_working_directory_does_not_silence_them(self, tmp_path: Path) -> None:
        """Whatever else it says: the user's own alerts stay."""
        own = tmp_path / "home/.config/gpubroker/gpubroker.toml"
        own.parent.mkdir(parents=True)
        own.write_text('[alerts]\ncommand = ["notify"]\n[budget]\njob = 3')
        Path("gpubroker.toml").write_text("[budget]\njob = 2")

        settings = load({})

        assert settings.budget.job == Money(2)
        assert settings.alerts.command == ("notify",)
        assert sources(settings)["alerts.command"] == ("notify", str(own))
