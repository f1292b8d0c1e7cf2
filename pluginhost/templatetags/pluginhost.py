"""``{% load pluginhost %}{% render_client "head" %}``: what the enabled plugins add to this page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import template
from django.http import HttpRequest

from pluginhost.api import host
from pluginhost.identity import unwrapped

if TYPE_CHECKING:
    from django.utils.safestring import SafeString

    from pluginhost.html import Place

register = template.Library()


@register.simple_tag(takes_context=True)
def render_client(context: dict[str, Any], place: Place = "head") -> SafeString | str:
    """The plugins' HTML for ``"head"`` or ``"body"``; nothing where the template has no request."""
    request = unwrapped(context.get("request"))
    return host.render(request, place) if isinstance(request, HttpRequest) else ""
