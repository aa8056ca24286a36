"""What the probe does with the workload: its output, its end, and that of everything it started."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.probe.recording import Prober, python

CPU = "group\tcpu\t50\nsensor\tuser\t/proc/stat\tline:cpu:1\n"


def wait_for(path: Path, process: subprocess.Popen[str]) -> str:
    """Return a file's content once there is some."""
    for _ in range(1000):
        if path.exists() and (text := path.read_text()):
            return text
        assert process.poll() is None, "the probe ended early"
        time.sleep(0.01)
    raise AssertionError(f"{path} stayed empty")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def assert_gone(*pids: int) -> None:
    for _ in range(300):
        if not any(map(is_running, pids)):
            return
        time.sleep(0.01)
    raise AssertionError(f"still running: {[pid for pid in pids if is_running(pid)]}")


def test_chunks_are_stamped_when_they_are_printed(any_prober: Prober, tmp_path: Path) -> None:
    said = tmp_path / "said"
    code = f"""
import time
with open({str(said)!r}, "w") as said:
    for word in ("one", "two", "three", "four"):
        time.sleep(0.15)
        said.write(f"{{time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000}}\\n")
        print(word + ";", end="", flush=True)
"""
    recording = any_prober.run(CPU, python(code))
    assert recording.code == 0
    assert recording.stdout == b"one;two;three;four;"
    arrived, text = {}, b""
    for t_us, data in recording.chunks():
        for word in (b"one", b"two", b"three", b"four"):
            if text.count(word) < (text + data).count(word):
                arrived[word] = t_us
        text += data
    printed = [int(line) for line in said.read_text().split()]
    late = [
        arrived[word] - then for word, then in zip((b"one", b"two", b"three", b"four"), printed, strict=True)
    ]
    assert min(late) >= 0
    assert sorted(late)[1] < 20_000, late


def test_stdout_is_a_terminal_that_changes_no_byte(any_prober: Prober) -> None:
    code = """
import os, sys
assert os.isatty(1) and not os.isatty(2) and not os.isatty(0)
assert sys.stdin.read() == ""
os.write(1, bytes(range(256)) + b"a\\nb\\r\\nc\\x03\\x04")
os.write(2, bytes(range(255, -1, -1)))
"""
    recording = any_prober.run(CPU, python(code))
    assert (recording.record["exited"], recording.record["status"]) == (True, 0)
    assert recording.stdout == bytes(range(256)) + b"a\nb\r\nc\x03\x04"
    assert recording.stderr == bytes(range(255, -1, -1))
    assert recording.record["stdout_bytes"] == len(recording.stdout)
    assert recording.record["stderr_bytes"] == 256


def test_stdout_and_stderr_are_apart_and_whole(prober: Prober) -> None:
    code = """
import os
for i in range(3000):
    os.write(1, f"out {i}\\n".encode() * 20)
    os.write(2, f"err {i}\\n".encode())
"""
    recording = prober.run(CPU, python(code))
    assert recording.stdout == b"".join(f"out {i}\n".encode() * 20 for i in range(3000))
    assert recording.stderr == b"".join(f"err {i}\n".encode() for i in range(3000))
    for stream in ("stdout", "stderr"):
        end = 0
        for event in recording.events_of("chunk"):
            if event["stream"] == stream:
                assert event["offset"] == end
                end += event["length"]
        assert end == recording.record[f"{stream}_bytes"]


def test_events_are_ordered_and_enclosed_by_start_and_end(any_prober: Prober) -> None:
    recording = any_prober.run(CPU, python("print('x' * 100000)"))
    times = [event["t_us"] for event in recording.events]
    assert times == sorted(times)
    record = recording.record
    (start,), (end,) = recording.events_of("start"), recording.events_of("end")
    assert start["t_us"] == record["start_us"]
    assert end == {"t_us": record["end_us"], "event": "end", "exited": True, "status": 0}
    assert all(record["start_us"] < t_us <= record["end_us"] for t_us, _ in recording.chunks())
    assert recording.stdout == b"x" * 100000 + b"\n"


