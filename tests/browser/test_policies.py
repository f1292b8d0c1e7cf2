"""Under a strict Content-Security-Policy everything works, and nothing is asked for that it forbids."""

from __future__ import annotations

import django
import pytest

from demo.standin import StandIn
from pluginhost import host
from tests.browser import providers
from tests.browser.site import views

#: Directives of ``script-src``, with the providers' servers for ``{servers}``.
SCRIPTS = {
    "nonce": "'nonce-{{nonce}}'",
    "strict-dynamic": "'nonce-{{nonce}}' 'strict-dynamic'",
    "servers": "'nonce-{{nonce}}' {servers}",
}


@pytest.fixture
def intranet():
    """Another Matomo."""
    with StandIn() as stand_in:
        yield stand_in


@pytest.fixture
def enabled(configure, stand_in, intranet):
    configure(
        kissmetrics=providers.kissmetrics(stand_in),
        piwik=providers.piwik(stand_in),
        piwik_intranet=providers.piwik(intranet, PLUGIN="piwik", SITE_ID=2, CATEGORY="Inside"),
    )


@pytest.fixture
def everything_works(visitor, enabled, stand_in, intranet, settle, settings):
    def everything_works():
        settings.BROWSER_USER = "7"
        views.to_do.append(lambda request: host.track_client(request, "Paid"))
        tab = visitor.tab("/page/")
        settle(tab)
        intranet.wait_for(n=2)
        for server, site, category in ((stand_in, "1", "Events"), (intranet, "2", "Inside")):
            hits = server.received("matomo", kept=None)
            assert sorted((hit.kind, hit.name) for hit in hits) == [("event", "Paid"), ("page view", "Page")]
            assert {hit.sent["idsite"] for hit in hits} == {site}
            assert [hit.properties["e_c"] for hit in hits if hit.kind == "event"] == [category]
        [event] = stand_in.received("kissmetrics", kind="event", kept=None)
        assert (event.person, event.name) == ("7", "Paid")
        assert intranet.received("kissmetrics", kept=None) == []
        assert tab.js("own") == ["first", "last", "ready"]
        return tab

    return everything_works


def test_without_a_policy(everything_works):
    everything_works()


@pytest.mark.parametrize("scripts", SCRIPTS.values(), ids=SCRIPTS)
def test_with_a_policy(everything_works, settings, stand_in, intranet, scripts):
    servers = f"{stand_in.url} {intranet.url}"
    settings.BROWSER_POLICY = (
        f"default-src 'none'; script-src {scripts.format(servers=servers)};"
        f" connect-src {servers}; img-src {servers}; base-uri 'none'"
    )
    everything_works()


@pytest.mark.skipif(django.VERSION < (6, 0), reason="Django has policies since 6.0")
def test_with_the_policy_of_django(everything_works, settings, stand_in, intranet):
    from django.utils.csp import CSP

    servers = [stand_in.url, intranet.url]
    settings.SECURE_CSP = {"default-src": [CSP.NONE], "script-src": [CSP.NONCE], "connect-src": servers}
    settings.MIDDLEWARE = ["django.middleware.csp.ContentSecurityPolicyMiddleware", *settings.MIDDLEWARE]
    tab = everything_works()
    assert tab.js("document.scripts[0].nonce")


def test_with_the_policy_of_django_csp(everything_works, settings, stand_in, intranet):
    from csp.constants import NONCE, NONE

    directives = {"default-src": [NONE], "script-src": [NONCE], "connect-src": [stand_in.url, intranet.url]}
    settings.CONTENT_SECURITY_POLICY = {"DIRECTIVES": directives}
    settings.MIDDLEWARE = ["csp.middleware.CSPMiddleware", *settings.MIDDLEWARE]
    tab = everything_works()
    assert tab.js("document.scripts[0].nonce")


def test_the_script_of_one_server_does_for_the_other(visitor, enabled, stand_in, intranet):
    """While one Matomo gives no script, the other one's is fetched."""
    visitor.excuse(stand_in.url)
    with stand_in.failing("matomo", "500", scripts=True):
        visitor.tab("/page/")
        assert [hit.sent["idsite"] for hit in intranet.wait_for("matomo")] == ["2"]


class TestWithoutJavaScript:
    def test_an_image_counts_the_page(self, new_visitor, configure, settings, stand_in):
        configure(kissmetrics=providers.kissmetrics(stand_in), piwik=providers.piwik(stand_in))
        settings.BROWSER_POLICY = f"default-src 'none'; script-src 'nonce-{{nonce}}'; img-src {stand_in.url}"
        visitor = new_visitor(java_script_enabled=False)
        visitor.tab("/page/")
        [hit] = stand_in.wait_for()
        assert (hit.provider, hit.kind, hit.origin, hit.sent["idsite"]) == ("matomo", "page view", "browser", "1")
        assert hit.properties["url"].endswith("/page/")
        assert stand_in.scripts == {}

    @pytest.mark.parametrize("options", [{"CONSENT": "tracking"}, {"DO_NOT_TRACK": True}, {"NOSCRIPT": False}], ids=str)
    def test_no_image_where_it_would_not_ask(self, new_visitor, configure, stand_in, options):
        configure(piwik=providers.piwik(stand_in, **options))
        visitor = new_visitor(java_script_enabled=False)
        visitor.tab("/page/")
        assert [url for url in visitor.requests if url.startswith(stand_in.url)] == []

    def test_with_javascript_it_counts_once(self, visitor, configure, stand_in, settle):
        configure(piwik=providers.piwik(stand_in))
        settle(visitor.tab("/page/"))
        assert len(stand_in.received(kept=None)) == 1
