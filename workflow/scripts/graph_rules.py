"""Ask Snakemake for the rule graph of the experiment."""

import subprocess
import sys

from pocketvlm.provenance import atomic_file
from pocketvlm.stage import stage

with stage(snakemake):
    command = [sys.executable, "-m", "snakemake", "--rulegraph", "dot", "all"]
    asked = subprocess.run(
        [*command, "--config", f"experiment={snakemake.params.experiment}"],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    with atomic_file(snakemake.output.graph) as stream:
        stream.write(asked.stdout)
