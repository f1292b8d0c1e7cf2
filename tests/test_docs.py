"""Holds the documentation to the code: what it lists is all there is, what it shows runs."""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import shlex
import shutil
import sys
import tomllib
from asyncio import iscoroutinefunction
from datetime import datetime
from types import ModuleType
from typing import get_args, get_type_hints

import importlib_metadata
import msgspec
import pytest
from asgiref.sync import async_to_sync
from django.apps import apps
from django.contrib.auth.models import AnonymousUser, User
from django.core.management import call_command
from django.test import RequestFactory
from django.urls import resolve

import pluginhost
from pluginhost import conf, events, exceptions, hookspecs, host, html, loading
from pluginhost.delivery import accounts
from pluginhost.drafting import Details
from pluginhost.management.commands.pluginhost import SUBCOMMANDS
from pluginhost.models import Delivery
from pluginhost.plugin import LaneOptions
from pluginhost.registry import load_registry
from pluginhost.workers.worker import drain
from tests import docs_pages
from tests.docs_pages import DOCS, ROOT, anchors, blocks, first_cells, headings, links, pages, prose, section
from tests.docs_project import Project
from tests.samples import Recorder
from tests.site.models import Order

REFERENCE = DOCS / "reference"
#: Pages that a reader follows with a project of their own, and whether they go on where the README ends.
FOLLOWED = {
    DOCS / "tutorial.md": False,
    DOCS / "howto" / "write-a-plugin.md": True,
    DOCS / "howto" / "test-your-site.md": True,
}
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))


def identify(value):
    return str(value.relative_to(ROOT))


# --- the reference lists what there is ---


def signature(function, *, annotated: bool) -> str:
    found = inspect.signature(function)
    if not annotated:
        parameters = [each.replace(annotation=each.empty) for each in found.parameters.values() if each.name != "self"]
        found = found.replace(parameters=parameters, return_annotation=found.empty)
    return f"{function.__name__}{found}".replace("'", "") if annotated else f"{function.__name__}{found}"


def test_each_hook_is_documented_with_its_exact_signature():
    specs = [getattr(hookspecs, name) for name in loading.HOOKS]
    assert headings(REFERENCE / "hooks.md", 2) == [signature(spec, annotated=True) for spec in specs]


def documented_defaults(text: str) -> dict[str, object]:
    found = re.findall(r"^### `(\w+)`\n\nDefault: `(.+)`$", text, re.MULTILINE)
    assert len(found) == text.count("\n### "), "a key lacks its default"
    return {name: ast.literal_eval(default) for name, default in found}


@pytest.mark.parametrize(
    ("kind", "heading"), [(conf.Settings, "Keys of PLUGINHOST"), (LaneOptions, "Options of every alias")]
)
def test_each_setting_is_documented_with_its_default(kind, heading):
    made = kind()
    defaults = {field.name: getattr(made, field.name) for field in msgspec.structs.fields(kind)}
    documented = documented_defaults(section(REFERENCE / "settings.md", heading))
    assert list(documented) == list(defaults)
    for name, value in defaults.items():
        expected = type(value)(documented[name]) if isinstance(value, (tuple, frozenset)) else documented[name]
        assert (name, expected) == (name, value)
        assert type(expected) is type(value)


def test_each_choice_of_a_setting_is_documented():
    page = REFERENCE / "settings.md"
    for kind in (conf.Settings, LaneOptions):
        for field in msgspec.structs.fields(kind):
            choices = [choice for choice in get_args(field.type) if isinstance(choice, str)]
            text = section(page, field.name)
            assert [choice for choice in choices if f'`"{choice}"`' not in text] == []


def test_each_transport_is_documented():
    transports = get_args(get_type_hints(conf.Settings)["TRANSPORT"])
    assert sorted(headings(REFERENCE / "transports.md", 2)) == sorted(transports)


