/* `probe run`: record one run of a workload. */
#ifndef PROBE_RUN_H
#define PROBE_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "sampler.h"
#include "threads.h"

struct run_options {
    const char *sensors, *out;
    int64_t deadline_us; /* 0: none */
    uint64_t max_output; /* bytes of stdout and stderr together */
    int64_t wake_us;     /* 0: no responsiveness thread */
    int64_t threads_us;  /* 0: the workload's threads are not looked at */
    char **command;
};

/* What probe.json says about the run as a whole. */
struct run_result {
    int64_t start_us, end_us, probe_cpu_us, monotonic_offset_us;
    bool exited, deadline_hit, truncated;
    int status, signal;
    uint64_t output_bytes, error_bytes;
};

/* Run and record. Returns the probe's exit code. */
int run(const struct run_options *options);

/* Write probe.json aside, sync it and put it in its place. Returns false after output_fail. */
bool write_record(int folder, const struct run_result *result, const struct thread_watch *threads, const struct sampler *samplers,
                  size_t count);

#endif
