"""The plugin ``consent``: what a visitor has agreed to, and what is left when that can't be known."""

from __future__ import annotations

from copy import copy

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import AnonymousUser, User
from django.core import checks
from django.core.exceptions import SynchronousOnlyOperation
from django.http import HttpResponse
from django.test import RequestFactory
from django.utils.functional import SimpleLazyObject

from pluginhost import ConfigurationError, host
from pluginhost.builtin.bots.browsers import BROWSERS
from pluginhost.builtin.consent import grant, granted, withdraw
from pluginhost.delivery import memory
from tests.samples import Recorder

rf = RequestFactory()
ALIASES = {
    "necessary": {"PLUGIN": "recorder", "PURPOSE": "necessary"},
    "analytics": {"PLUGIN": "recorder", "PURPOSE": "analytics"},
    "marketing": {"PLUGIN": "recorder", "PURPOSE": "marketing"},
    "other": {"PLUGIN": "recorder", "PURPOSE": "other"},
}
ALL = "necessary analytics marketing other"
ME = "tests.builtin.test_consent"

# --- what options name ---


class Answers:
    """What the functions below say, and whom they were asked about."""

    value = None
    asked = []


def answer(user):
    Answers.asked.append(user)
    if isinstance(Answers.value, Exception):
        raise Answers.value
    return Answers.value


async def asynchronous(user): ...


NOT_A_FUNCTION = "text"


@pytest.fixture(autouse=True)
def answers():
    yield Answers
    Answers.value = None
    Answers.asked = []


@pytest.fixture
def consent(configure):
    """Enable the plugin with these options, and a recorder for each purpose."""

    def consent(**options):
        configure(consent=options, **ALIASES)

    return consent


@pytest.fixture
def lanes(monkeypatch):
    """The aliases that may have an event of this source, as a text."""
    seen = []
    monkeypatch.setattr(memory.transport, "put", lambda envelopes, using: seen.extend(envelopes) or True)

    def lanes(source):
        seen.clear()
        accepted = host.track(source, "something")
        assert bool(accepted) is bool(seen)
        return " ".join(seen[0].lanes) if seen else ""

    return lanes


def visit(cookie=None, *, session=False, user=None, **headers):
    request = rf.get("/", headers={name.replace("_", "-"): value for name, value in headers.items()})
    if cookie is not None:
        request.COOKIES["pluginhost_consent"] = cookie
    if session:
        request.COOKIES["sessionid"] = "x" * 32
    if user is not None:
        request.user = user
    return request


def unknown_user(error):
    """A ``request.user`` that can't be found out."""

    def resolve():
        raise error

    return SimpleLazyObject(resolve)


# --- the cookie and the headers ---


@pytest.mark.parametrize(
    ("cookie", "expected"),
    [
        (None, "necessary"),
        ("1:", "necessary"),
        ("1:analytics", "necessary analytics"),
        ("1:analytics.marketing", "necessary analytics marketing"),
        ("1:unheard-of", "necessary"),
        ("1:Analytics", "necessary"),
        ("2:analytics", "necessary"),
        ("analytics", "necessary"),
        ("1:analytics.", "necessary"),
        ("1:analytics\n", "necessary"),
        ("1:analytics," * 100, "necessary"),
        ("1:analytics." + "x." * 300 + "x", "necessary"),
    ],
)
def test_what_a_cookie_allows(consent, lanes, cookie, expected):
    consent()
    assert lanes(visit(cookie)) == expected


@pytest.mark.parametrize(
    ("cookie", "expected"),
    [(None, "necessary analytics"), ("1:", "necessary"), ("1:marketing", "necessary marketing"), ("?", "necessary")],
)
def test_a_default_lasts_until_the_visitor_has_chosen(consent, lanes, cookie, expected):
    consent(DEFAULT=["analytics"])
    assert lanes(visit(cookie)) == expected


def test_necessary_purposes_are_the_site_s_to_name(consent, lanes):
    consent(NECESSARY=["necessary", "other"])
    assert lanes(visit("1:")) == "necessary other"


def test_the_cookie_has_the_name_that_the_site_gives_it(consent, lanes):
    consent(COOKIE="choice")
    request = visit("1:analytics.marketing")
    request.COOKIES["choice"] = "1:marketing"
    assert lanes(request) == "necessary marketing"


