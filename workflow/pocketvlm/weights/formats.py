"""Weights in the formats of the frameworks: which files a cell runs, and those that a user gives.

GGUF files are fetched or made here, and some are converted (`converted`, a framework and the quantisations).
What else another format needs is given by the user, by role, in the table of models:

    <model>:
      formats: {mllm: {Q4_K: {model: {path: …, sha256: …}, vocabulary: {path: …, sha256: …}}}}

and lands in `results/weights/<model>/<format>-<quantisation>/<role>/`, a folder that holds the one file under
its own name, or the files of the folder that was given, with the record `<role>.json` beside it:

    {"format": 1, "weights_format": "mllm", "kind": "file", "file": "model.mllm", "sha256": …, "bytes": …}
    {"format": 1, "weights_format": "mlc", "kind": "folder", "sha256": …, "bytes": …,
     "files": {"params_shard_0.bin": {"sha256": …, "bytes": …}, …}}

`sha256` of a folder is the hash of its tree (`provision.tree`).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pocketvlm.errors import ConfigError, IntegrityError, ProvisionError
from pocketvlm.provenance import sha256_file, write_json
from pocketvlm.provision.tree import copy_tree, place_file, reading, tree_sha256, walk
from pocketvlm.weights.description import FORMAT, checked_sha256, read_record

GGUF = "gguf"
# Keys of a format's entry that are no quantisation.
ABOUT = frozenset({"repository", "licence", "files", "unprovisioned", "converted"})


def paths(folder: str, quantisation: str, *, weights_format: str, roles: Sequence[str]) -> dict[str, str]:
    """Return where the weights of a cell are, by role: files of GGUF, folders of any other format.

    Args:
        folder: `results/weights/<model>`.
        quantisation: of the cell.
        weights_format, roles: `WEIGHTS` and `ROLES` of the framework's adapter.
    """
    if weights_format == GGUF:
        # Only the language model is quantised.
        kinds = {role: quantisation if role == "model" else "f16" for role in roles}
        return {role: f"{folder}/{role}-{kind}.gguf" for role, kind in kinds.items()}
    return {role: f"{folder}/{weights_format}-{quantisation}/{role}" for role in roles}


def record_path(path: str) -> str:
    """Return where the record of a cell's weights is: beside them."""
    return f"{path.removesuffix('.gguf')}.json"


def quantisations(entry: Mapping[str, Any], weights_format: str) -> list[str]:
    """Return the quantisations of a model in a format that an experiment may name.

    Args:
        entry: the model's entry in the table of models.
        weights_format: a framework's.
    """
    if weights_format == GGUF:
        return list(entry["quantisations"])
    about = entry.get("formats", {}).get(weights_format, {})
    return sorted((set(about) - ABOUT) | set(converted(entry, weights_format)))


def converted(entry: Mapping[str, Any], weights_format: str) -> list[str]:
    """Return the quantisations of a model in a format that are made here, from its GGUF files."""
    about = entry.get("formats", {}).get(weights_format, {})
    return list(about.get("converted", {}).get("quantisations", ()))


def given(entry: Mapping[str, Any], weights_format: str, quantisation: str) -> Mapping[str, Any]:
    """Return what the table of models gives of a format at a quantisation, `{path, sha256}` by role."""
    found = entry.get("formats", {}).get(weights_format, {}).get(quantisation, {})
    assert isinstance(found, Mapping)
    return found


