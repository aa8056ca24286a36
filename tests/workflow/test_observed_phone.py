"""One run on the emulated phone with all that can be watched besides: threads, shell, frames, GPU time."""

from __future__ import annotations

import os
from typing import Any

import pytest
import yaml

from pocketvlm.analyse.gates import judge
from pocketvlm.analyse.metrics import Metric, compute
from pocketvlm.analyse.parse import metric_row
from pocketvlm.analyse.phases import segment
from pocketvlm.analyse.raw import read_run
from pocketvlm.analyse.records import table
from pocketvlm.analyse.sensors import Value
from pocketvlm.devices import open_device
from pocketvlm.devices.adb import AdbDevice
from pocketvlm.devices.identify import identify
from pocketvlm.frameworks.llamacpp.grammar import parse
from pocketvlm.measure.jobs import Job
from pocketvlm.measure.runner import Runner
from pocketvlm.measure.store import RawStore
from tests.probe.recording import built
from tests.project import ROOT

pytestmark = pytest.mark.phone

ACTIVITY = "com.android.settings/.Settings"
# The lines of llama.cpp 0.3.16 that phases are cut at, with a second and more in each phase: what runs is the
# phone's own shell, which no emulator slows down.
SAYS = """
say() { sleep "$1"; printf "$2"; }
say 1.5 'main: loading model: model.gguf\\n'
say 0.2 'encoding image slice...\\n'
say 1.5 'image slice encoded in 1500 ms\\n'
say 0.01 'decoding image batch 1/1, n_tokens_batch = 576\\n'
say 1.5 'image decoded (batch 1/1) in 1500 ms\\n'
say 0.1 '\\n'
for word in a b c d; do say 0.5 " $word"; done
say 0.1 '\\n\\n'
printf 'llama_perf_context_print:        load time =     900.00 ms\\n' >&2
printf 'llama_perf_context_print: prompt eval time =    3200.00 ms /   600 tokens (1 ms per token)\\n' >&2
printf 'llama_perf_context_print:        eval time =    1500.00 ms /     3 runs   (1 ms per token)\\n' >&2
"""


@pytest.fixture(scope="module")
def measured(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[tuple[str, str], Metric], dict[str, str], int]:
    """The metrics of one run by phase and name, its gates by metric, and how many adb calls it took."""
    folder = tmp_path_factory.mktemp("observed")
    cpu = str(min(os.sched_getaffinity(0)))
    config = yaml.safe_load((ROOT / "config/devices/emulated-phone.yaml").read_text())
    config["emulated"]["folder"] = str(folder / "phone")
    bundle = folder / "probe"
    (bundle / "bin").mkdir(parents=True)
    (bundle / "bin/probe").write_bytes(built("aarch64-linux-musl").read_bytes())
    with open_device(config, results=folder) as phone:
        assert isinstance(phone, AdbDevice)
        identity: dict[str, Any] = {
            **identify(phone, config),
            "snapshots": {"gpu_work": ["dumpsys", "gpu", "--gpuwork"]},
        }
        asked = {"shell_ping_ms": 100, "foreground_activity": ACTIVITY}
        runner = Runner(phone, identity, bundle, 60, RawStore(folder / "raw"), folder / "failed", asked)
        inputs = {"settings": {"affinity": cpu}, "responsiveness": asked, "workload": {"max_tokens": 4}}
        job = Job(("sh", "-c", SAYS), {}, inputs, cpu)
        runner.deploy([job])
        before = phone.calls
        stored = runner.run(job, {"role": "measured", "idle": None}, "cell")
        calls = phone.calls - before
    run = read_run(stored.folder)
    assert run.meta["observed"]["missing"] == {}
    report = parse(run.output, max_tokens=4, exact=True)
    metrics = compute(
        run, segment(report.boundaries, run.wall_us), report, identity, idle_power=Value(None), budget=4
    )
    judged = judge(table("metrics", [metric_row(run.name, metric) for metric in metrics]), {})
    gates = {row["metric"]: row["gate"] for row in judged.to_pylist()}
    return {(metric.phase, metric.metric): metric for metric in metrics}, gates, calls


def test_every_metric_of_responsiveness_is_there(measured: Any) -> None:
    metrics, _, _ = measured
    for phase in ("run", "load", "image_encode", "image_prefill", "decode"):
        for name in ("missed_deadlines_60hz", "missed_deadlines_120hz"):
            assert metrics[phase, name].value is not None, (phase, name, metrics[phase, name].reason)
        # A machine that is busy answers fewer pings than a phase of a second and a half needs.
        for name in ("shell_round_trip_p50", "shell_round_trip_p99"):
            one = metrics[phase, name]
            assert one.value is not None or (phase != "run" and "5 are needed" in one.reason)
    for name in ("frames", "jank_percent", "gpu_time_workload", "gpu_time_screen"):
        assert metrics["run", name].value is not None, (name, metrics["run", name].reason)
    assert metrics["run", "shell_round_trip_p50"].value > 0
    assert metrics["run", "frames"].value > 0


def test_no_thread_was_misplaced_and_no_gate_says_so(measured: Any) -> None:
    metrics, gates, _ = measured
    placed = metrics["run", "threads_misplaced"]
    assert (placed.value, placed.reason) == (0.0, "")
    assert placed.samples >= 2, "the shell and the sleep that it starts"
    assert "threads" not in gates["duration"]


def test_a_run_takes_few_calls_besides_its_pings(measured: Any) -> None:
    metrics, _, calls = measured
    pings = metrics["run", "shell_round_trip_p50"].samples
    assert calls - pings < 40
