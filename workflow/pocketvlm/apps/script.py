"""The script of an app: how a person would use it, as data.

    prepare:                      # before the recording begins
      - start: {}
      - push_image: {}
      - wait: {text: MLC Chat}
    run:                          # recorded
      - tap: {id: load}
      - wait: {text: Ready}
        phase: load
      - type: "{prompt}"
        into: {id: input}
      - tap: {id: send}
      - wait: {log: "first token"}
        phase: [text_prefill, image_encode, image_prefill]
      - wait: {id: stats}
        phase: decode
      - read: {id: stats}
        as: stats

One rule says what is measured: a `wait` with a `phase` is the app's own time, from the end of the step before
it to the moment at which what is waited for is there. All other time of the recording is interaction.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pocketvlm.apps import keys
from pocketvlm.apps.screen import Selector
from pocketvlm.errors import ConfigError
from pocketvlm.frameworks import PHASES

Kind = Literal["start", "push_image", "tap", "type", "key", "scroll", "wait", "read"]
KINDS: tuple[Kind, ...] = ("start", "push_image", "tap", "type", "key", "scroll", "wait", "read")
VARIABLES = ("prompt", "image", "model", "max_tokens")
"""What `{name}` may stand for: of the workload, the image's name on the phone, the model's in the app."""
KEYS = {"back": 4, "home": 3, "enter": 66, "escape": 111, "tab": 61, "delete": 67}
"""Names of keys that a script may press, and their codes (android.view.KeyEvent)."""
MEASURED = tuple(phase for phase in PHASES if phase != "other")
"""The phases that a wait may have; what is neither of them nor interaction, an app does not show."""
TIMEOUT_S = 20.0
"""How long a step may take that says nothing else."""
_VARIABLE = re.compile(r"\{([a-z_]+)\}")
_SELECTORS = ("id", "text", "contains", "matches", "description")


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        kind: what is done.
        where: its place in the script, for messages: `run.3`.
        selector: the view that is tapped, typed into, waited for or read.
        text: what is typed, or the name of the key.
        log: a regular expression that a line of the app's own log matches: waited for, or read.
        gone: wait until the view is not there any more.
        direction: of a scroll, where the content moves: `up` or `down`.
        phases: what the app computes while it is waited for; several that cannot be told apart are one span.
        timeout_s: how long the step may take.
        every_s: seconds between two looks of a wait; each look at the screen costs the phone some work.
        name: under which a text that was read is kept.
    """

    kind: Kind
    where: str
    selector: Selector | None = None
    text: str = ""
    log: str | None = None
    gone: bool = False
    direction: str = ""
    phases: tuple[str, ...] = ()
    timeout_s: float = TIMEOUT_S
    every_s: float = 0.5
    name: str = ""

    def __str__(self) -> str:
        aim = (
            f"log {self.log!r}" if self.log is not None else str(self.selector or self.text or self.direction)
        )
        return f"{self.kind} {aim}{' gone' if self.gone else ''}".strip()


@dataclass(frozen=True)
class Script:
    """What is done before the recording and in it."""

    prepare: tuple[Step, ...] = ()
    run: tuple[Step, ...] = field(default=())


def parse(given: Mapping[str, Any], *, where: str, variables: Mapping[str, str]) -> Script:
    """Return a script with its variables filled in.

    Args:
        given: `prepare` and `run`, valid by the schema `app`.
        where: the file and key, for messages.
        variables: what each of VARIABLES stands for.

    Raises:
        ConfigError: a variable or a phase is not known, a pattern is none, a text cannot be typed, or the
            steps cannot follow each other so.
    """
    script = Script(
        *(tuple(_steps(given.get(part, ()), f"{where}.{part}", variables)) for part in ("prepare", "run"))
    )
    for step in script.prepare:
        if step.phases:
            raise ConfigError(
                f"the step {step} has a phase and comes before the recording", where=step.where,
                do="Move it to `run`, or take the phase out",
            )  # fmt: skip
    if not any(step.kind == "start" for step in script.prepare):
        raise ConfigError(
            "the app is never started", where=f"{where}.prepare",
            do="Write `start: {}` there: the recording needs to know the app's process",
        )  # fmt: skip
    for step in script.run:
        if step.kind == "start":
            raise ConfigError(
                "the app is started within the recording, which has to know its process before",
                where=step.where,
                do="Start it in `prepare`; loading a model, by a tap, belongs into `run`",
            )  # fmt: skip
    _check_phases(script.run, where)
    names = [step.name for step in script.run if step.kind == "read"]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"two texts are read as {name!r}", where=f"{where}.run", do="Give each a name of its own"
            )
    return script


