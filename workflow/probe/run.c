#define _GNU_SOURCE
#include "run.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base.h"
#include "schedule.h"
#include "wake.h"
#include "workload.h"

#define KILL_AFTER_US 2000000
#define SAMPLE_WAIT_US 1000000
#define DRAIN_US 2000000
#define EVENTS_MIN (1 << 20)

/* Signal handlers, and threads that fail, wake the main loop by a byte: a signal's number, or 0. */
static int notice[2];

static void notify(int number) {
    int error = errno;
    unsigned char byte = (unsigned char)number;
    if (write(notice[1], &byte, 1) != 1) { /* full: the loop is awake already */
    }
    errno = error;
}

static void notify_other(void) { notify(0); }

static void nothing(int number) { (void)number; }

/* One of the workload's two outputs. */
struct stream {
    const char *name;
    int fd; /* -1 when it has ended */
    struct writer file;
    uint64_t bytes;
};

struct recording {
    const struct run_options *options;
    struct workload workload;
    struct events events;
    struct stream streams[2];
    struct wake wake;
    struct thread_watch threads;
    struct sampler *samplers;
    size_t sampler_count;
    struct run_result result;
    char *chunk;
    int64_t kill_at_us; /* 0: not asked to end yet */
    int64_t cpu_at_start_us;
    bool killed;
};

#define CHUNK_MAX (1 << 16)

static int64_t cpu_us(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (int64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
}

static bool set_up_signals(void) {
    static const int forwarded[] = {SIGTERM, SIGINT, SIGHUP, SIGCHLD};
    struct sigaction action = {.sa_handler = notify, .sa_flags = SA_RESTART};
    if (pipe2(notice, O_CLOEXEC | O_NONBLOCK) != 0) return false;
    for (size_t i = 0; i < sizeof forwarded / sizeof *forwarded; i++) sigaction(forwarded[i], &action, NULL);
    action = (struct sigaction){.sa_handler = nothing}; /* no SA_RESTART: it ends sleeps and reads */
    sigaction(SIGUSR1, &action, NULL);
    action = (struct sigaction){.sa_handler = SIG_IGN};
    sigaction(SIGPIPE, &action, NULL);
    sigaction(SIGXFSZ, &action, NULL);
    output_on_failure(notify_other);
    return true;
}

static void send_signal(struct recording *recording, int number) {
    event_signal(&recording->events, now_us(), number);
    workload_signal(&recording->workload, number);
}

static void kill_now(struct recording *recording) {
    if (recording->killed) return;
    recording->killed = true;
    send_signal(recording, SIGKILL);
}

/* Ask the workload to end, and see to it that it does. */
static void ask_to_end(struct recording *recording, int number) {
    send_signal(recording, number);
    if (recording->kill_at_us == 0) recording->kill_at_us = now_us() + KILL_AFTER_US;
}

static bool limit_reached(struct recording *recording) {
    uint64_t most = recording->options->max_output, events_most = most > EVENTS_MIN ? most : EVENTS_MIN;
    return recording->result.truncated || atomic_load(&recording->events.bytes) >= events_most;
}

/* Record what a stream has to give now. `at_us` is the time of it, or 0 for the time of reading. Returns whether there was any. */
static bool read_stream(struct recording *recording, struct stream *stream, int64_t at_us) {
    ssize_t got = read(stream->fd, recording->chunk, CHUNK_MAX);
    int64_t t_us = at_us ? at_us : now_us();
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) return false;
    if (got <= 0) { /* a pseudo-terminal ends with EIO when its last user is gone */
        close(stream->fd);
        stream->fd = -1;
        return false;
    }
    uint64_t left = recording->options->max_output - recording->streams[0].bytes - recording->streams[1].bytes;
    size_t length = (uint64_t)got < left ? (size_t)got : (size_t)left;
    if (limit_reached(recording)) length = 0;
    if (length > 0) {
        event_chunk(&recording->events, t_us, stream->name, stream->bytes, length);
        writer_put(&stream->file, recording->chunk, length);
        stream->bytes += length;
    }
    if (length < (size_t)got) {
        recording->result.truncated = true;
        kill_now(recording);
    }
    return true;
}

