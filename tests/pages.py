"""What tests of pages ask again and again: which events a page carries, and which wait for one."""

from __future__ import annotations

from pluginhost.client import KEY
from tests.samples import told


def names(response, place="head", alias="tag"):
    """The names of the events that one alias was given at one place of the page."""
    [said] = [said for said in told(response.text) if (said["alias"], said["place"]) == (alias, place)]
    return [name for _, name, _, _ in said["events"]]


def waiting(client):
    return [item[1] for item in client.session.get(KEY, [])]
