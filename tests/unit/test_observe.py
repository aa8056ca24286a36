"""What is watched around a run, with a real probe on this machine and stand-ins for a phone's programs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from handmade import IDENTITY

from pocketvlm.analyse.raw import read_run
from pocketvlm.devices.base import Result
from pocketvlm.devices.local import LocalDevice
from pocketvlm.errors import DeviceError, TransientDeviceError
from pocketvlm.measure import placement
from pocketvlm.measure.cost import Cost
from pocketvlm.measure.jobs import Job, idle_job
from pocketvlm.measure.observe import FILE_BYTES, Observer, Pings
from pocketvlm.measure.runner import Runner
from pocketvlm.measure.store import RawStore, StoredRun
from pocketvlm.provenance import write_json
from tests.probe.recording import built

PACKAGE = "com.android.settings"
ACTIVITY = f"{PACKAGE}/.Settings"
LAYER = f"{ACTIVITY}#7"
MINE = sorted(os.sched_getaffinity(0))


class Phone(LocalDevice):
    """This machine with the answers of a phone's programs; `answers` is by the beginning of the command."""

    def __init__(self, folder: Path, **answers: str | Result | Exception) -> None:
        super().__init__("pixel", folder)
        self.answers = {name.replace("_", " "): answer for name, answer in answers.items()}
        self.asked: list[str] = []

    def shell(self, argv: Any, timeout: float) -> Result:  # type: ignore[override]
        """Answer from `answers`, or run the command."""
        command = " ".join(argv)
        self.asked.append(command)
        for begin, answer in self.answers.items():
            if command.startswith(begin):
                if isinstance(answer, Exception):
                    raise answer
                return Result(0, answer, "") if isinstance(answer, str) else answer
        return super().shell(argv, timeout)


PHONE = {
    "am start": "Starting: Intent { cmp=com.android.settings/.Settings }\n",
    "dumpsys gfxinfo com.android.settings reset": "",
    "dumpsys gfxinfo com.android.settings framestats": "frames\n",
    "dumpsys SurfaceFlinger --latency-clear": "",
    "dumpsys SurfaceFlinger --list": f"StatusBar#1\nRequestedLayerState{{{LAYER} parentId=3}}\n{PACKAGE}#2\n",
    f"dumpsys SurfaceFlinger --latency {LAYER}": "16666667\n1\t2\t3\n",
    f"dumpsys SurfaceFlinger --latency {PACKAGE}#2": "16666667\n",
    "dumpsys gpu": "gpu_id uid total_active_duration_ns total_inactive_duration_ns\n",
    "id -u": "2000\n",
}


def phone(folder: Path, **changes: str | Result | Exception) -> Phone:
    made = Phone(folder)
    made.answers = {**PHONE, **{name.replace("_", " "): answer for name, answer in changes.items()}}
    return made


def watch(device: LocalDevice, out: Path, **asked: Any) -> dict[str, Any]:
    snapshots = asked.pop("snapshots", {})
    observer = Observer(device, snapshots, asked)
    with observer:
        pass
    out.mkdir()
    return observer.write(out)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pocketvlm.measure.observe._SETTLE_S", 0.0)


def test_nothing_is_asked_of_a_device_by_default(tmp_path: Path) -> None:
    device = phone(tmp_path / "d")
    assert watch(device, tmp_path / "out") == {}
    assert device.asked == []
    assert list((tmp_path / "out").iterdir()) == []


