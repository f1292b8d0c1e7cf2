"""The view that a banner's form is sent to."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, HttpResponseRedirect
from django.urls import get_script_prefix
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_POST

from pluginhost.builtin.consent.choice import grant


@require_POST
@csrf_protect
@never_cache
def choose(request: HttpRequest) -> HttpResponse:
    """Keep the choice that a form makes, and go back to where it was made.

    Takes ``purpose``, once for each purpose that is agreed to (none is a refusal),
    and ``next``, a path of this site; without it the page goes back to its referrer.
    """
    response = HttpResponseRedirect(_back(request))
    try:
        grant(response, request, request.POST.getlist("purpose"))
    except ValueError:
        return HttpResponseBadRequest("no purpose", content_type="text/plain")
    return response


def _back(request: HttpRequest) -> str:
    """Where to go: never to another site."""
    for url in (request.POST.get("next"), request.headers.get("Referer")):
        if url and url_has_allowed_host_and_scheme(url, {request.get_host()}, require_https=request.is_secure()):
            return url
    return get_script_prefix()
