"""The bound on a published value of what was not measured here: quoted peaks, and the shape of the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pocketvlm.analyse.bounds import Counts, Limit, cell_bounds, limits_of
from pocketvlm.config.paper import Paper, Stack
from pocketvlm.weights.cost import pseudo_record
from pocketvlm.weights.shapes import MODEL, PROJECTOR, QUANTISATIONS, shape_from_config, tensors

# What llama.cpp caches keys and values as unless told otherwise.
_CACHE_TYPES = ("f16", "f16")


def published_limits(
    paper: Paper,
    stack: Stack,
    *,
    quantisation: str,
    backend: str,
    peaks: Mapping[str, Any],
    shapes: Mapping[str, Mapping[str, Any]],
) -> tuple[dict[tuple[str, str], Limit], str, int]:
    """Return the bounds of a stack on a device by phase and metric, what they stand on, and prompt tokens.

    Tokens are those that the paper prints, of two that contradict each other the fewer; a prompt of which it
    prints none is the image and one token.

    Args:
        paper: the published values.
        stack: the stack.
        quantisation: of the weights.
        backend: where it computes.
        peaks: `peaks.json` of the device.
        shapes: `shape` of the models of config/models.yaml by the model's name.

    Returns:
        No bounds, and why as text, when the model's shape is not known at this quantisation.
    """
    name = f"shape-{stack.model}"
    if name not in shapes:
        return {}, f"the shape of {stack.model} is not in the table of models", 0
    if quantisation not in QUANTISATIONS:
        return {}, f"the shape of {stack.model} is not known at {quantisation}", 0
    shape = shape_from_config(name, shapes[name])
    told = paper.at("text").get(stack.id, {})
    prompt = paper.told(stack.id, "prompt_tokens") if "prompt_tokens" in told else None
    text = int(prompt.low) - shape.image_tokens if prompt else 1
    answers = [paper.answer_tokens(stack.id)]
    if "generated_tokens" in told:
        answers.append(paper.told(stack.id, "generated_tokens"))
    counts = Counts(
        text_prefill=max(text, 1),
        image_prefill=shape.image_tokens,
        decode=min((int(answer.low) for answer in answers if answer), default=None),
    )
    rows = cell_bounds(
        stack.id,
        peaks=peaks,
        backend=backend,
        records={
            "model": pseudo_record(tensors(shape, f"{MODEL}{quantisation}")),
            "mmproj": pseudo_record(tensors(shape, PROJECTOR)),
        },
        cache_types=_CACHE_TYPES,
        counts=counts,
        margin_percent=0,
    )
    found = {(phase, metric): limit for (_, phase, metric), limit in limits_of(rows).items()}
    words = f"{peaks['device']}, the shape of {stack.model} at {quantisation}"
    return found, words, max(text, 1) + shape.image_tokens
