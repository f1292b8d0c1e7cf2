"""What Python gives is what the providers get, from browser and worker; and the pages that show it run none of it."""

from __future__ import annotations

import json
import re
from functools import partial
from urllib.parse import urlencode

import pytest
from django.contrib.auth import get_user_model
from django.urls import reverse

from pluginhost import host
from pluginhost.builtin.journal.models import Entry
from pluginhost_kissmetrics.identity import usable
from tests.browser import hostile, providers
from tests.browser.site import views

pytestmark = pytest.mark.django_db(transaction=True)

#: Who has a text as a key that KISSmetrics would not take for one.
SOMEBODY = "somebody"


@pytest.fixture
def enabled(configure, stand_in):
    plugins = {"kissmetrics": providers.kissmetrics(stand_in), "piwik": providers.piwik(stand_in, USER_ID=True)}
    configure("outbox", journal={}, **plugins)


def at_kissmetrics(text):
    """An event's name or an identity: KISSmetrics replaces commas and colons."""
    return text.strip().replace(",", " ").replace(":", " ")


def key_at_kissmetrics(text):
    """The name of a property: the plugin keeps away from names that KISSmetrics reserves."""
    return at_kissmetrics(text.lstrip("_"))


def at_matomo(text):
    """Matomo has one line of anything."""
    return re.sub(r"[\x00-\x1f\x7f\u2028\u2029]+", " ", text).strip()


def uid_at_matomo(text):
    """A user's id goes as it is or not at all: changed, it could be another one's."""
    return text.strip() if at_matomo(text) == text.strip() else ""


def in_html(text):
    """HTML knows one kind of line end."""
    return text.replace("\r\n", "\n")


def track_everything(call, text, request, **who):
    """Give a text to the providers as everything that it can be."""
    properties = {text: 1, "value": text, "nested": {text: {"value": text}}, "list": [text, "end"]}
    call(request, text, properties, plugins={"piwik": {"label": text, "dimensions": {"1": text}}}, **who)
    call(request, "Searched", plugins={"piwik": {"search": text}, "kissmetrics": False}, **who)


@hostile.TEXT
def test_the_providers_get_what_was_given(visitor, stand_in, enabled, settings, settle, drain, text):
    person = settings.BROWSER_USER = text if usable(text) else SOMEBODY
    other = f"of {person}"  # KISSmetrics keeps one event a person, name and second
    views.to_do.append(partial(track_everything, host.track_client, text))
    views.to_do.append(partial(track_everything, host.track, text, user_id=other))
    tab = visitor.tab("/page/?" + urlencode({"title": text}))
    settle(tab)
    drain()
    assert tab.js("own") == ["first", "last", "ready"]
    [view] = stand_in.received("matomo", kind="page view", origin="browser")
    assert view.name == tab.js("document.title")
    assert stand_in.received(kept=False) == []

    for origin, who in (("browser", person), ("server", other)):
        [event] = stand_in.received("kissmetrics", kind="event", origin=origin)
        nested = key_at_kissmetrics(f"nested.{text}.value")
        properties = {key_at_kissmetrics(text): "1", "value": text, nested: text, "list": f"{text},end"}
        assert (event.name, event.person) == (at_kissmetrics(text), at_kissmetrics(who))
        assert event.properties == properties

        [event] = stand_in.received("matomo", kind="event", origin=origin)
        assert event.name == event.properties["e_n"] == event.properties["dimension1"] == at_matomo(text)
        [search] = stand_in.received("matomo", kind="site search", origin=origin)
        assert search.name == at_matomo(text)
        assert event.user_id == search.user_id == uid_at_matomo(who)


def test_a_long_text_is_cut_and_breaks_nothing(visitor, stand_in, enabled, settings, settle, drain):
    """An emoji takes two places in JavaScript, and one in Python."""
    settings.BROWSER_USER = hostile.LONG[:200]
    long = hostile.LONG[:3500]
    views.to_do.append(lambda request: host.track(request, "Read", {"all": long}, plugins={"piwik": {"label": long}}))
    views.to_do.append(lambda request: host.track(request, "Searched", plugins={"piwik": {"search": long}}))
    views.to_do.append(lambda request: host.track_client(request, "Seen", {"some": long[:400]}))
    tab = visitor.tab()
    tab.open("/page/")
    settle(tab)
    drain()
    [browser] = stand_in.received("kissmetrics", kind="event", name="Seen")
    [server] = stand_in.received("kissmetrics", kind="event", name="Read")
    assert browser.properties == {"some": long[:400]}
    assert server.properties == {"all": long[:512]}
    assert {hit.person for hit in (browser, server)} == {hostile.LONG[:200]}
    [event] = stand_in.received("matomo", kind="event", origin="server")
    assert event.properties["e_n"] == long[:1024]
    [search] = stand_in.received("matomo", kind="site search")
    assert search.name == long[:1024]
    assert {hit.user_id for hit in stand_in.received("matomo")} == {hostile.LONG[:200]}


def test_a_long_title_is_what_the_document_has(visitor, stand_in, enabled, settle):
    views.to_do.append(lambda request: setattr(request, "title", hostile.LONG))
    visitor.tab("/page/")
    [view] = stand_in.wait_for("matomo", kind="page view")
    assert view.sent["action_name"] == hostile.LONG


def test_pages_that_show_what_was_given_run_none_of_it(visitor, stand_in, enabled, settings, drain):
    """The stand-in's page, and the admin of the journal."""
    texts = list(hostile.TEXTS.values())
    for text in texts:
        track_everything(host.track, text, None, user_id=text if usable(text) else SOMEBODY)
    host.track(None, "all", {text: text for text in texts}, anonymous_id=" ".join(filter(usable, texts))[:255])
    drain()

    tab = visitor.tab(stand_in.url)
    shown = tab.js("document.querySelector('main').textContent")
    assert [text for text in texts if in_html(at_kissmetrics(text)) not in shown] == []
    assert [text for text in texts if at_matomo(text) not in shown] == []
    assert tab.js("document.querySelectorAll('main img, main svg, main script, main b').length") == 0

    settings.STATIC_URL = "http://127.0.0.1:1/"  # the admin's own scripts and styles are not there
    visitor.excuse("ERR_UNSAFE_PORT")
    get_user_model().objects.create_superuser("admin")
    tab.open("/in/admin/?next=" + reverse("admin:pluginhost_journal_entry_changelist"))
    shown = tab.js("document.querySelector('#result_list').textContent")
    assert [text for text in texts if in_html(text) not in shown] == []
    tab.open(reverse("admin:pluginhost_journal_entry_change", args=[Entry.objects.get(name="all").pk]))
    shown = tab.js("document.querySelector('#content').textContent")
    assert [text for text in texts if shown.count(json.dumps(text, ensure_ascii=False)) != 2] == []
    assert Entry.objects.get(name="all").anonymous_id in shown
