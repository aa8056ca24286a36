"""Figures: the same bytes for the same data, honest about what is missing, one colour a phase."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from pocketvlm.analyse import figures
from pocketvlm.analyse.figures import bars, dots, labels, palette, reasons, series, style, timeline
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


def test_reasons_are_told_once_with_the_range_of_their_numbers() -> None:
    assert reasons.condensed(
        ["51.5 ms of policy0, 100 are needed", "no node", "49 ms of policy0, 100 are needed"]
    ) == [
        "49 to 51.5 ms of policy0, 100 are needed",
        "no node",
    ]
    assert len(reasons.condensed(["a 0.3.16 b", "a 0.3.9 b", "/sys/class/kgsl/3", "/sys/class/kgsl/4"])) == 4
    assert reasons.condensed_gate("1 of 5 runs: 51 ms; 3 of 5 runs: no node; 1 of 5 runs: 54 ms") == (
        "2 of 5 runs: 51 to 54 ms; 3 of 5 runs: no node"
    )
    assert reasons.condensed_gate("llama.cpp printed 2; and no more") == "llama.cpp printed 2; and no more"
    assert reasons.condensed_gate("") == ""


def test_components_that_lack_for_one_reason_share_it() -> None:
    lacking = [("temperature", one, f"no zone of a {one} under /sys") for one in ("cpu", "gpu", "skin")]
    lacking += [
        ("power", "battery", "no battery under /sys"),
        ("current", "battery", "no battery under /sys"),
    ]
    names = ("quantity", "component", "reason")
    identity = {"missing": [dict(zip(names, row, strict=True)) for row in lacking]}
    assert reasons.missing_text(identity, "temperature") == "no zone of a cpu, gpu or skin under /sys"
    assert reasons.missing_text(identity, "power", "current") == "no battery under /sys"
    assert reasons.missing_text(identity, "gpu_busy") == ""
    assert [row[0] for row in reasons.missing(identity)] == ["temperature", "power", "current"]


def with_classes(runs: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Return runs whose temperatures on the phone come in these classes."""
    heat = runs["metric"].isin(["temperature_max.cpu", "temperature_rise.cpu"]) & (runs["device"] != "local")
    stems = runs["metric"].str.split(".").str[0]
    more = [runs[heat].assign(metric=stems[heat] + f".{name}") for name in classes]
    return pd.concat([runs[~runs["metric"].str.startswith("temperature_")], *more], ignore_index=True)


def boxes(svg_figure: Figure) -> list[tuple[str, Bbox]]:
    """Return every text of a laid out figure with its box in pixels."""
    hidden = set()
    for axes in svg_figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            located = zip(axis.get_majorticklocs(), axis.get_ticklabels(), strict=True)
            hidden |= {label for at, label in located if not low - 1e-9 <= at <= high + 1e-9}
            if not axes.axison:
                hidden |= set(axis.get_ticklabels())
    found = [text for text in svg_figure.findobj(Text) if isinstance(text, Text) and text not in hidden]
    return [
        (text.get_text(), text.get_window_extent())
        for text in found
        if text.get_text().strip() and text.get_visible()
    ]


def test_no_text_overlaps_or_leaves_the_figure_with_many_classes_and_long_reasons(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, summary, cells = pd.read_parquet(study.runs), pd.read_csv(study.cells_csv), cells_of(study)
    many = with_classes(runs, ["battery", "cpu", "gpu", "npu", "other", "pmic", "skin"])
    here = many["device"] == "local"
    many.loc[here & many["value"].isna(), "reason"] = "no such node under /sys/class/of_this_kind " * 12
    kept: list[Figure] = []
    save = style.save

    def keep(drawn: Figure, *arguments: object, **named: object) -> None:
        save(drawn, *arguments, **named)  # type: ignore[arg-type]
        drawn.draw_without_rendering()
        kept.append(drawn)

    monkeypatch.setattr(style, "save", keep)
    figures.draw_energy(many, summary, cells, both(tmp_path, "energy"))
    figures.draw_throughput(many, summary, cells, both(tmp_path, "throughput"))
    figures.draw_phases(summary, cells, both(tmp_path, "phases"))
    local = next(cell for cell in cells if cell["device"] == "local")
    identity = read_json(study.identities["local"])
    for entry in identity["missing"]:
        entry["reason"] = "no such node under /sys/class/of_this_kind " * 8
    records = study.records["local"]
    samples_read, phases = (pd.read_parquet(records / f"{name}.parquet") for name in ("samples", "phases"))
    figures.draw_timeline(samples_read, phases, runs, local, identity, both(tmp_path, "timeline"))
    for drawn in kept:
        width, height = drawn.get_size_inches() * drawn.dpi
        told = boxes(drawn)
        for text, box in told:
            assert box.y0 >= -1, text
            assert box.y1 <= height + 1, text
            assert box.x0 >= -1, text
            assert box.x1 <= width + 1, text
        for (one, a), (two, b) in itertools.combinations(told, 2):
            across = min(a.x1, b.x1) - max(a.x0, b.x0)
            down = min(a.y1, b.y1) - max(a.y0, b.y0)
            assert across < 2 or down < 2, (one, two)
    text = words((tmp_path / "energy.svg").read_text())
    assert "Temperatures in the tables only: npu, other, pmic" in text
    assert text.count("battery") == 4


def test_a_withheld_lane_says_so(study: Study, tmp_path: Path) -> None:
    runs, summary, cells = pd.read_parquet(study.runs), pd.read_csv(study.cells_csv), cells_of(study)
    one = (
        (runs["metric"] == "tokens_per_second")
        & (runs["phase"] == "text_prefill")
        & (runs["device"] == "local")
    )
    runs.loc[one, "gate"] = "too short"
    figures.draw_throughput(runs, summary, cells, [tmp_path / "x.svg"])
    assert words((tmp_path / "x.svg").read_text()).count("withheld") == 2
    assert "withheld" not in words(figure(study, "throughput"))


def test_a_cell_without_runs_has_its_reason_in_the_place_of_a_timeline(tmp_path: Path) -> None:
    cell = {
        "device": "pixel",
        "device_kind": "phone",
        "model": "m",
        "quantisation": "Q4_0",
        "weights_kind": "synthetic",
    }
    timeline.draw_unmeasured(cell, "it needs 9 GB <b>& more</b>", both(tmp_path, "timeline"))
    text = (tmp_path / "timeline.svg").read_text()
    assert "Not measured: it needs 9 GB &lt;b&gt;&amp; more&lt;/b&gt;." in text
    assert "SYNTHETIC" in text
    assert (tmp_path / "timeline.png").stat().st_size > 1000
