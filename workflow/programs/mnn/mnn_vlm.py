"""Answer one question about one image with MNN's LLM engine, and say when each phase begins.

It runs beside the unpacked wheels (`../lib`), in any Python that they were made for and that has NumPy. The
engine streams the answer on stdout; around it stand lines of this program, each flushed at once:

    phase = text_prefill | image_encode | other     a phase begins; loading does with the program
    load = 12.170 ms                                what the engine says of itself, at the end

The engine encodes the image and evaluates the prompt in one call. To see where one ends, the image is encoded
by asking for the prompt's tokens; then a prompt is answered that has the image's tokens in it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

import MNN.cv  # type: ignore[import-not-found]
import MNN.llm  # type: ignore[import-not-found]

IMAGE = "<img>image_0</img>"
"""Where a prompt's image is, for the engine: the first of those that come with it."""


def say(line: str) -> None:
    """Print a line and hand it on at once."""
    print(line, flush=True)


def fail(why: str) -> NoReturn:
    """End with a message and status 1."""
    sys.exit(f"mnn_vlm: {why}")


def arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", required=True, help="folder with config.json of a model in MNN's format")
    parser.add_argument("--image", required=True, help="PNG or JPEG file")
    parser.add_argument("--prompt", required=True, help=f"the question, with {IMAGE} where the image is")
    parser.add_argument("--max-tokens", required=True, type=int, help="tokens to sample")
    parser.add_argument("--threads", required=True, type=int, help="threads that compute")
    parser.add_argument("--precision", required=True, choices=("low", "normal", "high"))
    parser.add_argument("--memory", required=True, choices=("low", "normal", "high"))
    return parser.parse_args()


def encode(llm: Any, prompt: str, image: str, marks: Sequence[int]) -> str:
    """Encode the image and return the prompt with the tokens that now stand for it.

    Args:
        llm: the engine.
        prompt: with IMAGE in it.
        image: the file.
        marks: the model's tokens for begin and end of an image, and for each of its positions.
    """
    pixels = MNN.cv.imread(image)
    if pixels is None or not Path(image).is_file():
        fail(f"the image {image} cannot be read")
    say("phase = image_encode")
    # Width and height 0: those of the model.
    parts = {"text": prompt, "images": [{"data": pixels, "width": 0, "height": 0}]}
    tokens = llm.tokenizer_encode(parts)
    say("phase = text_prefill")
    begin, end, position = (llm.tokenizer_decode(token) for token in marks)
    text = prompt.replace(IMAGE, begin + position * tokens.count(marks[2]) + end)
    if marks[2] not in tokens or llm.tokenizer_encode(text) != tokens:
        fail("the image was not encoded, or the model's tokenizer does not know its own tokens again")
    say(f"image_tokens = {sum(token in marks for token in tokens)} tokens")
    return text


def main() -> None:
    """Run, and print what the engine says of itself."""
    chosen = arguments()
    config = Path(chosen.model, "config.json")
    try:
        about = json.loads(config.read_text())
        marks = [int(about[name]) for name in ("vision_start", "vision_end", "image_pad")]
    except (OSError, ValueError, KeyError) as error:
        fail(f"{config} is no description of a model that sees: {error!r}")
    llm = MNN.llm.create(str(config))
    llm.set_config(
        {
            "backend_type": "cpu",
            "thread_num": chosen.threads,
            "precision": chosen.precision,
            "memory": chosen.memory,
            "max_new_tokens": chosen.max_tokens,
            "sampler_type": "greedy",
            "use_template": False,
        }
    )
    llm.load()
    say("phase = text_prefill")
    llm.response(encode(llm, chosen.prompt, chosen.image, marks), True)
    done = llm.context
    # Of a pipe, unlike of a terminal, the engine's last line may come later: this one begins a line anyhow.
    say("\nphase = other")
    for name in ("load", "vision", "prefill", "decode", "sample"):
        say(f"{name} = {getattr(done, f'{name}_us') / 1000:.3f} ms")
    say(f"prompt_tokens = {done.prompt_len} tokens")
    say(f"answer_tokens = {len(done.output_tokens)} tokens")
    say(f"status = {done.status.name}")
    # The engine must be gone before the interpreter takes its modules away.
    del done, llm


if __name__ == "__main__":
    main()
