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


def unprovisioned(root: Path, **experiment: Any) -> Path:
    """Add to the smallest experiment a cell whose framework nobody has provisioned; return its file."""
    path = root / "config/experiments/tiny.yaml"
    text = {**yaml.safe_load(path.read_text()), **experiment}
    text["cells"].append(
        {
            **text["cells"][0],
            "framework": "mllm",
            "version": "unstated",
            "quantisation": "Q4_K",
            "settings": {},
        }
    )
    path.write_text(yaml.safe_dump(text))
    return path


def test_a_framework_that_is_not_provisioned_is_refused_unless_rows_are_wanted(root: Path) -> None:
    unprovisioned(root)
    with pytest.raises(ConfigError, match=r"mllm is not provisioned.*cells\.1\.framework.*absent: row"):
        study.load(config("tiny"), root)


def test_a_framework_that_is_not_provisioned_is_a_row_with_the_reason(root: Path) -> None:
    unprovisioned(root, absent="row")
    found = study.load(config("tiny"), root)
    measured, absent = found.records()["cells"]
    assert measured["unavailable"] is None
    assert "mllm is not provisioned" in absent["unavailable"]
    assert absent["adapter"] == "mllm"
    assert found.cells[0].unavailable is None


def test_a_stack_is_one_of_the_papers_and_no_part_of_the_cells_id(root: Path) -> None:
    before = study.load(config("tiny"), root).cells[0].id
    path = root / "config/experiments/tiny.yaml"
    text = yaml.safe_load(path.read_text())
    text["paper"] = "arxiv-2507.08505"
    text["cells"][0]["stack"] = "llava-llamacpp"
    path.write_text(yaml.safe_dump(text))
    found = study.load(config("tiny"), root)
    assert found.records()["paper"] == "arxiv-2507.08505"
    assert [cell["stack"] for cell in found.records()["cells"]] == ["llava-llamacpp"]
    assert found.cells[0].id == before
    text["cells"][0]["stack"] = "llava-lamacpp"
    path.write_text(yaml.safe_dump(text))
    with pytest.raises(ConfigError, match=r"cells\.0\.stack.*Did you mean llava-llamacpp"):
        study.load(config("tiny"), root)


def test_a_stack_without_a_paper_is_refused(root: Path) -> None:
    rewrite(root / "config/experiments/tiny.yaml", stack="llava-llamacpp")
    with pytest.raises(ConfigError, match=r"stack"):
        study.load(config("tiny"), root)


def test_an_unknown_paper_lists_those_there_are(root: Path) -> None:
    path = root / "config/experiments/tiny.yaml"
    path.write_text(path.read_text() + "paper: arxiv-2507.08506\n")
    with pytest.raises(ConfigError, match=r"arxiv-2507\.08505"):
        study.load(config("tiny"), root)


def test_what_is_not_provisioned_has_nothing_to_build(root: Path) -> None:
    path = root / "config/frameworks.yaml"
    text = yaml.safe_load(path.read_text())
    text["llama.cpp"]["unprovisioned"] = "not today"
    path.write_text(yaml.safe_dump(text))
    with pytest.raises(ConfigError, match=r"frameworks\.yaml: llama\.cpp"):
        study.load(config("tiny"), root)


def test_the_cells_of_an_absent_device_keep_reasons_of_their_own(root: Path) -> None:
    unprovisioned(root, absent="row")
    found = study.load(config("tiny"), root).without({"emulated-phone": "no phone is connected"})
    first, second = (cell.unavailable for cell in found.cells)
    assert first == "no phone is connected"
    assert second is not None
    assert "not provisioned" in second
    assert second.endswith("; no phone is connected")
