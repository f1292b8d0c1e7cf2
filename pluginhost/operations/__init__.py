"""What people do to the outbox: look, replay, discard, pause, rename, forget; and what time does to it.

Used by the commands, the admin and the workers; knows nothing of them.
"""

from __future__ import annotations
