"""Where a version of a framework comes from: what a bundle's manifest says of it, and where it lies here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pocketvlm.config.frameworks import missing, recipe
from pocketvlm.config.schema import suggest
from pocketvlm.errors import ConfigError
from pocketvlm.provenance import code_hash
from pocketvlm.provision.tree import tree_sha256

SDIST, DIRECTORY, PREBUILT = "sdist", "directory", "prebuilt"
_BUILDING = (
    *("build/framework.py", "build/recipes.py", "build/bundle.py", "build/toolchains.py"),
    *("provision/archive.py", "provision/elf.py"),
)
tree_of = cache(tree_sha256)
"""The hash of a folder's files, computed once in a process."""


def source_of(frameworks: Mapping[str, Any], name: str, version: str, target: str) -> Mapping[str, Any]:
    """Return the source of a version of a framework.

    Raises:
        ConfigError: there is no such version, or it cannot be had for that target.
    """
    versions = frameworks[name]["versions"]
    if version not in versions:
        raise ConfigError(
            f"the version {version} of {name} is not known",
            where="the table of frameworks",
            do=suggest(version, list(versions)),
        )
    reason = missing(frameworks[name], version, target)
    if reason is not None:
        raise ConfigError(
            f"{name} {version} cannot be had: {reason}",
            where=f"the table of frameworks: {name}.versions.{version}",
            do="`snakemake --cores 1 check_frameworks` says what is there and what is missing",
        )
    source = versions[version]["source"]
    assert isinstance(source, Mapping)
    return source


def origin(source: Mapping[str, Any], target: str) -> Path | None:
    """Return where a source tree or binaries lie on this machine; None for what is fetched."""
    if source["kind"] == SDIST:
        return None
    named = source["targets"][target] if "targets" in source else source
    return Path(named["path"])


def pinned(source: Mapping[str, Any], target: str) -> dict[str, Any]:
    """Return what a manifest says of a source: of what lies here the name, and no folder of this machine."""
    path = origin(source, target)
    if path is None:
        return {key: value for key, value in source.items() if key != "kind"}
    named = source["targets"][target] if "targets" in source else source
    sha256 = named["sha256"] if "sha256" in named else tree_of(path)
    commit = {"commit": source["commit"]} if "commit" in source else {}
    return {"kind": source["kind"], "name": path.resolve().name, "sha256": sha256, **commit}


def tree(source: Mapping[str, Any], target: str) -> str | None:
    """Return the hash of a source tree as it is now, so that a change in it builds anew; else None."""
    path = origin(source, target)
    return tree_of(path) if path is not None and source["kind"] == DIRECTORY else None


def building_code(source: Mapping[str, Any]) -> str:
    """Return the hash of the library code that makes a bundle of a source of this kind."""
    trees = [] if source["kind"] == SDIST else ["provision/tree.py"]
    binaries = ["provision/prebuilt.py", "provision/zipped.py"] if source["kind"] == PREBUILT else []
    return code_hash(*_BUILDING, *trees, *binaries)


def recipe_of(entry: Mapping[str, Any], version: str) -> dict[str, Any]:
    """Return how a version becomes a bundle: of binaries, only what the version's own `build` says."""
    about = entry["versions"][version]
    return dict(about.get("build", {})) if about["source"]["kind"] == PREBUILT else recipe(entry, version)
