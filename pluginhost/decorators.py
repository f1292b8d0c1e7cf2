"""``@track_event``: track that a view was answered."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, TypeVar, cast

from django.views import View

from pluginhost.api import host

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    Properties = Mapping[str, Any] | Callable[[HttpRequest, HttpResponseBase], Mapping[str, Any]] | None

ViewT = TypeVar("ViewT", bound="Callable[..., Any]")


def track_event(name: str, properties: Properties = None, **details: Any) -> Callable[[ViewT], ViewT]:
    """Track ``name`` each time the view answers with a status below 400.

    For functions, coroutine functions, methods that take a request, and view
    classes. ``properties`` is a dict, or a callable that is given the request and
    the response; ``details`` are the keyword arguments of ``host.track``.
    """

    def decorate(view: ViewT) -> ViewT:
        if inspect.isclass(view):
            return cast("ViewT", _decorate_class(view, wrap))
        return cast("ViewT", wrap(view))

    def wrap(view: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.iscoroutinefunction(view):

            @functools.wraps(view)
            async def awrapped(*args: Any, **kwargs: Any) -> Any:
                response = await view(*args, **kwargs)
                if response.status_code < 400:
                    request = _request(args)
                    await host.atrack(request, name, _read(properties, request, response), **details)
                return response

            return awrapped

        @functools.wraps(view)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            response = view(*args, **kwargs)
            if response.status_code < 400:
                request = _request(args)
                host.track(request, name, _read(properties, request, response), **details)
            return response

        return wrapped

    return decorate


def _decorate_class(view: type, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> type:
    if not issubclass(view, View):
        raise TypeError(f"@track_event is for views; {view.__name__} is not a subclass of django.views.View")
    original = view.dispatch

    async def adispatch(self: Any, *args: Any, **kwargs: Any) -> Any:
        return await cast("Awaitable[Any]", original(self, *args, **kwargs))

    view.dispatch = wrap(adispatch if view.view_is_async else original)  # type: ignore[method-assign]
    return view


def _request(args: tuple[Any, ...]) -> HttpRequest:
    """The request among a view's arguments: the first, or the second of a method."""
    from django.http import HttpRequest

    for argument in args[:2]:
        if isinstance(getattr(argument, "_request", argument), HttpRequest):
            return cast("HttpRequest", argument)
    raise TypeError("@track_event found no request among the view's first two arguments")


def _read(properties: Properties, request: HttpRequest, response: HttpResponseBase) -> Mapping[str, Any] | None:
    return properties(request, response) if callable(properties) else properties