def _check_phases(steps: Sequence[Step], where: str) -> None:
    if not any("decode" in step.phases for step in steps):
        raise ConfigError(
            "no step waits for the phase decode, so that nothing of the answer would be measured",
            where=f"{where}.run",
            do="Give the wait for the end of the answer `phase: decode`, or a list that has decode in it",
        )
    seen: list[str] = []
    for step in steps:
        for phase in step.phases:
            if phase not in MEASURED:
                raise ConfigError(
                    f"there is no phase {phase!r} of an app",
                    where=step.where,
                    do=f"Use {', '.join(MEASURED)}",
                )
        seen += step.phases
    if "load" not in next(step.phases for step in steps if step.phases):
        raise ConfigError(
            "the first phase that is waited for is not load, so that this total would be another than that "
            "of other frameworks", where=f"{where}.run",
            do="Let the script load the model within `run`; where that happens with the first question, give "
            "its wait a list of phases that begins with load",
        )  # fmt: skip
    before = seen[: seen.index("decode")]
    if not {"text_prefill", "image_encode", "image_prefill"} & {*before, *_with_decode(steps)}:
        raise ConfigError(
            "no step waits for the prompt to be evaluated, so that its time would count as that of decode",
            where=f"{where}.run",
            do="Wait for the first token with `phase: [text_prefill, image_encode, image_prefill]`; where "
            "the app does not show it, give the wait for the end of the answer these and decode",
        )
    if {"text_prefill", "image_encode", "image_prefill", "load"} & set(seen[seen.index("decode") + 1 :]):
        raise ConfigError(
            "a phase of the prompt follows decode", where=f"{where}.run",
            do="A run is one question: load, prompt, answer, in this order",
        )  # fmt: skip


def _with_decode(steps: Sequence[Step]) -> tuple[str, ...]:
    return next(step.phases for step in steps if "decode" in step.phases)


def _steps(given: Sequence[Mapping[str, Any]], where: str, variables: Mapping[str, str]) -> Iterator[Step]:
    for number, step in enumerate(given):
        yield _step(step, f"{where}.{number}", variables)


def _step(given: Mapping[str, Any], where: str, variables: Mapping[str, str]) -> Step:
    (kind,) = [kind for kind in KINDS if kind in given]
    phase = given.get("phase", ())
    step = Step(
        kind=kind,
        where=where,
        phases=(phase,) if isinstance(phase, str) else tuple(phase),
        timeout_s=float(given.get("timeout_s", TIMEOUT_S)),
        every_s=float(given.get("every_s", 0.5)),
        name=str(given.get("as", "")),
    )
    aim = given[kind]
    if kind in ("tap", "wait", "read"):
        pattern = aim.get("log")
        step = replace(
            step,
            selector=None if pattern is not None else _selector(aim, where, variables),
            log=None if pattern is None else _pattern(_filled(pattern, where, variables, re.escape), where),
            gone=bool(aim.get("gone", False)),
        )
    elif kind == "type":
        text = _filled(aim, where, variables)
        keys.pieces(text, where=where)
        into = given.get("into")
        step = replace(step, text=text, selector=into and _selector(into, where, variables))
    elif kind == "key":
        step = replace(step, text=aim)
    elif kind == "scroll":
        step = replace(step, direction=aim["to"], selector=_selector(aim, where, variables))
    return step


def _selector(given: Mapping[str, Any], where: str, variables: Mapping[str, str]) -> Selector:
    filled = {
        name: _filled(given[name], where, variables, re.escape if name == "matches" else str)
        for name in _SELECTORS
        if name in given
    }
    if "matches" in filled:
        _pattern(filled["matches"], where)
    return Selector(**filled)


def _pattern(text: str, where: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ConfigError(
            f"{text!r} is no regular expression: {error}", where=where, do="Correct it; Python's rules hold"
        ) from None
    return text


def _filled(text: str, where: str, variables: Mapping[str, str], quote: Any = str) -> str:
    """Put variables into a text; what they stand for is put in as it is, or quoted for a pattern."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in variables:
            raise ConfigError(
                f"{{{match[1]}}} stands for nothing", where=where, do=f"Use one of {', '.join(VARIABLES)}"
            )
        return str(quote(variables[match[1]]))

    return _VARIABLE.sub(value, text)
