"""A real browser for tests: a Chromium that the machine has, driven by Playwright.

Playwright runs in a thread of its own. Its synchronous interface would leave an event
loop in the thread of the test, and there Django's ORM refuses to work.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, Request, WebError

VARIABLE = "PLUGINHOST_TEST_CHROMIUM"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: Seconds that anything in the browser may take.
PATIENCE = 20.0

ARGUMENTS = [
    # Nothing leaves the machine, whatever a page asks for.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
    "--disable-gpu",
]
#: What Chromium says of itself where people sit before it. Without a window it calls itself a robot.
USER_AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{}.0.0.0 Safari/537.36"
#: Reports what a Content-Security-Policy forbids, beside the browser's own message.
WATCH = """addEventListener("securitypolicyviolation", (event) => console.error(
    "violation: " + event.effectiveDirective + " of " + event.blockedURI + " at line " + event.lineNumber));"""


def find() -> str | None:
    """The path of a Chromium: the one that the environment names, else the system's. None if there is none."""
    if VARIABLE in os.environ:
        return os.environ[VARIABLE] or None
    return next(filter(None, map(shutil.which, NAMES)), None)


class Chromium:
    """One browser process, from ``with`` to its end; each of its visitors has cookies and a cache of their own."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chromium", daemon=True)

    def __enter__(self) -> Chromium:
        self._thread.start()
        try:
            self.run(self._launch(), PATIENCE * 3)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.run(self._close())
        finally:
            self._end()

    async def _launch(self) -> None:
        from playwright.async_api import async_playwright

        if shutil.which(self._path) is None:  # Playwright would leave its folders behind
            raise FileNotFoundError(f"{self._path!r} is no program that can be run; see {VARIABLE}")
        self._playwright = await async_playwright().start()
        try:
            self.browser: Browser = await self._playwright.chromium.launch(
                executable_path=self._path,
                args=ARGUMENTS,
                chromium_sandbox=os.geteuid() != 0,  # Chromium's sandbox does not work for root
                handle_sigint=False,  # pytest ends the browser itself
            )
        except BaseException:
            await self._playwright.stop()
            raise

    async def _close(self) -> None:
        try:
            await self.browser.close()
        finally:
            await self._playwright.stop()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, coroutine: Coroutine[Any, Any, Any], seconds: float = PATIENCE) -> Any:
        """What a coroutine of Playwright's gives. Raises what it raises, ``TimeoutError`` if it takes too long."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(seconds)
        finally:
            future.cancel()

    def visitor(self, url: str, **options: Any) -> Visitor:
        """Somebody with a fresh browser. ``options`` are those of Playwright's ``new_context``."""
        options.setdefault("viewport", {"width": 320, "height": 240})  # there is little to draw
        options.setdefault("user_agent", USER_AGENT.format(self.browser.version.partition(".")[0]))

        async def made() -> Visitor:
            return await Visitor(self, await self.browser.new_context(base_url=url, **options)).watched()

        visitor: Visitor = self.run(made())
        return visitor


