"""The search for settings that an experiment asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pocketvlm import frameworks
from pocketvlm.config.sections import require_section
from pocketvlm.config.space import QUANTISATION, Space, space
from pocketvlm.config.study import Cell, Study
from pocketvlm.devices.topology import Topology
from pocketvlm.errors import ConfigError
from pocketvlm.stage import plain_errors

_MANY = 256
"""CPUs of the device that axes are checked for before there is one."""

_DEFAULTS = {"objective": "answer", "first_rounds": 2, "confidence": 0.95}

OBJECTIVES = {
    "answer": "time of a run without loading",
    "run": "time of a whole run",
    "first_token": "time to the first token after loading",
    "decode": "time for a token while decoding",
}
"""What is to be small, by the name that an experiment gives it."""


@dataclass(frozen=True)
class Tuning:
    """What a search is to do.

    Attributes:
        cell: the experiment's one cell: what no axis varies is as there.
        quantised: the same cell at each quantisation that may be tried.
        wanted: axes, runs, objective, first_rounds, confidence, limits (maybe none).
        warmups, seed: of the experiment.
        adapter, quirks: of the framework and its version.
        quantisations: all of the model's.
        where: the experiment's file and key, for messages.
    """

    cell: Cell
    quantised: Mapping[str, Cell]
    wanted: Mapping[str, Any]
    warmups: int
    seed: int
    adapter: str
    quirks: Mapping[str, Any]
    quantisations: tuple[str, ...]
    where: str

    def space(self, topology: Topology, least: int = 1) -> Space:
        """Return what may be tried on the device; arguments and errors as `config.space.space`."""
        return space(
            adapter=self.adapter,
            quirks=self.quirks,
            settings=self.cell.settings,
            quantisation=self.cell.quantisation,
            quantisations=self.quantisations,
            axes=self.wanted["axes"],
            topology=topology,
            where=f"{self.where}.axes",
            least=least,
        )

    def plain(self) -> dict[str, Any]:
        """Return it in plain values, as a rule's parameters have it; `of_plain` reads them."""
        kept = ("warmups", "seed", "adapter", "quirks", "where")
        return {
            **{name: getattr(self, name) for name in kept},
            "cell": self.cell.__dict__ | {"settings": dict(self.cell.settings)},
            "quantised": sorted(self.quantised),
            "quantisations": list(self.quantisations),
            "wanted": dict(self.wanted),
        }


def of_plain(plain: Mapping[str, Any]) -> Tuning:
    """Return what `Tuning.plain` wrote."""
    cell = Cell(**plain["cell"])
    quantised = {name: replace(cell, quantisation=name) for name in plain["quantised"]}
    return Tuning(
        **{
            **plain,
            "cell": cell,
            "quantised": quantised,
            "quantisations": tuple(plain["quantisations"]),
        }
    )


def wanted(study: Study) -> Tuning | None:
    """Return the search of an experiment, None without one, after checking all that needs no device.

    Raises:
        ConfigError: it has several cells or none that can be measured, an axis or a value of it is none, or
            the number of warm-ups is not fixed.
    """
    if "tune" not in study.experiment:
        return None
    file = study.paths["experiments"] / f"{study.name}.yaml"
    where = f"{file}: tune"
    given = {**_DEFAULTS, **study.experiment["tune"]}
    if len(study.cells) != 1:
        raise ConfigError(
            f"the experiment has {len(study.cells)} cells, and a search is for one",
            where=f"{file}: cells",
            do="Leave one cell with one value each; what is to be varied belongs to tune.axes",
        )
    if not isinstance(study.experiment["warmups"], int):
        raise ConfigError(
            "a search has a budget of runs, and the number of warm-ups is left open",
            where=f"{file}: warmups",
            do="Give a number, such as warmups: 1",
        )
    cell = study.cells[0]
    framework = study.frameworks[cell.framework]
    if "adapter" not in framework:
        raise ConfigError(
            f"{cell.framework} cannot be run: {cell.unavailable}", where=f"{file}: cells", do="Choose another"
        )
    model = tuple(study.models[cell.model]["quantisations"])
    axis = given["axes"].get(QUANTISATION, [cell.quantisation])
    chosen = {cell.quantisation, *(model if axis == "auto" else map(str, axis))}
    tuning = Tuning(
        cell=cell,
        quantised={name: replace(cell, quantisation=name) for name in sorted(chosen)},
        wanted=given,
        warmups=study.experiment["warmups"],
        seed=study.experiment["order_seed"],
        adapter=framework["adapter"],
        quirks=framework["versions"][cell.version].get("quirks", {}),
        quantisations=model,
        where=where,
    )
    _check_axes(tuning)
    return tuning


def _check_axes(tuning: Tuning) -> None:
    """Raise for what is wrong on any device: how many CPUs there are is not known yet."""
    frameworks.tuning(tuning.adapter)
    many = Topology(tuple((cpu,) for cpu in range(_MANY)), (tuple(range(_MANY)),))
    listed = {axis: given for axis, given in tuning.wanted["axes"].items() if given != "auto"}
    automatic = [{axis: "auto"} for axis in tuning.wanted["axes"] if axis not in listed]
    for axes in ([listed] if listed else []) + automatic:
        replace(tuning, wanted={**tuning.wanted, "axes": axes}).space(many, least=0)


def files(experiment: str) -> list[str]:
    """Return everything that a search makes.

    Args:
        experiment: the experiment's folder of results.
    """
    names = ("candidates.csv", "rungs.csv", "runs.csv", "front.csv", "chosen.yaml", "tune.svg", "tune.png")
    return [f"{experiment}/tune/{name}" for name in names]


def files_for(study: Study, results: str) -> Callable[[object], list[str]]:
    """Return the input of a rule that is asked for by name: it refuses an experiment that has no search.

    Args:
        study: the experiment.
        results: its folder of results.
    """

    def ask(_: object) -> list[str]:
        with plain_errors():
            require(study.experiment, study.name, study.paths["experiments"])
        return files(results)

    return ask


def require(experiment: Mapping[str, Any], name: str, folder: Path) -> None:
    """Raise ConfigError when an experiment has no search.

    Args:
        experiment: the experiment's file.
        name: of the experiment.
        folder: where the experiments are.
    """
    example = "tune: {axes: {threads: auto}, runs: 40}"
    require_section("tune", experiment, name, folder, what="search for settings", example=example)
