"""A framework compiled for a target: from a pinned source archive, or from a source tree that a user has."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pocketvlm.build import bundle, recipes
from pocketvlm.build.toolchains import Toolchain
from pocketvlm.errors import ConfigError, IntegrityError, ProvisionError
from pocketvlm.provision import elf
from pocketvlm.provision.archive import unpack
from pocketvlm.provision.tree import copy_tree

log = logging.getLogger(__name__)


def build_framework(
    *,
    origin: Path,
    source: Mapping[str, Any],
    recipe: Mapping[str, Any],
    backend: Mapping[str, Any],
    toolchain: Toolchain,
    destination: Path,
    jobs: int,
    build_log: Path,
    required: Collection[str] = (),
) -> None:
    """Compile a framework and gather its bundle.

    Args:
        origin: the source archive, or the source tree.
        source: what the manifest says of it: project, version, sha256 and commit of an archive; kind, name,
            sha256 (of the tree) and perhaps commit of a tree.
        recipe: `build` of its catalogue entry; `recipes` has its keys.
        backend: the backend's entry: options.
        toolchain: what compiles for the target.
        destination: the bundle's folder; complete with its manifest, or absent.
        jobs: compilations at a time.
        build_log: where the output of the tools goes.
        required: files that the bundle must have.

    Raises:
        IntegrityError: the source is not what its pin says; what was built is not of the target.
        ProvisionError: a step of the build failed, or a file to collect was not built.
        ConfigError: the recipe cannot be carried out.
    """
    with bundle.workplace(destination) as root:
        _bring(origin, source, recipe, root)
        what = f"{source.get('project', source.get('name'))} {source.get('version', '')}".strip()
        log.info("building %s for %s, the log is %s", what, toolchain.target, build_log)
        commit = str(source.get("commit", source["sha256"]))[:9]
        shop = recipes.Workshop(root, toolchain, jobs, build_log, commit)
        flags = recipes.carry_out(recipe, backend, shop)
        with bundle.complete(destination) as made:
            recipes.collect(recipe["collect"], root, made)
            libraries = backend.get("requires", {}).get("libraries", ())
            elf.check_bundle(made, target=toolchain.target, required=required, libraries=libraries)
            bundle.write_manifest(
                made, name=destination.name, toolchain=toolchain, flags=flags, source=source
            )


def _bring(origin: Path, source: Mapping[str, Any], recipe: Mapping[str, Any], root: Path) -> None:
    """Put the sources into the folder of the build."""
    whole = root / "archive"
    if source.get("kind") == "directory":
        actual = copy_tree(origin, whole)
        if actual != source["sha256"]:
            raise IntegrityError(
                f"the source tree has the hash {actual}, expected {source['sha256']}",
                where=str(origin),
                do="If it was changed while it was copied, start again; else correct or remove its sha256 in "
                "the table of frameworks",
            )
    else:
        unpack(origin, whole)
        _check_commit(whole, recipe, source)
    subfolder = recipe.get("subfolder", ".")
    inner = whole / subfolder
    if not inner.resolve().is_relative_to(whole.resolve()):
        raise ConfigError(
            f"the folder of the sources {subfolder!r} is not within them",
            where="build.subfolder",
            do="Name a folder of the archive or tree",
        )
    if not inner.is_dir():
        raise ProvisionError(
            f"the sources have no folder {subfolder}",
            where=str(origin),
            do="Correct `subfolder` of its build, `.` for all of it",
        )
    shutil.move(inner.resolve(), root / "source")


def _check_commit(folder: Path, recipe: Mapping[str, Any], source: Mapping[str, Any]) -> None:
    """Check the recorded upstream commit against the archive's own change log, where it names one."""
    name = recipe.get("change_log")
    if not name:
        return
    if not (folder / name).is_file():
        raise ProvisionError(
            f"the archive has no change log {name}",
            where=f"{source['project']} {source['version']}",
            do="Correct or remove `change_log` of its build",
        )
    text = (folder / name).read_text(errors="replace")
    section = text.partition(f"## [{source['version']}]")[2].partition("\n## [")[0]
    words = section.replace("/", " ").replace("@", " ").replace(")", " ").split()
    commits = [word for word in words if len(word) >= 7 and all(c in "0123456789abcdef" for c in word)]
    if commits and not any(source["commit"].startswith(c) or c.startswith(source["commit"]) for c in commits):
        raise IntegrityError(
            f"the archive says that it holds commit {commits[0]}, the catalogue says {source['commit']}",
            where=f"{name} of {source['project']} {source['version']}",
            do="Correct the commit in config/frameworks.yaml",
        )
