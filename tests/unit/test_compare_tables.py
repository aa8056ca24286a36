"""A comparison from records to files: pairs, what is lost and why, sentences, verdicts and how they end."""

from __future__ import annotations

import csv
import html
import json
import logging
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketvlm.analyse import records
from pocketvlm.analyse.compare.refusal import refuse
from pocketvlm.analyse.compare.tables import compare, heading
from pocketvlm.analyse.figures.compare import draw_comparison
from pocketvlm.errors import RegressionError
from pocketvlm.provenance import write_json
from tests.campaigns import default_rules

RULES = {
    "judge": ["decode.tokens_per_second", "run.duration"],
    "margin_percent": 1,
    "alpha": 0.02,
    "least_pairs": 12,
    "power": 0.95,
    "changed_answers": "tell",
}
METRICS = {
    ("decode", "tokens_per_second"): ("1/s", False),
    ("run", "duration"): ("ms", True),
    ("run", "rss_peak"): ("MiB", True),
    ("run", "energy_net"): ("J", True),
    ("decode", "tokens"): ("1", None),
}


@dataclass
class Made:
    """Runs of cells `a` and `b` that never ran.

    Attributes:
        values: by cell, metric and round the value; a text is why it is withheld, after `NA: ` why it lacks.
        answer: the answer by cell.
        block: the block of a cell's rounds.
        device: where a cell ran.
        rules: what differs from RULES.
    """

    folder: Path
    values: dict[str, dict[tuple[str, str], list[float | str]]]
    answer: dict[str, str] = field(default_factory=lambda: {"a": "same", "b": "same"})
    block: dict[str, str] = field(default_factory=lambda: {"a": "one", "b": "one"})
    device: dict[str, str] = field(default_factory=lambda: {"a": "local", "b": "local"})
    unmeasured: dict[str, str] = field(default_factory=dict)
    rules: dict[str, Any] = field(default_factory=dict)

    def compare(self) -> dict[str, Any]:
        """Compare a and b; return the findings."""
        comparison = {
            "experiment": "x",
            "a": "version 1",
            "b": "version 2",
            "pairs": [{"a": "a", "b": "b", "of": ""}],
            "left_out": [],
            "rules": {**RULES, **self.rules},
        }
        cells = [
            {
                "cell": cell,
                "device": self.device[cell],
                "device_kind": "local",
                "weights_kind": "synthetic",
                "unavailable": None,
            }
            for cell in "ab"
        ]
        write_json(self.folder / "cells.json", {"cells": cells})
        runs, answers, entries = [], [], []
        for side, cell in enumerate("ab"):
            for number in range(max((len(of) for of in self.values[cell].values()), default=0)):
                run = f"{cell}/{number:02d}"
                # Who is first changes from round to round.
                position = 2 * number + (side + number) % 2
                entries.append(
                    {
                        "run": run,
                        "cell": cell,
                        "role": "measured",
                        "block": self.block[cell],
                        "round": number + 1,
                        "position": position,
                    }
                )
                answers.append(
                    {"run": run, "text": self.answer[cell], "tokens": 3, "sha256": self.answer[cell]}
                )
                runs += [
                    self._row(cell, run, entries[-1], metric, of[number])
                    for metric, of in self.values[cell].items()
                ]
        records.write(self.folder / "runs.parquet", "runs", records.table("runs", runs))
        records.write(self.folder / "answers.parquet", "answers", records.table("answers", answers))
        write_json(self.folder / "block.json", {"runs": entries, "unmeasured": self.unmeasured})
        compare(
            comparison,
            runs=self.folder / "runs.parquet",
            blocks=[self.folder / "block.json"],
            answers=[self.folder / "answers.parquet"],
            cells=self.folder / "cells.json",
            confidence=0.95,
            folder=self.folder,
        )
        found: dict[str, Any] = json.loads((self.folder / "findings.json").read_text())
        return found

    def _row(
        self, cell: str, run: str, entry: Mapping[str, Any], metric: tuple[str, str], value: float | str
    ) -> dict[str, Any]:
        unit, lower = METRICS[metric]
        missing = isinstance(value, str) and value.startswith("NA: ")
        return {
            **dict.fromkeys(records.SCHEMAS["runs"].names, ""),
            "cell": cell,
            "run": run,
            "round": entry["round"],
            "position": entry["position"],
            "phase": metric[0],
            "metric": metric[1],
            "value": None if missing else (100.0 if isinstance(value, str) else float(value)),
            "unit": unit,
            "lower_is_better": lower,
            "samples": None,
            "reason": str(value)[4:] if missing else "",
            "gate": value if isinstance(value, str) and not missing else "",
        }

    def rows(self) -> dict[str, dict[str, str]]:
        """The rows of comparison.csv by phase and metric."""
        with (self.folder / "comparison.csv").open() as stream:
            return {f"{row['phase']}.{row['metric']}": row for row in csv.DictReader(stream)}


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Made]:
    """Return what makes runs of which b takes longer by a factor; named fields of Made besides."""

    def make(slower: float = 1.0, pairs: int = 40, **more: Any) -> Made:
        generator = np.random.default_rng(7)
        drift = np.exp(np.cumsum(generator.normal(0, 0.02, pairs)))
        values: dict[str, dict[tuple[str, str], list[float | str]]] = {}
        for cell, factor in (("a", 1.0), ("b", slower)):
            time = 50 * drift * factor * np.exp(generator.normal(0, 0.01, pairs))
            values[cell] = {
                ("decode", "tokens_per_second"): list(1e3 / time),
                ("run", "duration"): list(3 * time),
                ("run", "rss_peak"): [100.0] * pairs,
                ("decode", "tokens"): [40.0] * pairs,
            }
        return Made(tmp_path, values, **more)

    return make


