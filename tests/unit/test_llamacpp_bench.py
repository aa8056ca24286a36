"""llama-bench: its command line per version, and what it says of its own results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pocketvlm import frameworks
from pocketvlm.errors import ConfigError, WorkloadError
from pocketvlm.frameworks.llamacpp import bench
from pocketvlm.frameworks.llamacpp.bench import Test as Timed

ROOT = Path(__file__).parents[2]
VERSIONS = yaml.safe_load((ROOT / "config/frameworks.yaml").read_text())["llama.cpp"]["versions"]
DECODE = Timed(prompt=0, answer=39, depth=612, repetitions=2)


def argv(version: str, **settings: Any) -> list[str]:
    return bench.command(backend="cpu", settings=settings, quirks=VERSIONS[version]["bench"], test=DECODE)


def printed(**changes: Any) -> bytes:
    """A line as 0.3.16 prints it with `--output jsonl`, shortened to the fields that matter."""
    result = {
        "build_commit": "4227c9be4", "backends": "CPU", "n_batch": 2048, "n_ubatch": 512, "n_threads": 1,
        "type_k": "f16", "type_v": "f16", "flash_attn": False, "use_mmap": False, "n_gpu_layers": 0,
        "n_prompt": 0, "n_gen": 39,
        "n_depth": 612, "avg_ts": 11.0, "samples_ns": [3_900_000_000, 2_000_000_000],
        "samples_ts": [10.0, 19.5], **changes,
    }  # fmt: skip
    return b"warning: something\r\n" + json.dumps(result).encode() + b"\n"


@pytest.mark.parametrize("version", sorted(VERSIONS))
def test_every_setting_is_passed_explicitly(version: str) -> None:
    words = argv(
        version, threads=3, batch=256, ubatch=64, kv_type_k="q8_0", kv_type_v="q8_0", flash_attention=True
    )
    assert words[0] == "@bundle/bin/llama-bench"
    given = dict(zip(words[1::2], words[2::2], strict=True))
    assert given | {"--flash-attn": "", "--mmap": "", "--load-mode": ""} == {
        "--model": "@weights/model", "--n-prompt": "0", "--n-gen": "39", "--n-depth": "612",
        "--repetitions": "2", "--threads": "3", "--batch-size": "256", "--ubatch-size": "64",
        "--cache-type-k": "q8_0", "--cache-type-v": "q8_0", "--output": "jsonl", "--n-gpu-layers": "0",
        "--flash-attn": "", "--mmap": "", "--load-mode": "",
    }  # fmt: skip


@pytest.mark.parametrize("version", ["0.3.9", "0.3.16"])
def test_older_versions_take_numbers(version: str) -> None:
    assert " --flash-attn 0 --mmap 0 " in " ".join(argv(version))
    assert " --flash-attn 1 --mmap 1 " in " ".join(argv(version, flash_attention=True, mmap=True))


def test_newer_versions_take_words() -> None:
    assert " --flash-attn off --load-mode none " in " ".join(argv("0.3.36"))
    assert " --flash-attn on --load-mode mmap " in " ".join(argv("0.3.36", flash_attention=True, mmap=True))


def test_a_version_that_does_not_say_how_is_named() -> None:
    with pytest.raises(ConfigError, match="lacks 'mmap'"):
        bench.command(backend="cpu", settings={}, quirks={"flash_attention": {"disabled": []}}, test=DECODE)


def test_a_cache_that_the_benchmark_does_not_know_is_named() -> None:
    with pytest.raises(ConfigError, match="no cache of the type f32") as caught:
        argv("0.3.16", kv_type_k="f32")
    assert caught.value.where == "settings.kv_type_k"


@pytest.mark.parametrize(("context", "like"), [(651, True), (900, True), (907, False), (4096, False)])
def test_a_cache_of_another_size_is_unlike(context: int, like: bool) -> None:
    said = bench.unlike({"context": context}, DECODE)
    assert said == ("" if like else f"the cell's cache is for {context} tokens and the benchmark's for 651")


def test_the_rate_is_of_each_repetition() -> None:
    assert bench.rates(printed(), backend="cpu", settings={}, test=DECODE) == pytest.approx([10.0, 19.5])


def test_the_newest_version_says_the_same_in_other_words() -> None:
    line = json.loads(printed().splitlines()[1])
    del line["use_mmap"]
    newer = json.dumps({**line, "flash_attn": 0, "load_mode": "none"}).encode()
    assert bench.rates(newer, backend="cpu", settings={}, test=DECODE) == pytest.approx([10.0, 19.5])
    with pytest.raises(WorkloadError, match="load_mode was 'none'"):
        bench.rates(newer, backend="cpu", settings={"mmap": True}, test=DECODE)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"n_depth": 0}, "n_depth was '0', it was to be 612"),
        ({"n_threads": 2}, "n_threads was '2'"),
        ({"type_v": "q8_0"}, "type_v was 'q8_0'"),
        ({"flash_attn": True}, "flash_attn was 'True'"),
        ({"use_mmap": True}, "use_mmap was 'True'"),
        ({"n_gpu_layers": 99}, "n_gpu_layers was '99', it was to be 0"),
        ({"backends": "Vulkan"}, "backends was 'Vulkan', it was to be 'CPU'"),
        ({"n_ubatch": 2048}, "n_ubatch was '2048'"),
        ({"samples_ns": [1]}, "no list of 2 samples"),
        ({"samples_ns": [1, 0]}, "a sample that is no time"),
        ({"samples_ns": [1, True]}, "a sample that is no time"),
    ],
)
def test_what_was_not_asked_for_is_no_result(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(WorkloadError, match=why):
        bench.rates(printed(**changes), backend="cpu", settings={}, test=DECODE)


@pytest.mark.parametrize("recorded", ["0.3.16", "debian-sid"])
def test_recorded_results_are_understood(recorded: str) -> None:
    """Both were asked for the same, each in its own words."""
    said = (ROOT / f"tests/fixtures/llamacpp/bench/{recorded}.jsonl").read_bytes()
    asked = Timed(prompt=0, answer=7, depth=40, repetitions=2)
    found = bench.rates(said, backend="cpu", settings={}, test=asked)
    # Its own figures, rounded as it prints them.
    assert found == pytest.approx(json.loads(said)["samples_ts"], rel=1e-4)
    assert bench.unfinished(said, b"") is None
    with pytest.raises(WorkloadError, match="n_depth was '40', it was to be 41"):
        bench.rates(said, backend="cpu", settings={}, test=Timed(0, 7, 41, 2))


def test_one_line_of_results_is_a_whole_run() -> None:
    assert bench.unfinished(printed(), b"") is None
    assert bench.unfinished(b"warning\n", b"failed to load model") == "ended without a line of results"
    assert bench.unfinished(b'{"samples_ns": [1,\n', b"") is not None, "a line that was cut short"
    with pytest.raises(WorkloadError, match="printed 2 results"):
        bench.rates(printed() * 2, backend="cpu", settings={}, test=DECODE)


def test_an_adapter_without_a_benchmark_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert frameworks.bench("llamacpp") is bench
    monkeypatch.setitem(frameworks.ADAPTERS, "other", "pocketvlm.weights")
    monkeypatch.setattr(frameworks, "_part", lambda *_: None)
    with pytest.raises(ConfigError, match="has no benchmark of its own"):
        frameworks.bench("other")
