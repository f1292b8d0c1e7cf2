"""From the setting to plugin objects: entry points, options, hooks. Every load error is born here.

Only what the setting names is imported. A plugin that cannot be loaded becomes
an error that names its alias and its distribution; the others load all the same,
so that one run of the checks shows everything that is wrong.
"""

from __future__ import annotations

import inspect
import traceback
from typing import TYPE_CHECKING, Any, NamedTuple

import importlib_metadata
import msgspec
import pluggy
from django.apps import apps

from pluginhost import __version__, hookspecs
from pluginhost.dispatch import Implementation, implementations
from pluginhost.exceptions import ConfigurationError
from pluginhost.options import LANE_OPTIONS, build, did_you_mean, listing, names, redacted
from pluginhost.plugin import LaneOptions, Options, Plugin

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

GROUP = "pluginhost"
HOOKS = ("filter_request", "on_event", "aggregate", "render_client")
DELIVERY_HOOKS = ("on_event", "aggregate")
NO_FUNCTIONS = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)


class Loaded(msgspec.Struct, frozen=True, eq=False):
    """One alias, ready for use."""

    plugin: Plugin
    package: Any
    """What is installed, as importlib_metadata has it."""
    hooks: tuple[str, ...]
    delivery_hook: str | None
    """``on_event`` or ``aggregate``, if the plugin has a lane at all."""
    deliver: Implementation | None

    @property
    def distribution(self) -> str:
        return _name(self.package)

    @property
    def version(self) -> str:
        return _said(self.package, "version")


class Loading(NamedTuple):
    """What became of the setting: pluggy's manager, the plugins in order, and what could not be loaded."""

    manager: pluggy.PluginManager
    plugins: dict[str, Loaded]
    errors: list[ConfigurationError]


class _Manager(pluggy.PluginManager):
    """pluggy's manager, for plugin objects whose properties must not run while they are registered."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> Any:
        # inspect.getattr_static would, for all names of all plugins, take as long as everything else here.
        attribute = next((space[name] for space in _own(plugin) if name in space), None)
        if inspect.isfunction(attribute) or isinstance(attribute, (staticmethod, classmethod)):
            return super().parse_hookimpl_opts(plugin, name)
        return None


def _own(plugin: object) -> Iterator[Mapping[str, Any]]:
    """What the plugin has of itself and of its classes: none of the hooks is in the base class of all plugins."""
    yield vars(plugin)
    yield from (vars(cls) for cls in type(plugin).__mro__ if cls not in (Plugin, object))


def entry_points() -> importlib_metadata.EntryPoints:
    """The plugins that are installed, enabled or not. None of them is imported."""
    return importlib_metadata.entry_points(group=GROUP)


def load(configured: Mapping[str, Mapping[str, Any]]) -> Loading:
    """Load every alias of ``PLUGINHOST["PLUGINS"]``."""
    manager = _Manager("pluginhost")
    manager.add_hookspecs(hookspecs)
    errors: list[ConfigurationError] = []
    installed = entry_points() if configured else importlib_metadata.EntryPoints()
    made: dict[str, tuple[Plugin, Any]] = {}
    for alias, given in configured.items():
        try:
            made[alias] = _make(alias, given, installed)
        except ConfigurationError as error:
            # The frames below hold the options, secrets and all; error pages and mails show frames.
            errors.append(error.with_traceback(None))
    # pluggy calls the last one registered first; the order of the setting is the order of calls.
    for plugin, entry_point in reversed(made.values()):
        try:
            _register(manager, plugin, entry_point)
        except ConfigurationError as error:
            errors.append(error.with_traceback(None))
    by_hook = {hook: implementations(manager, hook) for hook in HOOKS}
    plugins = {
        alias: _loaded(plugin, entry_point, by_hook)
        for alias, (plugin, entry_point) in made.items()
        if manager.has_plugin(alias)
    }
    return Loading(manager, plugins, errors)


def _loaded(plugin: Plugin, entry_point: Any, by_hook: Mapping[str, Iterable[Implementation]]) -> Loaded:
    own = {hook: i for hook, found in by_hook.items() for i in found if i.alias == plugin.alias}
    delivery_hook = next((hook for hook in DELIVERY_HOOKS if hook in own), None)
    return Loaded(
        plugin=plugin,
        package=entry_point.dist,
        hooks=tuple(own),
        delivery_hook=delivery_hook,
        deliver=own[delivery_hook] if delivery_hook else None,
    )


def _name(package: Any) -> str:
    return _said(package, "name") or "unknown distribution"


def _said(package: Any, what: str) -> str:
    """Each look reads and parses all that the package says of itself."""
    try:
        return getattr(package, what) or ""
    except Exception:  # metadata that is missing or broken, as after half an installation
        return ""


class _Place(NamedTuple):
    """Where an error is. Its text is made when there is one: see ``_said``."""

    alias: str
    entry_point: Any

    def __str__(self) -> str:
        return f"PLUGINHOST['PLUGINS'][{self.alias!r}] ({_name(self.entry_point.dist)})"


def _make(alias: str, given: Mapping[str, Any], installed: Any) -> tuple[Plugin, Any]:
    """Find, import, check and instantiate one alias."""
    entry_point = _find(alias, given.get("PLUGIN") or alias, installed)
    where = _Place(alias, entry_point)
    cls = _import(where, entry_point)
    try:
        _check_class(where, cls)
        options, lane = _options(where, cls, given)
    except ConfigurationError:
        raise
    except Exception as error:  # such as an annotation of Options that can't be resolved
        raise _broken(where, f"{cls!r} is no usable plugin", error, ()) from None
    try:
        plugin = cls(alias, options, lane)
        facts = {name: getattr(plugin, name) for name in _FACTS}
    except Exception as error:
        raise _broken(where, f"{cls.__name__} could not be made", error, options) from None
    _check_facts(where, cls, facts)
    return plugin, entry_point


def _broken(where: _Place, what: str, error: Exception, secrets: Any) -> ConfigurationError:
    """An error of the plugin's own code, told without its traceback: that may hold secrets."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return ConfigurationError(
        f"{where}: {what}: {type(error).__name__}: {redacted(str(error), secrets)} ({frame.filename}:{frame.lineno}).",
        id="pluginhost.E004",
        hint="A plugin's class and its __init__ must not fail; connect in setup().",
    )


