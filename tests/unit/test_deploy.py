"""Deploying: pushed once, verified there, trusted while nothing has touched it, never half under its name."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pocketvlm.devices.base import Progress, Result
from pocketvlm.devices.deploy import changed, deploy
from pocketvlm.devices.folder import MARK
from pocketvlm.devices.local import LocalDevice
from pocketvlm.errors import DeviceError, IntegrityError, TransientDeviceError


class WatchedDevice(LocalDevice):
    """This machine as a device that counts what it is asked and can damage what it is sent."""

    def __init__(self, folder: Path) -> None:
        super().__init__("watched", folder)
        self.pushed: list[str] = []
        self.commands: list[Sequence[str]] = []
        self.space: int | None = None
        self.damage: Callable[[Path], None] | None = None

    def push(self, local: Path, remote: str, mode: int = 0o644, *, progress: Progress | None = None) -> None:
        self.pushed.append(local.name)
        super().push(local, remote, mode, progress=progress)
        if self.damage is not None:
            self.damage(Path(remote))

    def shell(self, argv: Sequence[str], timeout: float) -> Result:
        self.commands.append(argv)
        return super().shell(argv, timeout)

    def free_space(self, path: str) -> int:
        return super().free_space(path) if self.space is None else self.space


@pytest.fixture
def device(tmp_path: Path) -> WatchedDevice:
    return WatchedDevice(tmp_path / "device")


@pytest.fixture
def files(tmp_path: Path) -> list[tuple[Path, str]]:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho hello\n")
    program.chmod(0o755)
    data = tmp_path / "weights.gguf"
    data.write_bytes(os.urandom(100_000))
    return [(path, hashlib.sha256(path.read_bytes()).hexdigest()) for path in (program, data)]


def bring(device: WatchedDevice, files: list[tuple[Path, str]]) -> dict[str, str]:
    device.pushed.clear()
    device.commands.clear()
    return deploy(device, files, device.remote_dir)


def test_files_are_there_under_their_hash_and_run(device, files):
    placed = bring(device, files)
    for local, sha256 in files:
        assert placed[sha256] == f"{device.remote_dir}/objects/{sha256}/{local.name}"
        assert Path(placed[sha256]).read_bytes() == local.read_bytes()
    assert device.shell([placed[files[0][1]]], 5).stdout == "hello\n"
    assert Path(placed[files[1][1]]).stat().st_mode & 0o777 == 0o644
    assert not list(Path(device.remote_dir).rglob("*.part"))


def test_nothing_unchanged_is_pushed_again_and_one_question_tells(device, files):
    first = bring(device, files)
    assert bring(device, files) == first
    assert device.pushed == []
    assert len(device.commands) == 1


def test_only_what_is_new_is_pushed(device, files, tmp_path):
    bring(device, files[:1])
    bring(device, files)
    assert device.pushed == ["weights.gguf"]


@pytest.mark.parametrize("change", ["truncate", "one byte, same size and mtime", "delete", "replace"])
def test_what_was_changed_on_the_device_is_pushed_again(device, files, change):
    there = Path(bring(device, files)[files[1][1]])
    before = there.stat()
    if change == "truncate":
        os.truncate(there, 10)
    elif change == "delete":
        there.unlink()
    else:
        content = bytearray(there.read_bytes())
        content[500] ^= 1
        if change == "replace":
            there.unlink()
        there.write_bytes(content)
        os.utime(there, ns=(before.st_atime_ns, before.st_mtime_ns))
    bring(device, files)
    assert device.pushed == ["weights.gguf"]
    assert there.read_bytes() == files[1][0].read_bytes()


def test_a_file_that_was_only_touched_is_hashed_and_not_pushed(device, files):
    there = Path(bring(device, files)[files[1][1]])
    os.utime(there)
    bring(device, files)
    assert device.pushed == []
    assert ["sha256sum", str(there)] in device.commands
    bring(device, files)
    assert len(device.commands) == 1, "the marker is right again"


def test_a_damaged_transfer_never_gets_its_final_name(device, files):
    device.damage = lambda path: os.truncate(path, 7)
    with pytest.raises(IntegrityError, match=r"has sha256 [0-9a-f]{64} on watched, expected"):
        bring(device, files)
    assert [path.name for path in Path(device.remote_dir).rglob("*") if path.is_file()] == [MARK]
    device.damage = None
    assert Path(bring(device, files)[files[1][1]]).read_bytes() == files[1][0].read_bytes()


def test_a_push_that_breaks_off_leaves_nothing_that_is_trusted(device, files):
    def die(path: Path) -> None:
        os.truncate(path, 7)
        raise TransientDeviceError("gone", do="Start again")

    device.damage = die
    with pytest.raises(TransientDeviceError):
        bring(device, files)
    assert [path.name for path in Path(device.remote_dir).rglob("*") if path.is_file()] == [MARK]
    device.damage = None
    bring(device, files)
    assert device.pushed == ["program", "weights.gguf"]


def test_a_file_here_that_is_not_what_its_hash_says_is_refused(device, files):
    files[1][0].write_bytes(b"other")
    with pytest.raises(IntegrityError, match="expected"):
        bring(device, files)


def test_no_space_is_seen_before_anything_is_pushed(device, files):
    device.space = 1_000_000
    with pytest.raises(DeviceError, match=r"has 1 MB free and 34 MB are needed for 2 files") as caught:
        bring(device, files)
    assert device.pushed == []
    assert "Free space there" in str(caught.value)


def test_a_missing_file_is_named(device, files, tmp_path):
    with pytest.raises(DeviceError, match=r"no file .*nothing\.bin"):
        bring(device, [(tmp_path / "nothing.bin", "0" * 64)])


@pytest.mark.parametrize("name", ["a b", "-rf", "x;y", "x\ny", "ä", "$(touch pwned)"])
def test_a_name_that_a_shell_could_misread_is_refused(device, tmp_path, name):
    (tmp_path / name).write_text("x")
    with pytest.raises(DeviceError, match="cannot be deployed"):
        bring(device, [(tmp_path / name, hashlib.sha256(b"x").hexdigest())])
    assert device.commands == []


def test_a_folder_with_spaces_and_quotes_is_no_matter(tmp_path, files):
    device = WatchedDevice(tmp_path / "my 'own' $HOME \"device\"")
    placed = bring(device, files)
    assert device.shell([placed[files[0][1]]], 5).stdout == "hello\n"
    assert bring(device, files) == placed
    assert device.pushed == []


def test_the_same_file_twice_is_one(device, files):
    bring(device, [*files, *files])
    assert device.pushed == ["program", "weights.gguf"]


def test_more_files_than_one_question_holds(device, tmp_path):
    many = []
    for number in range(230):
        path = tmp_path / f"f{number}"
        path.write_text(str(number))
        many.append((path, hashlib.sha256(str(number).encode()).hexdigest()))
    placed = bring(device, many)
    assert len(placed) == 230
    bring(device, many)
    assert device.pushed == []
    assert len(device.commands) == 3


def test_a_large_file_reports_and_a_small_one_does_not(device, files, tmp_path):
    large = tmp_path / "large"
    with large.open("wb") as stream:
        stream.truncate(40 << 20)
    sha256 = hashlib.sha256(large.read_bytes()).hexdigest()
    lines: list[str] = []
    deploy(device, [*files, (large, sha256)], device.remote_dir, report=lines.append)
    assert lines
    assert all(line.startswith("push 3/3 large: ") for line in lines)
    assert "42 of 42 MB, 100 %" in lines[-1]


def test_a_file_that_changes_while_it_is_in_use_is_named(
    device: WatchedDevice, files: list[tuple[Path, str]]
) -> None:
    placed = list(bring(device, files).values())
    device.commands.clear()
    assert changed(device, placed) == []
    assert len(device.commands) == 1
    there = next(Path(path) for path in placed if path.endswith("weights.gguf"))
    before = there.stat()
    there.write_bytes(os.urandom(before.st_size))
    os.utime(there, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert changed(device, placed) == ["weights.gguf"]
    there.unlink()
    assert changed(device, placed) == ["weights.gguf"]
