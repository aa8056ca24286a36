"""Tiny versions of the shapes in the real llama.cpp: its quantiser gives the same types, and it answers."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import gguf
import numpy as np
import pytest
import yaml

from pocketvlm.build.toolchains import host_target
from pocketvlm.frameworks.llamacpp.command import build_argv
from pocketvlm.weights import shapes
from tests.tiny_shapes import IMAGE_TOKENS, SHAPES, TEMPLATES

ROOT = Path(__file__).parents[2]
BUNDLES = sorted(
    path
    for path in (ROOT / "results/bundles").glob(f"llama.cpp-0.3.16-cpu-{host_target()}")
    if (path / "bin/llama-mtmd-cli").is_file()
)
WORKLOAD = yaml.safe_load((ROOT / "config/workloads/coffee.yaml").read_text())
QUIRKS = yaml.safe_load((ROOT / "config/frameworks.yaml").read_text())["llama.cpp"]["versions"]["0.3.16"][
    "quirks"
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not BUNDLES, reason="no bundle of llama.cpp 0.3.16 for this machine in results/bundles"
    ),
]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Snakemake's cache takes the right to execute from what it stores.
    folder = tmp_path_factory.mktemp("bin")
    for name in ("llama-mtmd-cli", "llama-quantize"):
        shutil.copyfile(BUNDLES[-1] / "bin" / name, folder / name)
        (folder / name).chmod(0o700)
    return folder


def types_of(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    reader = gguf.GGUFReader(path)
    return {t.name: (t.tensor_type.name, tuple(int(n) for n in t.shape)) for t in reader.tensors}


@pytest.mark.parametrize("quantisation", ["Q4_0", "Q4_K_M", "Q8_0"])
@pytest.mark.parametrize("name", ["llava", "imp"])
def test_types_are_those_that_the_quantiser_gives(
    programs: Path, tmp_path: Path, name: str, quantisation: str
) -> None:
    shape = shapes.shape_from_config(name, SHAPES[name])
    shapes.write(shape, "model-F16", tmp_path / "f16.gguf")
    shapes.write(shape, f"model-{quantisation}", tmp_path / "ours.gguf")
    command = [
        programs / "llama-quantize",
        tmp_path / "f16.gguf",
        tmp_path / "theirs.gguf",
        quantisation,
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert types_of(tmp_path / "ours.gguf") == types_of(tmp_path / "theirs.gguf")


def ask(programs: Path, name: str, model: Path, mmproj: Path) -> tuple[str, str, str]:
    """Return what llama.cpp answers, and its whole output and log."""
    argv = build_argv(
        binary=str(programs / "llama-mtmd-cli"),
        model=str(model),
        mmproj=str(mmproj),
        image=str(ROOT / "config/workloads" / WORKLOAD["image"]),
        workload=WORKLOAD,
        settings={"context": 2048},
        chat_template=TEMPLATES[name],
        quirks=QUIRKS,
    )
    done = subprocess.run(argv, capture_output=True, check=False, timeout=300)
    said, log = done.stdout.decode("utf-8"), done.stderr.decode("utf-8", "replace")
    assert done.returncode == 0, log[-2000:]
    return said.split("image decoded", 1)[1].split("\n", 1)[1].strip(), said, log


@pytest.mark.parametrize("quantisation", ["Q4_0", "Q4_K_M", "Q8_0"])
@pytest.mark.parametrize("name", SHAPES)
def test_it_loads_and_answers(programs: Path, tmp_path: Path, name: str, quantisation: str) -> None:
    shape = shapes.shape_from_config(name, SHAPES[name])
    shapes.write(shape, f"model-{quantisation}", tmp_path / "model.gguf")
    shapes.write(shape, "mmproj-f16", tmp_path / "mmproj.gguf")
    answer, said, log = ask(programs, name, tmp_path / "model.gguf", tmp_path / "mmproj.gguf")
    assert f"n_tokens_batch = {IMAGE_TOKENS[name]}\n" in said
    assert re.search(rf"eval time = .* {WORKLOAD['max_tokens'] - 1} runs", log)
    prompt = re.search(r"prompt eval time = .*?/ +(\d+) tokens", log)
    assert prompt
    # 48 words, 10 marks and what the template adds: as many tokens as a tokenizer of English makes of them.
    assert 65 <= int(prompt[1]) - IMAGE_TOKENS[name] <= 80
    # NaN would be answered with control characters or one character again and again.
    assert answer.isascii()
    assert answer.isprintable()
    words = answer.split()
    # A tiny model may walk in a circle; it does not stand still.
    assert len(set(words)) >= 10


@pytest.mark.parametrize(("name", "run"), [("llava", [True, True, False]), ("imp", [True, True])])
def test_as_many_layers_of_the_tower_run_as_the_documentation_says(
    programs: Path, tmp_path: Path, name: str, run: list[bool]
) -> None:
    shape = shapes.shape_from_config(name, SHAPES[name])
    shapes.write(shape, "model-Q4_0", tmp_path / "model.gguf")
    shapes.write(shape, "mmproj-f16", tmp_path / "mmproj.gguf")
    healthy, *_ = ask(programs, name, tmp_path / "model.gguf", tmp_path / "mmproj.gguf")
    for layer, runs in enumerate(run):
        damaged = tmp_path / f"layer-{layer}.gguf"
        shutil.copyfile(tmp_path / "mmproj.gguf", damaged)
        reader = gguf.GGUFReader(damaged, "r+")
        (weights,) = [t for t in reader.tensors if t.name == f"v.blk.{layer}.ffn_up.weight"]
        weights.data[...] = np.nan
        reader.data.flush()
        answer, *_ = ask(programs, name, tmp_path / "model.gguf", damaged)
        assert (answer != healthy) == runs, layer
