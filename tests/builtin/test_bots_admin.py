"""The site's own list of robots in the admin."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission, User
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.urls import reverse
from django.utils.functional import Promise

from pluginhost.builtin.bots.browsers import BROWSERS
from pluginhost.builtin.bots.models import Robot

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)
LIST = "admin:pluginhost_bots_robot_changelist"


@pytest.fixture(autouse=True)
def root(database, client):
    user = User.objects.create_superuser("root")
    client.force_login(user)
    return user


def add(client, pattern, kind="contains"):
    data = {"kind": kind, "pattern": pattern, "note": "seen in the log", "enabled": "on"}
    return client.post(reverse("admin:pluginhost_bots_robot_add"), data)


def errors(page):
    return [
        str(error) for form in [page.context["adminform"].form] for lines in form.errors.values() for error in lines
    ]


def listed(client, **query):
    page = client.get(reverse(LIST), query)
    assert page.status_code == 200
    return [str(robot.pattern) for robot in page.context["cl"].result_list]


def test_a_robot_is_added(client):
    assert add(client, "  Acme Spider ").status_code == 302
    robot = Robot.objects.get()
    assert (robot.kind, robot.pattern, robot.note, robot.enabled) == (
        "contains",
        "Acme Spider",
        "seen in the log",
        True,
    )
    assert str(robot) == "contains 'Acme Spider'"


@pytest.mark.parametrize(
    ("kind", "pattern", "problem"),
    [
        ("contains", "Mozilla", "This matches people too: Chrome on Windows, for one."),
        ("contains", "firefox/", "This matches people too: Firefox, for one."),
        ("contains", "e", "This matches people too: Chrome on Windows, for one."),
        ("starts", "mozilla/5.0 (iphone", "This matches people too: Safari on an iPhone, for one."),
        ("contains", " ", "This field is required."),
        ("regex", "acme", "Select a valid choice. regex is not one of the available choices."),
    ],
)
def test_what_would_match_people_is_refused(client, kind, pattern, problem):
    page = add(client, pattern, kind)
    assert page.status_code == 200
    assert errors(page) == [problem]
    assert not Robot.objects.exists()


def test_one_user_agent_of_a_browser_that_a_robot_pretends_to_be_may_be_listed(client):
    assert add(client, BROWSERS["Safari"], "is").status_code == 302
    assert Robot.objects.count() == 1


def test_a_robot_is_listed_once(client):
    add(client, "acme")
    assert errors(add(client, "acme")) == ["Robot with this The user agent and Text already exists."]
    assert add(client, "acme", "starts").status_code == 302


def test_an_empty_text_is_refused_by_the_model_too():
    with pytest.raises(ValidationError, match="An empty text matches every user agent"):
        Robot(pattern="  ").full_clean()


def test_the_list_is_filtered_and_searched(client):
    Robot.objects.create(pattern="acme spider", note="noisy")
    Robot.objects.create(pattern="other", enabled=False)
    assert listed(client) == ["acme spider", "other"]
    assert listed(client, enabled__exact="0") == ["other"]
    assert listed(client, q="noisy") == ["acme spider"]
    assert listed(client, q="spid") == ["acme spider"]


def test_a_user_agent_finds_the_robots_that_it_matches(client):
    for kind, pattern in [("contains", "100%"), ("contains", "ACME/"), ("starts", "mozilla"), ("is", "Mozilla")]:
        Robot.objects.create(kind=kind, pattern=pattern)
    Robot.objects.create(kind="contains", pattern="a_me")
    assert listed(client, q="Mozilla/5.0 (compatible; Acme/1.0)") == ["ACME/", "mozilla"]
    assert listed(client, q="100% real") == ["100%"]
    assert listed(client, q="nobody") == []


def test_robots_are_switched_together(client):
    ids = [Robot.objects.create(pattern=name).pk for name in ("one", "two")]
    Robot.objects.create(pattern="three")
    answer = client.post(reverse(LIST), {"action": "disable", "_selected_action": ids}, follow=True)
    assert "2 robots changed." in answer.content.decode()
    assert set(Robot.objects.filter(enabled=True).values_list("pattern", flat=True)) == {"three"}
    client.post(reverse(LIST), {"action": "enable", "_selected_action": ids[:1]})
    assert set(Robot.objects.filter(enabled=True).values_list("pattern", flat=True)) == {"one", "three"}


def test_only_who_may_change_robots_may_switch_them(client):
    robot = Robot.objects.create(pattern="acme")
    viewer = User.objects.create_user("viewer", is_staff=True)
    content_type = ContentType.objects.get_for_model(Robot)
    view, _ = Permission.objects.get_or_create(codename="view_robot", content_type=content_type)
    viewer.user_permissions.add(view)
    client.force_login(viewer)
    page = client.get(reverse(LIST))
    assert page.status_code == 200
    assert b'value="disable"' not in page.content
    client.post(reverse(LIST), {"action": "disable", "_selected_action": [robot.pk]})
    assert Robot.objects.get().enabled


def test_what_people_read_can_be_translated():
    options = Robot._meta
    assert isinstance(options.verbose_name, Promise)
    assert isinstance(options.app_config.verbose_name, Promise)
    fields = [field for field in options.fields if not field.primary_key]
    assert [field.name for field in fields if not isinstance(field.verbose_name, Promise)] == []
    assert [text for _, text in options.get_field("kind").choices if not isinstance(text, Promise)] == []


def test_the_migrations_are_those_of_the_models():
    call_command("makemigrations", "pluginhost_bots", check=True, dry_run=True, verbosity=0)
