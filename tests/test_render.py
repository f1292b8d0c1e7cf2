"""What plugins add to a page."""

from __future__ import annotations

import django
import pytest
from asgiref.sync import async_to_sync
from django.template import Context, Template
from django.test import RequestFactory
from django.utils.functional import SimpleLazyObject
from django.utils.safestring import SafeString, mark_safe

from pluginhost import host
from pluginhost.html import csp_nonce
from tests.samples import Filter

rf = RequestFactory()


def test_the_parts_stand_in_the_order_of_the_setting(configure):
    configure(snippet={}, recorder={}, second={"PLUGIN": "snippet"})
    html = host.render(rf.get("/"))
    assert html == "<!-- snippet head None -->\n<!-- second head None -->"
    assert isinstance(html, SafeString)
    assert "body" in host.render(rf.get("/"), "body")


def test_a_plugin_that_raises_leaves_its_part_out(configure, caplog):
    configure(broken={}, snippet={})
    assert host.render(rf.get("/")) == "<!-- snippet head None -->"
    assert "plugin broken: render_client failed" in caplog.text


def test_an_unsafe_string_is_refused_by_the_plugins_name(configure, caplog):
    configure(unsafe={}, snippet={}, second={"PLUGIN": "unsafe"})
    assert host.render(rf.get("/")) == "<!-- snippet head None -->"
    assert [record.getMessage() for record in caplog.records] == [
        "plugin unsafe: render_client gave str, not a safe string; left out",
        "plugin second: render_client gave str, not a safe string; left out",
    ]


@pytest.mark.parametrize("part", [b"<b>", 3, ["x"], "", False], ids=repr)
def test_what_is_no_text_is_refused_too(configure, caplog, monkeypatch, part):
    monkeypatch.setattr("tests.samples.mark_safe", lambda text: part)
    configure(snippet={})
    assert host.render(rf.get("/")) == ""
    assert f"gave {type(part).__name__}, not a safe string" in caplog.text


def test_nothing_is_nothing(configure):
    configure(recorder={})
    assert host.render(rf.get("/")) == ""
    configure()
    assert isinstance(host.render(rf.get("/")), SafeString)


def test_none_adds_nothing(configure, monkeypatch, caplog):
    monkeypatch.setattr("tests.samples.mark_safe", lambda text: None if "second" in text else mark_safe(text))
    configure(second={"PLUGIN": "snippet"}, snippet={})
    assert host.render(rf.get("/")) == "<!-- snippet head None -->"
    assert not caplog.records


def test_the_nonce_of_django_csp(configure):
    configure(snippet={})
    request = rf.get("/")
    request.csp_nonce = SimpleLazyObject(lambda: "abc123")
    assert host.render(request) == "<!-- snippet head abc123 -->"


@pytest.mark.skipif(django.VERSION < (6, 0), reason="Django has a CSP middleware from 6.0 on")
def test_the_nonce_of_django(configure, client, settings):
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.middleware.csp.ContentSecurityPolicyMiddleware"]
    settings.SECURE_CSP = {"script-src": ["'self'", "<CSP_NONCE_SENTINEL>"]}
    configure(snippet={})
    response = client.get("/page/")
    nonce = csp_nonce(response.wsgi_request)
    assert len(nonce) > 10
    assert f"<!-- snippet head {nonce} -->" in response.text
    assert f"'nonce-{nonce}'" in response.headers["Content-Security-Policy"]


def test_without_a_policy_there_is_no_nonce():
    assert csp_nonce(rf.get("/")) is None


@pytest.mark.django_db
def test_the_template_tag(configure, client):
    configure(snippet={})
    assert client.get("/page/").content == (b"<head><!-- snippet head None --></head><!-- snippet body None -->")


def test_the_template_tag_without_a_request(configure):
    configure(snippet={})
    template = Template('{% load pluginhost %}<{% render_client "head" %}>')
    assert template.render(Context({})) == "<>"


def test_the_template_tag_is_for_the_head_by_default_and_gives_a_value(configure):
    configure(snippet={})
    template = Template("{% load pluginhost %}{% render_client as part %}{{ part }}")
    assert template.render(Context({"request": rf.get("/")})) == "<!-- snippet head None -->"


def test_in_async_code(configure):
    configure(snippet={})
    assert async_to_sync(host.arender)(rf.get("/"), "body") == "<!-- snippet body None -->"


@pytest.mark.parametrize(
    ("answer", "parts"),
    [(False, []), (frozenset({"marketing"}), ["second"]), (None, ["snippet", "second"])],
    ids=["nothing", "marketing", "no objection"],
)
def test_a_filter_decides_over_the_page_too(configure, monkeypatch, answer, parts):
    monkeypatch.setattr(Filter, "answer", answer)
    configure(filter={}, snippet={}, second={"PLUGIN": "snippet", "PURPOSE": "marketing"})

    assert host.render(rf.get("/")) == "\n".join(f"<!-- {alias} head None -->" for alias in parts)


@pytest.mark.parametrize("request_", [object(), "GET /", {"path": "/"}], ids=["object", "text", "dict"])
def test_something_else_that_is_called_request(configure, request_, caplog):
    configure(snippet={})
    template = Template("{% load pluginhost %}<{% render_client %}>")
    assert template.render(Context({"request": request_})) == "<>"
    assert not caplog.records
    assert host.render(request_) == ""
    assert "which is no request" in caplog.text
