/* The process that is measured: its start, its output, its end and that of everything it started. */
#ifndef PROBE_WORKLOAD_H
#define PROBE_WORKLOAD_H

#include <stdbool.h>
#include <sys/types.h>

struct workload {
    pid_t pid;
    int output;  /* master of the pseudo-terminal that is its stdout, non-blocking */
    int errors;  /* pipe of its stderr, non-blocking */
    int go;      /* the program starts when a byte is written here */
    int started; /* ends when the program has started, or failed to */
    int guard;   /* ends the process group when this probe is gone, however it went */
};

/* Fork the workload, in a session of its own, held until workload_release. Call it while there is one thread.
 * Returns NULL, or the name of what failed with errno set. A command that cannot be run shows as in a shell: exit
 * status 127 or 126 and a message on its stderr. */
const char *workload_start(struct workload *workload, char **command);

void workload_release(struct workload *workload);

/* Send a signal to the whole process group. */
void workload_signal(struct workload *workload, int signal);

/* Tell whether it has ended, and how, but leave its entry in /proc for the last look. */
bool workload_ended(struct workload *workload, bool *exited, int *status, int *signal);

/* Kill what it left running: its process group, and processes that left the group, which Linux hands to this one. */
void workload_sweep(struct workload *workload);

/* Collect its entry and let the guard go. */
void workload_forget(struct workload *workload);

#endif
