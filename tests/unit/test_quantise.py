"""Quantising: the exit status is checked, the result is what was asked for, and a failure leaves nothing."""

from __future__ import annotations

import shlex
from pathlib import Path

import gguf
import numpy as np
import pytest

from pocketvlm.build.toolchains import host_target
from pocketvlm.errors import ConfigError, IntegrityError, WorkloadError
from pocketvlm.weights.quantise import FILE_TYPES, check_type, quantise

ROOT = Path(__file__).parents[2]
BUNDLES = sorted(
    path
    for path in (ROOT / "results/bundles").glob(f"llama.cpp-*-cpu-{host_target()}")
    if (path / "bin/llama-quantize").is_file()
)


def gguf_file(path: Path, kind: int) -> Path:
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_file_type(kind)
    writer.add_tensor("t", np.zeros((4, 4), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tool(path: Path, script: str) -> Path:
    """A program called as llama-quantize is: source, destination, type, threads."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return gguf_file(tmp_path / "model-f16.gguf", FILE_TYPES["F16"])


def copies(tmp_path: Path, kind: int) -> Path:
    ready = gguf_file(tmp_path / "ready.gguf", kind)
    return tool(tmp_path / "llama-quantize", f'cp {shlex.quote(str(ready))} "$2"')


def test_the_result_takes_its_place(tmp_path: Path, source: Path) -> None:
    destination = tmp_path / "deep" / "model-Q4_0.gguf"
    quantise(copies(tmp_path, FILE_TYPES["Q4_0"]), source, destination, "Q4_0", 2)
    check_type(destination, "Q4_0")
    assert [path.name for path in destination.parent.iterdir()] == [destination.name]


def test_the_tool_is_told_what_to_do(tmp_path: Path, source: Path) -> None:
    seen = tmp_path / "seen"
    ready = gguf_file(tmp_path / "ready.gguf", FILE_TYPES["Q8_0"])
    program = tool(
        tmp_path / "q", f'echo "$1 $3 $4" > {shlex.quote(str(seen))}\ncp {shlex.quote(str(ready))} "$2"'
    )
    quantise(program, source, tmp_path / "out" / "m.gguf", "Q8_0", 3)
    assert seen.read_text() == f"{source} Q8_0 3\n"


def test_a_program_that_lost_its_right_to_execute_still_runs(tmp_path: Path, source: Path) -> None:
    program = copies(tmp_path, FILE_TYPES["Q4_0"])
    program.chmod(0o666)
    quantise(program, source, tmp_path / "out" / "m.gguf", "Q4_0", 1)
    assert (tmp_path / "out" / "m.gguf").exists()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            'echo "tensor data is not within the file bounds" >&2; exit 1',
            "status 1.*not within the file bounds",
        ),
        ("kill -SEGV $$", "signal 11"),
        ("exit 3", "status 3.*said nothing"),
    ],
)
def test_a_failing_tool_is_an_error_that_names_the_file(
    tmp_path: Path, source: Path, script: str, message: str
) -> None:
    program = tool(tmp_path / "q", f'echo half > "$2"\n{script}')
    with pytest.raises(WorkloadError, match=message) as caught:
        quantise(program, source, tmp_path / "out" / "m.gguf", "Q4_0", 1)
    assert caught.value.where == str(source)
    assert list((tmp_path / "out").iterdir()) == []


def test_success_without_a_result_is_an_error(tmp_path: Path, source: Path) -> None:
    with pytest.raises(WorkloadError, match="wrote no file"):
        quantise(tool(tmp_path / "q", "exit 0"), source, tmp_path / "out" / "m.gguf", "Q4_0", 1)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_result_of_another_type_is_refused(tmp_path: Path, source: Path) -> None:
    with pytest.raises(IntegrityError, match="file type 7, Q4_0 is 2"):
        quantise(copies(tmp_path, FILE_TYPES["Q8_0"]), source, tmp_path / "out" / "m.gguf", "Q4_0", 1)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_truncated_result_is_refused(tmp_path: Path, source: Path) -> None:
    program = tool(tmp_path / "q", 'printf GGUF > "$2"')
    with pytest.raises(IntegrityError, match="damaged"):
        quantise(program, source, tmp_path / "out" / "m.gguf", "Q4_0", 1)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"GG", b"\x00" * 64, b"<html>"])
def test_a_source_that_is_no_gguf_is_named(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "model-f16.gguf"
    source.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"model-f16\.gguf is no GGUF file"):
        quantise(tmp_path / "never-run", source, tmp_path / "m.gguf", "Q4_0", 1)


def test_an_unknown_quantisation_lists_the_known_ones(tmp_path: Path, source: Path) -> None:
    with pytest.raises(ConfigError, match="Q5_X") as caught:
        quantise(tmp_path / "never-run", source, tmp_path / "m.gguf", "Q5_X", 1)
    assert "Q4_0" in caught.value.do


@pytest.mark.slow
@pytest.mark.skipif(not BUNDLES, reason="no bundle of llama.cpp for this machine in results/bundles")
def test_the_real_tool_quantises_and_refuses_a_damaged_model(tmp_path: Path) -> None:
    import yaml

    from pocketvlm.weights.synthetic import preset_from_config, write

    catalogue = yaml.safe_load((ROOT / "config/models.yaml").read_text())
    preset = preset_from_config("nano", catalogue["synthetic-llava-nano"]["preset"])
    source = tmp_path / "model-f16.gguf"
    write(preset, "model", source)
    program = BUNDLES[-1] / "bin/llama-quantize"
    for quantisation in ("Q4_0", "Q8_0"):
        quantise(program, source, tmp_path / f"{quantisation}.gguf", quantisation, 1)
        check_type(tmp_path / f"{quantisation}.gguf", quantisation)
    assert (tmp_path / "Q4_0.gguf").stat().st_size < (tmp_path / "Q8_0.gguf").stat().st_size
    with source.open("r+b") as stream:
        stream.truncate(source.stat().st_size // 2)
    with pytest.raises(IntegrityError, match="damaged"):
        quantise(program, source, tmp_path / "bad.gguf", "Q4_0", 1)
    assert not (tmp_path / "bad.gguf").exists()
