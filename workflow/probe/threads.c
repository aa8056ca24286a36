#define _GNU_SOURCE
#include "threads.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base.h"
#include "schedule.h"

/* /proc/<pid>/status has about 1.4 KiB; a list of CPUs may make it longer. */
#define STATUS_MAX 8192
#define ENTRIES_MAX 8192

/* One thread as it was at the latest look. A list is compared by its hash, so that one of any length fits. */
struct watched {
    pid_t tid;
    uint32_t look;
    uint64_t list;
};

/* As the kernel fills it (getdents64(2)); readdir would allocate. */
struct entry {
    uint64_t inode;
    int64_t offset;
    unsigned short length;
    unsigned char type;
    char name[];
};

struct text {
    const char *at;
    size_t length;
};

static uint64_t hash_of(struct text text) { /* FNV-1a */
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < text.length; i++) hash = (hash ^ (unsigned char)text.at[i]) * 1099511628211u;
    return hash;
}

/* Return the number that a text begins with, 0 if there is none or it is no process id; `end` is set behind it. */
static pid_t number(const char *text, const char *limit, const char **end) {
    int64_t value = 0;
    for (; text < limit && *text >= '0' && *text <= '9'; text++)
        if (value < INT32_MAX) value = value * 10 + (*text - '0');
    *end = text;
    return value < INT32_MAX ? (pid_t)value : 0;
}

/* Return the value of a line `KEY:\tVALUE`; the kernel writes a line end in a name as \n, so a line is a line. */
static struct text line_of(const char *content, size_t length, const char *key) {
    size_t size = strlen(key);
    const char *limit = content + length;
    for (const char *line = content; line < limit;) {
        const char *end = memchr(line, '\n', (size_t)(limit - line));
        if (!end) break; /* cut short: what stands there is not the whole value */
        if ((size_t)(end - line) > size && memcmp(line, key, size) == 0 && line[size] == ':') {
            const char *at = line + size + 1;
            while (at < end && (*at == '\t' || *at == ' ')) at++;
            return (struct text){at, (size_t)(end - at)};
        }
        line = end + 1;
    }
    return (struct text){NULL, 0};
}

static size_t read_at(int folder, const char *path, char *to, size_t most) {
    int fd = openat(folder, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    size_t length = 0;
    for (ssize_t got; length < most; length += (size_t)got) {
        do
            got = read(fd, to + length, most - length);
        while (got < 0 && errno == EINTR);
        if (got <= 0) break;
    }
    close(fd);
    return length;
}

/* Return the thread's entry, a new one where it is not known; NULL when there is no room. Threads are listed in the same
 * order each time, so the one looked for is nearly always the next. */
static struct watched *find(struct thread_watch *watch, pid_t tid, bool *known) {
    for (size_t i = 0; i < watch->count; i++) {
        size_t at = (watch->hint + i) % watch->count;
        if (watch->watched[at].tid != tid) continue;
        watch->hint = at + 1;
        *known = true;
        return &watch->watched[at];
    }
    *known = false;
    if (watch->count == THREADS_MAX) return NULL;
    watch->watched[watch->count] = (struct watched){.tid = tid};
    return &watch->watched[watch->count++];
}

static void look_at(struct thread_watch *watch, int folder, pid_t tid) {
    char path[32], *end = put_number(path, tid);
    memcpy(end, "/status", 8);
    size_t length = read_at(folder, path, watch->buffer, STATUS_MAX);
    struct text list = line_of(watch->buffer, length, "Cpus_allowed_list");
    if (!list.at) return; /* it has ended between the list of threads and here */
    bool known;
    struct watched *thread = find(watch, tid, &known);
    if (!thread) {
        watch->omitted++;
        return;
    }
    uint64_t hash = hash_of(list);
    thread->look = (uint32_t)watch->looks;
    if (known && thread->list == hash) return;
    thread->list = hash;
    if (watch->told == THREAD_EVENTS_MAX) {
        watch->omitted++;
        return;
    }
    watch->told++;
    struct text name = line_of(watch->buffer, length, "Name");
    event_thread(watch->events, now_us(), tid, name.at ? name.at : "", name.length, list.at, list.length);
}

/* Add the children of a thread to the processes to be looked at. */
static void add_children(struct thread_watch *watch, int folder, pid_t tid, pid_t *processes, size_t *count) {
    char path[32], *to = put_number(path, tid);
    memcpy(to, "/children", 10);
    size_t length = read_at(folder, path, watch->buffer, STATUS_MAX);
    if (length == STATUS_MAX) /* cut short, perhaps within a number: a part of one is another process */
        while (length > 0 && watch->buffer[length - 1] != ' ') length--;
    const char *at = watch->buffer, *limit = at + length;
    while (at < limit) {
        const char *end;
        pid_t child = number(at, limit, &end);
        if (child > 0 && *count < PROCESSES_MAX)
            processes[(*count)++] = child;
        else if (child > 0)
            watch->omitted++;
        at = end < limit ? end + 1 : limit;
    }
}

static void look_at_process(struct thread_watch *watch, pid_t pid, pid_t *processes, size_t *count) {
    char path[32] = "/proc/";
    _Alignas(struct entry) char entries[ENTRIES_MAX];
    char *end = put_number(path + 6, pid);
    memcpy(end, "/task", 6);
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) return;
    for (long got; (got = syscall(SYS_getdents64, folder, entries, sizeof entries)) > 0;) {
        for (long at = 0; at < got;) {
            const struct entry *entry = (const struct entry *)(entries + at);
            const char *rest;
            pid_t tid = number(entry->name, entry->name + strlen(entry->name), &rest);
            at += entry->length;
            if (tid <= 0) continue; /* . and .. */
            look_at(watch, folder, tid);
            if (watch->descend) add_children(watch, folder, tid, processes, count);
        }
    }
    close(folder);
}

