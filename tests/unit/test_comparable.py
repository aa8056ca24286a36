"""What a state that was not met withholds from the tables."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pocketvlm.analyse import records
from pocketvlm.analyse.comparable import CLEAN_POWER, SHAPES, UNMET, unmet
from pocketvlm.analyse.gates import judge
from pocketvlm.analyse.report.states import Wish, wishes

ROOT = Path(__file__).parents[2]
NUMBERS = (
    ("run", "duration"),
    ("run", "energy"),
    ("decode", "duration"),
    ("decode", "tokens"),
    ("decode", "tokens_per_second"),
    ("decode", "power_net"),
    ("decode", "energy_per_token"),
    ("run", "system_cpu"),
    ("run", "rss_peak"),
    ("run", "jank_percent"),
    ("run", "clock_mean.policy0"),
    ("run", "sensor_coverage"),
)


def judged(state: object, run: str = "00/00") -> dict[str, str]:
    """The gate of each number of a run with such a record of its state, by `phase metric`."""
    rows = [
        {"phase": phase, "metric": metric, "value": 100.0, "reason": "", "unit": "1", "source": "derived"}
        for phase, metric in NUMBERS
    ]
    rows += [metric.__dict__ for metric in unmet({"state": state})]
    common = {"run": run, "lower_is_better": None, "samples": None}
    table = judge(records.table("metrics", [{**common, **row} for row in rows]), {})
    return {f"{row['phase']} {row['metric']}": row["gate"] for row in table.to_pylist()}


def withheld(state: object) -> set[str]:
    return {name.split(" ")[1] for name, gate in judged(state).items() if gate}


def test_every_want_shapes_something():
    schema = yaml.safe_load((ROOT / "workflow/schemas/experiment.schema.yaml").read_text())
    assert set(SHAPES) == {*schema["properties"]["state"]["properties"], CLEAN_POWER}
    assert all(SHAPES.values())


@pytest.mark.parametrize(
    ("want", "metrics"),
    [
        ("airplane_mode", {"energy", "power_net", "energy_per_token"}),
        (
            "governor",
            {
                "duration",
                "tokens_per_second",
                "energy",
                "power_net",
                "energy_per_token",
            },
        ),
        ("stop_apps", {"energy", "power_net", "energy_per_token", "system_cpu"}),
        ("animation_scale", {"energy", "power_net", "energy_per_token", "jank_percent"}),
    ],
)
def test_what_a_want_shapes_is_withheld_with_its_reason(want, metrics):
    state = {"wanted": {}, "found": {}, "set": {}, "unmet": {want: "needs root: it is so"}}
    assert withheld(state) == metrics
    assert judged(state)["run energy"] == f"the device was not as wanted ({want}): needs root: it is so"
    # The reason itself is a row of the tables, not a number.
    assert judged(state)[f"run {UNMET}{want}"] == ""


def test_power_that_is_not_clean_withholds_power_alone():
    state = {"wanted": {}, "unmet": {}, "power_not_clean": "the battery's status is Charging"}
    assert withheld(state) == {"energy", "power_net", "energy_per_token"}
    assert "(clean_power): the battery's status is Charging" in judged(state)["run energy"]


@pytest.mark.parametrize(
    "state", [None, {}, [], "no", {"unmet": ["governor"]}, {"unmet": {"anything": "x"}}, {"unmet": {}}]
)
def test_a_state_that_was_met_or_is_no_record_withholds_nothing(state):
    assert withheld(state) == set()
    assert unmet({"state": state}) == []
    assert unmet({}) == []


def test_reasons_are_single_short_clauses():
    [metric] = unmet({"state": {"unmet": {"governor": "a; b\x1b[31m\n" + "x" * 5000}}})
    assert metric.reason.startswith("a, b [31m xxx")
    assert len(metric.reason) == 300
    assert unmet({"state": {"unmet": {"governor": None}}})[0].reason == "None"


def test_the_report_says_what_was_wanted_found_and_met():
    wanted = {"governor": "performance", "animation_scale": 0.5}
    met = {
        "wanted": wanted,
        "found": {"governor": {"policy0": "schedutil"}, "animation_scale": None},
        "unmet": {},
    }
    not_met = {**met, "unmet": {"governor": "needs root: x"}, "power_not_clean": "Charging"}
    found = wishes([("pixel", met), ("pixel", not_met), ("pixel", not_met), ("local", {})])
    assert found["local"] == ()
    governor, scale, clean = found["pixel"]
    assert governor == Wish(
        "governor", "performance", "{policy0: schedutil}", met=1, runs=3, why=("needs root: x",)
    )
    assert (scale.wanted, scale.found, scale.met, scale.why) == ("0.5", "NA", 3, ())
    assert (clean.name, clean.met, clean.why) == ("clean_power", 1, ("Charging",))
    assert wishes([("pixel", {"wanted": 3, "unmet": [], "found": "x"})]) == {"pixel": ()}
