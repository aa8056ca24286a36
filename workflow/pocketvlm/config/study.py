"""The resolved experiment: every cell with what it is made of, and the catalogues it refers to."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pocketvlm import frameworks as adapters
from pocketvlm.build.toolchains import host_driver_target, host_target
from pocketvlm.config import frameworks
from pocketvlm.config.availability import Needs, unavailable
from pocketvlm.config.paper import load_paper
from pocketvlm.config.protocol import check_protocol
from pocketvlm.config.schema import load_yaml, suggest, validate
from pocketvlm.config.tuned import applied
from pocketvlm.errors import ConfigError
from pocketvlm.frameworks.settings import affinity, resolve
from pocketvlm.provenance import sha256_json
from pocketvlm.weights import formats
from pocketvlm.weights.lock import load_lock, lock_path

_AXES = ("device", "version", "backend", "model", "quantisation", "workload")


@dataclass(frozen=True)
class Cell:
    """One column of a table: device x build x model/quantisation x workload x settings.

    Attributes:
        stack: the paper's stack that it stands for, None for none; no part of its id.
        unavailable: why it cannot be measured as things are, None when it can; no part of its id.
    """

    device: str
    framework: str
    version: str
    backend: str
    model: str
    quantisation: str
    workload: str
    settings: Mapping[str, Any]
    target: str
    stack: str | None = None
    unavailable: str | None = None

    @property
    def bundle(self) -> str:
        """Name of the bundle that it runs: framework, version, backend and target."""
        return f"{self.framework}-{self.version}-{self.backend}-{self.target}"

    @property
    def id(self) -> str:
        """A readable name and eight hex digits of everything that defines the cell."""
        definition = {axis: getattr(self, axis) for axis in (*_AXES, "framework")}
        key = sha256_json({**definition, "settings": dict(self.settings)})[:8]
        return (
            f"{self.device}.{self.framework}-{self.version}-{self.backend}."
            f"{self.model}-{self.quantisation}.{self.workload}-{key}"
        )

    @property
    def settings_text(self) -> str:
        """The settings as one line for tables: `threads=2 batch=512`."""
        return " ".join(f"{name}={value}" for name, value in sorted(self.settings.items()))


@dataclass(frozen=True)
class Study:
    """An experiment and the catalogues that it refers to, checked against each other."""

    name: str
    experiment: Mapping[str, Any]
    cells: tuple[Cell, ...]
    devices: Mapping[str, Mapping[str, Any]]
    workloads: Mapping[str, Mapping[str, Any]]
    models: Mapping[str, Mapping[str, Any]]
    frameworks: Mapping[str, Mapping[str, Any]]
    toolchains: Mapping[str, Mapping[str, Any]]
    analysis: Mapping[str, Any]
    paths: Mapping[str, Path] = field(default_factory=dict)

    @property
    def rows_for_absent(self) -> bool:
        """Whether a cell that cannot be measured is a row with the reason instead of an error."""
        return bool(self.experiment.get("absent", "refuse") == "row")

    def cells_of(self, device: str) -> tuple[Cell, ...]:
        """The cells of one device, in the order of the experiment."""
        return tuple(cell for cell in self.cells if cell.device == device)

    def without(self, absent: Mapping[str, str]) -> Study:
        """Return this study with the cells of some devices unavailable: the reason by device.

        A cell that has a reason of its own keeps it and gets the device's besides.
        """

        def reasoned(cell: Cell) -> Cell:
            reasons = [text for text in (cell.unavailable, absent.get(cell.device)) if text]
            return replace(cell, unavailable="; ".join(reasons) or None)

        return replace(self, cells=tuple(reasoned(cell) for cell in self.cells))

    def records(self) -> dict[str, Any]:
        """What `cells.json` holds: the resolved experiment as plain values."""
        return {
            "format": 1,
            "experiment": self.name,
            "title": self.experiment["title"],
            "repeats": self.experiment["repeats"],
            "warmups": self.experiment["warmups"],
            "paper": self.experiment.get("paper"),
            "state": dict(self.experiment.get("state", {})),
            "cells": [
                {
                    "cell": cell.id,
                    "device": cell.device,
                    "device_kind": self.devices[cell.device]["kind"],
                    "framework": cell.framework,
                    "version": cell.version,
                    "backend": cell.backend,
                    "build": cell.bundle,
                    "adapter": self.frameworks[cell.framework].get("adapter"),
                    "model": cell.model,
                    "weights_kind": self.models[cell.model]["kind"],
                    "quantisation": cell.quantisation,
                    "workload": cell.workload,
                    "settings": cell.settings_text,
                    "stack": cell.stack,
                    "unavailable": cell.unavailable,
                    **_expected(self.workloads[cell.workload]),
                    **_statistics(self.frameworks[cell.framework]["versions"][cell.version]),
                }
                for cell in self.cells
            ],
        }


def load(config: Mapping[str, Any], root: Path = Path(), *, here: bool = True) -> Study:
    """Resolve the experiment that the configuration names.

    Args:
        config: the merged configuration of Snakemake.
        root: the folder that the catalogues' paths are relative to.
        here: whether its cells are to be measured here, so that one that cannot be has its reason.

    Raises:
        ConfigError: a key, a name or a value is wrong; the message names the file, the key and the fix.
    """
    validate(dict(config), "config", where="config/config.yaml or --config")
    paths = {name: root / value for name, value in config["catalogues"].items() if isinstance(value, str)}
    name = config["experiment"]
    experiment = load_yaml(_named(paths["experiments"], name, "experiment"), "experiment")
    tables = {table: load_yaml(paths[table], table) for table in ("models", "toolchains")}
    tables["frameworks"] = frameworks.load(paths["frameworks"], overlays(config))
    where = str(paths["experiments"] / f"{name}.yaml")
    check_protocol(experiment, where)
    experiment = applied(experiment, config.get("tuned"), root, where)
    stacks = _stacks(paths["papers"], experiment, where)
    lock = load_lock(lock_path(paths["models"]))
    devices: dict[str, Mapping[str, Any]] = {}
    workloads: dict[str, Mapping[str, Any]] = {}
    cells: list[Cell] = []
    for number, entry in enumerate(experiment["cells"]):
        for values in _product(entry):
            place = f"{where}: cells.{number}"
            device = values["device"]
            if device not in devices:
                devices[device] = _device(paths["devices"], device, place, tables["toolchains"])
            if values["workload"] not in workloads:
                workloads[values["workload"]] = _workload(paths["workloads"], values["workload"], place)
            _check_names(values, tables, place)
            if values["stack"] is not None:
                _entry(stacks, values["stack"], f"{place}.stack", "stack of the paper")
            cell = Cell(**values, target=_target(devices[device], values, tables, place))
            if here:
                needs = Needs(tables, lock, workloads[cell.workload], paths["models"].parent, devices[device])
                reason = unavailable(cell, needs, place, rows=experiment.get("absent") == "row")
                cell = replace(cell, unavailable=reason)
            cells.append(cell)
    if "device" in config and config["device"] not in devices:
        # One to be inspected, which no cell needs.
        chosen = config["device"]
        devices[chosen] = _device(paths["devices"], chosen, "--config", tables["toolchains"])
    _refuse_twins(cells, where)
    return Study(
        name=name,
        experiment=experiment,
        cells=tuple(cells),
        devices=devices,
        workloads=workloads,
        models=tables["models"],
        frameworks=tables["frameworks"],
        toolchains=tables["toolchains"],
        analysis=config["analysis"],
        paths=paths,
    )


def _expected(workload: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a cell's answer is checked for, where its workload says so."""
    words = workload.get("expected_words")
    return {"expected_words": list(words)} if words else {}


