"""What somebody else measured, from their archive: no rule that builds, fetches or measures is included with it.

results/received/<experiment>-<hash>/origin.json
results/received/<experiment>-<hash>/{raw,devices,bundles,weights,config}/...
results/received/<experiment>-<hash>/<experiment>/{cells.json,blocks/<device>.json}
results/received/<experiment>-<hash>/<experiment>/tables/received.json
"""


rule unpack_experiment:
    """Check every hash of an archive, and that its files belong together, before anything of it is kept."""
    input:
        archive=RECEIVED.path,
    output:
        records=RECEIVED.records,
        bundles=[directory(path) for path in RECEIVED.bundles],
        images=RECEIVED.images,
        origin=origin_path(),
    log:
        f"{LOGS}.unpack_experiment.log",
    params:
        contents=RECEIVED.manifest.id,
        code=code_hash("share"),
    script:
        "../scripts/unpack_experiment.py"


rule compare_received:
    """Whether the table that these raw runs give here is the one that the sender had."""
    input:
        sent=f"{ROOT}/sent/cells.csv",
        table=f"{EXPERIMENT}/tables/cells.csv",
        origin=origin_path(),
    output:
        comparison=f"{EXPERIMENT}/tables/received.json",
    log:
        f"{LOGS}.compare_received.log",
    params:
        code=code_hash("share", *SHAPING),
    script:
        "../scripts/compare_received.py"


rule unpack:
    """Everything of the archive's experiment: tables, figures and the report."""
    input:
        rules.compare_received.output,
        everything,
