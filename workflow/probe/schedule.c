#define _GNU_SOURCE
#include "schedule.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>

#include "base.h"

/* A group whose first sample, opening its files included, took longer than this is not put with others. */
#define FAST_FIRST_US 10000
/* A group that once took longer than this while others waited is taken from them. */
#define SLOW_US 20000

/* A thread and the groups that it samples, all of one period. */
struct server {
    pthread_t thread;
    pthread_mutex_t lock; /* of the members and of what it is doing */
    struct sampler **members;
    size_t count;
    struct sampler *current; /* being sampled since `since_us`, NULL between */
    int64_t period_us, since_us;
    bool late_start; /* it took over groups: there is no sample to take at once */
    atomic_bool sleeping, ended;
};

static struct sampler *samplers;
static size_t sampler_count;
/* Each split leaves fewer groups together, so twice as many servers as groups is enough. */
static struct server *servers;
static size_t server_count;
static void (*tell_slow)(void);
/* Ticks are due at start_us + N periods, N from 1. All wait for the start after their first sample. */
static int64_t start_us;
static bool started;
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_opens = PTHREAD_COND_INITIALIZER;
static atomic_bool stopping, program_started;

void schedule_thread_setup(void) {
    sigset_t kick;
    sigemptyset(&kick);
    sigaddset(&kick, SIGUSR1);
    pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
    prctl(PR_SET_TIMERSLACK, 1); /* default 50 us; only this thread's */
}

/* Return the next member that has not been sampled at this tick, NULL when all have. */
static struct sampler *pick(struct server *server, int64_t tick) {
    struct sampler *found = NULL;
    pthread_mutex_lock(&server->lock);
    for (size_t i = 0; i < server->count && !found; i++)
        if (server->members[i]->tick < tick) found = server->members[i];
    if (found) found->tick = tick;
    server->current = found;
    server->since_us = now_us();
    pthread_mutex_unlock(&server->lock);
    return found;
}

static void sample(struct server *server, struct sampler *sampler) {
    int64_t before = sampler->last_us;
    if (!atomic_load(&sampler->program_seen) && atomic_load(&program_started)) {
        atomic_store(&sampler->program_seen, true);
        sampler_forget_process(sampler);
    }
    sampler_take(sampler);
    /* The first sample was not taken at a tick, so the time from it to the second is no interval. */
    if (sampler->taken > 2) histogram_add(&sampler->errors, sampler->last_us - before - server->period_us);
    int64_t took = now_us() - server->since_us;
    if (took > (before ? SLOW_US : FAST_FIRST_US) && !atomic_exchange(&sampler->slow, true) && before) tell_slow();
    atomic_store(&sampler->sampled, true);
}

static void sleep_until(struct server *server, int64_t due_us) {
    atomic_store(&server->sleeping, true);
    while (!atomic_load(&stopping) && now_us() < due_us) sleep_until_us(due_us);
    atomic_store(&server->sleeping, false);
}

static bool is_empty(struct server *server) {
    pthread_mutex_lock(&server->lock);
    bool empty = server->count == 0;
    pthread_mutex_unlock(&server->lock);
    return empty;
}

/* The last sample stands for a tick that has become due, or comes on top of them. */
static void take_last(struct server *server) {
    for (struct sampler *sampler;;) {
        int64_t due = (now_us() - start_us) / server->period_us;
        pthread_mutex_lock(&server->lock);
        sampler = NULL;
        for (size_t i = 0; i < server->count && !sampler; i++)
            if (server->members[i]->expected == 0) sampler = server->members[i];
        if (sampler) sampler->expected = (uint64_t)(due + 1 + (due <= sampler->tick));
        server->current = sampler;
        server->since_us = now_us();
        pthread_mutex_unlock(&server->lock);
        if (!sampler) return;
        sampler_take(sampler);
        atomic_store(&sampler->finished, true);
    }
}

static void await_start(void) {
    pthread_mutex_lock(&gate);
    while (!started) pthread_cond_wait(&gate_opens, &gate);
    pthread_mutex_unlock(&gate);
}

static void open_gate(void) {
    pthread_mutex_lock(&gate);
    start_us = now_us();
    started = true;
    pthread_cond_broadcast(&gate_opens);
    pthread_mutex_unlock(&gate);
}

static void take_tick(struct server *server, int64_t tick) {
    for (struct sampler *sampler; (sampler = pick(server, tick));) sample(server, sampler);
}

static void *serve(void *argument) {
    struct server *server = argument;
    int64_t tick = 0;
    schedule_thread_setup();
    if (!server->late_start) take_tick(server, 0);
    await_start();
    for (;;) {
        int64_t next = (now_us() - start_us) / server->period_us + 1; /* a tick that was missed is skipped */
        if (next <= tick) next = tick + 1;
        sleep_until(server, start_us + next * server->period_us);
        if (is_empty(server) || atomic_load(&stopping)) break;
        tick = next;
        take_tick(server, tick);
    }
    take_last(server);
    atomic_store(&server->ended, true);
    return NULL;
}

static struct server *make_server(int64_t period_us) {
    struct server *server = &servers[server_count];
    pthread_mutex_init(&server->lock, NULL);
    server->members = allocate(sampler_count, sizeof *server->members);
    server->period_us = period_us;
    return server;
}

