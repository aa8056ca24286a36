#define _GNU_SOURCE
#include "sampler.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base.h"

/* A file of sysfs or procfs that gave fewer bytes than this is complete: procfs hands out a longer one in pieces of
 * about a page. Asking again would cost a system call, and some drivers answer it with the same content once more. */
#define SHORT_READ 1024
#define FIRST_READ 16384

static atomic_bool giving_up;

static char *path_of(const struct source *source, pid_t workload) {
    size_t size = strlen(source->path) + 1, extra = 0;
    for (const char *at = source->path; (at = strstr(at, "{pid}")); at += 5) extra += 12;
    char *path = allocate(size + extra, 1), *to = path;
    const char *at = source->path;
    for (const char *next; (next = strstr(at, "{pid}")); at = next + 5) {
        memcpy(to, at, (size_t)(next - at));
        to = put_number(to + (next - at), workload);
    }
    strcpy(to, at);
    return path;
}

bool sampler_open(struct sampler *sampler, struct group *group, struct events *events, int folder, pid_t workload) {
    char name[NAME_MAX_BYTES + 8];
    sampler->group = group;
    sampler->events = events;
    sampler->files = allocate(group->source_count, sizeof *sampler->files);
    for (size_t i = 0; i < group->source_count; i++) {
        sampler->files[i].path = path_of(&group->sources[i], workload);
        sampler->files[i].fd = -1;
    }
    sampler->row_max = 32 + group->sensor_count * (NUMBER_MAX + 1);
    sampler->row = allocate(sampler->row_max, 1);
    sampler->content = allocate(CONTENT_MAX, 1);
    pthread_mutex_init(&sampler->lock, NULL);
    snprintf(name, sizeof name, "%s.csv", group->name);
    if (!writer_open(&sampler->csv, folder, name, 1 << 16)) return false;
    writer_put(&sampler->csv, "t_us", 4);
    for (size_t i = 0; i < group->sensor_count; i++) {
        if (group->sensors[i].select.kind == SELECT_TEXT) continue;
        writer_put(&sampler->csv, ",", 1);
        writer_put(&sampler->csv, group->sensors[i].name, strlen(group->sensors[i].name));
    }
    writer_put(&sampler->csv, "\n", 1);
    return true;
}

/* Around each system call that a driver may hold up. */
static void leave(struct sampler *sampler) { pthread_mutex_unlock(&sampler->lock); }

static void enter(struct sampler *sampler) {
    int error = errno;
    pthread_mutex_lock(&sampler->lock);
    if (sampler->abandoned) { /* the run has been closed without this thread */
        pthread_mutex_unlock(&sampler->lock);
        pthread_exit(NULL);
    }
    errno = error;
}

static bool try_again(void) { return errno == EINTR && !atomic_load(&giving_up); }

static bool open_file(struct sampler *sampler, struct open_file *file) {
    leave(sampler);
    do
        file->fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    while (file->fd < 0 && try_again());
    enter(sampler);
    if (file->fd < 0) return false;
    file->reopened = file->opened_before;
    file->opened_before = true;
    return true;
}

static void close_file(struct open_file *file) {
    if (file->fd >= 0) close(file->fd);
    file->fd = -1;
}

static ssize_t read_file(struct sampler *sampler, struct open_file *file, size_t size) {
    ssize_t got;
    leave(sampler);
    do
        got = pread(file->fd, sampler->content + file->length, size, (off_t)file->length);
    while (got < 0 && try_again());
    enter(sampler);
    return got;
}

/* Read a file from its beginning. Returns 0 or an errno. */
static int load(struct sampler *sampler, struct open_file *file, bool has_content) {
    bool was_open = file->fd >= 0;
    file->reopened = false;
    file->length = 0;
    file->complete = false;
    for (;;) {
        if (file->fd < 0 && !open_file(sampler, file)) return errno;
        if (!has_content) return 0;
        ssize_t got = read_file(sampler, file, FIRST_READ);
        if (got >= 0) {
            file->length = (size_t)got;
            file->complete = got < SHORT_READ;
            return 0;
        }
        /* What a descriptor cannot read any more a new one may: a core that went away and came back has new files. */
        int error = errno;
        close_file(file);
        if (!was_open) return error;
        was_open = false;
    }
}

static void load_more(struct sampler *sampler, struct open_file *file) {
    ssize_t got = file->length < CONTENT_MAX ? read_file(sampler, file, CONTENT_MAX - file->length) : 0;
    if (got > 0)
        file->length += (size_t)got;
    else
        file->complete = true;
}

