"""A search for the settings with which one device runs one model fastest, where the experiment asks for one.

results/<experiment>/tune/space.json
results/<experiment>/tune/<device>.json
results/<experiment>/tune/{candidates,rungs,runs,front}.csv
results/<experiment>/tune/chosen.yaml
results/<experiment>/tune/tune.{svg,png}
"""

with stage.plain_errors():
    TUNING = tuning.wanted(STUDY)

# The library code that decides what runs next.
SEARCHING = ["analyse/tune", "analyse/ranks.py", "config/space.py", "config/tuning.py"]


rule tune:
    """The search's tables, its figure and what it chose; nothing else of the experiment is measured."""
    input:
        tuning.files_for(STUDY, EXPERIMENT),


rule resolve_tuning:
    """What the device's cores and the experiment's axes allow to try, and how often each runs in which rung."""
    input:
        identity=tune_identity,
    output:
        space=f"{EXPERIMENT}/tune/space.json",
    log:
        f"{LOGS}.resolve_tuning.log",
    threads: all_cores
    params:
        tuning=TUNING and TUNING.plain(),
        device=TUNING and STUDY.devices[TUNING.cell.device],
        code=code_hash(
            "config/space.py",
            "analyse/tune/plan.py",
            "analyse/tune/pairs.py",
            "cpulist.py",
            "devices/topology.py",
            "frameworks",
        ),
    script:
        "../scripts/resolve_tuning.py"


rule measure_tune:
    """Run round after round until the search is over, except for what the raw store has."""
    input:
        unpack(tune_files),
        space=f"{EXPERIMENT}/tune/space.json",
    output:
        index=f"{EXPERIMENT}/tune/{{device}}.json",
    log:
        f"{LOGS}.measure_tune.{{device}}.log",
    threads: device_threads
    params:
        block=block,
        tuning=TUNING and TUNING.plain(),
        weights=tune_weights(),
        gates=STUDY.analysis["gates"],
    script:
        "../scripts/measure_tune.py"


rule retune:
    """Search anew, whatever the raw store has; `tune` then uses the new runs."""
    input:
        unpack(tune_files),
        space=f"{EXPERIMENT}/tune/space.json",
    log:
        f"{LOGS}.retune.log",
    threads: all_cores
    params:
        block=TUNING and block_of(TUNING.cell.device),
        index=TUNING and f"{EXPERIMENT}/tune/{TUNING.cell.device}.json",
        tuning=TUNING and TUNING.plain(),
        weights=tune_weights(),
        gates=STUDY.analysis["gates"],
    script:
        "../scripts/retune.py"


rule tabulate_tune:
    """Candidates, rungs, runs and the front as tables, and the choice as an overlay."""
    input:
        index=tune_index,
        space=f"{EXPERIMENT}/tune/space.json",
        identity=tune_identity,
        cells=f"{EXPERIMENT}/cells.json",
    output:
        candidates=f"{EXPERIMENT}/tune/candidates.csv",
        rungs=f"{EXPERIMENT}/tune/rungs.csv",
        runs=f"{EXPERIMENT}/tune/runs.csv",
        front=f"{EXPERIMENT}/tune/front.csv",
        chosen=f"{EXPERIMENT}/tune/chosen.yaml",
    log:
        f"{LOGS}.tabulate_tune.log",
    params:
        raw=RAW,
        tuning=TUNING and TUNING.plain(),
        gates=STUDY.analysis["gates"],
        code=code_hash(*PARSING, *JUDGING, *SEARCHING),
    script:
        "../scripts/tabulate_tune.py"


rule draw_tune:
    """How much faster than the defaults each candidate was, rung by rung, and the front."""
    input:
        candidates=f"{EXPERIMENT}/tune/candidates.csv",
        rungs=f"{EXPERIMENT}/tune/rungs.csv",
        chosen=f"{EXPERIMENT}/tune/chosen.yaml",
        cells=f"{EXPERIMENT}/cells.json",
    output:
        multiext(f"{EXPERIMENT}/tune/tune", ".svg", ".png"),
    log:
        f"{LOGS}.draw_tune.log",
    params:
        objective=TUNING and TUNING.wanted["objective"],
        code=code_hash("analyse/figures", "analyse/tune/tables.py"),
    script:
        "../scripts/draw_tune.py"
