"""Checks of the paper's values that its list of inconsistencies does not name, over all stacks alike."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from pocketvlm.analyse.audit.check import Check, Outcome, at_most, equal
from pocketvlm.analyse.audit.quantity import EXACT, WHOLE, AbsentError, Quantity, Values, exact, hull
from pocketvlm.analyse.audit.terms import stack_total, stages, told_hours, voltages
from pocketvlm.analyse.audit.vision import CLIP_L_336
from pocketvlm.config.paper import CPU_ONLY, Paper, energy_group
from pocketvlm.frameworks import Accounting

LEAST_BITS = 3
"""Bits a weight of the smallest format that any of the frameworks has for language models (MLC's q3f16)."""

_STAGE_OF = {
    "load": "load",
    "image_encode": "image_encode",
    "image_prefill": "image_decode",
    "prompt_eval": "prompt_eval",
    "decode": "token_generation",
    "total": "total",
}
_TEXT_OF_TABLE = (
    ("load_s", ("load",), 1e3),
    ("image_encode_s", ("image_encode",), 1e3),
    ("image_encode_ms", ("image_encode",), 1.0),
    ("visual_preprocessing_s", ("image_encode", "image_decode"), 1e3),
    ("prompt_eval_s", ("prompt_eval",), 1e3),
    ("token_generation_s", ("token_generation",), 1e3),
    ("total_s", ("total",), 1e3),
)
_PRODUCTS = (
    ("prompt", "prompt_tokens", "ms_per_prompt_token", "prompt_eval_s"),
    ("generation", "generated_tokens", "ms_per_token", "token_generation_s"),
)


def checks(paper: Paper, accounting: Mapping[str, Sequence[Accounting]]) -> Iterator[Check]:
    """Give the checks; arguments as `published.audit`."""
    for stack in paper.stacks:
        for rule in accounting.get(stack.framework, ()):
            yield from _nesting(stack.id, stack.framework, rule)
    for stack in paper.stacks:
        yield from _text_against_table(paper, stack.id)
    for stack in paper.stacks:
        yield from _text_against_itself(paper, stack.id)
    for stack in paper.stacks:
        yield from _hardware(paper, stack.id)
    yield Check(
        "energy_power",
        "power of the CPU-only stacks",
        "power in 4.3 = power in 4.4",
        "W",
        partial(_group_power, paper),
    )
    yield Check(
        "battery_claim",
        "hours of the CPU-only stacks",
        "hours claimed <= capacity x voltage / power",
        "h",
        _claim,
    )
    yield Check(
        "battery_idle",
        "hours of the GPU path",
        "hours claimed <= capacity / current at idle",
        "h",
        _idle_claim,
    )


def _nesting(stack: str, framework: str, rule: Accounting) -> Iterator[Check]:
    """Give the checks that a row obeys what its framework counts."""
    whole, parts = _STAGE_OF[rule.whole], [_STAGE_OF[part] for part in rule.parts]
    inside = " + ".join(parts)

    def holds(v: Values) -> Outcome:
        sum_, all_ = _printed(v, stack, parts), _printed(v, stack, [whole])
        return at_most(
            sum_,
            f"table2.rows.{stack}: {inside}",
            all_,
            f"table2.rows.{stack}.{whole}",
            else_=f"{framework} counts these inside {whole}: the row is no output of one run",
            then=f"as {framework} counts: the rest of {all_.minus(sum_):.1f} ms is {rule.rest}",
        )

    yield Check(f"inside.{stack}.{whole}", f"latency of {stack}", f"{inside} <= {whole}", "ms", holds)

    def left_out(other: str, v: Values) -> Outcome:
        sum_, rest = _printed(v, stack, [*parts, other]), _printed(v, stack, [whole])
        wrong = not sum_.exceeds(rest)
        return Outcome(
            sum_,
            f"table2.rows.{stack}: {inside} + {other}",
            rest,
            f"table2.rows.{stack}.{whole}",
            wrong,
            f"{other} would fit into {whole}, which {framework} does not count it in"
            if wrong
            else f"{other} does not fit into what {whole} leaves: it lies outside",
        )

    if rule.whole == "total":
        for counter in rule.outside:
            other = _STAGE_OF[counter]
            name = f"outside.{stack}.{other}"
            formula = f"{inside} + {other} > {whole}"
            yield Check(name, f"latency of {stack}", formula, "ms", partial(left_out, other))


def _printed(v: Values, stack: str, names: Sequence[str]) -> Quantity:
    for name in names:
        v.at(f"table2.rows.{stack}.{name}")
    return stages(v, stack, names)


def _text_against_table(paper: Paper, stack: str) -> Iterator[Check]:
    told = paper.values["text"].get(stack, {})
    for key, columns, factor in _TEXT_OF_TABLE:
        if key not in told:
            continue
        ends = told[key] if isinstance(told[key], list) else [told[key]]
        for number in range(len(ends)):
            name = f"text.{stack}.{key}" + (f".{number + 1}" if len(ends) > 1 else "")
            formula = f"{key} in the text = {' + '.join(columns)} in table 2"
            compute = partial(_told, stack, key, number if len(ends) > 1 else None, columns, factor)
            yield Check(name, f"{columns[-1]} of {stack}", formula, "ms", compute)


def _told(stack: str, key: str, end: int | None, columns: Sequence[str], factor: float, v: Values) -> Outcome:
    value = v.at(f"text.{stack}.{key}")
    text = v.number(f"text.{stack}.{key}", WHOLE)
    if end is not None:
        text = Values({"text": value[end]}).number("text", WHOLE)
    table = _printed(v, stack, columns)
    return equal(
        text * factor,
        f"text.{stack}.{key}",
        table,
        f"table2.rows.{stack}: {' + '.join(columns)}",
        else_=f"text and table are of different runs: {text.low * factor / table.low:.3g} times as long",
    )


def _text_against_itself(paper: Paper, stack: str) -> Iterator[Check]:
    told = paper.values["text"].get(stack, {})
    for name, count, each, whole in _PRODUCTS:
        if count in told or each in told:
            compute = partial(_product, stack, count, each, whole)
            formula = f"{count} x {each} = {whole}"
            yield Check(f"product.{stack}.{name}", f"{name} of {stack}", formula, "s", compute)
    if "prompt_tokens" in told and next(s.model for s in paper.stacks if s.id == stack).startswith(
        "llava-1.5"
    ):
        formula = "image tokens of the vision tower <= prompt_tokens"
        yield Check(
            f"image_tokens.{stack}", f"prompt of {stack}", formula, "1", partial(_image_tokens, stack)
        )


def _product(stack: str, count: str, each: str, whole: str, v: Values) -> Outcome:
    product = v.number(f"text.{stack}.{count}", EXACT) * v.number(f"text.{stack}.{each}") / 1e3
    return equal(
        product,
        f"text.{stack}: {count} x {each}",
        v.number(f"text.{stack}.{whole}", WHOLE),
        f"text.{stack}.{whole}",
        else_="count, time and time per token are not of one run",
        then="the text's own numbers are of one run",
    )


def _image_tokens(stack: str, v: Values) -> Outcome:
    tokens = v.number(f"text.{stack}.prompt_tokens", EXACT)
    image = CLIP_L_336.patches
    return at_most(
        exact(image),
        "ViT-L/14 at 336 px: (336 / 14)^2",
        tokens,
        f"text.{stack}.prompt_tokens",
        else_=f"the count leaves the {image} image tokens out: its time per prompt token and prompt rate "
        "are of text alone, over a time that the image was evaluated in",
        then="the count holds the image",
    )


def _hardware(paper: Paper, stack: str) -> Iterator[Check]:
    model = next(s.model for s in paper.stacks if s.id == stack)
    place, group = f"utilisation.{stack}", energy_group(paper.stack(stack))

    def cores(v: Values) -> Outcome:
        all_ = v.number("device.cpu_cores", EXACT) * 100.0
        return at_most(
            v.number(f"{place}.cpu_pct", EXACT), f"{place}.cpu_pct", all_, "100 x device.cpu_cores",
            else_="more cores than the phone has", then="as many cores as the phone has, or fewer",
        )  # fmt: skip

    def memory(v: Values) -> Outcome:
        pool, share = v.number("utilisation.memory_pool_gb", EXACT), v.number(f"{place}.memory_pct")
        bits = share / 100.0 * pool * 8e9 / _parameters(model)
        return at_most(
            exact(LEAST_BITS), "bits of the smallest format of these frameworks", bits,
            f"{place}.memory_pct x utilisation.memory_pool_gb / parameters of {model}",
            else_="the weights alone are more than the memory told: the GPU's buffers are not counted, and "
            "the stacks' percentages are of different things",
            then="the weights fit into the memory that is told",
        )  # fmt: skip

    def heat(v: Values) -> Outcome:
        plateau, told = v.number(f"{place}.temp_plateau_c", EXACT), v.number(f"energy.{group}.temp_c", EXACT)
        inside = told.low <= plateau.low and plateau.high <= told.high
        if told.low == told.high:
            inside = plateau.agrees(told)
        if not inside:  # the end that leaves the range, or a difference of ranges that meet would be 0
            below = plateau.low < told.low
            plateau, told = (
                exact(plateau.low if below else plateau.high),
                exact(told.low if below else told.high),
            )
        return Outcome(
            plateau,
            f"{place}.temp_plateau_c",
            told,
            f"energy.{group}.temp_c",
            not inside,
            "one range" if inside else "the plateau leaves the range that energy is told with",
        )

    def idle(v: Values) -> Outcome:
        return at_most(
            v.number("utilisation.idle.temp_c"), "utilisation.idle.temp_c",
            v.number(f"{place}.temp_plateau_c"), f"{place}.temp_plateau_c",
            else_="a phone that computes is not cooler than at rest",
            then="the load warms the phone",
        )  # fmt: skip

    yield Check(f"cores.{stack}", f"CPU of {stack}", "CPU use <= 100 % x cores", "%", cores)
    yield Check(
        f"memory.{stack}",
        f"memory of {stack}",
        "least bits of a weight <= memory / parameters",
        "bit",
        memory,
    )
    yield Check(
        f"temperature.{stack}", f"temperature of {stack}", "plateau in 4.3 in the range of 4.4", "degC", heat
    )
    yield Check(
        f"warmer.{stack}",
        f"temperature of {stack}",
        "temperature at idle <= plateau under load",
        "degC",
        idle,
    )


def _parameters(model: str) -> float:
    """Return the parameters that a model's name tells, such as 7e9 of `llava-1.5-7b`."""
    found = re.search(r"(?:^|-)(\d+(?:\.\d+)?)b(?:-|$)", model)
    if found is None:
        raise AbsentError(f"the name {model} tells no number of parameters")
    return float(found[1]) * 1e9


def _group_power(paper: Paper, v: Values) -> Outcome:
    stacks = [stack.id for stack in paper.stacks if energy_group(stack) == CPU_ONLY]
    each = hull(v.number(f"utilisation.{stack}.power_w") for stack in stacks)
    return equal(
        each,
        f"utilisation: power_w of {', '.join(stacks)}",
        v.number(f"energy.{CPU_ONLY}.power_w"),
        f"energy.{CPU_ONLY}.power_w",
        else_="two powers are told for the same runs",
        then="one power, told twice",
    )


def _claim(v: Values) -> Outcome:
    stacks = [entry["id"] for entry in v.at("stacks")]
    volts = voltages(v, stacks)
    charge = v.number("energy.battery.capacity_mah", EXACT) / 1e3
    hours = charge * volts / v.number(f"energy.{CPU_ONLY}.power_w")
    length = hull(
        stack_total(v, s) for s in stacks if v.at("stacks")[stacks.index(s)]["model"].startswith("llava")
    )
    claimed = v.number("energy.battery.cpu_only_llava_h")
    mean = (charge * volts / claimed).side
    return at_most(
        claimed,
        "energy.battery.cpu_only_llava_h",
        hours,
        "energy.battery.capacity_mah x power_w / current_a of the stacks / energy.cpu_only_llava.power_w",
        else_=f"queries of {(length / 1e3).side} s follow each other without a pause; the hours claimed need "
        f"a mean of {mean} W",
        then="the battery holds as long as claimed",
    )


def _idle_claim(v: Values) -> Outcome:
    words, claimed = v.at("energy.battery.gpu_path"), told_hours(v, "energy.battery.gpu_path")
    hours = v.number("energy.battery.capacity_mah", EXACT) / 1e3 / v.number("utilisation.idle.current_a")
    return at_most(
        claimed,
        f"energy.battery.gpu_path: {words!r}",
        hours,
        "energy.battery.capacity_mah / utilisation.idle.current_a",
        else_="the phone at rest, with no query at all, empties the battery sooner",
        then="the battery holds as long at rest",
    )