/* Forget threads that are gone: their number may come again for another. */
static void forget_ended(struct thread_watch *watch) {
    size_t kept = 0;
    for (size_t i = 0; i < watch->count; i++)
        if (watch->watched[i].look == (uint32_t)watch->looks) watch->watched[kept++] = watch->watched[i];
    watch->count = kept;
}

static void look(struct thread_watch *watch) {
    pid_t processes[PROCESSES_MAX];
    size_t count = 1;
    processes[0] = watch->workload;
    watch->looks++;
    watch->hint = 0;
    for (size_t i = 0; i < count; i++) look_at_process(watch, processes[i], processes, &count);
    forget_ended(watch);
}

static void *keep_looking(void *argument) {
    struct thread_watch *watch = argument;
    sigset_t kick;
    sigemptyset(&kick);
    sigaddset(&kick, SIGUSR1);
    pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
    int64_t due = now_us() + watch->period_us / 10;
    while (!atomic_load(&watch->stopping)) {
        sleep_until_us(due);
        int64_t now = now_us();
        if (now < due) continue; /* a signal */
        if (!atomic_load(&watch->started)) {
            due = now + watch->period_us / 10;
            continue;
        }
        look(watch);
        due += ((now - due) / watch->period_us + 1) * watch->period_us;
    }
    look(watch);
    struct timespec used;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    watch->cpu_us = (int64_t)used.tv_sec * 1000000 + used.tv_nsec / 1000;
    atomic_store(&watch->finished, true);
    return NULL;
}

void threads_open(struct thread_watch *watch, int64_t period_us, struct events *events) {
    char path[64];
    watch->period_us = period_us;
    watch->events = events;
    if (!period_us) return;
    watch->watched = allocate(THREADS_MAX, sizeof *watch->watched);
    watch->buffer = allocate(STATUS_MAX, 1);
    /* CONFIG_PROC_CHILDREN. Without it finding descendants would take a look at every process of the device. */
    snprintf(path, sizeof path, "/proc/%ld/task/%ld/children", (long)getpid(), (long)getpid());
    watch->descend = access(path, R_OK) == 0;
}

int threads_start(struct thread_watch *watch, pid_t workload) {
    sigset_t all, before;
    if (!watch->period_us) return 0;
    watch->workload = workload;
    sigfillset(&all); /* signals are the main loop's */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&watch->thread, NULL, keep_looking, watch);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

void threads_program_started(struct thread_watch *watch) { atomic_store(&watch->started, true); }

void threads_stop(struct thread_watch *watch) {
    if (!watch->period_us) return;
    atomic_store(&watch->stopping, true);
    while (!atomic_load(&watch->finished)) {
        pthread_kill(watch->thread, SIGUSR1);
        pause_us(200);
    }
    pthread_join(watch->thread, NULL);
}
