"""What the rules share: the resolved experiment, wildcard constraints, and which files belong to what."""

import os
import re
import sys
from contextlib import ExitStack
from pathlib import Path

from pocketvlm import frameworks, stage
from pocketvlm.config import apps, comparing, soaking, study, tuning
from pocketvlm.provenance import code_hash
from pocketvlm.build.toolchains import host_target
from pocketvlm.devices.locks import workdir_lock
from pocketvlm.peaks.measure import is_measured, quoted_from
from pocketvlm.measure import absence
from pocketvlm.measure.state.left import give_back_left
from pocketvlm.provision import cache, sources
from pocketvlm.share import configured
from pocketvlm.share.pack import SHAPING
from pocketvlm.share.unpack import look_into
from pocketvlm.weights import formats, hub, lock, shapes

with stage.plain_errors():
    # With an archive the experiment is the archive's, and what it holds stands in the place of measuring.
    RECEIVED = look_into(str(config["archive"]), config) if "archive" in config else None
    STUDY = RECEIVED.study if RECEIVED else study.load(config)
    ABSENT = {} if RECEIVED else absence.absent_devices(STUDY, Path("results"))
    STUDY = absence.rows_for(STUDY, ABSENT)
    hub.check(STUDY.models)
    shapes.check(STUDY.models)
    LOCK_FILE = lock.lock_path(STUDY.paths["models"])
    LOCK = lock.load_lock(LOCK_FILE)
    HOST = host_target()
    CACHE = cache.cache_root() / "outputs"

# Where the results that later stages read are: one's own, or those of an archive.
ROOT = RECEIVED.root if RECEIVED else "results"
EXPERIMENT = f"{ROOT}/{STUDY.name}"
RAW = f"{ROOT}/raw"
# How the logs of this experiment begin.
LOGS = f"results/logs/{RECEIVED.manifest.name if RECEIVED else STUDY.name}"
# Of the published values alone: no experiment and no archive changes it.
PUBLISHED_AUDIT = {
    "audit": "results/paper/tables/audit.csv",
    "battery_life": "results/paper/tables/published_battery_life.csv",
}
SOAK = soaking.wanted(STUDY.experiment)
WORKDIR = ExitStack()
DEVICES = sorted({cell.device for cell in STUDY.cells})
# The devices that `inspect` looks at.
INSPECTED = [config["device"]] if "device" in config else DEVICES
CELLS = {cell.id: cell for cell in STUDY.cells}
AVAILABLE = {name: cell for name, cell in CELLS.items() if cell.unavailable is None}
# Devices of which nothing is known: they were never there, or no cell needs them.
UNIDENTIFIED = {name for name, device in ABSENT.items() if not device.identified}
if RECEIVED:
    UNIDENTIFIED = RECEIVED.unidentified

# Where the weights of each model come from, which decides the rule that makes them.
PRESETS = [name for name, entry in STUDY.models.items() if "preset" in entry]
SHAPES = {name: entry for name, entry in STUDY.models.items() if "shape" in entry}
HUB = {name: entry for name, entry in STUDY.models.items() if hub.is_hub(entry)}

# Sources, weights and builds are shared between working directories (rules with `cache:`).
OUTPUT_CACHE = Path(os.environ.setdefault("SNAKEMAKE_OUTPUT_CACHE", str(CACHE)))
# The library that draws would keep its font list in the home folder.
os.environ.setdefault("MPLCONFIGDIR", str(cache.cache_root() / "matplotlib"))
if workflow.is_main_process:
    cache.prepare(OUTPUT_CACHE, Path("results"))
    # Before anything else of any experiment, and with -n, too: a phone must not wait for its settings.
    give_back_left(report=lambda line: print(line, file=sys.stderr))


def one_of(names):
    """A pattern that matches these names and nothing else."""
    return "|".join(re.escape(name) for name in names)


def versioned(frameworks):
    """A pattern of frameworks, each only before one of its versions: one's name may begin with another's."""
    return "|".join(
        f"{re.escape(name)}(?=-({one_of(entry['versions'])})[-.])" for name, entry in frameworks.items()
    )


def having(parts):
    """A pattern of models, each only before its own parts: {model: parts} of the files `<model>/<part>.…`."""
    patterns = [f"{re.escape(model)}(?=/({one_of(names)})\\.)" for model, names in parts.items() if names]
    return "|".join(patterns) or "(?!)"


def of_source(*kinds):
    """A pattern of frameworks, each only before those of its versions that come from such a source."""

    def of_kind(entry):
        return [v for v, its in entry["versions"].items() if its.get("source", {}).get("kind") in kinds]

    found = {name: {"versions": of_kind(entry)} for name, entry in STUDY.frameworks.items() if of_kind(entry)}
    return versioned(found) or "(?!)"


def converted_to(weights_format):
    """A pattern of models, each only before the quantisations that are made here in a format."""
    patterns = [
        f"{re.escape(model)}(?=/{weights_format}-({one_of(made)})/)"
        for model, entry in STUDY.models.items()
        if (made := formats.converted(entry, weights_format))
    ]
    return "|".join(patterns) or "(?!)"