def sentences(findings: Mapping[str, Any], kind: str) -> list[str]:
    return [one["sentence"] for one in findings["findings"] if one["kind"] == kind]


def test_the_rules_here_are_those_of_the_configuration() -> None:
    rules = default_rules()
    assert {name: getattr(rules, name) for name in RULES} == RULES


def test_a_slowdown_is_one_sentence_and_an_error(made: Callable[..., Made], caplog: Any) -> None:
    of = made(1.041)
    found = of.compare()
    assert found["verdict"] == "worse"
    decode, run = sentences(found, "worse")
    said = re.fullmatch(r"decode \S+ % slower, \[(\S+), (\S+)\], 40 pairs, p < 0.0001, effect 1.00", decode)
    assert said and float(said[1]) <= 4.1 <= float(said[2]) < 6
    assert run.startswith("run ")
    row = of.rows()["decode.tokens_per_second"]
    assert float(row["ratio"]) == pytest.approx(1 / (1 + float(row["worse_percent"]) / 100), rel=1e-6)
    assert float(row["ci_low"]) < float(row["ratio"]) < float(row["ci_high"]) < 1
    assert (row["decides"], row["n"], row["planned"], row["verdict"]) == ("yes", "40", "40", "worse")
    # Peak memory is the same in every run: told in the table, and no finding.
    assert of.rows()["run.rss_peak"]["verdict"] == "same" and of.rows()["run.rss_peak"]["decides"] == "no"
    with caplog.at_level(logging.INFO), pytest.raises(RegressionError) as error:
        refuse(found, where="findings.md", log=logging.getLogger("pocketvlm.test"))
    assert error.value.what == f"{decode}; and 1 more"
    assert any(
        record.getMessage() == decode and record.levelno == logging.WARNING for record in caplog.records
    )
    page = (of.folder / "findings.md").read_text()
    assert page.startswith(
        "# version 2 against version 1 (synthetic weights)"
    ) and f"**fails:** {decode}." in html.unescape(page.replace("\\", ""))


def test_a_gain_is_told_and_passes(made: Callable[..., Made]) -> None:
    found = made(0.95).compare()
    assert found["verdict"] == "no regression" and not any(one["fails"] for one in found["findings"])
    decode = sentences(found, "better")[0]
    assert decode.startswith(("decode 5.", "decode 4.")) and "% faster, [" in decode
    low, high = (float(end) for end in decode.split("[")[1].split("]")[0].split(", "))
    assert 0 < low < high
    refuse(found, where="findings.md", log=logging.getLogger("pocketvlm.test"))


