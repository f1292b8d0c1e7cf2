"""System checks of one alias."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core import checks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pluginhost_piwik.plugin import Piwik


def problems(plugin: Piwik) -> Iterator[checks.CheckMessage]:
    """What would make wrong numbers, or lose something. Asks no server."""
    where = f"PLUGINHOST['PLUGINS'][{plugin.alias!r}]"
    options = plugin.options
    longest = options.CONNECT_TIMEOUT + options.READ_TIMEOUT
    if plugin.timeout <= longest:
        yield checks.Error(
            f"{where}: a request may take CONNECT_TIMEOUT and READ_TIMEOUT together, {longest:g} s, which is not below"
            f" TIMEOUT, {plugin.timeout:g} s.",
            hint="Raise TIMEOUT, or the host takes a slow answer for a plugin that hangs.",
            id="pluginhost_piwik.E001",
        )
    if not options.TOKEN_AUTH:
        yield checks.Warning(
            f"{where}: there is no TOKEN_AUTH, so the visitor's address is left out, and Matomo sees this server's"
            " instead. Events that are a day old become dead letters.",
            hint="Set TOKEN_AUTH to the token of a user who may write to the site, or silence this check.",
            id="pluginhost_piwik.W001",
        )
    elif options.URL.startswith("http:"):
        yield checks.Warning(
            f"{where}: TOKEN_AUTH travels unencrypted.",
            hint="Use https in URL.",
            id="pluginhost_piwik.W002",
        )
    if plugin.concurrency > 1:
        yield checks.Warning(
            f"{where}: with CONCURRENCY {plugin.concurrency} the hits of a visitor may arrive out of order.",
            hint="Matomo then makes wrong visits of them; leave CONCURRENCY at 1.",
            id="pluginhost_piwik.W003",
        )
