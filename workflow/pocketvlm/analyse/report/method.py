"""How each number is made, for the page: formula, unit and source of a metric, as in docs/method.md."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Definition:
    """How a metric, or all metrics that begin with it and a dot or a percentile, come about."""

    metric: str
    formula: str
    unit: str
    source: str


DEFINITIONS = (
    Definition(
        "duration", "sum of the phase’s intervals", "ms", "observed: arrival of the framework’s lines"
    ),
    Definition(
        "time_to_first_token", "arrival of the answer’s first piece − start of the process", "ms", "observed"
    ),
    Definition(
        "time_to_first_token_after_load",
        "arrival of the answer’s first piece − end of load",
        "ms",
        "observed",
    ),
    Definition("tokens", "tokens evaluated or sampled in the phase", "1", "framework"),
    Definition("token_budget", "what the workload allows the answer", "1", "derived: the workload"),
    Definition(
        "tokens_per_second",
        "tokens ÷ duration; decode: (tokens − 1) ÷ duration, for the first token ends the prefill",
        "1/s",
        "derived: framework’s count, observed time",
    ),
    Definition(
        "inter_token_latency",
        "50th and 99th percentile of the time between pieces of the answer, if there are as many as tokens",
        "ms",
        "observed",
    ),
    Definition("reported", "the framework’s own counter, as printed", "ms", "framework"),
    Definition("reported_rate", "the rate that an app shows, as shown", "1/s", "framework"),
    Definition("reported_tokens", "the number of tokens that an app shows, as shown", "1", "framework"),
    Definition(
        "interaction_time",
        "time in which an app is looked at, tapped and typed into: in no total",
        "ms",
        "derived",
    ),
    Definition("interaction_steps", "steps of an app’s script that were done in the recording", "1", "host"),
    Definition("screen_looks", "how often an app’s screen was dumped in the recording", "1", "host"),
    Definition("agreement", "100 · (observed − reported) ÷ reported", "%", "derived"),
    Definition(
        "unannounced", "the most that work which the counter leaves out can make of it", "ms", "observed"
    ),
    Definition(
        "system_cpu",
        "100 · Δ(user + nice + system + irq + softirq) ÷ Δt over all cores: two busy cores are 200",
        "% of one core",
        "sensor: /proc/stat",
    ),
    Definition("workload_cpu", "100 · Δ(utime + stime) ÷ Δt", "% of one core", "sensor: /proc/<pid>/stat"),
    Definition("gpu_busy", "time-weighted mean", "%", "sensor: the driver’s node"),
    Definition(
        "npu_busy", "time-weighted mean; of several units the busiest", "%", "sensor: the driver’s node"
    ),
    Definition("gpu_frequency", "time-weighted mean", "MHz", "sensor: devfreq"),
    Definition("cpu_frequency", "time-weighted mean of a policy’s cores", "MHz", "sensor: cpufreq"),
    Definition("clock_mean", "Σ f·Δt ÷ ΣΔt over a policy’s frequencies", "MHz", "sensor: time_in_state"),
    Definition(
        "clock_drop",
        "100 · (1 − clock_mean while decoding ÷ that of the first 3 s of decoding in the cell’s first run of "
        "the block), of the fastest policy that worked",
        "%",
        "derived: time_in_state",
    ),
    Definition("start_hot", "1: the device was not cool when the run began", "1", "host"),
    Definition("start_wait", "how long the run waited for the device to cool", "s", "host"),
    Definition("warmups_made", "warm-ups of the cell before the run", "1", "host"),
    Definition("warmups_cv", "standard deviation ÷ mean of the last warm-ups’ durations", "%", "host"),
    Definition("low_memory_kills", "lines of the log that tell of a killed process", "1", "host"),
    Definition("answer_wrong", "1: no answer of trained weights, and why", "1", "host"),
    Definition(
        "rss_peak", "largest sample of the workload’s resident memory", "MiB", "sensor: /proc/<pid>/statm"
    ),
    Definition("memory_available_min", "least MemAvailable", "MiB", "sensor: /proc/meminfo"),
    Definition("power", "energy ÷ duration", "W", "derived: battery V · A, or RAPL"),
    Definition("power_net", "power − mean power of the block’s idle run", "W", "derived"),
    Definition(
        "energy", "∫ P dt, trapezoid over the samples; RAPL: Δ energy", "J", "derived: battery V · A, or RAPL"
    ),
    Definition("energy_net", "energy − mean power of the block’s idle run · duration", "J", "derived"),
    Definition("energy_per_token", "decode’s energy ÷ (tokens − 1)", "J", "derived"),
    Definition("energy_net_per_token", "decode’s net energy ÷ (tokens − 1)", "J", "derived"),
    Definition(
        "temperature_start",
        "hottest zone of a class at the start of the phase",
        "degC",
        "sensor: thermal zones",
    ),
    Definition(
        "temperature_max", "hottest sample of a class’s zones in the phase", "degC", "sensor: thermal zones"
    ),
    Definition("temperature_rise", "maximum − start", "K", "sensor: thermal zones"),
    Definition(
        "wake_late",
        "50th and 99th percentile of how late a thread woke that means to every 16.667 ms",
        "ms",
        "probe",
    ),
    Definition(
        "missed_deadlines_60hz",
        "100 · wake-ups more than 16.7 ms late ÷ wake-ups due, such as were slept through included",
        "%",
        "probe",
    ),
    Definition("missed_deadlines_120hz", "the same with 8.3 ms, a frame at 120 Hz", "%", "probe"),
    Definition(
        "shell_round_trip",
        "50th and 99th percentile of how long a tiny command over the device’s shell took",
        "ms",
        "observed: this host",
    ),
    Definition(
        "frames", "frames that the foreground activity drew", "1", "observed: gfxinfo, SurfaceFlinger"
    ),
    Definition(
        "jank_percent",
        "100 · frames with FrameCompleted − IntendedVsync longer than a frame’s interval ÷ frames",
        "%",
        "derived: gfxinfo, SurfaceFlinger",
    ),
    Definition(
        "gpu_time_workload",
        "Δ GPU time of the uid that the workload runs as",
        "ms",
        "sensor: dumpsys gpu --gpuwork",
    ),
    Definition(
        "gpu_time_screen", "Δ GPU time of the system’s uid, 1000", "ms", "sensor: dumpsys gpu --gpuwork"
    ),
    Definition("gpu_time_uid", "Δ GPU time of another uid", "ms", "sensor: dumpsys gpu --gpuwork"),
    Definition(
        "threads_misplaced",
        "threads of the workload whose Cpus_allowed_list is not within what the cell asks for",
        "1",
        "probe",
    ),
    Definition("probe_cpu", "100 · the probe’s own CPU time ÷ wall time", "% of one core", "probe"),
    Definition(
        "sensor_coverage",
        "least over groups and sensors of 100 · readings taken ÷ readings due",
        "%",
        "probe",
    ),
    Definition("unmet", "what of the wanted state was not met, and why", "1", "derived: the run’s record"),
)


def definition(metric: str) -> Definition | None:
    """Return how a metric is made: of the longest name that it is or begins with; None for an unknown one."""
    fits = [
        one
        for one in DEFINITIONS
        if metric == one.metric or metric.startswith((f"{one.metric}.", f"{one.metric}_p"))
    ]
    exact = [one for one in fits if one.metric == metric]
    longest = sorted(fits, key=lambda one: -len(one.metric))
    return next(iter([*exact, *longest]), None)


def used(metrics: Iterable[str]) -> list[Definition]:
    """Return the definitions of metrics that occur, in the order of DEFINITIONS."""
    found = {definition(metric) for metric in set(metrics)}
    return [one for one in DEFINITIONS if one in found]