static int timeout_ms(int64_t until_us) {
    int64_t left = until_us ? until_us - now_us() : SCHEDULE_MEND_US;
    if (left > SCHEDULE_MEND_US) left = SCHEDULE_MEND_US;
    return left <= 0 ? 0 : (int)(left / 1000) + 1;
}

static void handle_notices(struct recording *recording) {
    unsigned char bytes[64];
    ssize_t got;
    while ((got = read(notice[0], bytes, sizeof bytes)) > 0)
        for (ssize_t i = 0; i < got; i++)
            if (bytes[i] != 0 && bytes[i] != SIGCHLD) ask_to_end(recording, bytes[i]);
}

static void check_times(struct recording *recording, int64_t deadline_us) {
    struct run_result *result = &recording->result;
    int64_t now = now_us();
    if (deadline_us && now >= deadline_us && !result->deadline_hit) {
        result->deadline_hit = true;
        event_deadline(&recording->events, now);
        ask_to_end(recording, SIGTERM);
    }
    if (recording->kill_at_us && now >= recording->kill_at_us) kill_now(recording);
}

/* Record until the workload's own process has ended. */
static void follow(struct recording *recording) {
    struct run_result *result = &recording->result;
    int64_t deadline_us = recording->options->deadline_us ? result->start_us + recording->options->deadline_us : 0;
    const char *name;
    for (;;) {
        int64_t next = recording->killed ? 0 : recording->kill_at_us;
        if (deadline_us && !result->deadline_hit && (next == 0 || deadline_us < next)) next = deadline_us;
        struct pollfd polled[] = {
            {.fd = notice[0], .events = POLLIN},
            {.fd = recording->streams[0].fd, .events = POLLIN},
            {.fd = recording->streams[1].fd, .events = POLLIN},
            {.fd = recording->workload.started, .events = POLLIN},
        };
        if (poll(polled, 4, timeout_ms(next)) > 0) {
            for (int i = 0; i < 2; i++)
                if (polled[1 + i].revents) read_stream(recording, &recording->streams[i], 0);
            if (polled[3].revents) {
                close(recording->workload.started);
                recording->workload.started = -1;
                schedule_program_started();
                threads_program_started(&recording->threads);
            }
            if (polled[0].revents) handle_notices(recording);
        }
        if (workload_ended(&recording->workload, &result->exited, &result->status, &result->signal)) return;
        if (output_failure(&name)) kill_now(recording);
        schedule_mend();
        check_times(recording, deadline_us);
    }
}

/* After the end: what is still in the kernel was printed before it, so it is given that time and stands before it. */
static void drain(struct recording *recording) {
    struct run_result *result = &recording->result;
    for (int64_t end = now_us() + DRAIN_US; now_us() < end;) {
        bool any = false, open = false;
        for (int i = 0; i < 2; i++) {
            struct stream *stream = &recording->streams[i];
            if (stream->fd >= 0) any |= read_stream(recording, stream, result->end_us);
            open |= stream->fd >= 0;
        }
        if (!open) break;
        if (!any) pause_us(200);
    }
    event_end(&recording->events, result->end_us, result->exited, result->status, result->signal);
}

static void end_run(struct recording *recording) {
    events_hold(&recording->events);
    recording->result.end_us = now_us();
    recording->result.probe_cpu_us = cpu_us() - recording->cpu_at_start_us;
    recording->killed = true; /* nothing is left to be killed but what it started, and that is no event */
    schedule_stop();
    workload_sweep(&recording->workload);
    drain(recording);
    events_release(&recording->events);
    schedule_finish(SAMPLE_WAIT_US);
    wake_stop(&recording->wake);
    threads_stop(&recording->threads);
    workload_forget(&recording->workload);
}

