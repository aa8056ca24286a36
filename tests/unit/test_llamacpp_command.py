"""The command line of llama-mtmd-cli, per version and setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pocketvlm.errors import ConfigError
from pocketvlm.frameworks.llamacpp import command

ROOT = Path(__file__).parents[2]
TABLE = yaml.safe_load((ROOT / "config/frameworks.yaml").read_text())["llama.cpp"]
VERSIONS, BACKENDS = TABLE["versions"], TABLE["backends"]
WORKLOAD = yaml.safe_load((ROOT / "config/workloads/coffee.yaml").read_text())


def argv(version: str = "0.3.16", settings: dict[str, Any] | None = None, **workload: Any) -> list[str]:
    return command.command(
        version=version,
        model={"chat_template": "vicuna"},
        workload={**WORKLOAD, **workload},
        settings=settings or {},
        quirks=VERSIONS[version]["quirks"],
        image_name="coffee.png",
    )


def value(words: list[str], option: str) -> str:
    assert words.count(option) == 1
    return words[words.index(option) + 1]


def test_paths_are_words_of_their_own() -> None:
    words = argv()
    assert words[0] == "@bundle/bin/llama-mtmd-cli"
    assert value(words, "--model") == "@weights/model"
    assert value(words, "--mmproj") == "@weights/mmproj"
    assert value(words, "--image") == "@workload/coffee.png"


@pytest.mark.parametrize(
    ("version", "marker"), [("0.3.9", "<__image__>"), ("0.3.16", "<__media__>"), ("0.3.36", "<__media__>")]
)
def test_the_image_stands_where_the_workload_wants_it(version: str, marker: str) -> None:
    prompt = value(argv(version), "--prompt")
    assert prompt.startswith(f"{marker}\nLook closely")
    prompt = value(argv(version, image_position="last"), "--prompt")
    assert prompt.endswith(f"you feel.\n{marker}")
    assert prompt.count(marker) == 1


def test_the_answer_is_greedy_seeded_and_of_fixed_length() -> None:
    words = argv()
    assert value(words, "--temp") == "0"
    assert value(words, "--seed") == str(WORKLOAD["seed"])
    assert value(words, "--predict") == str(WORKLOAD["max_tokens"])
    assert "--ignore-eos" in words
    assert "--ignore-eos" not in argv(ignore_eos=False)


def test_every_setting_is_passed_even_at_its_default() -> None:
    words = argv()
    for option, expected in {
        "--threads": "1",
        "--threads-batch": "1",
        "--ctx-size": "4096",
        "--batch-size": "2048",
        "--ubatch-size": "512",
        "--cache-type-k": "f16",
        "--cache-type-v": "f16",
    }.items():
        assert value(words, option) == expected


@pytest.mark.parametrize(
    ("version", "setting", "expected", "absent"),
    [
        ("0.3.9", {"mmap": False}, ["--no-mmap"], []),
        ("0.3.16", {"mmap": True}, [], ["--no-mmap"]),
        ("0.3.36", {"mmap": True}, ["--load-mode", "mmap"], ["--no-mmap"]),
        ("0.3.36", {"mmap": False}, ["--load-mode", "none"], ["--no-mmap"]),
        ("0.3.16", {"flash_attention": True}, ["--flash-attn"], ["on"]),
        ("0.3.16", {"flash_attention": False}, [], ["--flash-attn"]),
        ("0.3.36", {"flash_attention": False}, ["--flash-attn", "off"], []),
        ("0.3.36", {"flash_attention": True, "kv_type_v": "q8_0"}, ["--flash-attn", "on"], []),
    ],
)
def test_options_are_spelt_as_the_version_wants(
    version: str, setting: dict[str, Any], expected: list[str], absent: list[str]
) -> None:
    words = argv(version, setting)
    joined = "\0".join(words)
    assert "\0".join(expected) in joined
    assert not set(absent) & set(words)


@pytest.mark.parametrize(
    ("settings", "key", "allowed"),
    [
        ({"thread": 2}, "thread", "threads"),
        ({"threads": 0}, "threads", "from 1"),
        ({"threads": "2"}, "threads", "an integer"),
        ({"threads": True}, "threads", "an integer"),
        ({"mmap": "yes"}, "mmap", "true or false"),
        ({"kv_type_k": "q9_0"}, "kv_type_k", "q8_0"),
        ({"kv_type_v": "q8_0"}, "kv_type_v", "flash_attention: true"),
        ({"batch": 0}, "batch", "from 1"),
    ],
)
def test_a_wrong_setting_names_the_key_and_what_is_allowed(
    settings: dict[str, Any], key: str, allowed: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        argv(settings=settings)
    assert caught.value.where == f"settings.{key}"
    assert allowed in caught.value.do


def test_a_prompt_with_a_marker_of_its_own_is_refused() -> None:
    with pytest.raises(ConfigError, match="marker"):
        argv(prompt="what is <__media__> this?")


def test_an_unknown_position_is_refused() -> None:
    with pytest.raises(ConfigError, match="image_position is 'middle'"):
        argv(image_position="middle")


def test_a_prompt_is_one_word_whatever_is_in_it() -> None:
    nasty = "$(reboot); `id` 'quoted' \"twice\" --seed 7"
    words = argv(prompt=nasty)
    assert value(words, "--prompt").endswith(nasty)
    assert value(words, "--seed") == str(WORKLOAD["seed"])


def test_missing_quirks_and_template_are_named() -> None:
    with pytest.raises(ConfigError, match="lack 'mmap'"):
        command.build_argv(
            binary="b",
            model="m",
            mmproj="p",
            image="i",
            workload=WORKLOAD,
            settings={},
            chat_template="vicuna",
            quirks={"marker": "<__media__>", "flash_attention": {"disabled": []}},
        )
    with pytest.raises(ConfigError, match="chat template"):
        command.command(
            version="0.3.16", model={}, workload=WORKLOAD, settings={}, quirks={}, image_name="x.png"
        )


def on(backend: str, settings: dict[str, Any] | None = None) -> tuple[list[str], dict[str, str]]:
    words = command.command(
        version="0.3.16",
        backend=backend,
        model={"chat_template": "vicuna"},
        workload=WORKLOAD,
        settings=settings or {},
        quirks=VERSIONS["0.3.16"]["quirks"],
        image_name="coffee.png",
    )
    return words, command.environment(backend=backend, settings=settings or {})


def test_the_cpu_is_told_nothing_of_backends() -> None:
    words, environment = on("cpu")
    assert words == argv() and environment == {}


@pytest.mark.parametrize(
    ("backend", "device"), [("lavapipe", "Vulkan0"), ("opencl", "GPUOpenCL"), ("hexagon", "HTP0")]
)
def test_another_backend_is_named_so_that_a_run_without_it_ends(backend: str, device: str) -> None:
    words, environment = on(backend)
    assert value(words, "--device") == device and value(words, "--n-gpu-layers") == "999"
    assert words[: len(argv())] == argv() and environment


def test_a_driver_finds_what_lies_in_the_bundle_and_takes_as_many_threads() -> None:
    _, environment = on("lavapipe", {"threads": 2})
    assert environment["GGML_VK_VISIBLE_DEVICES"] == "0" and environment["LP_NUM_THREADS"] == "2"
    requires = BACKENDS["lavapipe"]["requires"]
    held = {*requires["files"], "lib", *(str(Path(name).parent) for name in requires["files"])}
    named = [text.removeprefix("@bundle/") for text in environment.values() if text.startswith("@bundle/")]
    assert named and set(named) <= held
    assert environment["VK_DRIVER_FILES"] == environment["VK_ICD_FILENAMES"]


def test_every_backend_of_the_table_is_known_and_no_other() -> None:
    for backend in BACKENDS:
        on(backend)
    with pytest.raises(ConfigError, match="does not know the backend 'metal'"):
        on("metal")


RECORDED = sorted((Path(__file__).parents[1] / "fixtures/llamacpp").glob("*/*/00/stderr"))


@pytest.mark.parametrize("stderr", RECORDED, ids=lambda path: path.parts[-4])
def test_recorded_runs_came_to_their_end_and_parts_of_them_did_not(stderr: Path) -> None:
    said = stderr.read_bytes()
    assert command.unfinished(b"an answer", said) is None
    without = b"\n".join(line for line in said.split(b"\n") if b" eval time" not in line or b"prompt" in line)
    for part in (b"", said[: len(said) // 3], without, bytes(range(256)) * 64):
        assert command.unfinished(b"an answer", part) == "ended without its timing block"
