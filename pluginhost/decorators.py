"""``@track_event``: track that a view was answered."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, TypeVar, cast

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest
from django.utils.functional import Promise
from django.views import View

from pluginhost.api import host
from pluginhost.drafting import Details

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from django.http.response import HttpResponseBase

    Properties = Mapping[str, Any] | Callable[[HttpRequest, HttpResponseBase], Mapping[str, Any]] | None

ViewT = TypeVar("ViewT", bound="Callable[..., Any]")


def track_event(name: str, properties: Properties = None, **details: Any) -> Callable[[ViewT], ViewT]:
    """Track ``name`` each time the view answers with a status below 400.

    For functions, coroutine functions, methods that take a request, and view
    classes. ``properties`` is a dict, or a callable that is given the request and
    the response; ``details`` are the keyword arguments of ``host.track``.
    """

    if not isinstance(name, (str, Promise)):
        raise TypeError('write @track_event("name"), with the name of the event')
    if unknown := details.keys() - Details.__optional_keys__:
        raise TypeError(f"unexpected keyword arguments: {', '.join(sorted(unknown))}")

    def decorate(view: ViewT) -> ViewT:
        if inspect.isclass(view):
            return cast("ViewT", _decorate_class(view, wrap))
        if not callable(view):
            raise TypeError(f"@track_event is for views; a {type(view).__name__} is none")
        return cast("ViewT", wrap(view))

    def wrap(view: Callable[..., Any]) -> Callable[..., Any]:
        if iscoroutinefunction(view):

            @functools.wraps(view)
            async def awrapped(*args: Any, **kwargs: Any) -> Any:
                request = _request(args, kwargs)
                response = await view(*args, **kwargs)
                if _answered(response):
                    await host.atrack(request, name, _read(properties, request, response), **details)
                return response

            return awrapped

        @functools.wraps(view)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            request = _request(args, kwargs)
            response = view(*args, **kwargs)
            if _answered(response):
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


def _request(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> HttpRequest:
    """The request among a view's arguments: the first, or the second of a method. Sought before the view runs."""
    for argument in (*args[:2], kwargs.get("request")):
        if isinstance(getattr(argument, "_request", argument), HttpRequest):
            return cast("HttpRequest", argument)
    raise TypeError("@track_event found no request among the view's first two arguments")


def _answered(response: Any) -> bool:
    return getattr(response, "status_code", 500) < 400


class _Made(dict[str, Any]):
    """What a callable gives, asked inside of the strict door: there its failure is bad input, not a broken view."""

    def __init__(self, make: Callable[[], Mapping[str, Any] | None]) -> None:
        super().__init__()
        self._make = make

    def items(self) -> Any:
        return (self._make() or {}).items()


def _read(properties: Properties, request: HttpRequest, response: HttpResponseBase) -> Mapping[str, Any] | None:
    return _Made(functools.partial(properties, request, response)) if callable(properties) else properties
