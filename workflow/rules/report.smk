"""The report, and the check that everything is what the raw runs give.

results/<experiment>/report/rulegraph.dot
results/<experiment>/report/index.html
"""


rule graph_rules:
    """The workflow's own rule graph, as it is for this experiment."""
    input:
        rules=["Snakefile", *sorted(str(path) for path in Path("workflow/rules").glob("*.smk"))],
    output:
        graph=f"{EXPERIMENT}/report/rulegraph.dot",
    log:
        f"{LOGS}.graph_rules.log",
    params:
        chosen=[
            f"archive={RECEIVED.path}" if RECEIVED else f"experiment={STUDY.name}",
            *([f"frameworks={config['frameworks']}"] if "frameworks" in config else []),
        ],
    script:
        "../scripts/graph_rules.py"


rule render_report:
    """One page that a person can read: what was measured, on what, and where each number comes from."""
    input:
        templates=sorted(str(path) for path in Path("workflow/report").rglob("*") if path.is_file()),
        figures=figures(),
        runs=f"{EXPERIMENT}/tables/runs.parquet",
        summary=f"{EXPERIMENT}/tables/cells.csv",
        cells=f"{EXPERIMENT}/cells.json",
        indexes=each_device(f"{EXPERIMENT}/blocks/{{device}}.json"),
        answers=each_device(f"{EXPERIMENT}/records/{{device}}/answers.parquet"),
        samples=each_device(f"{EXPERIMENT}/records/{{device}}/samples.parquet"),
        phases=each_device(f"{EXPERIMENT}/records/{{device}}/phases.parquet"),
        images=sorted(str(path) for path in configured.images(STUDY).values()),
        identities=[identity_path(device) for device in DEVICES],
        bundles=[path for device in DEVICES for path in bundles_of(device)],
        graph=f"{EXPERIMENT}/report/rulegraph.dot",
        # What an experiment may have beside its own tables: a name with no file leaves its section out.
        ledger=ledger_files(),
        self_audit=tables("self_audit.csv"),
        battery_life=tables("battery_life.csv"),
        audit=PUBLISHED_AUDIT["audit"],
        paper_battery_life=PUBLISHED_AUDIT["battery_life"],
        paper_tables=[path for path in paper_files() if path.endswith(".md")],
        paper_figures=[path for path in paper_files() if path.endswith(".svg")],
        exports=export_files(),
        received=tables("received.json") if RECEIVED else [],
        soak=[path for path in soak_files() if path.endswith("soak_summary.csv")],
        soak_figure=[path for path in soak_files() if path.endswith(".svg")],
    output:
        page=report_page(),
    log:
        f"{LOGS}.render_report.log",
    params:
        raw=RAW,
        on_device=["identify_device", "measure_peaks", "measure_block", "measure_soak"],
        code=code_hash(
            "analyse/report", "analyse/figures", "analyse/pages.py", "analyse/numbers.py", "analyse/dag.py"
        ),
    script:
        "../scripts/render_report.py"


rule verify:
    """Recompute every hash, record and table from the raw runs and say what differs."""
    input:
        tables("runs.parquet", "cells.csv"),
        ledger_files(),
        cells=f"{EXPERIMENT}/cells.json",
        paper=paper_values(),
        soak=soak_files(),
        identities=[identity_path(device) for device in DEVICES],
    log:
        f"{LOGS}.verify.log",
    params:
        experiment=STUDY.name,
        devices=DEVICES,
        gates=STUDY.analysis["gates"],
        bootstrap=STUDY.analysis["bootstrap"],
        bounds={
            "made_of": {device: made_of_device(device) for device in DEVICES},
            "margin_percent": STUDY.analysis["bounds"]["margin_percent"],
        },
        ledger=ledger_settings(),
        soak=SOAK,
    script:
        "../scripts/verify_results.py"
