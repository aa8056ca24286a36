"""The command line of mnn_vlm.py, and the cells that it cannot express."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pocketvlm.config import frameworks
from pocketvlm.errors import ConfigError
from pocketvlm.frameworks import command, memory
from pocketvlm.weights import formats

ROOT = Path(__file__).parents[2]
WORKLOAD = yaml.safe_load((ROOT / "config/workloads/coffee.yaml").read_text())
TABLE = frameworks.load(ROOT / "config/frameworks.yaml")
MODELS = yaml.safe_load((ROOT / "config/models.yaml").read_text())


def argv(settings: dict[str, Any] | None = None, **workload: Any) -> list[str]:
    return command("mnn").command(
        version="3.6.1",
        backend="cpu",
        model={},
        workload={**WORKLOAD, **workload},
        settings=settings or {},
        quirks={},
        image_name="coffee.png",
    )


def after(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


def why_not(backend: str = "cpu", **workload: Any) -> str | None:
    return command("mnn").unavailable(
        model={}, workload={**WORKLOAD, **workload}, settings={}, backend=backend
    )


def test_the_program_runs_in_the_devices_python_without_the_users_own() -> None:
    words = argv({"threads": 2, "memory": "high"})
    assert words[:4] == ["@python", "-I", "-B", "@bundle/bin/mnn_vlm.py"]
    assert after(words, "--model") == "@weights/model"
    assert after(words, "--image") == "@workload/coffee.png"
    assert (after(words, "--threads"), after(words, "--memory"), after(words, "--precision")) == (
        "2",
        "high",
        "normal",
    )
    assert after(words, "--max-tokens") == str(WORKLOAD["max_tokens"])


@pytest.mark.parametrize(("position", "index"), [("first", 0), ("last", 1)])
def test_the_image_stands_where_the_workload_has_it(position: str, index: int) -> None:
    prompt = after(argv(image_position=position, prompt="What is it?"), "--prompt")
    assert prompt.split("\n").index("<img>image_0</img>") == index


def test_a_wrong_setting_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(ConfigError, match="MNN has no setting 'batch'"):
        argv({"batch": 512})
    with pytest.raises(ConfigError, match="precision is 'best'"):
        argv({"precision": "best"})


def test_what_it_cannot_express_is_a_reason() -> None:
    assert why_not() is None
    assert "greedily" in str(why_not(temperature=0.7))
    assert "<img>" in str(why_not(prompt="see <img>/etc/passwd</img>"))
    assert "not on vulkan" in str(why_not("vulkan"))


def test_a_wheel_is_for_this_machine_and_not_for_a_phone() -> None:
    entry = TABLE["mnn"]
    assert frameworks.missing(entry, "3.6.1", "x86_64-linux-musl") is None
    assert "no binaries for riscv64" in str(frameworks.missing(entry, "3.6.1", "riscv64"))
    assert frameworks.without_python(entry, "3.6.1", "local") is None
    for kind in ("adb", "emulated"):
        assert "no Python" in str(frameworks.without_python(entry, "3.6.1", kind))
    assert frameworks.without_python(TABLE["llama.cpp"], "0.3.16", "adb") is None


def test_converted_quantisations_need_nothing_from_the_user(tmp_path: Path) -> None:
    entry = MODELS["synthetic-llava-nano"]
    assert formats.quantisations(entry, "mnn") == ["INT4", "INT8"]
    told = [
        formats.unavailable("nano", entry, q, weights_format="mnn", roles=("model",), folder=tmp_path)
        for q in ("INT8", "INT3")
    ]
    assert told[0] is None
    assert "gives no mnn weights at INT3 (it gives INT4, INT8)" in str(told[1])


def test_the_weights_are_the_least_that_is_held() -> None:
    assert memory("mnn").footprint({"model": {"bytes": 7}}, {}) == {"weights alone": 7}
