"""Unpacking: an archive that somebody else packed becomes a folder of results of its own.

That folder is `results/received/<experiment>-<8 hex digits of its contents>`: what was received is never
among one's own runs, where the next measurement would take it for its own.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketvlm.config.study import Study
from pocketvlm.errors import IntegrityError
from pocketvlm.provenance import sha256_file, write_json
from pocketvlm.share import configured
from pocketvlm.share.archive import Manifest, reading, refused
from pocketvlm.share.contents import check_contents, misfit
from pocketvlm.share.pack import need_space

log = logging.getLogger("pocketvlm")

RECEIVED = "results/received"
ORIGIN = "origin.json"
"""In the folder of what was received: who packed it, with what."""
BATCH = 200
MAX_CELLS_JSON = 16 << 20


@dataclass(frozen=True)
class Received:
    """An archive as it is seen before it is unpacked.

    Attributes:
        path: the archive.
        manifest: what it says it holds.
        study: the experiment, resolved from the archive's own configuration.
        root: the folder of results that it is unpacked to.
    """

    path: str
    manifest: Manifest
    study: Study
    root: str

    @property
    def records(self) -> list[str]:
        """The files that later stages ask for: all but raw runs, configuration and what stands in bundles."""
        return [
            f"{self.root}/{path}"
            for path in sorted(self.manifest.files)
            if not path.startswith(("raw/", "config/", "bundles/"))
        ]

    @property
    def bundles(self) -> list[str]:
        """The folders of the bundles' manifests."""
        return sorted(
            f"{self.root}/{Path(path).parent}" for path in self.manifest.files if path.startswith("bundles/")
        )

    @property
    def unidentified(self) -> set[str]:
        """The devices that could not be asked what they are."""
        folder = f"{self.study.name}/absent/"
        return {Path(path).stem for path in self.manifest.files if path.startswith(folder)}

    @property
    def images(self) -> list[str]:
        """The workloads' images, which the report shows."""
        return sorted({str(workload["image_path"]) for workload in self.study.workloads.values()})


def look_into(archive: str, config: Mapping[str, Any]) -> Received:
    """Read an archive's manifest and configuration, which come first in it, and nothing else.

    Args:
        archive: its path.
        config: the configuration of the workflow that reads it.

    Raises:
        ConfigError: there is no such file.
        IntegrityError: it is no archive that this version can use.
    """
    with reading(Path(archive)) as reader:
        manifest = reader.manifest
        files = {path: b"".join(pieces) for path, pieces in reader.files("config/")}
        own = f"{manifest.experiment}/cells.json"
        if own not in manifest.files or manifest.files[own].bytes > MAX_CELLS_JSON:
            raise refused(Path(archive).name, "has no cells.json, or too large a one")
        cells = b"".join(piece for _, pieces in reader.files(own) for piece in pieces)
    root = f"{RECEIVED}/{manifest.name}"
    resolved = configured.read(files, cells, manifest.experiment, config, root, Path(archive).name)
    return Received(archive, manifest, resolved, root)


def unpack(received: Received) -> None:
    """Unpack an archive to its folder; what is there already must be the same and stays as it is.

    Raises:
        IntegrityError: the archive is damaged, is not what it says, holds files that do not belong together,
            or the folder holds other bytes under a name of the archive. Nothing of it is kept then.
        ProvisionError: the disk has no room for it.
    """
    root, manifest = Path(received.root), received.manifest
    root.parent.mkdir(parents=True, exist_ok=True)
    need_space(root.parent, sum(file.bytes for file in manifest.files.values()))
    aside = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name}."))
    try:
        _extract(Path(received.path), manifest, aside)
        _check(aside, received)
        _refuse_others(aside, root, manifest)
        _place(aside, root, manifest)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    write_json(root / ORIGIN, origin(manifest))
    log.info("unpacked to %s; sent from commit %s", root, manifest.origin["commit"] or "unknown")


def origin(manifest: Manifest) -> dict[str, Any]:
    """Return what `origin.json` holds: that these results were received, and what they were packed with."""
    return {
        "format": 1,
        "received": True,
        "experiment": manifest.experiment,
        "manifest_sha256": manifest.id,
        **manifest.origin,
    }


def _extract(archive: Path, manifest: Manifest, aside: Path) -> None:
    with reading(archive) as reader:
        if reader.manifest.id != manifest.id:
            raise refused(archive.name, "is another one than a moment ago")
        for number, (path, pieces) in enumerate(reader.files(), 1):
            place = aside / path
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("xb") as stream:
                for piece in pieces:
                    stream.write(piece)
            if number % BATCH == 0:
                log.info("%d of %d files checked and unpacked", number, len(manifest.files))
        reader.end()


def _check(aside: Path, received: Received) -> None:
    """Check that the files belong together, and to the experiment that the configuration resolves to."""
    study = received.study
    images = {
        name: sha256_file(aside / Path(workload["image_path"]).relative_to(received.root))
        for name, workload in study.workloads.items()
    }
    contents = check_contents(aside, study.name, images)
    if not _agree(study.records(), contents.cells):
        raise misfit("cells.json is not what the archive's own configuration resolves to", aside)
    for path in received.manifest.files:
        parts = path.split("/")
        if parts[0] == "raw" and f"{parts[1]}/{parts[2]}" not in contents.runs:
            raise misfit(f"the run {parts[1]}/{parts[2]} is in no block", aside)


def _agree(resolved: Mapping[str, Any], told: Mapping[str, Any]) -> bool:
    """Whether two records of an experiment say the same, as far as both versions of the code say it."""

    def same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
        return all(a[name] == b[name] for name in a.keys() & b.keys() if name != "cells")

    mine, theirs = resolved["cells"], told["cells"]
    return (
        same(resolved, told)
        and [cell["cell"] for cell in mine] == [cell["cell"] for cell in theirs]
        and all(same(a, b) for a, b in zip(mine, theirs, strict=True))
    )


def _refuse_others(aside: Path, root: Path, manifest: Manifest) -> None:
    """Raise when a file is there already with other bytes."""
    for path, file in manifest.files.items():
        place = root / path
        if place.is_symlink() or (place.exists() and sha256_file(place) != file.sha256):
            raise IntegrityError(
                f"{place.name} was changed since this archive was unpacked before",
                where=str(place),
                do=f"Remove {root} and give the same command again",
            )


def _place(aside: Path, root: Path, manifest: Manifest) -> None:
    """Move the files to their places: a run whole, so that its folder is complete or absent."""
    for path in manifest.files:
        source, place = aside / path, root / path
        if path.startswith("raw/") and not place.parent.exists():
            place.parent.parent.mkdir(parents=True, exist_ok=True)
            source.parent.rename(place.parent)
        elif source.exists() and not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            source.rename(place)