def test_without_a_cookie_s_name_no_cookie_is_looked_at(consent, lanes):
    consent(COOKIE=None, DEFAULT=["analytics"])
    assert lanes(visit("1:marketing")) == "necessary analytics"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"sec_gpc": "1"}, "necessary analytics"),
        ({"dnt": "1"}, "necessary"),
        ({"dnt": "1", "sec_gpc": "1"}, "necessary"),
        ({"sec_gpc": "0", "dnt": "0"}, ALL),
        ({"sec_gpc": "", "dnt": "null"}, ALL),
        ({"sec_gpc": "1,1"}, "necessary analytics"),
    ],
    ids=str,
)
def test_headers_limit_what_was_agreed_to(consent, lanes, headers, expected):
    consent()
    assert lanes(visit("1:analytics.marketing.other", **headers)) == expected


def test_headers_limit_the_default_too(consent, lanes):
    consent(DEFAULT=["analytics", "marketing"])
    assert lanes(visit(sec_gpc="1")) == "necessary analytics"
    assert lanes(visit(dnt="1")) == "necessary"


def test_what_headers_leave_allowed_is_the_site_s_to_say(consent, lanes):
    consent(GPC=["marketing"], DNT=None)
    cookie = "1:analytics.marketing.other"
    assert lanes(visit(cookie, sec_gpc="1")) == "marketing"
    assert lanes(visit(cookie, dnt="1")) == ALL
    consent(GPC=None, DNT=[])
    assert lanes(visit(cookie, sec_gpc="1")) == ALL
    assert lanes(visit(cookie, dnt="1")) == ""


def test_an_explicit_choice_may_override_headers(consent, lanes):
    consent(CHOICE_OVERRIDES_HEADERS=True, DEFAULT=["marketing"])
    assert lanes(visit("1:marketing", sec_gpc="1", dnt="1")) == "necessary marketing"
    assert lanes(visit(sec_gpc="1")) == "necessary"
    assert lanes(visit("garbage", sec_gpc="1", dnt="1")) == "necessary"


@pytest.mark.parametrize(
    ("cookie", "of_user", "expected"),
    [
        (None, None, "necessary"),
        ("1:", None, "necessary analytics"),
        (None, [], "necessary analytics"),
        ("1:marketing", ["marketing", "other"], "necessary analytics marketing"),
        ("garbage", None, "necessary"),
        ("garbage", ["marketing"], "necessary"),
        (None, RuntimeError("away"), "necessary"),
        (None, "marketing", "necessary"),
        ("1:marketing", RuntimeError("away"), "necessary"),
    ],
    ids=str,
)
def test_only_a_choice_that_is_known_overrides_headers(consent, lanes, cookie, of_user, expected):
    """NECESSARY is wider than what the header leaves: what is unknown must not open it."""
    consent(
        CHOICE_OVERRIDES_HEADERS=True, NECESSARY=["necessary", "analytics"], GPC=["necessary"], OF_USER=f"{ME}.answer"
    )
    Answers.value = of_user
    assert lanes(visit(cookie, user=User(pk=5), sec_gpc="1")) == expected


@pytest.mark.parametrize("cookie", [None, "1:", "1:marketing"])
def test_a_user_who_can_t_be_found_out_overrides_no_header(consent, lanes, cookie):
    consent(
        CHOICE_OVERRIDES_HEADERS=True, NECESSARY=["necessary", "analytics"], GPC=["necessary"], OF_USER=f"{ME}.answer"
    )
    unknown = unknown_user(RuntimeError("away"))
    assert lanes(visit(cookie, session=True, user=unknown, sec_gpc="1")) == "necessary"


def test_an_unreadable_cookie_is_logged_once(consent, lanes, caplog):
    caplog.set_level("INFO")
    consent()
    for _ in range(3):
        lanes(visit("garbage"))
    [record] = caplog.records
    assert record.name == "pluginhost.consent"
    assert "plugin consent: a consent cookie can't be read" in record.getMessage()
    assert "garbage" not in record.getMessage()


# --- users ---


