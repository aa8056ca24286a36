"""Whether the files of an experiment belong together: what is packed and what was received is checked alike.

The folder that is looked at is laid out like `results`: `raw`, `devices`, `bundles`, `weights`, and the
experiment's own. Everything in it may come from somebody else.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketvlm.analyse.raw import check_run, read_object, run_folder
from pocketvlm.errors import IntegrityError
from pocketvlm.provenance import sha256_file, sha256_json

log = logging.getLogger("pocketvlm")

PLACE = ("role", "block", "round", "position")
"""What the index of a block and the `meta.json` of a run must say alike."""


@dataclass(frozen=True)
class Contents:
    """What an experiment's files are.

    Attributes:
        cells: `cells.json`.
        devices: those of its cells, whether they could be measured or not.
        runs: every run of their blocks, `<key>/<nn>`: its `meta.json`.
    """

    cells: Mapping[str, Any]
    devices: tuple[str, ...]
    runs: Mapping[str, Mapping[str, Any]]


def check_contents(root: Path, experiment: str, images: Mapping[str, str]) -> Contents:
    """Check that runs, indexes, cells and the records of what was run agree, every hash of them.

    Args:
        root: the folder of results.
        experiment: its name.
        images: sha256 of the image of each workload.

    Raises:
        IntegrityError: a file is missing, malformed or not what another one says.
    """
    try:
        return _checked(root, experiment, images)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        what = f"a record is not of its form: {type(error).__name__} {str(error)[:80]}"
        raise misfit(what, root / experiment) from error


def _checked(root: Path, experiment: str, images: Mapping[str, str]) -> Contents:
    own = root / experiment
    cells = read_object(own / "cells.json")
    listed = cells.get("cells")
    if cells.get("format") != 1 or cells.get("experiment") != experiment or not isinstance(listed, list):
        raise misfit(f"cells.json is not that of the experiment {experiment}", own / "cells.json")
    by_device: dict[str, dict[str, Mapping[str, Any]]] = {}
    for cell in listed:
        by_device.setdefault(str(cell["device"]), {})[str(cell["cell"])] = cell
    runs: dict[str, Mapping[str, Any]] = {}
    for device, mine in sorted(by_device.items()):
        for name, meta in _block(root, experiment, device, mine, images):
            if name in runs:
                raise misfit(f"the run {name} is listed twice", own / "blocks")
            runs[name] = meta
        _complete(own / "blocks" / f"{device}.json", mine, int(cells["repeats"]))
    for name, meta in runs.items():
        if meta["role"] == "measured" and meta.get("idle") is not None and meta["idle"] not in runs:
            raise misfit(f"the idle run {meta['idle']} of {name} is missing", own / "blocks")
    return Contents(cells, tuple(sorted(by_device)), runs)


def misfit(what: str, path: Path) -> IntegrityError:
    """Return the error for files that do not belong together."""
    return IntegrityError(
        what,
        where=str(path),
        do="Nothing was packed or kept; of results of your own, `snakemake --cores 4 verify` says more",
    )


def _block(
    root: Path,
    experiment: str,
    device: str,
    cells: Mapping[str, Mapping[str, Any]],
    images: Mapping[str, str],
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    path = root / experiment / "blocks" / f"{device}.json"
    index = read_object(path)
    entries = index.get("runs")
    peaks = root / "devices" / device / "peaks.json"
    if peaks.is_file() and read_object(peaks).get("device") != device:
        raise misfit(f"{peaks.name} is not of {device}", peaks)
    if (index.get("format"), index.get("experiment"), index.get("device")) != (1, experiment, device):
        raise misfit(f"{path.name} is no index of {device} in {experiment}", path)
    if not isinstance(entries, list):
        raise misfit(f"{path.name} lists no runs", path)
    if not entries:
        return
    identity = read_object(root / "devices" / device / "identity.json")
    of_device = {"id": device, "identity_sha256": sha256_json(identity)}
    probe = sha256_file(_manifest(root, f"probe-{identity.get('target')}"))
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("run"), str):
            raise misfit(f"{path.name} lists something that is no run", path)
        meta = _run(root, entry)
        made = meta["key_inputs"]
        if made.get("device") != of_device or made.get("probe") != probe:
            raise misfit(f"the run {entry['run']} is of another device or probe", path)
        if (entry.get("cell") is None) != (entry.get("role") == "idle"):
            raise misfit(f"the run {entry['run']} has the cell of another role", path)
        if entry.get("cell") is not None:
            if entry["cell"] not in cells:
                raise misfit(f"{entry['run']} is of a cell that {device} does not have", path)
            _made_of(root, entry["run"], made, cells[entry["cell"]], images)
        yield entry["run"], meta


def _run(root: Path, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return `meta.json` of a run that is complete, alone in its folder, and under its own key."""
    name = entry["run"]
    folder = run_folder(root / "raw", name)
    if not folder.is_dir():
        raise misfit(f"the run {name} is missing", folder)
    meta = check_run(folder, str(entry.get("meta_sha256")))
    extra = {path.name for path in folder.iterdir()} - {"meta.json", *meta["files"]}
    if extra:
        raise misfit(f"the run {name} holds files that were not recorded: {sorted(extra)[0]}", folder)
    made = meta.get("key_inputs")
    if not isinstance(made, dict) or f"{sha256_json(made)}/{meta.get('number', -1):02d}" != name:
        raise misfit(f"the run {name} is not under the key of what made it", folder)
    if meta.get("key") != name.split("/")[0] or any(meta.get(key) != entry.get(key) for key in PLACE):
        raise misfit(f"the index says something else of the run {name} than its own record", folder)
    return meta


