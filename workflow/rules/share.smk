"""One archive of an experiment, to be sent to others. What is done with one is in received.smk.

results/<experiment>/<experiment>.pocketvlm.tar.gz
"""


rule pack_experiment:
    """Check that raw runs and all that says what they are belong together, and write them to one archive."""
    input:
        indexes=each_device(f"{EXPERIMENT}/blocks/{{device}}.json"),
        cells=f"{EXPERIMENT}/cells.json",
        identities=[identity_path(device) for device in DEVICES],
        peaks=each_device(f"{ROOT}/devices/{{device}}/peaks.json"),
        bundles=sorted({path for device in DEVICES for path in bundles_of(device)}),
        weights=sorted(
            {
                path
                for device in DEVICES
                for path in block_files_of(device).get("weights", [])
                if path.endswith(".json")
            }
        ),
        images=sorted(str(path) for path in configured.images(STUDY).values()),
        table=f"{EXPERIMENT}/tables/cells.csv",
    output:
        archive=archive_path(),
    log:
        f"{LOGS}.pack_experiment.log",
    params:
        experiment=STUDY.name,
        config=configured.written(STUDY),
        images={name: str(path) for name, path in configured.images(STUDY).items()},
        code=code_hash("share"),
    script:
        "../scripts/pack_experiment.py"


rule pack:
    """The experiment's archive."""
    input:
        archive_path(),


rule unpack:
    """Say which archive: with one, this target is in received.smk."""
    log:
        "results/logs/unpack.log",
    script:
        "../scripts/unpack_experiment.py"