def test_frames_of_the_activity(tmp_path: Path) -> None:
    device = phone(tmp_path / "d")
    meta = watch(device, tmp_path / "out", foreground_activity=ACTIVITY)
    assert meta == {"observed": {"missing": {}}}
    assert (tmp_path / "out/framestats.txt").read_text() == "frames\n"
    assert (tmp_path / "out/surfaceflinger.txt").read_text() == "16666667\n1\t2\t3\n"
    assert device.asked[:3] == [
        f"am start -n {ACTIVITY}",
        f"dumpsys gfxinfo {PACKAGE} reset",
        "dumpsys SurfaceFlinger --latency-clear",
    ]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"am start": Result(127, "", "am: not found")}, "the device has no am"),
        (
            {"am start": "Error: Activity class {x} does not exist.\n"},
            "could not be started: Error: Activity",
        ),
        ({"dumpsys SurfaceFlinger --latency-clear": Result(1, "", "denied")}, "status 1 and said: denied"),
        ({"am start": TransientDeviceError("it hangs", do="x")}, "it hangs"),
    ],
)
def test_a_device_without_frames_is_no_error(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    meta = watch(phone(tmp_path / "d", **changes), tmp_path / "out", foreground_activity=ACTIVITY)
    assert why in meta["observed"]["missing"]["frames"]
    assert list((tmp_path / "out").iterdir()) == []


def test_this_machine_has_no_such_programs(tmp_path: Path) -> None:
    meta = watch(
        LocalDevice("local", tmp_path / "d"),
        tmp_path / "out",
        foreground_activity=ACTIVITY,
        snapshots={"gpu_work": ["dumpsys", "gpu", "--gpuwork"]},
    )
    missing = meta["observed"]["missing"]
    assert missing == {"frames": "the device has no am", "gpu_work": "the device has no dumpsys"}


def test_snapshots_before_and_after(tmp_path: Path) -> None:
    device = phone(tmp_path / "d")
    meta = watch(device, tmp_path / "out", snapshots={"gpu_work": ["dumpsys", "gpu", "--gpuwork"]})
    assert meta == {"observed": {"uid": 2000, "missing": {}}}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "gpu_work-after.txt",
        "gpu_work-before.txt",
    ]


def test_what_a_device_prints_without_end_is_cut_at_a_line(tmp_path: Path) -> None:
    device = phone(tmp_path / "d", **{"dumpsys gfxinfo com.android.settings framestats": "row\n" * (1 << 20)})
    watch(device, tmp_path / "out", foreground_activity=ACTIVITY)
    data = (tmp_path / "out/framestats.txt").read_bytes()
    assert len(data) <= FILE_BYTES
    assert data.endswith(b"row\n")


def pinged(device: LocalDevice, path: Path, seconds: float = 0.4, period_s: float = 0.05) -> list[list[str]]:
    pings = Pings(device, period_s)
    pings.start()
    time.sleep(seconds)
    pings.stop()
    pings.write(path)
    header, *rows = path.read_text().splitlines()
    assert header == "t_us,round_trip_us"
    return [line.split(",") for line in rows]


def test_pings_have_the_devices_clock(tmp_path: Path) -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    rows = pinged(LocalDevice("local", tmp_path / "d"), tmp_path / "shell.csv")
    after = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert len(rows) >= 2
    for t_us, took in rows:
        assert before - 0.02 <= int(t_us) / 1e6 <= after
        assert int(took) > 0
    assert rows == sorted(rows, key=lambda row: int(row[0]))


class Failing(LocalDevice):
    """This machine, whose shell fails from the second command on, in whatever way."""

    error: Exception

    def shell(self, argv: Any, timeout: float) -> Result:  # type: ignore[override]
        """Answer once."""
        if self.calls:
            raise self.error
        return super().shell(argv, timeout)


@pytest.mark.parametrize("error", [DeviceError("no", do="x"), ConnectionResetError(), RuntimeError("a bug")])
def test_pings_that_are_lost_are_rows_without_a_number(tmp_path: Path, error: Exception) -> None:
    device = Failing("local", tmp_path / "d")
    device.error = error
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    rows = pinged(device, tmp_path / "shell.csv")
    assert len(rows) >= 2
    assert {took for _, took in rows} == {""}
    assert abs(int(rows[0][0]) / 1e6 - now) < 5, "where the clock would have been"


class Hanging(LocalDevice):
    """This machine, whose shell hangs from the second command on."""

    def shell(self, argv: Any, timeout: float) -> Result:  # type: ignore[override]
        """Answer once."""
        if self.calls:
            time.sleep(3)
        return super().shell(argv, timeout)


def test_a_run_that_is_ended_does_not_wait_for_a_ping(tmp_path: Path) -> None:
    observer = Observer(Hanging("local", tmp_path / "d"), {}, {"shell_ping_ms": 50})
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt), observer:
        time.sleep(0.3)
        raise KeyboardInterrupt
    assert time.monotonic() - begun < 2.5


def test_a_device_that_never_tells_its_clock_has_no_rows(tmp_path: Path) -> None:
    assert pinged(phone(tmp_path / "d", **{"cat /proc/uptime": "never\n"}), tmp_path / "shell.csv") == []


