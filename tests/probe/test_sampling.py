"""What the probe reads, when, and what it says where it cannot."""

from __future__ import annotations

import itertools
import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.probe.recording import Prober, python


def sleep(seconds: float) -> list[str]:
    return ["sleep", str(seconds)]


@pytest.mark.parametrize(
    ("content", "select", "expected"),
    [
        (b"45000\n", "first", "45000"),
        (b"45000", "first", "45000"),
        (b"  -12.50\n", "first", "-12.50"),
        (b"+7\n", "first", "+7"),
        (b"7 %\n", "first", "7"),
        (b"7%\n", "first", "7"),
        (b"7%", "first", "7"),
        (b"12 3400\n", "first", "12"),
        (b"1e5\n", "first", "1e5"),
        (b"12 3400\n", "field:1", "3400"),
        (b"a b 5.25", "field:2", "5.25"),
        (b"x 1\ncpu0 9 8\ncpu  1 2 3\n", "line:cpu:2", "2"),
        (b"MemTotal: 5 kB\nMemFree:   77 kB\n", "line:MemFree:1", "77"),
        (b"a:b 4\n", "line:a:b:1", "4"),
        (b"5 (a) b) (c d) S 1 2 3\n", "stat:1", "5"),
        (b"5 (a) b) (c d) S 1 2 3\n", "stat:6", "3"),
        (b"5 (a\n) S 1 2 3\n", "stat:4", "1"),
        (b"0" * 62 + b"1\n", "first", "0" * 62 + "1"),
    ],
)
def test_numbers_are_copied_as_printed(
    any_prober: Prober, tmp_path: Path, content: bytes, select: str, expected: str
) -> None:
    path = tmp_path / "node"
    path.write_bytes(content)
    recording = any_prober.run(f"group\tg\t100\nsensor\tx\t{path}\t{select}\n", ["true"])
    assert set(recording.column("g", "x")) == {expected}
    assert recording.events_of("text") == recording.events_of("unreadable") == []


@pytest.mark.parametrize(
    ("content", "select", "text"),
    [
        (b"n/a\n", "first", "n/a"),
        (b"", "first", ""),
        (b"\n", "first", ""),
        (b"12abc\n", "first", "12abc"),
        (b"7%x\n", "first", "7%x"),
        (b"0x1f\n", "first", "0x1f"),
        (b"nan\n", "first", "nan"),
        (b"inf\n", "first", "inf"),
        (b"1e999\n", "first", "1e999"),
        (b"-\n", "first", "-"),
        (b".\n", "first", "."),
        (b"1" * 64 + b"\n", "first", "1" * 64),
        (b"1 2\n", "field:5", ""),
        (b"1 2\n3 4 5\n", "field:2", ""),
        (b"1 2x\n", "field:1", "2x"),
        (b"cpux 1\n", "line:cpu:1", ""),
        (b"cpu 1\n", "line:cpu:9", ""),
        (b"no parenthesis\n", "stat:4", "no parenthesis"),
        (b"\x00\x01\xff\xfe\n", "first", "\x00\x01\ufffd\ufffd"),
        (b'quote " and \\ and \xc3\xa9\n', "first", 'quote " and \\ and é'),
        (b"x" * 1000, "first", "x" * 256),
    ],
)
def test_what_is_no_number_leaves_the_cell_empty_and_is_told_once(
    prober: Prober, tmp_path: Path, content: bytes, select: str, text: str
) -> None:
    path = tmp_path / "node"
    path.write_bytes(content)
    recording = prober.run(f"group\tg\t20\nsensor\tx\t{path}\t{select}\n", sleep(0.1))
    assert set(recording.column("g", "x")) == {""}
    assert [event["value"] for event in recording.events_of("text", "x")] == [text]
    counted = recording.record["sensors"]["x"]
    assert counted["reads"] == counted["unreadable"] == len(recording.rows("g")) >= 2
    assert counted["changes"] == 0


def test_text_goes_to_the_events_when_it_changes(any_prober: Prober, tmp_path: Path) -> None:
    path = tmp_path / "status"
    path.write_text("Charging    \n")
    code = f"""
import time
for text in ("Discharging\\n", "Discharging\\n", "Full       \\nmore\\n"):
    time.sleep(0.2)
    with open({str(path)!r}, "r+") as stream: stream.write(text)
time.sleep(0.2)
"""
    recording = any_prober.run(f"group\tg\t20\nsensor\tstatus\t{path}\ttext\n", python(code))
    values = [event["value"] for event in recording.events_of("text", "status")]
    assert [value.strip() for value in values] == ["Charging", "Discharging", "Full"]
    assert list(recording.rows("g")[0]) == ["t_us"]
    assert recording.record["sensors"]["status"]["changes"] == 2
    assert recording.record["sensors"]["status"]["unreadable"] == 0


