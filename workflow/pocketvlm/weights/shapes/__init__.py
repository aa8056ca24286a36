"""Weights with the exact shape of a published model and without its meaning, written as they are quantised.

The dimensions are those of the published configurations, the tensors and their types those that llama.cpp's
converters and quantiser give, so that file sizes, token counts, memory and speed are the real ones; the
values are random. Nothing is held in memory but a piece of some MiB.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pocketvlm.errors import ConfigError, ProvisionError
from pocketvlm.weights.container import Progress, Tensor, write_gguf
from pocketvlm.weights.shapes.architecture import Shape, shape_from_config
from pocketvlm.weights.shapes.language import describe_language, language_tensors
from pocketvlm.weights.shapes.mixture import QUANTISATIONS
from pocketvlm.weights.shapes.vision import describe_vision, vision_tensors

__all__ = ["QUANTISATIONS", "Shape", "check", "parts", "pinned", "shape_from_config", "tensors", "write"]

# The name of the file of the vision tower and its projector, and the beginning of a language model's.
PROJECTOR = "mmproj-f16"
MODEL = "model-"
# What the projector is called where hashes are pinned.
PROJECTOR_PIN = "mmproj"

# What stands before the tensors: names, shapes and a vocabulary of some 50,000 words.
_HEADER_BYTES = 16 << 20


def parts(entry: Mapping[str, Any]) -> list[str]:
    """Return the files of a model that has a `shape`: the projector, and one for each quantisation."""
    return [PROJECTOR, *(f"{MODEL}{quantisation}" for quantisation in entry["quantisations"])]


def pinned(entry: Mapping[str, Any], part: str) -> str:
    """Return the sha256 that config/models.yaml pins a part to."""
    return str(entry["sha256"][PROJECTOR_PIN if part == PROJECTOR else part])


def check(models: Mapping[str, Mapping[str, Any]]) -> None:
    """Check the shapes of the table of models, without making anything.

    Raises:
        ConfigError: sizes do not fit each other, a quantisation cannot be written, or has no pinned hash.
    """
    for name, entry in models.items():
        if "shape" not in entry:
            continue
        shape = shape_from_config(name, entry["shape"])
        for part in parts(entry):
            tensors(shape, part)
            try:
                pinned(entry, part)
            except KeyError as error:
                raise ConfigError(
                    f"{part} of {name} has no pinned hash",
                    where=f"config/models.yaml, {name}: sha256",
                    do=f"Add {error.args[0]}: its sha256, or take the quantisation out",
                ) from None


def tensors(shape: Shape, part: str) -> list[Tensor]:
    """Return the tensors of one of a shape's files, in their order.

    Args:
        shape: the architecture.
        part: `mmproj-f16`, or `model-` and a quantisation of QUANTISATIONS.

    Raises:
        ConfigError: there is no such part.
    """
    if part == PROJECTOR:
        return list(vision_tensors(shape))
    quantisation = part.removeprefix(MODEL)
    if not part.startswith(MODEL) or quantisation not in QUANTISATIONS:
        raise ConfigError(
            f"{shape.name} cannot be written as {part!r}",
            where=f"config/models.yaml, {shape.name}: quantisations",
            do=f"Use one of: {', '.join(QUANTISATIONS)}",
        )
    return list(language_tensors(shape, quantisation))


def write(shape: Shape, part: str, destination: Path, progress: Progress = lambda done, total: None) -> None:
    """Write one of a shape's files as GGUF; it appears complete or not at all.

    Args:
        shape: the architecture and the seed.
        part: as for `tensors`.
        destination: the file to write; its folder is made.
        progress: called with the bytes written and to be written.

    Raises:
        ConfigError: there is no such part.
        ProvisionError: the disk has not enough room for it; nothing is written then.
    """
    wanted = tensors(shape, part)
    _check_space(destination, sum(tensor.bytes for tensor in wanted) + _HEADER_BYTES)
    if part == PROJECTOR:
        write_gguf(
            "clip", lambda writer: describe_vision(writer, shape), wanted, shape.seed, destination, progress
        )
    else:
        quantisation = part.removeprefix(MODEL)
        write_gguf(
            shape.language.architecture,
            lambda writer: describe_language(writer, shape, quantisation),
            wanted,
            shape.seed,
            destination,
            progress,
        )


def _check_space(destination: Path, needed: int) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(destination.parent).free
    if free < needed:
        raise ProvisionError(
            f"{destination.name} takes {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free",
            where=str(destination.parent),
            do="Make room there, or choose a smaller model or quantisation in the experiment",
        )
