"""The site under test on a port of its own, with the settings of each test."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from django.core.handlers.wsgi import WSGIHandler
from django.core.servers.basehttp import ThreadedWSGIServer
from django.core.signals import setting_changed
from django.test.testcases import QuietWSGIRequestHandler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Site:
    """Serves at ``url`` from ``with`` to its end, in this process.

    Django's own live server keeps the middleware with which it was started; here a
    test's settings hold from its first request on.
    """

    def __init__(self) -> None:
        self._server = ThreadedWSGIServer(("127.0.0.1", 0), QuietWSGIRequestHandler)
        self._server.set_app(self._answer)
        # Another host than that of the providers, as on a real site.
        self.url = f"http://localhost:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="site")
        self._handler: WSGIHandler | None = None
        self._busy = 0
        self.asked: list[str] = []
        """The paths, with queries, that browsers asked for; what came out of a browser's cache is not among them."""
        self._changed = threading.Condition()

    def __enter__(self) -> Site:
        setting_changed.connect(self._forget)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        setting_changed.disconnect(self._forget)
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _forget(self, **_: Any) -> None:
        with self._changed:
            self._handler = None

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        with self._changed:
            self._busy += 1
            self.asked.append(environ["PATH_INFO"] + (f"?{query}" if (query := environ["QUERY_STRING"]) else ""))
        try:
            with self._changed:
                self._handler = handler = self._handler or WSGIHandler()
            response = handler(environ, start_response)
            try:
                return [b"".join(response)]
            finally:
                response.close()  # ends the request, and with it the thread's connections to databases
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()

    def wait(self, seconds: float = 10) -> None:
        """Wait until no request is being answered. Raises ``TimeoutError``."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._busy, seconds):
                raise TimeoutError(f"{self._busy} requests are not answered after {seconds} s")
