"""Where a run computed: what llama.cpp says of it, and a run that silently went to the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from pocketvlm.analyse import records
from pocketvlm.analyse.gates import judge
from pocketvlm.analyse.metrics import Metric
from pocketvlm.analyse.offload import UNTOLD, offloaded
from pocketvlm.analyse.parse import metric_row
from pocketvlm.frameworks import Offload
from pocketvlm.frameworks.llamacpp.grammar import parse
from tests.unit.handmade import BUDGET, as_0_3_36, output, stderr_0_3_16, stdout_0_3_16

FIXTURES = Path(__file__).parents[1] / "fixtures/llamacpp"
ON_VULKAN = (
    b"ggml_vulkan: Found 1 Vulkan devices:\n"
    b"llama_model_load_from_file_impl: using device Vulkan0 (llvmpipe (LLVM 15.0.6, 256 bits)) "
    b"- 24000 MiB free\n"
    b"load_tensors: offloading 4 repeating layers to GPU\n"
    b"load_tensors: offloaded 5/5 layers to GPU\n"
    b"clip_ctx: CLIP using Vulkan0 backend\n"
)
ON_CPU = (
    b"warning: no usable GPU found, --gpu-layers option will be ignored\nclip_ctx: CLIP using CPU backend\n"
)


def seen(stderr: bytes) -> Offload:
    """What a whole run of 0.3.16 with this on stderr says."""
    report = parse(output(stdout_0_3_16(), [(100, stderr), *stderr_0_3_16()]), max_tokens=BUDGET, exact=True)
    assert report.offload is not None
    return report.offload


def test_layers_tower_and_device_are_read() -> None:
    found = seen(ON_VULKAN)
    assert (found.layers, found.of, found.vision, found.failure) == (5, 5, "Vulkan0", "")
    assert found.device == "Vulkan0 (llvmpipe (LLVM 15.0.6, 256 bits))"


def test_the_newest_version_puts_time_and_level_before_it() -> None:
    stdout, stderr = as_0_3_36()
    lines = b"".join(
        b"\x1b[34m0.00.100.000\x1b[0m \x1b[32mI \x1b[0m" + line
        for line in ON_VULKAN.splitlines(keepends=True)
    )
    report = parse(output(stdout, [(100, lines), *stderr]), max_tokens=BUDGET, exact=True)
    assert report.offload == seen(ON_VULKAN)


@pytest.mark.parametrize("stderr", sorted(FIXTURES.glob("*/*/00/stderr")), ids=lambda path: path.parts[-4])
def test_recorded_runs_on_the_cpu_say_so(stderr: Path) -> None:
    found = seen(stderr.read_bytes())
    assert (found.layers, found.of, found.vision) == (None, None, "CPU")


def test_a_model_cannot_forge_it() -> None:
    """The answer is on stdout, the log on stderr."""
    stdout = [*stdout_0_3_16()[:6], (3_600_000, b" " + ON_VULKAN), *stdout_0_3_16()[7:]]
    report = parse(output(stdout, [(100, ON_CPU), *stderr_0_3_16()]), max_tokens=BUDGET, exact=True)
    assert report.offload is not None and report.offload.layers is None and report.offload.vision == "CPU"


def gate_of(found: Offload | None, backend: str) -> tuple[str, dict[str, float | None]]:
    """The gate of a rate in a run with these findings, and the findings as metrics."""
    metrics = [Metric("decode", "tokens_per_second", 10.0, "1/s", "derived"), *offloaded(found, backend)]
    rows = judge(records.table("metrics", [metric_row("k/00", each) for each in metrics]), {}).to_pylist()
    gate = next(row["gate"] for row in rows if row["metric"] == "tokens_per_second")
    assert not any(row["gate"] for row in rows if row["metric"] != "tokens_per_second"), "evidence stays"
    return gate, {row["metric"]: row["value"] for row in rows if row["phase"] == "run"}


def test_a_run_that_was_there_as_a_whole_passes() -> None:
    gate, metrics = gate_of(seen(ON_VULKAN), "lavapipe")
    assert gate == ""
    assert metrics == {"layers_offloaded": 5, "layers": 5, "vision_offloaded": 1, "not_offloaded": 0}


@pytest.mark.parametrize(
    ("stderr", "why"),
    [
        (ON_CPU, "the vision tower was on the CPU, it said: warning: no usable GPU found"),
        (ON_VULKAN.replace(b"5/5", b"3/5"), "as a whole: 3 of 5 layers were"),
        (
            ON_VULKAN.replace(b"using Vulkan0 backend", b"using CPU backend"),
            "the vision tower was on the CPU",
        ),
        (ON_VULKAN.splitlines()[-1] + b"\n", "its output does not say how many layers were"),
        (ON_VULKAN.replace(b"CLIP", b""), "does not say where the vision tower was"),
    ],
)
def test_one_that_was_not_is_withheld_with_what_was_missing(stderr: bytes, why: str) -> None:
    gate, metrics = gate_of(seen(stderr), "lavapipe")
    assert why in gate and gate.startswith("the run did not compute on lavapipe")
    assert metrics["not_offloaded"] == 1


def test_a_framework_that_never_tells_is_not_withheld() -> None:
    gate, metrics = gate_of(None, "opencl")
    assert gate == "" and set(metrics.values()) == {None}
    assert [row.reason for row in offloaded(None, "opencl")] == [UNTOLD] * 3


def test_the_cpu_needs_no_proof() -> None:
    assert [*offloaded(seen(ON_CPU), "cpu")] == [] and [*offloaded(None, "cpu")] == []
