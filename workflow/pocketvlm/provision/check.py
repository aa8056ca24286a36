"""What is there of each framework, what is missing, and what to do: for `snakemake check_frameworks`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pocketvlm import frameworks as adapters
from pocketvlm.build import requires
from pocketvlm.build.toolchains import resolve
from pocketvlm.config.frameworks import missing
from pocketvlm.errors import PocketvlmError
from pocketvlm.provenance import sha256_file
from pocketvlm.provision import sources
from pocketvlm.provision.prebuilt import take_prebuilt
from pocketvlm.provision.tree import reading
from pocketvlm.weights import formats

Lines = Iterator[str]
THERE, LACKING = "ok", "MISSING"


def check_frameworks(
    frameworks: Mapping[str, Any],
    models: Mapping[str, Any],
    toolchains: Mapping[str, Any],
    *,
    targets: Sequence[str],
    driver_targets: Sequence[str],
    models_folder: Path,
    results: Path,
) -> Lines:
    """Give the lines of the check, one a fact, each with `ok` or `MISSING` and what to do.

    Args:
        frameworks, models, toolchains: the tables.
        targets: what to look for: those of the experiment's devices, and this machine's.
        driver_targets: the same for the backends that load a driver.
        models_folder: that of the table of models.
        results: folder of results.
    """
    for name, entry in sorted(frameworks.items()):
        adapter = entry.get("adapter")
        command = adapters.command(adapter) if adapter else None
        yield f"{name}: adapter {adapter or 'none'}, backends {', '.join(sorted(entry['backends']))}"
        if command:
            needs = f"its bundle needs {', '.join(command.REQUIRED) or 'nothing in particular'}"
            optional = f", and may have {', '.join(command.OPTIONAL)}" if command.OPTIONAL else ""
            yield f"  {needs}{optional}; weights: {command.WEIGHTS} ({', '.join(command.ROLES)})"
        for version, about in entry["versions"].items():
            yield f"  {version}:"
            if "unprovisioned" in about:
                yield _line(LACKING, str(about["unprovisioned"]))
                continue
            if "app" in about:
                yield _line(*_app(about["app"]))
                continue
            for target in sorted({*targets, *driver_targets}):
                backends = {
                    backend: its
                    for backend, its in entry["backends"].items()
                    if target in (driver_targets if its.get("driver") else targets)
                }
                if backends:
                    part = {**entry, "backends": backends}
                    yield from _target(name, part, version, target, toolchains, results, command)
        if command and command.ROLES and command.WEIGHTS != formats.GGUF:
            yield from _weights(models, command, models_folder)


def _app(app: Mapping[str, Any]) -> tuple[str, str]:
    """Return whether an app's file is there, and what it is."""
    if "apk" not in app:
        return THERE, f"app {app['package']} {app['version_name']}, to be installed on the phone by hand"
    path, expected = Path(app["apk"]["path"]), app["apk"]["sha256"]
    try:
        with reading(path):
            actual = sha256_file(path) if path.is_file() else None
    except PocketvlmError as error:
        return LACKING, f"app {app['package']}: {error}"
    if actual != expected:
        what = f"has sha256 {actual}, NOT the expected {expected}" if actual else "does not exist"
        return LACKING, f"app {app['package']}: {path} {what}"
    return THERE, f"app {app['package']}: {path.name}, sha256 {actual}"


def _line(what: str, text: str) -> str:
    return f"    {what}: {text}"