def test_changes_of_a_number_are_counted(prober: Prober, tmp_path: Path) -> None:
    path = tmp_path / "node"
    path.write_text("100")
    code = f"""
import time
for text in ("101", "101", "102", "n/a", "102"):
    time.sleep(0.1)
    with open({str(path)!r}, "r+") as stream: stream.write(text)
time.sleep(0.1)
"""
    recording = prober.run(f"group\tg\t10\nsensor\tx\t{path}\tfirst\n", python(code))
    seen = [value for value, _ in itertools.groupby(recording.column("g", "x"))]
    assert seen == ["100", "101", "102", "", "102"]
    assert recording.record["sensors"]["x"]["changes"] == 2
    assert [event["value"] for event in recording.events_of("text", "x")] == ["n/a"]


def test_missing_file_is_told_once_and_never_a_zero(any_prober: Prober, tmp_path: Path) -> None:
    recording = any_prober.run(
        f"group\tg\t20\nsensor\tx\t{tmp_path}/none\tfirst\nsensor\ty\t{tmp_path}\tfirst\n", sleep(0.2)
    )
    assert set(recording.column("g", "x")) == set(recording.column("g", "y")) == {""}
    (event,) = recording.events_of("unreadable", "x")
    assert event["error"] == "ENOENT"
    (event,) = recording.events_of("unreadable", "y")
    assert event["error"] == "EISDIR"
    assert recording.record["sensors"]["x"]["unreadable"] == len(recording.rows("g"))


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_denied_file(prober: Prober, tmp_path: Path) -> None:
    path = tmp_path / "node"
    path.write_text("5")
    path.chmod(0)
    recording = prober.run(f"group\tg\t20\nsensor\tx\t{path}\tfirst\n", sleep(0.1))
    assert recording.events_of("unreadable", "x")[0]["error"] == "EACCES"


def test_file_that_goes_and_comes_back(any_prober: Prober, tmp_path: Path) -> None:
    """As a core that is switched off and on: what is open fails for good, a new descriptor works."""
    node = tmp_path / "node"
    first = subprocess.Popen(["sleep", "60"])
    node.symlink_to(f"/proc/{first.pid}/stat")
    process = any_prober.start(
        f"group\tg\t20\nsensor\tx\t{node}\tstat:1\nsensor\tn\t{node}\ttext\n", sleep(2)
    )
    time.sleep(0.6)
    first.kill()
    first.wait()
    time.sleep(0.4)
    second = subprocess.Popen(["sleep", "60"])
    (tmp_path / "next").symlink_to(f"/proc/{second.pid}/stat")
    (tmp_path / "next").rename(node)
    recording = any_prober.finish(process)
    second.kill()
    second.wait()
    seen = [value for value, _ in itertools.groupby(recording.column("g", "x"))]
    assert seen == [str(first.pid), "", str(second.pid)]
    kinds = [e["event"] for e in recording.events if e.get("sensor") == "x"]
    assert kinds[0] == "unreadable"
    assert kinds[-1] == "reopened"
    assert recording.events_of("unreadable", "x")[0]["error"] == "ENOENT"  # of the attempt to open it anew
    assert recording.events_of("reopened", "n") != []


def test_file_that_appears_later(prober: Prober, tmp_path: Path) -> None:
    node = tmp_path / "node"
    code = f"import time; time.sleep(0.2); open({str(node)!r}, 'w').write('5'); time.sleep(0.2)"
    recording = prober.run(f"group\tg\t20\nsensor\tx\t{node}\tfirst\n", python(code))
    assert [e["event"] for e in recording.events if e.get("sensor") == "x"] == ["unreadable", "reopened"]
    values = recording.column("g", "x")
    assert (values[0], values[-1]) == ("", "5")


def test_huge_file(prober: Prober, tmp_path: Path) -> None:
    path = tmp_path / "huge"
    path.write_bytes(
        b"first 1\n" + b"other 5\n" * 6000 + b"far 9\n" + b"other 5\n" * 1_000_000 + b"never 3\n"
    )
    lines = "".join(f"sensor\t{key}\t{path}\tline:{key}:1\n" for key in ("first", "far", "never"))
    recording = prober.run(f"group\tg\t50\n{lines}", sleep(0.3))
    assert set(recording.column("g", "first")) == {"1"}
    assert set(recording.column("g", "far")) == {"9"}
    assert set(recording.column("g", "never")) == {""}  # beyond the 64 KiB that are looked at


def test_proc_file_longer_than_a_page(prober: Prober) -> None:
    """procfs hands out such a file in pieces; what is sought stands in a later one."""
    with Path("/proc/kallsyms").open() as stream:
        lines = stream.readlines(40_000)
    _, kind, name = lines[-1].split()[:3]
    addresses = {line.split()[0] for line in lines}
    if len(addresses) == 1:  # hidden from ordinary users: the first line matches
        name = lines[0].split()[2]
    key = lines[-1].split()[0]
    sensors = f"group\tg\t50\nsensor\tx\t/proc/kallsyms\tline:{key}:2\n"
    recording = prober.run(sensors, sleep(0.1))
    assert {event["value"] for event in recording.events_of("text", "x")} == {name}
    assert kind


