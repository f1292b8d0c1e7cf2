"""The plugin ``bots``: who is a robot, at the call and in the worker."""

from __future__ import annotations

import ast
import re
import sys

import msgspec
import pytest
from django.core import checks
from django.core.management import call_command
from django.db import connections, transaction
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext

from pluginhost import ConfigurationError, host
from pluginhost.builtin.bots.browsers import BROWSERS
from pluginhost.builtin.bots.models import Robot
from pluginhost.builtin.bots.plugin import Bots
from pluginhost.builtin.consent import Consent
from tests.docs_pages import DOCS, section
from tests.samples import Recorder

rf = RequestFactory()
GOOGLE = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
FIREFOX = BROWSERS["Firefox"]
ROBOTS = [
    GOOGLE,
    "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)",
    "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; ClaudeBot/1.0; +claudebot@anthropic.com)",
    "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
    "curl/8.5.0",
    "python-requests/2.32.0",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/126.0.0.0 Safari/537.36",
]
WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
PEOPLE = [
    *BROWSERS.values(),
    f"Mozilla/5.0 (Linux; Android 11; KFTRWI) {WEBKIT} Silk/138.4 like Chrome/138.0.0.0 Safari/537.36",
    f"Mozilla/5.0 (Linux; Android 9; CUBOT_X19) {WEBKIT} Chrome/126.0.0.0 Mobile Safari/537.36",
    "Lynx/2.8.9rel.1 libwww-FM/2.14 SSL-MM/1.4.1",
]


def visit(user_agent=None):
    return rf.get("/", headers={} if user_agent is None else {"user-agent": user_agent})


def tracked(user_agent=None):
    return host.track(visit(user_agent), "page seen") is not None


def delivered():
    return [event.context.user_agent for event in Recorder.seen.get("recorder", [])]


# --- at the call ---


@pytest.mark.parametrize("user_agent", ROBOTS)
def test_robots_are_not_tracked(configure, user_agent):
    configure(bots={}, recorder={}, snippet={})
    request = visit(user_agent)
    assert host.track(request, "page seen") is None
    assert host.render(request) == ""


@pytest.mark.parametrize("user_agent", PEOPLE)
def test_people_are_tracked(configure, user_agent):
    configure(bots={}, recorder={}, snippet={})
    request = visit(user_agent)
    assert host.track(request, "page seen")
    assert host.render(request) == "<!-- snippet head None -->"


def test_without_a_request_there_is_no_opinion(configure, django_user_model):
    configure(bots={}, recorder={})
    assert host.track(None, "cleaned up")
    assert host.track(django_user_model(pk=5), "invoice sent")


@pytest.mark.parametrize("user_agent", [None, "", "   "])
def test_a_request_without_a_user_agent(configure, user_agent):
    configure(bots={}, recorder={})
    assert not tracked(user_agent)
    configure(bots={"EMPTY": False}, recorder={})
    assert tracked(user_agent)


def test_patterns_of_the_site(configure):
    configure(bots={"PATTERNS": ["^kube-probe/", "acme monitor"]}, recorder={})
    assert not tracked("kube-probe/1.29")
    assert not tracked("Mozilla/5.0 (ACME Monitor)")
    assert tracked("not a kube-probe/1.29")
    assert tracked(FIREFOX)
    assert not tracked(GOOGLE)


def test_allowed_user_agents_are_people_whatever_a_list_says(configure):
    configure(bots={"ALLOWED": ["shop-app/"], "PATTERNS": ["shop"]}, recorder={})
    assert tracked("Shop-App/3.1 okhttp/4.9.0")
    assert not tracked("okhttp/4.9.0")
    assert not tracked("shop spider")


def test_of_a_long_user_agent_the_beginning_counts(configure):
    configure(bots={"PATTERNS": ["late"]}, recorder={})
    assert not tracked("x" * 508 + "late")
    assert tracked("x" * 509 + "late")
    assert tracked("x" * 1_000_000)


def test_an_answer_is_remembered(configure, monkeypatch):
    configure(bots={}, recorder={})
    asked = []
    monkeypatch.setattr("crawleruseragents.is_crawler", lambda text: asked.append(text) or text == "robot")
    assert [tracked("robot"), tracked("robot"), tracked("human"), tracked("robot")] == [False, False, True, False]
    assert asked == ["robot", "human"]