def _made_of(
    root: Path, run: str, made: Mapping[str, Any], cell: Mapping[str, Any], images: Mapping[str, str]
) -> None:
    """Check that a run was made of its cell's bundle, weights and workload."""
    if made.get("bundle") != sha256_file(_manifest(root, str(cell["build"]))):
        raise misfit(f"the run {run} is of another build than {cell['build']}", root / "bundles")
    folder = root / "weights" / str(cell["model"])
    # Of one's own results these are links into the cache that several working directories share.
    records = (*folder.glob("*.json"), *folder.glob("*-*/*.json"))
    known = {read_object(path.resolve()).get("sha256") for path in records}
    weights = made.get("weights")
    # Those of an app are in the app.
    lacking = not weights and "app" not in made
    if not isinstance(weights, dict) or lacking or not set(weights.values()) <= known:
        raise misfit(f"the run {run} is of other weights than {cell['model']}", folder)
    workload = made.get("workload")
    expected = (cell["workload"], images.get(str(cell["workload"])))
    if not isinstance(workload, dict) or (workload.get("id"), workload.get("image_sha256")) != expected:
        raise misfit(f"the run {run} is of another workload than {cell['workload']}", root / "raw" / run)


def _complete(path: Path, cells: Mapping[str, Mapping[str, Any]], repeats: int) -> None:
    """Check that every cell has its runs, or a reason why it has none."""
    index = read_object(path)
    counted = Counter(entry["cell"] for entry in index["runs"] if entry["role"] == "measured")
    unmeasured = index.get("unmeasured", {})
    for cell, record in cells.items():
        if counted[cell] > repeats:
            raise misfit(f"{cell} has {counted[cell]} measured runs, the experiment has {repeats}", path)
        if not counted[cell] and record.get("unavailable") is None and cell not in unmeasured:
            raise misfit(f"{cell} has no measured run and no reason why", path)
        if 0 < counted[cell] < repeats:
            log.warning("%s has %d of %d measured runs", cell, counted[cell], repeats)


def _manifest(root: Path, bundle: str) -> Path:
    path = root / "bundles" / bundle / "manifest.json"
    if not path.is_file():
        raise misfit(f"the manifest of {bundle} is missing", path)
    return path
