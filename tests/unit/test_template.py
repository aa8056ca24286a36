"""Command lines that are data: filled in, and refused where a program's own default would decide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pocketvlm.errors import ConfigError
from pocketvlm.frameworks import command, memory
from pocketvlm.weights.cost import UnknownShapeError

ROOT = Path(__file__).parents[2]
WORKLOAD = yaml.safe_load((ROOT / "config/workloads/coffee.yaml").read_text())
MLLM: dict[str, Any] = {
    "arguments": [
        *("--model", "{model}", "--vocab", "{vocabulary}", "--merges", "@bundle/vocabularies/merges.txt"),
        *("--image", "{image}", "--prompt", "{prompt}", "--limits", "{context}", "--thread={threads}"),
        *("--tokens", "{max_tokens}"),
    ],
    "marker": "<image>",
    "prompt": {"first": "<image>\nUSER: {text}\nASSISTANT:"},
    "ignore_eos": ["--ignore-eos"],
}
MLC: dict[str, Any] = {
    "arguments": [
        *("--model", "{model}", "--model-lib", "{library}", "--device", "{device}", "--image", "{image}"),
        *("--prompt", "{prompt}", "--max-gen-len", "{max_tokens}", "--temperature", "{temperature}"),
    ],
    "prompt": {"first": "<image>\n{text}", "last": "{text}\n<image>"},
    "ignore_eos": [],
    "fixed": {"context": 4096, "prefill_chunk": 2048},
}


def argv(
    adapter: str = "mllm",
    settings: dict[str, Any] | None = None,
    change: dict[str, Any] | None = None,
    backend: str = "cpu",
    **workload: Any,
) -> list[str]:
    quirks = {**(MLLM if adapter == "mllm" else MLC), **(change or {})}
    return command(adapter).command(
        version="1",
        backend=backend,
        model={},
        workload={**WORKLOAD, **workload},
        settings=settings or {},
        quirks={name: value for name, value in quirks.items() if value is not None},
        image_name="coffee.png",
    )


def test_fixed_settings_are_names_with_values() -> None:
    with pytest.raises(ConfigError, match=r"fixed is \['context'\]"):
        argv("mlc", change={"fixed": ["context"]})


def value(words: list[str], option: str) -> str:
    assert words.count(option) == 1
    return words[words.index(option) + 1]


def test_an_mllm_program_is_told_everything() -> None:
    words = argv(settings={"threads": 4, "context": 700})
    assert words[0] == "@bundle/bin/mllm"
    assert value(words, "--model") == "@weights/model"
    assert value(words, "--vocab") == "@weights/vocabulary"
    assert value(words, "--merges") == "@bundle/vocabularies/merges.txt"
    assert value(words, "--image") == "@workload/coffee.png"
    assert value(words, "--limits") == "700" and "--thread=4" in words
    assert value(words, "--tokens") == "40" and words[-1] == "--ignore-eos"
    assert "--ignore-eos" not in argv(ignore_eos=False)
    prompt = value(words, "--prompt")
    assert prompt.startswith("<image>\nUSER: Look closely") and prompt.endswith("feel.\nASSISTANT:")


@pytest.mark.parametrize("adapter", ["mlc", "mlcimp"])
def test_an_mlc_program_is_told_everything(adapter: str) -> None:
    words = argv(adapter, backend="opencl", image_position="last")
    assert words[0] == "@bundle/bin/mlc-chat"
    assert value(words, "--model") == "@weights/model" and value(words, "--model-lib") == "@weights/library"
    assert value(words, "--device") == "opencl" and value(words, "--temperature") == "0"
    assert value(words, "--prompt").endswith("feel.\n<image>")
    threads = command(adapter).environment(backend="cpu", settings={"threads": 3})
    assert threads == {"TVM_NUM_THREADS": "3"}


def test_what_stands_in_a_prompt_is_not_filled_in() -> None:
    words = argv(prompt="Say {model} and {nothing} of 100 %")
    assert "USER: Say {model} and {nothing} of 100 %\n" in value(words, "--prompt")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"change": {"arguments": None}}, "have no arguments"),
        ({"change": {"arguments": "--model {model}"}}, "have no arguments"),
        ({"change": {"arguments": [1]}}, "have no arguments"),
        ({"change": {"argments": []}}, "unknown quirk argments"),
        ({"change": {"arguments": [*MLLM["arguments"], "{speed}"]}}, "{speed}, which nothing fills in"),
        ({"change": {"arguments": [w for w in MLLM["arguments"] if w != "{image}"]}}, r"have no {image}"),
        ({"change": {"arguments": [w for w in MLLM["arguments"] if w != "{prompt}"]}}, r"have no {prompt}"),
        ({"change": {"arguments": [w for w in MLLM["arguments"] if w != "{context}"]}}, "program's default"),
        ({"change": {"arguments": [*MLLM["arguments"], "-m{model}"]}}, "a part of the word '-m{model}'"),
        ({"change": {"fixed": {"threads": 4}}}, "among the arguments and fixed"),
        ({"change": {"ignore_eos": None}}, "do not say how"),
        ({"image_position": "last"}, "no form of prompt with the image last"),
        ({"change": {"prompt": {"first": "<image>"}}}, "no form of prompt with the image first"),
        ({"prompt": "what is <image>?"}, "contains the image's marker"),
        ({"settings": {"speed": 1}}, "mllm has no setting 'speed'"),
        ({"settings": {"threads": 0}}, "threads is 0"),
        ({"settings": {"threads": True}}, "threads is True"),
    ],
)
def test_what_cannot_be_expressed_is_refused_with_the_place(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        argv(**changes)
    assert words in str(raised.value) and raised.value.where


def test_what_the_weights_fix_is_not_asked_otherwise() -> None:
    with pytest.raises(ConfigError, match="context is fixed to 4096 and a cell wants 2048"):
        argv("mlc", settings={"context": 2048})
    assert argv("mlc", settings={"context": 4096}) == argv("mlc")


def test_sampling_is_asked_for_or_refused() -> None:
    with pytest.raises(ConfigError, match=r"temperature is 0.7 and the arguments have no \{seed\}"):
        argv("mlc", temperature=0.7)
    words = argv("mlc", temperature=0.7, change={"arguments": [*MLC["arguments"], "--seed", "{seed}"]})
    assert value(words, "--temperature") == "0.7" and value(words, "--seed") == "1"
    without = [word for word in MLC["arguments"] if "temperature" not in word]
    with pytest.raises(ConfigError, match=r"have no \{temperature\}"):
        argv("mlc", change={"arguments": without})
    assert argv("mlc", change={"arguments": without, "fixed": {**MLC["fixed"], "temperature": 0}})


@pytest.mark.parametrize(
    ("adapter", "backend", "workload", "words"),
    [
        ("mllm", "cpu", {}, None),
        ("mllm", "opencl", {}, "compute on the CPU, not with opencl"),
        ("mllm", "cpu", {"temperature": 0.7}, "the workload samples at temperature 0.7"),
        ("mlc", "opencl", {"temperature": 0.7}, None),
        ("mlcimp", "hexagon", {}, "not for hexagon"),
    ],
)
def test_a_cell_that_a_framework_cannot_express_is_a_reason(
    adapter: str, backend: str, workload: dict[str, Any], words: str | None
) -> None:
    why = command(adapter).unavailable(
        model={}, workload={**WORKLOAD, **workload}, settings={}, backend=backend
    )
    assert why == words if words is None else why is not None and words in why


@pytest.mark.parametrize("adapter", ["mllm", "mlc", "mlcimp"])
def test_the_weights_are_the_least_that_a_run_holds(adapter: str) -> None:
    records: dict[str, dict[str, Any]] = {role: {"bytes": 1 << 30} for role in command(adapter).ROLES}
    assert sum(memory(adapter).footprint(records, {}).values()) == 2 << 30
    for wrong in ({}, {"bytes": 0}, {"bytes": "1"}):
        with pytest.raises(UnknownShapeError):
            memory(adapter).footprint({**records, "model": wrong}, {})
