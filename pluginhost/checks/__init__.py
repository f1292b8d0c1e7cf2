"""System checks: the same errors that stop a process, in the list that ``manage.py check`` prints.

Importing this package registers them; each module is about one thing.
"""

from __future__ import annotations

from pluginhost.checks import celery, databases, plugins, site

__all__ = ["celery", "databases", "plugins", "site"]
