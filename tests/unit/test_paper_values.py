"""The published values: read whole, refused when they do not fit together, and written nowhere else."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pocketvlm.config.paper import STAGES, Published, load_paper, of_experiment
from pocketvlm.errors import ConfigError
from tests.paper_study import PAPER

ROOT = Path(__file__).parents[2]
RAW: dict[str, Any] = yaml.safe_load(PAPER.read_text())


def test_every_number_of_the_tables_is_what_the_file_says() -> None:
    paper = load_paper(PAPER)
    assert [stack.id for stack in paper.stacks] == [entry["id"] for entry in RAW["stacks"]]
    for stack, row in RAW["table2"]["rows"].items():
        for stage in STAGES:
            found = paper.duration(stack, stage)
            assert found == (None if row[stage] is None else Published(row[stage], row[stage]))
    for stack, tokens in RAW["table3"]["rows"].items():
        assert paper.answer_tokens(stack) == Published(tokens, tokens)
    assert paper.citation == f"arXiv {RAW['paper']['arxiv']}v{RAW['paper']['version']}"
    assert paper.date == str(RAW["paper"]["date"])


def test_ranges_nulls_and_groups() -> None:
    paper = load_paper(PAPER)
    low, high = RAW["utilisation"]["llava-mllm"]["cpu_pct"]
    found = paper.utilisation("llava-mllm", "cpu_pct")
    assert found == Published(low, high)
    assert found is not None
    assert not found.single
    assert str(found) == f"{low}–{high}"
    assert found.middle == (low + high) / 2
    assert found.holds(low)
    assert not found.holds(high * 1.01)
    assert found.holds(high * 1.01, tolerance=0.02)
    assert RAW["utilisation"]["mobilevlm-llamacpp"]["power_w"] is None
    assert paper.utilisation("mobilevlm-llamacpp", "power_w") is None
    for stack in ("llava-llamacpp", "llava-mllm"):
        assert paper.energy(stack, "power_w") == Published(*RAW["energy"]["cpu_only_llava"]["power_w"])
    assert paper.energy("imp-mlcimp", "temp_c") == Published(*[RAW["energy"]["imp"]["temp_c"]] * 2)
    assert paper.told("imp-mlcimp", "generated_tokens") is None
    assert paper.told("llava-mllm", "generated_tokens") is not None
    # A range of one value is that value.
    same = RAW["utilisation"]["imp-mlcimp"]["temp_plateau_c"]
    assert str(paper.utilisation("imp-mlcimp", "temp_plateau_c")) == str(same[0])


def test_an_unknown_name_says_which_there_are() -> None:
    paper = load_paper(PAPER)
    with pytest.raises(ConfigError, match=r"llava-lamacpp.*Did you mean llava-llamacpp"):
        paper.duration("llava-lamacpp", "load")
    with pytest.raises(ConfigError, match="image_encode"):
        paper.published("table2", "rows", "llava-mllm", "image_encod")
    with pytest.raises(ConfigError, match="is no number"):
        paper.published("device", "name")


def twice(values: dict[str, Any]) -> None:
    values["stacks"].append(values["stacks"][0])


def unknown_stack(values: dict[str, Any]) -> None:
    values["table2"]["rows"]["llava-lamacpp"] = values["table2"]["rows"]["llava-llamacpp"]


def lost_row(values: dict[str, Any]) -> None:
    del values["table3"]["rows"]["llava-mllm"]


def reversed_range(values: dict[str, Any]) -> None:
    values["utilisation"]["llava-mllm"]["cpu_pct"].reverse()


def text_for_number(values: dict[str, Any]) -> None:
    values["table2"]["rows"]["llava-mllm"]["load"] = "fast"


def three_values(values: dict[str, Any]) -> None:
    values["utilisation"]["llava-mllm"]["cpu_pct"] = [1, 2, 3]


def no_day(values: dict[str, Any]) -> None:
    values["paper"]["date"] = "last summer"


def unknown_key(values: dict[str, Any]) -> None:
    values["table2"]["rows"]["llava-mllm"]["laod"] = 1


def no_group(values: dict[str, Any]) -> None:
    del values["energy"]["imp"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (twice, "llava-llamacpp.*listed twice"),
        (unknown_stack, r"table2\.rows.*Did you mean llava-llamacpp"),
        (lost_row, r"'llava-mllm' is missing.*table3\.rows"),
        (reversed_range, r"ends before it begins.*utilisation\.llava-mllm\.cpu_pct"),
        (text_for_number, r"table2\.rows\.llava-mllm\.load"),
        (three_values, r"utilisation\.llava-mllm\.cpu_pct"),
        (no_day, r"paper\.date.*YYYY-MM-DD"),
        (unknown_key, r"'laod' is not known"),
        (no_group, r"energy.*Add the group 'imp'"),
    ],
)
def test_values_that_do_not_fit_together_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    values = yaml.safe_load(PAPER.read_text())
    change(values)
    path = tmp_path / "arxiv-2507.08505.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match=message):
        load_paper(path)


def test_an_experiment_without_a_paper_says_what_to_do() -> None:
    assert of_experiment(str(PAPER), "paper") == PAPER
    with pytest.raises(ConfigError, match=r"demo names no paper.*experiment=paper"):
        of_experiment([], "demo")


def published_numbers() -> list[float]:
    """Return the numbers of table 2 that cannot be met by chance: more than one digit that is not 0."""
    cells = [value for row in RAW["table2"]["rows"].values() for value in row.values()]
    numbers = {
        end for cell in cells if cell is not None for end in (cell if isinstance(cell, list) else [cell])
    }
    return sorted(number for number in numbers if len(re.sub(r"[0.]", "", f"{number:g}".split("e")[0])) > 1)


def spellings(number: float) -> set[str]:
    """Return how a program would hold a number of milliseconds: plain, grouped, in seconds."""
    plain = {repr(float(number)), f"{number:.10g}", f"{number:.1f}", f"{number:_.1f}", f"{number:,.1f}"}
    if number == int(number):
        plain.add(f"{int(number):_}")
    # 18 and 25 are seconds of anything.
    return plain if number % 1000 == 0 else plain | {f"{number / 1000:.10g}"}


def typed(text: str, numbers: list[float]) -> list[str]:
    """Return which of the numbers stand in a text as numbers of their own."""
    every = sorted({spelling for number in numbers for spelling in spellings(number)}, key=len, reverse=True)
    pattern = rf"(?<![\w.])(?:{'|'.join(map(re.escape, every))})(?![\w]|\.\d)"
    return re.findall(pattern, text)


def test_no_published_number_is_typed_anywhere_else() -> None:
    numbers = published_numbers()
    assert len(numbers) >= 18
    for number in numbers:
        for spelling in spellings(number):
            assert typed(f"LIMIT = {spelling}  # ms", numbers), spelling
    assert not typed("0.3.16, 1e3, 32091, a3209.1b", numbers)
    found = []
    for folder in ("workflow", "config"):
        for path in sorted((ROOT / folder).rglob("*")):
            if not path.is_file() or path.is_relative_to(PAPER.parent) or "__pycache__" in path.parts:
                continue
            if b"\0" in (content := path.read_bytes()):
                continue
            text = content.decode("utf-8", errors="replace")
            found += [f"{path.relative_to(ROOT)}: {spelling}" for spelling in typed(text, numbers)]
    assert not found
