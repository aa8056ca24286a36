"""The configuration of an experiment as it was resolved: written into an archive, and read from one."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from pocketvlm.config import study
from pocketvlm.config.schema import validate
from pocketvlm.errors import ConfigError, IntegrityError

CATALOGUES = ("models", "frameworks", "toolchains")
FOLDERS = ("experiments", "devices", "workloads")
MAX_CELLS = 10_000
MAX_REASON = 2000


class _Dumper(yaml.SafeDumper):
    """YAML without references: a reader need not follow any."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write equal objects out again each time."""
        return True


def written(resolved: study.Study) -> dict[str, str]:
    """Return the configuration of an experiment as the texts of files, by path in an archive.

    What only says how the sender reaches a phone (its serial) is left out, and what code is compiled for
    stands in the place of `host`. Of a file that only the sender has, its name is told and not its folder.
    """
    values: dict[str, Any] = {f"experiments/{resolved.name}": dict(resolved.experiment)}
    for name, device in resolved.devices.items():
        transport = {"transport": {**device["transport"], "serial": None}} if "transport" in device else {}
        values[f"devices/{name}"] = {**device, **transport}
    for name, workload in resolved.workloads.items():
        values[f"workloads/{name}"] = {
            key: value for key, value in workload.items() if key not in ("id", "image_path")
        }
    values |= {name: _nameless(dict(getattr(resolved, name))) for name in CATALOGUES}
    values["analysis"] = dict(resolved.analysis)
    return {
        f"config/{name}.yaml": yaml.dump(
            value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=120
        )
        for name, value in values.items()
    }


def _nameless(value: Any) -> Any:
    """Return a table with the folders taken out of what stands beside a sha256 or says where a source is."""
    if not isinstance(value, Mapping):
        return value
    found = {key: _nameless(each) for key, each in value.items()}
    if isinstance(value.get("path"), str):
        found["path"] = Path(value["path"]).name or "."
    return found


def images(resolved: study.Study) -> dict[str, Path]:
    """Return the image of each workload of an experiment."""
    return {name: Path(workload["image_path"]) for name, workload in resolved.workloads.items()}


def read(
    files: Mapping[str, bytes],
    cells: bytes,
    experiment: str,
    config: Mapping[str, Any],
    root: str,
    archive: str,
) -> study.Study:
    """Return the experiment that an archive's configuration resolves to, checked like one's own.

    Published values are the reader's own; thresholds and statistics are those that the sender used.

    Args:
        files: the files of the archive below `config/`, by path.
        cells: `cells.json` of the archive: why a cell could not be measured is what the sender lacked.
        experiment: its name.
        config: the reader's own configuration.
        root: the folder of results in which the archive is unpacked; images are named in it.
        archive: what the archive is called, for messages.

    Raises:
        IntegrityError: the configuration is none of this version, or is no experiment.
    """
    with tempfile.TemporaryDirectory(prefix="pocketvlm-") as name:
        folder = Path(name)
        for path, data in files.items():
            if path.endswith(".yaml"):
                _refuse_references(data, path, archive)
            place = folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        own = {
            name: str(Path(value).absolute())
            for name, value in config["catalogues"].items()
            if name != "frameworks_overlay"
        }
        catalogues = {
            **{name: f"config/{name}" for name in FOLDERS},
            **{name: f"config/{name}.yaml" for name in CATALOGUES},
        }
        try:
            _refuse_products(yaml.safe_load(files.get(f"config/experiments/{experiment}.yaml", b"")), archive)
            analysis = yaml.safe_load(files.get("config/analysis.yaml", b""))
            given = {**config, "experiment": experiment, "analysis": analysis}
            # The sender's tables are whole: nothing of the reader's is laid over them.
            given.pop("frameworks", None)
            given["catalogues"] = {**own, **catalogues}
            validate(given, "config", where="config/analysis.yaml")
            resolved = study.load(given, root=folder, here=False)
        except ConfigError as error:
            where = (error.where or "").replace(f"{folder}/", "")
            raise _unusable(archive, error.what, where) from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise _unusable(archive, f"{type(error).__name__}", "config") from None
    workloads = {
        name: {**workload, "image_path": f"{root}/config/workloads/{workload['image']}"}
        for name, workload in resolved.workloads.items()
    }
    paths = {
        name: Path(root) / catalogues[name] if name in catalogues else Path(path)
        for name, path in config["catalogues"].items()
        if name != "frameworks_overlay"
    }
    return replace(
        resolved,
        workloads=workloads,
        paths=paths,
        cells=_as_told(resolved.cells, cells, archive),
    )


def _as_told(cells: tuple[study.Cell, ...], told: bytes, archive: str) -> tuple[study.Cell, ...]:
    """Return the cells with the reasons for which the sender could not measure them."""
    try:
        reasons = {cell["cell"]: cell.get("unavailable") for cell in json.loads(told)["cells"]}
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise _unusable(archive, "cells.json is none", "cells.json") from None
    if any(
        not isinstance(reason, str | None) or len(reason or "") > MAX_REASON for reason in reasons.values()
    ):
        raise _unusable(archive, "a reason is no text, or too long", "cells.json")
    return tuple(replace(cell, unavailable=reasons.get(cell.id)) for cell in cells)


def _unusable(archive: str, what: str, where: str) -> IntegrityError:
    return IntegrityError(
        f"the configuration in {archive} is none of this version: {what}",
        where=where,
        do="Use the version of pocketvlm that packed it: its commit is in the archive's manifest",
    )


def _refuse_products(experiment: Any, archive: str) -> None:
    """Raise when the lists of an experiment multiply to more cells than anybody measures."""
    entries = experiment.get("cells") if isinstance(experiment, dict) else None
    for entry in entries if isinstance(entries, list) else ():
        axes = [*entry.values()] if isinstance(entry, dict) else []
        axes += [*entry["settings"].values()] if axes and isinstance(entry.get("settings"), dict) else []
        if math.prod(len(axis) for axis in axes if isinstance(axis, list)) > MAX_CELLS:
            raise _unusable(archive, f"more than {MAX_CELLS} cells", "config/experiments")


def _refuse_references(data: bytes, path: str, archive: str) -> None:
    """Raise when YAML refers to itself: a few lines of it can stand for more than any memory holds."""
    try:
        referring = any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(data, yaml.SafeLoader))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        referring = True
    if referring:
        raise IntegrityError(
            f"{path} in {archive} is no plain YAML",
            do="Nothing of it was kept; ask the sender for it again, as it was packed",
        )
