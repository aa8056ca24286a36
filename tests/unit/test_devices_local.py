"""This machine keeps the contract of a device."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pocketvlm.devices import open_device
from pocketvlm.devices.base import run, substitute
from pocketvlm.devices.local import LocalDevice
from pocketvlm.errors import DeviceError, TransientDeviceError


@pytest.fixture
def device(tmp_path: Path) -> LocalDevice:
    return LocalDevice("local", tmp_path / "device")


def test_a_command_runs_with_its_very_words_status_and_both_outputs(device):
    result = device.shell(
        ["sh", "-c", 'printf "%s|" "$@"; echo bad >&2; exit 7', "sh", "a b", "$HOME", "c'd"], 5
    )
    assert (result.status, result.stdout, result.stderr) == (7, "a b|$HOME|c'd|", "bad\n")


def test_output_larger_than_a_pipe_arrives(device):
    assert len(device.shell(["head", "-c", "3000000", "/dev/zero"], 10).stdout) == 3_000_000


def test_a_program_that_is_not_there_has_the_status_a_shell_gives(device, tmp_path):
    assert device.shell(["no-such-program"], 5).status == 127
    (tmp_path / "plain").write_text("x")
    assert device.shell([str(tmp_path / "plain")], 5).status == 126


def test_a_command_is_killed_at_its_deadline_with_its_children(device, tmp_path):
    started = time.monotonic()
    with pytest.raises(TransientDeviceError, match=r"did not end within 0\.3 s"):
        device.shell(["sh", "-c", f"sleep 61 & echo $! > {tmp_path}/child; wait"], 0.3)
    assert time.monotonic() - started < 3
    child = int((tmp_path / "child").read_text())
    time.sleep(0.1)
    assert (
        not Path(f"/proc/{child}").exists()
        or "Z" in Path(f"/proc/{child}/stat").read_text().rpartition(")")[2]
    )


def test_a_process_can_be_watched_and_ended(device):
    process = device.spawn(["sleep", "60"])
    assert process.poll() is None
    with pytest.raises(TimeoutError):
        process.wait(0.1)
    assert Path(f"/proc/{process.pid}").exists()
    process.terminate()
    assert process.wait(5).status == 128 + 15
    killed = device.spawn(["sh", "-c", "trap '' TERM; sleep 60"])
    killed.kill()
    assert killed.wait(5).status == 128 + 9
    killed.kill()


def test_files_go_there_and_come_back(device, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(os.urandom(50_000))
    there = f"{device.remote_dir}/a/b/file"
    sent: list[int] = []
    device.push(source, there, 0o755, progress=sent.append)
    assert os.access(there, os.X_OK)
    assert sent[-1] == 50_000
    device.pull(there, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    device.pull(f"{device.remote_dir}/a", tmp_path / "folder")
    assert (tmp_path / "folder/b/file").read_bytes() == source.read_bytes()


def test_what_cannot_be_copied_says_why(device, tmp_path):
    with pytest.raises(DeviceError, match="No such file"):
        device.pull("/no/such/file", tmp_path / "x")
    assert list(tmp_path.glob("*x*")) == []
    with pytest.raises(DeviceError, match="cannot be copied"):
        device.push(tmp_path / "nothing", f"{device.remote_dir}/y")


def test_a_failed_command_is_an_error_with_what_it_said(device):
    assert run(device, ["echo", "x"], 5) == "x\n"
    with pytest.raises(DeviceError, match=r"ended with status 3 on local and said: no"):
        run(device, ["sh", "-c", "echo no >&2; exit 3"], 5)


def test_free_space_is_what_the_system_says(device):
    status = os.statvfs(device.remote_dir)
    assert device.free_space(device.remote_dir) == pytest.approx(status.f_bavail * status.f_frsize, rel=0.05)


def test_its_folder_is_below_the_results(tmp_path):
    config = {"id": "local", "kind": "local", "remote_dir": "{results}/local-device"}
    with open_device(config, results=tmp_path / "results") as device:
        assert device.remote_dir == f"{tmp_path}/results/local-device"
        assert Path(device.remote_dir).is_dir()
        assert device.properties() == {}


def test_only_known_places_are_filled_in():
    places = {"sysfs_root": "/r", "qemu": "/q"}
    assert substitute("{sysfs_root}/sys/{pid}", places) == "/r/sys/{pid}"
    assert substitute("{qemu}", places) == "/q"


@pytest.mark.parametrize("start", ["shell", "spawn"])
def test_nothing_of_the_users_environment_reaches_a_command(device, monkeypatch, start):
    monkeypatch.setenv("LLAMA_ARG_N_PREDICT", "canary")
    monkeypatch.setenv("HOME", "/canary")
    monkeypatch.setenv("PATH", "/canary:" + os.environ["PATH"])
    command = ["/usr/bin/env", "-0"]
    result = device.shell(command, 5) if start == "shell" else device.spawn(command).wait(5)
    assert dict(entry.split("=", 1) for entry in result.stdout.split("\0") if entry) == {
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": f"{device.remote_dir}/home",
        "TMPDIR": f"{device.remote_dir}/tmp",
        "LC_ALL": "C.UTF-8",
    }
    assert Path(device.remote_dir, "home").is_dir()
    assert Path(device.remote_dir, "tmp").is_dir()


def test_a_file_larger_than_any_run_leaves_is_not_taken(device, tmp_path, monkeypatch):
    monkeypatch.setattr("pocketvlm.devices.local.PULL_LIMIT_BYTES", 1 << 20)
    for size in (1 << 20, (1 << 20) + 1):
        Path(device.remote_dir, "home", str(size)).write_bytes(bytes(size))
    device.pull(f"{device.remote_dir}/home/{1 << 20}", tmp_path / "fits")
    for remote in (f"home/{(1 << 20) + 1}", "home"):
        with pytest.raises(DeviceError, match="longer than the 1 MiB"):
            device.pull(f"{device.remote_dir}/{remote}", tmp_path / "out" / "x")
    assert (tmp_path / "fits").stat().st_size == 1 << 20
    assert [p for p in (tmp_path / "out").rglob("*") if p.is_file() and p.stat().st_size != 1 << 20] == []


def test_links_and_pipes_are_not_taken_from_a_folder(device, tmp_path):
    """A workload may leave anything where its record is: what it points to is not part of it."""
    (tmp_path / "secret").write_text("secret")
    there = Path(device.remote_dir, "out", "sub")
    there.mkdir(parents=True)
    (there / "file").write_text("data")
    (there / "link").symlink_to(tmp_path / "secret")
    (there / "folder").symlink_to(tmp_path)
    (there / "endless").symlink_to("/dev/zero")
    os.mkfifo(there / "pipe")
    device.pull(f"{device.remote_dir}/out", tmp_path / "here")
    assert [path.name for path in (tmp_path / "here/sub").iterdir()] == ["file"]
