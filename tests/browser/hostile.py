"""Texts that try to be something else, by name; and how much a page may hold."""

from __future__ import annotations

import pytest

TEXTS = {
    "element": "</script><script>alert(1)</script>",
    "image": "\"'><img src=x onerror=alert(1)><svg onload=alert(1)>",
    "comment": "<!--<script>",
    "literal": "'\"\u2028\u2029<!--\\",
    "call": "');alert(1);//\\');alert(1);//",
    "template": "{{7*7}}${alert(1)}`{% now 'Y' %}",
    "entities": "&lt;b&gt;&quot;&#39;&amp;amp;",
    "prototype": "__proto__",
    "letters": "Zoë 東京 🏳️‍🌈 a\u0301\u202e\ufeff",
    "lines": "one\r\ntwo\tthree\x0b\x7f",
}
#: What is larger than any text that an event may carry.
LONG = "😀" * 10_000

TEXT = pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