def test_slow_sensor_delays_its_own_group_only(any_prober: Prober, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gauge")  # opening it for reading waits for a writer that never comes
    recording = any_prober.run(
        f"group\tfast\t20\nsensor\tuser\t/proc/stat\tline:cpu:1\n"
        f"group\tslow\t100\nsensor\tgauge\t{tmp_path}/gauge\tfirst\n",
        sleep(1),
    )
    groups = recording.record["groups"]
    assert groups["fast"]["samples"] > 0.5 * groups["fast"]["expected"] > 20
    assert groups["slow"]["samples"] < groups["slow"]["expected"]
    assert set(recording.column("slow", "gauge")) <= {""}
    assert recording.record["status"] == 0


def test_sensor_that_hangs_later_is_left_to_itself(any_prober: Prober, tmp_path: Path) -> None:
    """Two groups of one period share a thread; when one comes to hang, the other goes on without it."""
    node = tmp_path / "node"
    first = subprocess.Popen(["sleep", "60"])
    node.symlink_to(f"/proc/{first.pid}/stat")
    os.mkfifo(tmp_path / "gauge")
    process = any_prober.start(
        f"group\tgood\t20\nsensor\tuser\t/proc/stat\tline:cpu:1\ngroup\tbad\t20\nsensor\tx\t{node}\tstat:1\n",
        sleep(3),
    )
    time.sleep(0.7)
    (tmp_path / "next").symlink_to(tmp_path / "gauge")
    (tmp_path / "next").rename(node)
    first.kill()
    first.wait()
    recording = any_prober.finish(process)
    groups = recording.record["groups"]
    times = [int(t) for t in recording.column("good", "t_us")]
    gaps = sorted(after - before for before, after in itertools.pairwise(times))
    assert gaps[-1] < 1_000_000
    assert groups["good"]["samples"] > 0.5 * groups["good"]["expected"]
    assert groups["bad"]["samples"] < 0.6 * groups["bad"]["expected"]
    assert recording.column("bad", "x")[0] == str(first.pid)
    assert recording.record["status"] == 0


def test_groups_of_one_period_share_a_thread(prober: Prober) -> None:
    sensors = "".join(f"group\tg{i}\t50\nsensor\ts{i}\t/proc/stat\tline:cpu:1\n" for i in range(6))
    sensors += "group\tslower\t70\nsensor\tother\t/proc/stat\tline:cpu:1\n"
    threads = []
    for _ in range(5):  # on a busy machine a first sample may look slow, and its group stays alone
        process = prober.start(sensors, sleep(0.8))
        time.sleep(0.5)
        threads.append(len(list(Path(f"/proc/{process.pid}/task").iterdir())))
        recording = prober.finish(process)
        assert all(group["samples"] >= 3 for group in recording.record["groups"].values())
        if threads[-1] == 4:
            break
    assert min(threads) == 4  # the main loop, responsiveness, one a period


def test_both_ends_of_a_short_run_are_sampled(any_prober: Prober) -> None:
    sensors = "group\ta\t60000\nsensor\tu\t/proc/{pid}/stat\tstat:14\n"
    sensors += "group\tb\t1000\nsensor\tc\t/proc/stat\tline:cpu:1\n"
    recording = any_prober.run(sensors, ["true"])
    for name in ("a", "b"):
        assert (
            recording.record["groups"][name]["samples"] == recording.record["groups"][name]["expected"] == 2
        )
        first, last = (int(row["t_us"]) for row in recording.rows(name))
        assert first < recording.record["start_us"] < recording.record["end_us"] < last


def test_workloads_own_time_is_seen_to_its_end(any_prober: Prober) -> None:
    sensors = "group\tw\t50\nsensor\tutime\t/proc/{pid}/stat\tstat:14\n"
    sensors += "sensor\tpeak\t/proc/{pid}/status\tline:VmHWM:1\n"
    code = "import os, time\nwhile sum(os.times()[:2]) < 0.5: pass\nprint(os.times().user)"
    recording = any_prober.run(sensors, python(code))
    said = float(recording.stdout)
    seen = int(recording.column("w", "utime")[-1]) / os.sysconf("SC_CLK_TCK")
    assert abs(seen - said) < 0.06
    peaks = [int(value or 0) for value in recording.column("w", "peak")]
    assert max(peaks) > 5000  # kB of the program, not of the probe


def test_ticks_keep_their_places(any_prober: Prober) -> None:
    recording = any_prober.run("group\tg\t50\nsensor\tu\t/proc/uptime\tfirst\n", sleep(2))
    times = [int(t) for t in recording.column("g", "t_us")][:-1]
    # A tick that comes late does not push the next ones; a missed one is left out.
    times = times[1:]  # the first was taken before the start
    places = [(t - times[len(times) // 2]) / 50_000 for t in times]
    assert sum(abs(place - round(place)) < 0.2 for place in places) > 0.6 * len(places)
    assert len({round(place) for place in places}) == len(places)
    group = recording.record["groups"]["g"]
    assert group["period_ms"] == 50
    assert abs(group["interval_p50_us"] - 50_000) < 5_000
    assert group["samples"] == len(recording.rows("g")) <= group["expected"]


def test_statistics_of_intervals_are_those_of_the_samples(any_prober: Prober) -> None:
    recording = any_prober.run("group\tg\t10\nsensor\tu\t/proc/uptime\tfirst\n", sleep(2))
    times = [int(t) for t in recording.column("g", "t_us")][1:-1]
    intervals = sorted(after - before for before, after in itertools.pairwise(times))
    errors = sorted(abs(interval - 10_000) for interval in intervals)
    group = recording.record["groups"]["g"]

    def rank(values: list[int], percent: int) -> int:
        return values[-(-percent * len(values) // 100) - 1]

    for name, exact, error in (
        ("interval_p50_us", rank(intervals, 50), abs(rank(intervals, 50) - 10_000)),
        ("interval_p99_us", rank(intervals, 99), abs(rank(intervals, 99) - 10_000)),
        ("interval_error_p99_us", rank(errors, 99), rank(errors, 99)),
    ):
        assert abs(group[name] - exact) <= 1 + 0.016 * error, name


def test_stopped_probe_skips_the_ticks_it_missed(prober: Prober) -> None:
    process = prober.start("group\tg\t20\nsensor\tu\t/proc/uptime\tfirst\n", sleep(1.5))
    time.sleep(0.5)
    process.send_signal(19)
    time.sleep(0.5)
    process.send_signal(18)
    recording = prober.finish(process)
    group = recording.record["groups"]["g"]
    times = [int(t) for t in recording.column("g", "t_us")]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert max(gaps) > 400_000
    assert sum(gap < 10_000 for gap in gaps) <= 3  # not bunched: only around the gap and at the end
    assert group["expected"] - group["samples"] >= 20


def test_wake_thread(any_prober: Prober) -> None:
    recording = any_prober.run("", sleep(1))
    rows = recording.rows("wake")
    assert list(rows[0]) == ["t_us", "late_us"]
    assert 20 <= len(rows) <= 64
    late = sorted(int(row["late_us"]) for row in rows)
    assert late[0] >= 0
    assert late[len(late) // 2] < 20_000
    recording = any_prober.run("", sleep(0.1), "--wake-us", "0")
    assert recording.rows("wake") == []


def test_one_file_is_read_once_a_tick(any_prober: Prober) -> None:
    """Each reading of this file gives another text, and yet two sensors of it agree."""
    path = "/proc/sys/kernel/random/uuid"
    sensors = f"group\tg\t20\nsensor\ta\t{path}\ttext\nsensor\tb\t{path}\ttext\n"
    recording = any_prober.run(sensors, sleep(0.3))
    first, second = ([e["value"] for e in recording.events_of("text", name)] for name in "ab")
    assert first == second
    assert len(set(first)) == len(recording.rows("g")) >= 3


def test_ioctl_of_a_file_without_it(any_prober: Prober) -> None:
    recording = any_prober.run("group\tg\t50\nsensor\tx\t/dev/null\tioctl:0x80047101\n", sleep(0.1))
    assert set(recording.column("g", "x")) == {""}
    (event,) = recording.events_of("unreadable", "x")
    assert event["error"] in {"ENOTTY", "ENOSYS"}


def test_ioctl_value(prober: Prober) -> None:
    """RNDGETENTCNT of /dev/random gives the kernel's entropy estimate: 256 bits once it is seeded."""
    recording = prober.run("group\tg\t50\nsensor\tx\t/dev/random\tioctl:80045200\n", sleep(0.1))
    entropy = Path("/proc/sys/kernel/random/entropy_avail").read_text().strip()
    assert set(recording.column("g", "x")) == {entropy}


def test_memory_does_not_grow(prober: Prober) -> None:
    listed = "".join(f"sensor\ts{i}\t/proc/stat\tline:cpu:{1 + i % 8}\n" for i in range(400))
    process = prober.start(f"group\tg\t1\n{listed}", sleep(3))

    def resident() -> int:
        return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])

    time.sleep(1)
    before = resident()
    time.sleep(1.5)
    after = resident()
    assert prober.finish(process).code == 0
    assert after - before < 40  # pages; it wrote about 2 MB meanwhile
