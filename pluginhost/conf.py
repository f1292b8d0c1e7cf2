"""The setting ``PLUGINHOST``: typed, with defaults, read once and again after ``override_settings``."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from django.conf import settings as django_settings
from django.core.signals import setting_changed

from pluginhost.exceptions import ConfigurationError
from pluginhost.options import build, did_you_mean, listing, names

#: Aliases are stored, logged and typed in commands: short and plain.
ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,62}")

#: What a cookie may be called (RFC 6265).
COOKIE = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")

#: Seconds that a request may be made to wait for the broker. No visitor waits that long.
MAX_BUDGET = 60.0

#: Words in the name of a property that make its value a secret.
MASKED_NAMES = (
    "password", "passwd", "passphrase", "pwd", "secret", "token", "apikey", "api_key", "authorization",
    "cookie", "csrf", "csrfmiddlewaretoken", "session_id", "sessionid", "credential", "credentials", "private_key",
    "card", "cardnumber", "creditcard", "cvv", "cvc", "iban", "ssn",
)  # fmt: skip

#: Names of captured URL arguments that make a path a secret: password resets, sign-in links, invitations.
SECRET_ROUTE_ARGUMENTS = (
    "token", "uidb64", "key", "secret", "code", "otp", "signature", "signed", "hash", "password", "nonce",
)  # fmt: skip

#: Campaign parameters, kept in URLs.
CAMPAIGN_PARAMETERS = ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "utm_id")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of ``PLUGINHOST``."""

    PLUGINS: dict[str, dict[str, Any]] = {}
    """Alias -> options. Enables, orders and configures."""
    ENABLED: bool = True
    """False turns everything off."""
    TRANSPORT: Literal["celery", "inline", "memory", "outbox"] = "outbox"
    """How events travel from the request to the lanes."""
    WORKER: Literal["process", "celery", "thread"] = "process"
    """Who empties the outbox: ``manage.py pluginhost worker``, Celery's workers, or, for development, a thread of the
    web process."""
    INGEST_QUEUE: str = "pluginhost"
    """The queue of the broker that carries envelopes, with the transport ``celery``."""
    BROKER_BUDGET: float = 0.25
    """Seconds that a request waits for the broker, at most, before its events go to the outbox directly."""
    DEAD_LETTER_DAYS: int | None = 90
    """After so many days dead letters are discarded. None: never."""
    ACCOUNT_DAYS: int = 400
    """How long accounts are kept by the day; what is older is kept as one sum."""
    STRICT: bool = False
    """Bad input raises InvalidEvent instead of being logged. True in development, False on a live site."""
    IDENTITY: Literal["known", "always"] = "known"
    """``always`` resolves the request's user for each event, at the price of its queries and of Vary: Cookie."""
    ANONYMOUS_COOKIE: str | None = None
    """The name of the cookie with an anonymous id, which the middleware then sets. None: no such cookie."""
    ANONYMOUS_COOKIE_AGE: int = 60 * 60 * 24 * 390
    """How long the browser keeps that cookie, in seconds."""
    PAGE_VIEWS: Literal["browser", "server"] = "browser"
    """Who counts page views: the plugins' snippets, or the middleware."""
    EXCLUDE_PATHS: tuple[str, ...] = ()
    """Path prefixes whose page views the middleware does not count, beside STATIC_URL and MEDIA_URL."""
    TRUSTED_PROXIES: int = 0
    """How many proxies of your own stand before Django; their entries of X-Forwarded-For are believed."""
    IP: Literal["short", "full", "none"] = "short"
    """What is kept of the visitor's address."""
    QUERY_PARAMETERS: frozenset[str] = frozenset()
    """Query parameters kept in URLs, beside those of campaigns."""
    SECRET_ROUTE_ARGUMENTS: frozenset[str] = frozenset(SECRET_ROUTE_ARGUMENTS)
    """URL arguments that make a path be stored as its route pattern."""
    MASKED_NAMES: frozenset[str] = frozenset(MASKED_NAMES)
    """Words in the names of properties and traits whose values are masked."""
    TEST: dict[str, Any] = {}
    """Keys that take other values under a test runner, as in DATABASES. TRANSPORT does anyway: it is ``memory``."""

    def __post_init__(self) -> None:
        if self.TRUSTED_PROXIES < 0:
            raise ValueError(f"TRUSTED_PROXIES is {self.TRUSTED_PROXIES}; it must not be negative")
        if self.ANONYMOUS_COOKIE is not None and not COOKIE.fullmatch(self.ANONYMOUS_COOKIE):
            raise ValueError(f"ANONYMOUS_COOKIE is {self.ANONYMOUS_COOKIE!r}, which is no name for a cookie")
        if self.ANONYMOUS_COOKIE_AGE <= 0:
            raise ValueError(f"ANONYMOUS_COOKIE_AGE is {self.ANONYMOUS_COOKIE_AGE}; it must be above 0")
        if not 0 < self.BROKER_BUDGET <= MAX_BUDGET:
            raise ValueError(f"BROKER_BUDGET is {self.BROKER_BUDGET}; it must be above 0, and {MAX_BUDGET:.0f} at most")
        for name in ("DEAD_LETTER_DAYS", "ACCOUNT_DAYS"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise ValueError(f"{name} is {value}; it must be above 0")
        if not self.INGEST_QUEUE:
            raise ValueError("INGEST_QUEUE is empty")
        for path in self.EXCLUDE_PATHS:
            if not path.startswith("/"):
                raise ValueError(f"EXCLUDE_PATHS: {path!r} must begin with '/'")
        for alias in self.PLUGINS:
            if not ALIAS.fullmatch(alias):
                raise ValueError(
                    f"PLUGINS: {alias!r} is no name for an alias: lower-case letters, digits, '-' and '_',"
                    " beginning with a letter, at most 63"
                )

    def __repr__(self) -> str:
        """Without the plugins' options: secrets are among them."""
        return f"<Settings: {listing(self.PLUGINS)}; {self.TRANSPORT}>"


def under_test() -> bool:
    """Whether Django's test environment is set up (``setup_test_environment`` makes ``mail.outbox``)."""
    mail = sys.modules.get("django.core.mail")
    return mail is not None and "outbox" in vars(mail)


def read() -> Settings:
    """Read and check ``settings.PLUGINHOST``. Raises ``ConfigurationError``."""
    try:
        return _read(getattr(django_settings, "PLUGINHOST", {}))
    except ConfigurationError as error:
        # The frames below hold the setting, secrets and all; error pages and mails show frames.
        raise error.with_traceback(None) from None


def _read(given: Any) -> Settings:
    if not isinstance(given, Mapping):
        raise _error(f"PLUGINHOST is of type {type(given).__name__}.", "It must be a dict.")
    checked = _build("PLUGINHOST", given)
    if under_test():
        checked = _build("PLUGINHOST['TEST']", {**given, "TRANSPORT": "memory", **checked.TEST})
    return checked


def _build(where: str, values: Mapping[str, Any]) -> Settings:
    unknown = [key for key in values if key not in names(Settings)]
    problems = [f"there is no key {key!r}. {did_you_mean(key, names(Settings))}".rstrip() for key in unknown]
    plugins = values.get("PLUGINS")
    for alias, options in plugins.items() if isinstance(plugins, Mapping) else ():
        if not isinstance(options, Mapping):
            problems.append(f"PLUGINS[{alias!r}] is of type {type(options).__name__}; it must be a dict of options.")
            unknown.append("PLUGINS")
    wrong, built = build(Settings, {key: value for key, value in values.items() if key not in unknown})
    if problems or wrong:
        raise _error(f"{where}: {' '.join([*problems, *wrong])}", f"Its keys are: {listing(names(Settings))}.")
    checked: Settings = built
    return checked


def _error(message: str, hint: str) -> ConfigurationError:
    return ConfigurationError(message, id="pluginhost.E001", hint=hint)


_current: tuple[bool, Settings] | None = None


def get_settings() -> Settings:
    """The settings in force. Read again when a test runner starts or ``override_settings`` changes them."""
    global _current
    testing = under_test()
    if _current is None or _current[0] is not testing:
        _current = (testing, read())
    return _current[1]


def _reset(*, setting: str, **_: Any) -> None:
    global _current
    if setting == "PLUGINHOST":
        _current = None


setting_changed.connect(_reset, dispatch_uid="pluginhost.conf")