def test_nobody_s_events_meet_no_objection(consent, lanes):
    consent(OPT_OUT="is_staff", OF_USER=f"{ME}.answer")
    assert lanes(None) == lanes(AnonymousUser()) == ALL
    assert Answers.asked == []


def test_an_event_of_a_user_alone(consent, lanes):
    consent()
    assert lanes(User(pk=5)) == ALL
    consent(OPT_OUT="is_staff")
    assert lanes(User(pk=5)) == ALL
    assert lanes(User(pk=5, is_staff=True)) == ""
    consent(OF_USER=f"{ME}.answer")
    Answers.value = ["marketing"]
    assert lanes(User(pk=5)) == "necessary marketing"
    Answers.value = None
    assert lanes(User(pk=5)) == "necessary"
    assert Answers.asked == [User(pk=5), User(pk=5)]


@pytest.mark.parametrize("name", ["is_staff", f"{ME}.answer", "get_opted_out", "set_by_the_site"])
def test_who_has_opted_out_is_tracked_by_nothing(consent, lanes, name, monkeypatch):
    monkeypatch.setattr(User, "get_opted_out", lambda self: self.is_staff, raising=False)
    ada, bob = User(pk=1, is_staff=True), User(pk=2)
    ada.set_by_the_site = True
    consent(OPT_OUT=name)
    for user in (ada, bob):
        Answers.value = user is ada
        request = visit("1:analytics", user=user)
        expected = ("", "") if user is ada else (ALL, "necessary analytics")
        assert (lanes(user), lanes(request)) == expected
    assert lanes(visit("1:analytics", user=AnonymousUser())) == "necessary analytics"
    assert lanes(visit("1:analytics")) == "necessary analytics"


@pytest.mark.parametrize(
    ("of_user", "cookie", "expected"),
    [
        (None, None, "necessary other"),
        (None, "1:analytics", "necessary analytics"),
        ({"marketing"}, None, "necessary marketing"),
        (["marketing", "analytics"], "1:analytics", "necessary analytics"),
        ((), "1:analytics", "necessary"),
        (["analytics"], "1:", "necessary"),
        (["analytics"], "garbage", "necessary"),
    ],
    ids=str,
)
def test_of_two_choices_the_stricter_counts(consent, lanes, of_user, cookie, expected):
    consent(OF_USER=f"{ME}.answer", DEFAULT=["other"])
    Answers.value = of_user
    assert lanes(visit(cookie, user=User(pk=5))) == expected
    assert Answers.asked == [User(pk=5)]


def test_a_user_s_choice_is_limited_by_headers_too(consent, lanes):
    consent(OF_USER=f"{ME}.answer")
    Answers.value = ["analytics", "marketing"]
    assert lanes(visit(user=User(pk=5), sec_gpc="1")) == "necessary analytics"


@pytest.mark.parametrize("broken", [RuntimeError("away"), "analytics", True, 5, [["analytics"]]], ids=repr)
def test_a_function_that_fails_allows_only_what_is_necessary(consent, lanes, caplog, broken):
    consent(OF_USER=f"{ME}.answer", DEFAULT=["analytics"])
    Answers.value = broken
    for _ in range(2):
        assert lanes(visit("1:analytics", user=User(pk=5))) == "necessary"
        assert lanes(User(pk=5)) == "necessary"
    [record] = caplog.records
    assert (record.name, record.levelname) == ("pluginhost.consent", "ERROR")
    assert "OF_USER failed" in record.getMessage()


class Broken(User):
    class Meta:
        proxy = True
        app_label = "auth"

    @property
    def opted_out(self):
        raise AttributeError("no profile")


@pytest.mark.parametrize(("name", "user"), [(f"{ME}.answer", User(pk=5)), ("opted_out", Broken(pk=5))], ids=str)
def test_an_opt_out_that_can_t_be_read_is_one(consent, lanes, caplog, name, user):
    consent(OPT_OUT=name)
    Answers.value = RuntimeError("away")
    for _ in range(2):
        assert lanes(visit("1:analytics", user=user)) == ""
        assert lanes(user) == ""
    [record] = caplog.records
    assert (record.name, record.levelname) == ("pluginhost.consent", "ERROR")
    assert "OPT_OUT failed" in record.getMessage()


