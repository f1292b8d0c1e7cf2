from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from plugins.piwik.tests.helpers import FakeMatomo

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def matomo() -> Iterator[FakeMatomo]:
    fake = FakeMatomo()
    yield fake
    fake.close()
