"""Recipes: how sources become programs, as data of the table of frameworks.

Two tools: `cmake` (options, targets) and `command` (programs that are run one after the other). Both work in
a folder of their own with the project's toolchain and nothing of what a person may have set.

    {source}  the sources, a copy          {cc} {cxx} {ar} {ranlib}  the toolchain's programs, one word each
    {build}   where the commands run       {cflags} {cxxflags} {ldflags}  its flags; as a whole word, one each
    {prefix}  an empty folder              {jobs}  compilations at a time
    {target}  what is compiled for         {commit}  the upstream commit, nine digits
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketvlm.build import bundle
from pocketvlm.build.toolchains import Toolchain
from pocketvlm.errors import ConfigError, ProvisionError

TOOLCHAIN_FILE = "CMAKE_TOOLCHAIN_FILE"
PLACES = ("source", "build", "prefix")
FLAGS = ("cflags", "cxxflags", "ldflags")
NAMES = (*PLACES, *FLAGS, "cc", "cxx", "ar", "ranlib", "jobs", "target", "commit")
# A shell's own ${name} is left to it.
_PLACEHOLDER = re.compile(r"(?<!\$)\{([a-z_]+)\}")
# What compilers and archivers write in the place of the time: 1980, the first that a zip archive can hold.
_EPOCH = "315532800"


@dataclass(frozen=True)
class Workshop:
    """Where and with what a recipe is carried out.

    Attributes:
        root: a folder of its own; the sources are in `source` below it.
        toolchain: what compiles for the target.
        jobs: compilations at a time.
        log: where the output of the tools goes.
        commit: what stands for `{commit}`.
    """

    root: Path
    toolchain: Toolchain
    jobs: int
    log: Path
    commit: str


def carry_out(recipe: Mapping[str, Any], backend: Mapping[str, Any], shop: Workshop) -> dict[str, Any]:
    """Build what a recipe says, in the workshop; return its flags for the manifest.

    Args:
        recipe: `build` of the table of frameworks.
        backend: the backend's entry: `options`.
        shop: where and with what.

    Raises:
        ProvisionError: a step of the build failed.
        ConfigError: a word holds a placeholder that does not exist.
    """
    shop.log.unlink(missing_ok=True)
    flags: dict[str, Any] = {
        "c": list(shop.toolchain.c_flags),
        "cxx": list(shop.toolchain.cxx_flags),
        "link": list(shop.toolchain.link_flags),
    }
    if recipe.get("tool", "cmake") == "command":
        _commands(recipe["steps"], shop)
        return {**flags, "steps": [f"{shlex.join(step)};" for step in recipe["steps"]]}
    return {**flags, "cmake": _cmake(recipe, backend, shop)}


def _cmake(recipe: Mapping[str, Any], backend: Mapping[str, Any], shop: Workshop) -> dict[str, str]:
    tools = Path(sys.executable).parent
    root, toolchain = shop.root, shop.toolchain
    options = {
        **{name: value.replace("{commit}", shop.commit) for name, value in recipe.get("options", {}).items()},
        **recipe.get("processors", {}).get(toolchain.processor, {}),
        **backend.get("options", {}),
        **toolchain.cmake,
    }
    compilers = {}
    if TOOLCHAIN_FILE not in toolchain.cmake:  # the NDK's file names its own
        programs = _wrappers(toolchain, root / "compilers")
        names = {"cc": "C_COMPILER", "cxx": "CXX_COMPILER", "ar": "AR", "ranlib": "RANLIB"}
        compilers = {f"CMAKE_{names[tool]}": path for tool, path in programs.items()}
    flags = _flags(toolchain, root)
    named = {"C_FLAGS": "cflags", "CXX_FLAGS": "cxxflags", "EXE_LINKER_FLAGS": "ldflags"}
    configure = [
        *(str(tools / "cmake"), "-G", "Ninja", "-S", "source", "-B", "build"),
        f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}",
        *(f"-D{name}={value}" for name, value in sorted({**options, **compilers}.items())),
        *(f"-DCMAKE_{name}={shlex.join(flags[kind])}" for name, kind in named.items()),
    ]
    env = bundle.environment(toolchain, root, tools)
    bundle.run(configure, log=shop.log, env=env, cwd=root, what="configuring the build")
    compile_ = [str(tools / "ninja"), "-C", "build", "-j", str(shop.jobs), *recipe["targets"]]
    bundle.run(compile_, log=shop.log, env=env, cwd=root, what="the build")
    # Where the NDK lies is nothing that its release does not say.
    return {name: options[name] for name in sorted(options) if name != TOOLCHAIN_FILE}


def _commands(steps: Sequence[Sequence[str]], shop: Workshop) -> None:
    tools = Path(sys.executable).parent
    root, toolchain = shop.root, shop.toolchain
    for name in ("build", "prefix", "home"):
        (root / name).mkdir()
    programs, flags = _wrappers(toolchain, root / "compilers"), _flags(toolchain, root)
    values = {
        **programs,
        **{place: str(root / place) for place in PLACES},
        **{name: shlex.join(words) for name, words in flags.items()},
        "jobs": str(shop.jobs),
        "target": toolchain.target,
        "commit": shop.commit,
    }
    env = {
        **bundle.environment(toolchain, root, tools),
        # What a build writes to a home folder, it writes here.
        "HOME": str(root / "home"),
        "SOURCE_DATE_EPOCH": _EPOCH,
        **{name.upper(): value for name, value in values.items() if name in (*programs, *FLAGS)},
    }
    for number, step in enumerate(steps, 1):
        words = [word for part in step for word in _filled(part, values, flags)]
        what = f"step {number} of {len(steps)} of the build ({Path(words[0]).name})"
        try:
            bundle.run(words, log=shop.log, env=env, cwd=root / "build", what=what)
        except (FileNotFoundError, PermissionError) as error:
            raise ProvisionError(
                f"{what} cannot be started: {error.strerror}",
                where=f"build.steps: {step[0]}",
                do="Correct the step's first word: a program of the system or of {source}, or a placeholder",
            ) from None


def _filled(word: str, values: Mapping[str, str], flags: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """Return a word of a step with its placeholders filled; one that is nothing but flags becomes several."""
    check_word(word, "build.steps")
    if word[1:-1] in flags and word == f"{{{word[1:-1]}}}":
        return flags[word[1:-1]]
    return [_PLACEHOLDER.sub(lambda match: values[match[1]], word)]


def check_word(word: str, where: str) -> None:
    """Raise ConfigError when a word of a recipe holds a placeholder that does not exist."""
    for name in _PLACEHOLDER.findall(word):
        if name not in NAMES:
            raise ConfigError(
                f"{{{name}}} in {word!r} stands for nothing",
                where=where,
                do=f"Use one of {', '.join(f'{{{known}}}' for known in NAMES)} (a shell's is ${{name}})",
            )


def _flags(toolchain: Toolchain, root: Path) -> dict[str, tuple[str, ...]]:
    """Compiler flags by placeholder; paths in messages and assertions lose the folder of this build."""
    mapped = (f"-ffile-prefix-map={root}/source=.", f"-ffile-prefix-map={root}/build=build")
    return {
        "cflags": (*toolchain.c_flags, *mapped),
        "cxxflags": (*toolchain.cxx_flags, *mapped),
        "ldflags": toolchain.link_flags,
    }


def _wrappers(toolchain: Toolchain, folder: Path) -> dict[str, str]:
    """Write one program a tool, because build systems want each to be a single path; return their paths."""
    folder.mkdir()
    paths = {}
    for name in ("cc", "cxx", "ar", "ranlib"):
        # Named as CMake writes them into what it compiles.
        path = folder / {"cc": "c_compiler", "cxx": "cxx_compiler"}.get(name, name)
        path.write_text(f'#!/bin/sh\nexec {shlex.join(getattr(toolchain, name))} "$@"\n')
        path.chmod(0o755)
        paths[name] = str(path)
    return paths


def collect(files: Mapping[str, str], root: Path, made: Path, *, default: str = "build") -> None:
    """Copy what was built into a bundle.

    Args:
        files: a file or folder of the bundle to what becomes it, a path below `default`, or one that begins
            with {source}, {build} or {prefix}.
        root: the folder that these are in.
        made: the bundle.
        default: where paths begin that say nothing else.

    Raises:
        ProvisionError: there is no such file.
        ConfigError: a path leaves these folders.
    """
    for name, given in files.items():
        match = re.match(r"\{(source|build|prefix)\}/?", given)
        base, path = (root / match[1], given[match.end() :]) if match else (root / default, given)
        built = base / path
        if not built.resolve().is_relative_to(root.resolve()):
            raise ConfigError(
                f"the file to collect {given!r} is not in the folder of the build",
                where=f"build.collect: {name}",
                do="Let a step copy it to {prefix}, and name it from there",
            )
        target = made / name
        if built.is_dir():
            parts = [part for part in sorted(built.rglob("*")) if part.is_file()]
            for part in parts:
                _copy(part, target / part.relative_to(built))
            if parts:
                continue
        if not built.is_file():
            raise ProvisionError(
                f"the build made no {built.name}",
                where=f"config/frameworks.yaml: build.collect: {name}",
                do="Correct the list of files to collect, or the targets or steps that make them",
            )
        _copy(built, target, program=name.startswith("bin/"))


def _copy(built: Path, target: Path, *, program: bool = False) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(built, target)
    target.chmod(0o755 if program or built.stat().st_mode & 0o100 else 0o644)