@pytest.mark.parametrize("option", ["OPT_OUT", "OF_USER"])
def test_a_user_who_can_t_be_found_out(consent, lanes, caplog, option):
    consent(**{option: f"{ME}.answer"}, DEFAULT=["analytics"])
    expected = "" if option == "OPT_OUT" else "necessary"
    for _ in range(2):
        assert lanes(visit("1:analytics", session=True, user=unknown_user(RuntimeError("away")))) == expected
        assert lanes(visit("1:analytics", session=True)) == expected  # no AuthenticationMiddleware
    assert Answers.asked == []
    [record] = caplog.records
    assert record.name == "pluginhost.consent"
    assert "the user can't be found out" in record.getMessage()


def test_a_request_that_can_t_be_read_allows_nothing(consent, lanes, caplog, monkeypatch):
    consent()
    request = visit("1:analytics")
    monkeypatch.setattr(request, "COOKIES", None)
    plugin = host.registry.plugins["consent"].plugin
    assert plugin.filter_request(request, None) is False
    assert "nothing is allowed" in caplog.text


@pytest.mark.parametrize("options", [{}, {"OPT_OUT": "is_staff"}, {"OF_USER": f"{ME}.answer"}], ids=str)
def test_the_user_is_resolved_only_for_a_session_and_an_option_that_asks(consent, lanes, options):
    resolved = []
    user = SimpleLazyObject(lambda: resolved.append(1) or User(pk=5))
    consent(**options)
    lanes(visit(user=user))
    assert resolved == []
    lanes(visit(user=user, session=True))
    assert bool(resolved) is bool(options)


@pytest.mark.parametrize("value", [["analytics"], None, RuntimeError("away")], ids=str)
@pytest.mark.parametrize("option", ["OPT_OUT", "OF_USER"])
def test_a_user_is_asked_once_a_request(consent, lanes, option, value):
    """Though a user who was found out for it makes the host ask its filters again."""
    consent(**{option: f"{ME}.answer"})
    Answers.value = value
    request = visit(session=True, user=SimpleLazyObject(lambda: User(pk=5)))
    for _ in range(2):
        lanes(request)
        assert Answers.asked == [User(pk=5)]
    lanes(visit(user=User(pk=5)))
    assert Answers.asked == [User(pk=5)] * 2


def test_another_user_is_asked_too(consent, lanes):
    consent(OF_USER=f"{ME}.answer")
    Answers.value = ["analytics"]
    request = visit(user=User(pk=5))
    assert lanes(request) == "necessary analytics"
    request.user, Answers.value = User(pk=6), ["marketing"]
    assert lanes(request) == "necessary marketing"
    assert Answers.asked == [User(pk=5), User(pk=6)]


def test_each_alias_asks_for_itself(configure, lanes):
    of_user, opt_out = ({"PLUGIN": "consent", option: f"{ME}.answer"} for option in ("OF_USER", "OPT_OUT"))
    configure(of_user=of_user, opt_out=opt_out, **ALIASES)
    Answers.value = ["analytics"]
    assert lanes(visit(user=User(pk=5))) == ""
    assert len(Answers.asked) == 2


@pytest.mark.parametrize("copied", [False, True])
def test_a_user_who_chooses_is_asked_again(consent, lanes, copied):
    """A view keeps the choice with the account too, before it tells the plugin."""
    consent(OF_USER=f"{ME}.answer")
    request = visit(user=User(pk=5))
    assert granted(request) is None
    given = copy(request) if copied else request
    Answers.value = []
    assert lanes(request) == "necessary"
    Answers.value = ["analytics", "marketing"]
    assert lanes(request) == "necessary"
    grant(HttpResponse(), given, ["analytics", "marketing"])
    assert lanes(request) == "necessary analytics marketing"
    Answers.value = ["marketing"]
    withdraw(HttpResponse(), given)
    grant(HttpResponse(), given, ["analytics", "marketing"])
    assert lanes(request) == "necessary marketing"


def test_what_an_event_loop_can_t_find_out_a_thread_asks_again(consent):
    consent(OF_USER=f"{ME}.answer")
    plugin = host.registry.plugins["consent"].plugin
    request = visit(user=User(pk=5))
    Answers.value = SynchronousOnlyOperation("not here")
    assert in_event_loop(plugin.filter_request, request, request.user) == {"necessary"}
    Answers.value = ["analytics"]
    assert plugin.filter_request(request, request.user) == {"necessary", "analytics"}


