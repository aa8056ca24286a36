"""llama.cpp to the full: its benchmark beside it, its backends' builds; what compiles only when asked for.

POCKETVLM_TEST_BUILDS=1 compiles three versions, llama-bench and the Vulkan backend and measures with them.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml

from pocketvlm.build.requires import provide
from pocketvlm.build.toolchains import host_driver_target, host_target, resolve
from pocketvlm.config import frameworks
from pocketvlm.frameworks import command
from pocketvlm.provenance import sha256_file, write_json
from tests.experiments import cell_text, experiment_text
from tests.workflow.conftest import Project

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

builds = pytest.mark.skipif(
    os.environ.get("POCKETVLM_TEST_BUILDS") != "1",
    reason="compiles for minutes: set POCKETVLM_TEST_BUILDS=1",
)

# A stand-in for llama-mtmd-cli of 0.3.16: its lines in its order, and a token every 20 ms.
CLI = """\
echo 'main: loading model: model.gguf'
sleep 0.05
echo 'encoding image slice...'
sleep 0.15
echo 'image slice encoded in 150 ms'
echo 'decoding image batch 1/1, n_tokens_batch = 144'
sleep 0.2
echo 'image decoded (batch 1/1) in 200 ms'
sleep 0.05
echo
for _ in $(seq 40); do printf ' a'; sleep 0.02; done
printf '\\n\\n'
echo 'llama_perf_context_print: prompt eval time =     400.00 ms /   184 tokens' >&2
echo 'llama_perf_context_print:        eval time =     780.00 ms /    39 runs' >&2"""
# A stand-in for llama-bench: it sleeps as long for each token, and tells what it was asked for and a time.
BENCH = """\
while [ $# -gt 0 ]; do
  case $1 in
    --n-prompt) p=$2 ;; --n-gen) n=$2 ;; --n-depth) d=$2 ;; --threads) t=$2 ;;
    --batch-size) b=$2 ;; --ubatch-size) u=$2 ;;
  esac
  shift
