#include "histogram.h"

static unsigned step_of(uint64_t value) {
    unsigned shift = 0;
    while (value >> shift >= 128) shift++;
    unsigned step = shift * 64 + (unsigned)(value >> shift);
    return step < HISTOGRAM_STEPS ? step : HISTOGRAM_STEPS - 1;
}

static int64_t value_of(unsigned step) {
    if (step < 128) return step;
    unsigned shift = step / 64 - 1;
    uint64_t low = (uint64_t)(step - shift * 64) << shift;
    return (int64_t)(low + ((1ull << shift) >> 1));
}

void histogram_add(struct histogram *histogram, int64_t value) {
    if (value < 0)
        histogram->negative[step_of((uint64_t)-value)]++;
    else
        histogram->positive[step_of((uint64_t)value)]++;
    histogram->count++;
}

static uint64_t rank_of(const struct histogram *histogram, unsigned percent) {
    uint64_t rank = (histogram->count * percent + 99) / 100;
    return rank ? rank : 1;
}

int64_t histogram_percentile(const struct histogram *histogram, unsigned percent) {
    uint64_t rank = rank_of(histogram, percent), seen = 0;
    for (unsigned i = HISTOGRAM_STEPS; i-- > 0;)
        if ((seen += histogram->negative[i]) >= rank) return -value_of(i);
    for (unsigned i = 0; i < HISTOGRAM_STEPS; i++)
        if ((seen += histogram->positive[i]) >= rank) return value_of(i);
    return 0;
}

int64_t histogram_absolute_percentile(const struct histogram *histogram, unsigned percent) {
    uint64_t rank = rank_of(histogram, percent), seen = 0;
    for (unsigned i = 0; i < HISTOGRAM_STEPS; i++)
        if ((seen += (uint64_t)histogram->negative[i] + histogram->positive[i]) >= rank) return value_of(i);
    return 0;
}
