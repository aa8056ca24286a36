"""What an earlier block left on a device: its processes end, its files go, and nothing else is touched."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from pocketvlm.devices import leftovers
from pocketvlm.devices.local import LocalDevice


@pytest.fixture
def device(tmp_path: Path) -> LocalDevice:
    return LocalDevice("here", tmp_path / "a [device]. folder")


def started(*command: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL)


def test_programs_of_the_folder_end_and_others_run_on(device: LocalDevice, tmp_path: Path, caplog) -> None:
    program = Path(device.remote_dir, "objects", "ab" * 32, "sleep")
    program.parent.mkdir(parents=True)
    shutil.copy2(shutil.which("sleep") or "", program)
    elsewhere = tmp_path / "objects/sleep"
    elsewhere.parent.mkdir()
    shutil.copy2(program, elsewhere)
    ours, argument, other = started(program, 60), started("tail", "-f", program), started(elsewhere, 60)
    try:
        time.sleep(0.2)
        with caplog.at_level("WARNING"):
            leftovers.clear(device)
        assert ours.wait(5) == -9
        assert (argument.poll(), other.poll()) == (None, None)
        assert "ended 1 processes that an earlier block had left on here" in caplog.text
    finally:
        for process in (ours, argument, other):
            process.kill()
            process.wait()


def test_a_program_under_a_prefix_ends_and_what_only_names_it_runs_on(device: LocalDevice) -> None:
    script = Path(device.remote_dir, "objects", "ab" * 32, "program")
    script.parent.mkdir(parents=True)
    script.write_text("sleep 60\n")
    device.exec_prefix = (shutil.which("dash") or "/bin/sh",)
    ours, argument = started(device.exec_prefix[0], script), started("tail", "-f", script)
    try:
        time.sleep(0.2)
        leftovers.clear(device)
        assert ours.wait(5) == -9
        assert argument.poll() is None
    finally:
        for process in (ours, argument):
            process.kill()
            process.wait()


def test_half_pushed_files_and_old_runs_go_and_pushed_ones_stay(device: LocalDevice) -> None:
    folder = Path(device.remote_dir)
    for name in (
        "objects/ab/model.gguf",
        "objects/ab/.model.gguf.verified",
        "objects/ab/.0f.part",
        "runs/1/stdout",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    leftovers.clear(device)
    left = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert left == [".pocketvlm", "objects/ab/.model.gguf.verified", "objects/ab/model.gguf"]
