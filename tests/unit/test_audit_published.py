"""The audit of published values: every entry is computed, and every check can say the opposite."""

from __future__ import annotations

import copy
import csv
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketvlm.analyse.audit import row
from pocketvlm.analyse.audit.published import LISTED, audit, write_audit
from pocketvlm.analyse.audit.quantity import EXACT, AbsentError, Values, exact, printed
from pocketvlm.analyse.audit.row import CONSISTENT, CONTRADICTION, UNKNOWN, Row
from pocketvlm.analyse.audit.vision import CLIP_L_336
from pocketvlm.config.paper import Paper, load_paper
from pocketvlm.frameworks import grammar

ROOT = Path(__file__).parents[2]
FILE = ROOT / "config/paper/arxiv-2507.08505.yaml"
PAPER = load_paper(FILE)
ACCOUNTING = {"llama.cpp": grammar("llamacpp").ACCOUNTING}
PARTS = ("load", "image_encode", "image_decode", "prompt_eval", "token_generation")
Change = Callable[[dict[str, Any]], None]


def checked(paper: Paper = PAPER) -> dict[str, Row]:
    return {each.id: each for each in audit(paper, ACCOUNTING)}


ROWS = checked()


def at(values: dict[str, Any], place: str) -> Any:
    for key in filter(None, place.split(".")):
        values = values[key]
    return values


def put(values: dict[str, Any], place: str, value: Any) -> None:
    folder, _, key = place.rpartition(".")
    at(values, folder)[key] = value


def changed(*changes: tuple[str, Any]) -> dict[str, Row]:
    """Return the audit of the paper with other values; a function is given the old ones."""
    values = copy.deepcopy(dict(PAPER.values))
    for place, value in changes:
        put(values, place, value(values) if callable(value) else value)
    return checked(dataclasses.replace(PAPER, values=values))


def stages(stack: str) -> Callable[[dict[str, Any]], float]:
    return lambda v: sum(at(v, f"table2.rows.{stack}")[name] or 0 for name in PARTS)


def scaled(place: str, factor: float) -> tuple[str, Any]:
    return place, lambda v: at(v, place) * factor


A, B, C, D = "llava-llamacpp", "llava-mllm", "mobilevlm-llamacpp", "imp-mlcimp"


def ratio(above: str, below: str) -> Callable[[dict[str, Any]], float]:
    return lambda v: at(v, above) / at(v, below)


def fourth_framework(v: dict[str, Any]) -> list[dict[str, str]]:
    stacks = copy.deepcopy(v["stacks"])
    stacks[2]["framework"] = "another"
    return stacks


FLIPS: dict[str, list[tuple[str, Any]]] = {
    "soc": [("device.soc", "Snapdragon 8 Gen 3")],
    "gpu": [("device.gpu", "Adreno 750")],
    "ram": [("device.ram_gb", lambda v: at(v, "utilisation.memory_pool_gb"))],
    "frameworks": [("stacks", fourth_framework)],
    "total": [(f"table2.rows.{A}.total", stages(A))],
    "total2": [(f"table2.rows.{C}.total", stages(C))],
    "tokens": [(f"table3.rows.{A}", lambda v: at(v, f"text.{A}.generated_tokens"))],
    "power": [("energy.mobilevlm.power_w", 0.2)],
    "offload": [(f"utilisation.{C}.gpu_pct", 90)],
    "mllm_speed": [(f"text.{B}.reported_tok_s", ratio(f"text.{B}.prompt_tokens", f"text.{B}.prompt_eval_s"))],
    "definitions": [(f"table2.rows.{stack}.total", stages(stack)) for stack in (A, C)],
    "mllm_encode": [scaled(f"table2.rows.{B}.image_encode", 10)],
    "volts": [scaled(f"utilisation.{B}.current_a", 1.2)],
    "below_idle": [scaled("utilisation.idle.current_a", 0.1)],
    "per_token": [(f"text.{A}.ms_per_token", ratio(f"table2.rows.{A}.token_generation", f"table3.rows.{A}"))],
    "battery": [scaled("energy.battery.queries_per_minute", 0.1)],
    f"tokens.{B}": [(f"table3.rows.{B}", lambda v: at(v, f"text.{B}.generated_tokens"))],
    f"per_token.{B}": [
        (f"text.{B}.ms_per_token", ratio(f"table2.rows.{B}.token_generation", f"table3.rows.{B}"))
    ],
    f"image_tokens.{A}": [(f"text.{A}.prompt_tokens", CLIP_L_336.patches - 1)],
    f"image_tokens.{B}": [(f"text.{B}.prompt_tokens", CLIP_L_336.patches)],
    f"memory.{D}": [scaled(f"utilisation.{D}.memory_pct", 10)],
    f"temperature.{A}": [
        (f"utilisation.{A}.temp_plateau_c", lambda v: at(v, "energy.cpu_only_llava.temp_c")),
    ],
    "energy_power": [("energy.cpu_only_llava.power_w", [1, 2])],
    "battery_claim": [("energy.battery.cpu_only_llava_h", 1)],
    "battery_idle": [scaled("utilisation.idle.current_a", 0.25)],
    **{
        f"{name}.{stack}{rest}": [change(stack)]
        for stacks, name, rest, change in (
            ((A, C), "inside", ".total", lambda s: scaled(f"table2.rows.{s}.total", 0.9)),
            ((A, C), "outside", ".load", lambda s: (f"table2.rows.{s}.load", 1.0)),
            ((A, C), "inside", ".prompt_eval", lambda s: scaled(f"table2.rows.{s}.prompt_eval", 0.5)),
            ((A, B), "product", ".prompt", lambda s: scaled(f"text.{s}.prompt_eval_s", 2)),
            ((A, B), "product", ".generation", lambda s: scaled(f"text.{s}.ms_per_token", 2)),
            ((A, B, C, D), "cores", "", lambda s: (f"utilisation.{s}.cpu_pct", 900)),
            ((A, B, C), "memory", "", lambda s: (f"utilisation.{s}.memory_pct", 1)),
            ((B, C, D), "temperature", "", lambda s: (f"utilisation.{s}.temp_plateau_c", [10, 20])),
            ((A, B, C, D), "warmer", "", lambda s: ("utilisation.idle.temp_c", 120)),
        )
        for stack in stacks
    },
}  # fmt: skip
"""What makes each check say the opposite of what it says of the paper; text against table is below."""


