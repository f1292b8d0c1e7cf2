"""The plugin: its options, and what a visitor has agreed to."""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import msgspec
from django.conf import settings as django_settings
from django.core.exceptions import SynchronousOnlyOperation
from django.utils.module_loading import import_string

import pluginhost
from pluginhost import conf, hookimpl, memo
from pluginhost.builtin.consent import cookie
from pluginhost.dispatch import in_event_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from django.core.checks import CheckMessage
    from django.http import HttpRequest

    from pluginhost.plugin import LaneOptions

logger = logging.getLogger("pluginhost.consent")


class Choice(msgspec.Struct, frozen=True):
    """What somebody has agreed to."""

    purposes: frozenset[str]
    known: bool = True
    """Whether it could be read. A choice that nobody knows agrees to nothing, and overrides nothing."""


UNKNOWN = Choice(frozenset(), known=False)

#: None is not chosen yet, False an opt-out.
UsersChoice: TypeAlias = "Choice | Literal[False] | None"


class Consent(pluginhost.Plugin):
    """Lets through the purposes that the visitor has agreed to, and nobody who has opted out."""

    class Options(pluginhost.Options):
        NECESSARY: frozenset[str] = frozenset({"necessary"})
        """The purposes that need no consent."""
        DEFAULT: frozenset[str] = frozenset()
        """The purposes that are allowed too until the visitor has chosen."""
        COOKIE: str | None = "pluginhost_consent"
        """The cookie that holds the choice. None: no cookie is looked at."""
        COOKIE_AGE: Annotated[int, msgspec.Meta(gt=0)] = 180 * 24 * 60 * 60
        """Seconds that a choice is kept."""
        COOKIE_DOMAIN: str | None = None
        """The domain of the cookie, for a choice that holds on several subdomains."""
        GPC: frozenset[str] | None = frozenset({"necessary", "analytics"})
        """The purposes that a request with ``Sec-GPC: 1`` leaves allowed. None: the header is ignored."""
        DNT: frozenset[str] | None = frozenset({"necessary"})
        """The same for ``DNT: 1``."""
        CHOICE_OVERRIDES_HEADERS: bool = False
        """Whether an explicit choice makes both headers count no more."""
        OPT_OUT: str | None = None
        """Who is tracked by nothing: an attribute of the user, or the dotted path of ``(user) -> bool``."""
        OF_USER: str | None = None
        """The dotted path of ``(user) -> purposes``: what a user has agreed to, None for no choice yet."""

        def __post_init__(self) -> None:
            if self.COOKIE is not None and not conf.COOKIE.fullmatch(self.COOKIE):
                raise ValueError(f"COOKIE is {self.COOKIE!r}; that is no name for a cookie")
            if self.OPT_OUT is not None and not self.OPT_OUT.isidentifier():
                _function("OPT_OUT", self.OPT_OUT)
            if self.OF_USER is not None:
                _function("OF_USER", self.OF_USER)

    personal_data = False

    def __init__(self, alias: str, options: Options, lane: LaneOptions | None = None) -> None:
        super().__init__(alias, options, lane)
        self._opted_out = _opt_out(options.OPT_OUT)
        self._of_user = None if options.OF_USER is None else _function("OF_USER", options.OF_USER)
        self._asks_about_users = self._opted_out is not None or self._of_user is not None
        self._limits = [
            (variable, limit)
            for variable, limit in (("HTTP_SEC_GPC", options.GPC), ("HTTP_DNT", options.DNT))
            if limit is not None
        ]
        self._logged: set[str] = set()
        headers = {"HTTP_SEC_GPC": "Sec-GPC", "HTTP_DNT": "DNT"}
        self.varies_on = frozenset(headers[variable] for variable, _ in self._limits)
        if options.COOKIE is not None or self._asks_about_users:
            self.varies_on |= {"Cookie"}

    def check(self) -> list[CheckMessage]:
        from pluginhost.builtin.consent.checks import check_alias

        return check_alias(self)

    @hookimpl
    def filter_request(self, request: HttpRequest | None, user: Any) -> frozenset[str] | bool | None:
        """The purposes that are allowed, or False for nothing. Never raises: that would be no objection."""
        try:
            return self._of_user_alone(user) if request is None else self._of_request(request, user)
        except Exception:
            self._log("unexpected", "the answer could not be found out; nothing is allowed", exc_info=True)
            return False

    def _of_user_alone(self, user: Any) -> frozenset[str] | bool | None:
        if not self._asks_about_users:
            return None
        try:
            if user is None or not user.is_authenticated:
                return None
        except Exception as error:
            choice = self._unresolved(error)
        else:
            choice = self._choice_of(user)
        if choice is False:
            return False
        return None if self._of_user is None else self._allowed([choice])

    def _of_request(self, request: HttpRequest, user: Any) -> frozenset[str] | bool:
        choices = [self._choice_in_cookie(request)]
        if self._asks_about_users:
            choice = self._choice_of_visitor(request, user)
            if choice is False:
                return False
            choices.append(choice)
        return self._within_headers(request, choices)

    def allowed_by_browser(self, request: HttpRequest) -> frozenset[str]:
        """What the cookie and the headers leave allowed. Once the cookie is there, a user can only allow less."""
        return self._within_headers(request, [self._choice_in_cookie(request)])

    def _within_headers(self, request: HttpRequest, choices: list[Choice | None]) -> frozenset[str]:
        allowed = self._allowed(choices)
        if self.options.CHOICE_OVERRIDES_HEADERS and _is_explicit(choices):
            return allowed
        for variable, limit in self._limits:
            if (value := request.META.get(variable)) and value.strip().startswith("1"):
                allowed &= limit
        return allowed

    def _allowed(self, choices: Iterable[Choice | None]) -> frozenset[str]:
        """What the choices leave allowed. Of two the stricter counts; None is not chosen yet."""
        made = [choice.purposes for choice in choices if choice is not None]
        agreed = frozenset.intersection(*made) if made else self.options.DEFAULT
        allowed: frozenset[str] = self.options.NECESSARY | agreed
        return allowed

    def _choice_in_cookie(self, request: HttpRequest) -> Choice | None:
        """A cookie that can't be read is a choice that nobody knows: it allows nothing."""
        name = self.options.COOKIE
        value = None if name is None else request.COOKIES.get(name)
        if value is None:
            return None
        agreed = cookie.parse(value)
        if agreed is None:
            self._log("cookie", "a consent cookie can't be read; it allows nothing", level=logging.INFO)
            return UNKNOWN
        return Choice(agreed)

    def _choice_of_visitor(self, request: HttpRequest, user: Any) -> UsersChoice:
        try:
            person = _person(request, user)
        except Exception as error:
            return self._unresolved(error)
        if person is None:
            return None
        answers = answers_of_users(request)
        who = self.alias, person.__class__, getattr(person, "pk", None)
        if who in answers:
            return answers[who]
        choice = self._choice_of(person)
        if not in_event_loop():  # where a query fails; a thread asks again
            answers[who] = choice
        return choice

    def _choice_of(self, person: Any) -> UsersChoice:
        """What a user who is logged in has chosen; False for an opt-out, None for no choice yet."""
        return False if self._has_opted_out(person) else self._agreed_by(person)

    def _has_opted_out(self, person: Any) -> bool:
        if self._opted_out is None:
            return False
        try:
            return bool(self._opted_out(person))
        except Exception:
            self._log("OPT_OUT", "OPT_OUT failed; the user is treated as one who has opted out", exc_info=True)
            return True

    def _agreed_by(self, person: Any) -> Choice | None:
        if self._of_user is None:
            return None
        try:
            purposes = self._of_user(person)
            if purposes is None:
                return None
            if isinstance(purposes, (str, bytes)):
                raise TypeError(f"OF_USER gave the text {purposes!r}; it must give a list or a set of purposes")
            return Choice(frozenset(purposes))
        except Exception:
            self._log("OF_USER", "OF_USER failed; only what needs no consent is allowed", exc_info=True)
            return UNKNOWN

    def _unresolved(self, error: Exception) -> UsersChoice:
        """What is to be supposed while nobody knows whose request it is: an opt-out, if there are any."""
        if isinstance(error, SynchronousOnlyOperation):
            self._log(
                "event loop",
                "the user can't be found out in an event loop, so less or nothing is allowed;"
                " use await host.atrack(), or await request.auser() before",
            )
        else:
            self._log("user", "the user can't be found out, so less or nothing is allowed", exc_info=error)
        return False if self._opted_out is not None else UNKNOWN

    def _log(self, kind: str, message: str, *, level: int = logging.ERROR, exc_info: Any = None) -> None:
        """Log the first failure of each kind in this process: the others are the same, at each request."""
        if kind not in self._logged:
            self._logged.add(kind)
            logger.log(level, "plugin %s: %s (logged once)", self.alias, message, exc_info=exc_info)


