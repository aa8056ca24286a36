"""The audit: published values against each other, our own tables by the same measure, and hours on a battery.

results/paper/tables/audit.csv
results/paper/tables/published_battery_life.csv
results/<experiment>/tables/battery_life.csv
results/<experiment>/tables/self_audit.csv
"""


rule audit:
    """What the published values say of each other; needs no device and no weights."""
    input:
        list(PUBLISHED_AUDIT.values()),


rule audit_published:
    """The paper's values against each other: formulas, numbers and verdicts."""
    input:
        paper=audited_paper(),
    output:
        audit=PUBLISHED_AUDIT["audit"],
    log:
        "results/logs/audit_published.log",
    params:
        adapters={name: entry["adapter"] for name, entry in STUDY.frameworks.items() if "adapter" in entry},
        code=code_hash("analyse/audit", "config/paper.py", "frameworks"),
    script:
        "../scripts/audit_published.py"


rule estimate_published_battery_life:
    """The paper's case of a battery, by the model."""
    input:
        paper=audited_paper(),
    output:
        hours=PUBLISHED_AUDIT["battery_life"],
    log:
        "results/logs/estimate_published_battery_life.log",
    params:
        voltage_v=STUDY.analysis["battery_life"]["voltage_v"],
        code=code_hash("analyse/battery_life.py", "analyse/audit", "config/paper.py"),
    script:
        "../scripts/estimate_published_battery_life.py"


rule estimate_battery_life:
    """How long a battery lasts with the energies that were measured."""
    input:
        cells=f"{EXPERIMENT}/cells.json",
        summary=f"{EXPERIMENT}/tables/cells.csv",
    output:
        hours=f"{EXPERIMENT}/tables/battery_life.csv",
    log:
        f"{LOGS}.estimate_battery_life.log",
    params:
        battery_life=STUDY.analysis["battery_life"],
        code=code_hash("analyse/battery_life.py"),
    script:
        "../scripts/estimate_battery_life.py"


rule audit_tables:
    """Hold the experiment's own tables to the formulas; a contradiction ends the workflow here."""
    input:
        cells=f"{EXPERIMENT}/cells.json",
        runs=f"{EXPERIMENT}/tables/runs.parquet",
        summary=f"{EXPERIMENT}/tables/cells.csv",
        battery_life=f"{EXPERIMENT}/tables/battery_life.csv",
        phases=each_device(f"{EXPERIMENT}/records/{{device}}/phases.parquet"),
        samples=each_device(f"{EXPERIMENT}/records/{{device}}/samples.parquet"),
        answers=each_device(f"{EXPERIMENT}/records/{{device}}/answers.parquet"),
        identities=[identity_path(device) for device in DEVICES],
    output:
        audit=f"{EXPERIMENT}/tables/self_audit.csv",
    log:
        f"{LOGS}.audit_tables.log",
    params:
        devices=DEVICES,
        code=code_hash("analyse/audit", "frameworks"),
    script:
        "../scripts/audit_tables.py"
