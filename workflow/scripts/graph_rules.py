"""Ask Snakemake for the rule graph of the experiment."""

import subprocess
import sys

from pocketvlm.errors import WorkloadError
from pocketvlm.provenance import atomic_file
from pocketvlm.stage import stage

with stage(snakemake) as log:
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--rulegraph", "dot", "all"]
    asked = subprocess.run(
        [*command, "--config", *snakemake.params.chosen],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    log.debug("%s", asked.stderr)
    if asked.returncode != 0:
        raise WorkloadError(
            f"snakemake could not draw its rule graph: {asked.stderr.strip().splitlines()[-1:]}",
            do="Read the log",
        )
    with atomic_file(snakemake.output.graph) as stream:
        stream.write(asked.stdout)
