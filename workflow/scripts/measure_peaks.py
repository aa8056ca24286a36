"""Find the peaks of a device."""

from pathlib import Path

from pocketvlm.peaks.measure import find_peaks
from pocketvlm.provenance import write_json
from pocketvlm.stage import RESULTS, stage

with stage(snakemake) as log:
    given = {name: Path(path) for name, path in snakemake.input.items() if name in ("bundle", "identity")}
    peaks = find_peaks(
        snakemake.params.device,
        papers=Path(snakemake.params.papers),
        results=Path(RESULTS),
        bundle=given.get("bundle"),
        identity=given.get("identity"),
    )
    write_json(snakemake.output.peaks, peaks)
    log.info("%s", peaks["source"] or peaks["reason"])