@pytest.fixture
def runner(tmp_path: Path) -> Callable[..., Runner]:
    """A runner on this machine with the real probe."""
    bundle = tmp_path / "probe"
    (bundle / "bin").mkdir(parents=True)
    (bundle / "bin/probe").symlink_to(built(f"{os.uname().machine}-linux-musl"))
    (bundle / "manifest.json").write_text("{}")

    def make(device: LocalDevice, responsiveness: dict[str, Any] | None = None, **identity: Any) -> Runner:
        store = RawStore(tmp_path / "raw")
        described = {**IDENTITY, "groups": {"cpu": {"period_ms": 100}}, "sensors": [SENSOR], **identity}
        return Runner(device, described, bundle, 30, store, tmp_path / "failed", responsiveness)

    return make


SENSOR = {
    "name": "cpu.user", "group": "cpu", "path": "/proc/stat", "select": "line:cpu:1", "quantity": "cpu_time",
    "component": "cpu.user", "unit": "s", "scale": 0.01, "kind": "counter",
}  # fmt: skip


def recorded(runner: Runner, affinity: str | None, argv: tuple[str, ...] = ("sleep", "0.6")) -> StoredRun:
    job = Job(argv, {}, {"settings": {"affinity": affinity}, "workload": {}}, affinity)
    runner.deploy([job])
    return runner.run(job, {"role": "measured"}, "cell")


def test_a_workload_is_kept_on_its_cpus_and_every_thread_is_looked_at(
    tmp_path: Path, runner: Callable[..., Runner]
) -> None:
    stored = recorded(runner(LocalDevice("local", tmp_path / "d")), str(MINE[-1]))
    run = read_run(stored.folder)
    assert run.threads[-1].name == "sleep"
    assert run.threads[-1].allowed == str(MINE[-1])
    assert {seen.tid for seen in run.threads} == {run.pid}


def test_without_an_affinity_nobody_looks(tmp_path: Path, runner: Callable[..., Runner]) -> None:
    run = read_run(recorded(runner(LocalDevice("local", tmp_path / "d")), None).folder)
    assert run.threads == ()
    assert "threads" not in run.probe
    assert "observed" not in run.meta


def test_a_device_without_taskset_is_refused_before_the_first_run(
    tmp_path: Path, runner: Callable[..., Runner]
) -> None:
    device = Phone(tmp_path / "d", **{"sh_-c_command": Result(1, "", "")})
    with pytest.raises(DeviceError, match="pixel has no taskset"):
        recorded(runner(device), "0")


def test_taskset_comes_before_the_programs_own_prefix() -> None:
    assert placement.pin("0-3,6") == ["taskset", "4f"]
    assert placement.pin(None) == []
    assert placement.watch(None) == []


def test_a_run_holds_all_that_was_asked_for(tmp_path: Path, runner: Callable[..., Runner]) -> None:
    device = phone(tmp_path / "d")
    asked = {"shell_ping_ms": 50, "foreground_activity": ACTIVITY}
    made = runner(device, asked, snapshots={"gpu_work": ["dumpsys", "gpu", "--gpuwork"]})
    run = read_run(recorded(made, None).folder)
    assert set(run.tables) == {
        "framestats.txt",
        "surfaceflinger.txt",
        "gpu_work-before.txt",
        "gpu_work-after.txt",
    }
    assert run.shell_t_us.size >= 2
    assert (run.shell_t_us > -5_000_000).all(), "on the clock of the run"
    assert run.meta["observed"] == {"uid": 2000, "missing": {}}


def test_what_is_asked_for_is_in_the_key_only_then(tmp_path: Path) -> None:
    write_json(tmp_path / "manifest.json", {})
    plain = idle_job(IDENTITY, tmp_path, 3)
    assert plain == idle_job(IDENTITY, tmp_path, 3, {})
    assert "responsiveness" not in plain.key_inputs
    assert idle_job(IDENTITY, tmp_path, 3, {"responsiveness": {"shell_ping_ms": 500}}).key != plain.key


def test_what_a_run_costs_the_host(tmp_path: Path) -> None:
    device = LocalDevice("local", tmp_path / "d")
    cost = Cost(device)
    assert str(cost) == "no run was made: 0 device calls"
    for calls in (1, 3):
        cost.begin()
        for _ in range(calls):
            device.shell(["true"], 5)
        cost.end()
    assert str(cost).startswith("device calls per run: 2 (1 to 3), host CPU per run: 0.")
    assert str(cost).endswith("2 runs, 4 calls in all")
    device.serial = "emulator"
    assert str(cost).startswith("adb calls per run: 2 (1 to 3), ")
