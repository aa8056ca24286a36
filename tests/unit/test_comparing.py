"""What is compared with what: sides by axis, setting, mapping or cell, and messages that say what lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pocketvlm.config import comparing, study
from pocketvlm.errors import ConfigError
from tests.experiments import cell_text, experiment_text

ROOT = Path(__file__).parents[2]
CELLS = (
    cell_text(version='["0.3.9", "0.3.16"]', quantisation="[Q4_0, Q8_0]"),
    cell_text(settings="{threads: 1, flash_attention: true}"),
    cell_text(device="emulated-phone"),
)


@pytest.fixture
def resolved(tmp_path: Path) -> Any:
    """Return what resolves an experiment of given cells, and its configuration."""

    def resolve(*cells: str, head: str = "") -> tuple[study.Study, dict[str, Any]]:
        config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
        config["catalogues"] = {name: str(ROOT / path) for name, path in config["catalogues"].items()}
        config["catalogues"]["experiments"] = str(tmp_path)
        config["experiment"] = "x"
        (tmp_path / "x.yaml").write_text(head + experiment_text("for tests", *(cells or CELLS)))
        return study.load(config), config

    return resolve


def ask(resolved: Any, a: Any = None, b: Any = None, **more: Any) -> dict[str, Any]:
    found, config = resolved(*more.pop("cells", ()), **more)
    sides = {name: side for name, side in (("side_a", a), ("side_b", b)) if side is not None}
    return comparing.comparison(found, {**config, **sides})


def short(pairs: list[dict[str, str]]) -> list[tuple[str, str, str]]:
    return [(one["a"].split("-cpu")[0], one["b"].split("-cpu")[0], one["of"]) for one in pairs]


def test_cells_that_are_alike_otherwise_meet(resolved: Any) -> None:
    found = ask(resolved, "version=0.3.9", "version=0.3.16")
    assert (found["a"], found["b"]) == ("version 0.3.9", "version 0.3.16")
    old, new = "local.llama.cpp-0.3.9", "local.llama.cpp-0.3.16"
    assert short(found["pairs"]) == [(old, new, "Q4_0"), (old, new, "Q8_0")]
    # Flash attention and the phone have no older version beside them.
    assert len(found["left_out"]) == 2
    assert found["rules"]["judge"] == ["decode.tokens_per_second", "run.duration"]


def test_a_setting_that_is_not_given_has_its_default(resolved: Any) -> None:
    found = ask(resolved, "flash_attention=false", "flash_attention=true")
    (pair,) = found["pairs"]
    assert "0.3.16-cpu" in pair["a"] and pair["a"] != pair["b"] and pair["of"] == ""
    assert found["b"] == "flash_attention true"
    assert ask(resolved, {"flash_attention": False}, {"flash_attention": True})["pairs"] == [pair]
    by_id = ask(resolved, pair["a"], pair["b"])
    assert by_id["pairs"] == [pair] and by_id["b"] == "flash_attention true"


def test_a_value_may_have_commas(resolved: Any) -> None:
    cells = [
        cell_text(settings=f'{{threads: {n}, affinity: "{cpus}"}}')
        for cpus in ("0-3,6", "0-1")
        for n in (1, 2)
    ]
    found = ask(resolved, "affinity=0-3,6,threads=1", "affinity=0-1,threads=1", cells=cells)
    assert (found["a"], found["b"]) == ("affinity 0-3,6", "affinity 0-1") and len(found["pairs"]) == 1
    assert len(ask(resolved, "affinity=0-3,6", "affinity=0-1", cells=cells)["pairs"]) == 2


def test_devices_may_differ_in_what_they_are_compiled_for(resolved: Any) -> None:
    found = ask(resolved, "device=local", "device=emulated-phone")
    assert short(found["pairs"]) == [("local.llama.cpp-0.3.16", "emulated-phone.llama.cpp-0.3.16", "")]


def test_the_experiment_says_it_and_changes_the_rules(resolved: Any) -> None:
    head = (
        'compare: {a: {version: "0.3.9"}, b: "version=0.3.16", judge: [image_encode.duration], alpha: 0.1}\n'
    )
    found = ask(resolved, head=head)
    assert len(found["pairs"]) == 2
    assert found["rules"]["judge"] == ["image_encode.duration"] and found["rules"]["alpha"] == 0.1
    assert found["rules"]["margin_percent"] == 1
    # The command line names other sides, by the experiment's rules.
    other = ask(resolved, "quantisation=Q4_0", "quantisation=Q8_0", head=head)
    assert other["rules"]["alpha"] == 0.1 and other["b"] == "quantisation Q8_0"


def test_two_cells_need_no_words(resolved: Any) -> None:
    study_of, config = resolved(cell_text(quantisation="[Q4_0, Q8_0]"))
    found = comparing.comparison(study_of, config)
    assert (found["a"], found["b"]) == ("quantisation Q4_0", "quantisation Q8_0") and len(found["pairs"]) == 1


def test_one_cell_alone_is_refused(resolved: Any) -> None:
    with pytest.raises(ConfigError, match=r"has one cell, and there is nothing .* Add what it is to be"):
        ask(resolved, cells=[cell_text()])


@pytest.mark.parametrize(
    ("a", "b", "says"),
    [
        (None, None, "has 6 cells and does not say which to compare"),
        ("version=0.3.9", None, "only one side is named, side b is missing"),
        ("version=0.3.9", "version=0.3.6", "side b names version=0.3.6, which no cell of the experiment has"),
        ("version=0.3.9", "thread=2", "no cell of the experiment has 'thread'"),
        ("version=0.3.9", "0.3.16", "side b is '0.3.16', which names no cells"),
        ("version=0.3.9", "version=0.3.9,version=0.3.16", "which names no cells"),
        ("version=0.3.9", "version=0.3.9", "both sides are the same cell"),
        (
            "version=0.3.9,device=emulated-phone",
            "version=0.3.16",
            "no cell of the experiment is version 0.3.9, d",
        ),
        ("version=0.3.9", "version=0.3.16,flash_attention=true,device=emulated-phone", "no cell of the exp"),
        ("version=0.3.9", "version=0.3.16,quantisation=Q8_0", "2 cells may be compared with"),
    ],
)
def test_what_cannot_be_compared_is_said(resolved: Any, a: str | None, b: str | None, says: str) -> None:
    with pytest.raises(ConfigError, match=r".") as error:
        ask(resolved, a, b)
    assert says in str(error.value) and "Traceback" not in str(error.value)


def test_cells_that_differ_in_more_are_not_compared(resolved: Any) -> None:
    found, config = resolved(cell_text(version='"0.3.9"', quantisation="Q8_0"), cell_text())
    with pytest.raises(ConfigError, match=r"differ in quantisation, too"):
        comparing.comparison(found, {**config, "side_a": "version=0.3.9", "side_b": "version=0.3.16"})


def test_a_metric_that_is_none_is_refused(resolved: Any) -> None:
    head = 'compare: {a: "version=0.3.9", b: "version=0.3.16", judge: [decoding.duration]}\n'
    with pytest.raises(ConfigError, match=r"'decoding\.duration' is no metric of a phase"):
        ask(resolved, head=head)


def test_nonsense_in_the_section_is_refused(resolved: Any) -> None:
    with pytest.raises(ConfigError, match="margin"):
        ask(resolved, head='compare: {a: "x=1", b: "x=2", margin: 3}\n')
