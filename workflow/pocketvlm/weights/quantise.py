"""Quantising a model with the framework's own tool, built from the pinned source."""

from __future__ import annotations

import logging
import shutil
import subprocess
import tempfile
from pathlib import Path

from pocketvlm.errors import ConfigError, IntegrityError, WorkloadError
from pocketvlm.weights.description import read_header

log = logging.getLogger(__name__)

# general.file_type of a GGUF file: llama_ftype in llama.cpp's include/llama.h.
FILE_TYPES = {"F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q4_K_S": 14, "Q4_K_M": 15}
_DEADLINE_S = 3600


def quantise(quantiser: Path, source: Path, destination: Path, quantisation: str, threads: int) -> None:
    """Write a quantised copy of a model.

    Args:
        quantiser: the program `llama-quantize`.
        source: a GGUF file of float16 weights.
        destination: the file to write; it is complete and of that type, or absent.
        quantisation: the tool's name of the type, e.g. `Q4_0`.
        threads: threads that it may use.

    Raises:
        ConfigError: the quantisation is not known.
        IntegrityError: the source is no GGUF file, or the result is not of the type.
        WorkloadError: the tool failed; its last words are in the message and all of them in the log.
    """
    if quantisation not in FILE_TYPES:
        raise ConfigError(
            f"the quantisation {quantisation!r} is not known",
            where="config/models.yaml: quantisations",
            do=f"Use one of: {', '.join(FILE_TYPES)}",
        )
    read_header(source)
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=f".{destination.name}.") as folder:
        partial = Path(folder) / destination.name
        # Snakemake's cache takes the right to execute from what it stores.
        program = Path(folder) / quantiser.name
        shutil.copyfile(quantiser, program)
        program.chmod(0o700)
        command = [str(program), str(source), str(partial), quantisation, str(threads)]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_DEADLINE_S, check=False
        )
        said = (done.stdout + done.stderr).decode(errors="replace")
        log.info("%s", said)
        if done.returncode != 0:
            how = f"status {done.returncode}" if done.returncode > 0 else f"signal {-done.returncode}"
            # The reason stands in the line before the last one.
            last = "; ".join(said.strip().splitlines()[-2:]) or "it said nothing"
            raise WorkloadError(
                f"llama-quantize ended with {how} on {source.name}: {last}",
                where=str(source),
                do=f"If the weights are damaged, remove {source} so that they are made again",
            )
        if not partial.is_file():
            raise WorkloadError(
                f"llama-quantize ended well on {source.name} and wrote no file",
                where=str(quantiser),
                do="Remove the bundle so that it is built again",
            )
        check_type(partial, quantisation)
        partial.chmod(0o644)
        partial.replace(destination)


def check_type(path: Path, quantisation: str) -> None:
    """Raise IntegrityError when a file is no GGUF file of that quantisation."""
    field = read_header(path).get_field("general.file_type")
    found = int(field.contents()) if field else None
    if found != FILE_TYPES[quantisation]:
        raise IntegrityError(
            f"{path.name} has file type {found}, {quantisation} is {FILE_TYPES[quantisation]}",
            where=str(path),
            do="Remove it, then start again",
        )
