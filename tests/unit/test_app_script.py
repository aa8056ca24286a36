"""An app's entry: its script, its variables, its numbers; and what is wrong with one, told with the fix."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest

from pocketvlm.apps import logs, script, statistics
from pocketvlm.config import apps
from pocketvlm.errors import ConfigError
from tests.apps import recorded
from tests.project import ROOT

WORKLOAD = {
    "image_path": str(ROOT / "config/workloads/coffee.png"), "prompt": recorded.PROMPT, "max_tokens": 64,
    "ignore_eos": False,
}  # fmt: skip
CELL = SimpleNamespace(model="synthetic-llava-nano", quantisation="Q4_0", settings={})
PHONE = {"kind": "phone"}


def entry():
    return copy.deepcopy(recorded.app(recorded.table(b"")))


def test_the_recorded_apps_entry_is_good_and_its_variables_are_filled_in():
    apps.check(entry(), where="w")
    of_cell = apps.of_cell(entry(), cell=CELL, workload=WORKLOAD, where="w")
    parsed = script.parse(of_cell["script"], where="script", variables=of_cell["variables"])
    load = parsed.run[1]
    assert (load.kind, load.phases, load.where) == ("wait", ("load",), "script.run.1")
    assert load.log == r"^PocketChat: loaded tiny\-vlm\-q4 in", "in a pattern a name stands for itself"
    assert parsed.run[4].text == recorded.PROMPT
    assert parsed.run[3].selector.text == "pocketvlm-cc02f8ca.png"
    assert of_cell["image"] == "{root}/sdcard/Pictures/pocketvlm/pocketvlm-cc02f8ca.png"
    assert parsed.run[6].phases == ("text_prefill", "image_encode", "image_prefill")
    assert apps.reads_of(parsed) == ["answer", "stats"]
    assert "statistics" not in of_cell


def changed(path, value):
    made = entry()
    place = made
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return made


@pytest.mark.parametrize(
    ("path", "value", "where", "why"),
    [
        (("package",), "no package", "w: package", "does not match"),
        (("activity",), "a; reboot", "w: activity", "does not match"),
        (("apk", "sha256"), "x", "w: apk.sha256", "does not match"),
        (("models",), {}, "w: models", "non-empty|enough"),
        (("script", "run", 0), {"tap": {}}, "w: script.run.0", None),
        (("script", "run", 0), {"tap": {"id": "x"}, "phase": "load"}, "w: script.run.0", None),
        (("script", "run", 0), {"click": {"id": "x"}}, "w: script.run.0", None),
        (("script", "run", 0), {"wait": {"log": "x", "id": "y"}}, "w: script.run.0", None),
        (("script", "run", 1, "phase"), "loading", "w.script.run.1", "no phase 'loading'"),
        (("script", "run", 1, "wait", "log"), "(", "w.script.run.1", "no regular expression"),
        (("script", "run", 4, "type"), "{answer}", "w.script.run.4", r"\{answer\} stands for nothing"),
        (("script", "run", 4, "type"), "caf\u00e9", "w.script.run.4", "cannot be typed"),
        (("script", "run", 0), {"start": {}}, "w.script.run.0", "within the recording"),
        (("script", "prepare", 1), {"key": "home"}, "w.script.prepare", "never started"),
        (("script", "prepare", 2, "phase"), "load", "w.script.prepare.2", "before the recording"),
        (("script", "run", 7, "phase"), "load", "w.script.run", "decode"),
        (("script", "run", 1, "phase"), None, "w.script.run", "not load"),
        (("script", "run", 9, "as"), "stats", "w.script.run", "two texts are read as 'stats'"),
        (("statistics", "rate.decode", "from"), "nowhere", "w.statistics.rate.decode.from", "no step reads"),
        (("statistics", "rate.decode", "pattern"), "x", "w.statistics.rate.decode.pattern", "no group"),
        (("statistics", "rate.decode", "pattern"), "(", "w.statistics.rate.decode.pattern", "no regular"),
        (("statistics", "rate.decode", "unit"), "s", "w.statistics.rate.decode.unit", "has the unit 's'"),
        (("statistics", "speed"), {"from": "stats", "pattern": "(x)"}, "w: statistics", "speed"),
        (("script", "run", 0), {"wait": {"gone": True}}, "w: script.run.0", None),
        (("script", "run", 6, "phase"), None, "w.script.run", "would count as that of decode"),
        (("script", "run", 7, "phase"), ["decode", "other"], "w.script.run.7", "no phase 'other'"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(path, value, where, why):
    with pytest.raises(ConfigError, match=why) as error:
        apps.check(changed(path, value), where="w")
    assert error.value.where.startswith(where)
    assert error.value.do


def test_without_apk_the_version_must_be_named():
    good = changed(("apk",), None)
    apps.check(good, where="w")
    del good["version_name"]
    with pytest.raises(ConfigError):
        apps.check(good, where="w")


@pytest.mark.parametrize(
    ("cell", "workload", "device", "why"),
    [
        ({}, {}, {"kind": "local"}, "runs on a phone"),
        ({"quantisation": "Q8_0"}, {}, PHONE, "no synthetic-llava-nano at Q8_0"),
        ({"model": "other"}, {}, PHONE, "no other at Q4_0"),
        ({"settings": {"affinity": "0"}}, {}, PHONE, "affinity"),
        ({}, {"ignore_eos": True}, PHONE, "ignore_eos"),
        ({}, {}, PHONE, "there is no apk"),
    ],
)
def test_a_cell_that_the_app_cannot_do_has_its_reason(cell, workload, device, why):
    asked = SimpleNamespace(**{**vars(CELL), **cell})
    said = apps.unavailable(entry(), cell=asked, workload={**WORKLOAD, **workload}, device=device)
    assert why in said


def find(pattern, text, quantity="rate.decode", unit="tokens/s"):
    parsed = statistics.parse(
        {quantity: {"from": "stats", "pattern": pattern, "unit": unit}}, ["stats"], where="w"
    )
    return statistics.find(parsed, {"stats": text})[quantity]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("decode: 12.5 tok/s", 12.5),
        ("decode: 12,5 tok/s", 12.5),
        ("x\ndecode: 7 tok/s", 7),
        ("decode: 0,125 tok/s", 0.125),
    ],
)
def test_numbers_are_found(text, value):
    assert find(r"decode: (\S+) tok/s", text).value == value


@pytest.mark.parametrize(
    "shown", ["NaN", "inf", "-1.0", "1e9", "12.5.1", "\u0661\u0662", "9" * 30, "1.2,3", "0.0", "1,234"]
)
def test_what_is_no_number_is_none_with_what_was_shown(shown):
    found = find(r"decode: (\S+) tok/s", f"decode: {shown} tok/s")
    assert found.value is None
    assert shown[:20] in found.reason


def test_units_are_brought_to_ms_and_tokens_a_second():
    assert find(r"(\d+) s", "load 2 s", "time.load", "s").value == 2000
    assert find(r"(\d+) ms", "load 2 ms", "time.load", "ms").value == 2
    assert find(r"(\d+) ms", "decode 100 ms", "rate.decode", "ms/token").value == 10
    assert find(r"(\d+) ms", "decode 0 ms", "rate.decode", "ms/token").value is None
    assert "shows no rate.decode" in find(r"decode: (\S+)", "nothing of it").reason


@pytest.mark.parametrize("shown", ["0", "1,234", "1.234", "12.5"])
def test_a_count_is_a_whole_number_that_is_read_in_one_way(shown):
    assert find(r"(\S+) out", "40 out", "tokens.decode", "tokens").value == 40
    found = find(r"(\S+) out", f"{shown} out", "tokens.decode", "tokens")
    assert found.value is None and shown in found.reason


CLOCKS = logs.Clocks(1_000_000_000, "02-28 23:59:59.500000000")
PRINTED = """--------- beginning of main
02-28 23:59:59.750  123   124 I PocketChat: first
02-29 00:00:01.000  123   123 E A tag with: colons: and text
12-31 23:59:59.999 99999 99999 W x: y
13-01 00:00:00.000  1  1 I no: month
nonsense"""


def test_lines_of_the_log_are_put_on_the_clock_of_the_run():
    lines = logs.parse(PRINTED, CLOCKS)
    assert [line.t_us - CLOCKS.t_us for line in lines[:2]] == [250_000, 1_500_000]
    assert lines[0].text == "PocketChat: first" and lines[0].pid == 123
    assert len(lines) == 3


@pytest.mark.parametrize("end", ["\u2028", "\x0b", "\x85", "\r"])
def test_a_text_cannot_forge_a_line_of_the_log(end):
    forged = "02-28 23:59:59.800  123   123 I PocketChat: finished"
    lines = logs.parse(f"02-28 23:59:59.750  123   124 I PocketChat: said{end}{forged}\r\n", CLOCKS)
    assert [line.t_us - CLOCKS.t_us for line in lines] == [250_000]


def test_a_year_that_ends_within_a_run_changes_nothing():
    clocks = logs.Clocks(5_000_000, "12-31 23:59:59.000")
    assert clocks.boot_us("01-01 00:00:01.000") == 7_000_000
    assert logs.Clocks(5_000_000, "01-01 00:00:01.000").boot_us("12-31 23:59:59.000") == 3_000_000
    for stamp in ("01-01 00:00:00.000", "02-29 12:34:56.789", "12-31 23:59:59.999"):
        assert clocks.at(clocks.boot_us(stamp)) == stamp
    with pytest.raises(ValueError, match="no time"):
        clocks.boot_us("2026-01-01")
