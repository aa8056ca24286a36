"""Every fault: the next start finishes the experiment; nothing is wrong, lost, counted twice or left."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.chaos import bridge, checks, files, host, sensors, storage, workload
from tests.chaos.fault import FAULTS, Fault, Survived
from tests.chaos.scene import Scene

pytestmark = [pytest.mark.phone, pytest.mark.slow]
DECLARED_IN = (bridge, files, host, sensors, storage, workload)


def test_a_fault(
    fault: Fault, point: str, scene: Scene, names: set[tuple[str, str]], survived: Callable[[Survived], None]
) -> None:
    if why := fault.needs():
        pytest.skip(why)
    began, settings = time.monotonic(), checks.settings(scene)
    fault.inject(scene, point)
    scene.end()
    told = fault.told(scene, point)
    scene.mend()
    before, again = checks.raw_runs(scene), None
    if scene.status != 0:
        started = time.monotonic()
        start = scene.start()
        assert start.wait() == 0, start.output[-4000:]
        again = time.monotonic() - started
    scene.leave()
    checks.nothing_stays(scene)
    checks.settings_back(scene, settings)
    checks.nothing_lost(scene, before)
    checks.table_right(scene, set() if fault.sensors else names)
    checks.tables_follow(scene)
    scene.check_expected()
    took = time.monotonic() - began
    survived(Survived(fault.name, point, scene.shown or told, scene.noticed_s or 0.0, again, took))


def test_the_names_are_the_faults_own() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert all(len(set(fault.points)) == len(fault.points) > 0 for fault in FAULTS)
