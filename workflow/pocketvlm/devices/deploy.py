"""Bring files onto a device once: content-addressed, verified there, never under a final name before that.

    <remote_dir>/objects/<sha256>/<name>            the file
    <remote_dir>/objects/<sha256>/.<name>.verified  its size and times when its hash was found right
    <remote_dir>/objects/<id>/<path>                the files of a folder that are found by each other

A push that breaks off leaves a truncated file under the name it was pushed to (seen with adb, which says "1
file pushed"), so files go to a temporary name, are hashed on the device, and are renamed.

A file that is there already is trusted when its size, mtime and ctime are those of the marker. No write,
truncation or replacement leaves the ctime as it was, and a user without root cannot set it; hashing gigabytes
of weights before every block instead would take half a minute on a phone. Where marker and file differ, or
there is no marker, the file is hashed again, and pushed only if that differs too.
"""

from __future__ import annotations

import re
import shlex
import sys
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TypeVar

from pocketvlm.devices.base import Device, run
from pocketvlm.errors import DeviceError, IntegrityError, TransientDeviceError

# A file system that is full to the last byte stops more than this workflow.
_RESERVE_BYTES = 32 << 20
_LARGE_BYTES = 32 << 20
_REPORT_SECONDS = 2.0
# The slowest flash reads about 50 MB/s and a slow core hashes as much.
_HASH_BYTES_PER_SECOND = 20e6
_ASK_AT_ONCE = 100
Part = TypeVar("Part")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,200}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class TreeFile:
    """A file of a folder: its sha256, and whether it is executable on the device."""

    sha256: str
    executable: bool = False


@dataclass(frozen=True)
class Tree:
    """A folder that is brought to a device as it lies here.

    Attributes:
        root: the folder here.
        id: sha256 of what says which files it has: that of its manifest, or of its tree.
        files: by their path in the folder.
    """

    root: Path
    id: str
    files: Mapping[str, TreeFile] = field(default_factory=dict)

    def places(self, remote_dir: str) -> dict[Path, str]:
        """Return where each of its files, and each folder of them, is on the device, by its path here."""
        top = f"{remote_dir}/objects/{self.id}"
        found = {self.root: top}
        for name in self.files:
            path = PurePosixPath(name)
            found |= {self.root / part: f"{top}/{part}" for part in (path, *path.parents) if part.name}
        return found


@dataclass(frozen=True)
class _Object:
    local: Path
    sha256: str
    top: str
    remote: str
    size: int
    mode: int

    @property
    def partial(self) -> str:
        """A name that nobody else has."""
        return f"{self.top}/.{uuid.uuid4().hex[:12]}.part"

    @property
    def marker(self) -> str:
        folder, _, name = self.remote.rpartition("/")
        return f"{folder}/.{name}.verified"


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")  # in one piece: jobs share it


def deploy(
    device: Device,
    files: Iterable[tuple[Path, str]],
    remote_dir: str,
    *,
    programs: Collection[Path] = (),
    trees: Iterable[Tree] = (),
    report: Callable[[str], None] = _say,
) -> dict[str, str]:
    """Bring files onto a device, pushing only those that are not there.

    Args:
        device: the device.
        files: local path and sha256 in hex of each; a file that is executable here is so there.
        remote_dir: the device's folder of pocketvlm, absolute.
        programs: those that are executable there even if they are not here: the between-workflow cache of
            Snakemake takes that permission away.
        trees: folders of files besides; `Tree.places` says where they will be.
        report: takes plain lines about large files.

    Returns:
        The path on the device by sha256, of `files`.

    Raises:
        IntegrityError: a file here is not what its sha256 says, or it arrived damaged.
        DeviceError: no space (with need and have), no permission.
        TransientDeviceError: the device stopped answering; what was pushed so far is kept.
    """
    single = list(dict.fromkeys(_objects(files, remote_dir, programs)))
    objects = [*single, *dict.fromkeys(one for tree in trees for one in _tree_objects(tree, remote_dir))]
    lacking = [wanted for part in _parts(objects) for wanted in _lacking(device, part)]
    if lacking:
        _check_space(device, lacking, remote_dir)
        for number, wanted in enumerate(lacking, 1):
            _push(device, wanted, f"{number}/{len(lacking)}", report)
    placed: dict[str, str] = {}
    for there in single:
        placed.setdefault(there.sha256, there.remote)
    return placed


def _objects(
    files: Iterable[tuple[Path, str]], remote_dir: str, programs: Collection[Path]
) -> Iterator[_Object]:
    for local, sha256 in files:
        top = f"{remote_dir}/objects/{sha256}"
        yield _object(local, sha256, top, local.name, executable=local in programs)


def _tree_objects(tree: Tree, remote_dir: str) -> Iterator[_Object]:
    top = tree.places(remote_dir)[tree.root]
    for name, file in tree.files.items():
        yield _object(tree.root / name, file.sha256, top, name, executable=file.executable)


def _object(local: Path, sha256: str, top: str, name: str, *, executable: bool) -> _Object:
    if not _SHA256.match(sha256) or not all(_NAME.match(part) for part in name.split("/")):
        raise DeviceError(
            f"{name!r} with sha256 {sha256!r} cannot be deployed",
            do="Use file names of letters, digits and ._+- and a hash of 64 hex digits",
        )
    try:
        status = local.stat()
    except FileNotFoundError:
        raise DeviceError(f"there is no file {local} to deploy", do="Make it again with its rule") from None
    mode = 0o755 if status.st_mode & 0o100 or executable else 0o644
    return _Object(local, sha256, top, f"{top}/{name}", status.st_size, mode)


