"""Several people at one browser: no provider takes one of them for another."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from django.contrib.auth import get_user_model

from pluginhost import host
from tests.browser import providers
from tests.browser.site import views

pytestmark = pytest.mark.django_db(transaction=True)

ADA, BOB = "4711001", "4711002"
#: A page that the browser may show again without asking.
KEPT = "/page/kept/?for=600"


@pytest.fixture(autouse=True)
def accounts(transactional_db):
    for name, pk in (("ada", ADA), ("bob", BOB)):
        get_user_model().objects.create(pk=pk, username=name)


@pytest.fixture
def browse(visitor, settle):
    """Go through these pages in one tab, and let the providers' scripts run on each. Returns the tab."""
    tab = visitor.tab()

    def browse(*paths):
        for path in paths:
            tab.open(path)
            settle(tab)
        return tab

    return browse


@pytest.fixture(params=["storage", "no storage"])
def storage(request, visitor):
    """A browser with its storage, and one that refuses it."""
    if request.param == "no storage":
        visitor.run_first(
            "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('', 'SecurityError') }})"
        )


def seen(request):
    host.track_client(request, "Seen")


class TestKissmetrics:
    @pytest.fixture(autouse=True)
    def enabled(self, configure, stand_in):
        configure("outbox", kissmetrics=providers.kissmetrics(stand_in))

    @pytest.fixture(autouse=True)
    def nobody_is_two(self, stand_in):
        yield
        assert stand_in.people()
        assert [person for person in stand_in.people() if {ADA, BOB} <= person] == []

    @pytest.mark.usefixtures("storage")
    def test_a_log_in_names_the_visitor_once(self, browse, stand_in, visitor):
        browse("/page/")
        anonymous = unquote(visitor.cookies()["km_ai"])
        browse("/in/ada/", "/page/1/", "/page/2/", KEPT, KEPT)
        assert len(stand_in.received("kissmetrics", kind="alias")) == 1
        assert stand_in.person(ADA) == {ADA, anonymous}

    @pytest.mark.usefixtures("storage")
    def test_another_log_in_without_a_log_out(self, browse, stand_in, visitor):
        browse("/page/", "/in/ada/", "/page/", "/in/bob/")
        views.to_do.append(seen)
        browse("/page/")
        [hit] = stand_in.received("kissmetrics", kind="event")
        assert hit.person == visitor.cookies()["km_ni"] == BOB
        assert stand_in.person(ADA)

    def test_after_a_log_out_nobody_is_known(self, browse, stand_in, visitor):
        browse("/in/ada/", "/page/", "/out/")
        assert "km_ni" not in visitor.cookies()
        views.to_do.append(seen)
        browse("/page/")
        [hit] = stand_in.received("kissmetrics", kind="event")
        assert hit.person not in stand_in.person(ADA)
        browse("/in/bob/", "/page/")
        assert hit.person in stand_in.person(BOB)

    @pytest.mark.usefixtures("storage")
    def test_a_log_out_counts_once(self, browse, visitor):
        browse("/in/ada/", "/out/")
        anonymous = visitor.cookies()["km_ai"]
        browse("/page/", "/page/1/")
        assert visitor.cookies()["km_ai"] == anonymous

    def test_a_log_out_is_noticed_on_a_kept_page(self, browse, stand_in, visitor, settings, site):
        """Which the browser kept before anybody logged in."""
        settings.BROWSER_IGNORES_VARY = True
        browse(KEPT, "/in/ada/")
        assert visitor.cookies()["km_ni"] == ADA
        browse(f"/out/?next={KEPT}")
        assert site.asked.count(KEPT) == 1
        assert "km_ni" not in visitor.cookies()

    def test_a_page_that_names_somebody_is_not_shown_to_the_next(self, browse, stand_in, visitor, site):
        browse("/in/ada/", KEPT, "/out/", "/plain/", KEPT)
        assert site.asked.count(KEPT) == 2
        browse("/plain/").back()
        assert "km_ni" not in visitor.cookies()

    def test_an_expired_session_is_no_log_out(self, browse, stand_in, visitor):
        browse("/in/ada/")
        visitor.forget_cookie("sessionid")
        browse("/page/")
        assert visitor.cookies()["km_ni"] == ADA
        browse("/in/ada/", "/page/")
        assert len(stand_in.received("kissmetrics", kind="alias")) == 1

    @pytest.mark.usefixtures("storage")
    def test_a_shared_computer(self, browse, stand_in, visitor):
        browse("/page/", "/in/ada/")
        visitor.forget_cookie("sessionid")
        views.to_do.append(seen)
        browse("/page/", "/in/bob/")
        views.to_do.append(seen)
        browse("/page/", "/out/", "/page/", "/in/ada/")
        views.to_do.append(seen)
        browse("/page/")
        assert [hit.person for hit in stand_in.received("kissmetrics", kind="event", kept=None)] == [ADA, BOB, ADA]

    @pytest.mark.parametrize("leaving", [[], ["/out/?next=/plain/"]], ids=["without a log-out", "with a log-out"])
    def test_a_name_that_the_script_never_heard(self, browse, stand_in, visitor, leaving):
        """KISSmetrics is away while somebody is logged in: what the browser did until then is not the next one's."""
        browse("/page/")
        anonymous = unquote(visitor.cookies()["km_ai"])
        with stand_in.failing("kissmetrics", "500", scripts=True):
            visitor.excuse("500")
            visitor.tab("/in/ada/").open("/page/")
        browse(*leaving, "/in/bob/", "/page/")
        assert visitor.cookies()["km_ni"] == BOB
        assert stand_in.person(BOB)
        assert anonymous not in stand_in.person(BOB)

    def test_the_server_knows_nobody_after_a_log_out(self, browse, stand_in, visitor, drain):
        """Even before a snippet has told the script."""
        browse("/in/ada/", "/page/")
        views.to_do.append(lambda request: host.track(request, "Seen"))
        browse("/out/?next=/act/%3Fnext=/plain/")
        drain()
        assert visitor.cookies()["km_ni"] == ADA
        assert stand_in.received("kissmetrics", origin="server", kept=None) == []


