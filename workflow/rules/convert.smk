"""Weights in the format of a framework whose own tool converts them.

results/weights/<model>/mnn-<quantisation>/model/ and model.json
"""


rule convert_mnn:
    """A LLaVA's language model and vision tower as MNN's engine reads them, the same weights as in GGUF."""
    input:
        bundle=converter_bundle,
        weights=expand(
            "results/weights/{{model}}/{role}-f16.{ending}",
            ending=["gguf", "json"],
            role=["model", "mmproj"],
        ),
    output:
        weights=directory("results/weights/{model}/mnn-{quantisation}/model"),
        record="results/weights/{model}/mnn-{quantisation}/model.json",
    log:
        "results/logs/convert_mnn.{model}-{quantisation}.log",
    wildcard_constraints:
        model=converted_to("mnn"),
    params:
        code=code_hash("weights/mnn", "weights/formats.py"),
    script:
        "../scripts/convert_mnn.py"
