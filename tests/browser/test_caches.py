"""What a cache keeps of a page is of nobody, and does no harm to anybody whom it is shown."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model
from django.core.cache import cache

from pluginhost import host
from tests.browser import providers
from tests.browser.site import views

pytestmark = pytest.mark.django_db(transaction=True)

ADA, BOB = "4711001", "4711002"


@pytest.fixture(autouse=True)
def accounts(transactional_db):
    for name, pk in (("ada", ADA), ("bob", BOB)):
        get_user_model().objects.create(pk=pk, username=name)


@pytest.fixture(autouse=True)
def enabled(configure, stand_in):
    plugins = {"kissmetrics": providers.kissmetrics(stand_in), "piwik": providers.piwik(stand_in, USER_ID=True)}
    configure("outbox", **plugins)


@pytest.fixture
def whole_site(site, settings):
    """Django's cache of the whole site, outside of everything else, as its documentation has it."""
    settings.MIDDLEWARE = [
        "django.middleware.cache.UpdateCacheMiddleware",
        *settings.MIDDLEWARE,
        "django.middleware.cache.FetchFromCacheMiddleware",
    ]
    cache.clear()
    yield "/page/shared/"
    cache.clear()


@pytest.fixture
def one_view(site):
    """A view that is decorated with ``cache_page``."""
    cache.clear()
    yield "/kept/shared/"
    cache.clear()


@pytest.fixture(params=["whole_site", "one_view"])
def page(request):
    """The path of a page that is cached."""
    return request.getfixturevalue(request.param)


def look(tab, path, settle):
    tab.open(path)
    settle(tab)
    return tab


def test_no_page_of_somebody_is_shown_to_another(new_visitor, page, settle, stand_in):
    """Neither a name nor what waited for one of them."""
    nobody, ada, bob, another = visitors = [new_visitor() for _ in range(4)]
    tabs = [nobody.tab(), ada.tab("/in/ada/?next=/plain/"), bob.tab("/in/bob/?next=/plain/"), another.tab()]
    look(tabs[0], page, settle)
    views.to_do.append(lambda request: host.track_client(request, "Paid", {"by": ADA}))
    for tab in tabs[1:]:
        look(tab, page, settle)
    named = [{pk for pk in (ADA, BOB) if f'"{pk}"' in tab.source()} for tab in tabs]
    assert named == [set(), {ADA}, {BOB}, set()]
    assert [visitor.cookies().get("km_ni") for visitor in visitors] == [None, ADA, BOB, None]
    assert [hit.user_id for hit in stand_in.received("matomo", kind="page view")] == ["", ADA, BOB, ""]
    assert [hit.person for hit in stand_in.received("kissmetrics", kind="event")] == [ADA]
    assert [hit.user_id for hit in stand_in.received("matomo", kind="event")] == [ADA]


def test_people_without_cookies_share_a_page(new_visitor, whole_site, settle, stand_in):
    """So the cache is worth something; and each of them is counted."""
    for _ in range(3):
        look(new_visitor().tab(), whole_site, settle)
    assert views.rendered == [whole_site]
    assert len({hit.person for hit in stand_in.received("matomo", kind="page view")}) == 3


def test_without_names_a_view_is_cached_for_all(new_visitor, one_view, settle, stand_in, configure):
    configure(piwik=providers.piwik(stand_in))
    look(new_visitor().tab("/in/ada/?next=/plain/"), one_view, settle)
    look(new_visitor().tab(), one_view, settle)
    assert views.rendered == [one_view]
    assert len({hit.person for hit in stand_in.received("matomo", kind="page view")}) == 2


def test_a_page_made_for_nobody_logs_nobody_out(new_visitor, whole_site, settings, settle, stand_in):
    """A cache that does not look at cookies shows it to somebody who is logged in."""
    settings.MIDDLEWARE = [
        settings.MIDDLEWARE[0],
        "tests.browser.site.middleware.careless_cache",
        *settings.MIDDLEWARE[1:],
    ]
    settings.BROWSER_IGNORES_VARY = True
    look(new_visitor().tab(), whole_site, settle)
    ada = new_visitor()
    tab = look(ada.tab(), "/in/ada/", settle)
    look(tab, whole_site, settle)
    assert views.rendered.count(whole_site) == 1
    assert ADA not in tab.source()
    assert ada.cookies()["km_ni"] == ADA
    views.to_do.append(lambda request: host.track_client(request, "Paid"))
    look(tab, "/page/", settle)
    assert [hit.person for hit in stand_in.received("kissmetrics", kind="event")] == [ADA]
    assert len(stand_in.received("kissmetrics", kind="alias")) == 1
