"""A model folder of MNN's LLM engine: networks written as JSON, converted and quantised by MNN's own tool.

    config.json           what the engine must know
    llm_config.json       empty: the engine asks for it
    llm.mnn, .weight      the language model, its matrices quantised in blocks of 64
    visual.mnn, .weight   the vision tower and its projector, float16
    embeddings_bf16.bin   the embedding of every token
    tokenizer.txt         the vocabulary

The tool is `_tools` of the MNN wheel, a Python extension: it runs in an interpreter and a folder of its own,
because it takes the matrices of a network from a file of fixed name in the working directory.
"""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from pocketvlm.errors import ConfigError, WorkloadError
from pocketvlm.provenance import write_json
from pocketvlm.provision.tree import tree_sha256
from pocketvlm.weights.formats import take_weights
from pocketvlm.weights.mnn import llava
from pocketvlm.weights.mnn.graph import Graph

log = logging.getLogger(__name__)

BITS = {"INT8": "8", "INT4": "4"}
"""Quantisation to the bits of a weight; each block of 64 has a scale of its own."""

_BLOCK = "64"
# What the tool calls the matrices of the network that it reads (MNN 3.6.1).
_MATRICES = ".__convert_external_data.bin"
_CALL = "import sys; sys.path.insert(0, sys.argv[1]); import _tools; _tools.mnnconvert(['', *sys.argv[2:]])"
_DEADLINE_S = 3600


def convert(
    model: Path, tower: Path, library: Path, destination: Path, quantisation: str, record: Path
) -> None:
    """Convert a LLaVA to MNN's format at one quantisation, and write the record of the folder.

    Args:
        model, tower: GGUF files of float16, of the architectures `llama` and `clip`.
        library: folder of the unpacked MNN wheel.
        destination: the folder to make; complete, or absent.
        quantisation: a key of BITS.
        record: the record's file to write.

    Raises:
        ConfigError: the quantisation is not known.
        IntegrityError: a file is none that can be converted.
        WorkloadError: MNN's tool failed.
    """
    if quantisation not in BITS:
        raise ConfigError(
            f"MNN has no quantisation {quantisation!r} here",
            where="the table of models: formats, mnn",
            do=f"Use one of {', '.join(BITS)}",
        )
    language, vision = llava.Source.open(model, "llama"), llava.Source.open(tower, "clip")
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=f".{destination.name}.") as folder:
        made = Path(folder) / "made"
        made.mkdir()
        quantised = ["--weightQuantBits", BITS[quantisation], "--weightQuantBlock", _BLOCK]
        _network(
            lambda stream: llava.language(language, stream), "logits", made / "llm.mnn", library, quantised
        )
        _network(
            lambda stream: llava.vision(vision, stream),
            "image_embeds",
            made / "visual.mnn",
            library,
            ["--fp16"],
        )
        (made / "embeddings_bf16.bin").write_bytes(llava.embeddings(language))
        (made / "tokenizer.txt").write_text(llava.vocabulary(language))
        write_json(made / "config.json", llava.settings(language, vision))
        write_json(made / "llm_config.json", {})
        take_weights(made, tree_sha256(made), weights_format="mnn", destination=destination, record=record)


def _network(
    build: Callable[[BinaryIO], Graph], output: str, made: Path, library: Path, options: Sequence[str]
) -> None:
    """Write a network, and its matrices beside it, as `<made>` and `<made>.weight`."""
    with tempfile.TemporaryDirectory(dir=made.parent.parent) as folder:
        place = Path(folder)
        with (place / _MATRICES).open("wb") as stream:
            graph = build(stream)
        (place / "graph.json").write_text(json.dumps(graph.described([output])))
        plain = place / "plain.mnn"
        _tool(library, place, ["-f", "JSON", "--modelFile", "graph.json", "--MNNModel", plain.name], plain)
        (place / "graph.json").unlink()
        arguments = [
            "-f",
            "MNN",
            "--modelFile",
            plain.name,
            "--MNNModel",
            str(made.absolute()),
            "--saveExternalData",
        ]
        _tool(library, place, [*arguments, *options], made, Path(f"{made}.weight"))


def _tool(library: Path, place: Path, arguments: Sequence[str], *wanted: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", _CALL, str(library.absolute()), *arguments],
        cwd=place,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_DEADLINE_S,
        check=False,
    )
    said = (done.stdout + done.stderr).decode(errors="replace").strip()
    log.info("mnnconvert %s\n%s", " ".join(arguments), said)
    # It ends with status 0 whatever happens.
    lacking = [path.name for path in wanted if not path.is_file()]
    if done.returncode or lacking or re.search(r"(?i)\berror\b|can't open", said):
        how = f"status {done.returncode}{f' and made no {lacking[0]}' if lacking else ''}"
        raise WorkloadError(
            f"mnnconvert ended with {how}: {said.splitlines()[-1] if said else 'it said nothing'}",
            where=str(library),
            do="Read the job's log; remove the bundle if its files are damaged, so that it is made again",
        )
