"""Tables for a manuscript: what they say, and that no text breaks them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketvlm.analyse.headline import ABREAST, export_tables, headline
from pocketvlm.analyse.manuscript import (
    MAX_TEXT,
    Entry,
    Table,
    escape_latex,
    escape_markdown,
    estimate,
    latex,
    markdown,
)
from pocketvlm.analyse.records import CELLS_CSV
from pocketvlm.errors import IntegrityError
from pocketvlm.provenance import write_json

HOSTILE = r"""\input{/etc/passwd} & 50 % of $x_1^2$ #7 {a} ~ <script>alert(1)</script> | `c`
[l](javascript:x) ![i](u)
next \\ --no-mmap ''"q"'' ,, *b* _i_ https://evil.example www.evil.example a@b.x &amp; """


def unescaped(text: str, special: str) -> list[str]:
    """The special characters of LaTeX in a text that no backslash stands before."""
    return re.findall(rf"(?<!\\)[{special}]", text.replace(r"\\", ""))


def test_latex_prints_what_would_be_a_command() -> None:
    escaped = escape_latex(HOSTILE)
    without = re.sub(
        r"\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar)\{\}", "", escaped
    )
    without = re.sub(r"\\char\d+\{\}|\\[{}]|\{\}", "", without)
    assert "\\input" not in escaped
    assert unescaped(without, "&%$#_{}~^") == []
    assert re.sub(r"\\[&%$#_]", "", without).count("\\") == 0
    assert "\n" not in escaped
    assert "-{}-no-mmap" in escaped, "two hyphens are no dash"
    assert "''" not in escaped and ",," not in escaped


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("1.5 ± 0.2 µs", r"1.5 $\pm$ 0.2 $\mu$s"),
        ("45 °C → 50", r"45 $^\circ$C $\rightarrow$ 50"),
        ("Müller", "Müller"),
        ("你好", "{[}U+4F60][U+597D]"),
        ("a\u202eb\x00c", "a[U+202E]b[U+0000]c"),
        ("[opt]", "{[}opt]"),
        ("*", "{*}"),
        ("a - b, c", "a - b, c"),
        ("1\u202f659", r"1\,659"),
        ("\u22123", "$-$3"),
        ("", ""),
    ],
)
def test_latex_of_what_is_usual(text: str, escaped: str) -> None:
    assert escape_latex(text) == escaped


def test_markdown_shows_what_would_be_markup() -> None:
    escaped = escape_markdown(HOSTILE)
    assert "<" not in escaped and ">" not in escaped and "\n" not in escaped
    assert "&amp;amp;" in escaped, "an entity of the text is shown as it is written"
    assert unescaped(escaped, "|`*_") == []
    assert re.search(r"(?<!\\)\[", escaped) is None
    assert "https://" not in escaped and re.search(r"\bwww\.", escaped) is None
    assert escape_markdown("- list") == r"\- list"
    assert escape_markdown("3. list") == r"3\. list"
    assert escape_markdown("0.739 [0.6, 0.8]") == r"0.739 \[0.6, 0.8\]"


@given(st.lists(st.lists(st.text(max_size=30), min_size=3, max_size=3), min_size=1, max_size=4))
def test_no_text_breaks_a_table(rows: list[list[str]]) -> None:
    table = Table("c", "t", ["a", "b", "c"], rows)
    lines = markdown(table).splitlines()
    body = lines[4:]
    assert len(body) == len(rows)
    for line in body:
        assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 4
    inside = latex(table).split("\\midrule\n")[1].split("\n\\bottomrule")[0].split("\n")
    assert len(inside) == len(rows)
    for line in inside:
        assert line.endswith(r" \\")
        assert len(re.findall(r"(?<!\\)(?:\\\\)*&", line)) == 2
        depth = 0
        for brace in re.findall(r"(?<!\\)[{}]", re.sub(r"\\[{}]", "", line)):
            depth += 1 if brace == "{" else -1
            assert depth >= 0
        assert depth == 0


def test_equal_notes_share_a_mark_and_others_do_not() -> None:
    rows = [["x", Entry("1", ("why",)), Entry("2", ("why", "other"))], None, ["y", "3", Entry("", ("why",))]]
    table = Table("c", "t", ["", "a", "b"], rows, remarks=["a remark"])
    text = markdown(table)
    assert "| x | 1 (a) | 2 (a) (b) |" in text
    assert text.endswith("(a) why\\\n(b) other\\\na remark\n")
    tex = latex(table)
    assert r"2$^{\mathrm{a,b}}$" in tex
    assert tex.count(r"\midrule") == 2
    assert tex.count("why") == 1


