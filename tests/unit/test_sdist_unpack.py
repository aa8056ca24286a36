"""Unpacking archives that want to write where they should not."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from pocketvlm.errors import IntegrityError
from pocketvlm.provision.archive import unpack

Member = tuple[tarfile.TarInfo, bytes]


def file(name: str, data: bytes = b"data", mode: int = 0o644) -> Member:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    return info, data


def special(name: str, kind: bytes, link: str = "") -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info, b""


def pack(path: Path, *members: Member) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return path


def test_the_top_folder_is_left_out(tmp_path: Path) -> None:
    archive = pack(
        tmp_path / "a.tar.gz",
        special("top", tarfile.DIRTYPE),
        file("top/src/run.sh", b"#!/bin/sh", 0o4755),
        file("top/README"),
        special("top/src/link", tarfile.SYMTYPE, "../README"),
    )
    unpack(archive, tmp_path / "out")
    assert (tmp_path / "out" / "src" / "link").read_bytes() == b"data"
    assert (tmp_path / "out" / "src" / "run.sh").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "out" / "README").stat().st_mode & 0o7777 == 0o644


HOSTILE = {
    "parent": [file("top/a"), file("top/../../escaped")],
    "absolute": [file("/escaped")],
    "beside the top": [file("top/a"), file("other/b")],
    "link out": [file("top/a"), special("top/l", tarfile.SYMTYPE, "../../escaped")],
    "absolute link": [file("top/a"), special("top/l", tarfile.SYMTYPE, "/etc/passwd")],
    "chained link": [
        file("top/a"),
        special("top/x", tarfile.SYMTYPE, "."),
        special("top/y", tarfile.SYMTYPE, "x/.."),
    ],
    "through a link": [
        special("top/l", tarfile.SYMTYPE, "."),
        file("top/l/../../escaped"),
    ],
    "file below a link": [special("top/l", tarfile.SYMTYPE, "/tmp"), file("top/l/escaped")],
    "hard link": [file("top/a"), special("top/l", tarfile.LNKTYPE, "top/a")],
    "hard link out": [special("top/l", tarfile.LNKTYPE, "/etc/passwd")],
    "device": [special("top/null", tarfile.CHRTYPE)],
    "pipe": [special("top/pipe", tarfile.FIFOTYPE)],
    "twice": [file("top/a"), file("top/a", b"other")],
    "below a file": [file("top/a"), file("top/a/b")],
    "no folder": [file("top")],
    "empty": [],
    "link twice": [special("top/l", tarfile.SYMTYPE, "a"), special("top/l", tarfile.SYMTYPE, "../escaped")],
    "link over a folder": [special("top/l", tarfile.DIRTYPE), special("top/l", tarfile.SYMTYPE, "..")],
    "link below a link out": [
        special("top/l", tarfile.SYMTYPE, "../../.."),
        special("top/l/escaped", tarfile.SYMTYPE, "x"),
    ],
    "link in a folder below a link out": [
        special("top/l", tarfile.SYMTYPE, "../../.."),
        special("top/l/escaped/deep", tarfile.SYMTYPE, "x"),
    ],
    "link for the top": [special("top", tarfile.SYMTYPE, "/tmp")],
    "disk": [file("top/a"), special("top/sda", tarfile.BLKTYPE)],
    "unknown kind": [file("top/a"), special("top/x", b"Z")],
    "a longer name than a disk holds": [file(f"top/{'x' * 300}")],
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_archives_are_refused_and_leave_nothing(tmp_path: Path, members: list[Member]) -> None:
    (tmp_path / "work").mkdir()
    archive = pack(tmp_path / "a.tar.gz", *members)
    with pytest.raises(IntegrityError, match=r"a\.tar\.gz"):
        unpack(archive, tmp_path / "work" / "out")
    assert list((tmp_path / "work").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.gz", "work"]


def test_a_bomb_is_stopped_before_it_is_written(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.tar.gz", file("top/zeros", bytes(1 << 20)))
    with pytest.raises(IntegrityError, match="more than 1000 bytes"):
        unpack(archive, tmp_path / "out", max_bytes=1000)
    assert not (tmp_path / "out").exists()


def test_a_file_of_holes_counts_with_its_whole_length(tmp_path: Path) -> None:
    """A sparse member takes a block in the archive and a terabyte on the disk."""
    info = tarfile.TarInfo("top/holes")
    info.size = 1 << 40
    info.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "0,0"}
    info.pax_headers |= {"GNU.sparse.size": str(1 << 40), "GNU.sparse.numblocks": "1"}
    data = info.tobuf(tarfile.PAX_FORMAT)
    (tmp_path / "a.tar").write_bytes(data + bytes(1024))
    with pytest.raises(IntegrityError, match=r"a\.tar"):
        unpack(tmp_path / "a.tar", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("keep", [0, 30, -30])
def test_a_damaged_archive_says_so(tmp_path: Path, keep: int) -> None:
    archive = pack(tmp_path / "a.tar.gz", file("top/a", bytes(range(256)) * 400))
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(IntegrityError, match="damaged"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()