static void set_unreadable(struct sampler *sampler, struct sensor *sensor, int error) {
    sensor->unreadable++;
    if (sensor->error != error) event_unreadable(sampler->events, now_us(), sensor->name, error);
    sensor->error = error;
    sensor->has_text = false;
}

static void set_readable(struct sampler *sampler, struct sensor *sensor, bool reopened) {
    if (sensor->error != 0 || reopened) event_reopened(sampler->events, now_us(), sensor->name);
    sensor->error = 0;
}

static void set_number(struct sensor *sensor, const char *text, size_t length) {
    sensor->present = true;
    sensor->has_text = false;
    if (sensor->length == length && memcmp(sensor->value, text, length) == 0) return;
    sensor->changes += sensor->length != 0;
    sensor->length = (unsigned char)length;
    memcpy(sensor->value, text, length);
}

/* Text goes to the events when it is not what it was. */
static void set_text(struct sampler *sampler, struct sensor *sensor, const char *text, size_t length, bool wanted) {
    if (!wanted) sensor->unreadable++;
    if (sensor->has_text && sensor->text_length == length && memcmp(sensor->text, text, length) == 0) return;
    sensor->changes += wanted && sensor->has_text;
    sensor->has_text = true;
    sensor->text_length = (unsigned short)length;
    memcpy(sensor->text, text, length);
    event_text(sampler->events, now_us(), sensor->name, text, length);
}

static void read_ioctl(struct sampler *sampler, struct open_file *file, struct sensor *sensor) {
    uint32_t value = 0;
    char text[20];
    leave(sampler);
    int result;
    do
        result = ioctl(file->fd, (unsigned long)sensor->select.request, &value);
    while (result < 0 && try_again());
    enter(sampler);
    if (result < 0) {
        set_unreadable(sampler, sensor, errno);
        return;
    }
    set_readable(sampler, sensor, file->reopened);
    set_number(sensor, text, (size_t)(put_number(text, value) - text));
}

static void read_content(struct sampler *sampler, struct open_file *file, struct sensor *sensor) {
    struct extracted value;
    for (;;) {
        value = extract(&sensor->select, sampler->content, file->length);
        if (!value.more || file->complete) break;
        load_more(sampler, file);
    }
    set_readable(sampler, sensor, file->reopened);
    if (value.number && sensor->select.kind != SELECT_TEXT)
        set_number(sensor, value.at, value.length);
    else
        set_text(sampler, sensor, value.at, value.length, sensor->select.kind == SELECT_TEXT);
}

static void read_source(struct sampler *sampler, size_t index) {
    struct source *source = &sampler->group->sources[index];
    struct open_file *file = &sampler->files[index];
    int error = load(sampler, file, source->has_content);
    bool lost = false;
    for (size_t i = 0; i < source->sensor_count; i++) {
        struct sensor *sensor = &sampler->group->sensors[source->sensors[i]];
        sensor->reads++;
        sensor->present = false;
        if (error)
            set_unreadable(sampler, sensor, error);
        else if (sensor->select.kind == SELECT_IOCTL)
            read_ioctl(sampler, file, sensor), lost |= sensor->error != 0;
        else
            read_content(sampler, file, sensor);
    }
    if (lost) close_file(file);
}

void sampler_take(struct sampler *sampler) {
    struct group *group = sampler->group;
    enter(sampler);
    int64_t t_us = now_us();
    for (size_t i = 0; i < group->source_count; i++) read_source(sampler, i);
    char *to = put_number(sampler->row, t_us);
    for (size_t i = 0; i < group->sensor_count; i++) {
        struct sensor *sensor = &group->sensors[i];
        if (sensor->select.kind == SELECT_TEXT) continue;
        *to++ = ',';
        if (!sensor->present) continue;
        memcpy(to, sensor->value, sensor->length);
        to += sensor->length;
    }
    *to++ = '\n';
    writer_put(&sampler->csv, sampler->row, (size_t)(to - sampler->row));
    sampler->taken++;
    sampler->last_us = t_us;
    pthread_mutex_unlock(&sampler->lock);
}

void sampler_forget_process(struct sampler *sampler) {
    pthread_mutex_lock(&sampler->lock);
    for (size_t i = 0; i < sampler->group->source_count; i++) {
        if (!sampler->group->sources[i].of_workload) continue;
        close_file(&sampler->files[i]);
        sampler->files[i].opened_before = false;
    }
    pthread_mutex_unlock(&sampler->lock);
}

void samplers_give_up(void) { atomic_store(&giving_up, true); }

void sampler_abandon(struct sampler *sampler) {
    pthread_mutex_lock(&sampler->lock);
    sampler->abandoned = true;
    pthread_mutex_unlock(&sampler->lock);
}

void sampler_close(struct sampler *sampler) { writer_close(&sampler->csv); }
