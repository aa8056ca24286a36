"""Download a framework's pinned source archive."""

from pathlib import Path

from pocketvlm.provision import cache, sdist
from pocketvlm.stage import stage

with stage(snakemake) as log:
    source = snakemake.params.source
    destination = Path(snakemake.output[0])
    sdist.download(source["project"], source["version"], source["sha256"], destination)
    cache.register(destination)
    log.info("%s %s, sha256 %s", source["project"], source["version"], source["sha256"])
