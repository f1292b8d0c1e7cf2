"""The project after an upgrade to come: a version 2 of the envelope, in a process of its own.

Run as ``python -m tests.newer track NAME``, ``take``, ``drain`` or ``worker``. In version 2 an
event's name is called ``called``, so that no reader of version 1 can make anything of it.
"""

from __future__ import annotations

import sys

from pluginhost.delivery import envelopes

OLD, NEW = b'"name":', b'"called":'

_pack = envelopes.pack
_read = envelopes._read_event


def pack(events):
    return _pack((lanes, encoded.replace(OLD, NEW, 1)) for lanes, encoded in events)


def read_version_2(payload):
    raws = [bytes(raw) for raw in envelopes._raw_array.decode(payload)]
    return [_read(raw.replace(NEW, OLD, 1))._replace(raw=raw) for raw in raws]


# Before anything else of the host is imported: the others take these names over.
envelopes.VERSION = 2
envelopes._READERS[2] = read_version_2
envelopes.pack = pack


def main(act: str, *arguments: str) -> None:
    import django

    django.setup()
    from django.core.management import call_command

    from pluginhost import host
    from pluginhost.delivery.intake import take

    if act == "track":
        for name in arguments:
            assert host.track(None, name)
    elif act == "take":
        take("default")
    else:
        call_command("pluginhost", "worker", *(["--drain"] if act == "drain" else []))


if __name__ == "__main__":
    main(*sys.argv[1:])