def _target(
    name: str,
    entry: Mapping[str, Any],
    version: str,
    target: str,
    toolchains: Mapping[str, Any],
    results: Path,
    command: adapters.Command | None,
) -> Lines:
    source = entry["versions"][version]["source"]
    reason = missing(entry, version, target)
    if reason is not None:
        path = sources.origin(source, target) if target in source.get("targets", {target}) else None
        yield _line(LACKING, f"{target}: {reason}{f' ({path})' if path else ''}")
        return
    required = command.REQUIRED if command else ()
    try:
        about = sources.pinned(source, target)
        if source["kind"] == sources.PREBUILT:
            recipe = sources.recipe_of(entry, version)
            for backend, its in sorted(entry["backends"].items()):
                _look_into(sources.origin(source, target), about, target, required, recipe, its, backend)
            yield _line(THERE, f"{target}: binaries {about['name']}, sha256 {about['sha256']}")
            return
        if source["kind"] == sources.WHEEL:
            yield _line(THERE, f"{target}: {about['file']} of the package index, sha256 {about['sha256']}")
        else:
            tool = resolve(_of(toolchains, target), target)
            state, told = _told(source, about, target)
            if state == LACKING:
                yield _line(LACKING, f"{target}: {told}")
                return
            yield _line(THERE, f"{target}: {told}, built with {tool.name} {tool.version}")
    except PocketvlmError as error:
        yield _line(LACKING, f"{target}: {error}")
        return
    for backend, its in sorted(entry["backends"].items()):
        bundle = results / "bundles" / f"{name}-{version}-{backend}-{target}"
        lacking = requires.lacking(
            its.get("requires", {}), backend=backend, version=version, target=target, toolchains=toolchains
        )
        if (bundle / "manifest.json").is_file():
            yield f"      {bundle.name}: built"
        elif lacking is not None:
            yield f"      {bundle.name}: {LACKING}: {lacking}"
        else:
            yield f"      {bundle.name}: not built yet; an experiment with it builds it"


def _look_into(
    path: Path | None,
    about: Mapping[str, Any],
    target: str,
    required: Sequence[str],
    recipe: Mapping[str, Any],
    backend: Mapping[str, Any],
    name: str,
) -> None:
    """Make a bundle of binaries for a moment, so that the check is that of the job that takes them."""
    assert path is not None
    with tempfile.TemporaryDirectory(prefix="pocketvlm-") as folder:
        take_prebuilt(
            origin=path,
            source=about,
            target=target,
            destination=Path(folder) / f"{about['name']}-{name}",
            required=required,
            collect=recipe.get("collect"),
            libraries=backend.get("requires", {}).get("libraries", ()),
        )


def _of(toolchains: Mapping[str, Any], target: str) -> dict[str, Any]:
    return {
        name: {**entry, "targets": {target: entry["targets"][target]}}
        for name, entry in toolchains.items()
        if target in entry["targets"]
    }


def _told(source: Mapping[str, Any], about: Mapping[str, Any], target: str) -> tuple[str, str]:
    """Return whether a version's sources can be built, and what they are."""
    if source["kind"] == sources.SDIST:
        archive = f"archive {about['project']} {about['version']} of the package index"
        return THERE, f"{archive}, sha256 {about['sha256']}"
    actual, path = sources.tree(source, target), sources.origin(source, target)
    if actual != about["sha256"]:
        return LACKING, f"source tree {path}, whose hash is {actual} and NOT the expected {about['sha256']}"
    return THERE, f"source tree {path}, hash {actual}"


def _weights(models: Mapping[str, Any], command: adapters.Command, folder: Path) -> Lines:
    """Give the models that have weights in a framework's format, and what those lack."""
    found = False
    for model, entry in sorted(models.items()):
        known = formats.quantisations(entry, command.WEIGHTS)
        about = entry.get("formats", {}).get(command.WEIGHTS)
        if about and not known:
            found = True
            yield f"  weights {LACKING}: {model}: {about.get('unprovisioned', 'no quantisation is given')}"
        for quantisation in known:
            found = True
            reason = formats.unavailable(
                model,
                entry,
                quantisation,
                weights_format=command.WEIGHTS,
                roles=command.ROLES,
                folder=folder,
            )
            sources_given = formats.given(entry, command.WEIGHTS, quantisation)
            places = [str(formats.located(role["path"], folder)) for role in sources_given.values()]
            told = reason or f"{model} at {quantisation}"
            where = ", ".join(places) or "made here from its GGUF files"
            yield f"  weights {LACKING if reason else THERE}: {told} ({where})"
    if not found:
        role = command.ROLES[0] if command.ROLES else "<role>"
        shape = f"formats: {{{command.WEIGHTS}: {{<QUANTISATION>: {{{role}: {{path: …, sha256: …}}}}}}}}"
        yield (
            f"  weights {LACKING}: no model gives {command.WEIGHTS} weights: add them to one of the table of "
            f"models as {shape}"
        )