def test_so_many_user_agents_are_remembered_and_no_more(configure, monkeypatch):
    monkeypatch.setattr("pluginhost.builtin.bots.plugin.REMEMBERED", 2)
    configure(bots={}, recorder={})
    asked = []
    monkeypatch.setattr("crawleruseragents.is_crawler", lambda text: asked.append(text))
    for user_agent in ["a", "b", "c", "a"]:
        tracked(user_agent)
    assert asked == ["a", "b", "c", "a"]


def test_a_page_that_a_robot_gets_is_not_for_caches(configure, client):
    configure(bots={}, snippet={})
    assert "private" in client.get("/page/", headers={"user-agent": GOOGLE})["Cache-Control"]
    page = client.get("/page/", headers={"user-agent": FIREFOX})
    assert b"snippet head" in page.content
    assert "User-Agent" not in page.get("Vary", "")
    assert "Cache-Control" not in page


# --- the options ---


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"PATTERNS": ["good", "bad("]}, "PATTERNS: 'bad(' is no regular expression: missing ), unterminated"),
        ({"ALLOWED": ["*"]}, "ALLOWED: '*' is no regular expression: nothing to repeat"),
        ({"PATTERNS": ["x*"]}, "PATTERNS: 'x*' matches every user agent"),
        ({"ALLOWED": [""]}, "ALLOWED: '' matches every user agent"),
        ({"PATTERNS": "googlebot"}, "PATTERNS: Expected `array`, got `str`"),
        ({"REFRESH": -1}, "REFRESH: Expected `float` >= 0"),
    ],
    ids=str,
)
def test_wrong_options_are_told_at_load(configure, options, problem):
    configure(bots=options)
    with pytest.raises(ConfigurationError) as caught:
        host.registry  # noqa: B018
    assert problem in str(caught.value)
    assert "'bots'" in str(caught.value)


def test_a_pattern_that_matches_people_is_warned_of(configure):
    configure(bots={"PATTERNS": ["kube-probe", "Mozilla/5.0 .X11"]})
    [message] = [each for each in checks.run_checks(tags=["pluginhost"]) if each.id == "pluginhost.W010"]
    assert "'Mozilla/5.0 .X11' in PATTERNS" in message.msg
    assert "Opera" in message.msg
    configure(bots={"PATTERNS": ["kube-probe"]})
    assert checks.run_checks(tags=["pluginhost"]) == []


def test_without_the_library_an_error_says_what_to_install(configure, monkeypatch):
    monkeypatch.setitem(sys.modules, "crawleruseragents", None)
    monkeypatch.delitem(sys.modules, "pluginhost.builtin.bots.plugin", raising=False)
    configure(bots={})
    with pytest.raises(ConfigurationError, match=r"'bots'.*pip install 'pluginhost\[bots\]'") as caught:
        host.registry  # noqa: B018
    assert caught.value.id == "pluginhost.E003"


# --- the list of the admin, in the worker ---


