#define _GNU_SOURCE
#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base.h"
#include "extract.h"
#include "sensors.h"

static atomic_int failure;
static char failed_name[OUTPUT_NAME_MAX];
static pthread_mutex_t failure_lock = PTHREAD_MUTEX_INITIALIZER;
static void (*on_failure)(void);

void output_on_failure(void (*call)(void)) { on_failure = call; }

void output_fail(const char *name, int error) {
    pthread_mutex_lock(&failure_lock);
    bool first = atomic_load(&failure) == 0;
    if (first) {
        snprintf(failed_name, sizeof failed_name, "%s", name);
        atomic_store(&failure, error ? error : EIO);
    }
    pthread_mutex_unlock(&failure_lock);
    if (first && on_failure) on_failure();
}

int output_failure(const char **name) {
    *name = failed_name;
    return atomic_load(&failure);
}

int output_folder(const char *path) {
    if (mkdir(path, 0755) != 0 && errno != EEXIST) return -1;
    return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

bool writer_open(struct writer *writer, int folder, const char *name, size_t capacity) {
    snprintf(writer->name, sizeof writer->name, "%s", name);
    writer->buffer = capacity ? allocate(capacity, 1) : NULL;
    writer->capacity = capacity;
    writer->used = 0;
    /* A run never replaces another one: what is there already is an error. */
    writer->fd = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (writer->fd < 0) output_fail(name, errno);
    return writer->fd >= 0;
}

static void write_all(struct writer *writer, const char *data, size_t length) {
    while (length > 0) {
        ssize_t done = write(writer->fd, data, length);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) {
            output_fail(writer->name, done < 0 ? errno : ENOSPC);
            return;
        }
        data += done;
        length -= (size_t)done;
    }
}

void writer_flush(struct writer *writer) {
    if (writer->used) write_all(writer, writer->buffer, writer->used);
    writer->used = 0;
}

void writer_put(struct writer *writer, const char *data, size_t length) {
    if (length > writer->capacity - writer->used) writer_flush(writer);
    if (length > writer->capacity) {
        write_all(writer, data, length);
        return;
    }
    memcpy(writer->buffer + writer->used, data, length);
    writer->used += length;
}

void writer_close(struct writer *writer) {
    if (writer->fd < 0) return;
    writer_flush(writer);
    if (close(writer->fd) != 0 && errno != EINTR) output_fail(writer->name, errno);
    writer->fd = -1;
    free(writer->buffer);
    writer->buffer = NULL;
}

bool events_open(struct events *events, int folder) {
    pthread_mutexattr_t recursive;
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&events->lock, &recursive);
    pthread_mutexattr_destroy(&recursive);
    events->last_us = 0;
    atomic_init(&events->bytes, 0);
    return writer_open(&events->writer, folder, "events.jsonl", 1 << 16);
}

void events_hold(struct events *events) { pthread_mutex_lock(&events->lock); }

void events_release(struct events *events) { pthread_mutex_unlock(&events->lock); }

/* Add a line; `rest` is what follows the time. A thread that was held up between its stamp and here must not put
 * its line before an earlier one of another thread, so its time is moved by those microseconds. */
static void add(struct events *events, int64_t t_us, const char *rest, size_t length) {
    char head[32] = "{\"t_us\":";
    pthread_mutex_lock(&events->lock);
    if (t_us < events->last_us) t_us = events->last_us;
    events->last_us = t_us;
    char *end = put_number(head + 8, t_us);
    *end++ = ',';
    writer_put(&events->writer, head, (size_t)(end - head));
    writer_put(&events->writer, rest, length);
    atomic_fetch_add(&events->bytes, (size_t)(end - head) + length);
    pthread_mutex_unlock(&events->lock);
}

void event_start(struct events *events, int64_t t_us, long pid) {
    char rest[64];
    int length = snprintf(rest, sizeof rest, "\"event\":\"start\",\"pid\":%ld}\n", pid);
    add(events, t_us, rest, (size_t)length);
}

void event_end(struct events *events, int64_t t_us, bool exited, int status, int signal) {
    char rest[80];
    int length = exited ? snprintf(rest, sizeof rest, "\"event\":\"end\",\"exited\":true,\"status\":%d}\n", status)
                        : snprintf(rest, sizeof rest, "\"event\":\"end\",\"exited\":false,\"signal\":%d}\n", signal);
    add(events, t_us, rest, (size_t)length);
}

void event_chunk(struct events *events, int64_t t_us, const char *stream, uint64_t offset, size_t length) {
    char rest[128];
    int size = snprintf(rest, sizeof rest, "\"event\":\"chunk\",\"stream\":\"%s\",\"offset\":%llu,\"length\":%zu}\n", stream,
                        (unsigned long long)offset, length);
    add(events, t_us, rest, (size_t)size);
}

void event_text(struct events *events, int64_t t_us, const char *sensor, const char *text, size_t length) {
    char rest[NAME_MAX_BYTES + JSON_ESCAPED_MAX(TEXT_MAX) + 64];
    int size = snprintf(rest, NAME_MAX_BYTES + 64, "\"event\":\"text\",\"sensor\":\"%s\",\"value\":\"", sensor);
    char *end = json_escape(rest + size, text, length < TEXT_MAX ? length : TEXT_MAX);
    memcpy(end, "\"}\n", 3);
    add(events, t_us, rest, (size_t)(end + 3 - rest));
}

void event_unreadable(struct events *events, int64_t t_us, const char *sensor, int error) {
    char rest[NAME_MAX_BYTES + 96], spare[16];
    int size = snprintf(rest, sizeof rest, "\"event\":\"unreadable\",\"sensor\":\"%s\",\"error\":\"%s\"}\n", sensor,
                        error_name(error, spare));
    add(events, t_us, rest, (size_t)size);
}

void event_reopened(struct events *events, int64_t t_us, const char *sensor) {
    char rest[NAME_MAX_BYTES + 64];
    int size = snprintf(rest, sizeof rest, "\"event\":\"reopened\",\"sensor\":\"%s\"}\n", sensor);
    add(events, t_us, rest, (size_t)size);
}

void event_signal(struct events *events, int64_t t_us, int signal) {
    char rest[48];
    int size = snprintf(rest, sizeof rest, "\"event\":\"signal\",\"signal\":%d}\n", signal);
    add(events, t_us, rest, (size_t)size);
}

void event_deadline(struct events *events, int64_t t_us) {
    static const char rest[] = "\"event\":\"deadline\"}\n";
    add(events, t_us, rest, sizeof rest - 1);
}

void event_thread(struct events *events, int64_t t_us, long tid, const char *name, size_t name_length, const char *allowed,
                  size_t allowed_length) {
    char rest[JSON_ESCAPED_MAX(THREAD_NAME_MAX) + JSON_ESCAPED_MAX(THREAD_LIST_MAX) + 96];
    int size = snprintf(rest, 64, "\"event\":\"thread\",\"tid\":%ld,\"name\":\"", tid);
    char *end = json_escape(rest + size, name, name_length < THREAD_NAME_MAX ? name_length : THREAD_NAME_MAX);
    memcpy(end, "\",\"allowed\":\"", 13);
    end = json_escape(end + 13, allowed, allowed_length <= THREAD_LIST_MAX ? allowed_length : 0);
    memcpy(end, "\"}\n", 3);
    add(events, t_us, rest, (size_t)(end + 3 - rest));
}