def answers_of_users(request: HttpRequest) -> dict[tuple[Any, ...], UsersChoice]:
    """What users have answered during this request: the host may ask its filters again. Its copies share it."""
    keeper = memo.of(request).original() or request
    answers: dict[tuple[Any, ...], UsersChoice] = keeper.__dict__.setdefault("_pluginhost_consent", {})
    return answers


def _is_explicit(choices: Iterable[Choice | None]) -> bool:
    """Whether somebody has chosen, and it is known what."""
    made = [choice for choice in choices if choice is not None]
    return bool(made) and all(choice.known for choice in made)


def _person(request: HttpRequest, user: Any) -> Any:
    """The user who is logged in, or None. Reads session and user only if a session cookie came.

    Raises whatever keeps it from finding out.
    """
    if user is None:
        if django_settings.SESSION_COOKIE_NAME not in request.COOKIES:
            return None
        user = request.user
    return user if user is not None and user.is_authenticated else None


def _function(option: str, path: str) -> Callable[[Any], Any]:
    """The function at a dotted path. Raises ``ValueError`` that says what is wrong with it."""
    try:
        found = import_string(path)
    except ImportError as error:
        raise ValueError(f"{option} is {path!r}, which can't be imported: {error}") from None
    if not callable(found) or inspect.iscoroutinefunction(found):
        raise ValueError(f"{option} is {path!r}, which is no plain function of a user")
    function: Callable[[Any], Any] = found
    return function


def _opt_out(name: str | None) -> Callable[[Any], Any] | None:
    if name is None:
        return None
    return _attribute(name) if name.isidentifier() else _function("OPT_OUT", name)


def _attribute(name: str) -> Callable[[Any], Any]:
    """Whether this attribute, or method, of a user is true.

    A user without it has not opted out: a project may set it on those who have. One
    whose class has it, and whose value can't be read, raises.
    """

    def read(user: Any) -> Any:
        declared = inspect.getattr_static(user.__class__, name, None) is not None
        value = getattr(user, name) if declared else getattr(user, name, False)
        return value() if callable(value) else value

    return read
