"""``make demo``: starts the shop and what it needs, sends visitors through it, and says what arrived where.

Serves until Ctrl-C, or ends after the summary if ``DEMO_EXIT`` is set. The state of
a run is in ``pluginhost-demo`` in ``DEMO_DIR`` (default: ``.demo``), the shop on ``DEMO_PORT`` (default: 8000),
and what stands for KISSmetrics and Matomo on the port after that, if it is free.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import django
from django.core.management import call_command

import premises
from config.state import LOGS, MONGO_DATA, MONGO_URI, PLACE, STAND_IN_URL
from processes import DemoError, Interrupted, Processes, free_port
from visitor import visit

if TYPE_CHECKING:
    from visitor import Visit

MANAGE = Path(__file__).resolve().with_name("manage.py")
#: The users whom each run makes; the first may do everything.
ADMIN, BEN, PASSWORD = "admin", "ben", "teapot"
#: Seconds that the worker has to deliver the visit.
PATIENCE = 30.0


def main() -> int:
    os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
    try:
        with premises.claim() as lock:
            port = premises.web_port()
            premises.empty()
            processes = Processes(LOGS, lock.fileno())
            try:
                return run(processes, port)
            finally:
                say("Ending what was started")
                processes.stop()
    except DemoError as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    except Interrupted as interrupted:
        return 128 + interrupted.number
    except KeyboardInterrupt:  # before anything was started
        return 128 + signal.SIGINT


def say(line: str) -> None:
    print(f"==> {line}", flush=True)


def run(processes: Processes, port: int) -> int:
    """Everything from the first process to the end. Returns the exit status."""
    start(processes, port)
    address = f"http://127.0.0.1:{port}"
    say(f"Sending visitors through {address}/")
    seen = visit(address, (BEN, PASSWORD), lambda step: _step(processes, step))
    problems = summarize(processes, seen)
    for problem in problems:
        print(f"  MISSING  {problem}", file=sys.stderr, flush=True)
    print_where_to_look(processes, address)
    if os.environ.get("DEMO_EXIT", "0") not in ("", "0"):
        return 1 if problems else 0
    print("\nServing until Ctrl-C.", flush=True)
    try:
        processes.wait_until(lambda: False)
    except Interrupted:
        print()
    return 1 if problems else 0


def _step(processes: Processes, step: str) -> None:
    processes.look()
    print(f"    {step}", flush=True)


def start(processes: Processes, port: int) -> None:
    mongo_port = free_port()
    say(f"Starting the MongoDB server on port {mongo_port}")
    MONGO_URI.write_text(f"mongodb://127.0.0.1:{mongo_port}/\n")
    processes.start(
        "mongo",
        [
            sys.executable, "-m", "nx_27017.nx_27017", "--data-dir", MONGO_DATA, "-p", str(mongo_port),
            "--pid-file", MONGO_DATA / "pid", "--log-file", MONGO_DATA / "log",
        ],
    )  # fmt: skip
    stand_in_port = premises.stand_in_port(port)
    say(f"Starting what stands for KISSmetrics and Matomo on port {stand_in_port}")
    STAND_IN_URL.write_text(f"http://127.0.0.1:{stand_in_port}\n")
    processes.start("standin", [sys.executable, "-m", "standin", "--port", str(stand_in_port)])
    processes.wait_for_port("mongo", mongo_port)
    processes.wait_for_port("standin", stand_in_port)
    say("Making the database")
    # Only now: the settings read the addresses of the servers above.
    django.setup()
    call_command("migrate", verbosity=0)
    _create_users()
    processes.look()
    say(f"Starting the web server on port {port}, and a worker beside it")
    # --insecure: serve the style sheet and the pictures although DEBUG is off.
    processes.start("web", [sys.executable, MANAGE, "runserver", "--noreload", "--insecure", f"127.0.0.1:{port}"])
    processes.start("worker", [sys.executable, MANAGE, "pluginhost", "worker"])
    processes.wait_for_port("web", port)


def _create_users() -> None:
    from django.contrib.auth.models import User  # models need django.setup()

    User.objects.create_superuser(ADMIN, "admin@example.com", PASSWORD)
    User.objects.create_user(BEN, "ben@example.com", PASSWORD)


def summarize(processes: Processes, seen: Visit) -> list[str]:
    """Wait for the worker, and print what it has delivered. Returns what is missing."""
    from summary import print_summary, progress  # models need django.setup()

    say("Waiting for the worker")
    began, shown = time.monotonic(), (0, 0)

    def delivered() -> bool:
        nonlocal shown
        now = progress()
        if now != shown:
            print(f"    {now[1]} of {now[0]} deliveries are done ({time.monotonic() - began:.1f} s)", flush=True)
        shown = now
        return now[0] > 0 and now[0] == now[1]

    processes.wait_until(delivered, PATIENCE)
    return print_summary(seen)


def print_where_to_look(processes: Processes, address: str) -> None:
    manage = f"{os.path.relpath(sys.executable)} {os.path.relpath(MANAGE)}"
    if os.environ.get("DEMO_DIR"):
        manage = f"DEMO_DIR={shlex.quote(str(PLACE))} {manage}"
    print(
        f"""
  The shop      {address}/   sign up, or sign in as {BEN} with the password {PASSWORD}
  The providers {STAND_IN_URL.read_text().strip()}/   what KISSmetrics and Matomo got, from the server and from browsers
  The journal   {address}/admin/pluginhost_journal/entry/   in the admin: name {ADMIN}, password {PASSWORD}
  The counts    {address}/numbers/ and {address}/admin/pluginhost_timeseries/eventcount/
  The documents {MONGO_URI.read_text().strip()}   database shop, collection events
  The lanes     {address}/admin/pluginhost/lane/ and {manage} pluginhost
  The logs      {processes.log("web")}, worker.log, standin.log and mongo.log beside it""",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
