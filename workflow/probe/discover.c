#define _GNU_SOURCE
#include "discover.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base.h"

#define SAMPLE_MAX 128
#define PATH_BYTES 1024

/* Where Linux, Qualcomm's and Arm's drivers show what they measure. Paths without a star are printed even where they
 * are absent, so that it can be said why a quantity is missing. */
static const struct place {
    const char *category, *path;
} places[] = {
    {"cpu", "/proc/stat"},
    {"memory", "/proc/meminfo"},
    {"cpufreq", "/sys/devices/system/cpu/cpufreq/policy*/related_cpus"},
    {"cpufreq", "/sys/devices/system/cpu/cpufreq/policy*/scaling_cur_freq"},
    {"cpufreq", "/sys/devices/system/cpu/cpufreq/policy*/scaling_min_freq"},
    {"cpufreq", "/sys/devices/system/cpu/cpufreq/policy*/scaling_max_freq"},
    {"cpufreq", "/sys/devices/system/cpu/cpufreq/policy*/cpuinfo_max_freq"},
    {"cpufreq", "/sys/devices/system/cpu/cpufreq/policy*/scaling_governor"},
    {"cpufreq", "/sys/devices/system/cpu/cpufreq/policy*/stats/time_in_state"},
    {"thermal", "/sys/class/thermal/thermal_zone*/type"},
    {"thermal", "/sys/class/thermal/thermal_zone*/temp"},
    {"power_supply", "/sys/class/power_supply/*/type"},
    {"power_supply", "/sys/class/power_supply/*/status"},
    {"power_supply", "/sys/class/power_supply/*/current_now"},
    {"power_supply", "/sys/class/power_supply/*/voltage_now"},
    {"power_supply", "/sys/class/power_supply/*/power_now"},
    {"power_supply", "/sys/class/power_supply/*/temp"},
    {"power_supply", "/sys/class/power_supply/*/charge_counter"},
    {"power_supply", "/sys/class/power_supply/*/capacity"},
    {"power_supply", "/sys/class/power_supply/*/health"},
    {"power_supply", "/sys/class/power_supply/*/cycle_count"},
    {"kgsl", "/sys/class/kgsl/kgsl-3d0/gpu_model"},
    {"kgsl", "/sys/class/kgsl/kgsl-3d0/gpubusy"},
    {"kgsl", "/sys/class/kgsl/kgsl-3d0/gpu_busy_percentage"},
    {"kgsl", "/sys/class/kgsl/kgsl-3d0/gpuclk"},
    {"kgsl", "/sys/class/kgsl/kgsl-3d0/devfreq/cur_freq"},
    {"kgsl", "/sys/class/kgsl/kgsl-3d0/temp"},
    {"mali", "/sys/class/misc/mali0/device/gpuinfo"},
    {"mali", "/sys/class/misc/mali0/device/utilization"},
    {"mali", "/sys/class/misc/mali0/device/clock"},
    {"mali", "/sys/module/ged/parameters/gpu_loading"},
    {"devfreq", "/sys/class/devfreq/*/cur_freq"},
    {"devfreq", "/sys/class/devfreq/*/max_freq"},
    {"devfreq", "/sys/class/devfreq/*/load"},
    {"npu", "/sys/kernel/dsp_stats/cdsp/*"},
    {"npu", "/sys/kernel/debug/sysmon_subsystem_stats/master_cdsp_stats"},
    {"rapl", "/sys/class/powercap/intel-rapl*/name"},
    {"rapl", "/sys/class/powercap/intel-rapl*/energy_uj"},
    {"rapl", "/sys/class/powercap/intel-rapl*/max_energy_range_uj"},
};

#define SYSMON "/dev/sysmon_subsystem_stats"

/* Loads of the Hexagon subsystem: HVX %, HMX %, Q6 KCPS. */
static const uint32_t sysmon_requests[] = {0x80047101, 0x80047102, 0x80047103};

static void print_line(const char *category, const char *path, int error, const char *sample, size_t length) {
    char spare[16];
    printf("%s\t%s\t%s\t", category, path, error ? error_name(error, spare) : "yes");
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)sample[i];
        putchar(c == '\t' ? ' ' : c < 0x20 || c >= 0x7F ? '?' : c);
    }
    putchar('\n');
}

