"""The plugin ``mongo``: options and hook."""

from __future__ import annotations

import re
from collections import defaultdict
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import msgspec

import pluginhost
from pluginhost import hookimpl
from pluginhost_mongo.payload import COLLECTION, collection, document, of_person

if TYPE_CHECKING:
    from pymongo import MongoClient

    from pluginhost import Batch, Person
    from pluginhost.events import EventType

# Whatever needs pymongo imports it where that begins, as it takes longer than the rest of a site's start and only a
# worker needs it. That it is missing is said at the start of every process.
if find_spec("pymongo") is None:
    raise ModuleNotFoundError("No module named 'pymongo'", name="pymongo")

#: MongoDB manual, "Naming Restrictions" (7.0): a database is a file on some systems.
DATABASE = r"^[^/\\. \"$*<>:|?\x00]{1,63}$"

_WORD = r"([\w.~-]|%[0-9A-Fa-f]{2})+"
_HOST = r"[A-Za-z0-9.-]+(:([1-9]\d{0,3}|[1-5]\d{4}))?"
_OPTION = r"((authSource|replicaSet|appName)=[\w-]{1,100}|(retryWrites|tls)=(true|false))"
#: A URI that pymongo need not be asked about: hosts, and perhaps a user, a database and the most usual options. What is
#: written in another way may be right, too, and pymongo says so, or what is wrong.
PLAIN_URI = re.compile(
    rf"mongodb://({_WORD}(:{_WORD})?@)?{_HOST}(,{_HOST})*(/[\w-]*(\?{_OPTION}(&{_OPTION})*)?)?", re.ASCII
)

#: Seconds that a person's documents may take to be deleted from a collection: without an index all of it is read.
SECONDS_TO_FORGET = 600.0


class Mongo(pluginhost.Plugin):
    """Stores each event as one document. A redelivered event changes nothing."""

    class Options(pluginhost.Options):
        URI: pluginhost.Secret
        """The server, as MongoDB writes it: ``mongodb://user:password@host:27017/``. Secret for its password."""
        DATABASE: Annotated[str, msgspec.Meta(pattern=DATABASE)]
        COLLECTION: Annotated[str, msgspec.Meta(pattern=COLLECTION)] = "events"
        """Where events go that name no collection of their own."""

        def __post_init__(self) -> None:
            if PLAIN_URI.fullmatch(self.URI.reveal()):
                return
            from pymongo import uri_parser
            from pymongo.errors import PyMongoError

            try:
                uri_parser.parse_uri(self.URI.reveal(), validate=True, warn=False)
            except (PyMongoError, ValueError) as error:
                # pymongo's message may repeat the URI, and with it the password.
                problem = str(error).replace(self.URI.reveal(), "********")
                raise ValueError(f"URI is not one of MongoDB: {problem}") from None

    options: Options
    event_types: frozenset[EventType] = frozenset({"track", "page", "identify", "alias"})
    event_options: ClassVar[frozenset[str]] = frozenset({"collection"})
    dedupes: ClassVar[bool] = True

    _client: MongoClient[dict[str, Any]] | None = None

    def setup(self) -> None:
        from pluginhost_mongo import client

        self._client = client.connect(self.options.URI.reveal(), self.timeout)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    @hookimpl
    def aggregate(self, batch: Batch) -> None:
        from pluginhost_mongo import client

        assert self._client is not None
        failures: dict[str, Exception] = {}
        by_collection = defaultdict(list)
        usual = self.options.COLLECTION
        for event in batch:
            try:
                name = collection(event, self.alias, usual) if event.plugins else usual
            except pluginhost.PermanentError as error:
                failures[event.message_id] = error
            else:
                by_collection[name].append(document(event))
        for name, documents in by_collection.items():
            try:
                client.insert(self._client, self.options.DATABASE, name, documents)
            except pluginhost.PartialFailure as error:
                failures.update(error.errors)
        if failures:
            raise pluginhost.PartialFailure(failures)

    def forget(self, person: Person) -> str:
        """Delete the person's events, from each collection that may hold some."""
        from pluginhost_mongo import client

        assert self._client is not None
        options = self.options
        deleted = client.forget(
            self._client, options.DATABASE, options.COLLECTION, of_person(person), SECONDS_TO_FORGET
        )
        total = sum(deleted.values())
        where = ", ".join(f"{name} {n}" for name, n in deleted.items())
        documents = "1 document was" if total == 1 else f"{total} documents were"
        return f"{documents} deleted" + (f" ({where})." if where else ".")

    def explain(self, message_id: str) -> str | None:
        """Which collection has the event."""
        from pluginhost_mongo import client

        assert self._client is not None
        options = self.options
        found = client.find(self._client, options.DATABASE, options.COLLECTION, message_id)
        if not found:
            return None
        return f"The database {options.DATABASE!r} has it, in the collection {', '.join(map(repr, found))}."