def text_flip(id_: str) -> list[tuple[str, Any]]:
    """Return what flips a check of the text against table 2: its row's own other side, or another time."""
    place = ".".join(id_.split(".")[:3])
    if ROWS[id_].verdict == CONSISTENT:
        return [scaled(place, 4)]
    table = ROWS[id_].b
    assert isinstance(table, float)
    seconds = table / (1.0 if place.endswith("_ms") else 1e3)
    return [(place, [seconds, seconds] if len(id_.split(".")) == 4 else seconds)]


@pytest.mark.parametrize("id_", ROWS)
def test_every_check_can_say_the_opposite(id_: str) -> None:
    flip = text_flip(id_) if id_.startswith("text.") else FLIPS[id_]
    opposite = {CONTRADICTION: CONSISTENT, CONSISTENT: CONTRADICTION}
    found = changed(*flip)[id_]
    assert found.verdict == opposite[ROWS[id_].verdict], found
    assert found.consequence and found.consequence != ROWS[id_].consequence


def test_every_flip_is_of_a_check() -> None:
    assert set(FLIPS) == {id_ for id_ in ROWS if not id_.startswith("text.")}


def test_the_papers_own_list_comes_first_in_its_order_and_holds() -> None:
    listed = [entry["id"] for entry in PAPER.values["inconsistencies"]]
    assert list(ROWS)[: len(listed)] == listed == list(LISTED)
    assert {ROWS[id_].verdict for id_ in listed} == {CONTRADICTION}


def test_numbers_stand_in_the_row_with_their_places() -> None:
    total = ROWS["total"]
    values = copy.deepcopy(dict(PAPER.values))
    assert total.a == pytest.approx(stages(A)(values))
    assert total.b == at(values, f"table2.rows.{A}.total")
    assert total.difference == pytest.approx(total.a - total.b)
    assert total.unit == "ms" and f"table2.rows.{A}.total" in total.b_where
    rest = total.b - sum(
        at(values, f"table2.rows.{A}.{name}") for name in ("prompt_eval", "token_generation")
    )
    assert 0 < rest < 1000
    assert f"prompt_eval + token_generation + {rest:.1f} ms" in total.consequence
    assert "does not fit into that rest: it is outside" in total.consequence
    assert "fit into prompt_eval" in total.consequence


def test_operations_of_the_tower_are_those_of_the_entry() -> None:
    (entry,) = (e for e in PAPER.values["inconsistencies"] if e["id"] == "mllm_encode")
    assert f"~{int(CLIP_L_336.operations() / 1e9)} GFLOP" in entry["b"]
    rate = ROWS["mllm_encode"].a
    assert isinstance(rate, float) and f"{rate / 1e3:.1f} TFLOP/s" in entry["b"]