class Visitor:
    """Somebody with a browser: tabs that share cookies, storage and cache."""

    def __init__(self, chromium: Chromium, context: BrowserContext) -> None:
        self._chromium = chromium
        self._context = context
        self.troubles: list[str] = []
        """Errors and warnings on the console, uncaught exceptions, violations of a policy, dialogs."""
        self.requests: list[str] = []
        """The addresses of all requests, in the order in which they were made."""
        self._excused: list[re.Pattern[str]] = []

    async def watched(self) -> Visitor:
        """Itself, from now on with all that is to be noticed. Runs in Playwright's thread, as does each handler."""
        self._context.set_default_timeout(PATIENCE * 1000)
        self._context.on("console", self._console)
        self._context.on("weberror", self._exception)
        self._context.on("dialog", self._dialog)
        self._context.on("request", self._request)
        await self._context.add_init_script(WATCH)
        return self

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.troubles.append(f"console: {message.text} ({message.location.get('url')})")

    def _exception(self, error: WebError) -> None:
        self.troubles.append(f"exception: {error.error}")

    async def _dialog(self, dialog: Dialog) -> None:
        self.troubles.append(f"dialog: {dialog.message}")
        await dialog.dismiss()

    def _request(self, request: Request) -> None:
        self.requests.append(request.url)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self._chromium.run(coroutine)

    def excuse(self, pattern: str) -> None:
        """Expect troubles in which this regular expression is found: they are not ours."""
        self._excused.append(re.compile(pattern))

    def unexcused(self) -> list[str]:
        return [trouble for trouble in self.troubles if not any(p.search(trouble) for p in self._excused)]

    def tab(self, path: str | None = None, **how: Any) -> Tab:
        """A new tab, at this path of the site."""
        tab = Tab(self, self.run(self._context.new_page()))
        if path is not None:
            tab.open(path, **how)
        return tab

    def cookies(self) -> dict[str, str]:
        """Name -> value, of all sites."""
        return {cookie["name"]: cookie["value"] for cookie in self.run(self._context.cookies())}

    def forget_cookie(self, name: str) -> None:
        self.run(self._context.clear_cookies(name=name))

    def set_cookie(self, name: str, value: str, url: str) -> None:
        self.run(self._context.add_cookies([{"name": name, "value": value, "url": url}]))

    def run_first(self, script: str) -> None:
        """Run JavaScript in each page to come, before its own."""
        self.run(self._context.add_init_script(script))

    def close(self) -> None:
        self.run(self._context.close())


class Tab:
    def __init__(self, visitor: Visitor, page: Page) -> None:
        self.visitor = visitor
        self._page = page

    def open(self, path: str, *, until: str = "load") -> int:
        """Go there, and wait for an event of the page. Returns the status of the answer."""
        response = self.visitor.run(self._page.goto(path, wait_until=until))  # type: ignore[arg-type]
        status: int = response.status
        return status

    def reload(self) -> None:
        self.visitor.run(self._page.reload())

    def back(self) -> None:
        self.visitor.run(self._page.go_back())

    def forward(self) -> None:
        self.visitor.run(self._page.go_forward())

    def duplicate(self) -> Tab:
        """A tab at the same place with a copy of this one's session storage, as a browser duplicates it."""

        async def opened() -> Page:
            async with self._page.expect_popup() as popup:
                await self._page.evaluate("void open(location.href)")
            page = await popup.value
            await page.wait_for_load_state()
            return page

        return Tab(self.visitor, self.visitor.run(opened()))

    def js(self, expression: str, argument: Any = None) -> Any:
        """The value of a JavaScript expression in the page, or of a function's call with this argument."""
        return self.visitor.run(self._page.evaluate(expression, argument))

    def wait_for(self, expression: str) -> None:
        """Wait until a JavaScript expression is true."""

        async def true() -> None:
            if not await self._page.evaluate(expression):  # which is faster, and mostly enough
                await self._page.wait_for_function(expression)

        self.visitor.run(true())

    def submit(self, form: str, *checked: str) -> None:
        """Check the boxes of these values in the form of this id, send it, and wait for the next page."""

        async def sent() -> None:
            for value in checked:
                await self._page.check(f"#{form} [value={value}]")
            async with self._page.expect_navigation():
                await self._page.click(f"#{form} button")

        self.visitor.run(sent())

    def text(self) -> str:
        """What a person reads on the page."""
        return str(self.visitor.run(self._page.inner_text("body")))

    def source(self) -> str:
        """The page as it is now, with the code of its scripts."""
        return str(self.js("document.documentElement.outerHTML"))

    def html(self) -> str:
        """The page as the browser's cache has it."""
        return str(
            self.js("fetch(location.href, {cache: 'only-if-cached', mode: 'same-origin'}).then((r) => r.text())")
        )

    @property
    def path(self) -> str:
        return str(self.js("location.pathname"))

    def close(self) -> None:
        self.visitor.run(self._page.close())
