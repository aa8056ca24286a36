"""What the rules share: the resolved experiment, wildcard constraints, and which files belong to what."""

import os
from pathlib import Path

from pocketvlm import stage
from pocketvlm.config import study
from pocketvlm.provenance import code_hash
from pocketvlm.build.toolchains import host_target
from pocketvlm.devices.locks import workdir_lock
from pocketvlm.provision import cache

with stage.config_errors():
    STUDY = study.load(config)

EXPERIMENT = f"results/{STUDY.name}"
DEVICES = sorted({cell.device for cell in STUDY.cells})
CELLS = {cell.id: cell for cell in STUDY.cells}
HOST = host_target()

# Sources, weights and builds are shared between working directories (rules with `cache:`).
OUTPUT_CACHE = cache.cache_root() / "outputs"
os.environ.setdefault("SNAKEMAKE_OUTPUT_CACHE", str(OUTPUT_CACHE))
if workflow.is_main_process:
    cache.prepare(OUTPUT_CACHE)


wildcard_constraints:
    framework="|".join(STUDY.frameworks),
    version=r"[0-9A-Za-z.+]+",
    backend="[a-z]+",
    target="[a-z0-9_]+(-[a-z0-9_]+)+",
    model="|".join(STUDY.models),
    role="model|mmproj",
    quantisation="[A-Z0-9_]+",
    device="|".join(DEVICES),
    cell="|".join(CELLS),


def begin():
    """Take the working directory for this workflow (released by the kernel) and forget old failures."""
    global WORKDIR_LOCK
    WORKDIR_LOCK = workdir_lock(Path.cwd())
    stage.clear_failures()


def finish():
    """Say last what failed and what to do."""
    for sentence in stage.failures():
        print(sentence, file=sys.stderr)


def source_of(wildcards):
    """The pinned source of a framework's version."""
    return STUDY.frameworks[wildcards.framework]["versions"][wildcards.version]["source"]


def source_sha256(wildcards):
    return source_of(wildcards)["sha256"]


def weights_sha256(wildcards):
    return STUDY.models[wildcards.model]["sha256"][wildcards.role]


def bundle_path(framework, version, backend, target):
    return f"results/bundles/{framework}-{version}-{backend}-{target}"


def quantiser_bundle(wildcards):
    """The host's build of the framework that quantises a model: the pinned source that runs it."""
    quantiser = STUDY.models[wildcards.model]["quantiser"]
    return bundle_path(quantiser["framework"], quantiser["version"], "cpu", HOST)


def weights_files(cell):
    """The weights of a cell by role: the quantised model, and its projector as it is."""
    folder = f"results/weights/{cell.model}"
    return {"model": f"{folder}/model-{cell.quantisation}.gguf", "mmproj": f"{folder}/mmproj-f16.gguf"}


def device_cells(wildcards):
    return STUDY.cells_of(wildcards.device)


def device_bundles(wildcards):
    return sorted({f"results/bundles/{cell.bundle}" for cell in device_cells(wildcards)})


def device_weights(wildcards):
    return sorted({path for cell in device_cells(wildcards) for path in weights_files(cell).values()})


def device_images(wildcards):
    return sorted({STUDY.workloads[cell.workload]["image_path"] for cell in device_cells(wildcards)})


def device_probe(wildcards):
    return f"results/bundles/probe-{STUDY.devices[wildcards.device]['target']}"


def device_threads(wildcards):
    """All cores when the device's cores are this machine's, so that no other job disturbs the runs."""
    return workflow.cores if STUDY.devices[wildcards.device]["host_cores"] else 1


def blocks(pattern, **wildcards):
    return expand(pattern, device=DEVICES, **wildcards)


def tables(*names):
    return [f"{EXPERIMENT}/tables/{name}" for name in names]


def figures():
    names = ["phases", "throughput", "energy", *[f"timeline.{cell}" for cell in CELLS]]
    return expand(EXPERIMENT + "/figures/{name}.{ending}", name=names, ending=["svg", "png"])


def report_page():
    return f"{EXPERIMENT}/report/index.html"
