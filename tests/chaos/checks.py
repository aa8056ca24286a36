"""What must hold after every fault, once the next start has finished the experiment."""

from __future__ import annotations

import contextlib
import csv
import os
import re
from typing import Any

import yaml

from pocketvlm.analyse.verify import verify
from pocketvlm.devices import lock_name
from pocketvlm.devices.locks import device_lock, hold, workdir_lock
from pocketvlm.measure.store import RawStore
from pocketvlm.provenance import read_json, sha256_file
from tests.chaos.scene import DEVICE, EXPERIMENT, TABLE, Scene

# What no run on any phone can be, whatever the product thinks of it: least and greatest by a metric's prefix.
_SANE = {
    "temperature_start": (-40.0, 120.0),
    "temperature_max": (-40.0, 120.0),
    "temperature_rise": (0.0, 100.0),
    "power": (0.0, 40.0),
    "power_net": (-40.0, 40.0),
    "gpu_busy": (0.0, 100.0),
    "gpu_frequency": (10.0, 5000.0),
    "cpu_frequency": (10.0, 6000.0),
    "duration": (1.0, 60_000.0),
    "tokens_per_second": (0.01, 2000.0),
    "rss_peak": (1.0, 4000.0),
}


def raw_runs(scene: Scene) -> dict[str, str]:
    """The complete runs of the store by name, each with the hash of its record."""
    return {
        f"{path.parts[-3]}/{path.parts[-2]}": sha256_file(path)
        for path in (scene.path / "results/raw").glob("*/[0-9]*/meta.json")
    }


def measured(scene: Scene) -> dict[str, dict[str, Any]]:
    """The complete measured runs of the store, by name."""
    return scene.project.raw_runs("measured")


def rows(scene: Scene) -> list[dict[str, str]]:
    """The rows of the table of cells."""
    with (scene.path / TABLE).open(newline="") as stream:
        return list(csv.DictReader(stream))


def nothing_lost(scene: Scene, before: dict[str, str]) -> None:
    """Every run that had finished is there, unchanged and right, and none counts twice."""
    after = raw_runs(scene)
    assert {name: after.get(name) for name in before} == before, "a finished run was lost or changed"
    store = RawStore(scene.path / "results/raw")
    for name in after:
        store.check(store.run(name))
    index = read_json(scene.path / f"results/{EXPERIMENT}/blocks/{DEVICE}.json")
    assert [run["role"] for run in index["runs"]] == ["idle", "measured"]
    assert index["unmeasured"] == {}
    assert list((store.root / ".drafts").glob("*")) == [], "a half-gathered run stays"


def table_right(scene: Scene, names: set[tuple[str, str]]) -> None:
    """The table has the rows that it always has, and no number in it is one that cannot be.

    Args:
        scene: after the start that finished the experiment.
        names: phase and metric of the rows without a fault; empty where a fault takes sensors away.
    """
    table = rows(scene)
    assert not names or {(row["phase"], row["metric"]) for row in table} == names
    values = {(row["phase"], row["metric"]): row for row in table}
    budget = yaml.safe_load((scene.path / "config/workloads/brief.yaml").read_text())["max_tokens"]
    assert float(values["decode", "tokens"]["median"]) == budget
    for (phase, metric), row in values.items():
        if not row["median"]:
            assert row["gate"], f"{phase} {metric} is missing without a reason"
            continue
        least, most = _SANE.get(metric.partition(".")[0], (-1e12, 1e12))
        assert least <= float(row["median"]) <= most, f"{phase} {metric} is {row['median']} {row['unit']}"


def withheld(scene: Scene, metrics: tuple[str, ...], because: str) -> str:
    """Metrics of the whole run have no number in the table; return why the first has none."""
    found = {row["metric"]: row for row in rows(scene) if row["phase"] == "run"}
    for metric in metrics:
        row = found.get(metric)
        if row is None:
            continue  # of a quantity without a sensor the table has no row
        assert not row["median"], f"{metric} is {row['median']} {row['unit']}"
        assert re.search(because, row["gate"]), row["gate"]
    return f"in the tables: {metrics[0]}: {found[metrics[0]]['gate']}"


def tables_follow(scene: Scene) -> None:
    """Everything is what the raw runs give: the content of `snakemake verify`."""
    config = yaml.safe_load((scene.path / "config/config.yaml").read_text())["analysis"]
    cells = read_json(scene.path / f"results/{EXPERIMENT}/cells.json")["cells"]
    weights = "results/weights/synthetic-llava-nano"
    roles = {"model": f"{weights}/model-Q4_0.json", "mmproj": f"{weights}/mmproj-f16.json"}
    made_of = {cell["cell"]: {"weights": roles, "settings": {"threads": 1}} for cell in cells}
    with contextlib.chdir(scene.path):
        found = verify(
            EXPERIMENT,
            "results",
            f"results/{EXPERIMENT}/cells.json",
            thresholds=config["gates"],
            bootstrap=config["bootstrap"],
            bounds={**config["bounds"], "made_of": {DEVICE: made_of}},
            devices=[DEVICE],
        )
    assert found == []


def nothing_stays(scene: Scene) -> None:
    """No process, no lock and no half-written file is left.

    The lock of this machine's cores may be somebody else's; of this scene nobody is left who could hold it.
    """
    assert scene.gone() == {}, "processes stay"
    device = yaml.safe_load((scene.path / f"config/devices/{DEVICE}.yaml").read_text())
    with workdir_lock(scene.path), device_lock(lock_name(device), deadline=5):
        pass
    with hold(scene.path / "phone.lock", "the phone", deadline=5):
        pass
    assert list(scene.phone.objects.glob("*/.*.part")) == [], "a part of a push stays on the phone"
    assert scene.phone.run_folder() is None, "a run's folder stays on the phone"


def settings(scene: Scene) -> dict[str, bytes]:
    """The phone's settings, and those of its files that can be set through sysfs, by path."""
    root = scene.phone.root
    wanted = ("scaling_governor", "scaling_min_freq", "scaling_max_freq", "input_suspend")
    paths = [*root.glob("data/settings/**/*"), *(p for name in wanted for p in root.glob(f"sys/**/{name}"))]
    return {str(path.relative_to(root)): path.read_bytes().strip() for path in paths if path.is_file()}


def settings_back(scene: Scene, before: dict[str, bytes]) -> None:
    """The phone has the settings that it had before the fault."""
    assert before, "the phone has no settings to compare"
    after = settings(scene)
    assert {name: after.get(name) for name in before} == before


def owner_is_root() -> bool:
    """Whether small file systems can be mounted here."""
    return os.geteuid() == 0