def test_silence_says_what_it_would_have_heard(made: Callable[..., Made]) -> None:
    of = made(1.0)
    found = of.compare()
    assert found["verdict"] == "no regression"
    silent = sentences(found, "same")
    assert len(silent) == 2 and silent[0].startswith("decode: no difference found, ")
    visible = float(of.rows()["decode.tokens_per_second"]["visible_percent"])
    assert 0.5 < visible < 3 and f"a slowdown of {visible:.1f} % would have been found" in silent[0]
    deaf = made(1.0, rules={"most_unseen_percent": 0.5})
    found = deaf.compare()
    assert (
        found["verdict"] == "not judged" and "would not have been seen" in sentences(found, "not judged")[0]
    )


def test_a_sure_but_small_difference_is_no_finding(made: Callable[..., Made]) -> None:
    found = made(1.03, rules={"margin_percent": 6}).compare()
    assert found["verdict"] == "no regression"
    assert all("less than the margin of 6 %" in one for one in sentences(found, "within margin"))
    assert len(sentences(found, "within margin")) == 2


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (
            lambda of: of.values["b"].pop(("decode", "tokens_per_second")),
            "40 of 40 runs of b: the run has no such",
        ),
        (
            lambda of: of.values["b"].update({("decode", "tokens_per_second"): ["NA: seen by nobody"] * 40}),
            "decode could not be judged: 0 pairs, 12 are needed (40 of 40 runs of b: seen by nobody)",
        ),
        (
            lambda of: of.values["a"].update(
                {("decode", "tokens_per_second"): [*[20.0] * 9, *[f"it lasted {n} ms" for n in range(31)]]}
            ),
            "9 pairs, 12 are needed (31 of 40 runs of a: withheld: it lasted 0 to 30 ms)",
        ),
        (lambda of: of.block.update(b="two"), "they were not made in turns; `snakemake --cores 4 remeasure`"),
        (
            lambda of: (of.values["b"].clear(), of.unmeasured.update(b="the phone is not connected")),
            "b: the phone is not connected",
        ),
    ],
)
def test_what_cannot_be_judged_fails_and_says_why(
    made: Callable[..., Made], spoil: Callable[[Made], Any], says: str
) -> None:
    of = made(1.0)
    spoil(of)
    found = of.compare()
    assert found["verdict"] == "not judged"
    assert says in sentences(found, "not judged")[0]
    with pytest.raises(RegressionError, match=r"nothing is known of this metric"):
        refuse(found, where="findings.md", log=logging.getLogger("pocketvlm.test"))
    if not of.values["b"]:
        assert "NA: decode could not be judged" in draw(of, found)


def test_what_is_lost_of_one_side_is_told(made: Callable[..., Made]) -> None:
    """A change may be what loses the runs: silence over those that are left must not hide it."""
    of = made(1.0)
    of.values["b"]["decode", "tokens_per_second"][:25] = ["NA: the answer broke off"] * 25
    found = of.compare()
    assert found["verdict"] == "no regression"
    assert ", 15 of 40 pairs, p = " in sentences(found, "same")[0]
    told = "decode is judged by 15 of 40 pairs: 25 of 40 runs of b: the answer broke off"
    assert told in sentences(found, "note")
    assert not [one for one in sentences(made(1.0).compare(), "note") if "is judged by" in one]


@pytest.mark.parametrize("value", [0.0, -0.2])
def test_values_that_are_not_above_0_have_no_ratio(made: Callable[..., Made], value: float) -> None:
    """Energy above rest may be negative: the pairs without such a run are a selection by what is compared."""
    of = made(1.0)
    of.values["b"]["run", "energy_net"] = [value, value, *[0.5] * 38]
    of.values["a"]["run", "energy_net"] = [1.0] * 40
    assert of.compare()["verdict"] == "no regression"
    row = of.rows()["run.energy_net"]
    assert (row["n"], row["verdict"], row["ratio"]) == ("0", "not judged", "")
    assert row["reason"] == (
        "0 pairs, 12 are needed (2 of 40 runs of b: not above 0, so that the metric has no ratio)"
    )
    of.rules = {"judge": ["run.energy_net"]}
    found = of.compare()
    assert (
        found["verdict"] == "not judged"
        and "energy above rest could not be judged" in sentences(found, "not judged")[0]
    )


