"""Serve until SIGINT or SIGTERM."""

from __future__ import annotations

import argparse
import signal
import threading

from .server import StandIn


def main() -> None:
    parser = argparse.ArgumentParser(prog="standin", description="Stands for KISSmetrics and Matomo.")
    parser.add_argument("--port", type=int, default=0, help="0, the default: any that is free")
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with StandIn(parser.parse_args().port) as stand_in:
        print(f"Serving at {stand_in.url}/", flush=True)
        ended.wait()


if __name__ == "__main__":
    main()
