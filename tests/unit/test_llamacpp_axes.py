"""The experiments of llama.cpp's versions and settings: what differs between their cells, and only that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pocketvlm.config.study import Cell, Study, load
from pocketvlm.frameworks.llamacpp import command
from pocketvlm.frameworks.llamacpp.command import SETTINGS
from pocketvlm.frameworks.settings import AFFINITY, own

ROOT = Path(__file__).parents[2]


def study(experiment: str) -> Study:
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    return load({**config, "experiment": experiment}, ROOT)


def argv(of: Study, cell: Cell, **settings: Any) -> list[str]:
    return command.command(
        version=cell.version,
        model=of.models[cell.model],
        workload=of.workloads[cell.workload],
        settings={**own(cell.settings), **settings},
        quirks=of.frameworks[cell.framework]["versions"][cell.version]["quirks"],
        image_name="coffee.png",
    )


def test_every_setting_is_an_axis_and_visible_in_the_tables() -> None:
    axes = study("llamacpp-axes")
    varied = {
        name: {cell.settings[name] for cell in axes.cells if name in cell.settings}
        for name in (*SETTINGS, AFFINITY)
    }
    assert all(varied.values()), "an axis that no cell varies"
    assert varied["threads"] == {1, 2} and varied[AFFINITY] == {"0", "1"}
    texts = [record["settings"] for record in axes.records()["cells"]]
    assert len(set(texts)) == len(texts), "each cell of the tables says what it differs in"
    assert all(f"{name}=" in " ".join(texts) for name in (*SETTINGS, AFFINITY))


def test_no_two_cells_of_the_axes_run_the_same() -> None:
    axes = study("llamacpp-axes")
    commands = [(tuple(argv(axes, cell)), cell.settings.get(AFFINITY)) for cell in axes.cells]
    assert len(set(commands)) == len(commands), "the raw store refuses cells that differ in their name only"


@pytest.mark.parametrize("version", ["0.3.9", "0.3.16", "0.3.36"])
def test_every_setting_reaches_the_command_line_of_every_version(version: str) -> None:
    of = study("llamacpp-versions")
    (cell,) = [cell for cell in of.cells if cell.version == version]
    others: dict[str, Any] = {
        "threads": 3, "context": 2048, "batch": 128, "ubatch": 32, "flash_attention": True,
        "kv_type_k": "q4_0", "kv_type_v": "bf16", "mmap": True,
    }  # fmt: skip
    assert set(others) == set(SETTINGS)
    plain = argv(of, cell)
    for name, value in others.items():
        assert argv(of, cell, **{name: value}) != plain, f"{name} changes nothing in {version}"


def test_the_versions_differ_in_nothing_but_their_own_words() -> None:
    of = study("llamacpp-versions")
    assert [cell.version for cell in of.cells] == ["0.3.9", "0.3.16", "0.3.36"]
    assert len({(cell.model, cell.quantisation, cell.workload, cell.settings_text) for cell in of.cells}) == 1
    prompts = set()
    for cell in of.cells:
        words = argv(of, cell)
        marker = of.frameworks[cell.framework]["versions"][cell.version]["quirks"]["marker"]
        prompt = words[words.index("--prompt") + 1]
        assert prompt.count(marker) == 1
        prompts.add(prompt.replace(marker, "(image)"))
    assert len(prompts) == 1 and prompts.pop().startswith("(image)\n")
