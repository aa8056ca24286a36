"""Debian packages that want to write where they should not."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from pocketvlm.errors import IntegrityError, ProvisionError
from pocketvlm.provision import deb

Member = tuple[tarfile.TarInfo, bytes]

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="this is no Debian system")


def file(name: str, data: bytes = b"data", mode: int = 0o644) -> Member:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    return info, data


def other(name: str, kind: bytes, link: str = "", mode: int = 0o755) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info, b""


def tar(*members: Member) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", format=tarfile.GNU_FORMAT) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def package(path: Path, *members: Member) -> Path:
    """Write a package as deb(5) has it: an ar archive of three members."""
    control = b"Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n"
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": tar(file("./control", control)),
        "data.tar.gz": tar(*members),
    }
    data = b"!<arch>\n"
    for name, content in parts.items():
        data += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        data += content + b"\n" * (len(content) % 2)
    path.write_bytes(data)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder, with a neighbour that must stay as it is."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("secret")
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def outside(root: Path) -> list[str]:
    return sorted(
        str(path.relative_to(root.parent)) for path in root.parent.rglob("*") if root not in path.parents
    )


def test_packages_share_the_folder(root: Path, tmp_path: Path) -> None:
    first = package(
        tmp_path / "a.deb",
        other("./", tarfile.DIRTYPE),
        other("./usr/", tarfile.DIRTYPE),
        file("./usr/a", b"a", 0o755),
        other("./usr/b", tarfile.LNKTYPE, "./usr/a"),
        other("./bin", tarfile.SYMTYPE, "usr"),
        other("./etc", tarfile.SYMTYPE, "/etc/somewhere"),
    )
    deb.unpack(first, root)
    deb.unpack(package(tmp_path / "b.deb", other("./usr/", tarfile.DIRTYPE), file("./bin/c", b"c")), root)
    assert (root / "usr/c").read_bytes() == b"c" and (root / "usr/b").read_bytes() == b"a"
    assert os.access(root / "usr/a", os.X_OK) and str((root / "etc").readlink()) == "/etc/somewhere"


HOSTILE = {
    "parent": [file("./../escaped")],
    "deep parent": [file("./usr/../../escaped")],
    "absolute": [file("/tmp/pocketvlm-escaped")],
    "device": [other("./null", tarfile.CHRTYPE)],
    "disk": [other("./sda", tarfile.BLKTYPE)],
    "pipe": [other("./pipe", tarfile.FIFOTYPE)],
    "hard link out": [other("./x", tarfile.LNKTYPE, "../outside/secret")],
    "hard link to an absolute path": [other("./x", tarfile.LNKTYPE, "/etc/passwd")],
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_packages_are_refused_and_leave_nothing(
    root: Path, tmp_path: Path, members: list[Member]
) -> None:
    hostile = package(tmp_path / "h.deb", file("./first"), *members)
    before = outside(root)
    with pytest.raises(IntegrityError, match=r"^h\.deb holds"):
        deb.unpack(hostile, root)
    assert list(root.iterdir()) == [] and outside(root) == before


@pytest.mark.parametrize("target", ["{outside}", "../outside"])
@pytest.mark.parametrize(
    "second",
    [
        [file("./door/escaped")],
        [other("./door/", tarfile.DIRTYPE)],
        [other("./door/sub/", tarfile.DIRTYPE)],
        [other("./here", tarfile.LNKTYPE, "./door/secret")],
    ],
    ids=["file", "folder", "subfolder", "hard link"],
)
def test_no_package_writes_through_a_link_of_another(
    root: Path, tmp_path: Path, second: list[Member], target: str
) -> None:
    link = other("./door", tarfile.SYMTYPE, target.format(outside=tmp_path / "outside"))
    deb.unpack(package(tmp_path / "a.deb", link), root)
    hostile = package(tmp_path / "b.deb", *second)
    before = outside(root)
    with pytest.raises(IntegrityError, match="leads out of the folder"):
        deb.unpack(hostile, root)
    assert outside(root) == before and [path.name for path in root.iterdir()] == ["door"]


def test_a_link_and_what_is_below_it_in_one_package_do_not_leave(root: Path, tmp_path: Path) -> None:
    """dpkg-deb's tar makes such links last; whatever it says, nothing is written through one."""
    both = [other("./door", tarfile.SYMTYPE, str(tmp_path / "outside")), file("./door/escaped")]
    hostile = package(tmp_path / "h.deb", *both)
    before = outside(root)
    with pytest.raises(ProvisionError, match=r"h\.deb cannot be unpacked"):
        deb.unpack(hostile, root)
    assert outside(root) == before


def test_a_file_in_the_place_of_a_link_replaces_it(root: Path, tmp_path: Path) -> None:
    link = other("./door", tarfile.SYMTYPE, str(tmp_path / "outside/secret"))
    deb.unpack(package(tmp_path / "a.deb", link), root)
    deb.unpack(package(tmp_path / "b.deb", file("./door", b"new")), root)
    assert (root / "door").read_bytes() == b"new" and not (root / "door").is_symlink()
    assert (tmp_path / "outside/secret").read_text() == "secret"


def test_a_bomb_is_refused_before_it_is_written(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deb, "MAX_BYTES", 1 << 20)
    with pytest.raises(IntegrityError, match="holds more than"):
        deb.unpack(package(tmp_path / "h.deb", file("./zeros", bytes(1 << 21))), root)
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("keep", [0, 5, 100, -40])
def test_what_is_no_package_says_so(root: Path, tmp_path: Path, keep: int) -> None:
    whole = package(tmp_path / "h.deb", file("./a", os.urandom(5000)))
    whole.write_bytes(whole.read_bytes()[:keep])
    with pytest.raises(ProvisionError, match=r"h\.deb cannot be unpacked"):
        deb.unpack(whole, root)