class TestMatomo:
    @pytest.fixture(autouse=True)
    def enabled(self, configure, stand_in):
        configure("outbox", piwik=providers.piwik(stand_in, USER_ID=True))

    @staticmethod
    def views(stand_in):
        """User id and whether it begins a visit, of each page view."""
        hits = stand_in.received("matomo", kind="page view", kept=None)
        return [(hit.user_id, hit.sent.get("new_visit")) for hit in hits]

    def test_each_page_says_who_sees_it(self, browse, stand_in):
        browse("/page/", "/in/ada/", "/page/", "/out/", "/page/", "/in/bob/", "/page/")
        assert self.views(stand_in) == [
            ("", None),
            (ADA, None),
            (ADA, None),
            ("", "1"),
            ("", None),
            (BOB, None),
            (BOB, None),
        ]

    def test_another_log_in_without_a_log_out(self, browse, stand_in):
        browse("/in/ada/", "/in/bob/", "/page/")
        assert [user for user, _ in self.views(stand_in)] == [ADA, BOB, BOB]
        assert [visitor.user_ids for visitor in stand_in.visitors()] == [{ADA}, {BOB}]

    @pytest.mark.usefixtures("storage")
    def test_a_log_in_right_after_a_log_out_begins_a_visit(self, browse, stand_in):
        browse("/in/ada/", "/out/?next=/plain/", "/in/bob/", "/page/")
        assert self.views(stand_in) == [(ADA, None), (BOB, "1"), (BOB, None)]

    def test_a_log_out_is_noticed_on_a_kept_page(self, browse, stand_in, settings, site):
        settings.BROWSER_IGNORES_VARY = True
        browse(KEPT, "/in/ada/", f"/out/?next={KEPT}", KEPT)
        assert site.asked.count(KEPT) == 1
        assert self.views(stand_in) == [("", None), (ADA, None), ("", "1"), ("", None)]

    def test_an_expired_session_has_no_user(self, browse, stand_in, visitor):
        browse("/in/ada/")
        visitor.forget_cookie("sessionid")
        browse("/page/", "/in/bob/")
        assert self.views(stand_in) == [(ADA, None), ("", None), (BOB, None)]

    def test_a_waiting_event_is_of_the_visit_that_it_is_sent_in(self, browse, stand_in):
        browse("/in/ada/")
        views.to_do.append(seen)
        browse("/page/", "/out/")
        views.to_do.append(seen)
        browse("/page/")
        hits = stand_in.received("matomo", kind="event", kept=None)
        assert [(hit.user_id, hit.sent.get("new_visit")) for hit in hits] == [(ADA, None), ("", None)]
