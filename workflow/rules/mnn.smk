"""MNN: a framework that comes as a Python wheel, and LLaVA's weights in its format.

results/bundles/<framework>-<version>-<backend>-<target>/, of a wheel
results/weights/<model>/mnn-<quantisation>/model/ and model.json
"""


rule unpack_wheel:
    """A framework's wheel, unpacked, and the program that calls it."""
    input:
        programs=wheel_programs,
    output:
        directory("results/bundles/{framework}-{version}-{backend}-{target}"),
    log:
        "results/logs/unpack_wheel.{framework}-{version}-{backend}-{target}.log",
    wildcard_constraints:
        framework=of_source(sources.WHEEL),
    cache: "omit-software"
    params:
        wheel=pinned_source,
        target="{target}",
        required=required_of,
        code=code_hash("build/wheel.py", "build/bundle.py", "provision/wheel.py", "provision/zipped.py"),
    script:
        "../scripts/unpack_wheel.py"


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
