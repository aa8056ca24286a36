"""Physical bounds, and the ledger: published values, ours, others' and the bounds side by side.

results/<experiment>/bounds/<device>.csv
results/<experiment>/tables/ledger.csv
"""


rule compute_bounds:
    """What no run on a device can exceed, from its peaks and from the tensors of the weights."""
    input:
        metrics=f"{EXPERIMENT}/records/{{device}}/metrics.parquet",
        index=f"{EXPERIMENT}/blocks/{{device}}.json",
        cells=f"{EXPERIMENT}/cells.json",
        peaks=f"{ROOT}/devices/{{device}}/peaks.json",
        weights=weights_records,
    output:
        bounds=f"{EXPERIMENT}/bounds/{{device}}.csv",
    log:
        f"{LOGS}.compute_bounds.{{device}}.log",
    params:
        made_of=made_of,
        margin_percent=STUDY.analysis["bounds"]["margin_percent"],
        code=code_hash("analyse/bounds.py", "analyse/records.py", "frameworks", "weights/cost.py"),
    script:
        "../scripts/compute_bounds.py"


rule write_ledger:
    """Each published value beside ours, others' measurements and the physical bound; ours alone without a paper."""
    input:
        paper=paper_values(),
        cells=f"{EXPERIMENT}/cells.json",
        summary=f"{EXPERIMENT}/tables/cells.csv",
        runs=f"{EXPERIMENT}/tables/runs.parquet",
        bounds=each_device(f"{EXPERIMENT}/bounds/{{device}}.csv"),
        peaks=each_device(f"{ROOT}/devices/{{device}}/peaks.json"),
    output:
        ledger=f"{EXPERIMENT}/tables/ledger.csv",
    log:
        f"{LOGS}.write_ledger.log",
    params:
        **ledger_settings(),
        code=code_hash(
            "analyse/ledger",
            "analyse/bounds.py",
            "analyse/paper",
            "analyse/stats.py",
            "analyse/figures/labels.py",
            "analyse/figures/reasons.py",
            "config/paper.py",
            "weights/cost.py",
            "weights/shapes",
        ),
    script:
        "../scripts/write_ledger.py"
