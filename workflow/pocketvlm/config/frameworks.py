"""The table of frameworks: read, laid over by a user's own tables, and checked against itself."""

from __future__ import annotations

import copy
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pocketvlm.build.recipes import check_word
from pocketvlm.config import apps
from pocketvlm.config.schema import load_yaml
from pocketvlm.errors import ConfigError
from pocketvlm.frameworks import ADAPTERS
from pocketvlm.weights.formats import located

Table = dict[str, dict[str, Any]]
# The parts of a framework whose entries a user's table adds or replaces one by one.
_BY_ENTRY = ("versions", "backends", "build")


def load(table: Path, overlays: Sequence[Path] = ()) -> Table:
    """Return the table of frameworks with the users' own laid over it.

    An overlay has the table's shape and may leave out what it does not change. It replaces whole entries: a
    version, a backend, a key of `build`, the adapter. Relative paths go from the folder of the file that
    names them.

    Args:
        table: the table.
        overlays: users' tables.

    Raises:
        ConfigError: a file is none, or the result contradicts itself; two overlays disagree.
    """
    merged = _read(table)
    said: dict[tuple[str, ...], Path] = {}
    for overlay in overlays:
        for name, entry in _read(overlay).items():
            _merge(merged.setdefault(name, {}), entry, name, overlay, said)
    where = ", ".join(map(str, (table, *overlays)))
    for name, entry in merged.items():
        _check(name, entry, where)
    return merged


def _read(path: Path) -> Table:
    table = load_yaml(path, "frameworks")
    for entry in table.values():
        for version in entry.get("versions", {}).values():
            source = version.get("source", {})
            for named in (source, *source.get("targets", {}).values()):
                if "path" in named:
                    named["path"] = str(located(named["path"], path.parent))
            if "app" in version:
                _read_app(version["app"], path)
    return table


def _read_app(app: dict[str, Any], path: Path) -> None:
    if isinstance(apk := app.get("apk"), dict) and isinstance(apk.get("path"), str):
        apk["path"] = str(located(apk["path"], path.parent))


def _merge(
    into: dict[str, Any],
    entry: Mapping[str, Any],
    name: str,
    overlay: Path,
    said: dict[tuple[str, ...], Path],
) -> None:
    def put(place: dict[str, Any], key: str, value: Any, *above: str) -> None:
        path = (name, *above, key)
        if path in said and place[key] != value:
            raise ConfigError(
                f"{said[path]} and {overlay} say different things of {'.'.join(path)}",
                where=str(overlay),
                do="Remove it from one of the two, or give only one of the files",
            )
        said[path] = overlay
        place[key] = copy.deepcopy(value)

    for key, value in entry.items():
        if key in _BY_ENTRY:
            for part, its in value.items():
                put(into.setdefault(key, {}), part, its, key)
        else:
            put(into, key, value)


def recipe(entry: Mapping[str, Any], version: str) -> dict[str, Any]:
    """Return how a version of a framework is built: the framework's `build` with the version's own keys."""
    return {**entry.get("build", {}), **entry["versions"][version].get("build", {})}


def _check(name: str, entry: Mapping[str, Any], where: str) -> None:
    for part in ("versions", "backends"):
        if not entry.get(part):
            raise ConfigError(
                f"the framework {name} has no {part}", where=f"{where}: {name}", do=f"Add {part}"
            )
    adapter = entry.get("adapter")
    if adapter is not None and adapter not in ADAPTERS:
        raise ConfigError(
            f"unknown framework adapter {adapter!r}",
            where=f"{where}: {name}.adapter",
            do=f"Use one of: {', '.join(sorted(ADAPTERS))}",
        )
    for version, about in entry["versions"].items():
        place = f"{where}: {name}.versions.{version}"
        if sum(key in about for key in ("source", "app", "unprovisioned")) != 1:
            raise ConfigError(
                f"the version {version} of {name} must have a source, an app or a reason why it has neither",
                where=place,
                do="Give `source`, or `app`, or `unprovisioned` with the reason, and one of them only",
            )
        if ("app" in about) != (adapter == apps.ADAPTER) and "unprovisioned" not in about:
            raise ConfigError(
                f"{name} has the adapter {adapter} and its version {version} "
                f"{'an' if 'app' in about else 'no'} app",
                where=place,
                do=f"Give what is driven through its app `adapter: {apps.ADAPTER}`, and its versions `app`",
            )
        if "app" in about:
            apps.check(about["app"], where=f"{place}.app")
        if "source" not in about:
            continue
        if adapter is None:
            raise ConfigError(
                f"{name} has a source and no adapter that could run it",
                where=f"{where}: {name}",
                do=f"Add adapter: one of {', '.join(sorted(ADAPTERS))}",
            )
        _check_source(about["source"], recipe(entry, version), place)


