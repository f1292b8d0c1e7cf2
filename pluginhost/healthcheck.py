"""``python -m pluginhost.healthcheck FILE``: whether a worker is well, without booting Django.

The worker touches FILE (``manage.py pluginhost worker --healthcheck FILE``). Exit
status 0 if that was within the last SECONDS, 1 if it was not or there is no file.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

#: Far above the seconds between two touches, and the seconds that a worker has to stop.
MAX_AGE = 60.0


def main(arguments: list[str] | None = None) -> int:
    """Look at the file, print one line, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pluginhost.healthcheck", description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, metavar="FILE", help="The file of worker --healthcheck.")
    parser.add_argument(
        "--max-age", type=float, default=MAX_AGE, metavar="SECONDS", help="How old it may be. Default: %(default)g."
    )
    options = parser.parse_args(arguments)
    try:
        age = time.time() - options.file.stat().st_mtime
    except OSError as error:
        print(f"no worker: {error.strerror}: {options.file}")  # noqa: T201
        return 1
    well = age <= options.max_age
    print(f"{'well' if well else 'not well'}: touched {max(age, 0.0):.0f} s ago")  # noqa: T201
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
