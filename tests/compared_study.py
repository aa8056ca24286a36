"""An experiment whose framework is a stand-in (`compared.c`), in builds slowed by known amounts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

from pocketvlm.build.toolchains import host_target
from pocketvlm.provenance import sha256_file, write_json
from pocketvlm.provision.cache import cache_root
from tests.experiments import cell_text, experiment_text
from tests.project import Project, checkout

FRAMEWORK = "llama.cpp-stand-in"
SOURCE = Path(__file__).with_name("compared.c")
RULES = (
    *(
        "resolve_experiment",
        "build_probe",
        "build_peaks",
        "identify_device",
        "measure_peaks",
        "measure_block",
    ),
    *("parse_block", "judge_block", "compute_bounds", "aggregate_tables", "compare_cells", "compare"),
    "remeasure",
)
"""The rules that these experiments may run: none that would build or fetch the real framework."""


def compiled(destination: Path, options: Mapping[str, str | int]) -> None:
    """Compile the stand-in for this machine, statically, with `-Dname=value` options."""
    zig = str(cache_root() / "zig")
    command = [*(sys.executable, "-m", "ziglang", "cc", "-target", host_target(), "-static", "-O1", "-s")]
    defined = [f"-D{name}={value}" for name, value in options.items()]
    destination.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [*command, *defined, "-o", str(destination), str(SOURCE)],
        env={**os.environ, "ZIG_GLOBAL_CACHE_DIR": zig, "ZIG_LOCAL_CACHE_DIR": zig},
        check=True,
        capture_output=True,
        timeout=300,
    )


def compared_study(
    folder: Path,
    builds: Mapping[str, Mapping[str, str | int]],
    *,
    repeats: int,
    name: str = "compared",
    head: str = "",
) -> Project:
    """Return a working copy with an experiment of one cell a build on this machine.

    Args:
        folder: where the working copy is made.
        builds: version of the stand-in to its `-D` options.
        repeats: runs of each.
        name: of the experiment.
        head: YAML before it, such as a section `compare`.
    """
    project = checkout(folder)
    # Runs of a tenth of a second, also where others compute beside them.
    project.edit("config/config.yaml", "min_phase_ms: 100", "min_phase_ms: 10")
    project.edit("config/config.yaml", "max_cv_percent: 40", "max_cv_percent: 400")
    project.edit("config/config.yaml", "agreement_percent: 2", "agreement_percent: 40")
    _weights(project.path / "results/weights/synthetic-llava-nano")
    path = project.path / "config/frameworks.yaml"
    frameworks = yaml.safe_load(path.read_text())
    like = frameworks["llama.cpp"]
    versions = dict.fromkeys(builds, like["versions"]["0.3.16"])
    frameworks[FRAMEWORK] = {**like, "versions": versions}
    path.write_text(yaml.safe_dump(frameworks, allow_unicode=True))
    for version, options in builds.items():
        _bundle(project.path / f"results/bundles/{FRAMEWORK}-{version}-cpu-{host_target()}", options)
    cells = (cell_text(framework=FRAMEWORK, version=f'"{version}"') for version in builds)
    text = experiment_text("stand-ins slowed by known amounts", *cells, repeats=repeats, warmups=1)
    (project.path / f"config/experiments/{name}.yaml").write_text(head + text)
    return project


def _weights(folder: Path) -> None:
    """Weights that nothing reads."""
    folder.mkdir(parents=True)
    for part in ("mmproj-f16", "model-Q4_0"):
        weights = folder / f"{part}.gguf"
        weights.write_bytes(part.encode())
        record = {"format": 1, "sha256": sha256_file(weights), "bytes": 10, "parameters": 1, "tensors": []}
        write_json(weights.with_suffix(".json"), record)


def _bundle(bundle: Path, options: Mapping[str, str | int]) -> None:
    program = bundle / "bin/llama-mtmd-cli"
    compiled(program, options)
    record = {"sha256": sha256_file(program), "bytes": program.stat().st_size, "mode": "0755"}
    manifest = {
        "format": 1,
        "name": bundle.name,
        "target": host_target(),
        "toolchain": {"name": "none", "version": "1"},
        "cpu_features": "x",
        "flags": {"c": [], "cxx": [], "link": [], "cmake": {}},
        "source": {"project": "stand-in", "version": "1", "sha256": "0" * 64, "commit": "0" * 40},
        "files": {"bin/llama-mtmd-cli": record},
    }
    write_json(bundle / "manifest.json", manifest)


def words(*targets: str) -> list[str]:
    """Return the words of a command that makes targets and builds no framework."""
    return [*targets, "--allowed-rules", *RULES]
