"""What one run is made of: its command, the files this names, and everything that its key is the hash of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketvlm import frameworks
from pocketvlm.measure.store import run_key
from pocketvlm.provenance import sha256_file, sha256_json
from pocketvlm.weights.description import checked_sha256

_PLACEHOLDER = re.compile(r"@(bundle|weights|workload)/(.+)")


@dataclass(frozen=True)
class CellFiles:
    """What one cell of a block is made of.

    Attributes:
        cell: the cell's id.
        adapter: the framework's adapter, a folder of `frameworks`.
        version: the framework's version.
        bundle: folder of the build, with `manifest.json`.
        weights: path by role.
        workload: prompt, budget and sampling, with `image_path`.
        model: the model's entry of the catalogue (chat template and the like).
        settings: threads and everything else that changes a number.
        quirks: the version's entry of the catalogue, as far as the adapter asks for it.
    """

    cell: str
    adapter: str
    version: str
    bundle: Path
    weights: Mapping[str, Path]
    workload: Mapping[str, Any]
    model: Mapping[str, Any]
    settings: Mapping[str, Any]
    quirks: Mapping[str, Any]


@dataclass(frozen=True)
class Job:
    """One thing to run.

    Attributes:
        argv: the command; words such as `@weights/model` stand for files.
        files: the file on this host that each such word stands for.
        key_inputs: everything that made the run; its hash is the key.
    """

    argv: tuple[str, ...]
    files: Mapping[str, Path]
    key_inputs: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Hex sha256 of `key_inputs` and the protocol's version."""
        return run_key(self.key_inputs)


def cell_job(
    cell: CellFiles, identity: Mapping[str, Any], probe: Path, state: Mapping[str, bool] | None = None
) -> Job:
    """Return the job of a cell: the adapter's command, and the hashes of all that goes into it.

    Args:
        cell: what it is made of.
        identity: of the device.
        probe: folder of the probe's bundle.
        state: what the experiment wants the device's state to be.

    Raises:
        IntegrityError: a weights file is not what its record says.
    """
    adapter = frameworks.command(cell.adapter)
    argv = adapter.command(
        version=cell.version,
        model=cell.model,
        workload=cell.workload,
        settings=cell.settings,
        quirks=cell.quirks,
        image_name=Path(cell.workload["image_path"]).name,
    )
    files = {word: path for word in argv if (path := _file_of(word, cell))}
    workload = {name: value for name, value in cell.workload.items() if name != "image_path"}
    key_inputs = {
        **_device_inputs(identity, probe, state),
        "bundle": sha256_file(cell.bundle / "manifest.json"),
        "weights": {role: checked_sha256(path) for role, path in cell.weights.items()},
        "workload": {**workload, "image_sha256": sha256_file(cell.workload["image_path"])},
        "argv": list(argv),
        "environment": {},
        "settings": adapter.resolve_settings(cell.settings),
    }
    return Job(tuple(argv), files, key_inputs)


def _file_of(word: str, cell: CellFiles) -> Path | None:
    match = _PLACEHOLDER.fullmatch(word)
    if not match:
        return None
    kind, name = match.groups()
    if kind == "bundle":
        return cell.bundle / name
    if kind == "weights":
        return cell.weights[name]
    return Path(cell.workload["image_path"])


def idle_job(
    identity: Mapping[str, Any], probe: Path, seconds: int, state: Mapping[str, bool] | None = None
) -> Job:
    """Return the job that records the device doing nothing, the baseline of energy; `state` as `cell_job`."""
    argv = ("sleep", str(seconds))
    key_inputs = {
        **_device_inputs(identity, probe, state),
        "bundle": None,
        "weights": {},
        "workload": {"id": "idle"},
        "argv": list(argv),
        "environment": {},
        "settings": {},
    }
    return Job(argv, {}, key_inputs)


def _device_inputs(
    identity: Mapping[str, Any], probe: Path, state: Mapping[str, bool] | None
) -> dict[str, Any]:
    return {
        # Runs of experiments that want no state keep the key that they have always had.
        **({"state": dict(state)} if state else {}),
        "device": {"id": identity["id"], "identity_sha256": sha256_json(identity)},
        "probe": sha256_file(probe / "manifest.json"),
    }
