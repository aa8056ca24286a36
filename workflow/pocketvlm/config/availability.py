"""Whether a cell can be measured as things are, whatever device is connected, and else why not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketvlm import frameworks as adapters
from pocketvlm.build import requires
from pocketvlm.config import apps, frameworks
from pocketvlm.errors import ConfigError
from pocketvlm.frameworks.settings import own
from pocketvlm.weights import formats, hub
from pocketvlm.weights.lock import Lock

if TYPE_CHECKING:
    from pocketvlm.config.study import Cell

# Why, and the key of the cell's entry that is to be changed.
_Reason = tuple[str | None, str]


@dataclass(frozen=True)
class Needs:
    """What is asked whether a cell can be measured.

    Attributes:
        tables: the tables `models`, `frameworks` and `toolchains`.
        lock: of the models of the hub.
        workload: the cell's.
        models_folder: what the paths of the table of models are relative to.
        device: the cell's device's file.
    """

    tables: Mapping[str, Mapping[str, Any]]
    lock: Lock
    workload: Mapping[str, Any]
    models_folder: Path
    device: Mapping[str, Any]


def unavailable(cell: Cell, needs: Needs, place: str, *, rows: bool) -> str | None:
    """Return why a cell cannot be measured whatever device there is, None when it can.

    Args:
        cell: the cell.
        needs: what decides it.
        place: where it stands, for messages.
        rows: whether the experiment wants such cells as rows.

    Raises:
        ConfigError: the experiment wants no rows for such cells. (Weights of the hub that are not locked are
            refused by the job that fetches them.)
    """
    reason, key = next((found for found in _reasons(cell, needs) if found[0] is not None), (None, ""))
    if reason is not None and not rows:
        raise ConfigError(
            reason,
            where=f"{place}.{key}",
            do="Remove the cell, or write `absent: row` to have it as a row with this reason",
        )
    if reason is None and rows and _app(cell, needs) is None:
        model = needs.tables["models"][cell.model]
        if _command(cell, needs).WEIGHTS == formats.GGUF:
            return hub.unavailable(cell.model, model, needs.lock, cell.quantisation)
    return reason


def _reasons(cell: Cell, needs: Needs) -> Iterator[_Reason]:
    """Ask one after another, so that what is asked later may rely on what was answered before."""
    entry = needs.tables["frameworks"][cell.framework]
    yield frameworks.missing(entry, cell.version, cell.target), "framework"
    app = _app(cell, needs)
    if app is not None:
        yield apps.unavailable(app, cell=cell, workload=needs.workload, device=needs.device), "framework"
        where = f"{cell.framework} {cell.version}: app"
        apps.of_cell(app, cell=cell, workload=needs.workload, where=where)
        return
    yield frameworks.without_python(entry, cell.version, needs.device["kind"]), "framework"
    yield _not_buildable(cell, entry, needs.tables["toolchains"]), "backend"
    command, model = _command(cell, needs), needs.tables["models"][cell.model]
    if command.WEIGHTS != formats.GGUF:
        yield _not_given(cell, model, command, needs.models_folder), "model"
    yield _inexpressible(cell, model, command, needs.workload), "settings"


def _app(cell: Cell, needs: Needs) -> Mapping[str, Any] | None:
    app: Mapping[str, Any] | None
    app = needs.tables["frameworks"][cell.framework]["versions"][cell.version].get("app")
    return app


def _command(cell: Cell, needs: Needs) -> adapters.Command:
    return adapters.command(needs.tables["frameworks"][cell.framework]["adapter"])


def _not_given(cell: Cell, model: Mapping[str, Any], command: adapters.Command, folder: Path) -> str | None:
    return formats.unavailable(
        cell.model,
        model,
        cell.quantisation,
        weights_format=command.WEIGHTS,
        roles=command.ROLES,
        folder=folder,
    )


def _not_buildable(
    cell: Cell, entry: Mapping[str, Any], toolchains: Mapping[str, Mapping[str, Any]]
) -> str | None:
    """Return what the backend's build lacks; what comes as binaries is not built."""
    if entry["versions"][cell.version].get("source", {}).get("kind") == "prebuilt":
        return None
    return requires.lacking(
        entry["backends"][cell.backend].get("requires", {}),
        backend=cell.backend,
        version=cell.version,
        target=cell.target,
        toolchains=toolchains,
    )


def _inexpressible(
    cell: Cell, model: Mapping[str, Any], command: adapters.Command, workload: Mapping[str, Any]
) -> str | None:
    return command.unavailable(
        model=model, workload=workload, settings=own(cell.settings), backend=cell.backend
    )
