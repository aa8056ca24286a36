"""What a search may try: the device's cores, the adapter's axes, mistakes that name the key and the fix."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from pocketvlm import frameworks
from pocketvlm.config import study, tuning
from pocketvlm.config.space import Space, affinities
from pocketvlm.devices.topology import Topology, parse
from pocketvlm.errors import ConfigError, DeviceError
from tests.unit.tuning_cases import PHONE, space_of

ROOT = Path(__file__).parents[2]
TOLD = "".join(f"S {cpu} {cpu}\nC {cpu} {1024 if cpu == 7 else 400}\n" for cpu in range(8))
CLOCKS = "F 0,1,2,3 2000000\nF 4,5,6 2800000\nF 7 3300000\n"


def test_cores_are_told_by_siblings_and_classes_by_clock() -> None:
    assert parse(TOLD + CLOCKS, 8) == PHONE
    assert Topology.of(PHONE.plain()) == PHONE and PHONE.cpus == 8
    threaded = parse("S 0 0,2\nS 1 1,3\nS 2 0,2\nS 3 1,3\n", 4)
    assert threaded.cores == ((0, 2), (1, 3)) and threaded.classes == ((0, 1, 2, 3),)


def test_without_clocks_capacities_tell_and_without_both_all_are_alike() -> None:
    assert parse(TOLD, 8).classes == ((7,), (0, 1, 2, 3, 4, 5, 6))
    assert parse("F 0,1 2000000\n", 4).classes == ((0, 1, 2, 3),), "half of the clocks tell nothing"
    nearly = parse("S 0 0\nS 1 1\nF 0 4800000\nF 1 4900000\n", 2)
    assert nearly.classes == ((0, 1),), "a favoured core is no class of its own"


@pytest.mark.parametrize("printed", ["", "S x 0\nS 0\nC 0 many\nF 0-9999 1\nnonsense", "S 0 0-3\nS 1 1\n"])
def test_what_cannot_be_is_left_out(printed: str) -> None:
    found = parse(printed, 2)
    assert found == Topology(((0,), (1,)), ((0, 1),))


def test_a_device_without_cpus_is_refused() -> None:
    with pytest.raises(DeviceError, match="names no CPU"):
        parse("", 0)


def test_auto_follows_the_cores() -> None:
    assert affinities(PHONE) == ["any", "7", "4-7"]
    assert affinities(Topology(((0, 2), (1, 3)), ((0, 1, 2, 3),))) == ["any", "0-1"]
    assert frameworks.tuning("llamacpp").candidates("threads", PHONE) == [1, 4, 8]
    found = space_of({"threads": "auto", "affinity": "auto"})
    assert {each.name for each in found.candidates} == {
        "threads=1 affinity=any", "threads=4 affinity=any",
        "threads=1 affinity=7", "threads=1 affinity=4-7", "threads=4 affinity=4-7",
    }  # fmt: skip
    assert found.left_out["threads=8 affinity=4-7"].startswith("8 threads would share 4 CPUs")


def test_the_defaults_are_the_frameworks_own_and_no_candidate() -> None:
    found = space_of({"threads": [1, 8], "batch": "auto", "cache": "auto"}, settings={"context": 2048})
    assert found.defaults.settings == {
        "batch": 2048, "ubatch": 512, "context": 2048, "flash_attention": False,
        "kv_type_k": "f16", "kv_type_v": "f16", "threads": 8,
    }  # fmt: skip
    assert "threads=8 batch=512 cache=f16" not in {each.name for each in found.candidates}
    assert len(found.candidates) == 2 * 3 * 2 - 1
    quantised = next(each for each in found.candidates if each.name == "threads=8 batch=128 cache=q8_0")
    assert quantised.settings["flash_attention"] is True and quantised.settings["ubatch"] == 128
    newer = space_of({"cache": "auto"}, quirks={"defaults": {"flash_attention": True}})
    assert newer.defaults.settings["flash_attention"] is True


def test_the_defaults_of_every_version_are_settings() -> None:
    table = yaml.safe_load((ROOT / "config/frameworks.yaml").read_text())
    for version in table["llama.cpp"]["versions"].values():
        found = space_of({"flash_attention": "auto", "mmap": "auto"}, quirks=version["quirks"])
        assert len(found.candidates) == 3 and found.defaults.settings["mmap"] is True


def test_an_affinity_of_the_cell_stays_unless_it_is_varied() -> None:
    settings = {"affinity": "4-7"}
    assert space_of({"threads": [1, 4]}, settings=settings).defaults.settings["affinity"] == "4-7"
    varied = space_of({"threads": [1], "affinity": ["any", "7"]}, settings=settings)
    assert "affinity" not in varied.defaults.settings
    assert [each.settings.get("affinity") for each in varied.candidates] == [None, "7"]


def test_combinations_that_contradict_each_other_are_left_out_with_the_reason() -> None:
    found = space_of({"cache": ["f16", "q8_0"], "flash_attention": [False, True]})
    names = {each.name for each in found.candidates}
    assert names == {"cache=f16 flash_attention=true", "cache=q8_0 flash_attention=true"}
    assert "another axis says otherwise" in found.left_out["cache=q8_0 flash_attention=false"]
    assert Space.of(found.plain()) == found


def test_what_a_value_brings_along_leaves_the_cells_wish() -> None:
    found = space_of({"cache": ["f16", "q8_0"]}, settings={"flash_attention": True})
    assert found.defaults.settings["flash_attention"] is True, "no axis varies it"
    (quantised,) = found.candidates
    assert quantised.settings["flash_attention"] is True
    varied = space_of({"cache": ["f16"], "flash_attention": "auto"}, settings={"flash_attention": True})
    assert varied.defaults.settings["flash_attention"] is False


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"cache": ["f16", "q8 0"]}, "cache=q8 0 cannot be run in any combination: kv_type_k is 'q8 0'"),
        ({"affinity": [" 0-99"], "threads": [1]}, "affinity= 0-99 cannot be run .* has no CPU 8"),
        ({"thread": [1]}, "there is no axis 'thread' .*tune.axes.thread.* Did you mean threads"),
        ({"threads": ["many"]}, r"threads=many cannot be run in any combination: threads is 'many'. Give an"),
        ({"threads": [1, 99]}, r"threads=99 cannot be run .* 99 threads would share 8 CPUs.*Remove it"),
        ({"batch": [True]}, "batch=true cannot be run in any combination"),
        ({"cache": ["q9"]}, "cache=q9 cannot be run in any combination: kv_type_k is 'q9'"),
        ({"quantisation": ["Q5"]}, "the quantisation 'Q5' is not known .*Use one of: Q4_0, Q8_0"),
        ({"affinity": ["all"]}, "'all' is no list of CPUs .*or any"),
        ({"affinity": ["any", "0-9"]}, "affinity=0-9 cannot be run .* has no CPU 8"),
        ({"kv_type_k": "auto"}, "nothing is known of kv_type_k that auto could mean .*Give a list"),
        ({"threads": [8]}, "nothing but the framework's defaults .*Give more values"),
        ({"ubatch": list(range(1, 72)), "batch": list(range(72, 144))}, r"5112 combinations, at most 5000"),
    ],
)
def test_a_mistake_names_the_axis_and_the_fix(axes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        space_of(axes)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of the project's configuration."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    return tmp_path


def wanted(root: Path, experiment: str = "tune-tiny", **changes: Any) -> tuning.Tuning | None:
    """Return the search of an experiment, some keys of its file changed; `tune_…` are keys of its `tune`."""
    path = root / f"config/experiments/{experiment}.yaml"
    text = yaml.safe_load(path.read_text())
    for name, value in changes.items():
        of, key = (text["tune"], name.removeprefix("tune_")) if name.startswith("tune_") else (text, name)
        of[key] = value
    path.write_text(yaml.safe_dump(text))
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    return tuning.wanted(study.load({**config, "experiment": experiment}, root))


@pytest.mark.parametrize("name", ["tune-tiny", "tune-local"])
def test_the_shipped_searches_are_valid_on_any_number_of_cores(root: Path, name: str) -> None:
    found = wanted(root, name)
    assert found is not None and tuning.of_plain(found.plain()) == found
    assert found.wanted["runs"] <= 64
    for cpus in (2, 8, 64):
        assert found.space(Topology(tuple((cpu,) for cpu in range(cpus)), (tuple(range(cpus)),))).candidates


def test_an_experiment_without_a_search_has_none_and_says_what_to_write(root: Path) -> None:
    path = root / "config/experiments/tune-tiny.yaml"
    text = yaml.safe_load(path.read_text())
    del text["tune"]
    path.write_text(yaml.safe_dump(text))
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    assert tuning.wanted(study.load({**config, "experiment": "tune-tiny"}, root)) is None
    with pytest.raises(
        ConfigError, match=r"asks for no search .*Add `tune: .*choose one that has it: tune-l"
    ):
        tuning.require(text, "tune-tiny", path.parent)


def test_quantisations_are_known_before_anything_is_made(root: Path) -> None:
    found = wanted(root, "tune-local")
    assert found is not None and list(found.quantised) == ["Q4_0", "Q8_0"]
    one = wanted(root, "tune-tiny")
    assert one is not None and list(one.quantised) == ["Q4_0"]


CELL = yaml.safe_load((ROOT / "config/experiments/tune-tiny.yaml").read_text())["cells"][0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cells": [{**CELL, "quantisation": ["Q4_0", "Q8_0"]}]}, "has 2 cells, and a search is for one"),
        (
            {"warmups": {"least": 1, "most": 3, "cv_percent": 2, "window": 2}},
            "number of warm-ups is left open .*Give a number",
        ),
        ({"tune_axes": {"treads": "auto"}}, "there is no axis 'treads' .*tune-tiny.yaml: tune.axes.treads"),
        ({"tune_axes": {}}, "tune.axes"),
        ({"tune_axes": {"threads": "all"}}, "'all' cannot stand here .*tune.axes.threads.*auto, or a list"),
        ({"tune_runs": 3}, "3 is less than the minimum of 10 .*tune.runs"),
        ({"tune_limits": {"temperature": 3}}, "'temperature' is not known"),
        ({"tune_objective": "speed"}, "tune.objective"),
    ],
)
def test_a_wrong_search_names_the_key_and_the_fix(root: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        wanted(root, **changes)


def test_an_adapter_without_tuning_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(frameworks.ADAPTERS, "odd", "pocketvlm.peaks")
    with pytest.raises(ConfigError, match="the adapter odd does not say what could be tuned"):
        frameworks.tuning("odd")
