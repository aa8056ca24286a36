/* Responsiveness: a thread that means to wake at a fixed rate, and how late it was. */
#ifndef PROBE_WAKE_H
#define PROBE_WAKE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "output.h"

struct wake {
    int64_t period_us; /* 0: there is no thread, and the file holds its header only */
    struct writer csv;
    pthread_t thread;
    atomic_bool stopping, finished;
};

bool wake_open(struct wake *wake, int64_t period_us, int folder);
int wake_start(struct wake *wake);

/* End the thread and write what is left. */
void wake_stop(struct wake *wake);

#endif
