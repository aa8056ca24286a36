"""Binaries that were built elsewhere: checked, unpacked, looked into, and made a bundle like any other."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pocketvlm.build import bundle, recipes
from pocketvlm.build.toolchains import Toolchain
from pocketvlm.errors import IntegrityError, ProvisionError
from pocketvlm.provenance import sha256_file
from pocketvlm.provision import elf
from pocketvlm.provision.archive import unpack
from pocketvlm.provision.tree import copy_tree, reading
from pocketvlm.provision.zipped import unpack_zip

log = logging.getLogger(__name__)

UNKNOWN = "not known"


def take_prebuilt(
    *,
    origin: Path,
    source: Mapping[str, Any],
    target: str,
    destination: Path,
    required: Collection[str],
    collect: Mapping[str, str] | None = None,
    libraries: Collection[str] = (),
) -> None:
    """Make a bundle of binaries that a user gives.

    Args:
        origin: a folder, or a tar or zip archive; its files become the bundle's, without a single top folder.
        source: what the manifest says of it: kind, name, sha256.
        target: what it is for.
        destination: the bundle's folder; complete with its manifest, or absent.
        required: files that it must have.
        collect: only these files, by their name in the bundle; None for all.
        libraries: those that the target has besides its own.

    Raises:
        ProvisionError: it is not there, or may not be read.
        IntegrityError: it is not what its sha256 says, is damaged or dangerous, or is not of the target.
    """
    if not origin.exists():
        raise ProvisionError(
            "the binaries are not there", where=str(origin), do="Put them there, or correct the path"
        )
    with bundle.workplace(destination) as root:
        given = root / "given"
        if origin.is_dir():
            _check(copy_tree(origin, given), source["sha256"], origin, "tree")
        else:
            with reading(origin):
                actual = sha256_file(origin)
            _check(actual, source["sha256"], origin, "archive")
            if zipfile.is_zipfile(origin):
                unpack_zip(origin, given)
            else:
                unpack(origin, given, strip=False)
        with bundle.complete(destination) as made:
            top = _top(given, required) if collect is None else given
            files = _all(top) if collect is None else collect
            recipes.collect(files, root, made, default=top.relative_to(root).as_posix())
            elf.check_bundle(made, target=target, required=required, libraries=libraries)
            none = Toolchain("prebuilt", UNKNOWN, target, "", UNKNOWN, (), (), (), (), (), (), ())
            bundle.write_manifest(
                made,
                name=destination.name,
                toolchain=none,
                flags={"c": [], "cxx": [], "link": []},
                source=source,
            )
    log.info("%s, sha256 %s", origin, source["sha256"])


def _check(actual: str, expected: str, origin: Path, kind: str) -> None:
    if actual != expected:
        raise IntegrityError(
            f"{origin.name} has sha256 {actual}, expected {expected}"
            + (" (of a folder it is the hash of its tree)" if kind == "tree" else ""),
            where=str(origin),
            do="Do not use it unless you know why; if it is the right one, correct its sha256 in the table",
        )


def _top(given: Path, required: Collection[str]) -> Path:
    """Return the folder in which the files are: an archive often has a single folder around them."""
    inner = list(given.iterdir())
    expected = {name.partition("/")[0] for name in required}
    if len(inner) == 1 and inner[0].is_dir() and inner[0].name not in expected:
        return inner[0]
    return given


def _all(top: Path) -> dict[str, str]:
    files = (path.relative_to(top).as_posix() for path in sorted(top.rglob("*")) if path.is_file())
    return {name: name for name in files if name != "manifest.json"}