# What each tool's recipe must say.
_NEEDED = {
    "cmake": ("targets", "collect"),
    "command": ("steps", "collect"),
}


def _check_source(source: Mapping[str, Any], build: Mapping[str, Any], place: str) -> None:
    if source["kind"] == "wheel":
        return
    if source["kind"] == "prebuilt":
        one, each = {"path", "sha256"} <= set(source), "targets" in source
        if one == each or (each and {"path", "sha256"} & set(source)):
            raise ConfigError(
                "prebuilt binaries need path and sha256, once or for each target",
                where=f"{place}.source",
                do="Give path and sha256, or targets: {<target>: {path: …, sha256: …}}",
            )
        return
    tool = build.get("tool", "cmake")
    lacking = [key for key in _NEEDED[tool] if key not in build]
    if lacking:
        raise ConfigError(
            f"the recipe to build it with {tool} lacks {', '.join(lacking)}",
            where=f"{place}.build",
            do="Add it there, or to the framework's own build",
        )
    for number, step in enumerate(build.get("steps", ())):
        for word in step:
            check_word(word, f"{place}.build.steps.{number}")


def without_python(entry: Mapping[str, Any], version: str, device_kind: str) -> str | None:
    """Return why a kind of device cannot run a version that is a Python wheel; None when it can.

    A wheel is made for an interpreter and a C library that Android has not.
    """
    if entry["versions"][version]["source"]["kind"] != "wheel" or device_kind == "local":
        return None
    return f"version {version} is a Python wheel, and {device_kind} devices have no Python that could run it"


def missing(entry: Mapping[str, Any], version: str, target: str) -> str | None:
    """Return why a version of a framework cannot be had for a target as things are; None when it can.

    Args:
        entry: the framework's.
        version: one of its versions.
        target: what it is to run on.
    """
    about = entry["versions"][version]
    if "unprovisioned" in about:
        return str(about["unprovisioned"])
    if "app" in about:
        return None
    source = about["source"]
    if source["kind"] == "sdist":
        return None
    named = source.get("targets", {}).get(target) if "targets" in source else source
    if named is None:
        known = ", ".join(sorted(source["targets"]))
        return (
            f"version {version} has no binaries for {target}, only for {known}: add them to its source, or "
            "give the backend `driver: true` if they are for the device's driver_target"
        )
    if source["kind"] == "wheel":
        return None
    trees = source["kind"] == "directory"
    why = _not_there(Path(named["path"]), folder=trees)
    if why is None:
        return None
    what = "source tree" if trees else "folder or archive of binaries"
    # The reason stands in tables that are sent to others: it tells a name and no folder.
    return f"the {what} of version {version}, {Path(named['path']).name}, {why}"


def _not_there(path: Path, *, folder: bool) -> str | None:
    """Return why a path is no folder, or neither file nor folder, and what to do; None when it is."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return "does not exist: put it there or correct its path"
    except OSError as error:
        return f"cannot be reached ({error.strerror}): let it be read or correct its path"
    if folder and not stat.S_ISDIR(mode):
        return "is no folder: unpack it, and name its folder"
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        return "is neither a folder nor a file: correct its path"
    return None
