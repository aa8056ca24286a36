"""Threads that may run elsewhere than asked are counted, named without trust, and withhold the run."""

from __future__ import annotations

from pathlib import Path

import pytest
from watched import watched_run

from pocketvlm.analyse import records
from pocketvlm.analyse.gates import judge
from pocketvlm.analyse.placement import NOT_ASKED, threads_misplaced
from pocketvlm.analyse.raw import read_run
from pocketvlm.analyse.sensors import Value
from pocketvlm.cpulist import canonical, mask, parse
from pocketvlm.errors import ConfigError, IntegrityError
from pocketvlm.frameworks import settings

LOOKED = {"threads": {"omitted": 0}}


@pytest.mark.parametrize(
    ("text", "cpus", "printed", "hexadecimal"),
    [
        ("0-3,6", {0, 1, 2, 3, 6}, "0-3,6", "4f"),
        ("7", {7}, "7", "80"),
        ("3,2,1,0", {0, 1, 2, 3}, "0-3", "f"),
        ("0-1,1-2\n", {0, 1, 2}, "0-2", "7"),
    ],
)
def test_lists_of_cpus(text: str, cpus: set[int], printed: str, hexadecimal: str) -> None:
    assert parse(text) == cpus
    assert canonical(cpus) == printed
    assert mask(cpus) == hexadecimal


@pytest.mark.parametrize(
    "text", ["", "3-1", "0-", "-1", "a", "0,,1", "0-99999", "0-4096", "0;reboot", "٣", "0x3"]
)
def test_what_is_no_list_of_cpus(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize("value", ["", "3-1", 3, True, None, "0;reboot"])
def test_an_affinity_that_is_none_is_refused_where_the_experiment_is_read(value: object) -> None:
    with pytest.raises(ConfigError, match="Give a list of CPUs in quotes"):
        settings.resolve("llamacpp", {"threads": 2, "affinity": value})


def test_an_affinity_is_no_setting_of_a_framework_and_in_the_key_only_when_given() -> None:
    plain = settings.resolve("llamacpp", {"threads": 2})
    assert "affinity" not in plain
    assert settings.resolve("llamacpp", {"threads": 2, "affinity": "3,2"}) == {**plain, "affinity": "2-3"}
    assert settings.own({"threads": 2, "affinity": "0"}) == {"threads": 2}


def placed(
    tmp_path: Path, threads: list[tuple[int, int, str, str]], asked: object = "0-1", **more: object
) -> Value:
    folder = tmp_path / ("ab" * 32) / "00"
    watched_run(folder, threads=threads, settings={"affinity": asked}, **{"probe": LOOKED, **more})  # type: ignore[arg-type]
    return threads_misplaced(read_run(folder))


def test_a_run_that_asks_for_no_cpus(tmp_path: Path) -> None:
    folder = tmp_path / ("ab" * 32) / "00"
    watched_run(folder, threads=[(10, 2, "x", "0-7")], settings={"threads": 2})
    assert threads_misplaced(read_run(folder)) == Value(None, None, NOT_ASKED)


def test_threads_that_stayed_where_they_were_asked_to(tmp_path: Path) -> None:
    # The first thread is taskset before it keeps itself to the CPUs; a thread may keep to fewer.
    threads = [
        (10, 2, "taskset", "0-7"),
        (200, 2, "llama", "0-1"),
        (200, 3, "worker", "0"),
        (400, 3, "worker", "1"),
    ]
    assert placed(tmp_path, threads) == Value(0.0, 2)


def test_threads_that_did_not(tmp_path: Path) -> None:
    hostile = "a; b\n\x1b[2J\u202e" + "x" * 50
    threads = [
        (10, 2, "llama", "0-1"),
        (10, 3, hostile, "0-7"),
        (10, 4, "later", "0"),
        (400, 4, "later", "2"),
    ]
    value = placed(tmp_path, threads)
    assert (value.value, value.samples) == (2.0, 3)
    assert value.reason.startswith("2 of 3 threads were not kept on the CPUs 0-1: a, b ")
    assert "later on 2" in value.reason
    assert not set(value.reason) & set(";\n\x1b\u202e")
    assert len(value.reason) < 300


def test_of_many_misplaced_threads_some_are_named(tmp_path: Path) -> None:
    value = placed(tmp_path, [(10, tid, f"t{tid}", "4") for tid in range(2, 40)])
    assert value.value == 38
    assert value.reason.endswith("t6 on 4 and 33 more")


def test_the_first_list_of_the_first_thread_counts_when_no_other_follows(tmp_path: Path) -> None:
    assert placed(tmp_path, [(10, 2, "taskset", "0-7")]).value == 1


@pytest.mark.parametrize(
    ("threads", "asked", "probe", "why"),
    [
        ([], "0-1", LOOKED, "no thread of the workload was seen"),
        ([(10, 2, "x", "0")], "0-1", {"threads": {"omitted": 3}}, "not every thread"),
        ([(10, 2, "x", "0")], "0-1", {}, "not every thread"),
        ([(10, 2, "x", "0")], "9-1;", LOOKED, "name no list of CPUs: 9-1,"),
        ([(10, 2, "x", "0")], 7, LOOKED, "name no list of CPUs: 7"),
    ],
)
def test_where_nobody_knows(
    tmp_path: Path,
    threads: list[tuple[int, int, str, str]],
    asked: object,
    probe: dict[str, object],
    why: str,
) -> None:
    value = placed(tmp_path, threads, asked, probe=probe)
    assert value.value is None
    assert why in value.reason


def test_a_list_that_cannot_be_read_is_misplaced(tmp_path: Path) -> None:
    value = placed(tmp_path, [(10, 2, "x", ""), (20, 3, "y", "0-")])
    assert value.value == 2
    assert "x on an unreadable list" in value.reason


def test_an_event_without_a_thread_is_no_record(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="tid is 'seven'"):
        placed(tmp_path, [(10, "seven", "x", "0")])  # type: ignore[list-item]


def gates(value: float | None, reason: str) -> dict[str, str]:
    rows = [
        {"run": "r", "phase": phase, "metric": metric, "value": number, "unit": "", "source": "",
         "samples": 10, "lower_is_better": None, "reason": why}
        for phase, metric, number, why in (
            ("run", "threads_misplaced", value, reason),
            ("run", "duration", 5000.0, ""),
            ("decode", "tokens_per_second", 10.0, ""),
            ("decode", "tokens", 16.0, ""),
        )
    ]  # fmt: skip
    judged = judge(records.table("metrics", rows), {})
    return {row["metric"]: row["gate"] for row in judged.to_pylist()}


def test_the_gate_is_open_where_all_is_well_or_nothing_was_asked() -> None:
    assert set(gates(0.0, "").values()) == {""}
    assert set(gates(None, NOT_ASKED).values()) == {""}


@pytest.mark.parametrize("value", [2.0, None])
def test_the_gate_withholds_all_of_a_run_but_the_evidence(value: float | None) -> None:
    why = "2 of 3 threads were not kept on the CPUs 0-1: a on 2"
    found = gates(value, why)
    assert found == {"threads_misplaced": "", "duration": why, "tokens_per_second": why, "tokens": ""}
