"""The soak's figure and its section of the report: what is drawn, what is said in words, what is marked."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pocketvlm.analyse.figures.soak import draw_soak
from pocketvlm.analyse.report.extras import Extras
from pocketvlm.analyse.report.soak import read_soak
from pocketvlm.analyse.soak.runs import SoakRun
from pocketvlm.analyse.soak.summary import Wanted
from pocketvlm.analyse.soak.tables import Tables
from pocketvlm.errors import IntegrityError
from tests.synthetic_soaks import BOOTSTRAP, CELL, blind, files, heated, soak_of

SOAK: dict[str, Any] = {"duration_s": 1800, "busy_percent": 100, "first_s": 60, "throttle_percent": 10}
LOCAL = {**CELL, "cell": "local.b", "device": "local", "device_kind": "local"}
AWAY = {**CELL, "cell": "oneplus.c", "device": "oneplus", "device_kind": "phone"}
SVG = "{http://www.w3.org/2000/svg}"


def words(path: Path) -> str:
    root = ET.fromstring(path.read_text())
    return " ".join(" ".join(element.itertext()) for element in root.iter(f"{SVG}text"))


def draw(
    folder: Path,
    soaks: Sequence[tuple[dict[str, Any], list[SoakRun], list[pd.DataFrame]]],
    *,
    away: Sequence[dict[str, Any]] = (),
    soak: dict[str, Any] = SOAK,
) -> Path:
    """Write the tables of soaks and draw them; return the SVG."""
    tables = Tables(Wanted(**soak), BOOTSTRAP)
    for cell, runs, parts in soaks:
        tables.add("x", cell, "s", runs, parts)
    for cell in away:
        tables.add_unmeasured("x", cell, f"{cell['device']} is not connected")
    tables.write(*files(folder))
    cells = [*(cell for cell, _, _ in soaks), *away]
    draw_soak(*files(folder), cells, soak, [folder / "soak.svg", folder / "soak.png"])
    return folder / "soak.svg"


def test_everything_on_one_axis_and_the_moment_marked(tmp_path: Path) -> None:
    drawn = draw(tmp_path, [(CELL, *heated(1800))])
    text = words(drawn)
    for part in (
        "Soak: 1800 s of run after run at 100 % duty",
        "EMULATED PHONE",
        "SYNTHETIC WEIGHTS",
        "Decoding, tokens/s",
        "Clocks, MHz",
        "policy4",
        "Temperature, °C",
        "skin",
        "Power, W",
        "90 % of first",
        "throttled at 10.0 min",
        "sustained",
        "time since the soak began, min",
    ):
        assert part in text, part
    assert "14.1 tokens/s at first" in text and "NA" not in text
    description = ET.fromstring(drawn.read_text()).findtext(f"{SVG}desc") or ""
    assert "below 90 % of the first after 602 s" in description
    assert (tmp_path / "soak.png").stat().st_size > 10_000


def test_a_steady_soak_has_no_mark_and_says_so(tmp_path: Path) -> None:
    runs = soak_of([10.0] * 14)
    text = words(draw(tmp_path, [(CELL, runs, heated(60)[1])], soak={**SOAK, "duration_s": 60}))
    assert "throttled at" not in text and "not throttled within 60 s" in text
    assert "time since the soak began, s" in text


def test_what_is_not_seen_is_said_in_words(tmp_path: Path) -> None:
    runs, parts = heated(1800)
    text = words(draw(tmp_path, [(LOCAL, blind(runs), [part.iloc[:0] for part in parts])], away=[AWAY]))
    for reason in (
        "NA: no cpufreq under /sys.",
        "NA: no thermal zone under /sys/class/thermal.",
        "NA: no power supply under /sys/class/power_supply.",
        "NA: not soaked: oneplus is not connected.",
    ):
        assert reason in text
    assert "EMULATED" not in text


def test_tags_stand_at_the_cell_where_others_do_not_have_them(tmp_path: Path) -> None:
    runs, parts = heated(120, falls_at_s=60)
    text = words(
        draw(tmp_path, [(CELL, runs, parts), (LOCAL, runs, parts)], soak={**SOAK, "duration_s": 120})
    )
    assert "phone: nano Q4_0 (emulated phone, synthetic weights)" in text
    assert "local: nano Q4_0 (synthetic weights)" in text


def test_no_speed_at_all_is_drawn_as_the_reason(tmp_path: Path) -> None:
    text = words(
        draw(tmp_path, [(CELL, soak_of([None] * 12), heated(60)[1])], soak={**SOAK, "duration_s": 60})
    )
    assert "no sustained speed: too few runs with a speed: 0 of the 6 that are needed" in text.replace(
        "  ", " "
    )
    assert "NA: the answer came in one piece." in text


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_runs_are_drawn_as_they_are(tmp_path: Path, count: int) -> None:
    text = words(
        draw(tmp_path, [(CELL, soak_of([10.0] * count), heated(20)[1])], soak={**SOAK, "duration_s": 20})
    )
    assert f"too few runs with a speed: {count} of the 6 that are needed" in text.replace("  ", " ")
    assert "90 % of first" not in text


def test_the_same_tables_give_the_same_bytes(tmp_path: Path) -> None:
    runs, parts = heated(300, falls_at_s=100)
    first = draw(tmp_path, [(CELL, runs, parts)], soak={**SOAK, "duration_s": 300}).read_bytes()
    png = (tmp_path / "soak.png").read_bytes()
    assert draw(tmp_path, [(CELL, runs, parts)], soak={**SOAK, "duration_s": 300}).read_bytes() == first
    assert (tmp_path / "soak.png").read_bytes() == png


def test_the_report_reads_the_summary_and_leaves_out_what_is_not_there(tmp_path: Path) -> None:
    draw(tmp_path, [(CELL, *heated(1800))], away=[AWAY])
    found = read_soak(files(tmp_path)[1], {CELL["cell"]: "phone, Q4_0"}, {CELL["cell"]: ("emulated phone",)})
    assert [table.label for table in found] == ["phone, Q4_0", AWAY["cell"]]
    assert found[0].tags == ("emulated phone",)
    rows = {row.name: row for row in found[0].rows}
    assert rows["Time to throttle"].value == "602" and rows["Time to throttle"].unit == "s"
    assert rows["Sustained against first"].low and rows["Clock in the last third, policy4"].unit == "MHz"
    (nothing,) = found[1].rows
    assert nothing.value == "" and nothing.note == "not soaked: oneplus is not connected"
    assert Extras.of({}).soak is None


def test_another_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "soak_summary.csv").write_text("cell,quantity\na,b\n")
    with pytest.raises(IntegrityError, match="has no column"):
        read_soak(tmp_path / "soak_summary.csv", {}, {})