def in_event_loop(function, *arguments):
    async def call():
        return function(*arguments)

    return async_to_sync(call)()


@pytest.mark.django_db(transaction=True)
class TestEventLoop:
    """With a real session, which an event loop must not read."""

    @pytest.fixture(autouse=True)
    def logged_in(self, consent, client):
        self.user = User.objects.create_user("ada")
        client.force_login(self.user)
        self.session = client.cookies["sessionid"].value
        consent(OPT_OUT="is_staff")

    def request(self):
        from django.contrib.auth.middleware import AuthenticationMiddleware
        from django.contrib.sessions.middleware import SessionMiddleware

        request = visit("1:analytics")
        request.COOKIES["sessionid"] = self.session
        SessionMiddleware(lambda request: HttpResponse()).process_request(request)
        AuthenticationMiddleware(lambda request: HttpResponse()).process_request(request)
        return request

    def test_nothing_is_allowed_while_the_user_is_unknown(self, lanes, caplog):
        assert in_event_loop(lanes, self.request()) == ""
        assert in_event_loop(lanes, self.request()) == ""
        [record] = caplog.records
        assert "await host.atrack()" in record.getMessage()

    def test_a_user_who_is_known_is_asked(self, lanes):
        async def track(request):
            await request.auser()
            return lanes(request)

        assert async_to_sync(track)(self.request()) == "necessary analytics"
        User.objects.update(is_staff=True)
        assert async_to_sync(track)(self.request()) == ""

    def test_atrack_finds_the_user_out(self):
        request = self.request()
        assert async_to_sync(host.atrack)(request, "something")
        User.objects.update(is_staff=True)
        assert async_to_sync(host.atrack)(self.request(), "something") is None

    def test_elsewhere_the_user_is_found_out(self, lanes):
        assert lanes(self.request()) == "necessary analytics"
        User.objects.update(is_staff=True)
        assert lanes(self.request()) == ""


# --- four visitors, on the server and in the page ---

FIREFOX, GOOGLE = BROWSERS["Firefox"], "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("visitor", "expected"),
    [
        ("willing", "analytics marketing"),
        ("with GPC", "analytics"),
        ("no marketing", "analytics"),
        ("opted out", ""),
        ("robot", ""),
    ],
)
def test_the_four_visitors(configure, client, visitor, expected):
    configure(
        "inline",
        bots={},
        consent={"OPT_OUT": "is_staff"},
        analytics={"PLUGIN": "recorder"},
        marketing={"PLUGIN": "recorder", "PURPOSE": "marketing"},
        analytics_page={"PLUGIN": "snippet"},
        marketing_page={"PLUGIN": "snippet", "PURPOSE": "marketing"},
    )
    headers = {"user-agent": GOOGLE if visitor == "robot" else FIREFOX}
    if visitor == "with GPC":
        headers["sec-gpc"] = "1"
    client.cookies["pluginhost_consent"] = "1:analytics" if visitor == "no marketing" else "1:analytics.marketing"
    client.force_login(User.objects.create_user("ada", is_staff=visitor == "opted out"))

    client.get("/", headers=headers)
    assert " ".join(Recorder.seen) == expected
    page = client.get("/page/", headers=headers)
    snippets = [alias for alias in ("analytics", "marketing") if f"{alias}_page head" in page.content.decode()]
    assert " ".join(snippets) == expected


# --- what caches have to know ---


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"Cookie", "Sec-GPC", "DNT"}),
        ({"COOKIE": None}, {"Sec-GPC", "DNT"}),
        ({"COOKIE": None, "GPC": None, "DNT": None}, set()),
        ({"COOKIE": None, "GPC": None, "DNT": None, "OPT_OUT": "is_staff"}, {"Cookie"}),
        ({"COOKIE": None, "GPC": None, "OF_USER": f"{ME}.answer"}, {"Cookie", "DNT"}),
        ({"GPC": [], "DNT": None}, {"Cookie", "Sec-GPC"}),
    ],
    ids=str,
)
def test_a_page_varies_by_what_its_visitor_is_asked(configure, client, options, expected):
    configure(consent=options, snippet={"PURPOSE": "necessary"})
    page = client.get("/page/")
    assert b"snippet head" in page.content or options.get("GPC") == []
    assert set(filter(None, page.get("Vary", "").split(", "))) == expected


