"""Celery, where the site wants it: that it is there, and which broker it has."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from django.core.checks import CheckMessage, Error, register
from django.core.checks import Warning as Caution

from pluginhost.conf import get_settings
from pluginhost.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from django.apps import AppConfig

    from pluginhost.conf import Settings

#: By kombu's names of drivers.
TESTED = ("amqp", "redis")
WITHIN_ONE_PROCESS = "memory"
#: Celery's own, which knows no entries but those of the settings.
SCHEDULER = "celery.beat:PersistentScheduler"
TICK = "pluginhost.tick"


@register("pluginhost")
def check_celery(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:  # noqa: ARG001
    """Celery, if it carries envelopes or empties the outbox. Connects to nothing."""
    try:
        settings = get_settings()
    except ConfigurationError:
        return []  # reported by check_plugins
    if "celery" not in (settings.TRANSPORT, settings.WORKER):
        return []
    key = "TRANSPORT" if settings.TRANSPORT == "celery" else "WORKER"
    if find_spec("celery") is None:
        return [
            Error(
                f'PLUGINHOST["{key}"] is "celery", but Celery is not installed.',
                hint="Install it: pip install pluginhost[celery].",
                id="pluginhost.E012",
            )
        ]
    return list(_app_messages(settings, key))


def _app_messages(settings: Settings, key: str) -> Iterator[CheckMessage]:
    from celery import current_app

    try:
        conf = current_app.conf
        has_broker = bool(conf.broker_write_url)
        driver = current_app.connection_for_write().transport.driver_type if has_broker else ""
    except Exception as error:  # its text may hold the URL, and so the password
        yield Error(
            f"The broker of the site's Celery app can't be used: {type(error).__name__}.",
            hint="Correct CELERY_BROKER_URL, or install what Celery needs for this broker.",
            id="pluginhost.E013",
        )
        return
    if not has_broker:
        yield Error(
            f'PLUGINHOST["{key}"] is "celery", but no Celery app with a broker is configured.',
            hint="Set CELERY_BROKER_URL, and import the project's Celery app in its __init__.py, so that web"
            " processes have it too.",
            id="pluginhost.E013",
        )
        return
    yield from _queue_messages(settings, current_app)
    yield from _beat_messages(settings, conf)
    if conf.task_always_eager:
        yield Caution(
            "CELERY_TASK_ALWAYS_EAGER is on: no broker is asked, and tasks run in the process that sends them.",
            hint="It is for tests. On a live site, remove it.",
            id="pluginhost.W007",
        )
    elif driver == WITHIN_ONE_PROCESS:
        yield Caution(
            "The broker memory:// carries nothing from one process to another.",
            hint="Use RabbitMQ, Redis or Valkey.",
            id="pluginhost.W008",
        )
    elif driver not in TESTED:
        yield Caution(
            f"The host is not tested with brokers of the kind {driver!r}.",
            hint="Use RabbitMQ, Redis or Valkey: with others nothing is promised.",
            id="pluginhost.W009",
        )


def _queue_messages(settings: Settings, app: Any) -> Iterator[CheckMessage]:
    if app.conf.task_create_missing_queues:
        return
    wanted = {'PLUGINHOST["INGEST_QUEUE"]': settings.INGEST_QUEUE} if settings.TRANSPORT == "celery" else {}
    if settings.WORKER == "celery":
        lanes = settings.PLUGINS.items()
        wanted |= {
            f"CELERY_QUEUE of {alias}": options["CELERY_QUEUE"]
            for alias, options in lanes
            if options.get("CELERY_QUEUE")
        }
    for key, queue in wanted.items():
        if queue not in app.amqp.queues:
            yield Error(
                f"There is no queue {queue!r}, and CELERY_TASK_CREATE_MISSING_QUEUES is off.",
                hint=f"Add it to CELERY_TASK_QUEUES, or name another one in {key}.",
                id="pluginhost.E014",
            )


def _beat_messages(settings: Settings, conf: Any) -> Iterator[CheckMessage]:
    if settings.WORKER != "celery" or conf.beat_scheduler != SCHEDULER:
        return
    entries = (conf.beat_schedule or {}).values()
    if TICK not in [entry.get("task") if isinstance(entry, dict) else entry.task for entry in entries]:
        yield Caution(
            'PLUGINHOST["WORKER"] is "celery", but no entry of CELERY_BEAT_SCHEDULE looks into the outbox.',
            hint="Set CELERY_BEAT_SCHEDULE = beat_schedule(), which is in pluginhost.tasks. If something else than beat"
            " sends pluginhost.tick, silence the check.",
            id="pluginhost.W022",
        )
