#define _GNU_SOURCE
#include "wake.h"

#include <signal.h>

#include "base.h"
#include "schedule.h"

bool wake_open(struct wake *wake, int64_t period_us, int folder) {
    wake->period_us = period_us;
    if (!writer_open(&wake->csv, folder, "wake.csv", 1 << 16)) return false;
    writer_put(&wake->csv, "t_us,late_us\n", 13);
    return true;
}

static void *keep_waking(void *argument) {
    struct wake *wake = argument;
    char row[48];
    schedule_thread_setup();
    int64_t due = now_us() + wake->period_us;
    while (!atomic_load(&wake->stopping)) {
        sleep_until_us(due);
        int64_t woke = now_us();
        if (woke < due) continue; /* a signal */
        char *to = put_number(row, woke);
        *to++ = ',';
        to = put_number(to, woke - due);
        *to++ = '\n';
        writer_put(&wake->csv, row, (size_t)(to - row));
        due += ((woke - due) / wake->period_us + 1) * wake->period_us; /* as a frame that was missed is not drawn later */
    }
    atomic_store(&wake->finished, true);
    return NULL;
}

int wake_start(struct wake *wake) {
    sigset_t all, before;
    if (!wake->period_us) return 0;
    sigfillset(&all); /* signals are the main loop's */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&wake->thread, NULL, keep_waking, wake);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

void wake_stop(struct wake *wake) {
    atomic_store(&wake->stopping, true);
    if (wake->period_us) {
        while (!atomic_load(&wake->finished)) {
            pthread_kill(wake->thread, SIGUSR1);
            pause_us(200);
        }
        pthread_join(wake->thread, NULL);
    }
    writer_close(&wake->csv);
}
