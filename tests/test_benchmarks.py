"""Holds the page of what things cost to the run that was kept, and the run to the rows that there are."""

from __future__ import annotations

import copy
import json
import re

import pytest

from benchmarks import docs, rows
from benchmarks.figures import Result, Row, Spread
from benchmarks.report import write

PAGE = docs.PAGE.read_text()
FOUND = json.loads(docs.RESULTS.read_text())
KNOWN = {row.name: row for measurement in rows.load() for row in measurement.rows}

MOST = Row("fast", "ours", "theirs", "µs", "most", 1.2)
LEAST = Row("many", "ours", "theirs", "events/s", "least", 10, must=False)


def blocks(page: str) -> dict[str, str]:
    return {match[2]: match[0] for match in docs.BLOCK.finditer(page)}


# --- the page ---


def test_the_page_has_the_figures_of_the_run_that_was_kept():
    assert docs.render(PAGE, FOUND) == PAGE, "make bench DOCS=1, or python -m benchmarks --docs, writes it anew"


def test_each_block_is_on_the_page_once():
    found = re.findall(r"<!-- figures: (\w+) -->", PAGE)
    assert sorted(found) == sorted(docs.BLOCKS)
    assert PAGE.count("<!-- end of figures -->") == len(found)


def test_there_are_no_figures_beside_the_blocks():
    rest = docs.BLOCK.sub("", PAGE)
    rest = re.sub(r"`[^`\n]*`", "", rest)  # names and values of settings
    assert [line for line in rest.splitlines() if re.search(r"\d", line)] == []


@pytest.mark.parametrize("name", [row["name"] for row in FOUND["rows"] if row["figures"]["ours"]])
def test_each_figure_that_a_block_takes_is_the_run_s(name):
    changed = copy.deepcopy(FOUND)
    (row,) = [row for row in changed["rows"] if row["name"] == name]
    for spread in filter(None, row["figures"].values()):
        spread.update({key: spread[key] * 3.21 for key in ("median", "low", "high")})
    differ = [block for block, text in blocks(docs.render(PAGE, changed)).items() if text != blocks(PAGE)[block]]
    # Those that are for whoever changes the code stay off the page.
    assert bool(differ) is (name not in {"track-tight", "batch-tight", "postgres-batch-rows"})


def test_what_is_missed_is_shown_as_missed():
    lines = blocks(PAGE)["targets"].splitlines()
    aims = [row for row in FOUND["rows"] if row["wanted"]]
    assert aims
    for row in aims:
        (line,) = [line for line in lines if line.startswith(f"| `{row['name']}` |")]
        shown = {"missed": "**missed**", "reached": "reached", "": docs.NOT_MEASURED}[row["verdict"]]
        assert line.endswith(f" | {shown} |")
        assert row["wanted"] in line


def test_what_was_not_measured_says_so():
    changed = copy.deepcopy(FOUND)
    for row in changed["rows"]:
        row |= {"figures": dict.fromkeys(("ours", "peer", "ratio")), "skipped": "no server", "verdict": ""}
    page = blocks(docs.render(PAGE, changed))
    assert "0 are missed" in page["targets"]
    for name in ("request", "losses", "pages", "worker", "workers", "limits", "waiting"):
        cells = [line.split(" | ")[1] for line in page[name].splitlines() if line.startswith("| ")][2:]
        assert {cell.strip(" |") for cell in cells} == {docs.NOT_MEASURED}, name


@pytest.mark.parametrize(
    ("rate", "capacity", "wanted"), [(10, 1_000, 1), (700, 1_000, 1), (701, 1_000, 2), (5_000, 250, 29)]
)
def test_how_many_workers_a_rate_needs(rate, capacity, wanted):
    assert docs.workers(rate, capacity) == wanted


# --- the run ---


def test_the_run_that_was_kept_is_of_the_rows_that_there_are():
    assert {row["name"]: row["wanted"] for row in FOUND["rows"]} == {name: row.wanted for name, row in KNOWN.items()}


def test_the_run_that_was_kept_tells_nothing_of_the_machine_but_what_it_is():
    assert set(FOUND["machine"]) == {"when", "python", "cores", "load", "packages"}
    assert {"SQLite", "PostgreSQL", "MongoDB"} <= FOUND["servers"].keys()
    assert not re.search(r'(^|[\s"\'(=])/\w', docs.RESULTS.read_text(), re.MULTILINE), "a path"
    assert not re.search(r"\w+://|localhost|\d+\.\d+\.\d+\.\d+", docs.RESULTS.read_text()), "an address"


def test_a_run_of_some_rows_does_not_become_the_page_s(tmp_path, capsys):
    path = tmp_path / "some.json"
    path.write_text(json.dumps({**FOUND, "rows": FOUND["rows"][1:]}))
    before = docs.RESULTS.read_text()
    assert docs.main(path, KNOWN) == 2
    assert FOUND["rows"][0]["name"] in capsys.readouterr().err
    assert docs.RESULTS.read_text() == before


def test_a_run_becomes_the_page_s(tmp_path, monkeypatch):
    for name in ("RESULTS", "PAGE"):
        monkeypatch.setattr(docs, name, tmp_path / name)
    monkeypatch.setattr(docs, "ROOT", tmp_path)
    docs.PAGE.write_text("before\n<!-- figures: measured -->\nold\n<!-- end of figures -->\nafter\n")
    path = tmp_path / "all.json"
    path.write_text(json.dumps(FOUND | {"short": False}))
    assert docs.main(path, KNOWN) == 0
    text = docs.PAGE.read_text()
    assert text.startswith("before\n<!-- figures: measured -->\n\nMeasured on ")
    assert text.endswith("\n\n<!-- end of figures -->\nafter\n")
    assert "short run" not in text
    assert json.loads(docs.RESULTS.read_text())["short"] is False


# --- what figures come to ---


def test_the_ratio_is_the_median_of_the_pairs():
    result = Result.of(MOST, [1, 2, 90], [1, 1, 90])
    assert result.ratio == Spread(1, 1, 1.5, 3)
    assert result.verdict == "reached"


@pytest.mark.parametrize(
    ("row", "ours", "verdict"),
    [(MOST, 1.2, "reached"), (MOST, 1.21, "missed"), (LEAST, 10, "reached"), (LEAST, 9, "missed")],
)
def test_a_target_is_reached_or_missed(row, ours, verdict):
    assert Result.of(row, [ours], [1]).verdict == verdict


def test_a_peer_of_which_nothing_arrived_has_no_ratio(tmp_path):
    result = Result.of(LEAST, [100, 100], [0, 0])
    assert (result.ratio, result.verdict) == (None, "")
    write(tmp_path / "a.json", [result], {}, {}, short=True)
    assert json.loads((tmp_path / "a.json").read_text())["rows"][0]["figures"]["ratio"] is None
