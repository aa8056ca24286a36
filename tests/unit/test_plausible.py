"""A number that cannot be is left out with the reason, and one that can be stays."""

from __future__ import annotations

import numpy as np
import pytest

from pocketvlm.analyse.plausible import apart, implausible
from pocketvlm.analyse.raw import Group, Run
from pocketvlm.analyse.sensors import Sensors
from pocketvlm.frameworks import Output


@pytest.mark.parametrize(
    ("quantity", "values", "why"),
    [
        ("temperature", [25.0, 31.5, 48.0], ""),
        ("temperature", [-3.0, -2.9, 0.0, 0.4, 12.0], ""),
        ("temperature", [25.0, 999.0, 25.0], "it read 999 x, which is not between -40 and 150"),
        ("temperature", [-273.0] * 3, "it read -273"),
        ("temperature", [30.0] * 5 + [0.03] * 5, "went from 30 to 0.03 x"),
        ("voltage", [3.7, 3.6], ""),
        ("voltage", [0.0, 3.7], "it read 0"),
        ("voltage", [3700.0] * 3, "it read 3700"),
        ("current", [0.4, 2.5, 0.3], ""),
        ("current", [0.4] * 5 + [0.0004] * 5, "its unit seems to have changed"),
        ("current", [0.0004] * 5 + [0.4] * 5, "its unit seems to have changed"),
        # A burst, and what a phone draws between two.
        ("current", [0.003, 1.4, 0.003, 0.004, 1.2, 0.003], ""),
        ("current", [400.0] * 3, "it read 400"),
        ("gpu_busy", [0.0, 100.0], ""),
        ("gpu_busy", [-1.0], "it read -1"),
        ("charge", [1e9], ""),
        ("temperature", [], ""),
    ],
)
def test_what_can_be_and_what_cannot(quantity: str, values: list[float], why: str) -> None:
    found = implausible(quantity, np.array(values), "x")
    assert (why in found) if why else found == ""


def test_a_zone_in_another_unit_than_its_neighbours() -> None:
    zones = {"a": 25.0, "b": 28.0, "c": 0.045, "d": 0.0, "e": 31.0}
    assert set(apart(zones)) == {"c", "d"}
    assert "0.045 degC where the median of all zones was 25 degC" in apart(zones)["c"]
    assert apart({"a": 25.0, "b": 0.025}) == {}, "of two nobody knows which is right"
    assert apart({"a": 0.5, "b": -2.0, "c": 1.0}) == {}, "in the cold a zone may well be at 0"


def sensors(columns: dict[str, list[float]], missing: str = "") -> Sensors:
    """What a run with these thermal zones, and a battery, makes of them."""
    count = len(next(iter(columns.values())))
    run = Run(
        name="ab/00",
        meta={},
        probe={},
        groups={"g": Group(np.arange(count) * 100_000, {n: np.array(v) for n, v in columns.items()})},
        wake_t_us=np.empty(0, np.int64),
        wake_late_us=np.empty(0, np.int64),
        output=Output(
            stdout=None,  # type: ignore[arg-type]
            stderr=None,  # type: ignore[arg-type]
            wall_us=count * 100_000,
            exited=True,
            status=0,
            signal=None,
            deadline_hit=False,
        ),
        texts=(),
        wall_us=count * 100_000,
    )
    kinds = {"v": ("voltage", "battery", "V"), "i": ("current", "battery", "A")}
    described = []
    for name in columns:
        quantity, component, unit = kinds.get(name, ("temperature", f"cpu.{name}", "degC"))
        described.append(
            {"name": name, "group": "g", "quantity": quantity, "component": component, "unit": unit}
            | {"kind": "gauge", "scale": 1.0, "path": "/x"}
        )
    lacking = [{"quantity": "energy", "component": "rapl", "reason": missing}] if missing else []
    return Sensors(run, {"id": "x", "sensors": described, "missing": lacking})


def test_a_zone_that_was_never_right_is_no_sensor_and_one_that_went_wrong_is_doubted() -> None:
    good = [30.0, 31.0, 32.0, 33.0, 34.0, 35.0]
    never = sensors({"a": good, "b": good, "c": [-273.0] * 6})
    assert [s.name for s in never.find("temperature")] == ["a", "b"]
    assert never.doubtful("temperature", "cpu") == ""
    went = sensors({"a": good, "b": good, "c": [30.0, 31.0, 0.031, 0.032, 0.033, 0.034]})
    assert "c cannot be true: it went from 31 to 0.031 degC" in went.doubtful("temperature", "cpu")
    assert went.doubtful("temperature", "gpu") == ""


def test_power_of_an_impossible_current_is_missing_with_the_reason() -> None:
    found = sensors({"v": [3.7] * 6, "i": [0.5, 0.5, 0.5, 0.0005, 0.0005, 0.0005]}).energy([(0, 600_000)])
    assert found.value is None
    assert found.reason.startswith("i cannot be true: it went from 0.5 to 0.0005 A")
    assert sensors({"v": [3.7] * 6, "i": [0.5] * 6}).energy([(0, 600_000)]).value == pytest.approx(1.11)


def test_power_names_the_sensor_that_could_not_be_read_and_no_other_machines() -> None:
    nothing = [float("nan")] * 6
    found = sensors({"v": [3.7] * 6, "i": nothing}, missing="no RAPL domain").energy([(0, 600_000)])
    assert found.reason == "i could not be read during the run"
