"""Talks to the server, and says in the host's words what became of the documents.

Codes and shapes of errors: MongoDB manual, "Error Codes" and the "insert" command
(server 7.0); pymongo 4.9 raises them as ``BulkWriteError``.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pymongo
from bson.errors import BSONError, InvalidDocument
from pymongo import errors, uri_parser
from pymongo.collation import Collation
from pymongo.write_concern import WriteConcern

from pluginhost import PartialFailure, PermanentError, RetryableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pymongo import MongoClient

#: What every document of an event has, and hardly any other.
EVENT: dict[str, Any] = {
    "_id": {"$type": "string", "$regex": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"},
    "type": {"$in": ["track", "page", "identify", "alias"]},
    "name": {"$type": "string"},
    "timestamp": {"$gte": dt.datetime.min.replace(tzinfo=dt.UTC)},  # a comparison matches values of its own type
}
#: A collection may have a collation of its own, to which "Ada" is "ada".
EXACT = Collation("simple")
DUPLICATE_KEY = 11000
INVALID_NAMESPACE = 73


def connect(uri: str, timeout: float) -> MongoClient[dict[str, Any]]:
    """A client whose every wait ends within ``timeout`` seconds, unless the URI says otherwise. Opens no connection."""
    given = {name.lower() for name in uri_parser.parse_uri(uri, warn=False)["options"]}
    waits = ("timeoutMS", "serverSelectionTimeoutMS", "connectTimeoutMS")
    ours: dict[str, Any] = {name: int(timeout * 1000) for name in waits if name.lower() not in given}
    return pymongo.MongoClient(uri, tz_aware=True, **ours)


def insert(client: MongoClient[dict[str, Any]], database: str, name: str, documents: Sequence[dict[str, Any]]) -> None:
    """Insert the documents that are not there yet.

    A document whose ``_id`` exists is there already, and that is success. Raises
    ``PartialFailure`` for documents that the server refuses, ``RetryableError`` if
    it is away or does not confirm, ``PermanentError`` if one of the documents is
    none that BSON can hold.
    """
    try:
        client[database][name].insert_many(documents, ordered=False)
    except errors.BulkWriteError as error:
        _judge(error.details or {})
    except (BSONError, InvalidDocument, errors.InvalidName) as error:
        raise PermanentError(str(error)) from error
    except errors.PyMongoError as error:
        if isinstance(error, errors.OperationFailure) and error.code == INVALID_NAMESPACE:
            raise PermanentError(str(error)) from error
        raise RetryableError(f"{type(error).__name__}: {error}") from error


def forget(
    client: MongoClient[dict[str, Any]], database: str, name: str, chosen: Mapping[str, Any], seconds: float
) -> dict[str, int]:
    """Delete the events that ``chosen`` matches from all collections, and say how many from which.

    Events may be in any collection, as the caller of each one chooses; ``name`` is the
    usual one. Documents that no event has written stay. Each collection may take so
    many seconds. Raises ``RetryableError``; what was deleted until then is.
    """
    deleted = {}
    try:
        for each in _collections(client, database, name):  # a server that is away is not waited for so long
            collection = client[database].get_collection(each, write_concern=WriteConcern(w="majority"))
            with pymongo.timeout(seconds):
                if n := collection.delete_many({**EVENT, **chosen}, collation=EXACT).deleted_count:
                    deleted[each] = n
    except errors.PyMongoError as error:
        raise RetryableError(f"{type(error).__name__}: {error}") from error
    return deleted


def find(client: MongoClient[dict[str, Any]], database: str, name: str, message_id: str) -> list[str]:
    """The collections that have the event of this message id. Raises ``RetryableError``."""
    try:
        return [
            each
            for each in _collections(client, database, name)
            if client[database][each].find_one({**EVENT, "_id": message_id}, {"_id": 1})
        ]
    except errors.PyMongoError as error:
        raise RetryableError(f"{type(error).__name__}: {error}") from error


def _collections(client: MongoClient[dict[str, Any]], database: str, name: str) -> list[str]:
    """The usual collection first, then the others that may hold documents of ours."""
    found = client[database].list_collections(nameOnly=True, authorizedCollections=True)
    others = {each["name"] for each in found if each.get("type", "collection") == "collection"}
    return [name, *sorted(each for each in others - {name} if not each.startswith("system."))]


def _judge(details: Mapping[str, Any]) -> None:
    refused = {
        str(failure["op"]["_id"]): PermanentError(f"{failure.get('code')}: {failure.get('errmsg', '')}"[:500])
        for failure in details.get("writeErrors", ())
        if not _is_there_already(failure)
    }
    if details.get("writeConcernErrors"):
        # Written, but not confirmed as the project wants it: sending it again does no harm.
        raise RetryableError(f"not confirmed: {details['writeConcernErrors'][0].get('errmsg', '')}")
    if refused:
        raise PartialFailure(refused)


def _is_there_already(failure: Mapping[str, Any]) -> bool:
    """Whether the server refused a document because of its ``_id``, and not because of an index of the project's."""
    if failure.get("code") != DUPLICATE_KEY:
        return False
    pattern = failure.get("keyPattern")
    return pattern is None or list(pattern) == ["_id"]
