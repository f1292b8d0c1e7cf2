"""What caches have to know of a page, because of what was rendered into it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from django.utils.cache import patch_cache_control, patch_vary_headers

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase


class Caching(msgspec.Struct):
    """Gathered while a page is rendered, and said by the middleware in the headers."""

    vary: set[str] = set()
    """The request's headers that the page depends on."""
    private: bool = False
    """The page is for this visitor alone."""
    foreseen: bool = False
    """The headers have gone out, and say what a page may need that is rendered from now on."""
    _stored_before: list[tuple[HttpRequest, bool]] = []

    def keep_from_inner_cache(self, *requests: HttpRequest) -> None:
        """Keep a view's own ``cache_page`` from storing the page: it would not see the headers in time.

        The attribute is how Django's cache middleware tells itself what not to store.
        """
        for request in requests:
            if getattr(request, "_cache_update_cache", False):
                self._stored_before.append((request, True))
                request._cache_update_cache = False  # type: ignore[attr-defined]

    def patch(self, response: HttpResponseBase) -> None:
        """Add the headers. Caches further out see them, and decide by them."""
        for request, stored in self._stored_before:
            request._cache_update_cache = stored  # type: ignore[attr-defined]
        self._stored_before.clear()
        if self.vary:
            patch_vary_headers(response, sorted(self.vary))
        if self.private:
            patch_cache_control(response, private=True)