def _find(alias: str, name: str, installed: Any) -> Any:
    found = [entry_point for entry_point in installed if entry_point.name == name]
    if len(found) == 1:
        return found[0]
    if not found:
        known = sorted({entry_point.name for entry_point in installed})
        raise ConfigurationError(
            f"PLUGINHOST['PLUGINS'][{alias!r}]: no installed package offers a plugin named {name!r}.",
            id="pluginhost.E002",
            hint=f"{did_you_mean(name, known)}Installed are: {listing(known)}.",
        )
    offers = listing(sorted(_name(entry_point.dist) for entry_point in found))
    raise ConfigurationError(
        f"PLUGINHOST['PLUGINS'][{alias!r}]: several packages offer a plugin named {name!r}: {offers}.",
        id="pluginhost.E002",
        hint="Uninstall all but one.",
    )


def _import(where: _Place, entry_point: Any) -> Any:
    try:
        return entry_point.load()
    except Exception as error:
        raise ConfigurationError(
            f"{where}: {entry_point.value} could not be imported: {type(error).__name__}: {error}.",
            id="pluginhost.E003",
            hint="The package is installed, but broken, or something that it needs is missing.",
        ) from error


def _check_class(where: _Place, cls: Any) -> None:
    if not (inspect.isclass(cls) and issubclass(cls, Plugin)):
        raise ConfigurationError(
            f"{where}: the entry point names {cls!r}.",
            id="pluginhost.E004",
            hint="It must name a subclass of pluginhost.Plugin.",
        )
    if not (inspect.isclass(cls.Options) and issubclass(cls.Options, Options)):
        raise ConfigurationError(
            f"{where}: {cls.__name__}.Options is {cls.Options!r}.",
            id="pluginhost.E004",
            hint="It must be a subclass of pluginhost.Options.",
        )
    if _version(cls.requires_host) > _version(__version__):
        raise ConfigurationError(
            f"{where}: needs pluginhost {cls.requires_host} or newer; this is {__version__}.",
            id="pluginhost.E008",
            hint="Upgrade pluginhost, or install an older version of the plugin.",
        )
    if cls.django_app and not any(config.name == cls.django_app for config in apps.get_app_configs()):
        raise ConfigurationError(
            f"{where}: the plugin has models, but INSTALLED_APPS lacks its app.",
            id="pluginhost.E007",
            hint=f'Add the line "{cls.django_app}" to INSTALLED_APPS, and run migrate.',
        )
    reserved = sorted(LANE_OPTIONS.intersection(names(cls.Options)))
    if reserved:
        raise ConfigurationError(
            f"{where}: {cls.__name__}.Options declares {listing(reserved)}.",
            id="pluginhost.E004",
            hint="The host keeps these names for itself; choose others.",
        )


