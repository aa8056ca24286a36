"""Faults of this machine: the workflow killed at every stage, its clock stepped, its disk full."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pocketvlm.provision.cache import cache_root
from tests.chaos.bridge import PADDING
from tests.chaos.fault import fault
from tests.chaos.scene import EXPERIMENT, POINTS, Scene

_LOGS = {
    "parse": f"{EXPERIMENT}.parse_block.chaos-phone",
    "bounds": f"{EXPERIMENT}.compute_bounds.chaos-phone",
    "judge": f"{EXPERIMENT}.judge_block.chaos-phone",
    "aggregate": f"{EXPERIMENT}.aggregate_tables",
}
# The middle of every stage that the experiment has left, and its boundaries: `begins`, `ends`.
_IN_BLOCK = ("phone is up", "push", "idle", "between runs", "run", "pull")
_STAGES = tuple(
    f"{stage} {moment}" for stage in ("measure", *_LOGS) for moment in ("begins", "ends")
) + tuple(f"in {stage}" for stage in _LOGS)
STAGE_POINTS = ("run", "pull", *(p for p in _IN_BLOCK if p not in ("run", "pull")), *_STAGES)


def reach(scene: Scene, point: str) -> None:
    """Start the workflow and wait for a point of any stage."""
    if point in POINTS:
        scene.reach(point)
        return
    scene.start()
    words = point.split()
    stage = words[1] if words[0] == "in" else words[0]
    log = scene.path / f"results/logs/{_LOGS.get(stage, f'{EXPERIMENT}.measure_block.chaos-phone')}.log"
    if words[-1] == "ends":
        scene.until(lambda: _has(log, " done after "), point)
    elif words[-1] == "begins":
        scene.until(lambda: _has(log, " begins, "), point)
    else:
        scene.until(lambda: _has(log, " begins, "), point)
        time.sleep(0.3)


def _has(log: os.PathLike[str], words: str) -> bool:
    with contextlib.suppress(OSError), open(log) as stream:  # noqa: PTH123
        return words in stream.read()
    return False


@fault("workflow killed with its jobs", *STAGE_POINTS, says="")
def _all_killed(scene: Scene, point: str) -> None:
    reach(scene, point)
    scene.hit()
    _kill(scene, os.killpg)


@fault("workflow killed alone and restarted at once", *STAGE_POINTS, says="")
def _restarted(scene: Scene, point: str) -> None:
    reach(scene, point)
    scene.hit()
    _kill(scene, os.kill)


@functools.cache
def _shifter() -> Path:
    """The library that steps the wall clock of whoever preloads it, for this machine."""
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    zig = str(cache_root() / "zig")
    target = f"{platform.machine()}-linux-gnu.2.28"
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target, "-shared", "-fPIC", "-O1"]
    subprocess.run(
        [*command, "-o", str(folder / "shift.so"), str(Path(__file__).with_name("shift.c"))],
        env={**os.environ, "ZIG_GLOBAL_CACHE_DIR": zig, "ZIG_LOCAL_CACHE_DIR": zig},
        check=True,
        capture_output=True,
        timeout=300,
    )
    return folder / "shift.so"


@fault("wall clock stepped back by a day", "run", "push", "between runs", "parse begins", says=None)
def _clock(scene: Scene, point: str) -> None:
    step = scene.path / "step"
    library = _shifter()
    asked = [sys.executable, "-c", "import time; print(time.time())"]
    environment = {"LD_PRELOAD": str(library), "SHIFT_FILE": str(step)}
    step.touch()
    shifted = float(subprocess.run(asked, env=environment, capture_output=True, text=True, check=True).stdout)
    assert 80_000 < time.time() - shifted < 90_000
    step.unlink()
    scene.project.environment |= environment
    if point == "push":
        scene.pad_program(PADDING)
    reach(scene, point)
    step.touch()
    scene.hit()
    scene.later(lambda: [scene.project.environment.pop(name) for name in environment])


def _kill(scene: Scene, how: Callable[[int, int], None]) -> None:
    assert scene.started is not None
    how(scene.started.process.pid, signal.SIGKILL)
