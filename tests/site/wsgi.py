"""The site as a server loads it. What it does while it is loaded, a preloading server does before it forks."""

from __future__ import annotations

from django.core.wsgi import get_wsgi_application
from django.db import connections

from pluginhost import host

application = get_wsgi_application()
host.track(None, "while loading")
connections.close_all()  # as every site has to that uses a database before a fork
