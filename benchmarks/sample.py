"""The event that everybody tracks, and the requests that it comes from."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django.http import HttpRequest

NAME = "order_paid"
USER_ID = "41822"
#: With name, ids, time and context some 900 bytes of JSON at the host, some 1,000 at Segment.
PROPERTIES: dict[str, Any] = {
    "order": "A-20931",
    "plan": "pro",
    "currency": "EUR",
    "revenue": 84.9,
    "coupon": None,
    "gift": False,
    "items": [
        {"sku": "TEA-201", "name": "Sencha, 100 g", "price": 12.9, "quantity": 3},
        {"sku": "POT-007", "name": "Teapot, 0.8 l", "price": 46.2, "quantity": 1},
    ],
}
#: What the host copies from a request, in Segment's words, ready made: its caller does not pay for it.
CONTEXT: dict[str, Any] = {
    "ip": "198.51.100.0",
    "userAgent": "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0",
    "locale": "de-DE,de;q=0.9,en;q=0.7",
    "page": {
        "url": "https://shop.example.com/orders/17/paid/?utm_source=letter",
        "path": "/orders/17/paid/",
        "referrer": "https://shop.example.com/orders/17/",
    },
}

_CONSENT = "pluginhost_consent=1:analytics.marketing"
_COOKIES = f"csrftoken=Jq3; sessionid=b2v7; {_CONSENT}; _pk_id.1.1fff=0a1b2c3d4e5f6a7b.1763740000.; km_ai=Zm9vYmFyYmF6"


def requests(count: int, *, user: bool = True) -> list[HttpRequest]:
    """Requests as a view gets them: cookies read, URL resolved, the user found out.

    Their visitors have 60 addresses and 12 browsers among them, and look at 40 orders.
    """
    from django.conf import settings
    from django.contrib.auth.models import User
    from django.urls import resolve, set_script_prefix, set_urlconf

    set_script_prefix("/")  # as Django's handler does for each request
    set_urlconf(settings.ROOT_URLCONF)
    person = User(pk=int(USER_ID), username="ada")
    made = []
    for index in range(count):
        request = _request(index)
        request.COOKIES  # noqa: B018 - the session's middleware has read them before any view
        request.resolver_match = resolve(request.path_info)
        if user:
            request.user = person
        made.append(request)
    return made


def _request(index: int) -> HttpRequest:
    from django.core.handlers.wsgi import WSGIRequest

    order = index % 40
    return WSGIRequest(
        {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": f"/orders/{order}/paid/",
            "QUERY_STRING": f"utm_source=letter&number={index}",
            "SERVER_NAME": "shop.example.com",
            "SERVER_PORT": "443",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": "shop.example.com",
            "HTTP_USER_AGENT": f"{CONTEXT['userAgent']} Safari/537.{index % 12}",
            "HTTP_ACCEPT_LANGUAGE": CONTEXT["locale"],
            "HTTP_REFERER": f"https://shop.example.com/orders/{order}/",
            "HTTP_COOKIE": _COOKIES,
            "REMOTE_ADDR": f"198.51.{index % 60}.7",
            "wsgi.url_scheme": "https",
            "wsgi.input": BytesIO(),
        }
    )
