"""Settings: where each came from, and secrets that are never shown.

An argument wins over the environment, and the environment over ``gpubroker.toml``, which is looked
for in ``$GPUBROKER_CONFIG``, in the working directory, and in ``~/.config/gpubroker/``.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, cast

from gpubroker.errors import InvalidValue
from gpubroker.hookspecs import AccountSettings
from gpubroker.model.alerts import Alerts
from gpubroker.model.facts import ProviderFacts
from gpubroker.model.money import Money, parse_money
from gpubroker.model.places import Place, ledger_place
from gpubroker.policy.budget import Budget, Limits
from gpubroker.policy.policy import Policy

_TABLES: Final = ("budget", "providers", "ledger", "policy", "alerts")
_ALERTS: Final = ("command", "webhook")
_LIMITS: Final = tuple(Limits.__dataclass_fields__)
_BUDGET: Final = tuple(Budget.__dataclass_fields__)
#: Under these names users already keep their keys.
_KEYS: Final = {"vast": "VAST_API_KEY", "runpod": "RUNPOD_API_KEY"}
#: Options of plugins that are shown no more than a key is.
_SECRET: Final = re.compile("key|token|secret|password|credential", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, as text for people, with where it came from."""

    name: str
    value: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set.

    Attributes:
        ledger: the ledger file, or the database that it is in.
        policy: how machines are chosen, and what follows a failure.
        policy_words: the words that `policy` was made from, for others to be put over them.
        budget: limits that hold for everything this broker rents.
        alerts: who else is told of thresholds and alarms.
        providers: options of each provider by name, as text. Keys are kept apart from them.
            Shown by no repr either: a plugin may have secrets of its own.
        keys: account keys by provider. Shown by no repr.
        sources: each setting with where it came from, keys masked.
    """

    ledger: Place
    budget: Budget = field(default_factory=Budget)
    alerts: Alerts = field(default_factory=Alerts)
    policy: Policy = field(default_factory=Policy)
    policy_words: Mapping[str, Any] = field(default_factory=dict[str, Any])
    providers: Mapping[str, Mapping[str, str]] = field(
        default_factory=dict[str, Mapping[str, str]], repr=False
    )
    keys: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    sources: tuple[Setting, ...] = ()

    def account(self, provider: str) -> AccountSettings:
        """What the factory of `provider` is given."""
        options = dict(self.providers.get(provider, {}))
        url = options.pop("url", None)
        options.pop("enabled", None)
        return AccountSettings(provider, options, self.keys.get(provider), url)


def load(
    environ: Mapping[str, str] | None = None,
    *,
    ledger: str | Path | None = None,
    config: str | Path | None = None,
) -> Settings:
    """Read the settings.

    Args:
        environ: the environment; the process's own where left out.
        ledger: the ledger file, or a URL of PostgreSQL. config: the settings file.

    Raises:
        InvalidValue: an unknown or malformed setting, naming it and where it stands.
    """
    env = os.environ if environ is None else environ
    path = _config_path(env, config)
    document = _document(path)
    sources: dict[str, Setting] = {}
    chosen, source = _first(
        (ledger, "argument"),
        (env.get("GPUBROKER_LEDGER"), "GPUBROKER_LEDGER"),
        (document.get("ledger"), str(path)),
        (state_home(env) / "ledger.db", "default"),
    )
    if not isinstance(chosen, (str, Path)):
        raise InvalidValue("ledger", chosen, "must be a path, or a URL of PostgreSQL")
    place = ledger_place(chosen)
    _note(sources, "ledger", str(place), source)
    providers, keys = _providers(env, document.get("providers", {}), path, sources)
    words = _policy_words(env, document.get("policy", {}), path, sources)
    return Settings(
        ledger=place,
        budget=_budget(env, document.get("budget", {}), path, sources),
        alerts=_alerts(env, *_own(env, document, path), sources),
        policy=Policy.from_mapping(words),
        policy_words=words,
        providers=providers,
        keys=keys,
        sources=tuple(sources.values()),
    )


def in_force(
    settings: Settings | None,
    *,
    ledger: str | Path | None,
    budget: Budget | Money | float | str | None,
) -> Settings:
    """The settings that a program gives, or else those that are read, with its own words over them.

    Args:
        ledger: the ledger file, or a URL of PostgreSQL.
        budget: limits on money; a single amount is the limit per job.
    """
    chosen = settings or load(ledger=ledger)
    if ledger is not None:
        chosen = replace(chosen, ledger=ledger_place(ledger))
    if budget is not None:
        given = budget if isinstance(budget, Budget) else Budget(job=parse_money("budget", budget))
        chosen = replace(chosen, budget=given)
    return chosen


def state_home(environ: Mapping[str, str]) -> Path:
    """The folder for what gpubroker keeps on this host, where nothing else is set."""
    state = environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "gpubroker"


#: Why a paid provider is off where no spending limit holds.
NO_BUDGET: Final = "off: no budget"


def why_off(
    facts: ProviderFacts,
    settings: AccountSettings,
    *,
    named: bool,
    keyed: bool,
    limited: bool,
    real: bool,
    under_test: bool,
    disabled: bool = False,
) -> str | None:
    """Why a provider does not take part; ``None`` if it does. Nothing is rented by surprise.

    Args:
        named: it comes with gpubroker itself, or the settings name it with ``enabled = true``.
        keyed: it has a key, or needs none.
        limited: a spending limit is set somewhere.
        real: it is not pointed at an emulator.
        under_test: a test suite is running.
        disabled: the settings switch it off.
    """
    if disabled:
        return f"off: switched off in the settings (providers.{settings.name}.enabled = false)"
    if not facts.paid:
        return None
    if not named:
        return f"off: not named in the settings (providers.{settings.name}.enabled = true)"
    if not keyed:
        return "off: no key"
    if not limited:
        return NO_BUDGET
    if under_test and real:
        return "off: a test is running, and it is not pointed at an emulator"
    return None


def _config_path(env: Mapping[str, str], given: str | Path | None) -> Path | None:
    named = given or env.get("GPUBROKER_CONFIG")
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            raise InvalidValue("config", str(path), "there is no such file")
        return path
    usual = (Path("gpubroker.toml"), _own_path(env))
    return next((path for path in usual if path.is_file()), None)


def _own_path(env: Mapping[str, str]) -> Path:
    home = Path(env.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return home / "gpubroker" / "gpubroker.toml"


def _own(
    env: Mapping[str, str], document: dict[str, Any], path: Path | None
) -> tuple[dict[str, Any], Path | None]:
    """The alerts of a file that the user is known to mean, and which file that is.

    One that merely lies in the working directory must not say what is run, or where anything is
    sent; and it must not silence the user's own alerts either.
    """
    alerts = _table(document.get("alerts", {}), "alerts", _ALERTS)
    if path is None or path.is_absolute():
        return alerts, path
    for word in alerts:
        raise InvalidValue(
            f"alerts.{word}",
            "…",
            f"{path} in the working directory may not say this; {_own_path(env)} may, or"
            f" GPUBROKER_ALERTS_{word.upper()}",
        )
    own = _own_path(env)
    if not own.is_file():
        return {}, None
    return _table(_document(own).get("alerts", {}), "alerts", _ALERTS), own


def _document(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    import tomllib  # most programs have no such file

    try:
        document = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidValue("config", str(path), f"cannot be read: {error}") from None
    for key in document:
        if key not in _TABLES:
            raise InvalidValue.unknown(f"{path}", key, _TABLES, noun="key")
    return document


def _note(sources: dict[str, Setting], name: str, value: str, source: str) -> None:
    """Say where a setting came from; what comes later counts, and is what is shown."""
    sources.pop(name, None)
    sources[name] = Setting(name, value, source)


def _first(*candidates: tuple[Any, str]) -> tuple[Any, str]:
    return next((value, source) for value, source in candidates if value not in (None, ""))


def _budget(
    env: Mapping[str, str], table: Any, path: Path | None, sources: dict[str, Setting]
) -> Budget:
    values: dict[str, Any] = {}
    limits: dict[str, dict[str, dict[str, Any]]] = {"provider": {}, "tag": {}}
    for name, value in _table(table, "budget", _BUDGET).items():
        if name not in limits:
            values[name] = value
            _note(sources, f"budget.{name}", str(value), str(path))
            continue
        for of, words in _table(value, f"budget.{name}").items():
            limits[name][of] = dict(_table(words, f"budget.{name}.{of}", _LIMITS))
            for word, amount in limits[name][of].items():
                _note(sources, f"budget.{name}.{of}.{word}", str(amount), str(path))
    plain = [name for name in _BUDGET if name not in limits]
    variables = {f"GPUBROKER_BUDGET_{name.upper()}": name for name in plain}
    for variable, value in env.items():
        if not variable.startswith("GPUBROKER_BUDGET_") or not value:
            continue
        # GPUBROKER_BUDGET_PROVIDER_ACME_DAY sets budget.provider.acme.day.
        head, of, word = _split(variable.removeprefix("GPUBROKER_BUDGET_").lower())
        if head == "provider" and word in _LIMITS:
            limits[head].setdefault(of, {})[word] = value
            _note(sources, f"budget.provider.{of}.{word}", value, variable)
        elif variable in variables:
            values[variables[variable]] = value
            _note(sources, f"budget.{variables[variable]}", value, variable)
        else:
            # A limit that somebody believes in must not be left out for a typing error.
            raise InvalidValue.unknown("environment", variable, variables, noun="variable")
    given = {name: _limit(f"budget.{name}", name, value) for name, value in values.items()}
    for head, named in limits.items():
        given[head] = {
            of: Limits(**{w: _limit(f"budget.{head}.{of}.{w}", w, v) for w, v in words.items()})
            for of, words in named.items()
        }
    return Budget(**given)


def _alerts(
    env: Mapping[str, str],
    table: dict[str, Any],
    path: Path | None,
    sources: dict[str, Setting],
) -> Alerts:
    values = {word: (value, str(path)) for word, value in table.items()}
    variables = {f"GPUBROKER_ALERTS_{word.upper()}": word for word in _ALERTS}
    for variable, value in env.items():
        if not variable.startswith("GPUBROKER_ALERTS_") or not value:
            continue
        if variable not in variables:
            raise InvalidValue.unknown("environment", variable, variables, noun="variable")
        values[variables[variable]] = (value, variable)
    given: dict[str, Any] = {}
    if "command" in values:
        value, source = values["command"]
        given["command"] = command = _command(value)
        # Its arguments may well hold a token.
        shown = " ".join([*command[:1], *(["…"] if command[1:] else [])])
        _note(sources, "alerts.command", shown, source)
    if "webhook" in values:
        value, source = values["webhook"]
        given["webhook"] = str(value)
        _note(sources, "alerts.webhook", masked(str(value)), source)
    return Alerts(**given)


def _command(value: Any) -> tuple[str, ...]:
    """The words of a command: a list of them, or a text as a shell reads it."""
    try:
        words = shlex.split(value) if isinstance(value, str) else cast("object", value)
    except ValueError:
        words = None
    if not isinstance(words, list):
        raise InvalidValue("alerts.command", "…", "must be the words of a command")
    return tuple(str(word) for word in cast("list[object]", words))


def _split(words: str) -> tuple[str, str, str]:
    head, _, rest = words.partition("_")
    of, _, word = rest.rpartition("_")
    return head, of, word


def _limit(field: str, word: str, value: Any) -> Any:
    """What a word of the budget's tables says, as `Budget` and `Limits` have it."""
    match word:
        case "timezone" | "at_limit":
            return str(value)
        case "machines":
            if not str(value).isdecimal():
                raise InvalidValue(field, value, "must be a number of machines")
            return int(value)
        case "alert_at":
            return _fractions(field, value)
        case _:
            return parse_money(field, value)


