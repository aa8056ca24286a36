/* Where the workload's threads may run: `Cpus_allowed_list` of each of them and of its descendants'. */
#ifndef PROBE_THREADS_H
#define PROBE_THREADS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "output.h"

/* What is watched at a time; what is beyond counts as omitted. */
#define THREADS_MAX 1024
#define PROCESSES_MAX 256
/* Lines in the events of one run. */
#define THREAD_EVENTS_MAX 4096

struct thread_watch {
    int64_t period_us; /* 0: there is no thread that looks */
    pid_t workload;
    struct events *events;
    pthread_t thread;
    atomic_bool started, stopping, finished;
    bool descend; /* the kernel lists the children of a thread */
    struct watched *watched;
    size_t count, hint;
    char *buffer;
    uint64_t looks, told, omitted;
    int64_t cpu_us;
};

/* Prepare the memory. Call it before the run: nothing is allocated later. */
void threads_open(struct thread_watch *watch, int64_t period_us, struct events *events);

/* Make the thread that looks. Returns an error number. */
int threads_start(struct thread_watch *watch, pid_t workload);

/* The workload's program has been started: the first look is within a tenth of a period, then one comes each period. */
void threads_program_started(struct thread_watch *watch);

/* Look a last time, while the workload's entry in /proc is still there, and end. */
void threads_stop(struct thread_watch *watch);

#endif