def test_each_check_is_documented():
    source = "".join(
        path.read_text()
        for directory in (ROOT / "pluginhost", *PLUGINS)
        for path in directory.rglob("*.py")
        if "tests" not in path.relative_to(ROOT).parts
    )
    ids = set(re.findall(r"""["'](pluginhost\w*\.[EW]\d{3})["']""", source))
    documented = first_cells((REFERENCE / "checks.md").read_text())
    assert documented == sorted(documented, key=lambda each: (each.partition(".")[0], each))
    assert set(documented) == ids
    assert len(documented) == len(ids)


def flags(parser: argparse.ArgumentParser) -> list[str]:
    return [[action.metavar, *action.option_strings][-1] for action in parser._actions if action.dest != "help"]


def test_each_subcommand_is_documented_with_its_flags():
    page = REFERENCE / "commands.md"
    assert headings(page, 2) == [f"pluginhost {name}" for name in SUBCOMMANDS]
    for name, module in SUBCOMMANDS.items():
        parser = argparse.ArgumentParser()
        module.add_arguments(parser)
        assert first_cells(section(page, f"pluginhost {name}")) == flags(parser)


def test_each_public_name_is_documented():
    # A name has a heading (``host.track(…)`` is one of ``host``), or stands first in a row of a table.
    text = "\n".join(page.read_text() for page in REFERENCE.glob("*.md"))
    words = {re.split(r"[(.]", heading)[0] for page in REFERENCE.glob("*.md") for heading in headings(page)}
    words |= {re.split(r"[(.]", cell)[0] for cell in first_cells(text)}
    missing = [name for name in pluginhost.__all__ if name not in words and f"instance of `{name}`" not in text]
    assert missing == []


def test_each_exception_is_documented():
    text = "\n".join(page.read_text() for page in REFERENCE.glob("*.md"))
    classes = [each for each in vars(exceptions).values() if inspect.isclass(each)]
    mine = [each.__name__ for each in classes if each.__module__ == exceptions.__name__]
    assert mine
    assert [name for name in mine if name not in text] == []


def test_each_call_of_the_host_is_documented_with_its_arguments():
    expected = []
    for name, member in vars(pluginhost.Host).items():
        if not name.startswith("_"):
            call = name if isinstance(member, property) else signature(member, annotated=False)
            expected.append(f"host.{call}")
    documented = [heading for heading in headings(REFERENCE / "api.md", 3) if heading.startswith("host.")]
    assert sorted(documented) == sorted(expected)


def test_each_keyword_of_a_call_is_documented():
    documented = first_cells(section(REFERENCE / "api.md", "Details"))
    assert sorted(documented) == sorted(Details.__optional_keys__)


@pytest.mark.parametrize("kind", [events.Event, events.Context, events.Subject])
def test_each_field_of_an_event_is_documented(kind):
    documented = first_cells(section(REFERENCE / "api.md", kind.__name__))
    assert documented == [field.name for field in msgspec.structs.fields(kind)]


def test_each_field_of_a_page_is_documented():
    text = section(REFERENCE / "plugin.md", "Page")
    assert all(f"`{field.name}`" in text for field in msgspec.structs.fields(html.Page))


def test_each_attribute_of_a_plugin_is_documented_with_its_default():
    text = section(REFERENCE / "plugin.md", "Attributes of the class")
    rows = dict(re.findall(r"^\| `(\w+)` \| `(.+?)` \|", text, re.MULTILINE))
    assert rows.pop("Options") == "Options"
    declared = [name for name in pluginhost.Plugin.__annotations__ if name != "Options"]
    assert list(rows) == declared
    for name in declared:
        default = getattr(pluginhost.Plugin, name)
        value = set() if rows[name] == "set()" else ast.literal_eval(rows[name])
        assert (name, value) == (name, default)


def test_each_method_of_a_plugin_is_documented():
    methods = [name for name, each in vars(pluginhost.Plugin).items() if inspect.isfunction(each) and name[0] != "_"]
    cells = first_cells(section(REFERENCE / "plugin.md", "Methods to override"))
    assert [cell.partition("(")[0] for cell in cells] == methods