done
start=$(date +%s%N)
for _ in $(seq "$n"); do sleep 0.02; done
[ "$n" -gt 0 ] || sleep 0.2
took=$(( ($(date +%s%N) - start) / FASTER ))
printf '{"n_prompt": %s, "n_gen": %s, "n_depth": %s, "n_threads": %s, ' "$p" "$n" "$d" "$t"
printf '"n_batch": %s, "n_ubatch": %s, "type_k": "f16", "type_v": "f16", ' "$b" "$u"
printf '"flash_attn": false, "use_mmap": false, "n_gpu_layers": 0, "backends": "CPU", '
printf '"samples_ns": [ %s ]}\\n' "$took"
"""


# The other rules would make the stand-ins anew.
CHECK = [
    *("check_bench", "--allowed-rules", "check_bench", "tabulate_bench", "measure_bench"),
    *("resolve_experiment", "identify_device", "build_probe"),
]


def put(project: Project, bundle: str, program: str, script: str) -> None:
    """Put a shell script in the place of a bundle's program."""
    folder = project.path / f"results/bundles/{bundle}"
    path = folder / "bin" / program
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    file = {"sha256": sha256_file(path), "bytes": path.stat().st_size, "mode": "0755"}
    manifest = {"format": 1, "name": bundle, "target": host_target(), "files": {f"bin/{program}": file}}
    write_json(folder / "manifest.json", manifest)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_benchmark_runs_in_turn_with_the_cell_and_is_held_against_it(project: Project) -> None:
    text = "bench: {rounds: 3, tolerance_percent: 50}\n" + experiment_text("stand-ins", cell_text())
    (project.path / "config/experiments/held.yaml").write_text(text)
    # A stand-in reports the same times whatever they were, and works for a moment only.
    project.edit("config/config.yaml", "agreement_percent: 2\n", "agreement_percent: 500\n")
    project.edit("config/config.yaml", "min_phase_ms: 100", "min_phase_ms: 10")
    weights = project.path / "results/weights/synthetic-llava-nano"
    weights.mkdir(parents=True)
    for name in ("mmproj-f16", "model-Q4_0"):
        (weights / f"{name}.gguf").write_bytes(name.encode())
        record = {"format": 1, "sha256": sha256_file(weights / f"{name}.gguf")}
        write_json(weights / f"{name}.json", record)
    build = f"llama.cpp-0.3.16-cpu-{host_target()}"
    put(project, build, "llama-mtmd-cli", CLI)
    put(project, f"bench-{build}", "llama-bench", BENCH.replace("FASTER", "1"))
    done = project.snakemake(*CHECK, experiment="held")
    assert done.returncode == 0, done.stdout[-3000:]
    assert "decode observed" in done.stdout and "at depth 184" in done.stdout
    table = {row["quantity"]: row for row in rows(project.path / "results/held/bench/agreement.csv")}
    assert (table["decode"]["n"], table["decode"]["tokens"], table["decode"]["verdict"]) == (
        "3",
        "39",
        "within",
    )
    assert (table["prefill"]["tokens"], table["prefill"]["verdict"]) == ("144", "not judged")
    assert 0.5 < float(table["decode"]["ci_low"]) <= float(table["decode"]["ratio"])
    assert len(rows(project.path / "results/held/bench/runs.csv")) == 6
    runs = project.raw_runs("bench")
    assert len(runs) == 9 and project.raw_runs() == {}, "nothing else is measured"
    assert len(project.raw_runs("warmup")) == 1
    # Both in each round, in turn.
    order = sorted(runs.values(), key=lambda meta: int(str(meta["position"])))
    assert [meta["round"] for meta in order] == [1, 1, 1, 2, 2, 2, 3, 3, 3]

    # A benchmark that finds three times the speed: other bytes, so other runs, and an error with numbers.
    put(project, f"bench-{build}", "llama-bench", BENCH.replace("FASTER", "3"))
    done = project.snakemake(*CHECK, "--forcerun", "measure_bench", experiment="held")
    assert done.returncode != 0 and "Traceback" not in done.stdout
    assert "check_bench failed: " in done.stdout and "50 % allowed" in done.stdout
    assert len(project.raw_runs("bench")) == 18


def test_what_a_phones_gpu_needs_is_told_before_anything_is_done(project: Project) -> None:
    project.environment |= {"OPENCL_SDK_ROOT": "", "ANDROID_NDK_HOME": ""}
    text = experiment_text(
        "a phone's GPU", cell_text(device="oneplus13r", version='"0.3.36"'), absent="refuse"
    )
    (project.path / "config/experiments/gpu.yaml").write_text(text.replace("backend: cpu", "backend: opencl"))
    done = project.snakemake("-n", "all", experiment="gpu")
    assert done.returncode != 0 and "Traceback" not in done.stdout
    assert "building for opencl needs Khronos' OpenCL headers" in done.stdout
    assert "OPENCL_SDK_ROOT" in done.stdout and "include/CL/cl.h" in done.stdout
    # With it, and without an NDK: the next thing is named.
    sdk = project.path / "sdk"
    for name in ("include/CL/cl.h", "lib/libOpenCL.so"):
        (sdk / name).parent.mkdir(parents=True, exist_ok=True)
        (sdk / name).write_text("")
    project.environment["OPENCL_SDK_ROOT"] = str(sdk)
    done = project.snakemake("-n", "all", experiment="gpu")
    assert done.returncode != 0 and "ANDROID_NDK_HOME is not set" in done.stdout


def test_a_phone_gets_programs_that_can_load_its_driver(project: Project) -> None:
    text = experiment_text("a phone's GPU", cell_text(device="oneplus13r", version='"0.3.36"'), absent="row")
    (project.path / "config/experiments/gpu.yaml").write_text(text.replace("backend: cpu", "backend: opencl"))
    bundle = "results/bundles/llama.cpp-0.3.36-opencl-aarch64-linux-android"
    planned = project.snakemake("-n", bundle, experiment="gpu")
    assert planned.returncode == 0, planned.stdout[-3000:]
    assert "backend=opencl, target=aarch64-linux-android" in planned.stdout
    # An emulated phone has no driver to load.
    text = experiment_text("no driver", cell_text(device="emulated-phone"))
    (project.path / "config/experiments/gpu.yaml").write_text(text.replace("backend: cpu", "backend: opencl"))
    done = project.snakemake("-n", "all", experiment="gpu")
    assert (
        done.returncode != 0 and "loads a driver of the device, and emulated-phone names none" in done.stdout
    )


