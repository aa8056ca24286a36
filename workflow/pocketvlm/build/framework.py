"""A framework compiled with CMake for a target, from its pinned source archive."""

from __future__ import annotations

import logging
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pocketvlm.build import bundle
from pocketvlm.build.requires import provide
from pocketvlm.build.toolchains import Toolchain
from pocketvlm.errors import IntegrityError, ProvisionError
from pocketvlm.provision.archive import unpack

log = logging.getLogger(__name__)

TOOLCHAIN_FILE = "CMAKE_TOOLCHAIN_FILE"


def build_framework(
    *,
    archive: Path,
    source: Mapping[str, Any],
    recipe: Mapping[str, Any],
    backend: Mapping[str, Any],
    toolchain: Toolchain,
    destination: Path,
    jobs: int,
    build_log: Path,
    backend_name: str = "cpu",
    host: Callable[[], Toolchain] | None = None,
) -> None:
    """Compile a framework and gather its bundle.

    Args:
        archive: the source archive.
        source: its pin: project, version, sha256, commit.
        recipe: `build` of its catalogue entry: subfolder, targets, collect, options, processors.
        backend: the backend's entry: options, collect, requires.
        toolchain: what compiles for the target.
        destination: the bundle's folder; complete with its manifest, or absent.
        jobs: compilations at a time.
        build_log: where the output of CMake and the compilers goes.
        backend_name: the backend, for messages.
        host: gives the toolchain of this machine, for a backend whose build makes programs that it runs.

    Raises:
        IntegrityError: the archive is not what its pin says.
        ProvisionError: a step of the build failed, or a file to collect was not built.
    """
    tools = Path(sys.executable).parent
    options = {
        **{name: _filled(value, source) for name, value in recipe["options"].items()},
        **recipe["processors"].get(toolchain.processor, {}),
        **backend.get("options", {}),
        **toolchain.cmake,
    }
    with bundle.workplace(destination) as root:
        unpack(archive, root / "archive")
        _check_commit(root / "archive", recipe, source)
        shutil.move(root / "archive" / recipe["subfolder"], root / "source")
        provided = provide(
            backend.get("requires", {}), backend=backend_name, toolchain=toolchain, root=root, host=host
        )
        flags = _flags(toolchain, root)
        compilers = _wrappers(toolchain, root / "compilers")
        configure = [
            *(str(tools / "cmake"), "-G", "Ninja", "-S", "source", "-B", "build"),
            f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}",
            *(f"-D{name}={provided.fill(value)}" for name, value in sorted({**options, **compilers}.items())),
            *(f"-DCMAKE_{name}={shlex.join(words)}" for name, words in flags.items()),
        ]
        env = bundle.environment(toolchain, root, tools)
        build_log.unlink(missing_ok=True)
        log.info("configuring %s %s for %s", source["project"], source["version"], toolchain.target)
        bundle.run(configure, log=build_log, env=env, cwd=root, what="configuring the build")
        log.info("compiling %s, the log is %s", ", ".join(recipe["targets"]), build_log)
        compile_ = [str(tools / "ninja"), "-C", "build", "-j", str(jobs), *recipe["targets"]]
        bundle.run(compile_, log=build_log, env=env, cwd=root, what="the build")
        with bundle.complete(destination) as made:
            for name, built in {**recipe["collect"], **backend.get("collect", {})}.items():
                _collect(root / "build" / built, made / name)
            provided.take_along(made)
            bundle.write_manifest(
                made,
                name=destination.name,
                toolchain=toolchain,
                flags={
                    "c": list(toolchain.c_flags),
                    "cxx": list(toolchain.cxx_flags),
                    "link": list(toolchain.link_flags),
                    # Where the NDK lies is nothing that its release does not say.
                    "cmake": {name: options[name] for name in sorted(options) if name != TOOLCHAIN_FILE},
                },
                # What was found for it besides; nothing for most.
                source={**source, **({"requires": provided.record} if provided.record else {})},
            )


def _filled(value: str, source: Mapping[str, Any]) -> str:
    return value.replace("{commit}", source["commit"][:9])


def _check_commit(folder: Path, recipe: Mapping[str, Any], source: Mapping[str, Any]) -> None:
    """Check the recorded upstream commit against the archive's own change log, where it names one."""
    name = recipe.get("change_log")
    if not name:
        return
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


def _flags(toolchain: Toolchain, root: Path) -> dict[str, tuple[str, ...]]:
    """Compiler flags by CMake variable; paths in messages and assertions lose the folder of this build."""
    mapped = (f"-ffile-prefix-map={root}/source=.", f"-ffile-prefix-map={root}/build=build")
    return {
        "C_FLAGS": (*toolchain.c_flags, *mapped),
        "CXX_FLAGS": (*toolchain.cxx_flags, *mapped),
        "EXE_LINKER_FLAGS": toolchain.link_flags,
    }


def _wrappers(toolchain: Toolchain, folder: Path) -> dict[str, str]:
    """Write one program a tool, because CMake wants each to be a single path; return its variables.

    A toolchain with a CMake file of its own (the NDK) needs none.
    """
    if TOOLCHAIN_FILE in toolchain.cmake:
        return {}
    folder.mkdir()
    tools = {
        "C_COMPILER": toolchain.cc,
        "CXX_COMPILER": toolchain.cxx,
        "AR": toolchain.ar,
        "RANLIB": toolchain.ranlib,
    }
    variables = {}
    for name, command in tools.items():
        path = folder / name.lower()
        path.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        path.chmod(0o755)
        variables[f"CMAKE_{name}"] = str(path)
    return variables


def _collect(built: Path, target: Path) -> None:
    if not built.is_file():
        raise ProvisionError(
            f"the build made no {built.name}",
            where="config/frameworks.yaml: build.collect",
            do="Correct the list of files to collect, or the list of targets",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(built, target)
    target.chmod(0o755)
