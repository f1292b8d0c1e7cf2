"""A plugin whose module is imported by nothing but its entry point."""

from __future__ import annotations

import pluginhost


class Apart(pluginhost.Plugin):
    pass
