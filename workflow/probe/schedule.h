/* When groups are sampled, and by which thread.
 *
 * Groups with the same period share a thread as long as each answers fast, because waking threads costs more than
 * reading. A group that is slow gets a thread of its own, at the latest after it has been slow once; groups with
 * different periods never wait for one another. */
#ifndef PROBE_SCHEDULE_H
#define PROBE_SCHEDULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sampler.h"

/* Take the first sample of each group, all at once, and keep sampling. `on_slow` is called from any thread when
 * schedule_mend should be. Returns an error number. Waits for the first samples, but not for those that take longer
 * than `most_us`. */
int schedule_start(struct sampler *samplers, size_t count, int64_t most_us, void (*on_slow)(void));

/* The workload's program has been started. */
void schedule_program_started(void);

/* Give groups that have become slow a thread of their own. To be called every SCHEDULE_MEND_US, and after on_slow. */
#define SCHEDULE_MEND_US 250000
void schedule_mend(void);

/* Have all groups take a last sample and end. */
void schedule_stop(void);

/* Wait until they have. One that is still in a system call after the given time is left there. */
void schedule_finish(int64_t most_us);

/* Make a thread sleep precisely and be woken by SIGUSR1. */
void schedule_thread_setup(void);

#endif
