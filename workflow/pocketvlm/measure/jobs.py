"""What one run is made of: its command, the files this names, and everything that its key is the hash of."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pocketvlm import frameworks
from pocketvlm.apps import script
from pocketvlm.apps.driven import HOLDER, App
from pocketvlm.devices.deploy import Tree, TreeFile
from pocketvlm.errors import IntegrityError, ProvisionError
from pocketvlm.frameworks.settings import affinity, own, resolve
from pocketvlm.measure.store import run_key
from pocketvlm.provenance import read_json, sha256_file, sha256_json
from pocketvlm.weights.description import read_record
from pocketvlm.weights.formats import checked, file_of

# Of a workload: where its image is here, and what its answer is checked for afterwards.
_NOT_RUN = ("image_path", "expected_words")
PYTHON = "@python"
"""The word of a command that stands for the device's Python, on devices that have one."""

_PLACEHOLDER = re.compile(r"@(bundle|weights|workload)/(.+)")


@dataclass(frozen=True)
class CellFiles:
    """What one cell of a block is made of.

    Attributes:
        cell: the cell's id.
        adapter: the framework's adapter, a folder of `frameworks`.
        version: the framework's version.
        bundle: folder of the build, with `manifest.json`.
        weights: path by role, of a file or of a folder (`weights.formats`).
        workload: prompt, budget and sampling, with `image_path`.
        model: the model's entry of the catalogue (chat template and the like).
        settings: threads and everything else that changes a number.
        quirks: the version's entry of the catalogue, as far as the adapter asks for it.
        backend: where it computes.
        app: how it is used where it is an app, as `config.apps.of_cell` gives it.
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
    backend: str = "cpu"
    app: Mapping[str, Any] | None = None

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
        files: the file or folder on this host that each such word stands for.
        key_inputs: everything that made the run; its hash is the key.
        affinity: the CPUs that it is to run on, as the kernel prints them; None for any.
        unfinished: says by stdout and stderr why a run that exited with 0 did not come to its end, or None;
            None for what prints nothing that could tell.
        trees: folders that are brought to the device whole: the bundle, and weights that are a folder.
        environment: variables that the command needs; a value such as `@bundle/lib` stands for a file, too.
        app: what is driven while `argv` only waits; None for a command.
    """

    argv: tuple[str, ...]
    files: Mapping[str, Path]
    key_inputs: Mapping[str, Any]
    affinity: str | None = None
    unfinished: Callable[[bytes, bytes], str | None] | None = None
    trees: tuple[Tree, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    app: App | None = None

    @property
    def key(self) -> str:
        """Hex sha256 of `key_inputs` and the protocol's version."""
        return run_key(self.key_inputs)


def cell_job(
    cell: CellFiles,
    identity: Mapping[str, Any],
    probe: Path,
    conditions: Mapping[str, Mapping[str, Any]] | None = None,
    hashed: Callable[[Path], str] = checked,
) -> Job:
    """Return the job of a cell: the adapter's command, and the hashes of all that goes into it.

    Args:
        cell: what it is made of.
        identity: of the device.
        probe: folder of the probe's bundle.
        conditions: what else shapes the run and was asked for, by name, as `Protocol.conditions` has it.
        hashed: what gives the checked hash of weights, for who asks for many cells of the same.

    Raises:
        IntegrityError: a weights file is not what its record says, or a file of the bundle not what its
            manifest says.
    """
    if cell.app is not None:
        return _app_job(cell, cell.app, identity, probe, conditions)
    adapter = frameworks.command(cell.adapter)
    argv = adapter.command(
        version=cell.version,
        backend=cell.backend,
        model=cell.model,
        workload=cell.workload,
        settings=own(cell.settings),
        quirks=cell.quirks,
        image_name=Path(cell.workload["image_path"]).name,
    )
    environment = adapter.environment(backend=cell.backend, settings=own(cell.settings))
    words = (*argv, *environment.values())
    files = {word: path for word in words if (path := _file_of(word, cell))}
    bundle = bundle_tree(cell.bundle)
    _check_there(files, cell, bundle)
    workload = {name: value for name, value in cell.workload.items() if name not in _NOT_RUN}
    key_inputs = {
        **_device_inputs(identity, probe, conditions),
        "bundle": sha256_file(cell.bundle / "manifest.json"),
        "weights": {role: hashed(path) for role, path in cell.weights.items()},
        "workload": {**workload, "image_sha256": sha256_file(cell.workload["image_path"])},
        "argv": list(argv),
        "environment": dict(environment),
        "settings": resolve(cell.adapter, cell.settings),
    }
    return Job(
        tuple(argv),
        files,
        key_inputs,
        affinity(cell.settings),
        adapter.unfinished,
        trees=(bundle, *_folders(cell)),
        environment=environment,
    )


def _app_job(
    cell: CellFiles,
    app: Mapping[str, Any],
    identity: Mapping[str, Any],
    probe: Path,
    conditions: Mapping[str, Mapping[str, Any]] | None,
) -> Job:
    """Return the job of a cell that is an app: the probe's shell waits, and the app is driven."""
    image = Path(cell.workload["image_path"])
    apk = {"@bundle/app.apk": cell.bundle / "app.apk"} if app["apk"] else {}
    workload = {name: value for name, value in cell.workload.items() if name not in _NOT_RUN}
    key_inputs = {
        **_device_inputs(identity, probe, conditions),
        "bundle": sha256_file(cell.bundle / "manifest.json"),
        "weights": {},
        "workload": {**workload, "image_sha256": sha256_file(image)},
        "argv": list(HOLDER),
        "environment": {},
        "settings": resolve(cell.adapter, cell.settings),
        "app": dict(app),
    }
    driven = App(
        package=app["package"],
        activity=app["activity"],
        permissions=tuple(app["permissions"]),
        image=app["image"],
        script=script.parse(app["script"], where="script", variables=app["variables"]),
        apk_sha256=app["apk"],
        version_name=app["version_name"],
    )
    return Job(HOLDER, {**apk, "@workload/image": image}, key_inputs, app=driven)


def _file_of(word: str, cell: CellFiles) -> Path | None:
    match = _PLACEHOLDER.fullmatch(word)
    if not match:
        return None
    kind, name = match.groups()
    if kind == "bundle":
        return cell.bundle / name
    if kind == "weights":
        path = cell.weights[name]
        return file_of(path, read_record(path)) if path.is_dir() else path
    return Path(cell.workload["image_path"])


def _check_there(files: Mapping[str, Path], cell: CellFiles, bundle: Tree) -> None:
    """Raise when a command asks for what its bundle does not hold."""
    held = bundle.places("")
    for path in files.values():
        if cell.bundle in path.parents and path not in held:
            raise ProvisionError(
                f"the bundle {cell.bundle.name} has no {path.relative_to(cell.bundle)}, "
                "which the command of its framework needs",
                where=cell.cell,
                do="Add it to what its build collects, or to the binaries that were given; "
                "`snakemake --cores 1 check_frameworks` says what each needs",
            )


def _folders(cell: CellFiles) -> list[Tree]:
    """Return the weights that are brought to the device as a folder: their files look for each other."""
    folders = []
    for path in cell.weights.values():
        record = read_record(path) if path.is_dir() else {}
        if record.get("kind") == "folder":
            files = {name: TreeFile(file["sha256"]) for name, file in record["files"].items()}
            folders.append(Tree(path, record["sha256"], files))
    return folders


def bundle_tree(bundle: Path) -> Tree:
    """Return a bundle as it is brought to a device: all files of its manifest, each checked.

    Raises:
        IntegrityError: a file is missing or is not what the manifest says.
    """
    manifest = bundle / "manifest.json"
    files = {}
    for name, about in read_json(manifest)["files"].items():
        path = bundle / name
        actual = sha256_file(path) if path.is_file() else "no file at all"
        if actual != about["sha256"]:
            raise IntegrityError(
                f"{name} of the bundle {bundle.name} has sha256 {actual}, not {about['sha256']}",
                where=str(path),
                do=f"Remove {bundle} so that it is made again",
            )
        files[name] = TreeFile(actual, executable=bool(int(about["mode"], 8) & 0o100))
    return Tree(bundle, sha256_file(manifest), files)


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
