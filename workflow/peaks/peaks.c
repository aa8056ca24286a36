/* What a device can do at most: `peaks THREADS BYTES SECONDS` prints one JSON object.
 *
 * BYTES is the size of each thread's buffer, SECONDS how long each kernel is repeated. Bandwidth: every thread reads
 * its own buffer, far larger than the caches, a part of it in each pass. Operations: every thread multiplies and adds
 * in registers, with each of the instructions that a build for this target may use.
 *
 * In a pass all threads begin together. Memory is shared, so the bandwidth of a pass is what all threads read until the
 * slowest is done; the best pass is the peak, or the best thread where that alone read more. Cores are not: their peak is the sum of what each thread did in its
 * own best pass, for on a machine where something else runs there may be no pass in which no core is disturbed. The
 * median pass says how far a usual one stays behind. Passes are short, some milliseconds, to find quiet moments.
 *
 * Compiled with the flags of the bundles that it bounds, so that its instructions are theirs.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "kernels.h"

enum { MAX_THREADS = 1024, MAX_PASSES = 4096, MIN_PASSES = 5 };

struct worker {
    pthread_t thread;
    const struct kernel *kernel;
    struct load load;
    int64_t begun_ns, ended_ns, best_ns;
};

static pthread_barrier_t gate;
static atomic_int leave;
static struct worker workers[MAX_THREADS];

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void *work(void *argument) {
    struct worker *self = argument;
    /* Written by the thread that reads it, so that its pages lie in that core's memory. */
    for (size_t at = 0; at < self->load.bytes; at += sizeof at) memcpy(self->load.data + at, &at, sizeof at);
    for (;;) {
        pthread_barrier_wait(&gate);
        if (atomic_load(&leave)) return NULL;
        self->begun_ns = now_ns();
        self->kernel->run(&self->load);
        self->ended_ns = now_ns();
        pthread_barrier_wait(&gate);
    }
}

/* Seconds from the first thread's start to the last one's end. */
static double pass(int threads) {
    pthread_barrier_wait(&gate);
    pthread_barrier_wait(&gate);
    int64_t begun = INT64_MAX, ended = 0;
    for (int i = 0; i < threads; i++) {
        struct worker *each = &workers[i];
        if (each->begun_ns < begun) begun = each->begun_ns;
        if (each->ended_ns > ended) ended = each->ended_ns;
        if (each->ended_ns - each->begun_ns < each->best_ns) each->best_ns = each->ended_ns - each->begun_ns;
    }
    return (double)(ended - begun) * 1e-9;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(const struct kernel *kernel, int threads, double seconds, int first) {
    static double rates[MAX_PASSES];
    for (int i = 0; i < threads; i++) {
        workers[i].kernel = kernel;
        workers[i].best_ns = INT64_MAX;
    }
    pass(threads); /* the first one finds cold page tables and clocks */
    double amount = kernel->amount();
    int64_t end = now_ns() + (int64_t)(seconds * 1e9);
    int passes = 0;
    while (passes < MAX_PASSES && (passes < MIN_PASSES || now_ns() < end)) {
        rates[passes++] = amount * threads / pass(threads);
    }
    qsort(rates, (size_t)passes, sizeof rates[0], ascending);
    double best = kernel->shared ? rates[passes - 1] : 0;
    for (int i = 0; i < threads; i++) {
        double own = amount / ((double)workers[i].best_ns * 1e-9);
        if (!kernel->shared) best += own;
        else if (own > best) best = own;
    }
    printf("%s\n  {\"kernel\": \"%s\", \"kind\": \"%s\", \"best\": %.6e, \"median\": %.6e, \"passes\": %d}",
           first ? "" : ",", kernel->name, kernel->shared ? "bandwidth" : "operations", best, rates[passes / 2], passes);
}

static double number(const char *text, const char *name, double least, double most) {
    char *rest;
    errno = 0;
    double value = strtod(text, &rest);
    if (errno || rest == text || *rest || !(value >= least && value <= most)) {
        fprintf(stderr, "peaks: %s must be a number from %g to %g, not %s\n", name, least, most, text);
        exit(2);
    }
    return value;
}

int main(int count, char **words) {
    if (count != 4) {
        fprintf(stderr, "usage: peaks THREADS BYTES SECONDS\n");
        return 2;
    }
    int threads = (int)number(words[1], "THREADS", 1, MAX_THREADS);
    size_t bytes = (size_t)number(words[2], "BYTES", PASS_BYTES, 1e12) / PASS_BYTES * PASS_BYTES;
    double seconds = number(words[3], "SECONDS", 0.001, 60);
    pthread_barrier_init(&gate, NULL, (unsigned)threads + 1);
    for (int i = 0; i < threads; i++) {
        void *data = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (data == MAP_FAILED) {
            fprintf(stderr, "peaks: no memory for %d buffers of %zu bytes: %s\n", threads, bytes, strerror(errno));
            return 1;
        }
        madvise(data, bytes, MADV_HUGEPAGE);
        workers[i].load = (struct load){.data = data, .bytes = bytes};
        int failed = pthread_create(&workers[i].thread, NULL, work, &workers[i]);
        if (failed) {
            fprintf(stderr, "peaks: thread %d of %d cannot be started: %s\n", i + 1, threads, strerror(failed));
            return 1;
        }
    }
    printf("{\"format\": 1, \"threads\": %d, \"buffer_bytes\": %zu, \"kernels\": [", threads, bytes);
    for (size_t i = 0; i < kernel_count; i++) measure(&kernels[i], threads, seconds, i == 0);
    printf("]}\n");
    atomic_store(&leave, 1);
    pthread_barrier_wait(&gate);
    for (int i = 0; i < threads; i++) pthread_join(workers[i].thread, NULL);
    return fflush(stdout) || ferror(stdout) ? 1 : 0;
}
