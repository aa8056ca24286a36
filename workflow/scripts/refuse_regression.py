"""Say what a comparison found, and end with an error where it is a regression or no judgement at all."""

from pocketvlm.analyse.compare.refusal import refuse
from pocketvlm.provenance import read_json
from pocketvlm.stage import stage

with stage(snakemake) as log:
    refuse(read_json(snakemake.input.findings), where=snakemake.input.page, log=log)