def _parts(objects: Sequence[Part]) -> Iterator[Sequence[Part]]:
    """Split a list so that a command stays below the lengths that adb and the shell allow."""
    for start in range(0, len(objects), _ASK_AT_ONCE):
        yield objects[start : start + _ASK_AT_ONCE]


# `stat -c` of coreutils and of toybox print the same: size, times with nanoseconds, and mode.
_STAT = "stat -c '%s %y %z %a'"


def _lacking(device: Device, objects: Sequence[_Object]) -> list[_Object]:
    """Return the files that are not there, or not what they should be; one call when nothing changed."""
    script = "".join(
        f"a=$({_STAT} {shlex.quote(wanted.remote)} 2>/dev/null); "
        f"b=$(cat {shlex.quote(wanted.marker)} 2>/dev/null); "
        '[ -z "$a" ] && echo none || '
        f'{{ [ "$a" = "$b" ] && [ "${{a##* }}" = {wanted.mode:o} ] && echo same || echo other; }}\n'
        for wanted in objects
    )
    answers = run(device, ["sh", "-c", script], 60).split()
    if len(answers) != len(objects):
        raise TransientDeviceError(
            f"{device.id} answered for {len(answers)} of {len(objects)} files", do="Start again"
        )
    lacking = []
    for wanted, answer in zip(objects, answers, strict=True):
        if answer == "same" or (
            answer == "other" and _hash(device, wanted.remote, wanted.size) == wanted.sha256
        ):
            if answer == "other":
                _mark(device, wanted)
        else:
            lacking.append(wanted)
    return lacking


def changed(device: Device, placed: Collection[str]) -> list[str]:
    """Return the names of deployed files that are not any more as they were when they were found right.

    It compares what the file system tells and reads no file, so that it costs one call.

    Args:
        device: the device.
        placed: paths on the device, as `deploy` returns them.
    """
    questions: list[str] = []
    for remote in sorted(set(placed)):
        folder, _, name = remote.rpartition("/")
        questions.append(
            f'[ "$({_STAT} {shlex.quote(remote)} 2>/dev/null)" = '
            f'"$(cat {shlex.quote(f"{folder}/.{name}.verified")} 2>/dev/null)" ] || echo {shlex.quote(name)}'
        )
    return [
        name
        for part in _parts(questions)
        for name in run(device, ["sh", "-c", "\n".join([*part, "true"])], 60).split()
    ]


def _check_space(device: Device, lacking: Sequence[_Object], remote_dir: str) -> None:
    run(device, ["mkdir", "-p", remote_dir], 30)
    need, have = sum(wanted.size for wanted in lacking) + _RESERVE_BYTES, device.free_space(remote_dir)
    if need > have:
        raise DeviceError(
            f"{device.id} has {have / 1e6:.0f} MB free and {need / 1e6:.0f} MB are needed "
            f"for {len(lacking)} files",
            where=remote_dir,
            do=f"Free space there, or delete {remote_dir}/objects: what is still needed is pushed again",
        )


def _push(device: Device, wanted: _Object, position: str, report: Callable[[str], None]) -> None:
    partial = wanted.partial
    try:
        device.push(wanted.local, partial, wanted.mode, progress=_progress(wanted, position, report))
        arrived = _hash(device, partial, wanted.size)
        if arrived != wanted.sha256:
            raise IntegrityError(
                f"{wanted.local.name} has sha256 {arrived} on {device.id}, expected {wanted.sha256}",
                where=str(wanted.local),
                do="Start again; if it happens again, make the file here again: it is not what it should be",
            )
        run(
            device,
            [
                "sh",
                "-c",
                f"mkdir -p {shlex.quote(wanted.remote.rpartition('/')[0])} && "
                f"chmod {wanted.mode:o} {shlex.quote(partial)} && "
                f"mv -f {shlex.quote(partial)} {shlex.quote(wanted.remote)} && {_marking(wanted)}",
            ],
            60,
        )
    except BaseException:
        _remove(device, partial)
        raise


def _remove(device: Device, partial: str) -> None:
    """Delete what a push left, if the device still answers; a stray part is only space, never trusted."""
    try:
        device.shell(["rm", "-f", partial], 10)
    except DeviceError:
        return


def _marking(wanted: _Object) -> str:
    return f"{_STAT} {shlex.quote(wanted.remote)} > {shlex.quote(wanted.marker)}"


def _mark(device: Device, wanted: _Object) -> None:
    """Take note of how a file looks that was just found to be right, its mode set."""
    run(device, ["sh", "-c", f"chmod {wanted.mode:o} {shlex.quote(wanted.remote)} && {_marking(wanted)}"], 30)


def _hash(device: Device, remote: str, size: int) -> str:
    printed = run(device, ["sha256sum", remote], 30 + size / _HASH_BYTES_PER_SECOND)
    found = printed.split(maxsplit=1)[0] if printed.strip() else ""
    # GNU sha256sum begins the line with a backslash when the name holds one.
    return found.lstrip("\\")


def _progress(wanted: _Object, position: str, report: Callable[[str], None]) -> Callable[[int], None] | None:
    """Return a callback that reports a large file every few seconds; None for a small one."""
    if wanted.size < _LARGE_BYTES:
        return None
    started = time.monotonic()
    last = started

    def tell(sent: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < _REPORT_SECONDS and sent < wanted.size:
            return
        last = now
        speed = sent / max(now - started, 1e-3)
        report(
            f"push {position} {wanted.local.name}: {sent / 1e6:.0f} of {wanted.size / 1e6:.0f} MB, "
            f"{100 * sent / wanted.size:.0f} %, {speed / 1e6:.0f} MB/s"
        )

    return tell
