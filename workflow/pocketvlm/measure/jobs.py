"""What one run is made of: its command, the files this names, and everything that its key is the hash of."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketvlm import frameworks
from pocketvlm.frameworks.settings import affinity, own, resolve
from pocketvlm.measure.store import run_key
from pocketvlm.provenance import sha256_file, sha256_json
from pocketvlm.weights.description import checked_sha256

# Of a workload: where its image is here, and what its answer is checked for afterwards.
_NOT_RUN = ("image_path", "expected_words")
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

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> CellFiles:
        """Return what a rule's parameters say in plain values: the same names, paths as text."""
        weights = {role: Path(path) for role, path in plain["weights"].items()}
        return cls(**{**plain, "bundle": Path(plain["bundle"]), "weights": weights})


@dataclass(frozen=True)
class Job:
    """One thing to run.

    Attributes:
        argv: the command; words such as `@weights/model` stand for files.
        files: the file on this host that each such word stands for.
        key_inputs: everything that made the run; its hash is the key.
        affinity: the CPUs that it is to run on, as the kernel prints them; None for any.
        unfinished: says by stdout and stderr why a run that exited with 0 did not come to its end, or None;
            None for what prints nothing that could tell.
    """

    argv: tuple[str, ...]
    files: Mapping[str, Path]
    key_inputs: Mapping[str, Any]
    affinity: str | None = None
    unfinished: Callable[[bytes, bytes], str | None] | None = None

    @property
    def key(self) -> str:
        """Hex sha256 of `key_inputs` and the protocol's version."""
        return run_key(self.key_inputs)


def cell_job(
    cell: CellFiles,
    identity: Mapping[str, Any],
    probe: Path,
    conditions: Mapping[str, Mapping[str, Any]] | None = None,
    hashed: Callable[[Path], str] = checked_sha256,
) -> Job:
    """Return the job of a cell: the adapter's command, and the hashes of all that goes into it.

    Args:
        cell: what it is made of.
        identity: of the device.
        probe: folder of the probe's bundle.
        conditions: what else shapes the run and was asked for, by name, as `Protocol.conditions` has it.
        hashed: what gives the checked hash of a weights file, for who asks for many cells of the same.

    Raises:
        IntegrityError: a weights file is not what its record says.
    """
    adapter = frameworks.command(cell.adapter)
    argv = adapter.command(
        version=cell.version,
        model=cell.model,
        workload=cell.workload,
        settings=own(cell.settings),
        quirks=cell.quirks,
        image_name=Path(cell.workload["image_path"]).name,
    )
    files = {word: path for word in argv if (path := _file_of(word, cell))}
    workload = {name: value for name, value in cell.workload.items() if name not in _NOT_RUN}
    key_inputs = {
        **_device_inputs(identity, probe, conditions),
        "bundle": sha256_file(cell.bundle / "manifest.json"),
        "weights": {role: hashed(path) for role, path in cell.weights.items()},
        "workload": {**workload, "image_sha256": sha256_file(cell.workload["image_path"])},
        "argv": list(argv),
        "environment": {},
        "settings": resolve(cell.adapter, cell.settings),
    }
    return Job(tuple(argv), files, key_inputs, affinity(cell.settings), adapter.unfinished)


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
    identity: Mapping[str, Any],
    probe: Path,
    seconds: int,
    conditions: Mapping[str, Mapping[str, Any]] | None = None,
) -> Job:
    """Return the job that records the device doing nothing, the baseline of energy; else as `cell_job`."""
    argv = ("sleep", str(seconds))
    key_inputs = {
        **_device_inputs(identity, probe, conditions),
        "bundle": None,
        "weights": {},
        "workload": {"id": "idle"},
        "argv": list(argv),
        "environment": {},
        "settings": {},
    }
    return Job(argv, {}, key_inputs)


def _device_inputs(
    identity: Mapping[str, Any],
    probe: Path,
    conditions: Mapping[str, Mapping[str, Any]] | None,
) -> dict[str, Any]:
    return {
        # Runs of experiments that ask for nothing keep the key that they have always had.
        **{name: dict(value) for name, value in (conditions or {}).items()},
        "device": {"id": identity["id"], "identity_sha256": sha256_json(identity)},
        "probe": sha256_file(probe / "manifest.json"),
    }
