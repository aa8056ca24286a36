"""Every metric of a hand-made run whose answers are known, and the reasons where there is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from handmade import BUDGET, IDENTITY, Piece, output, sensor_files, stderr_0_3_16, stdout_0_3_16, write_run

from pocketvlm.analyse.metrics import Metric, compute
from pocketvlm.analyse.phases import segment, whole
from pocketvlm.analyse.raw import read_run
from pocketvlm.analyse.sensors import Value
from pocketvlm.frameworks import PHASES
from pocketvlm.frameworks.llamacpp.grammar import parse

NO_IDLE = Value(None, None, "no idle baseline")
Table = dict[tuple[str, str], Metric]


def table(
    tmp_path: Path,
    *,
    identity: dict[str, Any] = IDENTITY,
    idle: Value = NO_IDLE,
    stdout: list[Piece] | None = None,
    exact: bool = True,
    **options: Any,
) -> Table:
    folder = tmp_path / ("ab" * 32) / "00"
    write_run(folder, output(stdout or stdout_0_3_16(), stderr_0_3_16()), **options)
    run = read_run(folder)
    report = parse(run.output, max_tokens=BUDGET, exact=True)
    intervals = segment(report.boundaries, run.wall_us)
    rows = compute(run, intervals, report, identity, idle_power=idle, budget=BUDGET, exact=exact)
    found = {(row.phase, row.metric): row for row in rows}
    assert len(found) == len(rows), "a metric was given twice"
    return found


def test_times_and_tokens(tmp_path: Path) -> None:
    rows = table(tmp_path)
    durations = {phase: rows[phase, "duration"].value for phase in (*PHASES, "run")}
    assert durations == {
        "load": 1000.0, "text_prefill": 200.0, "image_encode": 500.0, "image_prefill": 1900.0,
        "decode": 300.0, "other": 1100.0, "run": 5000.0,
    }  # fmt: skip
    assert rows["run", "time_to_first_token"].value == 3600.0
    assert rows["run", "time_to_first_token_after_load"].value == 2600.0
    assert rows["decode", "tokens"].value == 4
    assert rows["decode", "token_budget"].value == BUDGET
    # The first token ends the prefill, so three tokens were made in 300 ms.
    assert rows["decode", "tokens_per_second"].value == pytest.approx(10.0)
    assert rows["image_prefill", "tokens_per_second"].value == pytest.approx(576 / 1.9)
    assert rows["text_prefill", "tokens_per_second"].value == pytest.approx(24 / 0.2)


def test_an_answer_that_may_end_early_has_no_number_to_keep_to(tmp_path: Path) -> None:
    budget = table(tmp_path, exact=False)["decode", "token_budget"]
    assert budget.value is None
    assert f"before the {BUDGET} tokens" in budget.reason


def test_agreement_compares_what_means_the_same(tmp_path: Path) -> None:
    rows = table(tmp_path)
    assert rows["image_encode", "agreement.image_encode"].value == pytest.approx(0.0)
    assert rows["image_prefill", "agreement.image_prefill"].value == pytest.approx(0.0)
    assert rows["decode", "agreement.decode"].value == pytest.approx(0.0)
    # prompt eval contains encoding the image: 200 + 500 + 1900 ms.
    assert rows["run", "agreement.prompt_eval"].value == pytest.approx(0.0)
    for phase, counter in (("load", "load"), ("run", "total")):
        assert rows[phase, f"agreement.{counter}"].value is None
        assert rows[phase, f"agreement.{counter}"].reason
        assert rows[phase, f"reported.{counter}"].value is not None
    assert rows["decode", "reported.sample"].value is None


def test_sensors(tmp_path: Path) -> None:
    rows = table(tmp_path)
    for phase in ("load", "image_encode", "image_prefill", "other"):
        assert rows[phase, "system_cpu"].value == pytest.approx(200.0)
        assert rows[phase, "workload_cpu"].value == pytest.approx(150.0)
    assert rows["image_encode", "system_cpu"].samples == 5
    assert rows["run", "rss_peak"].value == pytest.approx((25600 + 4900) * 4096 / 2**20)
    assert rows["image_prefill", "temperature_start.cpu"].value == pytest.approx(41.6)
    assert rows["image_prefill", "temperature_rise.cpu"].value == pytest.approx(43.4 - 41.6)
    assert rows["run", "temperature_max.cpu"].value == pytest.approx(44.9)
    assert rows["run", "wake_late_p50"].value == pytest.approx(0.103)
    assert rows["run", "probe_cpu"].value == pytest.approx(0.1)
    assert rows["run", "sensor_coverage"].value == 100.0


def test_power_and_energy_with_and_without_idle(tmp_path: Path) -> None:
    rows = table(tmp_path, idle=Value(0.5))
    assert rows["run", "power"].value == pytest.approx(2.0)
    assert rows["run", "power_net"].value == pytest.approx(1.5)
    assert rows["run", "energy"].value == pytest.approx(10.0)
    assert rows["run", "energy_net"].value == pytest.approx(7.5)
    assert rows["image_prefill", "energy"].value == pytest.approx(3.8)
    assert rows["image_prefill", "energy_net"].value == pytest.approx(2.85)


CHARGING = "the battery was not discharging: its status was 'Charging'"


def test_a_battery_that_charges_gives_no_power(tmp_path: Path) -> None:
    idle = Value(0.5)
    rows = table(tmp_path / "a", idle=idle, texts=[(-500, "battery.status", "Charging")])
    for metric in ("power", "power_net", "energy", "energy_net"):
        for phase in ("load", "image_prefill", "run"):
            assert rows[phase, metric].value is None
            assert rows[phase, metric].reason == CHARGING
    assert rows["decode", "energy_per_token"].reason == CHARGING
    # Plugged in while the image is prefilled, from 1.60005 to 3.5 s: what ended before stands.
    plugged = [(-500, "battery.status", "Discharging"), (2_000_000, "battery.status", "Charging")]
    rows = table(tmp_path / "b", idle=idle, texts=plugged)
    assert rows["load", "energy"].value == pytest.approx(2.0)
    for phase in ("image_prefill", "other", "run"):
        assert rows[phase, "energy"].reason == CHARGING
    # Taken off again at 3 s: what began later stands.
    rows = table(tmp_path / "c", idle=idle, texts=[*plugged, (3_000_000, "battery.status", "Discharging")])
    assert rows["image_prefill", "power"].reason == CHARGING
    assert rows["other", "power"].value == pytest.approx(2.0)
    # Text of another sensor is no status, and neither full nor held is discharging.
    rows = table(tmp_path / "d", texts=[(-500, "battery.current", "Charging")])
    assert rows["run", "power"].value == pytest.approx(2.0)
    rows = table(tmp_path / "e", texts=[(-500, "battery.status", "Full")])
    assert "'Full'" in rows["run", "power"].reason


def test_a_current_into_the_battery_gives_no_power(tmp_path: Path) -> None:
    negative = "the battery was not discharging: its current was negative"
    silent = {**IDENTITY, "sensors": [s for s in IDENTITY["sensors"] if s["kind"] != "text"]}
    rows = table(tmp_path / "a", identity=silent, texts=(), current_ua=-500_000)
    assert rows["run", "energy"].reason == negative
    assert table(tmp_path / "b", identity=silent, texts=())["run", "power"].value == pytest.approx(2.0)
    files = sensor_files(5_000_000, 7_000_000_000, current_ua=500_000)
    before, after = f"{7_002_000_000},500000,".encode(), f"{7_002_000_000},-10,".encode()
    assert files["battery.csv"].count(before) == 1
    files["battery.csv"] = files["battery.csv"].replace(before, after)
    rows = table(tmp_path / "c", files=files)  # its status says Discharging all the same
    assert rows["image_prefill", "energy"].reason == negative
    assert rows["run", "energy"].reason == negative
    assert rows["load", "energy"].value == pytest.approx(2.0)


def test_time_that_the_host_took_is_no_work_of_the_system(tmp_path: Path) -> None:
    steal = {**IDENTITY["sensors"][0], "name": "cpu.total.steal", "component": "cpu.steal"}
    identity = {**IDENTITY, "sensors": [*IDENTITY["sensors"], steal]}
    files = sensor_files(5_000_000, 7_000_000_000, current_ua=500_000)
    header, *lines = files["cpu.csv"].decode().splitlines()
    stolen = [f"{line},{50 * number}" for number, line in enumerate(lines)]
    files["cpu.csv"] = ("\n".join([f"{header},cpu.total.steal", *stolen]) + "\n").encode()
    assert table(tmp_path, identity=identity, files=files)["run", "system_cpu"].value == pytest.approx(200.0)


def test_without_an_idle_run_there_is_no_net_energy(tmp_path: Path) -> None:
    rows = table(tmp_path)
    assert rows["run", "energy"].value == pytest.approx(10.0)
    assert rows["run", "energy_net"].value is None
    assert rows["run", "energy_net"].reason == "no idle baseline"


def test_fewer_than_five_samples_give_no_rate(tmp_path: Path) -> None:
    rows = table(tmp_path, idle=Value(0.5))
    # decode lasts 300 ms: 3 samples of the 100 ms group, 1 or 2 of the battery's.
    for metric in ("system_cpu", "workload_cpu", "rss_peak", "temperature_rise.cpu", "energy", "power_net"):
        row = rows["decode", metric]
        assert row.value is None
        assert row.reason.endswith("samples in the phase, 5 are needed")
    assert rows["decode", "energy_per_token"].value is None
    assert "5 are needed" in rows["decode", "energy_per_token"].reason


def test_energy_per_token_counts_the_tokens_of_the_phase(tmp_path: Path) -> None:
    slow = [
        *stdout_0_3_16()[:7],
        (4_000_000, b" b"),
        (4_400_000, b" c"),
        (4_800_000, b" d"),
        (4_900_000, b"\n\n"),
    ]
    rows = table(tmp_path, stdout=slow, idle=Value(0.5))
    assert rows["decode", "energy"].value == pytest.approx(2.4)
    assert rows["decode", "energy_per_token"].value == pytest.approx(0.8)
    assert rows["decode", "energy_net_per_token"].value == pytest.approx(0.6)


def test_time_between_tokens_only_where_every_token_was_seen(tmp_path: Path) -> None:
    rows = table(tmp_path / "few")
    assert "3 gaps between tokens" in rows["decode", "inter_token_latency_p50"].reason
    merged = [*stdout_0_3_16()[:7], (3_800_000, b" b c"), *stdout_0_3_16()[9:]]
    rows = table(tmp_path / "merged", stdout=merged)
    assert "3 pieces, the framework reports 4 tokens" in rows["decode", "inter_token_latency_p99"].reason


def test_what_a_device_does_not_expose_is_missing_for_a_reason(tmp_path: Path) -> None:
    bare = {
        **IDENTITY,
        "sensors": [],
        "missing": [{"quantity": "power", "component": "battery", "reason": "no battery"}],
    }
    rows = table(tmp_path, identity=bare)
    assert rows["run", "power"].reason == "no battery"
    assert rows["run", "energy"].reason == "no battery"
    for metric in (
        "system_cpu",
        "workload_cpu",
        "gpu_busy",
        "npu_busy",
        "cpu_frequency",
        "temperature_rise",
        "rss_peak",
    ):
        for phase in (*PHASES, "run"):
            assert rows[phase, metric].value is None
            assert rows[phase, metric].reason
    rows = table(tmp_path / "gpu")
    assert rows["run", "gpu_busy"].reason == "no GPU node can be read"
    for row in rows.values():
        assert (row.value is None) == bool(row.reason), row


def test_a_phase_that_could_not_be_seen_has_no_numbers(tmp_path: Path) -> None:
    pieces = stdout_0_3_16()
    together = [(1_100_000, pieces[0][1] + pieces[1][1]), *pieces[2:]]
    rows = table(tmp_path, stdout=together)
    for metric in ("duration", "system_cpu", "energy"):
        assert "load_end arrived in one piece" in rows["load", metric].reason
    assert rows["image_encode", "duration"].value == 500.0
    assert rows["run", "time_to_first_token_after_load"].value is None
    assert rows["run", "agreement.prompt_eval"].value is None
    assert rows["run", "duration"].value == 5000.0


def test_rapl_packages_are_summed_and_nested_domains_are_not(tmp_path: Path) -> None:
    lines = ["t_us,rapl.package-0,rapl.core,rapl.dram"]
    for t in range(0, 5_000_001, 100_000):
        package = (9_000_000 + 3 * t) % 10_000_000  # 3 W, wraps at 10 J
        lines.append(f"{7_000_000_000 + t},{package},{2 * t},{t}")
    sensors = [
        {"name": f"rapl.{domain}", "group": "rapl", "path": "/sys/rapl", "quantity": "energy",
         "component": f"rapl.{domain}", "unit": "J", "scale": 1e-6, "kind": "counter", "range": 10_000_000}
        for domain in ("package-0", "core", "dram")
    ]  # fmt: skip
    identity = {**IDENTITY, "sensors": sensors}
    files = {"rapl.csv": ("\n".join(lines) + "\n").encode()}
    rows = table(tmp_path / "a", identity=identity, files=files, idle=Value(1.0))
    assert rows["image_prefill", "energy"].value == pytest.approx(4.0 * 1.9)
    assert rows["image_prefill", "power_net"].value == pytest.approx(3.0)
    unknown = {**IDENTITY, "sensors": [{k: v for k, v in s.items() if k != "range"} for s in sensors]}
    rows = table(tmp_path / "b", identity=unknown, files=files)
    assert "went back" in rows["run", "energy"].reason


def test_coverage_is_that_of_the_worst_group(tmp_path: Path) -> None:
    rows = table(tmp_path, expected=50)
    assert rows["run", "sensor_coverage"].value == pytest.approx(50.0)  # battery: 25 of 50


def unreadable(name: str, ticks: range, group: str = "cpu") -> dict[str, bytes]:
    """Return the sensor files of a run in which one sensor could not be read at some ticks."""
    files = sensor_files(5_000_000, 7_000_000_000, current_ua=500_000)
    lines = [line.split(",") for line in files[f"{group}.csv"].decode().splitlines()]
    column = lines[0].index(name)
    for tick in ticks:
        lines[1 + tick][column] = ""
    files[f"{group}.csv"] = ("\n".join(",".join(line) for line in lines) + "\n").encode()
    return files


def test_coverage_counts_readings_and_not_rows(tmp_path: Path) -> None:
    def coverage(place: str, files: dict[str, bytes], identity: dict[str, Any] = IDENTITY) -> float | None:
        return table(tmp_path / place, files=files, identity=identity)["run", "sensor_coverage"].value

    # 50 ticks of the group; from the 26th on the zone is gone.
    assert coverage("half", unreadable("thermal.cpu", range(25, 50))) == pytest.approx(50.0)
    assert coverage("gone", unreadable("thermal.cpu", range(50))) == 100.0
    # The last look at a process that has ended is no gap, two are; for another file one is.
    assert coverage("ended", unreadable("proc.rss", range(49, 50))) == 100.0
    assert coverage("twice", unreadable("proc.rss", range(48, 50))) == pytest.approx(98.0)
    assert coverage("once", unreadable("thermal.cpu", range(49, 50))) == pytest.approx(98.0)
    assert coverage("slow", unreadable("battery.current", range(5), "battery")) == pytest.approx(80.0)
    # A core that is off has no counters.
    single = [{**s, "component": "cpu3.user"} if s["name"] == "cpu.total.user" else s
              for s in IDENTITY["sensors"]]  # fmt: skip
    files = unreadable("cpu.total.user", range(25, 50))
    assert coverage("total", files) == pytest.approx(50.0)
    assert coverage("core", files, {**IDENTITY, "sensors": single}) == 100.0


def test_coverage_of_a_probe_that_does_not_tell(tmp_path: Path) -> None:
    folder = tmp_path / ("ab" * 32) / "00"
    write_run(folder, output([], [], 3_000_000), role="idle")
    run = read_run(folder)
    for broken, why in (({"sensors": None}, "its readings"), ({"sensors": {"proc.rss": {}}}, "of proc.rss")):
        probe = {**run.probe, **broken}
        rows = compute(replace(run, probe=probe), whole(run.wall_us), None, IDENTITY, idle_power=Value(2.0))
        row = next(r for r in rows if r.metric == "sensor_coverage")
        assert row.value is None
        assert why in row.reason


def test_an_idle_run_has_only_metrics_of_the_whole(tmp_path: Path) -> None:
    folder = tmp_path / ("ab" * 32) / "00"
    write_run(folder, output([], [], 3_000_000), role="idle")
    run = read_run(folder)
    rows = compute(run, whole(run.wall_us), None, IDENTITY, idle_power=Value(2.0))
    assert {row.phase for row in rows} == {"run"}
    assert next(r.value for r in rows if r.metric == "power_net") == pytest.approx(0.0)
