"""The archive: a gzipped tar whose first member names every other with its size and sha256.

Written with sorted members, no times and no owners, so that equal contents give equal bytes. Read by a reader
of its own that knows what must come next: a member that the manifest does not name, in its place, with its
size and hash, is refused before anything of it is kept. So is whatever a tar can hold besides plain files.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketvlm.errors import ConfigError, IntegrityError
from pocketvlm.provenance import atomic_file, canonical_json

FORMAT = 1
KIND = "pocketvlm experiment"
MANIFEST = "manifest.json"
ENDING = ".pocketvlm.tar.gz"

MAX_BYTES = 4 << 30
"""Bytes of all files of an archive together."""
MAX_FILES = 200_000
MAX_MANIFEST = 32 << 20
MAX_CONFIG = 64 << 20
"""Bytes of the configuration in an archive, images included; it is read into memory."""

_BLOCK = tarfile.BLOCKSIZE
_PIECE = 1 << 20
_NAME = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,79}"
_EXPERIMENT = re.compile(r"[a-z0-9][a-z0-9-]{0,99}")
RESERVED = ("bundles", "config", "devices", "failed", "local-device", "logs", "raw", "received", "sources")
"""Names that folders of results have already: no experiment in an archive is called so."""


@dataclass(frozen=True)
class File:
    """What the manifest says of a file."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """What an archive is.

    Attributes:
        experiment: its name.
        origin: where it was packed: commit, changed, reason, python, packages, code.
        files: every file by its path in the archive.
        id: sha256 of the manifest, and so of all contents.
    """

    experiment: str
    origin: Mapping[str, Any]
    files: Mapping[str, File]
    id: str

    @property
    def name(self) -> str:
        """Experiment and eight hex digits of the contents: `demo-1a2b3c4d`."""
        return f"{self.experiment}-{self.id[:8]}"


def in_order(paths: Sequence[str]) -> list[str]:
    """Return paths in the order of an archive: what the workflow is resolved from comes first."""
    return sorted(
        paths, key=lambda path: (not path.startswith("config/"), not path.endswith("/cells.json"), path)
    )


def write(
    destination: Path, experiment: str, origin: Mapping[str, Any], files: Mapping[str, Path | bytes]
) -> Manifest:
    """Write an archive, atomically; equal contents and an equal origin give equal bytes.

    Args:
        destination: the file to write.
        experiment: name of the experiment.
        origin: as in Manifest.
        files: path in the archive to a file or to its bytes.

    Raises:
        IntegrityError: a path that no archive may hold, too many bytes, or a file that changes meanwhile.
    """
    listed = {path: _described(source) for path, source in files.items()}
    record = {
        "format": FORMAT,
        "kind": KIND,
        "experiment": experiment,
        "origin": dict(origin),
        "files": {path: {"sha256": file.sha256, "bytes": file.bytes} for path, file in listed.items()},
    }
    data = canonical_json(record).encode() + b"\n"
    manifest = parse_manifest(data, destination.name)
    with (
        atomic_file(destination, "wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=9, mtime=0) as stream,
    ):
        _put(stream, f"{_top(experiment)}/{MANIFEST}", io.BytesIO(data), _described(data))
        for path in in_order(list(files)):
            with _opened(files[path]) as source:
                _put(stream, f"{_top(experiment)}/{path}", source, listed[path])
        stream.write(bytes(2 * _BLOCK))
    return manifest


def parse_manifest(data: bytes, archive: str) -> Manifest:
    """Return the manifest that these bytes are.

    Raises:
        IntegrityError: it is none, of another format, or names what no archive may hold.
    """
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise refused(archive, f"has no manifest that can be read: {str(error)[:100]}") from None
    if not isinstance(record, dict) or record.get("kind") != KIND:
        raise refused(archive, "is no archive of an experiment")
    if record.get("format") != FORMAT:
        raise IntegrityError(
            f"{archive} has the format {str(record.get('format'))[:20]!r}, this version reads {FORMAT}",
            do="Use the version of pocketvlm that wrote it, or ask for it in this format",
        )
    experiment, listed = record.get("experiment"), record.get("files")
    if not isinstance(experiment, str) or not _EXPERIMENT.fullmatch(experiment) or experiment in RESERVED:
        raise refused(archive, f"names an experiment {str(experiment)[:60]!r}")
    if not isinstance(listed, dict) or len(listed) > MAX_FILES:
        raise refused(archive, f"names no files, or more than {MAX_FILES}")
    allowed = _allowed(experiment)
    files: dict[str, File] = {}
    for path, entry in listed.items():
        if not allowed.fullmatch(path):
            raise refused(archive, f"names the file {path[:120]!r}, which no archive holds")
        sha256, count = (entry.get("sha256"), entry.get("bytes")) if isinstance(entry, dict) else (None, None)
        well = isinstance(sha256, str) and re.fullmatch(r"[0-9a-f]{64}", sha256)
        if not well or type(count) is not int or count < 0:
            raise refused(archive, f"does not say what {path[:120]!r} is")
        files[path] = File(str(sha256), count)
    if len({path.casefold() for path in files}) != len(files):
        raise refused(archive, "names two files that differ in their case only")
    for limit, total in (
        (MAX_BYTES, sum(file.bytes for file in files.values())),
        (MAX_CONFIG, sum(file.bytes for path, file in files.items() if path.startswith("config/"))),
    ):
        if total > limit:
            raise refused(archive, f"unpacks to {total} bytes, more than the {limit} that are accepted")
    return Manifest(
        experiment, _origin(record.get("origin"), archive), files, hashlib.sha256(data).hexdigest()
    )


class Reader:
    """An open archive: its manifest, then its files one after the other."""

    def __init__(self, stream: io.BufferedIOBase, archive: str) -> None:
        self._stream, self._archive = stream, archive
        header = self._header()
        self._top = header.name.removesuffix(f"/{MANIFEST}")
        if header.name != f"{self._top}/{MANIFEST}":
            raise refused(archive, "does not begin with a manifest")
        if header.size > MAX_MANIFEST:
            raise refused(archive, f"has a manifest of {header.size} bytes")
        self.manifest = parse_manifest(self._content(header.size), archive)
        if self._top != _top(self.manifest.experiment):
            raise refused(archive, f"has the top folder {self._top[:60]!r}")
        self._left = in_order(list(self.manifest.files))

    def files(self, first: str = "") -> Iterator[tuple[str, Iterator[bytes]]]:
        """Yield each file's path and its pieces, as long as paths begin with `first`; hashes are checked.

        A file's pieces must be used up before the next file is asked for: only then its hash is known.
        """
        while self._left and self._left[0].startswith(first):
            path = self._left.pop(0)
            header = self._header()
            if header.name != f"{self._top}/{path}":
                raise refused(self._archive, f"holds {header.name[:120]!r} where {path} should stand")
            if header.size != self.manifest.files[path].bytes:
                raise refused(self._archive, f"has {header.size} bytes for {path}, not what it promised")
            yield path, self._checked(path)

    def end(self) -> None:
        """Raise unless the archive ends here: the checksum of the compressed stream is behind its end."""
        rest = self._stream.read(_PIECE)
        if len(rest) < 2 * _BLOCK or rest.strip(b"\0") or self._stream.read(1):
            raise refused(self._archive, "goes on after its last file, or has no end")

    def _header(self) -> tarfile.TarInfo:
        block = self._stream.read(_BLOCK)
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise refused(self._archive, f"is cut short or damaged: {error}") from None
        # Only what `write` makes: no links, devices or folders, and no extended headers.
        if header.type != tarfile.REGTYPE or header.size < 0:
            raise refused(self._archive, f"holds {header.name[:120]!r}, which is no plain file")
        return header

    def _checked(self, path: str) -> Iterator[bytes]:
        digest = hashlib.sha256()
        for piece in self._pieces(self.manifest.files[path].bytes):
            digest.update(piece)
            yield piece
        if digest.hexdigest() != self.manifest.files[path].sha256:
            raise refused(self._archive, f"has other bytes in {path} than its manifest says")

    def _pieces(self, count: int) -> Iterator[bytes]:
        left = count
        while left:
            piece = self._stream.read(min(left, _PIECE))
            if not piece:
                raise refused(self._archive, "is cut short")
            left -= len(piece)
            yield piece
        padding = -count % _BLOCK
        if len(self._stream.read(padding)) != padding:
            raise refused(self._archive, "is cut short")

    def _content(self, count: int) -> bytes:
        return b"".join(self._pieces(count))


@contextmanager
def reading(archive: Path) -> Iterator[Reader]:
    """Open an archive to read it from its beginning.

    Raises:
        ConfigError: there is no such file.
        IntegrityError: it is no archive, a damaged one, or of another format.
    """
    try:
        raw = archive.open("rb")
    except OSError as error:
        raise ConfigError(
            f"the archive cannot be read: {error.strerror}",
            where=str(archive),
            do="Give the path of an archive: snakemake --cores 4 unpack --config archive=PATH",
        ) from None
    with raw:
        try:
            with gzip.GzipFile(fileobj=raw, mode="rb") as stream:
                yield Reader(stream, archive.name)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise refused(archive.name, f"is cut short or damaged: {error}") from None


def refused(archive: str, why: str) -> IntegrityError:
    """Return the error for an archive that is not to be used."""
    return IntegrityError(
        f"{archive} {why}", do="Nothing of it was kept; ask the sender for it again, as it was packed"
    )


def _opened(source: Path | bytes) -> io.BufferedIOBase:
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def _described(source: Path | bytes) -> File:
    digest, count = hashlib.sha256(), 0
    with _opened(source) as stream:
        while piece := stream.read(_PIECE):
            digest.update(piece)
            count += len(piece)
    return File(digest.hexdigest(), count)


def _put(stream: io.BufferedIOBase, name: str, source: io.BufferedIOBase, expected: File) -> None:
    header = tarfile.TarInfo(name)
    header.size, header.mode = expected.bytes, 0o644
    stream.write(header.tobuf(tarfile.USTAR_FORMAT))
    digest, count = hashlib.sha256(), 0
    while piece := source.read(_PIECE):
        digest.update(piece)
        count += len(piece)
        stream.write(piece)
    if File(digest.hexdigest(), count) != expected:
        raise IntegrityError(f"{name} changed while it was packed", do="Pack again")
    stream.write(bytes(-count % _BLOCK))


def _top(experiment: str) -> str:
    return f"{experiment}.pocketvlm"


def _allowed(experiment: str) -> re.Pattern[str]:
    """Return a pattern of every path that an archive of this experiment may hold."""
    return re.compile(
        "|".join(
            (
                rf"config/(?:experiments|devices|workloads)/{_NAME}",
                r"config/(?:models|frameworks|toolchains|analysis)\.yaml",
                rf"bundles/{_NAME}/manifest\.json",
                rf"devices/{_NAME}/(?:identity|peaks)\.json",
                rf"weights/{_NAME}/(?:[a-z]+-[A-Z0-9_]+/)?{_NAME}\.json",
                r"raw/[0-9a-f]{64}/[0-9]{2,6}/[a-z0-9_][a-z0-9_.-]{0,99}",
                rf"{re.escape(experiment)}/cells\.json",
                rf"{re.escape(experiment)}/(?:blocks|absent)/{_NAME}\.json",
                r"sent/cells\.csv",
            )
        )
    )


def _origin(value: Any, archive: str) -> dict[str, Any]:
    """Return the sender's own words about the code and the machine, checked: they are shown to people."""
    record = value if isinstance(value, dict) else {}
    word = re.compile(r"[ -~]{1,300}")
    commit, changed, packages = record.get("commit"), record.get("changed"), record.get("packages")
    texts = [record.get("reason") or "x", record.get("python"), record.get("machine"), record.get("code")]
    good = (
        (commit is None or (isinstance(commit, str) and re.fullmatch(r"[0-9a-f]{40,64}", commit)))
        and (changed is None or (type(changed) is int and changed >= 0))
        and all(isinstance(text, str) and word.fullmatch(text) for text in texts)
        and isinstance(packages, dict)
        and len(packages) <= 100
        and all(
            word.fullmatch(name)
            and (version is None or (isinstance(version, str) and word.fullmatch(version)))
            for name, version in packages.items()
        )
    )
    if not good:
        raise refused(archive, "does not say in a way that can be read what it was packed with")
    return {
        name: record.get(name)
        for name in ("commit", "changed", "reason", "python", "machine", "packages", "code")
    }
