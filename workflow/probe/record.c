#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "base.h"
#include "run.h"

#define ASIDE ".probe.json.partial"

static void put_group(FILE *file, const struct sampler *sampler, bool first) {
    const struct histogram *errors = &sampler->errors;
    int64_t period = sampler->group->period_us;
    fprintf(file, "%s\n  \"%s\":{\"period_ms\":%" PRId64 ",\"expected\":%" PRIu64 ",\"samples\":%" PRIu64, first ? "" : ",",
            sampler->group->name, period / 1000, (uint64_t)sampler->expected, sampler->taken);
    if (errors->count == 0) {
        fputs(",\"interval_p50_us\":null,\"interval_p99_us\":null,\"interval_error_p99_us\":null}", file);
        return;
    }
    fprintf(file, ",\"interval_p50_us\":%" PRId64 ",\"interval_p99_us\":%" PRId64 ",\"interval_error_p99_us\":%" PRId64 "}",
            period + histogram_percentile(errors, 50), period + histogram_percentile(errors, 99),
            histogram_absolute_percentile(errors, 99));
}

static void put_record(FILE *file, const struct run_result *result, const struct thread_watch *threads,
                       const struct sampler *samplers, size_t count) {
    fprintf(file, "{\"format\":1,\"version\":\"" PROBE_VERSION "\",\"clock\":\"boottime\",\n");
    fprintf(file, " \"start_us\":%" PRId64 ",\"end_us\":%" PRId64 ",", result->start_us, result->end_us);
    if (result->exited)
        fprintf(file, "\"exited\":true,\"status\":%d,\"signal\":null,", result->status);
    else
        fprintf(file, "\"exited\":false,\"status\":null,\"signal\":%d,", result->signal);
    fprintf(file, "\"deadline_hit\":%s,\n", result->deadline_hit ? "true" : "false");
    fprintf(file, " \"probe_cpu_us\":%" PRId64 ",\"stdout_bytes\":%" PRIu64 ",\"stderr_bytes\":%" PRIu64 ",\"truncated\":%s,\n",
            result->probe_cpu_us, result->output_bytes, result->error_bytes, result->truncated ? "true" : "false");
    fprintf(file, " \"monotonic_offset_us\":%" PRId64 ",\n", result->monotonic_offset_us);
    if (threads->period_us)
        fprintf(file,
                " \"threads\":{\"period_ms\":%" PRId64 ",\"looks\":%" PRIu64 ",\"told\":%" PRIu64 ",\"omitted\":%" PRIu64
                ",\"descendants\":%s,\"cpu_us\":%" PRId64 "},\n",
                threads->period_us / 1000, threads->looks, threads->told, threads->omitted, threads->descend ? "true" : "false",
                threads->cpu_us);
    fputs(" \"groups\":{", file);
    for (size_t i = 0; i < count; i++) put_group(file, &samplers[i], i == 0);
    fputs("},\n \"sensors\":{", file);
    const char *separator = "";
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < samplers[i].group->sensor_count; j++) {
            const struct sensor *sensor = &samplers[i].group->sensors[j];
            fprintf(file, "%s\n  \"%s\":{\"reads\":%" PRIu64 ",\"unreadable\":%" PRIu64 ",\"changes\":%" PRIu64 "}", separator,
                    sensor->name, sensor->reads, sensor->unreadable, sensor->changes);
            separator = ",";
        }
    }
    fputs("}}\n", file);
}

bool write_record(int folder, const struct run_result *result, const struct thread_watch *threads, const struct sampler *samplers,
                  size_t count) {
    int fd = openat(folder, ASIDE, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "w");
    if (!file) {
        output_fail("probe.json", errno);
        return false;
    }
    errno = 0;
    put_record(file, result, threads, samplers, count);
    bool good = fflush(file) == 0 && !ferror(file) && fsync(fd) == 0;
    int error = errno;
    if (fclose(file) != 0 && good) good = false, error = errno;
    if (good && renameat(folder, ASIDE, folder, "probe.json") != 0) good = false, error = errno;
    if (!good) {
        unlinkat(folder, ASIDE, 0);
        output_fail("probe.json", error);
        return false;
    }
    fsync(folder); /* some file systems of phones refuse this for a folder; the file itself is safe */
    return true;
}
