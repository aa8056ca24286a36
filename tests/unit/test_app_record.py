"""From what was recorded of an app to phases without interaction, counters and reasons."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from pocketvlm.analyse import app as analysed
from pocketvlm.analyse import interaction
from pocketvlm.analyse.phases import of_phase, segment, without_interaction
from pocketvlm.apps.record import Record, Recorder, Wait
from pocketvlm.apps.statistics import Found
from pocketvlm.errors import IntegrityError, WorkloadError
from pocketvlm.frameworks import Output, Stream
from pocketvlm.frameworks.app.grammar import parse

WALL = 20_000_000
EMPTY = Stream(b"", np.empty(0, np.int64), np.empty(0, np.int64))
PROMPT = ("text_prefill", "image_encode", "image_prefill")


def output(*waits: Wait, wall_us: int = WALL, **found: Found) -> Output:
    numbers = {name.replace("_", ".", 1): value for name, value in found.items()}
    return Output(EMPTY, EMPTY, wall_us, app=Record(waits, {}, 5, 5, 0, numbers))


LOAD = Wait(("load",), 1_000_000, 3_000_000, 10_000, "wait id='ready'")
THINK = Wait(PROMPT, 6_000_000, 9_000_000, 50_000, "wait log 'first'")
DECODE = Wait(("decode",), 9_000_000, 13_000_000, 0, "wait log 'done'")


def understood(*waits: Wait, **found: Found):
    return parse(output(*waits, **found), max_tokens=64, exact=False)


def test_all_time_that_is_no_wait_is_interaction():
    report = understood(LOAD, THINK, DECODE)
    intervals = segment(report.boundaries, WALL)
    assert [(i.phase, i.start_us, i.end_us) for i in intervals] == [
        ("interaction", 0, 1_000_000), ("load", 1_000_000, 3_000_000), ("interaction", 3_000_000, 6_000_000),
        ("text_prefill", 6_000_000, 9_000_000), ("decode", 9_000_000, 13_000_000),
        ("interaction", 13_000_000, WALL),
    ]  # fmt: skip
    counted = [(1_000_000, 3_000_000), (6_000_000, 13_000_000)]
    assert of_phase(intervals, "run") == counted
    assert without_interaction(intervals, report.first_token_us) == [counted[0], (6_000_000, 9_000_000)]
    assert report.first_token_us == 9_000_000


def test_a_run_that_begins_and_ends_with_the_apps_own_time_has_no_interaction():
    report = understood(Wait(("decode",), 0, WALL, 0, "w"))
    assert [(i.phase, i.duration_us) for i in segment(report.boundaries, WALL) if i.duration_us] == [
        ("decode", WALL)
    ]


def test_phases_that_share_a_wait_are_na_and_so_is_one_that_none_shows():
    report = understood(THINK, DECODE)
    for phase in PROMPT:
        assert (
            "does not show where text_prefill, image_encode and image_prefill part"
            in report.unobservable[phase]
        )
    assert "waits for nothing" in report.unobservable["load"]
    assert "decode" not in report.unobservable


def test_without_a_wait_of_its_own_nobody_knows_when_the_answer_began():
    report = understood(LOAD, Wait((*PROMPT, "decode"), 6_000_000, 13_000_000, 0, "w"))
    assert report.first_token_us is None
    assert "when its answer begins" in report.unobservable["first_token"]
    assert "decode" in report.unobservable


def test_the_first_token_is_not_the_tap_that_asked_for_it():
    report = understood(LOAD, DECODE)
    assert report.first_token_us is None
    assert "when its answer begins" in report.unobservable["first_token"]


def test_what_is_done_between_prompt_and_answer_does_not_delay_the_first_token():
    assert understood(LOAD, THINK, replace(DECODE, start_us=9_500_000)).first_token_us == 9_000_000


def test_first_token_and_total_that_are_not_known_to_a_tenth_are_na():
    report = understood(LOAD, replace(THINK, unsure_us=800_000), DECODE)
    assert report.first_token_us is None
    assert "5.00 s are known to 0.81 s only" in report.unobservable["first_token"]
    assert "run" not in report.unobservable
    report = understood(LOAD, THINK, replace(DECODE, unsure_us=1_000_000))
    assert report.first_token_us == 9_000_000
    assert "9.00 s are known to 1.06 s only" in report.unobservable["run"]


@pytest.mark.parametrize(("unsure", "seen"), [(399_000, True), (401_000, False)])
def test_a_phase_that_is_not_known_to_a_tenth_is_na(unsure, seen):
    report = understood(THINK, Wait(("decode",), 9_000_000, 13_000_000, unsure, "w"))
    assert ("decode" not in report.unobservable) is seen


def test_the_apps_numbers_become_counters_and_counts():
    report = understood(
        LOAD, THINK, DECODE,
        time_load=Found(1900.0), time_total=Found(None, reason="the app shows no time.total"),
        time_prompt_eval=Found(2900.0), time_time_to_first_token=Found(4900.0),
        rate_decode=Found(8.0), tokens_decode=Found(24.0),
        answer=Found(None, text="A cup."),
    )  # fmt: skip
    counters = {counter.name: counter for counter in report.counters}
    assert set(counters) == {"load", "total", "prompt_eval", "first_token", "decode_step"}
    assert (counters["decode_step"].value_ms, counters["decode_step"].covers) == (125.0, ())
    assert (counters["load"].value_ms, counters["load"].covers) == (1900.0, ("load",))
    assert counters["load"].unannounced_ms == 30.0, "a tap of 10 ms, and the clock"
    assert counters["prompt_eval"].covers == PROMPT
    assert counters["total"].reason == "the app shows no time.total"
    assert (report.tokens["decode"], report.decode_steps, report.answer) == (24, 23, "A cup.")
    assert understood(DECODE).decode_steps is None


def test_the_tokens_of_the_whole_prompt_are_told_beside_the_rates():
    run = SimpleNamespace(
        output=output(LOAD, THINK, DECODE, tokens_prompt=Found(600.0), rate_decode=Found(8.0))
    )
    told = {m.metric: m.value for m in interaction.metrics(run, [])}
    assert (told["reported_tokens.prompt"], told["reported_rate.decode"]) == (600.0, 8.0)


def test_a_run_without_a_record_of_an_app_is_refused():
    with pytest.raises(WorkloadError, match="no record of an app"):
        understood()
    with pytest.raises(WorkloadError, match="no record of an app"):
        parse(Output(EMPTY, EMPTY, WALL), max_tokens=1, exact=False)


START = 100_000_000


def recorded(tmp_path) -> list[dict]:
    recorder = Recorder()
    recorder.add("clock", START + 100, stamp="11-29 10:00:00.000000000")
    recorder.screen(START - 5_000, START - 4_000, "prepare.1", "<a/>")
    recorder.screen(START + 5_000, START + 6_000, "run.0", "<a/>")
    recorder.add("step", START + 200_000, end_us=START + 900_000, step="run.1", kind="wait",
                 what="wait id='x'", phases=["decode"], since_begun_us=START + 150_000,
                 since_us=START + 200_000, not_before_us=START + 700_000,
                 seen_us=START + 900_000)  # fmt: skip
    recorder.add("read", START + 950_000, step="run.2", name="stats", text="é <b>")
    recorder.add("clock", START + 1_000_100, stamp="11-29 10:00:01.003000000")
    recorder.write(tmp_path)
    return [json.loads(line) for line in (tmp_path / "app.jsonl").read_text().splitlines()]


def test_what_is_written_is_read(tmp_path):
    events = recorded(tmp_path)
    assert [event["t_us"] for event in events] == sorted(event["t_us"] for event in events)
    assert [("xml" in event, event.get("same")) for event in events if event["event"] == "screen"] == [
        (True, None), (False, True),
    ]  # fmt: skip
    record = analysed.understand(events, START, START + 1_000_000, tmp_path)
    (wait,) = record.waits
    # The tap took 50 ms, and the last look that saw nothing began 200 ms before what saw it ended.
    assert (wait.start_us, wait.end_us, wait.unsure_us) == (200_000, 900_000, 250_000)
    assert record.reads == {"stats": "é <b>"}
    assert (record.steps, record.looks, record.drift_us) == (1, 1, 3_000)


@pytest.mark.parametrize(
    "change",
    [
        {"seen_us": "soon"}, {"seen_us": START + 100_000}, {"since_us": None}, {"phases": "decode"},
        {"phases": [1]}, {"what": 3}, {"since_begun_us": START + 250_000},
    ],
)  # fmt: skip
def test_a_record_that_is_not_of_its_form_is_refused(tmp_path, change):
    events = recorded(tmp_path)
    next(event for event in events if event["event"] == "step").update(change)
    with pytest.raises(IntegrityError, match=r"line \d"):
        analysed.understand(events, START, START + 1_000_000, tmp_path)


def test_times_beyond_the_run_are_cut_to_it(tmp_path):
    (wait,) = analysed.understand(recorded(tmp_path), START, START + 800_000, tmp_path).waits
    assert wait.end_us == 800_000
