"""Low memory kills in a device's log: those of a run, and never one of before it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from pocketvlm.devices.base import Result
from pocketvlm.devices.local import LocalDevice
from pocketvlm.errors import TransientDeviceError
from pocketvlm.measure.kills import KillLog, since
from pocketvlm.provenance import write_json

# As `dmesg` of Linux 6.1 (mm/oom_kill.c) and `logcat -v epoch` of Android (lmkd.cpp, event.logtags) print.
OOM = "[ {:.6f}] Out of memory: Killed process 4242 (chrome) total-vm:1kB, anon-rss:1kB, UID:10 pgtables:1kB"
LMK = (
    "         {:.3f}   512   512 I lowmemorykiller: Kill 'com.example.mail' (777), uid 10, oom_score_adj 900"
)
EVENT = "         {:.3f}   512   512 I killinfo: [777,10123,900,900,84000,0]"
LOCAL = "{}   512   512 I lowmemorykiller: Kill 'com.example.mail' (777), uid 10, oom_score_adj 900"
UP, NOW, HERE = 5000.0, 1_764_392_400.5, "2026-01-01 00:00:20"


def printed(
    dmesg: list[str] | None = None, logcat: list[str] | None = None, now: str = f"{NOW:.9f} {HERE}"
) -> str:
    lines = [f"up {UP:.2f}", f"now {now}"]
    lines += ["log logcat", *logcat] if logcat is not None else []
    lines += ["log dmesg", *dmesg] if dmesg is not None else []
    return "\n".join(lines) + "\n"


def test_a_kill_during_the_run_counts_and_one_of_before_does_not():
    began = UP - 60
    lines = [OOM.format(began - 0.5), "[ 4990.000000] usb 1-1: reset", OOM.format(began + 0.5)]
    assert since(printed(lines), began, began) == [lines[2]]
    epoch = NOW - 60
    lines = [LMK.format(epoch - 0.1), LMK.format(epoch + 0.1), EVENT.format(epoch + 59)]
    assert since(printed(logcat=lines), began, began) == [line.strip() for line in lines[1:]]


def test_the_kernel_does_not_count_the_time_asleep():
    began, asleep = UP - 60, 1000.0
    before, during = OOM.format(began - asleep - 1), OOM.format(began - asleep + 1)
    assert since(printed([before, during]), began, began - asleep) == [during]


def test_a_logcat_that_knows_no_epoch_tells_the_local_time():
    times = [
        "12-31 23:59:20.400",
        "12-31 23:59:20.600",
        "01-01 00:00:20.100",
        "12-31 12:00:00.000",
        "13-41 0",
    ]
    lines = [LOCAL.format(time) for time in times]
    assert since(printed(logcat=lines), UP - 60, UP - 60) == lines[1:3]
    assert since(printed(logcat=lines, now=f"{NOW} 2026-02-30 00:00:20"), UP - 60, UP - 60) == []


def test_where_the_time_of_day_has_whole_seconds_nothing_of_before_counts():
    lines = [LMK.format(NOW - 60 - 0.1), LMK.format(NOW - 60 + 1.5)]
    assert since(printed(logcat=lines, now=f"{int(NOW)}.N {HERE}"), UP - 60, UP - 60) == [lines[1].strip()]


@pytest.mark.parametrize(
    "line", ["Out of memory: Killed process 1 (x)", "[ x] Out of memory: Killed process 1", ""]
)
def test_a_line_without_a_time_does_not_count(line):
    assert since(printed([line]), 0.0, 0.0) == []


def test_no_log_and_no_kill_are_different():
    assert since(printed(), 0.0, 0.0) is None
    assert since("", 0.0, 0.0) is None
    assert since(printed([]), 0.0, 0.0) == []
    assert since(printed(logcat=[LMK.format(NOW)]).replace("up ", "x "), 0.0, 0.0) == [], "no time to compare"


def test_long_and_many_lines_are_cut():
    found = since(printed([OOM.format(UP) + "x" * 9000] * 100), 0.0, 0.0)
    assert found is not None
    assert len(found) == 20
    assert max(map(len, found)) == 300


class Phone:
    """A device that says something, and counts how often it is asked."""

    id = "pixel"
    root = False

    def __init__(self, says: str, fails: bool = False) -> None:
        self.says, self.fails, self.asked = says, fails, 0

    def shell(self, argv: list[str], timeout: float) -> Result:
        """Say it."""
        self.asked += 1
        if self.fails:
            raise TransientDeviceError("gone", do="look")
        return Result(0, self.says, "")


def record(says: str, folder: Path, **probe: Any) -> dict[str, Any]:
    write_json(folder / "probe.json", {"start_us": int((UP - 60) * 1e6), **probe})
    return KillLog(Phone(says)).record(folder)  # type: ignore[arg-type]


def test_it_is_in_the_record_of_the_run(tmp_path):
    during = OOM.format(UP - 1)
    assert record(printed([during]), tmp_path) == {"low_memory_kills": [during]}
    assert record(printed([]), tmp_path) == {"low_memory_kills": []}
    assert record(printed([during]), tmp_path, monotonic_offset_us=0) == {"low_memory_kills": [during]}
    asleep = {"monotonic_offset_us": 1_000_000_000}
    assert record(printed([OOM.format(UP - 1030)]), tmp_path, **asleep)["low_memory_kills"]
    assert record(printed([OOM.format(UP - 1070)]), tmp_path, **asleep) == {"low_memory_kills": []}


def test_a_device_without_a_readable_log_is_asked_once(tmp_path):
    write_json(tmp_path / "probe.json", {"start_us": 0})
    phone = Phone(printed())
    kills = KillLog(phone)  # type: ignore[arg-type]
    assert kills.record(tmp_path) == kills.record(tmp_path) == {}
    assert phone.asked == 1


def test_a_run_is_not_lost_because_the_log_cannot_be_asked_for(tmp_path):
    write_json(tmp_path / "probe.json", {"start_us": 0})
    assert KillLog(Phone("", fails=True)).record(tmp_path) == {}  # type: ignore[arg-type]


def test_the_command_reads_the_logs_that_are_there(tmp_path, monkeypatch):
    """By the shell of this machine, with programs of the names of the real ones."""
    programs = tmp_path / "bin"
    programs.mkdir()
    now, up = time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)
    (programs / "logcat").write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\necho "{EVENT.format(now)}"\n'
    )
    lines = [OOM.format(up - 100), OOM.format(up + 1), "[1.0] other"]
    (programs / "dmesg").write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
    for program in programs.iterdir():
        program.chmod(0o755)
    device = LocalDevice("local", tmp_path / "there")
    device._environment["PATH"] = f"{programs}:{os.environ['PATH']}"
    write_json(tmp_path / "probe.json", {"start_us": int((up - 50) * 1e6)})
    found = KillLog(device).record(tmp_path)["low_memory_kills"]
    assert found == [EVENT.format(now).strip(), lines[1]]
    asked = (tmp_path / "asked").read_text().splitlines()[-1]
    assert abs(float(asked.split("-T ")[1]) - (now - 50)) < 4