static int start_server(struct server *server) {
    sigset_t all, before;
    sigfillset(&all); /* signals are the main loop's */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&server->thread, NULL, serve, server);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    server_count += error == 0;
    return error;
}

static bool is_fast(const struct server *server) {
    return server->count == 1 && atomic_load(&server->members[0]->sampled) && !atomic_load(&server->members[0]->slow);
}

/* Put fast groups of one period together. Their threads wait for the start. */
static void join_fast(void) {
    for (size_t i = 0; i < server_count; i++) {
        struct server *host = &servers[i];
        if (!is_fast(host)) continue;
        for (size_t j = i + 1; j < server_count; j++) {
            struct server *guest = &servers[j];
            if (guest->period_us != host->period_us || !is_fast(guest)) continue;
            pthread_mutex_lock(&guest->lock);
            struct sampler *moved = guest->members[0];
            guest->count = 0;
            pthread_mutex_unlock(&guest->lock);
            pthread_mutex_lock(&host->lock);
            host->members[host->count++] = moved;
            pthread_mutex_unlock(&host->lock);
        }
    }
}

int schedule_start(struct sampler *all, size_t count, int64_t most_us, void (*on_slow)(void)) {
    samplers = all;
    sampler_count = count;
    tell_slow = on_slow;
    servers = allocate(2 * count, sizeof *servers);
    for (size_t i = 0; i < count; i++) {
        struct server *server = make_server(samplers[i].group->period_us);
        samplers[i].tick = -1;
        server->members[server->count++] = &samplers[i];
        int error = start_server(server);
        if (error) return error;
    }
    int64_t end = now_us() + most_us;
    for (size_t i = 0; i < count; i++)
        while (!atomic_load(&samplers[i].sampled) && now_us() < end) pause_us(200);
    join_fast();
    open_gate();
    return 0;
}

void schedule_program_started(void) { atomic_store(&program_started, true); }

/* Take groups from a server to a new one: the slow ones, or all but the one that it does not come back from. */
static void split(struct server *server) {
    struct server *made = make_server(server->period_us);
    pthread_mutex_lock(&server->lock);
    struct sampler *stuck = server->current;
    if (stuck && now_us() - server->since_us < SCHEDULE_MEND_US / 2) stuck = NULL;
    size_t kept = 0;
    for (size_t i = 0; i < server->count; i++) {
        struct sampler *member = server->members[i];
        bool busy = member == server->current;
        bool leaves = stuck ? member != stuck : atomic_load(&member->slow) && !busy && made->count == 0;
        if (leaves && server->count > 1)
            made->members[made->count++] = member;
        else
            server->members[kept++] = member;
    }
    /* Nobody is left without a thread: where none can be had they stay together. */
    made->late_start = true;
    if (made->count > 0 && kept > 0 && start_server(made) == 0)
        server->count = kept;
    else if (made->count > 0)
        for (size_t i = 0; i < made->count; i++) server->members[kept++] = made->members[i];
    pthread_mutex_unlock(&server->lock);
}

void schedule_mend(void) {
    size_t count = server_count;
    for (size_t i = 0; i < count && server_count < 2 * sampler_count; i++) {
        pthread_mutex_lock(&servers[i].lock);
        bool together = servers[i].count > 1, asked = false;
        asked = servers[i].current && now_us() - servers[i].since_us >= SCHEDULE_MEND_US / 2;
        for (size_t j = 0; j < servers[i].count; j++) asked |= atomic_load(&servers[i].members[j]->slow);
        pthread_mutex_unlock(&servers[i].lock);
        if (together && asked) split(&servers[i]);
    }
}

void schedule_stop(void) { atomic_store(&stopping, true); }

/* Wake the threads that sleep, or all. Repeated, because a signal may come just before the sleep that it should end. */
static bool all_finished(bool kick_all) {
    bool all = true;
    for (size_t i = 0; i < sampler_count; i++) all &= atomic_load(&samplers[i].finished);
    for (size_t i = 0; !all && i < server_count; i++)
        if (kick_all || atomic_load(&servers[i].sleeping)) pthread_kill(servers[i].thread, SIGUSR1);
    return all;
}

/* Wait for a thread unless it is in a system call that it may never come back from. */
static void join_server(struct server *server) {
    for (size_t i = 0; i < server->count; i++)
        if (server->members[i]->abandoned) return;
    while (!atomic_load(&server->ended)) {
        pthread_kill(server->thread, SIGUSR1);
        pause_us(200);
    }
    pthread_join(server->thread, NULL);
}

void schedule_finish(int64_t most_us) {
    int64_t end = now_us() + most_us;
    while (!all_finished(false) && now_us() < end) {
        schedule_mend();
        pause_us(200);
    }
    samplers_give_up();
    end = now_us() + 100000;
    while (!all_finished(true) && now_us() < end) pause_us(1000);
    for (size_t i = 0; i < sampler_count; i++) {
        if (atomic_load(&samplers[i].finished)) continue;
        sampler_abandon(&samplers[i]);
        if (atomic_load(&samplers[i].expected) == 0) /* it owes the ticks since its last one, and the last sample */
            samplers[i].expected = (uint64_t)((now_us() - start_us) / samplers[i].group->period_us + 2);
    }
    for (size_t i = 0; i < server_count; i++) join_server(&servers[i]);
}
