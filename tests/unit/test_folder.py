"""The device's folder: ours when we made it, removed whole, and nothing else ever."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from pocketvlm.devices import folder
from pocketvlm.devices.base import Result
from pocketvlm.devices.folder import MARK, MARK_TEXT, Removed, claim, remove
from pocketvlm.devices.local import LocalDevice
from pocketvlm.errors import DeviceError, ProvisionError, TransientDeviceError
from pocketvlm.provision.apt import tree as tree_of

HOSTILE = "a b'c\"d$(touch canary)`touch canary`;&|*[x]\\ü\u202e-"


class Phone(LocalDevice):
    """This machine with a phone's habits: it makes no folder by itself, and its root is not ours."""

    def __init__(self, remote_dir: str, home: str = "/") -> None:
        self.id, self.kind, self.serial = "pixel", "phone", "1a2b"
        self.remote_dir, self.home = remote_dir, home
        self.commands: list[list[str]] = []

    def shell(self, argv: Sequence[str], timeout: float) -> Result:
        self.commands.append(list(argv))
        done = subprocess.run(argv, env={**os.environ, "HOME": self.home}, capture_output=True, text=True)
        return Result(done.returncode, done.stdout, done.stderr)


def tree(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in place.rglob("*"))


@pytest.fixture
def ours(tmp_path: Path) -> Phone:
    device = Phone(str(tmp_path / "tmp" / "pocketvlm"))
    claim(device)
    return device


def test_a_folder_is_marked_when_it_is_made_and_not_again(ours: Phone) -> None:
    mark = Path(ours.remote_dir, MARK)
    assert mark.read_text() == MARK_TEXT
    ours.commands.clear()
    claim(ours)
    assert len(ours.commands) == 1, "one look, nothing written"


def test_everything_is_removed_and_counted(ours: Phone) -> None:
    place = Path(ours.remote_dir)
    for name, size in (
        (f"objects/x/{HOSTILE}", 1000),
        ("runs/.hidden", 24),
        ("new\nline", 0),
        (f"a/{MARK}", 3),
    ):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(bytes(size))
    assert remove(ours) == Removed(4, 1027)
    assert not place.exists() and place.parent.exists()
    assert remove(ours) == Removed(0, 0), "again, with nothing there"


def test_hostile_names_of_the_folder_itself_are_only_names(tmp_path: Path) -> None:
    for name in (HOSTILE, "-rf", "*", "[x]", "$HOME", "~"):
        device = Phone(str(tmp_path / name / "p v"))
        claim(device)
        (tmp_path / "p v").mkdir(exist_ok=True)
        Path(device.remote_dir, "file").write_bytes(b"12345")
        assert remove(device) == Removed(1, 5)
        assert not Path(device.remote_dir).exists()
    assert (tmp_path / "p v").is_dir()
    assert not list(tmp_path.rglob("canary")) and not Path("canary").exists()


def test_links_are_removed_and_what_they_point_to_stays(ours: Phone, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").write_text("precious")
    (Path(ours.remote_dir) / "folder").symlink_to(outside)
    (Path(ours.remote_dir) / "runs").mkdir()
    (Path(ours.remote_dir) / "runs" / "file").symlink_to(outside / "keep")
    (Path(ours.remote_dir) / "hard").hardlink_to(outside / "keep")
    assert remove(ours).files == 3
    assert (outside / "keep").read_text() == "precious"


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path, ours: Phone) -> None:
    link = tmp_path / "link"
    link.symlink_to(ours.remote_dir)
    for action in (claim, remove):
        with pytest.raises(DeviceError, match="is a symbolic link"):
            action(Phone(str(link)))
    assert Path(ours.remote_dir, MARK).exists() and link.is_symlink()


def test_a_mark_that_is_a_link_is_none(tmp_path: Path) -> None:
    place = tmp_path / "theirs"
    place.mkdir()
    (tmp_path / "text").write_text(MARK_TEXT)
    (place / MARK).symlink_to(tmp_path / "text")
    with pytest.raises(DeviceError, match="was not made by pocketvlm"):
        remove(Phone(str(place)))
    assert (place / MARK).is_symlink()


@pytest.mark.parametrize("names", [["runs"], ["holiday.jpg"], ["objects", "runs", "photos"], ["home", "tmp"]])
def test_a_folder_of_somebody_else_is_neither_used_nor_removed(tmp_path: Path, names: list[str]) -> None:
    place = tmp_path / "theirs"
    for name in names:
        (place / name).mkdir(parents=True)
        (place / name / "keep").touch()
    before = tree(place)
    for action in (claim, remove):
        with pytest.raises(DeviceError, match=r"no file \.pocketvlm") as caught:
            action(Phone(str(place)))
        assert repr(sorted(names)[0]) in caught.value.what
        assert caught.value.where == "config/devices/pixel.yaml: remote_dir"
    assert tree(place) == before


