"""The resolved experiment: products of axes, stable ids, and mistakes that name the key and the fix."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from pocketvlm.config import study
from pocketvlm.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of the project's configuration."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    return tmp_path


def config(experiment: str = "demo") -> dict[str, Any]:
    loaded = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    return {**loaded, "experiment": experiment}


def rewrite(path: Path, **changes: Any) -> None:
    """Change keys of the first cell of an experiment."""
    text = yaml.safe_load(path.read_text())
    text["cells"][0].update(changes)
    path.write_text(yaml.safe_dump(text))


def test_the_demo_is_two_devices_with_two_quantisations_each(root: Path) -> None:
    found = study.load(config(), root)
    assert {cell.device for cell in found.cells} == {"emulated-phone", "local"}
    assert [cell.quantisation for cell in found.cells] == ["Q4_0", "Q8_0"] * 2
    assert found.experiment["repeats"] * len(found.cells) == 20


def test_lists_are_axes_of_a_product_settings_too(root: Path) -> None:
    rewrite(
        root / "config/experiments/tiny.yaml",
        quantisation=["Q4_0", "Q8_0"],
        version=["0.3.9", "0.3.16"],
        settings={"threads": [1, 2], "batch": 256},
    )
    found = study.load(config("tiny"), root)
    assert len(found.cells) == 8
    assert len({cell.id for cell in found.cells}) == 8
    assert {cell.settings_text for cell in found.cells} == {"batch=256 threads=1", "batch=256 threads=2"}


def test_an_id_says_what_the_cell_is_and_changes_with_any_of_it(root: Path) -> None:
    first = study.load(config("tiny"), root).cells[0]
    assert first.id.startswith("emulated-phone.llama.cpp-0.3.16-cpu.synthetic-llava-nano-Q4_0.coffee-")
    assert len(first.id.rsplit("-", 1)[1]) == 8
    rewrite(root / "config/experiments/tiny.yaml", settings={"threads": 2})
    second = study.load(config("tiny"), root).cells[0]
    assert first.id.rsplit("-", 1)[0] == second.id.rsplit("-", 1)[0]
    assert first.id != second.id


@pytest.mark.parametrize(
    ("changes", "key", "fix"),
    [
        ({"model": "synthetic-llava-nanu"}, "model", "Did you mean synthetic-llava-nano"),
        ({"device": "emulated-fone"}, "device", "Did you mean emulated-phone"),
        ({"framework": "llama.cp"}, "framework", "Did you mean llama.cpp"),
        ({"version": "0.3.17"}, "version", "0.3.16"),
        ({"backend": "gpu"}, "backend", "cpu"),
        ({"quantisation": "Q4_1"}, "quantisation", "Q4_0"),
        ({"workload": "tea"}, "workload", "coffee"),
        ({"settings": {"thread": 2}}, "settings.thread", "threads"),
        ({"settings": {"threads": "two"}}, "settings.threads", "integer"),
        ({"colour": "blue"}, "colour", "device"),
        ({"quantisation": 4}, "quantisation", "should be"),
    ],
)
def test_a_mistake_in_a_cell_names_the_key_and_the_fix(
    root: Path, changes: dict[str, Any], key: str, fix: str
) -> None:
    rewrite(root / "config/experiments/tiny.yaml", **changes)
    with pytest.raises(ConfigError) as caught:
        study.load(config("tiny"), root)
    message = str(caught.value)
    assert key in message
    assert fix in message
    assert "tiny.yaml" in message


def test_an_unknown_experiment_lists_those_there_are(root: Path) -> None:
    with pytest.raises(ConfigError, match="demo"):
        study.load(config("dema"), root)


def test_a_missing_image_names_the_workload(root: Path) -> None:
    (root / "config/workloads/coffee.png").unlink()
    with pytest.raises(ConfigError, match=r"coffee\.png does not exist"):
        study.load(config(), root)


def test_a_key_written_twice_is_refused(root: Path) -> None:
    path = root / "config/experiments/tiny.yaml"
    path.write_text(path.read_text() + "repeats: 9\n")
    with pytest.raises(ConfigError, match="twice"):
        study.load(config("tiny"), root)


def test_broken_yaml_names_the_line(root: Path) -> None:
    (root / "config/experiments/tiny.yaml").write_text("title: x\ncells: [\n")
    with pytest.raises(ConfigError, match=r"tiny\.yaml:\d"):
        study.load(config("tiny"), root)


def test_a_cell_listed_twice_is_refused(root: Path) -> None:
    path = root / "config/experiments/tiny.yaml"
    text = yaml.safe_load(path.read_text())
    text["cells"] *= 2
    path.write_text(yaml.safe_dump(text))
    with pytest.raises(ConfigError, match="listed twice"):
        study.load(config("tiny"), root)


def test_the_shipped_configuration_has_no_key_that_its_schema_lacks() -> None:
    for path in sorted((ROOT / "config/experiments").glob("*.yaml")):
        study.load(config(path.stem), ROOT)