@pytest.mark.parametrize("status", [0, 1, 77, 255])
def test_exit_status_of_the_workload_is_recorded_and_not_the_probes(any_prober: Prober, status: int) -> None:
    recording = any_prober.run(CPU, ["sh", "-c", f"exit {status}"])
    assert recording.code == 0
    assert recording.record["exited"] is True
    assert recording.record["status"] == status
    assert recording.record["signal"] is None


def test_killed_workload(any_prober: Prober) -> None:
    recording = any_prober.run(CPU, ["sh", "-c", "echo before; kill -SEGV $$"])
    assert recording.code == 0
    assert (recording.record["exited"], recording.record["status"]) == (False, None)
    assert recording.record["signal"] == signal.SIGSEGV
    assert recording.events_of("end")[0]["signal"] == signal.SIGSEGV
    assert recording.stdout == b"before\n"


def test_command_that_is_not_there(any_prober: Prober) -> None:
    recording = any_prober.run(CPU, ["/nowhere/at all"])
    assert (recording.code, recording.record["status"]) == (0, 127)
    assert b"cannot run /nowhere/at all: No such file or directory" in recording.stderr


def test_command_that_may_not_run(prober: Prober, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("no program")
    recording = prober.run(CPU, [str(tmp_path / "data")])
    assert (recording.code, recording.record["status"]) == (0, 126)


def test_deadline_asks_and_then_kills(any_prober: Prober) -> None:
    code = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: print("asked", flush=True))
print("up", flush=True)
while True: time.sleep(9)
"""
    recording = any_prober.run(CPU, python(code), "--deadline", "1.5")
    record = recording.record
    assert recording.code == 0
    assert recording.stdout == b"up\nasked\n"
    assert record["deadline_hit"] is True
    assert (record["exited"], record["signal"]) == (False, signal.SIGKILL)
    assert 3.4 < (record["end_us"] - record["start_us"]) / 1e6 < 4.5
    (deadline,) = recording.events_of("deadline")
    assert abs(deadline["t_us"] - record["start_us"] - 1_500_000) < 100_000
    assert [e["signal"] for e in recording.events_of("signal")] == [signal.SIGTERM, signal.SIGKILL]


def test_deadline_not_reached(prober: Prober) -> None:
    recording = prober.run(CPU, ["true"], "--deadline", "30")
    assert recording.record["deadline_hit"] is False
    assert recording.events_of("deadline") == []


def test_output_limit_ends_the_workload(any_prober: Prober) -> None:
    recording = any_prober.run(CPU, ["yes"], "--max-output", "10000", "--deadline", "30")
    record = recording.record
    assert record["truncated"] is True
    assert record["deadline_hit"] is False
    assert record["signal"] == signal.SIGKILL
    assert recording.stdout == b"y\n" * 5000


def test_output_limit_counts_both_streams(prober: Prober) -> None:
    recording = prober.run(
        CPU, python("import os\nwhile True: os.write(1, b'o'); os.write(2, b'e')"), "--max-output", "500"
    )
    assert recording.record["truncated"] is True
    assert len(recording.stdout) + len(recording.stderr) == 500


def test_output_at_the_limit_is_whole(prober: Prober) -> None:
    recording = prober.run(CPU, ["printf", "0123456789"], "--max-output", "10")
    assert (recording.record["truncated"], recording.record["status"]) == (False, 0)
    assert recording.stdout == b"0123456789"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_are_forwarded(any_prober: Prober, tmp_path: Path, number: signal.Signals) -> None:
    ready = tmp_path / "ready"
    code = f"""
