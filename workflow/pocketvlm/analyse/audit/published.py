"""The paper's values against each other: the entries of `inconsistencies`, each computed from the file.

Formulas hold within what rounding allows: a printed number stands for all that round to it, a number in
running text also for what it may have been cut from. `further` has the checks that no entry names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pocketvlm.analyse.audit import further, row
from pocketvlm.analyse.audit.check import Check, Outcome, at_most, equal, same
from pocketvlm.analyse.audit.quantity import EXACT, WHOLE, AbsentError, Values, exact, hull
from pocketvlm.analyse.audit.terms import PARTS, slot_s, stack_total, stages, voltages
from pocketvlm.analyse.audit.vision import CLIP_L_336, cpu_peak
from pocketvlm.config.paper import Paper
from pocketvlm.frameworks import Accounting

LLAVA, LLAVA_MLLM, MOBILEVLM = "llava-llamacpp", "llava-mllm", "mobilevlm-llamacpp"
_COUNTS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6}


def audit(paper: Paper, accounting: Mapping[str, Sequence[Accounting]]) -> list[row.Row]:
    """Return every check of a paper's values: first its list of inconsistencies in its order, then more.

    Args:
        paper: the published values.
        accounting: what each framework's counters count, by its name; of those that are known.
    """
    values = Values(paper.values)
    found = []
    for entry in paper.values["inconsistencies"]:
        check = LISTED.get(entry["id"])
        if check is None:
            words = f"{entry['a']} / {entry['b']}"
            found.append(row.unknown(entry["id"], words, "", "", "no formula is known for this entry"))
        else:
            found.append(check.row(values))
    more = [*ALSO, *further.checks(paper, accounting)]
    return found + [check.row(values) for check in more]


def write_audit(
    paper: Paper, accounting: Mapping[str, Sequence[Accounting]], destination: str | Path
) -> list[row.Row]:
    """Write `audit.csv` and return its rows; arguments as `audit`."""
    rows = audit(paper, accounting)
    row.write(destination, rows)
    return rows


def _stated(values: Values, entry: str, side: str, pattern: str) -> tuple[str, str]:
    """Return what an entry of `inconsistencies` says in words, and where the paper says it."""
    words = values.claim(entry, side)
    found = re.search(pattern, words)
    if found is None:
        raise AbsentError(f"inconsistencies.{entry}.{side} says nothing like {pattern!r}")
    section = re.search(r"\(([^()]*\d[^()]*)\)", words)
    place = f"inconsistencies.{entry}.{side}"
    return found[0], f"{place} (section {section[1]})" if section else place


def _soc(v: Values) -> Outcome:
    told, where = _stated(v, "soc", "b", r"Snapdragon \w+ Gen \d+")
    own = str(v.at("device.soc"))
    speeds = [
        f"{name} {v.number(f'memory_bandwidth_gb_s.{name}').low:g} GB/s"
        for name in (own.removeprefix("Snapdragon "), told.removeprefix("Snapdragon "))
        if v.has(f"memory_bandwidth_gb_s.{name}")
    ]
    return same(
        own,
        "device.soc",
        told,
        where,
        else_="two chips are named, so no peak of the device is settled by the paper; bandwidth: "
        + (", ".join(speeds) or "not in the file"),
    )


def _gpu(v: Values) -> Outcome:
    told, where = _stated(v, "gpu", "b", r"Adreno \d+")
    return same(
        str(v.at("device.gpu")),
        "device.gpu",
        told,
        where,
        else_="the GPU named is that of another chip than the phone is sold with",
    )


def _ram(v: Values) -> Outcome:
    ram, pool = v.number("device.ram_gb", EXACT), v.number("utilisation.memory_pool_gb", EXACT)
    share = v.number(f"utilisation.{LLAVA}.memory_pct")
    return equal(
        ram,
        "device.ram_gb",
        pool,
        "utilisation.memory_pool_gb",
        else_=f"percentages of memory are of no settled size: {share.low:g} % is "
        f"{(share * ram / 100).low:.3g} or {(share * pool / 100).low:.3g} GB",
    )


def _frameworks(v: Values) -> Outcome:
    word, where = _stated(v, "frameworks", "a", "|".join(_COUNTS))
    named = sorted({entry["framework"] for entry in v.at("stacks")})
    return equal(
        exact(_COUNTS[word]),
        where,
        exact(len(named)),
        f"stacks: {', '.join(named)}",
        else_="a framework is counted that no result stands for",
        then="as many frameworks as announced",
    )


def _sum(v: Values, stack: str) -> Outcome:
    sum_, printed_ = stages(v, stack), stack_total(v, stack)
    outer = stages(v, stack, ("prompt_eval", "token_generation"))
    inner = stages(v, stack, ("image_encode", "image_decode"))
    rest = printed_.low - outer.low
    load = v.number(f"table2.rows.{stack}.load").low
    prompt = v.number(f"table2.rows.{stack}.prompt_eval").low
    told = (
        f"the total is prompt_eval + token_generation + {rest:.1f} ms"
        if rest >= 0
        else "the total lacks parts"
    )
    fits = "does not fit into that rest: it is outside" if load > rest else "may be in that rest"
    lies = "fit into" if inner.low <= prompt else "do not fit into"
    return equal(
        sum_,
        f"table2.rows.{stack}: {' + '.join(PARTS)}",
        printed_,
        f"table2.rows.{stack}.total",
        else_=f"{told}; load ({load:.1f} ms) {fits}; image_encode + image_decode ({inner.low:.1f} ms) {lies} "
        f"prompt_eval ({prompt:.1f} ms): the stages are no partition, and their sum counts the image twice",
        then="the stages are a partition of the total",
    )


def _tokens(v: Values, stack: str) -> Outcome:
    told, table = v.number(f"text.{stack}.generated_tokens", EXACT), v.number(f"table3.rows.{stack}")
    return equal(
        told,
        f"text.{stack}.generated_tokens",
        table,
        f"table3.rows.{stack}",
        else_=f"{told.low:g} tokens do not belong to answers of {table.low:g} on average: by the count "
        f"that is taken a rate is {told.low / table.low:.2g} times another",
    )


def _power(v: Values) -> Outcome:
    others = [entry["id"] for entry in v.at("stacks") if entry["id"] != MOBILEVLM]
    volts = voltages(v, others)
    current, watts = v.number(f"utilisation.{MOBILEVLM}.current_a"), v.number("energy.mobilevlm.power_w")
    return equal(
        current * volts,
        f"utilisation.{MOBILEVLM}.current_a x {volts.low:.3g} to {volts.high:.3g} V "
        "(power_w / current_a of the others)",
        watts,
        "energy.mobilevlm.power_w",
        else_=f"{watts.low:g} W at {current.low:g} A would need {(watts / current).low:.3g} V: the current "
        "was read while something else fed the phone, or is that of another rail",
    )


def _offload(v: Values) -> Outcome:
    words, where = _stated(v, "offload", "b", "GPU-offloaded|CPU-only")
    gpu = v.number(f"utilisation.{MOBILEVLM}.gpu_pct", EXACT)
    used = "GPU-offloaded" if gpu.high > 0 else "CPU-only"
    return same(
        f"{used} ({gpu.high:g} % GPU)" if used != words else used,
        f"utilisation.{MOBILEVLM}.gpu_pct",
        words,
        where,
        else_="the energy that offloading saves is told with a run that used no GPU",
        then="the GPU is used where it is said to be",
    )


def _mllm_speed(v: Values) -> Outcome:
    told = v.number(f"text.{LLAVA_MLLM}.reported_tok_s", WHOLE)
    tokens = v.number(f"text.{LLAVA_MLLM}.prompt_tokens", EXACT)
    rate = tokens / v.number(f"text.{LLAVA_MLLM}.prompt_eval_s", WHOLE)
    return equal(
        told,
        f"text.{LLAVA_MLLM}.reported_tok_s",
        rate,
        f"text.{LLAVA_MLLM}: prompt_tokens / prompt_eval_s",
        else_=f"the printed rate is {told.low / rate.low:.3g} times what its own count and time give: a "
        "framework's rate is to be derived, never copied",
    )


def _definitions(v: Values) -> Outcome:
    ids = [entry["id"] for entry in v.at("stacks")]
    sums = [stack for stack in ids if stages(v, stack).agrees(stack_total(v, stack))]
    others = [stack for stack in ids if stack not in sums]
    wrong = bool(sums) and bool(others)
    return Outcome(
        exact(len(sums)),
        f"total = sum of all stages: {', '.join(sums) or 'none'}",
        exact(len(ids)),
        f"stacks; not so: {', '.join(others) or 'none'}",
        wrong,
        "totals are not one quantity: some hold load, others leave it out; the two kinds do not compare"
        if wrong
        else "one definition of a total for every stack",
    )


def _mllm_encode(v: Values) -> Outcome:
    time_ms = v.number(f"table2.rows.{LLAVA_MLLM}.image_encode")
    operations = CLIP_L_336.operations()
    cores = v.number("device.cpu_cores", EXACT)
    other = exact(operations) / (v.number(f"table2.rows.{LLAVA}.image_encode") / 1e3)
    return at_most(
        exact(operations / 1e9) / (time_ms / 1e3),
        f"ViT-L/14 at 336 px ({operations / 1e9:.1f} GFLOP) / table2.rows.{LLAVA_MLLM}.image_encode",
        exact(cpu_peak(int(cores.low)) / 1e9),
        f"{cores.low:g} cores x 3.3 GHz x 256 8-bit operations a cycle, more than any CPU of the chip does",
        else_=f"no image was encoded in {time_ms.low:g} ms (llama.cpp ran the same encoder on the same cores "
        f"at {other.low / 1e9:.3g} GFLOP/s): the encoding is in another stage of the row",
        then="the CPU could have done it",
    )


def _volts(v: Values) -> Outcome:
    sides = [(f"utilisation.{stack}", voltages(v, [stack])) for stack in (LLAVA, LLAVA_MLLM)]
    (a_place, a), (b_place, b) = sides
    return equal(
        a,
        f"{a_place}: power_w / current_a",
        b,
        f"{b_place}: power_w / current_a",
        else_="one battery does not have two voltages so far apart under like loads: power and current were "
        "not measured together",
        then="one battery's voltage",
    )


def _below_idle(v: Values) -> Outcome:
    return at_most(
        v.number("utilisation.idle.current_a"),
        "utilisation.idle.current_a",
        v.number(f"utilisation.{MOBILEVLM}.current_a"),
        f"utilisation.{MOBILEVLM}.current_a",
        else_="computing cannot take less than resting: the current under load is not the phone's",
        then="the load takes more than idling",
    )


def _per_token(v: Values, stack: str) -> Outcome:
    generation, answer = v.number(f"table2.rows.{stack}.token_generation"), v.number(f"table3.rows.{stack}")
    told = v.number(f"text.{stack}.ms_per_token", WHOLE)
    per = generation / answer
    return equal(
        per,
        f"table2.rows.{stack}.token_generation / table3.rows.{stack}",
        told,
        f"text.{stack}.ms_per_token",
        else_=f"decoding is {1e3 / per.low:.3g} or {1e3 / told.low:.3g} tokens a second, "
        f"{per.low / told.low:.2g} times apart: tables and text are of different runs or count differently",
    )


def _battery(v: Values) -> Outcome:
    slot = slot_s(v)
    length = hull(stack_total(v, stack) for stack in (LLAVA, LLAVA_MLLM)) / 1e3
    claimed, power = v.number("energy.battery.cpu_only_llava_h"), v.number("energy.cpu_only_llava.power_w")
    return at_most(
        length,
        f"table2.rows.{LLAVA}.total, table2.rows.{LLAVA_MLLM}.total",
        slot,
        "60 s / energy.battery.queries_per_minute",
        else_=f"a query does not end before the next begins, so {claimed.low:g} h at that rate cannot be; "
        f"{power.side} W would be drawn without a pause",
        then="a query fits into its slot",
    )


_SUM = f"{' + '.join(PARTS)} = total"
_TOKENS = "tokens in the text = tokens in table 3"
_PER_TOKEN = "token generation / answer length = time per token"

LISTED: Mapping[str, Check] = {
    check.id: check
    for check in (
        Check("soc", "chip of the phone", "chip named in one place = chip named in another", "", _soc),
        Check("gpu", "GPU of the phone", "GPU named = GPU of the chip that the phone is sold with", "", _gpu),
        Check("ram", "memory of the phone", "memory = pool that percentages refer to", "GB", _ram),
        Check("frameworks", "number of frameworks", "number announced = frameworks named", "1", _frameworks),
        Check("total", f"latency of {LLAVA}", _SUM, "ms", lambda v: _sum(v, LLAVA)),
        Check("total2", f"latency of {MOBILEVLM}", _SUM, "ms", lambda v: _sum(v, MOBILEVLM)),
        Check("tokens", f"answer of {LLAVA}", _TOKENS, "1", lambda v: _tokens(v, LLAVA)),
        Check("power", f"power of {MOBILEVLM}", "current x voltage = power", "W", _power),
        Check("offload", f"processor of {MOBILEVLM}", "listed as offloaded = its GPU was used", "", _offload),
        Check("mllm_speed", f"prefill of {LLAVA_MLLM}", "reported rate = tokens / time", "1/s", _mllm_speed),
        Check(
            "definitions",
            "total of every stack",
            "total = sum of stages for all stacks or for none",
            "1",
            _definitions,
        ),
        Check(
            "mllm_encode",
            f"image encoding of {LLAVA_MLLM}",
            "operations / time <= peak of the CPU",
            "GFLOP/s",
            _mllm_encode,
        ),
        Check(
            "volts",
            f"battery under {LLAVA} and {LLAVA_MLLM}",
            "power / current = power / current",
            "V",
            _volts,
        ),
        Check(
            "below_idle", f"current of {MOBILEVLM}", "current at idle <= current under load", "A", _below_idle
        ),
        Check("per_token", f"decoding of {LLAVA}", _PER_TOKEN, "ms", lambda v: _per_token(v, LLAVA)),
        Check(
            "battery",
            "battery life at a rate of queries",
            "length of a query <= 60 s / queries a minute",
            "s",
            _battery,
        ),
    )
}
"""The checks by the id of their entry."""

ALSO: Sequence[Check] = (
    Check(f"tokens.{LLAVA_MLLM}", f"answer of {LLAVA_MLLM}", _TOKENS, "1", lambda v: _tokens(v, LLAVA_MLLM)),
    Check(
        f"per_token.{LLAVA_MLLM}",
        f"decoding of {LLAVA_MLLM}",
        _PER_TOKEN,
        "ms",
        lambda v: _per_token(v, LLAVA_MLLM),
    ),
)
"""The same formulas for another stack that an entry speaks of."""