def test_each_table_is_documented_with_its_fields():
    page = REFERENCE / "tables.md"
    with_proxies = apps.get_app_config("pluginhost").get_models()
    models = {model.__name__: model for model in with_proxies if not model._meta.proxy}
    assert sorted(headings(page, 2)) == sorted(models)
    for name, model in models.items():
        assert sorted(first_cells(section(page, name))) == sorted(field.name for field in model._meta.concrete_fields)
        assert model._meta.db_table in section(page, name)


def test_each_logger_is_documented():
    source = "".join(path.read_text() for path in (ROOT / "pluginhost").rglob("*.py"))
    used = set(re.findall(r'getLogger\("(.+?)"\)', source))
    assert set(first_cells(section(DOCS / "howto" / "deploy-the-worker.md", "Logs"))) == used


# --- packages and links ---


@pytest.mark.parametrize("directory", PLUGINS, ids=lambda each: each.name)
def test_each_plugin_package_is_complete(directory):
    missing = [
        name for name in ("README.md", "CHANGELOG.md", "LICENSE") if not (directory / name).is_file()
    ]  # fmt: skip
    assert missing == []
    assert list((directory / "tests").glob("test_*.py"))
    project = tomllib.loads((directory / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pluginhost"]
    assert f"## {project['version']}" in (directory / "CHANGELOG.md").read_text()
    assert f"`{project['name']}`" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("directory", PLUGINS, ids=lambda each: each.name)
def test_each_option_of_a_plugin_is_documented(directory, monkeypatch):
    monkeypatch.syspath_prepend(directory)
    project = tomllib.loads((directory / "pyproject.toml").read_text())["project"]
    text = (directory / "README.md").read_text()
    for name, value in project["entry-points"]["pluginhost"].items():
        options = importlib_metadata.EntryPoint(name, value, "pluginhost").load().Options
        assert [field.name for field in msgspec.structs.fields(options) if f"`{field.name}`" not in text] == []


def test_the_changelog_speaks_of_this_version():
    assert f"## {pluginhost.__version__} (" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("page", pages(), ids=identify)
def test_each_link_leads_somewhere(page):
    for target in links(page):
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{target} does not exist"
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path), f"{path.name} has no heading for #{anchor}"


def test_each_page_is_reached_from_the_index():
    index = DOCS / "index.md"
    reached = {(DOCS / target.partition("#")[0]).resolve() for target in links(index)}
    assert {page for page in DOCS.rglob("*.md") if page != index} <= reached


def test_each_target_of_make_exists():
    makefile = (ROOT / "Makefile").read_text()
    command = re.compile(r"^`?(?:[A-Z_]+=\S+ )*make ([a-z]+)|`(?:[A-Z_]+=\S+ )*make ([a-z]+)", re.MULTILINE)
    named = {first or second for page in pages() for first, second in command.findall(page.read_text())}
    assert named
    assert [target for target in sorted(named) if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


# --- what the pages show runs ---


def test_blocks_know_their_comments(tmp_path, monkeypatch):
    monkeypatch.setattr(docs_pages, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "# A\n\n<!-- file: a/b.py, append -->\n```python\nx = 1\n```\n\n```sh\nls\n```\n\n"
        "<!-- test: skip because it is long -->\n```python\ny\n```\n"
    )
    first, second, third = blocks(page)
    assert (first.file, first.language, first.text, first.skipped) == (("a/b.py", True), "python", "x = 1\n", False)
    assert (second.file, second.language, second.skipped) == (None, "sh", False)
    assert third.skipped
    assert str(third) == "page.md:13"


def python_pages() -> list:
    return [page for page in pages() if any(block.language == "python" for block in blocks(page))]


@pytest.mark.parametrize("page", python_pages(), ids=identify)
def test_each_example_compiles(page):
    for block in blocks(page):
        if block.language == "python":
            block.compiled()


def test_pages_with_files_are_followed():
    with_files = {page for page in pages() if any(block.file for block in blocks(page))}
    assert with_files == {*FOLLOWED, ROOT / "README.md"}


@pytest.fixture
def installed(tmp_path, monkeypatch) -> None:
    """The plugins of this repository are installed, if need be as ``Project`` does it."""
    for path in Project(tmp_path / "none").paths:
        monkeypatch.syspath_prepend(path)
    monkeypatch.setenv("MONGODB_URI", "mongodb://localhost/")


def loose(page) -> list:
    """The examples that are no files: they run here, in their order, in one namespace."""
    if page == ROOT / "plugins" / "timeseries" / "README.md":
        return []  # written for a shop of its own; what it shows is in the tutorial too
    return [block for block in blocks(page) if block.language == "python" and not block.file and not block.skipped]


@pytest.mark.django_db
@pytest.mark.parametrize("page", [page for page in python_pages() if loose(page)], ids=identify)
def test_each_example_runs(page, settings, installed):
    def configure(given):
        settings.PLUGINHOST = {"STRICT": True, **given, "TEST": {"TRANSPORT": "memory", "STRICT": True}}
        assert [str(error) for error in load_registry().errors] == []

    namespace = sample_names()
    configure({"PLUGINS": {"timeseries": {}}})
    for block in loose(page):
        namespace.pop("PLUGINHOST", None)
        exec(block.compiled(), namespace)
        if "PLUGINHOST" in namespace:
            configure(namespace["PLUGINHOST"])
    for view in list(namespace.values()):
        if inspect.isfunction(view) and list(inspect.signature(view).parameters) == ["request"]:
            answer = (async_to_sync(view) if iscoroutinefunction(view) else view)(namespace["request"])
            assert answer is None or answer.status_code in (200, 302)


def sample_names() -> dict[str, object]:
    """What examples take as given: a request and its user, an order, and the host."""
    request = RequestFactory().get("/order/")
    request.user = AnonymousUser()
    request.resolver_match = resolve("/order/")
    user = User.objects.create(username="ada")
    return {"__name__": "docs_sample", "request": request, "user": user, "host": host, "order": Order.objects.create()}


def sample_value(kind: object) -> object:
    return {str: "https://example.com/"}.get(kind, "sample")


def plugin_examples(page) -> list:
    return [block for block in loose(page) if "pluginhost.Plugin" in block.text]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("page", [page for page in python_pages() if plugin_examples(page)], ids=identify)
def test_each_plugin_of_an_example_loads_and_raises_nothing(page, settings, installed, monkeypatch, caplog, capsys):
    settings.PLUGINHOST = {"TEST": {"TRANSPORT": "memory"}}
    module = ModuleType("docs_sample")
    monkeypatch.setitem(sys.modules, "docs_sample", module)
    vars(module).update(sample_names())
    for block in plugin_examples(page):
        exec(block.compiled(), vars(module))
    mine = [each for each in vars(module).values() if inspect.isclass(each) and issubclass(each, pluginhost.Plugin)]
    assert mine
    entry_points = [
        importlib_metadata.EntryPoint(each.__name__.lower(), f"docs_sample:{each.__name__}", "pluginhost")
        for each in mine
    ]
    monkeypatch.setattr(loading, "entry_points", lambda: importlib_metadata.EntryPoints(entry_points))
    options = {
        each.__name__.lower(): {
            field.name: sample_value(field.type) for field in msgspec.structs.fields(each.Options) if field.required
        }
        for each in mine
    }
    settings.PLUGINHOST = {"PLUGINS": options, "TEST": {"TRANSPORT": "inline", "STRICT": True}}
    assert [str(error) for error in load_registry().errors] == []
    host.track(module.request, "happened", user_id="42")
    host.render(module.request, "head")
    host.render(module.request, "body")
    assert [record.getMessage() for record in caplog.records if record.levelname != "INFO"] == []


@pytest.mark.django_db(transaction=True)
def test_dead_letters_are_treated_as_the_page_says(configure, capsys):
    lines = "".join(block.text for block in blocks(DOCS / "howto" / "dead-letters.md") if block.language == "sh")
    commands = [shlex.split(line)[3:] for line in lines.splitlines()]

    def refuse(event):
        raise pluginhost.PermanentError(f"HTTP 400: {event.name}")

    def lane(name="kissmetrics"):
        account = accounts.read("default")[name]
        assert accounts.balances(account)
        return {outcome: n for outcome, n in account.items() if n}

    def follow(word):
        """Run the commands of the page up to the next one that is not this one; what they print."""
        while commands and commands[0][0] == word:
            call_command("pluginhost", *commands.pop(0))
        return capsys.readouterr().out

    configure("outbox", kissmetrics={"PLUGIN": "recorder"})
    Recorder.act["kissmetrics"] = refuse
    host.track(None, "unknown event")
    host.track(None, "signed up")
    drain(host.registry.runners, "default")
    message_id = Delivery.objects.get(event_name="signed up").message_id
    Recorder.act.clear()

    assert "dead 2" in follow("lanes")
    assert "PermanentError: HTTP 400: signed up" in follow("dead")
    assert commands[0][:1] == ["explain"]
    commands[0][1] = message_id
    assert "kissmetrics: dead" in follow("explain")
    follow("replay")
    drain(host.registry.runners, "default")
    assert lane() == {"accepted": 2, "delivered": 2}

    Recorder.act["kissmetrics"] = refuse
    host.track(None, "unknown event")
    drain(host.registry.runners, "default")
    follow("discard")
    assert lane() == {"accepted": 3, "delivered": 2, "discarded": 1}

    assert "is paused" in follow("pause")
    assert "is resumed" in follow("resume")

    host.track(None, "later")
    configure("outbox", km={"PLUGIN": "recorder"})
    follow("rename")
    assert lane("km") == {"accepted": 4, "delivered": 2, "discarded": 1, "waiting": 1}

    configure("outbox")
    follow("discard")
    assert lane("km") == {"accepted": 4, "delivered": 2, "discarded": 2}
    assert commands == []


# --- the pages that a reader follows are followed ---


@pytest.fixture(scope="module")
def readme(tmp_path_factory) -> Project:
    """A new site with what the README adds to it, by its own commands."""
    project = Project(tmp_path_factory.mktemp("readme") / "site")
    project.run("python -m django startproject mysite .", "README.md")
    try:
        project.follow(ROOT / "README.md")
    finally:
        project.stop()
    return project


@pytest.mark.timeout(300)
def test_the_readme_works(readme):
    output = readme.run("python manage.py pluginhost --json", "README.md")
    lanes = msgspec.json.decode(output)["lanes"]
    assert lanes["timeseries"]["accepted"] == lanes["timeseries"]["delivered"] == 2
    assert (lanes["echo"]["accepted"], lanes["echo"]["delivered"]) == (1, 1)
    printed = readme.run(
        'python manage.py shell -v 0 -c "from pluginhost_timeseries.models import EventCount;'
        " print(*EventCount.objects.values_list('day', 'name', 'count').get())\"",
        "README.md",
    )
    day, rest = printed.strip().splitlines()[-1].split(" ", 1)
    assert datetime.fromisoformat(day)
    assert rest == "signed up 2"


@pytest.mark.timeout(300)
def test_the_worker_of_the_readme_s_site_runs_until_it_is_stopped(readme):
    try:
        readme.run("python manage.py pluginhost worker", "the test")
        readme.run("python manage.py shell -c \"from pluginhost import host; host.track(None, 'later')\"", "the test")
        readme.wait_for(
            'python manage.py shell -c "from pluginhost_timeseries.models import EventCount;'
            " print(EventCount.objects.filter(name='later').count(), 'later')\"",
            "1 later",
        )
    finally:
        worker = readme.servers[-1]
        readme.stop()
    assert worker.returncode == 0


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("page", "goes_on"), FOLLOWED.items(), ids=[page.stem for page in FOLLOWED])
def test_the_page_can_be_followed(page, goes_on, request, tmp_path):
    project = Project(tmp_path / "site")
    if goes_on:
        before = request.getfixturevalue("readme")
        shutil.copytree(before.directory, project.directory, dirs_exist_ok=True)
        project.install(project.directory / "pluginhost-echo")
    try:
        project.follow(page)
    finally:
        project.stop()


def test_no_page_names_a_place_of_one_machine():
    for page in pages():
        assert not re.search(r"/(tmp|root|home)/", prose(page)), page
