/* One thread a group of sensors, so that a file that takes long to read delays its own group only. */
#ifndef PROBE_SAMPLER_H
#define PROBE_SAMPLER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "histogram.h"
#include "output.h"
#include "sensors.h"

#define CONTENT_MAX (1 << 16)

/* A file as it is open now. */
struct open_file {
    char *path;
    int fd;            /* -1: not open */
    bool opened_before;
    bool reopened;     /* in this tick */
    size_t length;     /* of the content read in this tick */
    bool complete;     /* there is no more content than that */
};

struct sampler {
    struct group *group;
    struct events *events;
    struct open_file *files; /* one a source of the group */
    struct writer csv;
    char *content, *row;
    size_t row_max;
    struct histogram errors; /* interval between two ticks, less the period */
    int64_t first_us, last_us;
    uint64_t taken, expected;

    pthread_t thread;
    /* Held by the thread except while it sleeps or is in a system call on a sensor's file, which may never return. */
    pthread_mutex_t lock;
    bool abandoned;
    atomic_bool sleeping, sampled, finished;
};

/* Prepare a group's file and memory. Returns false after output_fail. */
bool sampler_open(struct sampler *sampler, struct group *group, struct events *events, int folder, pid_t workload);

/* Start the thread; its first tick is taken at once. Returns an error number. */
int sampler_start(struct sampler *sampler);

/* The workload's program has been started: what was opened of its process before belongs to another program. */
void samplers_program_started(void);

/* Wait until each has taken its first sample, but no longer than the given time. */
void samplers_await_first(struct sampler *samplers, size_t count, int64_t most_us);

/* Have all take a last sample and end. */
void samplers_stop(struct sampler *samplers, size_t count);

/* Wait until they have. One that is still in a system call after the given time is left there. */
void samplers_finish(struct sampler *samplers, size_t count, int64_t most_us);

/* Write what is left of the group's samples. Only after samplers_finish. */
void sampler_close(struct sampler *sampler);

/* Sampling and wake threads sleep precisely and are woken by SIGUSR1; returns false if that cannot be set up. */
bool sampler_thread_setup(void);

#endif