def test_too_few_runs_judge_nothing(made: Callable[..., Made]) -> None:
    found = made(1.5, pairs=11).compare()
    assert found["verdict"] == "not judged"
    assert sentences(found, "not judged")[0] == "decode could not be judged: 11 pairs, 12 are needed"
    many = made(1.5, pairs=14, rules={"alpha": 0.0001}).compare()
    assert "to be sure of anything among 2 metrics" in sentences(many, "not judged")[0]


def test_answers_are_compared_byte_by_byte(made: Callable[..., Made]) -> None:
    answer = {"a": "a cup of coffee", "b": "=a cup of\u202e tea"}
    of = made(1.0, answer=answer)
    found = of.compare()
    assert found["verdict"] == "no regression"
    assert sentences(found, "answers") == ["answers changed in 40 of 40 pairs, first at character 1"]
    with (of.folder / "answers.csv").open() as stream:
        (row,) = csv.DictReader(stream)
    assert (
        row["excerpt_b"] == '"=a cup of⟨U+202E⟩ tea"'
        and row["own_a"] == "1"
        and row["first_character"] == "1"
    )
    strict = made(1.0, answer=answer, rules={"changed_answers": "fail"}).compare()
    assert strict["verdict"] == "answers changed"
    assert sentences(made(1.0).compare(), "note") == ["answers are the same in 40 of 40 pairs"]


def test_other_numbers_of_tokens_are_noted(made: Callable[..., Made]) -> None:
    of = made(1.0)
    of.values["b"]["decode", "tokens"] = [35.0] * 40
    note = next(one for one in sentences(of.compare(), "note") if "tokens" in one)
    assert note == "decode has 35 tokens on b and 40 on a: its duration is of different work"


def test_runs_that_differ_much_are_still_pairs(made: Callable[..., Made]) -> None:
    unsteady = (
        "the runs differ by 45 % (duration of run, coefficient of variation over 40 runs), 40 % is allowed"
    )
    of = made(1.0)
    of.values["a"]["run", "duration"] = [unsteady] * 40
    of.values["b"]["run", "duration"] = [*[unsteady] * 39, f"it was hot; {unsteady}"]
    assert of.compare()["verdict"] == "no regression"
    row = of.rows()["run.duration"]
    assert row["n"] == "39" and row["reason"] == "1 of 40 runs of b: withheld: it was hot"
    of.device = {"a": "local", "b": "phone"}
    assert of.compare()["verdict"] == "not judged"


def test_two_devices_take_no_turns(made: Callable[..., Made]) -> None:
    of = made(1.5, device={"a": "local", "b": "phone"}, block={"a": "one", "b": "two"})
    found = of.compare()
    assert found["verdict"] == "worse" and "40 runs a side" in sentences(found, "worse")[0]
    assert any("cannot take turns" in one for one in sentences(found, "note"))
    assert of.rows()["run.duration"]["design"] == "side by side"


def draw(of: Made, found: dict[str, Any]) -> str:
    """Draw the comparison; return the words of the picture."""
    paths = [of.folder / f"comparison.{ending}" for ending in ("svg", "png")]
    draw_comparison(of.folder / "comparison.csv", found, heading({"a": "1", "b": "2"}, ()), paths)
    assert paths[1].stat().st_size > 2000
    return " ".join("".join(element.itertext()) for element in ET.fromstring(paths[0].read_text()).iter())


def test_the_figure_says_what_is_drawn(made: Callable[..., Made]) -> None:
    of = made(1.2)
    words = draw(of, of.compare())
    for part in (
        "decode tokens per second",
        "rss peak",
        "SYNTHETIC WEIGHTS",
        "40 pairs, in turns",
        "% slower, [",
    ):
        assert part in words, part