wildcard_constraints:
    framework=versioned(STUDY.frameworks),
    version=r"[0-9A-Za-z.+]+",
    backend="[a-z]+",
    target="[a-z0-9_]+(-[a-z0-9_]+)+",
    model=one_of(STUDY.models),
    role="model|mmproj",
    quantisation="[A-Z0-9_]+",
    device=one_of({*DEVICES, *INSPECTED}),
    cell=one_of(CELLS),


def begin():
    """Hold the working directory until this process ends, and forget the failures of earlier starts."""
    with stage.plain_errors():
        WORKDIR.enter_context(workdir_lock(Path.cwd()))
    stage.clear_failures()


def finish():
    """Say last what failed and what to do."""
    stage.report_failures()


def adapter_of(cell):
    """The module that knows the command line of a cell's framework."""
    return frameworks.command(STUDY.frameworks[cell.framework]["adapter"])


def weights_files(cell):
    """The weights of a cell by role, in its framework's format."""
    command = adapter_of(cell)
    return formats.paths(
        f"{ROOT}/weights/{cell.model}",
        cell.quantisation,
        weights_format=command.WEIGHTS,
        roles=command.ROLES,
    )


def identity_path(device):
    """What a device is, or what stands in its place when it could not be asked."""
    if device in UNIDENTIFIED:
        return f"{EXPERIMENT}/absent/{device}.json"
    return f"{ROOT}/devices/{device}/identity.json"


def identity(wildcards):
    return identity_path(wildcards.device)


def absent_reason(wildcards):
    """Why nothing can be measured on a device; None when it can."""
    device = ABSENT.get(wildcards.device)
    return device and device.reason


def cells_to_measure(device):
    return [cell for cell in AVAILABLE.values() if cell.device == device]


def bundles_of(device):
    """The bundles that a device runs, the probe's last; none where nothing is to be run."""
    if device in UNIDENTIFIED:
        return []
    frameworks = sorted({f"{ROOT}/bundles/{cell.bundle}" for cell in cells_to_measure(device)})
    return [*frameworks, f"{ROOT}/bundles/probe-{STUDY.devices[device]['target']}"]


def block_files_of(device):
    """Every file that a device's block is made of; none where nothing is to be run."""
    if device in UNIDENTIFIED:
        return {}
    cells = cells_to_measure(device)
    return {
        "identity": identity_path(device),
        "bundles": bundles_of(device),
        "weights": sorted(
            {
                file
                for cell in cells
                for path in weights_files(cell).values()
                for file in (path, formats.record_path(path))
            }
        ),
        "images": sorted({STUDY.workloads[cell.workload]["image_path"] for cell in cells}),
    }


def block_files(wildcards):
    return block_files_of(wildcards.device)


def block_of(device):
    """How a device's block is measured, in plain values: a change of one of them looks at the block again."""
    return {
        "experiment": STUDY.name,
        "device": STUDY.devices[device],
        "probe": None if device in UNIDENTIFIED else bundles_of(device)[-1],
        "absent": ABSENT[device].reason if device in ABSENT else None,
        "rows": STUDY.rows_for_absent,
        "unmeasured": {
            cell.id: cell.unavailable for cell in STUDY.cells_of(device) if cell.unavailable is not None
        },
        "protocol": {
            **{
                name: STUDY.experiment[name]
                for name in ("repeats", "warmups", "idle_s", "deadline_s", "order_seed")
            },
            "state": dict(STUDY.experiment.get("state", {})),
            "responsiveness": dict(STUDY.experiment.get("responsiveness", {})),
            "heat": dict(STUDY.experiment.get("heat", {})),
        },
        "cells": [
            {
                "cell": cell.id,
                "adapter": STUDY.frameworks[cell.framework]["adapter"],
                "version": cell.version,
                "backend": cell.backend,
                "bundle": f"results/bundles/{cell.bundle}",
                "weights": weights_files(cell),
                "workload": STUDY.workloads[cell.workload],
                "model": {"chat_template": STUDY.models[cell.model]["chat_template"]},
                "settings": dict(cell.settings),
                "quirks": STUDY.frameworks[cell.framework]["versions"][cell.version].get("quirks", {}),
                **app_of_cell(cell),
            }
            for cell in cells_to_measure(device)
        ],
    }


def app_of_cell(cell):
    """How a cell is measured through an app, where it is."""
    app = STUDY.frameworks[cell.framework]["versions"][cell.version].get("app")
    if app is None:
        return {}
    where = f"{cell.framework} {cell.version}: app"
    return {"app": apps.of_cell(app, cell=cell, workload=STUDY.workloads[cell.workload], where=where)}


def block(wildcards):
    return block_of(wildcards.device)


def device_config(wildcards):
    return STUDY.devices[wildcards.device]


def probe_of(wildcards):
    return f"results/bundles/probe-{device_config(wildcards)['target']}"


def all_cores(wildcards):
    return workflow.cores


def device_threads(wildcards):
    """All cores when the device's cores are this machine's, so that no other job disturbs the runs."""
    return workflow.cores if device_config(wildcards)["host_cores"] else 1
