"""Quantised weights.

results/weights/<model>/model-<quantisation>.{gguf,json}
"""

# The quantisations that are made here: those of synthetic presets, and those that the hub has no file of.
MADE_HERE = {model: [f"model-{q}" for q in STUDY.models[model]["quantisations"]] for model in PRESETS} | {
    model: [f"model-{q}" for q in hub.made_here(entry)] for model, entry in HUB.items()
}


rule quantise_model:
    """A model at one quantisation, by the quantiser built from the pinned source."""
    input:
        bundle=quantiser_bundle,
        weights=multiext("results/weights/{model}/model-f16", ".gguf", ".json"),
    output:
        multiext("results/weights/{model}/model-{quantisation}", ".gguf", ".json"),
    log:
        "results/logs/quantise_model.{model}-{quantisation}.log",
    wildcard_constraints:
        model=having(MADE_HERE),
    cache: "omit-software"
    threads: 2
    params:
        quantisation="{quantisation}",
        code=code_hash("weights/quantise.py", "weights/description.py"),
        quantiser=lambda wildcards: STUDY.models[wildcards.model]["quantiser"],
    script:
        "../scripts/quantise_model.py"