#: What may differ by alias, and would break pages and lanes.
_FACTS: dict[str, tuple[Any, str]] = {
    "varies_on": (set | frozenset, "a frozenset of names of headers"),
    "announces_identity": (bool, "a bool"),
    "unread": (set | frozenset, "a frozenset of names of fields"),
}


def _check_facts(where: _Place, cls: type[Plugin], facts: Mapping[str, Any]) -> None:
    for name, (kind, words) in _FACTS.items():
        if not isinstance(facts[name], kind):
            raise ConfigurationError(
                f"{where}: {cls.__name__}.{name} is {facts[name]!r}.",
                id="pluginhost.E004",
                hint=f"It must be {words}.",
            )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def _options(where: _Place, cls: type[Plugin], given: Mapping[str, Any]) -> tuple[Any, LaneOptions]:
    """The plugin's options and the lane's, told apart by name."""
    own = names(cls.Options)
    exist = f"Its options are: {listing(own)}; every alias also takes {listing(sorted(LANE_OPTIONS))}."
    problems = [
        f"there is no option {name!r}. {did_you_mean(name, {*own, *LANE_OPTIONS})}".rstrip()
        for name in given
        if name not in own and name not in LANE_OPTIONS
    ]
    wrong, options = build(cls.Options, given)
    problems += wrong
    wrong, lane = build(LaneOptions, given)
    problems += wrong
    if problems:
        raise ConfigurationError(f"{where}: {' '.join(problems)}", id="pluginhost.E005", hint=exist)
    return options, lane


def _register(manager: pluggy.PluginManager, plugin: Plugin, entry_point: Any) -> None:
    """Register with pluggy, or leave no trace and say what is wrong with the plugin's hooks."""
    try:
        manager.register(plugin, name=plugin.alias)
        problem = next(_hook_problems(manager, plugin), None)
    except (pluggy.PluginValidationError, ValueError) as error:
        problem = " ".join(str(error).split())
    if problem is None:
        return
    if manager.has_plugin(plugin.alias):  # pluggy keeps a plugin whose registration failed half-way
        manager.unregister(name=plugin.alias)
    raise ConfigurationError(
        f"{_Place(plugin.alias, entry_point)}: {problem}",
        id="pluginhost.E006",
        hint=f"The hooks are {listing(HOOKS)}; their arguments are in pluginhost.hookspecs.",
    )


def _hook_problems(manager: pluggy.PluginManager, plugin: Plugin) -> Iterator[str]:
    callers = manager.get_hookcallers(plugin) or []
    for caller in callers:
        for implementation in caller.get_hookimpls():
            if implementation.plugin is plugin:
                yield from _implementation_problems(caller, implementation)
    marked = {caller.name for caller in callers}
    if marked.issuperset(DELIVERY_HOOKS):
        yield "it implements both on_event and aggregate; one of them delivers."
    for hook in HOOKS:
        if hook not in marked and inspect.getattr_static(plugin, hook, None) is not None:
            yield f"its method {hook} is not marked with @hookimpl, so it would never be called."


def _implementation_problems(caller: Any, implementation: Any) -> Iterator[str]:
    name = caller.name
    if not caller.has_spec():
        if not implementation.optionalhook:
            yield f"it implements an unknown hook {name!r}. {did_you_mean(name, HOOKS)}".rstrip()
        return
    if implementation.wrapper or implementation.hookwrapper:
        yield f"its {name} is a hook wrapper; every plugin answers for itself alone."
    if implementation.tryfirst or implementation.trylast:
        yield f"its {name} asks for tryfirst or trylast; the order of the setting is the order of calls."
    function = implementation.function
    if any(test(function) for test in NO_FUNCTIONS):
        yield f"its {name} is a coroutine or a generator; hooks are plain functions."
    for parameter in inspect.signature(function).parameters.values():
        plain = parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        if parameter.default is not parameter.empty or not plain:
            yield f"its {name} would not be passed {parameter.name!r}: name each argument, without a default."
