/* Reading a group of sensors: its files, its samples, what is told of them. When that happens is schedule.h's. */
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
    int64_t last_us; /* 0: no sample yet */
    uint64_t taken;
    /* Held while a sample is taken, except in system calls on a sensor's file, which may never return. */
    pthread_mutex_t lock;
    bool abandoned;

    /* The schedule's. */
    int64_t tick; /* the last one taken; 0 is the first sample, before the start */
    atomic_uint_fast64_t expected; /* samples; 0 until the last one is due */
    struct histogram errors; /* interval between two ticks, less the period */
    atomic_bool sampled, slow, program_seen, finished;
};

/* Prepare a group's file and memory. Returns false after output_fail. */
bool sampler_open(struct sampler *sampler, struct group *group, struct events *events, int folder, pid_t workload);

/* Read all sensors of the group and write a line. Does not return in a thread whose sampler has been abandoned. */
void sampler_take(struct sampler *sampler);

/* The workload's program has been started: files of its process are opened anew, which is no event. */
void sampler_forget_process(struct sampler *sampler);

/* From now on a signal ends a system call on a sensor's file for good. */
void samplers_give_up(void);

/* Leave a sampler to the system call it is in; what it has is not touched any more when that returns. */
void sampler_abandon(struct sampler *sampler);

/* Write what is left of the group's samples. */
void sampler_close(struct sampler *sampler);

#endif
