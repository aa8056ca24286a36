#define _GNU_SOURCE
#include "workload.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "base.h"

/* What must not end the guard before the workload. */
static const int outlived[] = {SIGTERM, SIGINT, SIGHUP, SIGPIPE, SIGXFSZ, SIGCHLD, SIGUSR1};
enum { LAST_SIGNAL = 64 }; /* of Linux on every target; those that cannot be set are refused and skipped */

static void default_signals(void) {
    struct sigaction action = {.sa_handler = SIG_DFL};
    sigset_t none;
    /* All of them: a shell in the background, nohup and others leave signals ignored, and exec would hand that on. */
    for (int number = 1; number <= LAST_SIGNAL; number++) sigaction(number, &action, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* A process that outlives this one by a moment: it waits on a pipe, and kills the process group when the pipe ends
 * without a word, which is what SIGKILL looks like. It is forked twice so that it is no child of ours to wait for. */
static int start_guard(void) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return -1;
    pid_t pid = fork();
    if (pid < 0) return -1;
    if (pid == 0) {
        setsid();
        if (fork() != 0) _exit(0);
        close(ends[1]);
        int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
        for (int fd = 0; nothing >= 0 && fd < 3; fd++) dup2(nothing, fd);
        struct sigaction ignore = {.sa_handler = SIG_IGN};
        for (size_t i = 0; i < sizeof outlived / sizeof *outlived; i++) sigaction(outlived[i], &ignore, NULL);
        pid_t group = 0, word;
        for (;;) {
            ssize_t got = read(ends[0], &word, sizeof word);
            if (got < 0 && errno == EINTR) continue;
            if (got != sizeof word) break;
            group = word;
        }
        if (group > 0) kill(-group, SIGKILL);
        _exit(0);
    }
    close(ends[0]);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {}
    return ends[1];
}

static void tell_guard(struct workload *workload, pid_t group) {
    if (write(workload->guard, &group, sizeof group) != sizeof group) { /* it is gone: nothing it could do */
    }
}

/* Open a pseudo-terminal whose slave passes bytes through as they are. */
static bool open_terminal(int *master, int *slave) {
    char name[64];
    *master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (*master < 0 || grantpt(*master) != 0 || unlockpt(*master) != 0) return false;
    if (ptsname_r(*master, name, sizeof name) != 0) return false;
    *slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    struct termios raw;
    if (*slave < 0 || tcgetattr(*slave, &raw) != 0) return false;
    cfmakeraw(&raw);
    return tcsetattr(*slave, TCSANOW, &raw) == 0;
}

static void run_child(char **command, int output, int errors, int go, pid_t parent, const struct rlimit *files) {
    char byte;
    default_signals();
    setsid();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(127); /* it died before the line above */
    setrlimit(RLIMIT_NOFILE, files);
    int input = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (input < 0 || dup2(input, 0) < 0 || dup2(output, 1) < 0 || dup2(errors, 2) < 0) _exit(127);
    while (read(go, &byte, 1) != 1)
        if (errno != EINTR) _exit(127);
    execvp(command[0], command);
    int error = errno;
    dprintf(2, "probe: cannot run %s: %s\n", command[0], strerror(error));
    _exit(error == ENOENT ? 127 : 126);
}

const char *workload_start(struct workload *workload, char **command) {
    int slave, errors[2], go[2], started[2];
    struct rlimit files, more;
    /* The workload gets nothing from whoever started the probe but its standard streams. */
    for (int fd = 3; fd < 1024; fd++) {
        int flags = fcntl(fd, F_GETFD);
        if (flags >= 0) fcntl(fd, F_SETFD, flags | FD_CLOEXEC);
    }
    if ((workload->guard = start_guard()) < 0) return "the guard process";
    if (!open_terminal(&workload->output, &slave)) return "a pseudo-terminal";
    if (pipe2(errors, O_CLOEXEC) != 0 || pipe2(go, O_CLOEXEC) != 0 || pipe2(started, O_CLOEXEC) != 0) return "a pipe";
    workload->errors = errors[0];
    workload->go = go[1];
    workload->started = started[0];
    fcntl(workload->output, F_SETFL, fcntl(workload->output, F_GETFL) | O_NONBLOCK);
    fcntl(workload->errors, F_SETFL, fcntl(workload->errors, F_GETFL) | O_NONBLOCK);
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* where it is refused (qemu-user 7.2) only the process group is ended */
    getrlimit(RLIMIT_NOFILE, &files);
    more = files;
    more.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &more);
    pid_t parent = getpid();
    workload->pid = fork();
    if (workload->pid < 0) return "the workload's process";
    if (workload->pid == 0) {
        close(go[1]);
        run_child(command, slave, errors[1], go[0], parent, &files);
    }
    tell_guard(workload, workload->pid);
    close(slave);
    close(errors[1]);
    close(go[0]);
    close(started[1]);
    return NULL;
}

void workload_release(struct workload *workload) {
    while (write(workload->go, "", 1) < 0 && errno == EINTR) {}
    close(workload->go);
}

void workload_signal(struct workload *workload, int signal) {
    /* Until the child has made its own group, the signal goes to the child alone. */
    if (kill(-workload->pid, signal) != 0) kill(workload->pid, signal);
}

bool workload_ended(struct workload *workload, bool *exited, int *status, int *signal) {
    siginfo_t info;
    memset(&info, 0, sizeof info);
    if (waitid(P_PID, (id_t)workload->pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0) return false;
    *exited = info.si_code == CLD_EXITED;
    *status = *exited ? info.si_status : 0;
    *signal = *exited ? 0 : info.si_status;
    return true;
}

/* Kill the children of this process except the workload itself; returns how many there were that still ran. */
static int kill_children(pid_t except) {
    DIR *folder = opendir("/proc");
    int count = 0;
    if (!folder) return 0;
    for (struct dirent *entry; (entry = readdir(folder));) {
        char path[40], text[512];
        long pid = strtol(entry->d_name, NULL, 10);
        if (pid <= 0 || pid == except) continue;
        snprintf(path, sizeof path, "/proc/%ld/stat", pid);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
        if (fd >= 0) close(fd);
        if (got <= 0) continue;
        text[got] = 0;
        char *after = strrchr(text, ')'), state;
        long parent;
        if (!after || sscanf(after + 1, " %c %ld", &state, &parent) != 2 || parent != getpid()) continue;
        if (state != 'Z') {
            kill((pid_t)pid, SIGKILL);
            count++;
        } else {
            waitpid((pid_t)pid, NULL, WNOHANG);
        }
    }
    closedir(folder);
    return count;
}

void workload_sweep(struct workload *workload) {
    kill(-workload->pid, SIGKILL);
    /* Killing one hands its own children over, so it takes rounds. The bound is for what sits in the kernel. */
    for (int64_t end = now_us() + 2000000; kill_children(workload->pid) > 0 && now_us() < end;) pause_us(500);
}

void workload_forget(struct workload *workload) {
    while (waitpid(workload->pid, NULL, 0) < 0 && errno == EINTR) {}
    tell_guard(workload, 0);
    close(workload->guard);
}
