"""Command lines that are data: words of a version's quirks, with names in braces for what a cell fills in.

The programs of some frameworks are demonstrations that each spell their arguments differently, or that people
build for themselves. Their quirks in config/frameworks.yaml (or in an overlay) say how:

```yaml
arguments: [--model, "{model}", --image, "{image}", --prompt, "{prompt}", --limits, "{context}", …]
prompt: {first: "<image>\\nUSER: {text}\\nASSISTANT:", last: "USER: {text}\\n<image>\\nASSISTANT:"}
marker: <image>            # what stands for the image in the prompt, and must not be in the text
ignore_eos: [--ignore-eos] # further words for a workload that ignores the end of text
fixed: {context: 700}      # settings, or the temperature, that program or weights fix, with their values
```

Nothing is left to a program's default: a setting is among the words, or fixed and said to be so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pocketvlm.errors import ConfigError

_NAME = re.compile(r"\{([a-z_]+)\}")
_KEYS = ("arguments", "prompt", "marker", "ignore_eos", "fixed")


def argv(
    program: str,
    *,
    framework: str,
    version: str,
    files: Mapping[str, str],
    workload: Mapping[str, Any],
    settings: Mapping[str, int | bool | str],
    quirks: Mapping[str, Any],
    more: Mapping[str, str] | None = None,
    greedy: bool = False,
) -> list[str]:
    """Return the command of a cell.

    Args:
        program: its first word.
        framework, version: for messages.
        files: what stands for each file (`@weights/model`), by the name that the words have for it; each must
            be a word of its own.
        workload: `prompt`, `image_position`, `max_tokens`, `ignore_eos`, `temperature`, `seed`.
        settings: all of the framework's own.
        quirks: of the version, as above.
        more: further names that the words may have.
        greedy: whether the program always takes the likeliest token, whatever it is told.

    Raises:
        ConfigError: the quirks are incomplete, or cannot express the workload or the settings.
    """
    where = f"config/frameworks.yaml, {framework} {version}, quirks"
    words, fixed = _words(quirks, where), _fixed(quirks, where)
    asked = {name for word in words for name in _NAME.findall(word)}
    values = {
        **files,
        **(more or {}),
        "prompt": prompt_text(workload, quirks, where=where),
        "max_tokens": str(workload["max_tokens"]),
        "temperature": f"{workload['temperature']:g}",
        "seed": str(workload["seed"]),
        **{name: _text(value) for name, value in settings.items()},
    }
    if unknown := sorted(asked - set(values)):
        raise ConfigError(
            f"the arguments ask for {{{unknown[0]}}}, which nothing fills in",
            where=f"{where}.arguments",
            do=f"use some of {', '.join(sorted(values))}",
        )
    for name in ("prompt", "max_tokens", *files):
        if name not in asked:
            raise ConfigError(
                f"the arguments have no {{{name}}}",
                where=f"{where}.arguments",
                do="add it as the program spells it; without it every cell would run what the program has "
                "built in, and one that does not take it must be changed first",
            )
    chosen = dict(settings) if greedy else {**settings, "temperature": workload["temperature"]}
    for name, value in chosen.items():
        _check_setting(name, value, name in asked, fixed, where)
    if workload["temperature"] and "seed" not in asked:
        raise ConfigError(
            f"temperature is {workload['temperature']:g} and the arguments have no {{seed}}",
            where=f"{where}.arguments",
            do="add it, or set temperature: 0 in the workload",
        )
    filled = [_fill(word, values, files, where) for word in words]
    return [program, *filled, *(_ignoring(quirks, where) if workload["ignore_eos"] else ())]


def prompt_text(workload: Mapping[str, Any], quirks: Mapping[str, Any], *, where: str) -> str:
    """Return the prompt as the program takes it, the image's marker where the workload wants it.

    Raises:
        ConfigError: the quirks have no form of prompt for the image's position, or the text has the marker.
    """
    text, position = str(workload["prompt"]).strip(), workload["image_position"]
    marker, forms = quirks.get("marker"), quirks.get("prompt")
    form = forms.get(position) if isinstance(forms, Mapping) else None
    if not isinstance(form, str) or form.count("{text}") != 1:
        raise ConfigError(
            f"the quirks have no form of prompt with the image {position}",
            where=f"{where}.prompt.{position}",
            do="give it, with {text} once where the workload's prompt goes, or change image_position",
        )
    if marker and str(marker) in text:
        raise ConfigError(
            f"the prompt contains the image's marker {marker}",
            where=f"workload {workload.get('id', '')}: prompt",
            do="Take it out; image_position places the image",
        )
    return form.replace("{text}", text)


def _words(quirks: Mapping[str, Any], where: str) -> Sequence[str]:
    words = quirks.get("arguments")
    if (
        not isinstance(words, Sequence)
        or isinstance(words, str)
        or not all(isinstance(w, str) for w in words)
    ):
        raise ConfigError(
            "the quirks have no arguments",
            where=f"{where}.arguments",
            do="Give a list of words; numbers in quotes",
        )
    if unknown := sorted(set(quirks) - set(_KEYS)):
        raise ConfigError(
            f"unknown quirk {unknown[0]}", where=f"{where}.{unknown[0]}", do=f"use some of {', '.join(_KEYS)}"
        )
    return words


def _fixed(quirks: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    fixed = quirks.get("fixed") or {}
    if not isinstance(fixed, Mapping):
        raise ConfigError(
            f"fixed is {fixed!r}", where=f"{where}.fixed", do="Give names of settings with their values"
        )
    return fixed


def _check_setting(
    name: str, value: int | bool | str, asked: bool, fixed: Mapping[str, Any], where: str
) -> None:
    if asked and name in fixed:
        raise ConfigError(
            f"{name} is among the arguments and fixed",
            where=f"{where}.fixed.{name}",
            do="Take one of them out",
        )
    if not asked and name not in fixed:
        raise ConfigError(
            f"the arguments have no {{{name}}}, which would be left to the program's default",
            where=f"{where}.arguments",
            do=f"add it, or say under fixed which {name} the program or the weights have",
        )
    if not asked and fixed[name] != value:
        raise ConfigError(
            f"{name} is fixed to {fixed[name]!r} and a cell wants {value!r}",
            where=f"{where}.fixed.{name}",
            do=f"Give the cell {name}: {_text(fixed[name])}",
        )


def _fill(word: str, values: Mapping[str, str], files: Mapping[str, str], where: str) -> str:
    for name in _NAME.findall(word):
        if name in files and word != f"{{{name}}}":
            raise ConfigError(
                f"{{{name}}} is a part of the word {word!r}",
                where=f"{where}.arguments",
                do="Let it be a word of its own: it stands for a file on the device",
            )
    return _NAME.sub(lambda match: values[match[1]], word)


def _ignoring(quirks: Mapping[str, Any], where: str) -> Sequence[str]:
    words = quirks.get("ignore_eos")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ConfigError(
            "the workload ignores the end of text and the quirks do not say how",
            where=f"{where}.ignore_eos",
            do="Give the words for it ([] where the program never stops before its budget), or set "
            "ignore_eos: false in the workload",
        )
    return words


def _text(value: Any) -> str:
    return ("false", "true")[value] if isinstance(value, bool) else str(value)