# --- for the site ---


def test_a_choice_is_kept_in_a_cookie(consent):
    consent()
    request, response = visit(), HttpResponse()
    assert granted(request) is None
    grant(response, request, ["marketing", "analytics", "marketing"])
    morsel = response.cookies["pluginhost_consent"]
    assert morsel.value == "1:analytics.marketing"
    assert (morsel["samesite"], morsel["secure"], morsel["httponly"]) == ("Lax", "", "")
    assert (morsel["max-age"], morsel["path"], morsel["domain"]) == (180 * 24 * 60 * 60, "/", "")
    assert response["Vary"] == "Cookie"
    assert granted(request) == {"analytics", "marketing"}


def test_the_cookie_is_what_its_options_say(consent):
    consent(COOKIE="choice", COOKIE_AGE=60, COOKIE_DOMAIN="example.com")
    response = HttpResponse()
    grant(response, rf.get("/", secure=True), {"analytics"})
    morsel = response.cookies["choice"]
    assert (morsel["max-age"], morsel["domain"], morsel["secure"]) == (60, "example.com", True)


def test_a_browser_sends_the_choice_as_it_was_kept(consent, lanes):
    consent()
    response = HttpResponse()
    grant(response, visit(), ["analytics", "other"])
    header = response.cookies["pluginhost_consent"].output(header="", attrs=[]).strip()
    request = rf.get("/", headers={"cookie": header})
    assert granted(request) == {"analytics", "other"}
    assert lanes(request) == "necessary analytics other"


def test_withdrawing_is_a_choice(consent, lanes):
    consent(DEFAULT=["analytics"])
    request, response = visit("1:analytics"), HttpResponse()
    withdraw(response, request)
    assert response.cookies["pluginhost_consent"].value == "1:"
    assert granted(request) == frozenset()
    assert lanes(request) == "necessary"


def test_a_choice_counts_from_the_request_that_makes_it(consent, lanes):
    consent()
    request, response = visit(), HttpResponse()
    assert lanes(request) == "necessary"
    grant(response, request, ["analytics"])
    assert lanes(request) == "necessary analytics"
    withdraw(response, request)
    assert lanes(request) == "necessary"


@pytest.mark.parametrize("value", ["", "garbage", "1:Marketing", "2:marketing"])
def test_who_has_an_unreadable_cookie_is_asked_again(consent, value):
    consent()
    assert granted(visit(value)) is None


@pytest.mark.parametrize("purpose", ["Marketing", "", "a.b", "ad tech", "x" * 33, "9", "ä", "a\n"])
def test_what_is_no_purpose_is_refused(consent, purpose):
    consent()
    request, response = visit(), HttpResponse()
    with pytest.raises(ValueError, match="is no purpose"):
        grant(response, request, ["analytics", purpose])
    assert not response.cookies
    assert granted(request) is None


def test_so_many_purposes_fit_into_a_cookie(consent):
    consent()
    request = visit()
    grant(HttpResponse(), request, [f"purpose{n}" for n in range(50)])
    assert len(granted(request)) == 50
    with pytest.raises(ValueError, match="60 purposes are too many"):
        grant(HttpResponse(), request, [f"purpose{n}" for n in range(60)])


def test_a_text_is_no_list_of_purposes(consent):
    consent()
    with pytest.raises(TypeError, match="not as the text 'analytics'"):
        grant(HttpResponse(), visit(), "analytics")


def test_without_a_cookie_there_is_nowhere_to_keep_a_choice(consent):
    consent(COOKIE=None)
    assert granted(visit("1:analytics")) is None
    with pytest.raises(ConfigurationError, match="COOKIE of the plugin consent is None"):
        grant(HttpResponse(), visit(), ["analytics"])


