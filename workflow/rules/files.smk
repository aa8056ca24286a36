"""Which files an experiment has, by what asks for them: tables, figures, the report, an archive."""


def each_device(pattern):
    return expand(pattern, device=DEVICES)


def cell_files(wildcards):
    """Where the records of a cell are: those of its device."""
    device = CELLS[wildcards.cell].device
    return {
        "samples": f"{EXPERIMENT}/records/{device}/samples.parquet",
        "phases": f"{EXPERIMENT}/records/{device}/phases.parquet",
        "identity": identity_path(device),
    }


def archive_path():
    return f"{EXPERIMENT}/{STUDY.name}.pocketvlm.tar.gz"


def origin_path():
    """In the folder of what was received: who packed it, with what."""
    return f"{ROOT}/origin.json"


def origin_files():
    """Who measured it, where that was somebody else."""
    return [origin_path()] if RECEIVED else []


def export_files():
    """Tables for a manuscript, and a trace of each measured run."""
    return [*tables("cells.md", "cells.tex"), *each_device(f"{EXPERIMENT}/traces/{{device}}")]


def everything(wildcards):
    """What the target `all` asks for."""
    return rules.all.input


def tables(*names):
    return [f"{EXPERIMENT}/tables/{name}" for name in names]


def figures():
    names = ["phases", "throughput", "energy", *[f"timeline-{cell}" for cell in AVAILABLE]]
    return expand(f"{EXPERIMENT}/figures/{{name}}.{{ending}}", name=names, ending=["svg", "png"])


def paper_values():
    """The published values that the experiment's numbers stand beside; nothing without a paper."""
    paper = STUDY.experiment.get("paper")
    return str(STUDY.paths["papers"] / f"{paper}.yaml") if paper else []


def paper_files():
    """The paper's tables and figures in its own layout."""
    if "paper" not in STUDY.experiment:
        return []
    names = expand("paper_table{number}.{ending}", number=[1, 2, 3], ending=["csv", "md", "tex"])
    drawn = expand("paper_figure{number}.{ending}", number=[1, 2, 3, 4], ending=["svg", "png"])
    return [*tables(*names), *[f"{EXPERIMENT}/figures/{name}" for name in drawn]]


def measured_devices():
    """The devices that have a cell which can be measured."""
    return [name for name in DEVICES if any(cell.unavailable is None for cell in STUDY.cells_of(name))]


def audited_paper():
    """The published values that the audit computes against each other, whatever the experiment."""
    return str(STUDY.paths["papers"] / f"{STUDY.analysis['audit']['paper']}.yaml")


def audit_files():
    """Published values and our own tables by one measure, and the hours on a battery that follow from each."""
    return [*PUBLISHED_AUDIT.values(), *tables("battery_life.csv", "self_audit.csv")]


def peak_files(wildcards):
    """What the peaks of a device come from: the benchmark where they are measured, else a quoted value's file."""
    device = STUDY.devices[wildcards.device]
    if is_measured(device):
        return {
            "bundle": f"results/bundles/peaks-{device['target']}",
            "identity": f"results/devices/{device['id']}/identity.json",
        }
    return {"paper": [str(path) for path in quoted_from(device, STUDY.paths["papers"])]}


def made_of_device(device):
    """What the bounds of a device's cells are computed from: weights records and settings."""
    return {
        cell.id: {
            "weights": {role: formats.record_path(path) for role, path in weights_files(cell).items()},
            "settings": dict(cell.settings),
        }
        for cell in cells_to_measure(device)
    }


def made_of(wildcards):
    return made_of_device(wildcards.device)


def weights_records(wildcards):
    return sorted({path for parts in made_of(wildcards).values() for path in parts["weights"].values()})


def ledger_settings():
    """What the ledger takes from the configuration."""
    return {
        "shapes": {name: entry["shape"] for name, entry in STUDY.models.items() if "shape" in entry},
        "bootstrap": STUDY.analysis["bootstrap"],
        "tolerance_percent": STUDY.analysis["ledger"]["tolerance_percent"],
    }


def ledger_files():
    """Published values, ours, others' and the physical bounds."""
    return tables("ledger.csv")


def soak_files():
    """The soak's tables and figure; none where the experiment has no soak, or an archive holds none."""
    return soaking.files(EXPERIMENT) if SOAK and not RECEIVED else []


def bench_recipe_of(wildcards):
    """How a framework's own benchmark is built: as the framework is, with what differs."""
    return {**recipe_of(wildcards), **STUDY.frameworks[wildcards.framework]["bench"]}


def bench_required_of(wildcards):
    """The files that the benchmark's bundle must have."""
    return [frameworks.bench(STUDY.frameworks[wildcards.framework]["adapter"]).PROGRAM]


def bench_bundle(cell):
    """Where the benchmark of a cell's framework, version, backend and target is."""
    return f"{ROOT}/bundles/bench-{cell.bundle}"


def bench_bundles_of(device):
    """The benchmarks that a device runs; none where nothing is to be run or the framework has none."""
    if device in UNIDENTIFIED:
        return []
    cells = [cell for cell in cells_to_measure(device) if "bench" in STUDY.frameworks[cell.framework]]
    return sorted({bench_bundle(cell) for cell in cells})


def bench_bundles(wildcards):
    return bench_bundles_of(wildcards.device)


def bench_of_device(device):
    """How the benchmark beside a device's cells is measured, in plain values."""
    cells = cells_to_measure(device)
    return {
        **benching.measured(BENCH),
        "bundles": {cell.id: bench_bundle(cell) for cell in cells},
        "quirks": {
            cell.id: STUDY.frameworks[cell.framework]["versions"][cell.version].get("bench", {})
            for cell in cells
        },
    }


def bench_of(wildcards):
    return bench_of_device(wildcards.device)


def report_page():
    return f"{EXPERIMENT}/report/index.html"


def tune_device():
    """The device of the experiment's search; asking for one without a search says what to write."""
    with stage.plain_errors():
        tuning.require(STUDY.experiment, STUDY.name, STUDY.paths["experiments"])
    return STUDY.cells[0].device


def tune_identity(wildcards):
    return identity_path(tune_device())


def tune_index(wildcards):
    return f"{EXPERIMENT}/tune/{tune_device()}.json"


def tune_weights():
    """The weights of a search's cell by role, at each quantisation that may be tried; none without a search."""
    return {name: weights_files(cell) for name, cell in TUNING.quantised.items()} if TUNING else {}


def tune_files(wildcards):
    """Every file that a search is made of: those of a block, and the other quantisations."""
    files = block_files_of(tune_device())
    more = {path for roles in tune_weights().values() for path in roles.values()}
    records = {f"{path.removesuffix('.gguf')}.json" for path in more}
    return {**files, "weights": sorted({*files["weights"], *more, *records})} if files else {}
