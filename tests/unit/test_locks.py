"""Locks between real processes: they exclude, they name their holder, and the kernel releases them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pocketvlm.devices.locks import device_lock, host_lock, workdir_lock
from pocketvlm.errors import PocketvlmError, TransientDeviceError

_HOLDER = """
import sys
from pathlib import Path
from pocketvlm.devices.locks import device_lock, host_lock, workdir_lock
kind, value = sys.argv[1:]
locks = {"device": device_lock, "workdir": lambda path: workdir_lock(Path(path))}
lock = host_lock() if kind == "host" else locks[kind](value)
with lock:
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETVLM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def holder():
    started = []

    def hold(kind: str, value: str = "") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", _HOLDER, kind, value],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.wait()


def test_a_device_is_held_by_one_process_and_the_message_names_it(holder):
    process = holder("device", "phone-1")
    lines: list[str] = []
    with (
        pytest.raises(TransientDeviceError) as caught,
        device_lock("phone-1", deadline=0.3, report=lines.append),
    ):
        pass
    assert f"process {process.pid} since " in str(caught.value)
    assert f"waiting for device phone-1, in use: process {process.pid} since " in lines[0]
    with device_lock("phone-2", deadline=0.3):
        pass


def test_a_killed_holder_lets_go_at_once(holder):
    process = holder("host")
    waited: list[str] = []

    def kill() -> None:
        time.sleep(0.4)
        os.kill(process.pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    started = time.monotonic()
    with host_lock(deadline=5, report=waited.append):
        elapsed = time.monotonic() - started
    thread.join()
    assert 0.3 < elapsed < 3
    assert waited[-1].startswith("this machine's cores is free after")


def test_a_child_does_not_keep_the_lock_of_a_holder_that_is_gone(holder, tmp_path):
    script = f"import subprocess, sys\n{_HOLDER}".replace(
        'print("held", flush=True)',
        'child = subprocess.Popen(["sleep", "60"], close_fds=False); print(child.pid, flush=True)',
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, "device", "x"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        process.kill()
        process.wait()
        with device_lock("x", deadline=2):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_working_directory_is_refused_without_waiting(holder, tmp_path):
    process = holder("workdir", str(tmp_path))
    started = time.monotonic()
    with (
        pytest.raises(PocketvlmError, match=f"another workflow runs in this folder: process {process.pid}"),
        workdir_lock(tmp_path),
    ):
        pass
    assert time.monotonic() - started < 1
    process.kill()
    process.wait()
    with workdir_lock(tmp_path):
        pass


def test_one_folder_by_two_names_is_one_lock(holder, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    holder("workdir", str(tmp_path / "real"))
    with pytest.raises(PocketvlmError), workdir_lock(tmp_path / "link"):
        pass


def test_names_that_clean_to_the_same_are_different_locks(holder):
    holder("device", "127.0.0.2:5555")
    with device_lock("127.0.0.2_5555", deadline=0.3):
        pass
    with pytest.raises(TransientDeviceError), device_lock("127.0.0.2:5555", deadline=0.3):
        pass


def test_many_processes_never_hold_it_together(tmp_path):
    log = tmp_path / "log"
    script = """
import sys, time
from pathlib import Path
from pocketvlm.devices.locks import host_lock
for _ in range(5):
    with host_lock(report=lambda line: None):
        with Path(sys.argv[1]).open("a") as stream:
            stream.write("in\\n"); stream.flush(); time.sleep(0.01); stream.write("out\\n")
"""
    processes = [subprocess.Popen([sys.executable, "-c", script, str(log)]) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert log.read_text().split() == ["in", "out"] * 20