def _fractions(field: str, value: Any) -> tuple[float, ...]:
    words = str(value).split(",")
    if isinstance(value, list):
        words = [str(item) for item in cast("list[object]", value)]
    try:
        return tuple(float(word) for word in words)
    except ValueError:
        raise InvalidValue(field, words, "must be fractions such as 0.5, 0.8") from None


def _table(value: Any, name: str, known: tuple[str, ...] | None = None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidValue(name, "…", "must be a table")  # it may be a key in the wrong place
    table = cast("dict[str, Any]", value)
    for key in table:
        if known is not None and key not in known:
            raise InvalidValue.unknown(name, key, known, noun="key")
    return table


def _policy_words(
    env: Mapping[str, str], table: Any, path: Path | None, sources: dict[str, Setting]
) -> dict[str, Any]:
    for variable, value in env.items():
        if variable.startswith("GPUBROKER_POLICY_") and value:
            # Else it would be taken for an option of a provider named policy, and change nothing.
            problem = "the policy is set in gpubroker.toml, by options, or in Python"
            raise InvalidValue("environment", variable, problem)
    words = _table(table, "policy")
    for word, value in words.items():
        _note(sources, f"policy.{word}", str(value), str(path))
    return words


def _providers(
    env: Mapping[str, str], table: Any, path: Path | None, sources: dict[str, Setting]
) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    options: dict[str, dict[str, str]] = {}
    keys: dict[str, str] = {}

    def put(provider: str, word: str, value: str, source: str) -> None:
        if word in ("key", "api_key"):
            word = "key"
            keys[provider] = value
        else:
            options.setdefault(provider, {})[word] = value
        shown = masked(value) if _SECRET.search(word) else value
        _note(sources, f"providers.{provider}.{word}", shown, source)

    for provider, words in _table(table, "providers").items():
        for word, value in _table(words, f"providers.{provider}").items():
            put(provider, word, _option(f"providers.{provider}.{word}", value), str(path))
    for provider, variable in _KEYS.items():
        if env.get(variable):
            put(provider, "key", env[variable], variable)
    for variable, value in env.items():
        # GPUBROKER_LOCAL_SIMULATE sets providers.local.simulate.
        head, _, word = variable.removeprefix("GPUBROKER_").partition("_")
        if variable.startswith("GPUBROKER_") and word and value and head not in RESERVED:
            put(head.lower(), word.lower(), value, variable)
    for provider in keys:
        _check_url(provider, sources, path)
    return options, keys


def _check_url(provider: str, sources: dict[str, Setting], path: Path | None) -> None:
    """A settings file that merely lies in the working directory must not say where a key goes.

    Whoever wrote it, in a repository that was cloned, say, need not be whoever owns the key.
    """
    url, key = (sources.get(f"providers.{provider}.{word}") for word in ("url", "key"))
    if url is None or key is None or path is None or path.is_absolute():
        return
    if url.source == str(path) != key.source:
        raise InvalidValue(
            f"providers.{provider}.url",
            url.value,
            f"{path} may not say where the key from {key.source} is sent;"
            f" set GPUBROKER_{provider.upper()}_URL",
        )


def _option(name: str, value: Any) -> str:
    """An option of a provider as text; several names are a text with commas."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        items = cast("list[object]", value)
        return ", ".join(_option(name, item) for item in items)
    if isinstance(value, dict):
        raise InvalidValue(name, "…", "must be a text, a number, true, false or a list of these")
    return str(value)


RESERVED: Final = ("ALERTS", "BUDGET", "CONFIG", "LEASE", "LEDGER", "MARK", "POLICY", "SIMULATED")
"""First words of environment names that belong to something else than a provider."""


def masked(secret: str) -> str:
    """A secret as it may be shown: that it is there, and its last characters if it is long."""
    return f"…{secret[-4:]}" if len(secret) >= 20 else "…"