@pytest.mark.django_db(databases="__all__", transaction=True)
class TestListOfTheAdmin:
    @pytest.fixture(autouse=True)
    def configured(self, database, configure):
        self.database = database
        self.configure = lambda **options: configure("inline", bots={"REFRESH": 0, **options}, recorder={})
        self.configure()

    @pytest.mark.parametrize(
        ("kind", "text", "skipped"),
        [
            ("contains", "acme", ["acme spider", "the ACME spider", "An Acme/1.0"]),
            ("starts", "acme", ["acme spider"]),
            ("is", "acme spider", ["acme spider"]),
            ("contains", "a.*e", []),
            ("contains", "((", ["odd (("]),
            ("contains", "", []),
            ("regex", "acme", []),
        ],
    )
    def test_what_matches_a_row_is_skipped(self, kind, text, skipped):
        Robot.objects.create(kind=kind, pattern=text)
        sent = ["acme spider", "the ACME spider", "An Acme/1.0", "odd ((", FIREFOX]
        assert all(tracked(user_agent) for user_agent in sent)
        assert delivered() == [user_agent for user_agent in sent if user_agent not in skipped]

    def test_rows_can_be_disabled_and_change(self):
        robot = Robot.objects.create(pattern="acme", enabled=False)
        tracked("acme 1")
        robot.enabled = True
        robot.save()
        tracked("acme 2")
        robot.delete()
        tracked("acme 3")
        assert delivered() == ["acme 1", "acme 3"]

    def test_events_without_a_user_agent_pass(self):
        Robot.objects.create(pattern="acme")
        host.track(None, "cleaned up")
        assert delivered() == [None]

    def test_allowed_user_agents_pass(self):
        self.configure(ALLOWED=["^acme app"])
        Robot.objects.create(pattern="acme")
        tracked("Acme App")
        tracked("the acme app")
        assert delivered() == ["Acme App"]

    def test_the_list_is_read_now_and_then(self):
        self.configure(REFRESH=3600)
        with CaptureQueriesContext(connections[self.database]) as queries:
            tracked("acme 1")
            Robot.objects.create(pattern="acme")
            tracked("acme 2")
        assert [query["sql"].split()[0] for query in queries] == ["SELECT", "INSERT"]
        assert delivered() == ["acme 1", "acme 2"]

    def test_at_the_call_the_database_is_left_alone(self, configure):
        configure(bots={"REFRESH": 0}, recorder={})
        with CaptureQueriesContext(connections[self.database]) as queries:
            assert tracked(FIREFOX)
            assert not tracked(GOOGLE)
        assert len(queries) == 0

    def test_a_table_that_is_missing_is_told_once_and_nothing_is_lost(self, caplog):
        call_command("migrate", "pluginhost_bots", "zero", database=self.database, verbosity=0)
        try:
            tracked("acme 1")
            tracked("acme 2")
            [record] = [each for each in caplog.records if each.name == "pluginhost.bots"]
            assert "run migrate" in record.getMessage()
        finally:
            call_command("migrate", "pluginhost_bots", database=self.database, verbosity=0)
        Robot.objects.create(pattern="acme")
        tracked("acme 3")
        assert delivered() == ["acme 1", "acme 2"]

    def test_while_the_list_can_t_be_read_the_one_known_before_stays(self, caplog, monkeypatch):
        def fail():
            raise ConnectionError("away")

        Robot.objects.create(pattern="acme")
        tracked("acme 1")
        with monkeypatch.context() as patched:
            patched.setattr("pluginhost.builtin.bots.listed._enabled_rows", fail)
            tracked("acme 2")
            tracked(FIREFOX)
            tracked("acme 3")
        tracked("acme 4")
        with monkeypatch.context() as patched:
            patched.setattr("pluginhost.builtin.bots.listed._enabled_rows", fail)
            tracked("acme 5")
        assert delivered() == [FIREFOX]
        assert len([each for each in caplog.records if each.name == "pluginhost.bots"]) == 2  # one each time it began

    def test_a_missing_table_dooms_no_transaction(self):
        runner = host.registry.runners["recorder"]
        host.track(visit(FIREFOX), "seen")
        [event] = Recorder.seen["recorder"]
        call_command("migrate", "pluginhost_bots", "zero", database=self.database, verbosity=0)
        try:
            with transaction.atomic(using=self.database):
                assert runner.wants(event)
                with connections[self.database].cursor() as cursor:
                    cursor.execute("SELECT 1")
                    assert cursor.fetchone() == (1,)
        finally:
            call_command("migrate", "pluginhost_bots", database=self.database, verbosity=0)

    def test_without_the_app_there_is_no_such_list(self, settings):
        settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app != "pluginhost.builtin.bots"]
        self.configure()
        with CaptureQueriesContext(connections[self.database]) as queries:
            assert tracked(FIREFOX)
            assert not tracked(GOOGLE)
        assert len(queries) == 0
        assert delivered() == [FIREFOX]
        assert checks.run_checks(tags=["pluginhost"]) == []


# --- the page ---


@pytest.mark.parametrize(("plugin", "page"), [(Bots, "robots"), (Consent, "consent")], ids=["bots", "consent"])
def test_each_option_is_documented_with_its_default(plugin, page):
    text = section(DOCS / "howto" / f"{page}.md", "Options")
    documented = dict(re.findall(r"^\| `([A-Z_]+)` \| `(.+?)` \|", text, re.MULTILINE))
    defaults = plugin.Options()
    assert list(documented) == [field.name for field in msgspec.structs.fields(plugin.Options)]
    for name, written in documented.items():
        default = getattr(defaults, name)
        value = set() if written == "set()" else ast.literal_eval(written)
        assert (name, type(default)(value) if isinstance(value, (list, set)) else value) == (name, default)
