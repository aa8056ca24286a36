/* Percentiles of a run of any length in fixed memory: 64 steps to each power of two, so exact below 64 and within
 * 1.6 % above. Values are signed microseconds. */
#ifndef PROBE_HISTOGRAM_H
#define PROBE_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_STEPS (64 * 30)

struct histogram {
    uint32_t negative[HISTOGRAM_STEPS], positive[HISTOGRAM_STEPS];
    uint64_t count;
};

void histogram_add(struct histogram *histogram, int64_t value);

/* Return the smallest value that a share `percent` of all values does not exceed (nearest rank). */
int64_t histogram_percentile(const struct histogram *histogram, unsigned percent);

/* The same of the absolute values. */
int64_t histogram_absolute_percentile(const struct histogram *histogram, unsigned percent);

#endif
