"""Figures: the same bytes for the same data, honest about what is missing, one colour a phase."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pocketvlm.analyse import figures
from pocketvlm.analyse.figures import bars, dots, labels, palette, series, style, timeline
from pocketvlm.errors import PocketvlmError
from pocketvlm.provenance import read_json
from tests.drawn_report import both, draw_all
from tests.synthetic_records import Study, write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """An invented study of two devices, one without sensors."""
    study = write_study(tmp_path_factory.mktemp("study") / "results", repeats=3)
    draw_all(study)
    return study


def cells_of(study: Study) -> list[dict[str, str]]:
    """Return the entries of the study's `cells.json`."""
    return list(read_json(study.cells_json)["cells"])


def figure(study: Study, name: str) -> str:
    """Return the text of a drawn SVG."""
    return (study.cells_json.parent / "figures" / f"{name}.svg").read_text()


def words(svg: str) -> str:
    """Return all text of an SVG, lines joined."""
    root = ET.fromstring(svg)
    return " ".join(" ".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text"))


def test_the_same_records_give_the_same_bytes(study: Study, tmp_path: Path) -> None:
    runs, summary, cells = pd.read_parquet(study.runs), pd.read_csv(study.cells_csv), cells_of(study)
    for number in (1, 2):
        figures.draw_throughput(runs, summary, cells, both(tmp_path / str(number), "throughput"))
        figures.draw_energy(runs, summary, cells, both(tmp_path / str(number), "energy"))
    for path in (tmp_path / "1").iterdir():
        assert path.read_bytes() == (tmp_path / "2" / path.name).read_bytes()
    assert (tmp_path / "1" / "energy.svg").read_text() == figure(study, "energy")


@pytest.mark.parametrize("name", ["phases", "throughput", "energy"])
def test_svg_is_named_described_tagged_and_follows_the_page(study: Study, name: str) -> None:
    svg = figure(study, name)
    root = ET.fromstring(svg)
    assert root.find("{http://www.w3.org/2000/svg}title") is not None
    assert len(root.findtext("{http://www.w3.org/2000/svg}desc") or "") > 100
    assert "EMULATED PHONE" in words(svg)
    assert "SYNTHETIC WEIGHTS" in words(svg)
    drawn = re.sub(r"<style>.*?</style>", "", svg)
    assert palette.INK not in drawn
    assert "currentColor" in drawn
    assert "<metadata>" not in svg


def test_a_device_without_sensors_gives_reasons_and_no_empty_axes(study: Study) -> None:
    local = next(cell for cell in cells_of(study) if cell["device"] == "local")
    svg = figure(study, f"timeline-{local['cell']}")
    text = words(svg)
    assert "Not exposed by this device: no kgsl and no mali node" in text
    assert "no thermal zone under" in text
    assert "no power supply under" in text
    assert "EMULATED" not in text
    assert "SYNTHETIC WEIGHTS" in text
    phone = next(cell for cell in cells_of(study) if cell["device"] == "emulated-phone")
    assert "Not exposed" not in words(figure(study, f"timeline-{phone['cell']}"))


def test_each_device_has_its_own_scale(study: Study, tmp_path: Path) -> None:
    """Ten times the durations on one device leave the other's bars where they are."""
    summary, cells = pd.read_csv(study.cells_csv), cells_of(study)

    def first_panel(factor: float) -> list[str]:
        scaled = summary.copy()
        scaled.loc[scaled["device"] == "local", ["median", "ci_low", "ci_high"]] *= factor
        path = tmp_path / f"{factor}.svg"
        figures.draw_phases(scaled, cells, [path])
        text = path.read_text()
        panels = re.split(r'<g id="axes_\d+">', text)
        assert len(panels) == 3
        return re.findall(r'<path d="([^"]+)"[^>]*fill: #', panels[1])

    bars_drawn = first_panel(1.0)
    assert len(bars_drawn) >= 12
    assert bars_drawn == first_panel(10.0)


def test_every_run_is_a_point_and_withheld_ones_are_not(study: Study) -> None:
    runs, summary, cells = pd.read_parquet(study.runs), pd.read_csv(study.cells_csv), cells_of(study)[:2]
    one = (runs["metric"] == "tokens_per_second") & (runs["phase"] == "decode")
    runs.loc[one & (runs["run"] == runs["run"].iloc[0]), "gate"] = "too hot"
    with style.canvas(2) as drawn:
        axes = drawn.subplots()
        said = dots.draw_points(axes, runs[runs["device"] == "emulated-phone"], summary, cells, dots.DECODE)
        points = [line for line in axes.get_lines() if line.get_marker() == "o"]
    assert [len(np.atleast_1d(line.get_xdata())) for line in points] == [2, 3]
    assert len(said) == 2


def test_names_with_dollars_and_markup_are_drawn_as_they_are(study: Study, tmp_path: Path) -> None:
    cells = [{**cell, "quantisation": r"$\frac{1}$<b>&"} for cell in cells_of(study)[:1]]
    figures.draw_phases(pd.read_csv(study.cells_csv), cells, both(tmp_path, "x"))
    assert r"$\frac{1}$<b>&" in words((tmp_path / "x.svg").read_text())


def test_nothing_passed_is_said(study: Study, tmp_path: Path) -> None:
    summary = pd.read_csv(study.cells_csv).assign(median=np.nan)
    figures.draw_phases(summary, cells_of(study), [tmp_path / "x.svg"])
    assert "No duration passed the gates" in words((tmp_path / "x.svg").read_text())


def test_other_suffixes_are_refused(study: Study, tmp_path: Path) -> None:
    with pytest.raises(PocketvlmError, match="pdf"):
        figures.draw_phases(pd.read_csv(study.cells_csv), cells_of(study), [tmp_path / "x.pdf"])


def test_median_run_is_the_lower_of_two_and_stable() -> None:
    assert timeline.median_run({"a": 3.0, "b": 1.0, "c": 2.0}) == "c"
    assert timeline.median_run({"a": 4.0, "b": 1.0, "c": 2.0, "d": 3.0}) == "c"
    assert timeline.median_run({"b": 1.0, "a": 1.0}) == "a"
    with pytest.raises(PocketvlmError, match="no measured run"):
        timeline.median_run({})


def samples(quantity: str, values: dict[str, list[tuple[int, float]]]) -> pd.DataFrame:
    """Return samples of one quantity: component to (t_us, value)."""
    rows = [(t, quantity, component, value) for component, listed in values.items() for t, value in listed]
    return pd.DataFrame(rows, columns=["t_us", "quantity", "component", "value"])


def test_utilisation_is_the_rate_of_the_busy_counters() -> None:
    counters = samples(
        "cpu_time",
        {
            "cpu.user": [(0, 0.0), (100_000, 0.1), (200_000, 0.2)],
            "cpu.system": [(0, 0.0), (100_000, 0.05), (200_000, 0.05)],
            "cpu.idle": [(0, 5.0), (100_000, 9.0), (200_000, 12.0)],
            "cpu0.user": [(0, 0.0), (100_000, 7.0), (200_000, 9.0)],
        },
    )
    assert series.system_cpu(counters).to_dict() == pytest.approx({100_000: 150.0, 200_000: 100.0})


def test_power_is_current_times_voltage_or_the_largest_energy_rate() -> None:
    battery = pd.concat(
        [
            samples("current", {"battery": [(0, 0.5), (200_000, 1.0)]}),
            samples("voltage", {"battery": [(0, 4.0), (200_000, 3.8)]}),
        ]
    )
    assert series.power(battery).to_dict() == pytest.approx({0: 2.0, 200_000: 3.8})
    rapl = samples(
        "energy",
        {
            "rapl.core": [(0, 0.0), (100_000, 1.0), (200_000, 2.0)],
            "rapl.package": [(0, 9.0), (100_000, 11.0), (200_000, 0.5)],
        },
    )
    assert series.power(rapl).to_dict() == pytest.approx({100_000: 20.0})
    assert series.power(samples("memory", {"free": [(0, 1.0)]})).empty


def test_a_temperature_class_shows_its_hottest_zone() -> None:
    zones = samples(
        "temperature", {"cpu.cpu-0-0": [(0, 40.0)], "cpu.cpu-1-0": [(0, 45.0)], "skin.xo": [(0, 30.0)]}
    )
    found = series.temperatures(zones)
    assert {name: list(values) for name, values in found.items()} == {"cpu": [45.0], "skin": [30.0]}


def test_labels_say_what_differs_on_a_device(study: Study) -> None:
    cells = cells_of(study)
    assert set(labels.short_labels(cells).values()) == {"Q4_0", "Q8_0"}
    more = [*cells, {**cells[0], "cell": "x", "settings": "threads=4"}]
    assert labels.short_labels(more)["x"] == "Q4_0 threads=4"
    assert labels.short_labels(more)[cells[2]["cell"]] == "Q4_0"
    assert labels.tags(cells[2:]) == [labels.SYNTHETIC]
    assert labels.shared_text(cells[:2]) == "llama.cpp 0.3.16 cpu, synthetic-llava-nano, coffee, threads=2"


def test_phase_medians_leave_out_what_is_withheld() -> None:
    summary = pd.DataFrame(
        {
            "cell": ["a", "a", "b"],
            "metric": ["duration"] * 3,
            "phase": ["decode", "load", "load"],
            "median": [1500.0, np.nan, 1.0],
        }
    )
    assert bars.phase_medians(summary, "a") == {"decode": 1.5}


# Viénot, Brettel and Mollon (1999): linear RGB as seen without the red or without the green cones.
PROTANOPIA = np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]])
DEUTERANOPIA = np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]])
RGB_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(colour: str, seen: np.ndarray) -> np.ndarray:
    """Return CIE L*a*b* (D65) of a colour `#rrggbb` seen through a matrix on linear RGB."""
    encoded = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    xyz = RGB_TO_XYZ @ np.clip(seen @ linear, 0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize(
    "seen", [np.eye(3), PROTANOPIA, DEUTERANOPIA], ids=["trichromat", "protanope", "deuteranope"]
)
def test_phases_stay_apart_for_everyone(seen: np.ndarray) -> None:
    for a, b in itertools.combinations(palette.PHASE_COLOURS.values(), 2):
        assert np.linalg.norm(lab(a, seen) - lab(b, seen)) > 15, (a, b)


def test_text_on_a_bar_is_legible() -> None:
    for colour in palette.PHASE_COLOURS.values():
        bright = lab(colour, np.eye(3))[0]
        assert palette.text_on(colour) == ("#000000" if bright > 50 else "#ffffff"), colour
