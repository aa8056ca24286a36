"""What a search chose, handed back to an experiment: which cells get it, and mistakes that name the fix."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from pocketvlm.config import study
from pocketvlm.errors import ConfigError

ROOT = Path(__file__).parents[2]
CHOSEN: dict[str, Any] = {
    "format": 1,
    "experiment": "tune-local",
    "for": {
        "device": "local",
        "framework": "llama.cpp",
        "version": "0.3.16",
        "backend": "cpu",
        "model": "synthetic-llava-mini",
    },
    "workload": "coffee",
    "chosen": "threads=2 batch=128",
    "reason": "it is faster",
    "quantisation": "Q8_0",
    "settings": {"threads": 2, "ubatch": 128, "affinity": None},
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of the project's configuration."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    return tmp_path


def load(root: Path, chosen: dict[str, Any] | None = CHOSEN, **changes: Any) -> study.Study:
    """Load the demo with keys of its second cell, that of this machine, changed, and an overlay."""
    path = root / "config/experiments/demo.yaml"
    text = yaml.safe_load(path.read_text())
    text["cells"][1].update(changes)
    path.write_text(yaml.safe_dump(text))
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    if chosen is not None:
        (root / "chosen.yaml").write_text(yaml.safe_dump(chosen))
        config["tuned"] = "chosen.yaml"
    return study.load(config, root)


def told(found: study.Study) -> list[tuple[str, str, str]]:
    return [(cell.device, cell.quantisation, cell.settings_text) for cell in found.cells]


PHONE = [("emulated-phone", name, "threads=1") for name in ("Q4_0", "Q8_0")]


def test_cells_that_it_is_for_get_settings_and_quantisation(root: Path) -> None:
    found = load(root, settings={"threads": 1, "context": 2048, "affinity": "0"})
    assert told(found) == [*PHONE, ("local", "Q8_0", "context=2048 threads=2 ubatch=128")]
    again = load(root, None, settings={"threads": 2, "context": 2048, "ubatch": 128}, quantisation="Q8_0")
    assert found.cells[-1].id == again.cells[-1].id, "a tuned cell is the cell that it would be by hand"


def test_cells_that_ask_get_it_and_no_others(root: Path) -> None:
    path = root / "config/experiments/demo.yaml"
    text = yaml.safe_load(path.read_text())
    text["cells"].append({**text["cells"][1], "settings": "tuned"})
    path.write_text(yaml.safe_dump(text))
    plain = [("local", name, "threads=1") for name in ("Q4_0", "Q8_0")]
    tuned = [("local", name, "threads=2 ubatch=128") for name in ("Q4_0", "Q8_0")]
    assert told(load(root)) == [*PHONE, *plain, *tuned], "the quantisation is the cell's own"
    assert told(load(root, quantisation="tuned"))[2:3] == [("local", "Q8_0", "threads=1")]


def test_an_archive_of_a_tuned_experiment_needs_no_overlay(root: Path) -> None:
    found = load(root, settings="tuned", quantisation="tuned")
    assert found.experiment["cells"][-1]["settings"] == {"threads": 2, "ubatch": 128}


@pytest.mark.parametrize(
    ("chosen", "changes", "message"),
    [
        (None, {"settings": "tuned"}, r"asks for settings .* none are given .*cells\.1.*--config tuned="),
        (
            CHOSEN,
            {"version": "0.3.9"},
            "no cell is one that chosen.yaml is for: device local, .*version 0.3.16",
        ),
        (CHOSEN, {"settings": "tuned", "version": "0.3.9"}, r"these are for device local.*cells\.1"),
        (
            {**CHOSEN, "chosen": None, "settings": None, "quantisation": None, "reason": "all too hot"},
            {},
            "the search of tune-local chose nothing: all too hot .*Raise its limits",
        ),
        ({**CHOSEN, "extra": 1}, {}, "the key 'extra' is not known .*chosen.yaml"),
        ({**CHOSEN, "settings": {"threads": 0}}, {}, "threads is 0 .*demo.yaml: cells"),
    ],
)
def test_a_mistake_says_what_to_do(
    root: Path, chosen: dict[str, Any] | None, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load(root, chosen, **changes)


def test_an_overlay_that_is_not_there_is_told(root: Path) -> None:
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    with pytest.raises(ConfigError, match=r"there is no such file .*nowhere\.yaml"):
        study.load({**config, "tuned": "nowhere.yaml"}, root)