def test_a_site_works_while_the_plugin_is_not_enabled(configure):
    configure(recorder={})
    request, response = visit(), HttpResponse()
    grant(response, request, ["analytics"])
    assert granted(request) == {"analytics"}
    configure(consent={}, ENABLED=False)
    assert granted(visit("1:analytics")) == {"analytics"}


def test_the_request_of_rest_framework_will_do(consent, lanes):
    class Wrapper:
        def __init__(self, request):
            self._request = request

    consent()
    request = visit()
    grant(HttpResponse(), Wrapper(request), ["analytics"])
    assert granted(Wrapper(request)) == {"analytics"}
    assert lanes(request) == "necessary analytics"


# --- the options ---


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"COOKIE": "my cookie"}, "COOKIE is 'my cookie'; that is no name for a cookie"),
        ({"COOKIE": ""}, "COOKIE is ''"),
        ({"OPT_OUT": "no.such.module"}, "OPT_OUT is 'no.such.module', which can't be imported"),
        ({"OPT_OUT": f"{ME}.missing"}, "which can't be imported"),
        ({"OPT_OUT": "opted out"}, "OPT_OUT is 'opted out', which can't be imported"),
        ({"OF_USER": "attribute"}, "OF_USER is 'attribute', which can't be imported"),
        ({"OF_USER": f"{ME}.NOT_A_FUNCTION"}, "which is no plain function of a user"),
        ({"OPT_OUT": f"{ME}.asynchronous"}, "which is no plain function of a user"),
        ({"DEFAULT": "analytics"}, "DEFAULT: Expected `array`, got `str`"),
        ({"COOKIE_AGE": 0}, "COOKIE_AGE: Expected `int` >= 1"),
        ({"COKIE": "x"}, "Did you mean 'COOKIE'?"),
    ],
    ids=str,
)
def test_wrong_options_are_told_at_load(consent, options, problem):
    consent(**options)
    with pytest.raises(ConfigurationError) as caught:
        host.registry  # noqa: B018
    assert problem in str(caught.value)
    assert "['consent']" in str(caught.value)


def messages():
    return [(message.id, f"{message.msg} {message.hint}") for message in checks.run_checks(tags=["pluginhost"])]


@pytest.mark.parametrize("option", ["NECESSARY", "DEFAULT", "GPC", "DNT"])
def test_a_purpose_that_no_plugin_has_is_warned_of(consent, option):
    consent(**{option: ["necessary", "analitics", "marketing"]})
    [(id_, text)] = messages()
    assert id_ == "pluginhost.W011"
    assert f"{option} names the purpose 'analitics', which no enabled plugin has" in text
    assert "Did you mean 'analytics'?" in text
    assert "There are: analytics, marketing, necessary, other." in text


def test_purposes_of_snippets_count_and_those_of_filters_do_not(configure):
    configure(consent={"DEFAULT": ["ads", "filtering"]}, snippet={"PURPOSE": "ads"}, filter={"PURPOSE": "filtering"})
    [(id_, text)] = messages()
    assert id_ == "pluginhost.W011"
    assert "'filtering'" in text


def test_the_defaults_are_no_slip_of_the_pen(configure):
    configure(consent={}, chosen={})
    assert messages() == []


def test_a_purpose_that_no_cookie_can_hold_is_warned_of(configure):
    configure(consent={}, ads={"PLUGIN": "recorder", "PURPOSE": "Ads & more"})
    [(id_, text)] = messages()
    assert id_ == "pluginhost.W012"
    assert "'Ads & more' of plugin ads" in text
    configure(consent={"COOKIE": None}, ads={"PLUGIN": "recorder", "PURPOSE": "Ads & more"})
    assert messages() == []
    configure(consent={"NECESSARY": ["Ads & more"]}, ads={"PLUGIN": "recorder", "PURPOSE": "Ads & more"})
    assert messages() == []


def test_an_attribute_that_users_lack_is_warned_of(consent):
    consent(OPT_OUT="is_staf")
    [(id_, text)] = messages()
    assert id_ == "pluginhost.W013"
    assert "OPT_OUT is 'is_staf', and auth.User has no such attribute" in text
    assert "Did you mean 'is_staff'?" in text
    for fine in ("is_staff", "get_username", f"{ME}.answer"):
        consent(OPT_OUT=fine)
        assert messages() == []