def unavailable(
    name: str,
    entry: Mapping[str, Any],
    quantisation: str,
    *,
    weights_format: str,
    roles: Sequence[str],
    folder: Path,
) -> str | None:
    """Return why a model's weights in a format other than GGUF cannot be had; None when they can.

    The reason stands in tables that are sent to others: it tells names of files and no folder.

    Args:
        name: the model's name in the table.
        entry: its entry there.
        quantisation: of the cell.
        weights_format, roles: `WEIGHTS` and `ROLES` of the framework's adapter.
        folder: that of the table of models, from which its relative paths go.
    """
    if quantisation in converted(entry, weights_format):
        return None
    roles_given = given(entry, weights_format, quantisation)
    about = entry.get("formats", {}).get(weights_format, {})
    where = f"formats: {{{weights_format}: {{{quantisation}: …}}}} of {name} in the table of models"
    if not roles_given:
        known = quantisations(entry, weights_format)
        others = f" (it gives {', '.join(known)})" if known else ""
        hint = f": {about['unprovisioned']}" if "unprovisioned" in about else ""
        return (
            f"{name}: the table of models gives no {weights_format} weights at {quantisation}{others}{hint}; "
            f"name them by role ({', '.join(roles)}), each with path and sha256, under {where}"
        )
    lacking = [role for role in roles if role not in roles_given]
    if lacking:
        return f"{name}: its {weights_format} weights lack the role {', '.join(lacking)}; add it to {where}"
    for role in roles:
        path = located(roles_given[role]["path"], folder)
        if not _there(path):
            missing = f"the {weights_format} weights {path.name} do not exist"
            return f"{name}: {missing}; put them there or correct {where}"
    return None


def _there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a folder that may not be entered, a name that is too long
        return False


def located(path: str, folder: Path) -> Path:
    """Return where a path of a table leads: relative ones go from the table's folder, `~` is one's home.

    Raises:
        ConfigError: it begins with the home of somebody who is not known.
    """
    try:
        return folder / Path(path).expanduser()
    except RuntimeError:
        raise ConfigError(
            f"there is no home folder for {path!r}", where=str(folder), do="Write the whole path, or `./~…`"
        ) from None


def take_weights(source: Path, sha256: str, *, weights_format: str, destination: Path, record: Path) -> None:
    """Take weights that a user has: check them, link or copy them, and write their record.

    Args:
        source: a file or a folder.
        sha256: of the file, or of the folder's tree.
        weights_format: what they are called.
        destination: the folder to make.
        record: the record's file to write.

    Raises:
        ProvisionError: there is nothing there.
        IntegrityError: they are not what the sha256 says.
    """
    if not source.exists():
        raise ProvisionError(
            f"the {weights_format} weights are not there",
            where=str(source),
            do="Put them there, or correct the path in the table of models",
        )
    shutil.rmtree(destination, ignore_errors=True)
    destination.mkdir(parents=True)
    about: dict[str, Any] = {"format": FORMAT, "weights_format": weights_format}
    if source.is_dir():
        actual = copy_tree(source, destination, link=True)
        files = {
            name: {"sha256": sha256_file(path), "bytes": path.stat().st_size}
            for name, path in walk(destination)
        }
        size = sum(path.stat().st_size for _, path in walk(destination))
        about |= {"kind": "folder", "files": files, "bytes": size}
    else:
        place = destination / source.name
        with reading(source):
            place_file(source, place, link=True)
            actual = sha256_file(place)
        about |= {"kind": "file", "file": source.name, "bytes": place.stat().st_size}
    if actual != sha256:
        kind = "folder" if source.is_dir() else "file"
        raise IntegrityError(
            f"{source.name} has sha256 {actual}, expected {sha256}"
            + (" (of a folder it is the hash of its tree)" if kind == "folder" else ""),
            where=str(source),
            do=f"Get the {kind} again; if it is the right one, correct sha256 in the table of models",
        )
    write_json(record, {**about, "sha256": actual})


def checked(weights: Path) -> str:
    """Return the hash of weights, a file or a folder, that still are what their job made or took.

    Raises:
        IntegrityError: they were changed since, or there is no record.
    """
    return checked_folder(weights) if weights.is_dir() else checked_sha256(weights)


def checked_folder(weights: Path) -> str:
    """Return the hash of weights that were taken and still are what they were then.

    Raises:
        IntegrityError: they were changed since, or there is no record.
    """
    record = read_record(weights)
    actual = sha256_file(file_of(weights, record)) if record["kind"] == "file" else tree_sha256(weights)
    if actual != record["sha256"]:
        raise IntegrityError(
            f"{weights.name} was changed since it was taken: its sha256 is {actual}, "
            f"expected {record['sha256']}",
            where=str(weights),
            do="Remove it so that it is taken again",
        )
    return actual


def file_of(weights: Path, record: Mapping[str, Any]) -> Path:
    """Return the file that stands for weights on a command line; the folder itself where that was given."""
    return weights / record["file"] if record["kind"] == "file" else weights
