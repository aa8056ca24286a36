#define _GNU_SOURCE
#include "sampler.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base.h"

/* A file of sysfs or procfs that gave fewer bytes than this is complete: procfs hands out a longer one in pieces of
 * about a page. Asking again would cost a system call, and some drivers answer it with the same content once more. */
#define SHORT_READ 1024
#define FIRST_READ 16384

static atomic_bool stopping, giving_up, program_started;

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

static void come_back(struct sampler *sampler) {
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
    come_back(sampler);
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
    come_back(sampler);
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
    come_back(sampler);
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

static void take_sample(struct sampler *sampler) {
    struct group *group = sampler->group;
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
    if (sampler->taken++ == 0) sampler->first_us = t_us;
    sampler->last_us = t_us;
}

/* The files of the process that has become the workload's program are opened anew; this is no event. */
static void forget_process_files(struct sampler *sampler) {
    for (size_t i = 0; i < sampler->group->source_count; i++) {
        if (!sampler->group->sources[i].of_workload) continue;
        close_file(&sampler->files[i]);
        sampler->files[i].opened_before = false;
    }
}

static void sleep_until(struct sampler *sampler, int64_t due_us) {
    leave(sampler);
    atomic_store(&sampler->sleeping, true);
    while (!atomic_load(&stopping) && now_us() < due_us) sleep_until_us(due_us);
    atomic_store(&sampler->sleeping, false);
    come_back(sampler);
}

static void *sample_group(void *argument) {
    struct sampler *sampler = argument;
    int64_t period = sampler->group->period_us, start = now_us(), tick = 0;
    bool program_seen = false;
    sampler_thread_setup();
    pthread_mutex_lock(&sampler->lock);
    for (;;) {
        int64_t before = sampler->last_us;
        take_sample(sampler);
        if (before) histogram_add(&sampler->errors, sampler->last_us - before - period);
        atomic_store(&sampler->sampled, true);
        int64_t next = (now_us() - start) / period + 1; /* a tick that was missed is skipped, not caught up on */
        if (next <= tick) next = tick + 1;
        sleep_until(sampler, start + next * period);
        if (!program_seen && atomic_load(&program_started)) {
            program_seen = true;
            forget_process_files(sampler);
        }
        if (atomic_load(&stopping)) break;
        tick = next;
    }
    /* The last sample stands for a tick that has become due, or comes on top of them. */
    int64_t due = (now_us() - start) / period;
    sampler->expected = (uint64_t)(due + 1 + (due <= tick));
    take_sample(sampler);
    pthread_mutex_unlock(&sampler->lock);
    atomic_store(&sampler->finished, true);
    return NULL;
}

bool sampler_thread_setup(void) {
    sigset_t kick;
    sigemptyset(&kick);
    sigaddset(&kick, SIGUSR1);
    pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
    return prctl(PR_SET_TIMERSLACK, 1) == 0; /* default 50 us; only this thread's */
}

int sampler_start(struct sampler *sampler) {
    return pthread_create(&sampler->thread, NULL, sample_group, sampler);
}

void samplers_program_started(void) { atomic_store(&program_started, true); }

void samplers_await_first(struct sampler *samplers, size_t count, int64_t most_us) {
    int64_t end = now_us() + most_us;
    for (size_t i = 0; i < count; i++)
        while (!atomic_load(&samplers[i].sampled) && now_us() < end) pause_us(200);
}

static bool all_finished(struct sampler *samplers, size_t count, bool kick_all) {
    bool all = true;
    for (size_t i = 0; i < count; i++) {
        if (atomic_load(&samplers[i].finished)) continue;
        all = false;
        /* Repeated, because a signal may come just before the sleep that it should end. */
        if (kick_all || atomic_load(&samplers[i].sleeping)) pthread_kill(samplers[i].thread, SIGUSR1);
    }
    return all;
}

void samplers_stop(struct sampler *samplers, size_t count) {
    atomic_store(&stopping, true);
    all_finished(samplers, count, false);
}

void samplers_finish(struct sampler *samplers, size_t count, int64_t most_us) {
    int64_t end = now_us() + most_us;
    while (!all_finished(samplers, count, false) && now_us() < end) pause_us(200);
    atomic_store(&giving_up, true);
    end = now_us() + 100000;
    while (!all_finished(samplers, count, true) && now_us() < end) pause_us(1000);
    for (size_t i = 0; i < count; i++) {
        pthread_mutex_lock(&samplers[i].lock);
        samplers[i].abandoned = !atomic_load(&samplers[i].finished);
        if (samplers[i].abandoned) { /* it owes the ticks since its last one */
            int64_t period = samplers[i].group->period_us;
            int64_t since = samplers[i].taken ? samplers[i].first_us : now_us();
            samplers[i].expected = (uint64_t)((now_us() - since) / period + 2);
        }
        pthread_mutex_unlock(&samplers[i].lock);
        if (!samplers[i].abandoned) pthread_join(samplers[i].thread, NULL);
    }
}

void sampler_close(struct sampler *sampler) { writer_close(&sampler->csv); }
