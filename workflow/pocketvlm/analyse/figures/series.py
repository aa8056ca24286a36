"""What a timeline shows, from the samples of one run: rates of counters, power from current and voltage."""

from __future__ import annotations

import pandas as pd

from pocketvlm.analyse.sensors import BUSY


def summed(samples: pd.DataFrame) -> pd.Series:
    """Return the sum of several counters by time; a time at which one of them is missing is left out."""
    wide = samples.pivot_table(index="t_us", columns="component", values="value", aggfunc="first")
    return wide.dropna().sum(axis=1)


def rate_percent(counter: pd.Series) -> pd.Series:
    """Return a counter in seconds (index: microseconds) as % of one core, a value at each interval's end."""
    step = counter.index.to_series().diff() / 1e6
    return (100 * counter.diff() / step).dropna()


def system_cpu(samples: pd.DataFrame) -> pd.Series:
    """Return the CPU use of the whole system, % of one core, over microseconds; empty when not sampled."""
    wanted = [f"cpu.{state}" for state in BUSY]
    mine = samples[(samples["quantity"] == "cpu_time") & samples["component"].isin(wanted)]
    return rate_percent(summed(mine))


def workload_cpu(samples: pd.DataFrame) -> pd.Series:
    """Return the CPU use of the workload, % of one core, over microseconds; empty when not sampled."""
    return rate_percent(summed(samples[samples["quantity"] == "workload_cpu_time"]))


def gauge(samples: pd.DataFrame, quantity: str) -> dict[str, pd.Series]:
    """Return each component's values of a quantity over time in microseconds."""
    mine = samples[samples["quantity"] == quantity].dropna(subset="value")
    return {
        str(component): group.set_index("t_us")["value"].sort_index()
        for component, group in mine.groupby("component", sort=True)
    }


def temperatures(samples: pd.DataFrame) -> dict[str, pd.Series]:
    """Return the hottest zone of each class (`cpu`, `gpu`, …) over time: a class may have a dozen zones."""
    mine = samples[samples["quantity"] == "temperature"].dropna(subset="value")
    classes = mine["component"].astype(str).str.split(".").str[0]
    return {
        str(name): group.groupby("t_us")["value"].max().sort_index()
        for name, group in mine.groupby(classes, sort=True)
    }


def power(samples: pd.DataFrame) -> pd.Series:
    """Return watts over microseconds: battery current x voltage, or else the rate of the energy counters.

    Positive is discharging; while the battery charges there is no value, as in the metrics. Energy counters
    are added as the metrics add them: packages and their memory, which hold the other domains.
    """
    current, voltage = gauge(samples, "current"), gauge(samples, "voltage")
    if current and voltage:
        amperes = next(iter(current.values()))
        volts = next(iter(voltage.values())).reindex(amperes.index, method="nearest")
        return (amperes * volts)[amperes >= 0]
    rates = [
        (counter.diff() / (counter.index.to_series().diff() / 1e6)).dropna()
        for name, counter in gauge(samples, "energy").items()
        if name.startswith(("rapl.package", "rapl.dram"))
    ]
    if not rates:
        return pd.Series(dtype=float)
    total = sum(rates[1:], rates[0]).dropna()
    # A counter that wraps falls: that one interval is unknown.
    return total[total >= 0]