static void print_file(const char *category, const char *path) {
    char sample[SAMPLE_MAX];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    ssize_t got = fd < 0 ? -1 : read(fd, sample, sizeof sample);
    int error = got < 0 ? errno : 0;
    if (fd >= 0) close(fd);
    const char *newline = got > 0 ? memchr(sample, '\n', (size_t)got) : NULL;
    print_line(category, path, error, sample, got < 0 ? 0 : newline ? (size_t)(newline - sample) : (size_t)got);
}

/* Order names with numbers by their numbers: policy4 before policy10. */
static int compare(const void *left, const void *right) {
    const char *a = *(char *const *)left, *b = *(char *const *)right;
    while (*a && *b) {
        if (*a >= '0' && *a <= '9' && *b >= '0' && *b <= '9') {
            char *a_end, *b_end;
            unsigned long long x = strtoull(a, &a_end, 10), y = strtoull(b, &b_end, 10);
            if (x != y) return x < y ? -1 : 1;
            a = a_end;
            b = b_end;
            continue;
        }
        if (*a != *b) return (unsigned char)*a < (unsigned char)*b ? -1 : 1;
        a++;
        b++;
    }
    return (*a != 0) - (*b != 0);
}

/* Print the files of a path whose one star stands for names in a folder; `star` points to the component with it. */
static void print_matches(const char *category, const char *path) {
    const char *star = strchr(path, '*'), *component = star;
    while (component[-1] != '/') component--;
    const char *rest = strchrnul(star, '/');
    size_t prefix = (size_t)(star - component), count = 0, capacity = 64;
    char folder[PATH_BYTES], file[PATH_BYTES + 512];
    snprintf(folder, sizeof folder, "%.*s", (int)(component - 1 - path), path);
    DIR *entries = opendir(folder);
    if (!entries) { /* absent classes are nothing to speak of; closed ones are */
        if (errno != ENOENT) print_line(category, folder, errno, "", 0);
        return;
    }
    char **names = allocate(capacity, sizeof *names);
    for (struct dirent *entry; (entry = readdir(entries));) {
        if (entry->d_name[0] == '.' || strncmp(entry->d_name, component, prefix) != 0) continue;
        if (count == capacity) {
            char **more = allocate(2 * capacity, sizeof *names);
            memcpy(more, names, count * sizeof *names);
            free(names);
            names = more;
            capacity *= 2;
        }
        names[count] = allocate(strlen(entry->d_name) + 1, 1);
        strcpy(names[count++], entry->d_name);
    }
    closedir(entries);
    qsort(names, count, sizeof *names, compare);
    for (size_t i = 0; i < count; i++) {
        snprintf(file, sizeof file, "%s/%s%s", folder, names[i], rest);
        if (access(file, F_OK) == 0 || errno != ENOENT) print_file(category, file);
        free(names[i]);
    }
    free(names);
}

static void print_sysmon(const char *root) {
    char path[PATH_BYTES], value[24], category[32];
    snprintf(path, sizeof path, "%s" SYSMON, root);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), error = errno;
    if (fd < 0) {
        print_line("npu", path, error, "", 0);
        return;
    }
    for (size_t i = 0; i < sizeof sysmon_requests / sizeof *sysmon_requests; i++) {
        uint32_t load = 0;
        error = ioctl(fd, (unsigned long)sysmon_requests[i], &load) < 0 ? errno : 0;
        snprintf(category, sizeof category, "npu.ioctl:0x%08x", (unsigned)sysmon_requests[i]);
        int length = error ? 0 : snprintf(value, sizeof value, "%u", (unsigned)load);
        print_line(category, path, error, value, (size_t)length);
    }
    close(fd);
}

int discover(const char *root) {
    char path[2 * PATH_BYTES];
    if (strlen(root) > PATH_BYTES / 2) {
        fprintf(stderr, "probe: the --root is longer than %d bytes.\n", PATH_BYTES / 2);
        return EXIT_USAGE;
    }
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        bool process = strncmp(places[i].path, "/proc/", 6) == 0; /* an emulated phone has no /proc of its own */
        const char *prefix = process ? "" : root;
        snprintf(path, sizeof path, "%s%s", prefix, places[i].path);
        if (strchr(places[i].path, '*'))
            print_matches(places[i].category, path);
        else
            print_file(places[i].category, path);
    }
    print_sysmon(root);
    return fflush(stdout) == 0 ? EXIT_RECORDED : EXIT_IO;
}
