/* What a run leaves behind: buffered files, the event log, and the first thing that went wrong with them. */
#ifndef PROBE_OUTPUT_H
#define PROBE_OUTPUT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OUTPUT_NAME_MAX 128

/* A file written through a buffer of fixed size; one thread at a time. */
struct writer {
    int fd;
    char name[OUTPUT_NAME_MAX];
    char *buffer;
    size_t used, capacity;
};

/* Called once, from any thread, when a file of the run cannot be written. */
void output_on_failure(void (*call)(void));

/* Remember the first failure: the file's name and errno. Later ones follow from it and are dropped. */
void output_fail(const char *name, int error);

/* Return errno of the first failure, 0 if there was none; `name` is set to its file. */
int output_failure(const char **name);

/* Make the folder if it is not there, and open it. Returns a descriptor, or -1 with errno. */
int output_folder(const char *path);

/* Create a file that must not exist yet. Returns false after output_fail. */
bool writer_open(struct writer *writer, int folder, const char *name, size_t capacity);
void writer_put(struct writer *writer, const char *data, size_t length);
void writer_flush(struct writer *writer);
void writer_close(struct writer *writer);

/* events.jsonl: lines from all threads, ordered by time. */
struct events {
    pthread_mutex_t lock;
    struct writer writer;
    int64_t last_us;
    atomic_uint_fast64_t bytes; /* written so far; read without the lock */
};

bool events_open(struct events *events, int folder);

/* Keep every other thread's events out until events_release, so that later ones may still be added at an earlier time. */
void events_hold(struct events *events);
void events_release(struct events *events);

void event_start(struct events *events, int64_t t_us, long pid);
void event_end(struct events *events, int64_t t_us, bool exited, int status, int signal);
void event_chunk(struct events *events, int64_t t_us, const char *stream, uint64_t offset, size_t length);
void event_text(struct events *events, int64_t t_us, const char *sensor, const char *text, size_t length);
void event_unreadable(struct events *events, int64_t t_us, const char *sensor, int error);
void event_reopened(struct events *events, int64_t t_us, const char *sensor);
void event_signal(struct events *events, int64_t t_us, int signal);
/* `name` and `allowed` as the kernel prints them; a list longer than THREAD_LIST_MAX is left empty, for a part says nothing. */
#define THREAD_NAME_MAX 64
#define THREAD_LIST_MAX 512
void event_thread(struct events *events, int64_t t_us, long tid, const char *name, size_t name_length, const char *allowed,
                  size_t allowed_length);
void event_deadline(struct events *events, int64_t t_us);

#endif
