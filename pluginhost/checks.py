"""System checks: the same errors that stop a process, in the list that ``manage.py check`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.checks import Warning as Caution
from django.db import connections, router

from pluginhost.conf import MASKED_NAMES, SECRET_ROUTE_ARGUMENTS, get_settings
from pluginhost.exceptions import ConfigurationError
from pluginhost.options import listing, redacted
from pluginhost.registry import load_registry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from django.apps import AppConfig
    from django.db.backends.base.base import BaseDatabaseWrapper

    from pluginhost.conf import Settings
    from pluginhost.plugin import Plugin

MIDDLEWARE = "pluginhost.middleware.TrackerMiddleware"
#: What has to see the final headers, and so comes before our middleware.
BEFORE = ("django.middleware.cache.UpdateCacheMiddleware", "django.middleware.gzip.GZipMiddleware")


@register("pluginhost")
def check_plugins(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:  # noqa: ARG001
    """The setting, each plugin in it, and what each plugin checks itself."""
    try:
        registry = load_registry()
    except ConfigurationError as error:
        return [_message(error)]
    messages: list[CheckMessage] = [_message(error) for error in registry.errors]
    for alias, loaded in registry.plugins.items():
        try:
            messages += _own_messages(loaded.plugin)
        except Exception as error:
            problem = redacted(f"{type(error).__name__}: {error}", loaded.plugin.options)
            messages.append(
                Error(
                    f"plugin {alias}: check() failed: {problem}.",
                    hint="This is a bug of the plugin; a check returns a list of messages.",
                    id="pluginhost.E009",
                )
            )
    return messages


def _own_messages(plugin: Plugin) -> list[CheckMessage]:
    messages = plugin.check()
    for message in messages:
        if not isinstance(message, CheckMessage):
            raise TypeError(f"a {type(message).__name__} is no CheckMessage")
    return messages


def _message(error: ConfigurationError) -> Error:
    return Error(error.message, hint=error.hint, id=error.id)


@register("pluginhost")
def check_site(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:  # noqa: ARG001
    """What around the host makes it work well: middleware and settings of the database."""
    try:
        settings = get_settings()
    except ConfigurationError:
        return []  # reported by check_plugins
    return [
        *_middleware_messages(),
        *_snippet_messages(),
        *_privacy_messages(settings),
        *(_sqlite_messages() if settings.TRANSPORT == "outbox" else ()),
    ]


def _middleware_messages() -> Iterator[CheckMessage]:
    middleware = list(django_settings.MIDDLEWARE)
    settings = get_settings()
    if MIDDLEWARE not in middleware:
        needing = [
            name
            for name, needed in (
                ("ANONYMOUS_COOKIE", settings.ANONYMOUS_COOKIE is not None),
                ("PAGE_VIEWS", settings.PAGE_VIEWS == "server"),
            )
            if needed
        ]
        if needing:
            yield Error(
                f"PLUGINHOST[{needing[0]!r}] is set, but MIDDLEWARE lacks what carries it out.",
                hint=f'Add "{MIDDLEWARE}" to MIDDLEWARE, at its beginning.',
                id="pluginhost.E010",
            )
        return
    place = middleware.index(MIDDLEWARE)
    for other in BEFORE:
        if other in middleware[place:]:
            yield Caution(
                f"{other} comes after {MIDDLEWARE}.",
                hint="Move it before: it has to see the headers of the finished response.",
                id="pluginhost.W002",
            )


def _snippet_messages() -> Iterator[CheckMessage]:
    snippets = [i.alias for i in load_registry().renderers]
    if snippets and MIDDLEWARE not in django_settings.MIDDLEWARE:
        yield Caution(
            f"There is a snippet of {listing(snippets)}, but MIDDLEWARE lacks {MIDDLEWARE}.",
            hint="Add it at the beginning: it tells caches which pages depend on the visitor, and the next page of a"
            " log-out.",
            id="pluginhost.W006",
        )


def _privacy_messages(settings: Settings) -> Iterator[CheckMessage]:
    """A list of the project's own replaces ours; this is for those who meant to add to it."""
    for key, ours in (("MASKED_NAMES", MASKED_NAMES), ("SECRET_ROUTE_ARGUMENTS", SECRET_ROUTE_ARGUMENTS)):
        if missing := sorted(set(ours) - getattr(settings, key)):
            yield Caution(
                f"PLUGINHOST[{key!r}] replaces the list of pluginhost.conf and lacks: {', '.join(missing)}.",
                hint=f"To add to it, write [*pluginhost.conf.{key}, ...]; if you mean it, silence this check.",
                id="pluginhost.W005",
            )


def _sqlite_messages() -> Iterator[CheckMessage]:
    connection = _outbox_connection()
    if connection.vendor == "sqlite" and connection.settings_dict["OPTIONS"].get("transaction_mode") != "IMMEDIATE":
        yield Caution(
            f"Transactions on the SQLite database {connection.alias!r} begin without the write lock.",
            hint='Set OPTIONS["transaction_mode"] = "IMMEDIATE": otherwise a view and a worker that write at'
            ' the same time make one of them fail with "database is locked".',
            id="pluginhost.W001",
        )


def _outbox_connection() -> BaseDatabaseWrapper:
    from pluginhost.models import Envelope

    return connections[router.db_for_write(Envelope)]


@register(Tags.database)
def check_databases(
    app_configs: Sequence[AppConfig] | None,  # noqa: ARG001
    databases: Sequence[str] | None = None,
    **kwargs: Any,  # noqa: ARG001
) -> list[CheckMessage]:
    """What only the database of the outbox itself can tell."""
    try:
        settings = get_settings()
    except ConfigurationError:
        return []
    connection = _outbox_connection()
    if settings.TRANSPORT != "outbox" or connection.alias not in (databases or ()):
        return []
    if connection.vendor == "sqlite":
        return list(_sqlite_file_messages(connection))
    if connection.vendor != "postgresql":
        return [
            Caution(
                f"The outbox is not tested on {connection.display_name}, the database {connection.alias!r}.",
                hint="Route the app pluginhost to PostgreSQL or SQLite.",
                id="pluginhost.W004",
            )
        ]
    return []


def _sqlite_file_messages(connection: BaseDatabaseWrapper) -> Iterator[CheckMessage]:
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA journal_mode")
        mode = cursor.fetchone()[0]
    if mode not in ("wal", "memory"):
        yield Caution(
            f"The SQLite database {connection.alias!r} keeps its journal as {mode!r}.",
            hint='Set OPTIONS["init_command"] = "PRAGMA journal_mode=WAL;": otherwise readers and the worker'
            " wait for each other.",
            id="pluginhost.W003",
        )
