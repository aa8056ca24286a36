"""Quantised weights.

results/weights/<model>/model-<quantisation>.{gguf,json}
"""


rule quantise_model:
    """A model at one quantisation, by the quantiser built from the pinned source."""
    input:
        bundle=quantiser_bundle,
        weights=multiext("results/weights/{model}/model-f16", ".gguf", ".json"),
    output:
        multiext("results/weights/{model}/model-{quantisation}", ".gguf", ".json"),
    log:
        "results/logs/quantise_model.{model}-{quantisation}.log",
    cache: "omit-software"
    threads: 2
    params:
        quantisation="{quantisation}",
        code=code_hash("weights/quantise.py", "weights/description.py"),
        quantiser=lambda wildcards: STUDY.models[wildcards.model]["quantiser"],
    script:
        "../scripts/quantise_model.py"
