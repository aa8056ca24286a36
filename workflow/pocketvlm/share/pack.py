"""Packing: the raw runs of an experiment, and all that says what they are, as one archive."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketvlm.analyse.numbers import size
from pocketvlm.errors import ProvisionError
from pocketvlm.provenance import code_hash, sha256_file
from pocketvlm.share import archive
from pocketvlm.share.archive import Manifest
from pocketvlm.share.contents import check_contents

if TYPE_CHECKING:
    # Every start of the workflow imports this module, and the report's takes all libraries that draw along.
    from pocketvlm.analyse.report.origin import Origin

log = logging.getLogger("pocketvlm")

SHAPING = ("frameworks", "analyse", "config")
"""The library that makes tables from raw runs: equal hashes of it promise equal tables."""


def described(origin: Origin) -> dict[str, Any]:
    """Return what an archive says of where it was packed; it names no person, machine or folder."""
    return {
        "commit": origin.commit,
        "changed": None if origin.changed is None else len(origin.changed),
        "reason": "" if origin.commit else "the sender's code was in no clone",
        "python": origin.python,
        "machine": origin.machine,
        "packages": origin.packages,
        "code": code_hash(*SHAPING),
    }


def pack(
    *,
    root: Path,
    experiment: str,
    config: Mapping[str, str],
    images: Mapping[str, Path],
    identities: Sequence[Path],
    bundles: Sequence[Path],
    weights: Sequence[Path],
    table: Path,
    origin: Origin,
    destination: Path,
) -> Manifest:
    """Write the archive of an experiment after checking that all of it belongs together.

    Args:
        root: the folder of results.
        experiment: its name.
        config: the configuration's files, path in the archive to text.
        images: the image of each workload.
        identities: of each device, or what stands in its place.
        bundles: folders of the bundles that ran, with `manifest.json`.
        weights: records of the weights that ran.
        table: `cells.csv`, so that a reader sees whether theirs is the same.
        origin: the code and the machine that pack.
        destination: the file to write.

    Raises:
        IntegrityError: runs, indexes and records do not belong together.
        ProvisionError: the disk has no room for the archive.
    """
    contents = check_contents(root, experiment, {name: sha256_file(path) for name, path in images.items()})
    log.info("%d runs and their records belong together", len(contents.runs))
    files: dict[str, Path | bytes] = {path: text.encode() for path, text in config.items()}
    files |= {f"config/workloads/{path.name}": path for path in images.values()}
    named = [root / experiment / "cells.json", *identities]
    for device in contents.devices:
        named.append(root / experiment / "blocks" / f"{device}.json")
        named += [path for path in (root / "devices" / device / "peaks.json",) if path.is_file()]
    for run, meta in contents.runs.items():
        named += [root / "raw" / run / name for name in ("meta.json", *meta["files"])]
    files |= {path.relative_to(root).as_posix(): path for path in named}
    files |= {f"bundles/{path.name}/manifest.json": path / "manifest.json" for path in bundles}
    files |= {f"weights/{path.relative_to(root / 'weights')}": path for path in weights}
    files["sent/cells.csv"] = table
    need_space(destination.parent, sum(_length(source) for source in files.values()))
    manifest = archive.write(destination, experiment, described(origin), files)
    log.info("%s: %d files, %s", destination, len(files), size(destination.stat().st_size))
    return manifest


def need_space(folder: Path, count: int) -> None:
    """Raise ProvisionError unless so many bytes, and a tenth more, are free where a folder is."""
    free = shutil.disk_usage(folder).free
    if free < 1.1 * count:
        raise ProvisionError(
            f"{size(free)} are free, {size(int(1.1 * count))} are needed",
            where=str(folder),
            do="Make room on that disk and give the same command again",
        )


def _length(source: Path | bytes) -> int:
    return len(source) if isinstance(source, bytes) else source.stat().st_size