import pathlib, signal, sys, time
signal.signal({int(number)}, lambda *_: sys.exit(42))
pathlib.Path({str(ready)!r}).write_text("yes")
while True: time.sleep(9)
"""
    process = any_prober.start(CPU, python(code))
    wait_for(ready, process)
    process.send_signal(number)
    recording = any_prober.finish(process)
    assert (recording.code, recording.record["status"]) == (0, 42)
    assert [event["signal"] for event in recording.events_of("signal")] == [number]


# A process in the workload's group, and one that left it by a session of its own and a dead parent.
FAMILY = """
import os, pathlib, sys, time
def note():
    with open(sys.argv[1], "a") as stream: stream.write(f"{os.getpid()}\\n")
if os.fork() == 0:
    if os.fork() == 0:
        os.setsid() if ESCAPE else None
        note()
        time.sleep(600)
    os._exit(0)
os.wait()
note()
while len(pathlib.Path(sys.argv[1]).read_text().split()) < 2: time.sleep(0.01)
print("ready", flush=True)
time.sleep(600 if STAY else 0)
"""


def family(tmp_path: Path, *, escape: bool, stay: bool) -> tuple[list[str], Path]:
    pids = tmp_path / "pids"
    code = FAMILY.replace("ESCAPE", str(escape)).replace("STAY", str(stay))
    return [*python(code), str(pids)], pids


def test_nothing_is_left_after_the_end(any_prober: Prober, tmp_path: Path) -> None:
    command, pids = family(tmp_path, escape=False, stay=False)
    recording = any_prober.run(CPU, command)
    assert (recording.code, recording.stdout) == (0, b"ready\n")
    found = [int(pid) for pid in pids.read_text().split()]
    assert len(found) == 2
    assert_gone(*found)


def test_process_that_left_the_group_is_ended_too(prober: Prober, tmp_path: Path) -> None:
    """Native only: qemu-user 7.2 refuses PR_SET_CHILD_SUBREAPER, on which this rests."""
    command, pids = family(tmp_path, escape=True, stay=False)
    recording = prober.run(CPU, command)
    assert (recording.code, recording.stdout) == (0, b"ready\n")
    assert_gone(*(int(pid) for pid in pids.read_text().split()))


def test_nothing_is_left_when_the_probe_is_killed(any_prober: Prober, tmp_path: Path) -> None:
    command, pids = family(tmp_path, escape=False, stay=True)
    process = any_prober.start(CPU, command)
    while len(wait_for(pids, process).split()) < 2:
        time.sleep(0.01)
    found = [int(pid) for pid in pids.read_text().split()]
    process.kill()
    recording = any_prober.finish(process)
    assert recording.code == -signal.SIGKILL
    assert not recording.complete
    assert_gone(*found)


def test_closed_stdout_does_not_keep_the_probe_busy(prober: Prober) -> None:
    recording = prober.run(CPU, python("import os, time; os.close(1); os.close(2); time.sleep(1)"))
    assert recording.record["status"] == 0
    assert recording.record["probe_cpu_us"] < 200_000


def test_workload_inherits_only_its_streams(prober: Prober, tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as secret:
        os.set_inheritable(secret.fileno(), True)
        command = prober.arguments(
            CPU, python("import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))")
        )
        subprocess.run(command, check=True, timeout=60, close_fds=False)
    assert (prober.out / "stdout").read_bytes() == b"[0, 1, 2, 3]\n"  # 3 is the listed folder itself


def test_workload_has_default_signals_and_its_own_session(prober: Prober) -> None:
    code = """
import os, signal
assert os.getsid(0) == os.getpgid(0) == os.getpid()
assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
print(open("/proc/self/status").read())
"""
    # As a shell starts what it puts in the background.
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGQUIT, signal.SIGHUP)}
    try:
        recording = prober.run(CPU, ["sh", "-c", "grep Sig /proc/self/status"])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert b"SigIgn:\t0000000000000000" in recording.stdout
    recording = prober.run(CPU, python(code))
    assert recording.record["status"] == 0, recording.stderr
