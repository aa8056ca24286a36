"""Whether a workload fits into a device's memory, and whether one that was killed had run out of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pocketvlm.devices.base import Result
from pocketvlm.devices.local import LocalDevice
from pocketvlm.errors import TransientDeviceError, WorkloadError
from pocketvlm.frameworks import memory as adapter_memory
from pocketvlm.frameworks.llamacpp.command import resolve_settings
from pocketvlm.measure import memory
from pocketvlm.measure.jobs import CellFiles, Job
from pocketvlm.measure.runner import Runner
from pocketvlm.measure.store import RawStore
from pocketvlm.provenance import write_json
from pocketvlm.weights.cost import UnknownShapeError

MIB = 1 << 20


def llama(layers: int = 32, width: int = 4096, forward: int = 11008, heads: int = 32) -> dict[str, Any]:
    """The record of a LLaMA of these dimensions at Q4_0, as far as memory asks for it; 7B by default."""
    shapes = {"attn_q": (width, width), "attn_k": (width, width), "attn_v": (width, width)}
    shapes |= {"attn_output": (width, width), "ffn_gate": (width, forward), "ffn_up": (width, forward)}
    shapes |= {"ffn_down": (forward, width)}
    named = {f"blk.{n}.{part}.weight": shape for n in range(layers) for part, shape in shapes.items()}
    named |= {"token_embd.weight": (width, 32000), "output.weight": (width, 32000)}
    tensors = [
        {"name": name, "shape": list(shape), "type": "Q4_0", "bytes": shape[0] * shape[1] * 18 // 32}
        for name, shape in named.items()
    ]
    metadata = {"general.architecture": "llama", "llama.embedding_length": width}
    metadata["llama.attention.head_count"] = heads
    return {"bytes": sum(tensor["bytes"] for tensor in tensors), "metadata": metadata, "tensors": tensors}


def tower(width: int = 1024, heads: int = 16, image: int = 336, size: int = 624_434_400) -> dict[str, Any]:
    metadata = {"general.architecture": "clip", "clip.vision.embedding_length": width}
    metadata |= {"clip.vision.attention.head_count": heads, "clip.vision.image_size": image}
    metadata["clip.vision.patch_size"] = 14
    return {"bytes": size, "metadata": metadata, "tensors": []}


def footprint(model: dict[str, Any], mmproj: dict[str, Any], **settings: Any) -> dict[str, int]:
    records = {"model": model, "mmproj": mmproj}
    found: dict[str, int] = adapter_memory("llamacpp").footprint(records, resolve_settings(settings))
    return found


# What llama.cpp 0.3.16 printed, in MiB: KV buffer; compute buffers of the language model and of the tower.
PRINTED = {
    "llava-1.5-7b": (llama(), tower(), 2048.00, 312.01 + 32.88),
    "mobilevlm-3b": (llama(32, 2560, 6912, 32), tower(), 1280.00, 294.01 + 36.56),
}


@pytest.mark.parametrize("name", PRINTED)
def test_the_formulas_give_the_buffers_that_were_printed(name):
    model, mmproj, cache, compute = PRINTED[name]
    found = footprint(model, mmproj)
    assert found["KV cache"] / MIB == pytest.approx(cache, abs=0.01)
    assert compute <= found["workspace"] / MIB <= 1.03 * compute


def test_the_sum_is_a_little_more_than_what_was_resident():
    total = sum(footprint(llama(), tower()).values()) / MIB
    assert 6482 < total < 1.05 * 6482


def test_the_vocabulary_of_a_small_model_is_its_workspace():
    small = llama(24, 768, 2048, 12)
    for tensor in small["tensors"][-2:]:
        tensor["shape"][1] = 376_000
    found = footprint(small, tower(768, 12, 238))
    assert found["workspace"] / MIB == pytest.approx(737.38 + 8.75, rel=0.02)


def test_settings_change_what_is_needed():
    whole = footprint(llama(), tower())
    half = footprint(llama(), tower(), context=2048)
    small = footprint(llama(), tower(), kv_type_k="q8_0", kv_type_v="q8_0", flash_attention=True)
    assert half["KV cache"] * 2 == whole["KV cache"]
    assert small["KV cache"] == whole["KV cache"] * 34 // 64
    assert small["workspace"] < half["workspace"] < whole["workspace"]


def test_a_shape_that_is_not_understood_is_said_so():
    broken = llama()
    del broken["metadata"]["llama.attention.head_count"]
    with pytest.raises(UnknownShapeError, match=r"attention\.head_count"):
        footprint(broken, tower())
    with pytest.raises(UnknownShapeError, match="no tensors"):
        footprint({"format": 1}, tower())


class Silent:
    """A device that answers each command with what the test says."""

    id = "pixel"

    def __init__(self, meminfo: str = "", log: str = "", fails: bool = False) -> None:
        self.meminfo, self.log, self.fails = meminfo, log, fails

    def shell(self, argv: list[str], timeout: float) -> Result:
        """Answer a question for memory or for the log."""
        if self.fails:
            raise TransientDeviceError("gone", do="look")
        return Result(0, self.meminfo if argv[0] == "cat" else self.log, "")


def meminfo(free_kb: int) -> str:
    return f"MemTotal:       11534336 kB\nMemFree:          512000 kB\nMemAvailable:   {free_kb} kB\n"


@pytest.fixture
def cell(tmp_path: Path) -> CellFiles:
    """A cell of LLaVA-1.5 7B: the records of its weights are there, the weights are not needed."""
    weights = {"model": tmp_path / "model.gguf", "mmproj": tmp_path / "mmproj.gguf"}
    for role, record in (("model", llama()), ("mmproj", tower())):
        write_json(weights[role].with_suffix(".json"), {"format": 1, **record})
    return CellFiles("c", "llamacpp", "0.3.16", tmp_path, weights, {}, {}, {"threads": 8}, {})


def test_what_fits_is_not_mentioned(cell):
    assert memory.unfit(Silent(meminfo(7_500_000)), {"c": cell}, rows=False) == {}  # type: ignore[arg-type]


def test_what_does_not_fit_is_refused_with_the_numbers_and_what_to_do(cell):
    with pytest.raises(WorkloadError) as caught:
        memory.unfit(Silent(meminfo(5_000_000)), {"c": cell}, rows=False)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "pixel" in message
    assert "6.93 GB of memory (weights 4.41, KV cache 2.15, workspace 0.37) and 5.12 GB are free" in message
    assert "smaller context" in message


def test_what_does_not_fit_is_a_row_where_rows_are_wanted(cell):
    found = memory.unfit(Silent(meminfo(5_000_000)), {"c": cell}, rows=True)  # type: ignore[arg-type]
    assert list(found) == ["c"]
    assert "5.12 GB are free" in found["c"]


@pytest.mark.parametrize("said", ["", "MemTotal: 1 kB\n", "MemAvailable: lots kB\n", "x" * 100_000])
def test_a_device_that_tells_no_memory_is_not_held_up(cell, said):
    assert memory.unfit(Silent(said), {"c": cell}, rows=False) == {}  # type: ignore[arg-type]


def test_this_machine_tells_how_much_is_free(tmp_path):
    free = memory.available(LocalDevice("local", tmp_path))
    assert free is not None
    assert 1 << 20 < free < 1 << 50


# As the systems write them; the workload is process 21007.
KILLS = {
    "kernel": "[ 8.4] Out of memory: Killed process 21007 (llama-mtmd-cli) total-vm:9012kB, anon-rss:8kB",
    "older kernel": "<3>[  99.1] Out of memory: Kill process 21007 (llama-mtmd-cli) score 812",
    "control group": "Memory cgroup out of memory: Killed process 21007 (llama-mtmd-cli) total-vm:1kB",
    "driver": "<6>[77.0] lowmemorykiller: Killing 'llama-mtmd-cli' (21007) (tgid 21007), adj 0,",
    "lmkd": "11-22 12:00:01.123   612   612 I lowmemorykiller: Kill 'llama-mtmd-cli' (21007), uid 2000, "
    "oom_score_adj -950 to free 6412345kB rss, 0kB swap; reason: device is low on swap (1024kB < 104857kB)",
    "lmkd, brief": "I/lowmemorykiller(  612): Kill 'llama-mtmd-cli' (21007), uid 2000, oom_score_adj 0",
    "event": "11-22 12:00:01.124   612   612 I killinfo: [21007,2000,-950,0,6412345,2,123456]",
}


@pytest.mark.parametrize("which", KILLS)
def test_a_line_of_a_low_memory_kill_is_found_among_others(which):
    said = f"noise 21007\n{KILLS[which]}\nmore noise\n"
    assert memory.named(said, 21007) == KILLS[which]
    assert memory.named(said, 2100) is None
    assert memory.named(said, 612) is None


@pytest.mark.parametrize(
    "line",
    [
        "11-22 12:00:01.123 1 1 I other: process 21007 has died",
        "I lowmemorykiller: lmkd data connection established",
        "I killinfo: [,2000]",
        "Killed process 21007 (x) by hand",
    ],
)
def test_other_lines_are_no_low_memory_kill(line):
    assert memory.named(line, 21007) is None


def test_a_hostile_log_is_cut_and_quick():
    assert memory.named("lowmemorykiller: Kill '" + "a" * 1_000_000 + "' (21007)", 21007) is None
    line = memory.named(KILLS["kernel"] + " x" * 2000, 21007)
    assert line is not None
    assert len(line) <= 300


IDENTITY = {
    "memory_bytes": 12_000_000_000,
    "sensors": [
        {"name": "mem.available", "group": "memory", "quantity": "memory", "component": "available",
         "scale": 1024.0, "path": "/proc/meminfo", "select": "line:MemAvailable:1"},
    ],
}  # fmt: skip


def recorded(folder: Path, *available_kb: int | str, pid: int = 21007) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "events.jsonl").write_text(json.dumps({"t_us": 1, "event": "start", "pid": pid}) + "\n")
    rows = "".join(f"{number},{value}\n" for number, value in enumerate(available_kb))
    (folder / "memory.csv").write_text(f"t_us,mem.available\n{rows}")
    return folder


def test_the_log_or_the_last_samples_show_it(tmp_path):
    rich = recorded(tmp_path / "rich", 9_000_000, 8_000_000, 7_000_000, "")
    poor = recorded(tmp_path / "poor", 9_000_000, 2_000_000, 300_000, "")
    log = Silent(log=KILLS["lmkd"])
    assert str(memory.low_memory_kill(log, rich, IDENTITY)).startswith("the device's log says: 11-22")  # type: ignore[arg-type]
    for device in (Silent(), Silent(fails=True)):
        assert memory.low_memory_kill(device, rich, IDENTITY) is None  # type: ignore[arg-type]
        told = memory.low_memory_kill(device, poor, IDENTITY)  # type: ignore[arg-type]
        assert told == "0.31 of 12.0 GB were available in the end"


@pytest.mark.parametrize("file", ["events.jsonl", "memory.csv"])
def test_a_broken_record_shows_nothing_and_hides_no_error(tmp_path, file):
    folder = recorded(tmp_path / "run", 300_000)
    (folder / file).write_bytes(b"\xff{}\x00\n[1]\n")
    (folder / "memory.csv").write_text("t_us\n1\n")
    assert memory.low_memory_kill(Silent(), folder, IDENTITY) is None  # type: ignore[arg-type]


class Killed(LocalDevice):
    """This machine, whose log names the workload that it has just killed."""

    pid = 0

    def shell(self, argv: list[str], timeout: float) -> Result:  # type: ignore[override]
        """Answer the question for the log, and run everything else."""
        if "logcat" in argv[-1]:
            return Result(0, KILLS["lmkd"].replace("21007", str(self.pid)), "")
        return super().shell(argv, timeout)


def test_the_error_of_a_killed_workload_names_the_reason(tmp_path, monkeypatch):
    """A stand-in for the workload really is killed by signal 9; a stand-in for the probe records it."""
    device = Killed("pixel", tmp_path / "device")
    (tmp_path / "device").mkdir(parents=True, exist_ok=True)
    runner = Runner(
        device,
        {**IDENTITY, "sensors": IDENTITY["sensors"]},
        tmp_path,
        5,
        RawStore(tmp_path / "raw"),
        tmp_path / "failed",
    )
    runner.remote, runner.sensors = {runner.probe: "probe"}, "sensors"

    def record(argv: object, out: str, gathered: Path) -> None:
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        os.kill(process.pid, signal.SIGKILL)
        device.pid = process.pid
        recorded(gathered, 9_000_000, pid=process.pid)
        ended = {"deadline_hit": False, "truncated": False, "exited": False, "signal": -process.wait()}
        write_json(gathered / "probe.json", ended)

    monkeypatch.setattr(runner, "_record", record)
    job = Job(("x",), {"x": tmp_path / "x"}, {"a": 1})
    runner.remote[tmp_path / "x"] = "x"
    with pytest.raises(WorkloadError) as caught:
        runner.run(job, {}, "c")
    message = str(caught.value)
    assert "was killed by signal 9 because memory ran out: the device's log says:" in message
    assert "lowmemorykiller: Kill 'llama-mtmd-cli'" in message
    assert "smaller context" in message
    assert list((tmp_path / "failed").rglob("probe.json"))