static bool open_outputs(struct recording *recording, struct sensor_list *list, int folder) {
    struct stream *streams = recording->streams;
    streams[0].name = "stdout";
    streams[1].name = "stderr";
    bool good = events_open(&recording->events, folder);
    for (int i = 0; good && i < 2; i++) good = writer_open(&streams[i].file, folder, streams[i].name, 0);
    good = good && wake_open(&recording->wake, recording->options->wake_us, folder);
    recording->sampler_count = list->group_count;
    recording->samplers = allocate(list->group_count, sizeof *recording->samplers);
    recording->chunk = allocate(CHUNK_MAX, 1);
    threads_open(&recording->threads, recording->options->threads_us, &recording->events);
    return good;
}

/* Start sampling; returns an error number, or 0, also when a file could not be made: output_fail has been called then. */
static int start_threads(struct recording *recording, struct sensor_list *list, int folder) {
    for (size_t i = 0; i < list->group_count; i++)
        if (!sampler_open(&recording->samplers[i], &list->groups[i], &recording->events, folder, recording->workload.pid))
            return 0;
    int error = schedule_start(recording->samplers, recording->sampler_count, SAMPLE_WAIT_US, notify_other);
    if (!error) error = wake_start(&recording->wake);
    return error ? error : threads_start(&recording->threads, recording->workload.pid);
}

static void close_outputs(struct recording *recording) {
    for (size_t i = 0; i < recording->sampler_count; i++) sampler_close(&recording->samplers[i]);
    for (int i = 0; i < 2; i++) writer_close(&recording->streams[i].file);
    writer_close(&recording->events.writer);
    recording->result.output_bytes = recording->streams[0].bytes;
    recording->result.error_bytes = recording->streams[1].bytes;
}

static int say_io(const char *out, const char *name, int error) {
    fprintf(stderr, "probe: cannot write %s/%s: %s. The run is not recorded; free space or choose another --out.\n", out, name,
            strerror(error));
    return EXIT_IO;
}

static int fail_io(const char *out) {
    const char *name;
    int error = output_failure(&name);
    return say_io(out, name, error);
}

static int say_start(const char *what, int error) {
    fprintf(stderr, "probe: cannot make %s: %s. Nothing was run.\n", what, strerror(error));
    return EXIT_IO;
}

int run(const struct run_options *options) {
    static struct sensor_list list;
    static struct recording recording;
    const char *name, *failed;
    char *wrong = sensors_read(options->sensors, &list);
    if (wrong) {
        fprintf(stderr, "probe: the sensor list %s: %s\n", options->sensors, wrong);
        return EXIT_USAGE;
    }
    recording.options = options;
    int folder = output_folder(options->out);
    if (folder < 0) return say_io(options->out, "", errno);
    if (!set_up_signals()) return say_start("a pipe", errno);
    if (!open_outputs(&recording, &list, folder)) return fail_io(options->out);
    if ((failed = workload_start(&recording.workload, options->command))) return say_start(failed, errno);
    recording.streams[0].fd = recording.workload.output;
    recording.streams[1].fd = recording.workload.errors;
    int error = start_threads(&recording, &list, folder);
    if (error) { /* leaving by exit: the guard and the kernel end the workload, which has not been released */
        return say_start("a thread", error);
    }
    if (output_failure(&name)) return fail_io(options->out);

    recording.cpu_at_start_us = cpu_us();
    recording.result.monotonic_offset_us = monotonic_offset_us();
    recording.result.start_us = now_us();
    event_start(&recording.events, recording.result.start_us, recording.workload.pid);
    workload_release(&recording.workload);
    follow(&recording);
    end_run(&recording);
    close_outputs(&recording);
    if (output_failure(&name)) return fail_io(options->out);
    if (!write_record(folder, &recording.result, &recording.threads, recording.samplers, recording.sampler_count)) return fail_io(options->out);
    return EXIT_RECORDED;
}
