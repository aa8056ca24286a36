"""Two sides of the experiment, one beside the other, with an exit status that a continuous integration can use.

results/<experiment>/compare/{comparison,answers}.csv
results/<experiment>/compare/findings.{json,md}
results/<experiment>/compare/comparison.{svg,png}
"""


rule compare_cells:
    """Ratios with intervals from interleaved pairs, answers that changed, a sentence a finding, and a figure."""
    input:
        runs=f"{EXPERIMENT}/tables/runs.parquet",
        indexes=each_device(f"{EXPERIMENT}/blocks/{{device}}.json"),
        answers=each_device(f"{EXPERIMENT}/records/{{device}}/answers.parquet"),
        cells=comparing.checked(STUDY, config, f"{EXPERIMENT}/cells.json"),
    output:
        comparison=f"{EXPERIMENT}/compare/comparison.csv",
        answers=f"{EXPERIMENT}/compare/answers.csv",
        findings=f"{EXPERIMENT}/compare/findings.json",
        page=f"{EXPERIMENT}/compare/findings.md",
        figure=multiext(f"{EXPERIMENT}/compare/comparison", ".svg", ".png"),
    log:
        f"{LOGS}.compare_cells.log",
    params:
        comparison=comparing.comparison_for(STUDY, config),
        confidence=STUDY.analysis["bootstrap"]["confidence"],
        code=code_hash(
            "analyse/compare",
            *[
                f"analyse/{name}.py"
                for name in ("ranks", "records", "metrics", "variation", "numbers", "manuscript")
            ],
            "analyse/figures",
        ),
    script:
        "../scripts/compare_cells.py"


rule compare:
    """End with an error where side b is slower, or where what was to be judged could not be."""
    input:
        findings=f"{EXPERIMENT}/compare/findings.json",
        page=f"{EXPERIMENT}/compare/findings.md",
        figure=f"{EXPERIMENT}/compare/comparison.svg",
    log:
        f"{LOGS}.compare.log",
    script:
        "../scripts/refuse_regression.py"