def _statistics(version: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an app's numbers are found by, where the version is an app that shows some."""
    found = version.get("app", {}).get("statistics")
    return {"statistics": found} if found else {}


# Names of catalogue files become parts of file names, of wildcards and of rows of tables.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


def _named(folder: Path, name: str, what: str) -> Path:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"the {what} {name!r} has a name that no file here may have",
            where=str(folder),
            do="Use up to 80 letters, digits and ._- of which the first is a letter or digit",
        )
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = [entry.stem for entry in folder.glob("*.yaml")]
        raise ConfigError(f"the {what} {name!r} is not known", where=str(folder), do=suggest(name, known))
    return path


def _stacks(folder: Path, experiment: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Return the stacks of the experiment's paper by id; none without a paper."""
    if "paper" not in experiment:
        return {}
    path = _known(folder, experiment["paper"], "paper", where)
    return {stack.id: {"model": stack.model} for stack in load_paper(path).stacks}


def overlays(config: Mapping[str, Any]) -> list[Path]:
    """Return the users' own tables of frameworks: of `--config frameworks=…`, and of the configuration.

    Args:
        config: `frameworks` (paths with commas between them) and `catalogues.frameworks_overlay` (one or a
            list) of it, relative to the working directory.
    """
    named = [name.strip() for name in str(config.get("frameworks", "")).split(",")]
    more = config["catalogues"].get("frameworks_overlay", [])
    every = (*([more] if isinstance(more, str) else more), *named)
    return [formats.located(name, Path()) for name in every if name]


def _device(
    folder: Path, name: str, place: str, toolchains: Mapping[str, Mapping[str, Any]]
) -> Mapping[str, Any]:
    path = _known(folder, name, "device", place)
    device = load_yaml(path, "device")
    targets = [target for toolchain in toolchains.values() for target in toolchain["targets"]]
    for key, host in (("target", host_target), ("driver_target", host_driver_target)):
        if device.get(key) == "host":
            device = {**device, key: host()}
        if device.get(key, targets[0]) not in targets:
            raise ConfigError(
                f"no toolchain compiles for the target {device[key]!r}",
                where=f"{path}: {key}",
                do=suggest(device[key], targets),
            )
    if device["id"] != name:
        raise ConfigError(
            f"the file is named {name} and its id is {device['id']!r}",
            where=f"{path}: id",
            do="Give both the same name",
        )
    return device


def _target(
    device: Mapping[str, Any],
    values: Mapping[str, Any],
    tables: Mapping[str, Mapping[str, Any]],
    place: str,
) -> str:
    """Return what a cell's program is compiled for: another target where it loads a driver of the device.

    Raises:
        ConfigError: the device's file does not say what that is.
    """
    backend = tables["frameworks"][values["framework"]]["backends"][values["backend"]]
    if not backend.get("driver"):
        return str(device["target"])
    if "driver_target" not in device:
        raise ConfigError(
            f"the backend {values['backend']} loads a driver of the device, and {device['id']} names none",
            where=f"{place}.backend",
            do=f"Choose another device, or give {device['id']} a driver_target such as aarch64-linux-android",
        )
    return str(device["driver_target"])


def _workload(folder: Path, name: str, place: str) -> Mapping[str, Any]:
    path = _known(folder, name, "workload", place)
    workload = load_yaml(path, "workload")
    image = folder / workload["image"]
    if not image.is_file():
        raise ConfigError(
            f"the image {image} does not exist",
            where=f"{path}: image",
            do="Put the file there or correct the name",
        )
    return {**workload, "id": name, "image_path": str(image)}


def _known(folder: Path, name: str, what: str, place: str) -> Path:
    try:
        return _named(folder, name, what)
    except ConfigError as error:
        raise ConfigError(error.what, where=f"{place}.{what}", do=error.do) from None


def _product(entry: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    settings = entry["settings"]
    axes = [entry[axis] if isinstance(entry[axis], list) else [entry[axis]] for axis in _AXES]
    setting_axes = [value if isinstance(value, list) else [value] for value in settings.values()]
    for values in itertools.product(*axes):
        for chosen in itertools.product(*setting_axes):
            yield {
                **dict(zip(_AXES, values, strict=True)),
                "framework": entry["framework"],
                "stack": entry.get("stack"),
                "settings": dict(zip(settings, chosen, strict=True)),
            }


def _check_names(values: Mapping[str, Any], tables: Mapping[str, Mapping[str, Any]], place: str) -> None:
    framework = _entry(tables["frameworks"], values["framework"], f"{place}.framework", "framework")
    _entry(framework["versions"], values["version"], f"{place}.version", f"version of {values['framework']}")
    _entry(framework["backends"], values["backend"], f"{place}.backend", f"backend of {values['framework']}")
    model = _entry(tables["models"], values["model"], f"{place}.model", "model")
    if "adapter" not in framework:
        # Its weights' formats and its own settings are known to nobody yet.
        affinity(values["settings"], where=f"{place}.settings")
        return
    resolve(framework["adapter"], values["settings"], where=f"{place}.settings")
    known = list(model["quantisations"])
    if adapters.command(framework["adapter"]).WEIGHTS != formats.GGUF:
        return  # a quantisation that nobody gives is a reason of its own, with what to do
    if values["quantisation"] not in known:
        raise ConfigError(
            f"the quantisation {values['quantisation']!r} of {values['model']} is not known",
            where=f"{place}.quantisation",
            do=suggest(values["quantisation"], known),
        )


def _entry(table: Mapping[str, Any], name: str, place: str, what: str) -> Mapping[str, Any]:
    if name not in table:
        raise ConfigError(f"the {what} {name!r} is not known", where=place, do=suggest(name, list(table)))
    entry = table[name]
    assert isinstance(entry, Mapping)
    return entry


def _refuse_twins(cells: list[Cell], where: str) -> None:
    seen: set[str] = set()
    for cell in cells:
        if cell.id in seen:
            raise ConfigError(
                f"the cell {cell.id} is listed twice",
                where=f"{where}: cells",
                do="Remove one of the two entries",
            )
        seen.add(cell.id)