@pytest.mark.parametrize(
    ("place", "id_"),
    [
        (f"table2.rows.{A}.total", "total"),
        (f"table2.rows.{A}.prompt_eval", f"inside.{A}.total"),
        (f"table2.rows.{A}.load", f"outside.{A}.load"),
        (f"table3.rows.{A}", "per_token"),
        (f"utilisation.{C}.current_a", "power"),
        (f"utilisation.{C}.current_a", "below_idle"),
        (f"table2.rows.{B}.image_encode", "mllm_encode"),
        ("energy.battery.queries_per_minute", "battery"),
        ("energy.battery.gpu_path", "battery_idle"),
        ("utilisation.memory_pool_gb", "ram"),
    ],
)
def test_a_value_that_is_not_printed_is_named(place: str, id_: str) -> None:
    found = changed((place, None))[id_]
    assert found.verdict == UNKNOWN
    assert place in found.consequence
    assert found.a is None and found.b is None and found.difference is None


def test_words_that_tell_no_number_are_named() -> None:
    found = changed(("energy.battery.gpu_path", "a long while"))["battery_idle"]
    assert found.verdict == UNKNOWN and "a long while" in found.consequence
    entries = [
        {**entry, "b": "no such chip"} if entry["id"] == "soc" else entry
        for entry in PAPER.values["inconsistencies"]
    ]
    assert changed(("inconsistencies", entries))["soc"].verdict == UNKNOWN


def test_an_entry_without_a_formula_is_told() -> None:
    entries = [*PAPER.values["inconsistencies"], {"id": "new", "a": "one", "b": "two"}]
    found = changed(("inconsistencies", entries))["new"]
    assert found.verdict == UNKNOWN and "no formula" in found.consequence


def test_a_framework_whose_counters_are_not_known_is_held_to_nothing() -> None:
    ids = {each.id for each in audit(PAPER, {})}
    assert not any(id_.startswith(("inside.", "outside.")) for id_ in ids)
    assert ids == {id_ for id_ in ROWS if not id_.startswith(("inside.", "outside."))}


def test_the_table(tmp_path: Path) -> None:
    rows = write_audit(PAPER, ACCOUNTING, tmp_path / "audit.csv")
    with (tmp_path / "audit.csv").open(newline="") as stream:
        told = list(csv.DictReader(stream))
    assert tuple(told[0]) == row.COLUMNS == (
        "id", "subject", "formula", "a", "a_where", "b", "b_where", "difference", "unit", "verdict",
        "consequence",
    )  # fmt: skip
    assert [line["id"] for line in told] == [each.id for each in rows]
    assert len({line["id"] for line in told}) == len(told) > len(LISTED)
    for line in told:
        assert line["verdict"] in row.VERDICTS and line["consequence"] and line["formula"]
        assert (line["difference"] == "") == (line["unit"] == "")
    first = (tmp_path / "audit.csv").read_bytes()
    write_audit(PAPER, ACCOUNTING, tmp_path / "audit.csv")
    assert (tmp_path / "audit.csv").read_bytes() == first


def test_no_published_time_is_typed_in_the_code() -> None:
    numbers = {
        repr(value)
        for stack in PAPER.values["table2"]["rows"].values()
        for value in stack.values()
        if value is not None and value % 100
    }
    sources = [*(ROOT / "workflow/pocketvlm/analyse/audit").glob("*.py")]
    sources.append(ROOT / "workflow/pocketvlm/analyse/battery_life.py")
    assert len(numbers) > 10
    assert [(p.name, n) for p in sources for n in numbers if n in p.read_text()] == []


@given(st.lists(st.floats(0.05, 1e5), min_size=1, max_size=6), st.integers(0, 2))
def test_rounded_numbers_agree_with_the_sum_of_what_they_were(true: list[float], digits: int) -> None:
    """Whatever stages were rounded and whatever total: that they were of one run is never contradicted."""
    parts = [printed(round(value, digits) if digits else int(value + 0.5)) for value in true]
    all_ = sum(true)
    whole = printed(round(all_, digits) if digits else int(all_ + 0.5))
    sum_ = parts[0]
    for part in parts[1:]:
        sum_ = sum_ + part
    assert sum_.least <= all_ * (1 + 1e-9) and sum_.most >= all_ * (1 - 1e-9)
    assert sum_.agrees(whole)


def test_arithmetic_of_printed_numbers() -> None:
    ten, three = printed(10), printed(3.1)
    assert (ten / three).least == pytest.approx(9.5 / 3.15)
    assert (ten / three).most == pytest.approx(10.5 / 3.05)
    assert (ten * 2.0).most == 21.0
    assert printed([10, 12]).side == "10 to 12"
    assert printed([10, 12]).minus(printed(20)) == -8.0
    assert printed([10, 12]).minus(printed(11)) == 0.0
    assert printed(4, EXACT) == exact(4.0)
    for nothing in (None, True, "4", [1, None]):
        with pytest.raises(AbsentError):
            printed(nothing)
    with pytest.raises(AbsentError, match="may be 0"):
        ten / printed(0)
    with pytest.raises(AbsentError, match=r"a\.c"):
        Values({"a": {"b": 1}}).at("a.c")
