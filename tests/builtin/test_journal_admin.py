"""The journal in the admin: data is shown as data, nothing is edited, and nothing is counted that need not be."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.contrib.contenttypes.models import ContentType
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.urls import path, reverse

from pluginhost import Subject
from pluginhost.builtin.journal import admin as journal_admin
from pluginhost.builtin.journal.models import Browser, Entry
from pluginhost.events import Context
from tests.builtin.test_journal import NOON, event, write
from tests.site.models import Country, Order, Voucher

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.test import Client
    from pytest_django.fixtures import SettingsWrapper

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)

LIST = "/admin/pluginhost_journal/entry/"
HOSTILE = ["</script><script>alert(1)</script>", "a\u2028b\u2029c", "{{7*7}}", "🛒", "\" onmouseover='x'", "%s %(a)s"]


@pytest.fixture(autouse=True)
def logged_in(database: str, client: Client) -> None:
    client.force_login(User.objects.create_superuser("root"))


def change(entry: Entry) -> str:
    return reverse("admin:pluginhost_journal_entry_change", args=[entry.pk])


def listed(client: Client, **query: Any) -> list[str]:
    page = client.get(LIST, query)
    assert page.status_code == 200
    return [entry.name for entry in page.context["cl"].result_list]


# --- what is shown ---


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_data_in_both_views(client: Client, text: str) -> None:
    write(
        event(
            text,
            user=text,
            visitor=text,
            properties={text: [text, {"n": {text: text}}]},
            subject=Subject(model=text, pk=text),
            context=Context(user_agent=text, url=text, path=text, referrer=text, route=text, language=text, ip=text),
        )
    )
    entry = Entry.objects.get()
    for url in (
        LIST,
        f"{LIST}?name={quote(text)}",
        f"{LIST}?q={quote(text)}",
        change(entry),
        f"{change(entry)}../delete/",
    ):
        page = client.get(url, follow=True)
        html = page.content.decode()
        assert page.status_code == 200
        assert "<script>alert" not in html
        assert ">49<" not in html
        assert not re.search(r"<[^>]* onmouseover='x'", html)
    detail = client.get(change(entry)).content.decode()
    expected = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("'", "&#x27;")
    assert detail.count(expected.replace('"', "&quot;")) >= 8
    assert expected.replace('"', "&quot;") in client.get(LIST).content.decode()


def test_the_list_shows_what_happened_and_the_detail_all_of_it(client: Client) -> None:
    properties = {"plan": "pro", "long": "x" * 200, "items": [1, 2]}
    write(event("signed up", user="7", visitor="v", properties=properties, context=Context(path="/join/")))
    row = client.get(LIST).content.decode()
    for shown in ("signed up", ">7<", ">v<", "/join/", "{&quot;items&quot;: [1, 2], &quot;long"):
        assert shown in row
    assert "x" * 100 not in row

    detail = client.get(change(Entry.objects.get())).content.decode()
    assert "<pre>{\n  &quot;items&quot;: [\n    1,\n    2\n  ],\n  &quot;long&quot;" in detail
    assert "x" * 200 in detail
    assert str(Entry.objects.get().message_id) in detail


@pytest.fixture
def parents(settings: SettingsWrapper) -> Iterator[None]:
    """Countries and vouchers are in the admin."""
    admin.site.register([Country, Voucher])
    settings.ROOT_URLCONF = (path("admin/", admin.site.urls),)  # made now: it lists what is registered now
    yield
    admin.site.unregister([Country, Voucher])


def test_the_user_and_the_subject_are_links_if_they_are_there(client: Client, parents: None) -> None:
    user = User.objects.create_user("ada")
    country, voucher, order = Country.objects.create(code="_s"), Voucher.objects.create(), Order.objects.create()

    def links(user_id: str, model: str, pk: Any) -> list[str]:
        Entry.objects.all().delete()
        write(event(user=user_id, subject=Subject(model=model, pk=str(pk))))
        html = client.get(change(Entry.objects.get())).content.decode()
        return re.findall(r'<div class="readonly">\s*<a href="([^"]+)"', html)

    user_url = f"/admin/auth/user/{user.pk}/change/"
    assert links(str(user.pk), "shop.Country", country.pk) == ["/admin/shop/country/_5Fs/change/", user_url]
    assert links("ada@example.com", "shop.Voucher", voucher.pk) == [f"/admin/shop/voucher/{voucher.pk}/change/"]
    assert links(f" {user.pk}", "shop.Order", order.pk) == []  # not in the admin
    assert links("999999", "shop.Voucher", "no-uuid") == []
    assert links("9" * 200, "shop.Gone", "1") == []
    assert links("", "nonsense", "1") == []


def test_a_joined_entry_says_so(client: Client) -> None:
    write(event("before", 1, visitor="v"), event("log-in", 2, "ada", "v"))
    detail = client.get(change(Entry.objects.get(name="before"))).content.decode()
    assert "icon-yes" in detail
    assert "The event did not say who it was" in detail


# --- what may be done ---


def test_nobody_writes_entries(client: Client) -> None:
    write(event())
    entry = Entry.objects.get()
    assert b'name="_save"' not in client.get(change(entry)).content
    assert client.post(change(entry), {"name": "other"}).status_code == 403
    assert client.get(f"{LIST}add/").status_code == 403
    assert Entry.objects.get().name == "seen"


def permission(codename: str) -> Permission:
    """Made anew: the tables are emptied after each test."""
    ContentType.objects.clear_cache()
    content_type = ContentType.objects.get_for_model(Entry)
    return Permission.objects.get_or_create(codename=codename, content_type=content_type)[0]


def test_entries_are_deleted_with_the_permission_and_seen_with_another(client: Client) -> None:
    write(event("a"), event("b"))
    staff = User.objects.create_user("staff", is_staff=True)
    client.force_login(staff)
    first = Entry.objects.get(name="a")
    assert client.get(LIST).status_code == 403

    staff.user_permissions.add(permission("view_entry"))
    assert client.get(LIST).status_code == client.get(change(first)).status_code == 200
    delete = reverse("admin:pluginhost_journal_entry_delete", args=[first.pk])
    assert client.post(delete, {"post": "yes"}).status_code == 403

    staff.user_permissions.add(permission("delete_entry"))
    assert client.post(delete, {"post": "yes"}).status_code == 302
    assert Entry.objects.get().name == "b"
    again = {"action": "delete_selected", "_selected_action": [Entry.objects.get().pk], "post": "yes"}
    client.post(LIST, again)
    assert not Entry.objects.exists()


def test_all_are_deleted_at_once_only_if_the_list_has_counted_them(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_admin, "COUNTED", 3)
    write(*[event(str(number)) for number in range(4)])
    some = {"action": "delete_selected", "select_across": "1", "_selected_action": [Entry.objects.all()[0].pk]}
    page = client.post(LIST, {**some, "post": "yes"}, follow=True)
    assert "There are more than 3 such entries. Filter them first." in page.content.decode()
    assert Entry.objects.count() == 4

    client.post(f"{LIST}?name=1", {**some, "post": "yes"})
    assert [entry.name for entry in Entry.objects.order_by("name")] == ["0", "2", "3"]


# --- finding ---


def test_it_is_searched_by_whole_ids_and_names(client: Client) -> None:
    one = event("paid", 1, "ada@example.com", "visitor")
    write(one, event("seen", 2, "ada", "visitor"), event("seen", 3, "bob"))
    assert listed(client, q="ada@example.com") == ["paid"]
    assert listed(client, q=" visitor ") == ["seen", "paid"]
    assert listed(client, q=one.message_id) == listed(client, q=one.message_id.replace("-", "")) == ["paid"]
    assert listed(client, q="seen") == ["seen", "seen"]
    assert listed(client, q="ad") == listed(client, q="'; DROP TABLE") == []
    assert len(listed(client, q=" ")) == 3


def test_it_is_filtered_by_type_and_name(client: Client) -> None:
    write(event("paid"), event("seen", 1), event("seen", 2), event("/home/", 3, type="page"))
    assert listed(client, type__exact="page") == ["/home/"]
    assert listed(client, name="seen") == ["seen", "seen"]
    assert listed(client, name="/home/") == ["/home/"]
    page = client.get(LIST, {"name": "/home/"})
    (names,) = [spec for spec in page.context["cl"].filter_specs if spec.title == "event"]
    assert [title for _, title in names.lookup_choices] == ["/home/", "paid", "seen"]


def test_the_filter_offers_the_frequent_names_of_late(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_admin, "NAMES", 2)
    monkeypatch.setattr(journal_admin, "NAMES_AMONG", 5)
    for minute, name in enumerate(["old", "old", "old", "b", "a", "c", "c", "b"]):
        write(event(name, minute))
    (names,) = [spec for spec in client.get(LIST).context["cl"].filter_specs if spec.title == "event"]
    assert [name for name, _ in names.lookup_choices] == ["b", "c"]


def test_dates_lead_to_the_days_that_have_entries(client: Client, settings: SettingsWrapper) -> None:
    settings.TIME_ZONE = "Asia/Tokyo"
    times = ["2024-12-31T16:00", "2026-02-28T12:00", "2026-02-28T14:00", "2026-03-31T14:59", "2026-03-31T15:00"]
    write(*[event(time, timestamp=dt.datetime.fromisoformat(f"{time}+00:00")) for time in times])

    def choices(**query: Any) -> list[str]:
        html = client.get(LIST, query).content.decode()
        (dates,) = re.findall(r'<nav class="toplinks"[^>]*>(.*?)</nav>', html, re.DOTALL)
        return [line for line in map(str.strip, re.sub(r"<[^>]*>", "", dates).splitlines()) if line[:1].isalnum()]

    assert choices()[-2:] == ["2025", "2026"]  # the last day of 2024 is over in Tokyo
    assert choices(timestamp__year=2026)[-3:] == ["February 2026", "March 2026", "April 2026"]
    assert choices(timestamp__year=2026, timestamp__month=2)[-1:] == ["February 28"]
    assert choices(name=times[0])[-1:] == ["January 1"]
    assert listed(client, timestamp__year=2026, timestamp__month=4, timestamp__day=1) == ["2026-03-31T15:00"]


def test_dates_are_the_same_that_django_finds(database: str) -> None:
    write(*[event(timestamp=NOON + dt.timedelta(hours=7 * n * n)) for n in range(40)])
    entries = journal_admin.ListedQuerySet(Entry)
    for kind in ("year", "month", "day"):
        assert entries.datetimes("timestamp", kind) == [
            each.date() for each in Entry.objects.datetimes("timestamp", kind)
        ]


def test_an_empty_journal_is_shown(client: Client) -> None:
    assert listed(client) == []


# --- what it costs ---


def test_a_page_counts_and_looks_for_no_more_than_it_shows(
    client: Client, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_admin, "COUNTED", 150)
    write(*[event(f"name {n % 3}", n, str(n), f"v{n}", properties={"n": n}) for n in range(200)])
    with CaptureQueriesContext(connections[database]) as queries:
        page = client.get(LIST)
    assert page.context["cl"].result_count == 150
    assert page.context["cl"].paginator.num_pages == 2
    mine = [each["sql"] for each in queries if "pluginhost_journal_entry" in each["sql"]]
    assert len(mine) <= 9
    for sql in mine:
        assert "LIMIT" in sql or "MIN(" in sql, sql
        assert "DISTINCT" not in sql
    assert len(client.get(LIST, {"p": 2}).context["cl"].result_list) == 50


@pytest.mark.postgres
def test_the_pages_use_the_indexes(client: Client, database: str) -> None:
    if database != "postgres":
        pytest.skip("of PostgreSQL")
    write(*[event(f"name {n % 50}", n, str(n), f"v{n}") for n in range(2000)])
    connection = connections[database]
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE pluginhost_journal_entry")
    for query in ({}, {"q": "17"}, {"name": "name 7"}, {"type__exact": "alias"}, {"timestamp__year": 2026}):
        with CaptureQueriesContext(connection) as queries:
            client.get(LIST, query)
        for sql in [each["sql"] for each in queries if "pluginhost_journal_entry" in each["sql"]]:
            with connection.cursor() as cursor:
                cursor.execute("SET enable_seqscan = off")
                cursor.execute(f"EXPLAIN {sql}")
                plan = "\n".join(line for (line,) in cursor.fetchall())
                cursor.execute("RESET enable_seqscan")
            assert "Seq Scan" not in plan, f"{sql}\n{plan}"


# --- whether it is there ---


@pytest.fixture
def unregistered() -> Iterator[None]:
    admin.site.unregister(Entry)
    yield
    if admin.site.is_registered(Entry):
        admin.site.unregister(Entry)
    admin.site.register(Entry, journal_admin.EntryAdmin)


def test_the_option_keeps_entries_out_of_the_admin(unregistered: None, configure: Any) -> None:
    configure(journal={"ADMIN": False})
    journal_admin.show()
    assert not admin.site.is_registered(Entry)

    configure(journal={})
    journal_admin.show()
    assert type(admin.site.get_model_admin(Entry)) is journal_admin.EntryAdmin


def test_what_the_project_registered_itself_stays(unregistered: None) -> None:
    class Own(admin.ModelAdmin):  # type: ignore[type-arg]
        pass

    admin.site.register(Entry, Own)
    journal_admin.show()
    assert type(admin.site.get_model_admin(Entry)) is Own


def test_broken_settings_are_left_to_the_checks(unregistered: None, settings: SettingsWrapper) -> None:
    settings.PLUGINHOST = {"NONSENSE": 1}
    journal_admin.show()
    assert admin.site.is_registered(Entry)


def test_what_is_known_of_browsers_is_not_for_the_admin() -> None:
    assert not admin.site.is_registered(Browser)