def test_an_empty_folder_and_one_of_an_earlier_version_become_ours(tmp_path: Path) -> None:
    for names in ([], ["objects"], ["objects", "runs", "home", "tmp"]):
        place = tmp_path / "-".join(["folder", *names])
        place.mkdir()
        for name in names:
            (place / name).mkdir()
        claim(Phone(str(place)))
        assert (place / MARK).is_file()


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/",
            "//",
            "/data",
            "/data/local",
            "/data/local/tmp",
            "/sdcard",
            "/storage/emulated/0",
            "/storage/self/primary",
        ),
        *(
            "/home/me",
            "/root",
            "/tmp",
            "/usr/local/x",
            "/etc/x",
            "/dev/shm",
            "/data/data",
            "/data/media/0",
            "/mnt/disk",
        ),
        *(
            "relative",
            "",
            "~/x",
            "/data/local/tmp/../x",
            "/data/local/tmp/x/",
            "/data/local/tmp//x",
            "/x/./y",
            "/x/y\nz",
        ),
    ],
)
def test_dangerous_folders_are_refused_before_the_device_is_asked(path: str) -> None:
    device = Phone(path)
    for action in (claim, remove):
        with pytest.raises(DeviceError, match="remote_dir is") as caught:
            action(device)
        assert caught.value.where == "config/devices/pixel.yaml: remote_dir" and caught.value.do
    assert device.commands == []


def test_the_home_folder_of_the_devices_shell_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with pytest.raises(DeviceError, match="is the home folder"):
        claim(Phone(str(home), home=f"{home}/."))
    assert tree(home) == []


def test_what_is_above_this_project_or_the_home_folder_is_refused_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work" / "project").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work" / "project")
    for place in (tmp_path / "work", tmp_path / "work" / "project"):
        (place / MARK).touch()
        with pytest.raises(DeviceError, match="holds other things"):
            remove(LocalDevice("local", place))
    (tmp_path / "user").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    with pytest.raises(DeviceError, match="holds other things"):
        claim(LocalDevice("local", tmp_path / "user"))


def test_a_removal_that_breaks_off_can_be_repeated(ours: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is lost in the middle: the rest is still known as ours."""
    place = Path(ours.remote_dir)
    (place / "objects").mkdir()
    (place / "objects" / "weights").write_bytes(bytes(10))
    whole = folder._REMOVE

    def lost(argv: Sequence[str], timeout: float) -> Result:
        if argv[2] == whole:
            subprocess.run(["sh", "-c", whole.replace("&& rm -f", "&& exit 9; rm -f"), *argv[3:]])
            raise TransientDeviceError("gone", do="Plug it in")
        return Phone.shell(ours, argv, timeout)

    monkeypatch.setattr(ours, "shell", lost)
    with pytest.raises(TransientDeviceError):
        remove(ours)
    assert tree(place) == [MARK]
    monkeypatch.undo()
    assert remove(ours) == Removed(0, 0)
    assert not place.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may remove anything")
def test_what_cannot_be_removed_is_said_and_the_mark_stays(ours: Phone) -> None:
    locked = Path(ours.remote_dir, "objects")
    locked.mkdir()
    (locked / "file").touch()
    locked.chmod(0o500)
    with pytest.raises(DeviceError, match="Permission denied"):
        remove(ours)
    assert Path(ours.remote_dir, MARK).is_file()
    locked.chmod(0o700)


def test_this_machine_fills_its_own_folder_only(tmp_path: Path) -> None:
    LocalDevice("local", tmp_path / "new")
    assert tree(tmp_path / "new") == [MARK, "home", "tmp"]
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "file").touch()
    LocalDevice("local", tmp_path / "theirs")
    assert tree(tmp_path / "theirs") == ["file"]


@pytest.fixture(scope="module")
def android(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The shell and the tools that Android has, mksh and toybox, as Debian packs them, and nothing else."""
    folder = tmp_path_factory.mktemp("android")
    programs = {}
    for name, suite in (("mksh", None), ("toybox", "trixie")):
        try:
            root = tree_of([name], suite=suite)
        except ProvisionError as error:
            pytest.skip(str(error))
        (linker,) = root.glob(f"**/{platform.machine()}-linux-gnu/ld-linux-*.so.*")
        found = [path for path in (root / "bin" / name, root / "usr/bin" / name) if path.is_file()]
        programs[name] = shlex.join([str(linker), "--library-path", str(linker.parent), str(found[0])])
    for name in ("find", "head", "ls", "mkdir", "printf", "rm", "rmdir", "stat"):
        (folder / name).write_text(f'#!/bin/sh\nexec {programs["toybox"]} {name} "$@"\n')
        (folder / name).chmod(0o755)
    (folder / "sh").write_text(f'#!/bin/sh\nexec {programs["mksh"]} "$@"\n')
    (folder / "sh").chmod(0o755)
    return {"PATH": str(folder), "HOME": "/"}


@pytest.mark.phone
def test_androids_own_shell_and_tools_understand_the_scripts(
    android: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Phone(str(tmp_path / HOSTILE / "p"))

    def there(argv: Sequence[str], timeout: float) -> Result:
        assert argv[0] == "sh"
        command = [f"{android['PATH']}/sh", *argv[1:]]
        done = subprocess.run(command, env=android, capture_output=True, text=True)
        return Result(done.returncode, done.stdout, done.stderr)

    monkeypatch.setattr(device, "shell", there)
    claim(device)
    place = Path(device.remote_dir)
    (place / "runs" / "a").mkdir(parents=True)
    (place / "runs" / HOSTILE).write_bytes(b"123")
    (place / "link").symlink_to("/etc/passwd")
    assert remove(device) == Removed(2, 3 + len("/etc/passwd"))
    assert not place.exists() and Path("/etc/passwd").exists()
    place.mkdir()
    (place / "theirs").touch()
    for action in (claim, remove):
        with pytest.raises(DeviceError, match="theirs"):
            action(device)
    with pytest.raises(DeviceError, match="symbolic link"):
        Path(tmp_path / "link").symlink_to(place)
        device.remote_dir = str(tmp_path / "link")
        remove(device)
