"""Working copies of the project, as a user has one, in which the real DAG is run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.experiments import cell_text, experiment_text

ROOT = Path(__file__).parents[1]

# The smallest experiment that goes all the way: the small preset on this machine, well under a second a run.
MICRO = experiment_text(
    "the whole path in seconds, for tests",
    cell_text(),
    cell_text(quantisation="Q8_0", workload="other", settings="{threads: 1, batch: 512}"),
    warmups=1,
)


class Project:
    """A working copy of the project, as a user has one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.environment: dict[str, str] = {}

    def snakemake(self, *words: str, experiment: str = "micro") -> subprocess.CompletedProcess[str]:
        """Run `snakemake --cores 4 WORDS` here and return how it ended, with what it printed in `stdout`."""
        with self.start(*words, experiment=experiment) as process:
            out, _ = process.communicate(timeout=1800)
        return subprocess.CompletedProcess(process.args, process.returncode, out)

    def start(
        self, *words: str, experiment: str = "micro", config: tuple[str, ...] = ()
    ) -> subprocess.Popen[str]:
        """Start `snakemake --cores 4 WORDS` here, in a process group of its own; `config` is `key=value`."""
        command = [
            sys.executable,
            "-m",
            "snakemake",
            "--cores",
            "4",
            *words,
            "--config",
            f"experiment={experiment}",
            *config,
        ]
        return subprocess.Popen(
            command,
            cwd=self.path,
            # The copy's own library, not the one that the environment has installed.
            env={
                **os.environ,
                "PYTHONPATH": str(self.path / "workflow"),
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                **self.environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace a piece of a file that must be there exactly once."""
        file = self.path / path
        text = file.read_text()
        assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {path}"
        file.write_text(text.replace(old, new))

    def raw_runs(self, role: str | None = "measured") -> dict[str, dict[str, object]]:
        """The complete runs of the raw store by name, with their `meta.json`."""
        found = {}
        for path in sorted((self.path / "results/raw").glob("*/*/meta.json")):
            meta = json.loads(path.read_text())
            if role in (None, meta["role"]):
                found[f"{path.parts[-3]}/{path.parts[-2]}"] = meta
        return found

    def index(self, experiment: str = "micro", device: str = "local") -> list[dict[str, object]]:
        """The measured runs that the index of a block lists."""
        path = self.path / f"results/{experiment}/blocks/{device}.json"
        return [run for run in json.loads(path.read_text())["runs"] if run["role"] == "measured"]

    def copy(self, path: Path) -> Project:
        """A copy with times and links as they are, so that Snakemake finds everything up to date in it."""
        subprocess.run(["cp", "-a", f"{self.path}/.", str(path)], check=True)
        return Project(path)


def checkout(path: Path) -> Project:
    """Copy the files that git knows of, as they are now, to a new folder that is a repository of its own."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, path / name)
    (path / "config/experiments/micro.yaml").write_text(MICRO)
    shutil.copy2(path / "config/workloads/coffee.yaml", path / "config/workloads/other.yaml")
    return Project(path)