def test_a_table_of_another_shape_is_no_table() -> None:
    with pytest.raises(ValueError, match="rows of"):
        Table("c", "t", ["a", "b"], [["1"]])
    with pytest.raises(ValueError, match="plain label"):
        Table("c", "a}b", ["a"], [])


def test_long_texts_are_cut_and_say_so() -> None:
    assert escape_markdown("x" * 10_000) == "x" * MAX_TEXT + "…"


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((1.2345, 1.1, 1.4), "1.23 [1.10, 1.40]"),
        ((1658.9, 1474.7, 1922.7), "1\u202f659 [1\u202f475, 1\u202f923]"),
        ((0.0123, None, None), "0.0123"),
        ((65.26, 65.22, 65.29), "65.26 [65.22, 65.29]"),
    ],
)
def test_estimates(numbers: tuple[float, float | None, float | None], text: str) -> None:
    assert estimate(*numbers) == text


def cell(name: str, **given: str) -> dict[str, Any]:
    return {
        "cell": name,
        "device": "phone",
        "device_kind": "phone",
        "framework": "llama.cpp",
        "version": "1",
        "backend": "cpu",
        "build": "b",
        "model": "m",
        "weights_kind": "hub",
        "quantisation": "Q4_0",
        "workload": "w",
        "settings": "threads=1",
        **given,
    }


def row(name: str, phase: str, metric: str, median: str = "", gate: str = "", ci: str = "") -> dict[str, str]:
    low, high = ci.split() if ci else ("", "")
    given = {"cell": name, "phase": phase, "metric": metric, "median": median, "gate": gate}
    return {**dict.fromkeys(CELLS_CSV, ""), **given, "ci_low": low, "ci_high": high}


def test_the_headline_of_cells() -> None:
    cells = [cell("a", device_kind="emulated", weights_kind="synthetic"), cell("b", quantisation="Q8_0")]
    rows = [
        row("a", "run", "duration", "5780.4", ci="5450 6170"),
        row("b", "run", "duration", gate="the phone is not connected"),
        row("a", "decode", "tokens_per_second", "23.5", gate="1 of 5 runs: late"),
        row("b", "decode", "tokens_per_second", gate="the phone is not connected"),
        row("a", "run", "rss_peak", "65.2"),
    ]
    study = {"experiment": "x", "title": "A title", "repeats": 5, "cells": cells}
    (table,) = headline(rows, study, 0.95)
    text = markdown(table)
    assert "A title: median \\[95 % bootstrap interval of the median\\], 5 runs a cell." in text
    assert "framework llama.cpp" in text and "quantisation" not in text.split("|")[0].lower()
    assert "| Device | phone (emulated) (a) | phone |" in text
    assert "| Model | m (synthetic) (b) | m |" in text
    assert "| Whole run (s) | 5.78 \\[5.45, 6.17\\] | NA (c) |" in text
    assert "| Decode (tokens/s) | 23.5 (d) | NA (c) |" in text
    assert "| Peak memory (MiB) | 65.2 | NA (e) |" in text
    assert "(c) the phone is not connected" in text
    assert "(d) 1 of 5 runs: late" in text
    assert "Nothing here reproduces a number published for a phone." in text
    assert "Measured by others" not in text
    assert latex(table).count("\\midrule") == 4, (
        "head, identity, durations, rates: no rule of a group without rows"
    )
    (received,) = headline(rows, study, 0.95, {"commit": "c" * 40})
    assert f"received as an archive, packed at commit {'c' * 40}" in markdown(received)


def test_many_cells_make_several_tables() -> None:
    cells = [cell(f"c{n}", model=f"m{n}") for n in range(ABREAST + 1)]
    rows = [row(f"c{n}", "run", "duration", str(1000 * (n + 1))) for n in range(ABREAST + 1)]
    found = headline(rows, {"experiment": "x", "title": "T", "repeats": 1, "cells": cells}, 0.9)
    assert [len(table.columns) for table in found] == [ABREAST + 1, 2]
    assert found[1].columns[1] == f"({ABREAST + 1})"
    assert len({table.label for table in found}) == 2
    assert "Part 2 of 2" in found[1].caption


def test_a_cell_without_a_row_is_an_error_and_no_gap(tmp_path: Path) -> None:
    study = {"experiment": "x", "title": "T", "repeats": 1, "cells": [cell("a")]}
    write_json(tmp_path / "cells.json", study)
    (tmp_path / "cells.csv").write_text(",".join(CELLS_CSV) + "\n")
    with pytest.raises(IntegrityError, match="no row of a"):
        export_tables(tmp_path / "cells.csv", tmp_path / "cells.json", 0.95, [tmp_path / "cells.md"])
    assert not (tmp_path / "cells.md").exists()