@builds
@pytest.mark.parametrize("experiment", ["llamacpp-versions", "llamacpp-axes"])
def test_versions_and_settings_are_measured_side_by_side(project: Project, experiment: str) -> None:
    done = project.snakemake("all", "verify", experiment=experiment)
    assert done.returncode == 0, done.stdout[-4000:]
    rates = [
        row
        for row in rows(project.path / f"results/{experiment}/tables/cells.csv")
        if (row["phase"], row["metric"]) == ("decode", "tokens_per_second")
    ]
    assert len(rates) >= 3 and all(row["median"] for row in rates)
    if experiment == "llamacpp-versions":
        assert {row["version"] for row in rates} == {"0.3.9", "0.3.16", "0.3.36"}


@builds
def test_observed_decoding_is_as_fast_as_llama_bench_says(project: Project) -> None:
    done = project.snakemake("check_bench", experiment="bench")
    assert done.returncode == 0, done.stdout[-4000:]


# Asks Vulkan's loader for its devices; nothing is compiled for it.
DEVICES = """
import ctypes
loader = ctypes.CDLL("libvulkan.so.1")
wanted = (ctypes.c_uint64 * 8)(1)  # VkInstanceCreateInfo: its type and nothing else
instance, count = ctypes.c_void_p(), ctypes.c_uint32()
assert loader.vkCreateInstance(wanted, None, ctypes.byref(instance)) == 0
assert loader.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), None) == 0
devices = (ctypes.c_void_p * count.value)()
assert loader.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), devices) == 0
for device in devices:
    about = ctypes.create_string_buffer(4096)  # VkPhysicalDeviceProperties: four numbers, a kind, a name
    loader.vkGetPhysicalDeviceProperties(ctypes.c_void_p(device), about)
    print(about.raw[20:276].split(b"\\0")[0].decode())
"""


@builds
def test_the_driver_that_a_bundle_takes_along_is_found_by_its_environment(tmp_path: Path) -> None:
    toolchains = yaml.safe_load((ROOT / "config/toolchains.yaml").read_text())
    table = frameworks.load(ROOT / "config/frameworks.yaml")["llama.cpp"]
    provided = provide(
        table["backends"]["lavapipe"]["requires"],
        backend="lavapipe",
        toolchain=resolve(toolchains, host_driver_target()),
        root=tmp_path,
        host=partial(resolve, toolchains, host_target()),
    )
    bundle = tmp_path / "bundle"
    provided.take_along(bundle)
    variables = command("llamacpp").environment(backend="lavapipe", settings={})
    here = {name: value.replace("@bundle", str(bundle)) for name, value in variables.items()}
    done = subprocess.run(
        [sys.executable, "-c", DEVICES], env={**os.environ, **here}, capture_output=True, text=True
    )
    assert "llvmpipe" in done.stdout and len(done.stdout.splitlines()) == 1, done.stderr


@builds
def test_vulkan_runs_as_a_whole_on_a_software_driver(project: Project) -> None:
    done = project.snakemake("all", experiment="vulkan-local")
    assert done.returncode == 0, done.stdout[-4000:]
    found = {
        row["metric"]: row
        for row in rows(project.path / "results/vulkan-local/tables/cells.csv")
        if row["backend"] == "lavapipe" and row["phase"] == "run"
    }
    assert found["layers_offloaded"]["median"] == found["layers"]["median"] != ""
    assert float(found["vision_offloaded"]["median"]) == 1 and float(found["not_offloaded"]["median"]) == 0
