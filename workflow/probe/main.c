#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base.h"
#include "discover.h"
#include "run.h"

static const char usage[] =
    "probe " PROBE_VERSION " - records what a workload prints and what the device measures meanwhile\n"
    "\n"
    "  probe run --sensors FILE --out DIR [--deadline SECONDS] [--max-output BYTES] [--wake-us N]\n"
    "            [--threads-ms N] -- COMMAND...\n"
    "  probe sensors [--root PREFIX]\n"
    "  probe --version\n"
    "\n"
    "  --sensors FILE      the sensor list\n"
    "  --out DIR           a folder without a run; it is made if it is not there\n"
    "  --deadline SECONDS  end the command after that long\n"
    "  --max-output BYTES  end the command after so much output (default 67108864)\n"
    "  --wake-us N         the responsiveness thread's period (default 16667, 0 for none)\n"
    "  --threads-ms N      how often to look where the command's threads may run (default 0: never)\n"
    "  --root PREFIX       put before paths of /sys and /dev\n";

static int misused(const char *what, const char *which) {
    fprintf(stderr, "probe: %s%s. `probe --help` shows the usage.\n", what, which);
    return EXIT_USAGE;
}

static bool whole(const char *text, uint64_t least, uint64_t most, uint64_t *value) {
    uint64_t result = 0;
    if (!*text || strlen(text) > 18) return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9') return false;
        result = result * 10 + (uint64_t)(*text - '0');
    }
    *value = result;
    return result >= least && result <= most;
}

static bool seconds(const char *text, int64_t *us) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= 0.001 && value <= 1e7)) return false;
    *us = (int64_t)(value * 1e6);
    return true;
}

static int run_command(int count, char **arguments) {
    struct run_options options = {.max_output = 64u << 20, .wake_us = 16667};
    int i = 0;
    for (; i < count && strcmp(arguments[i], "--") != 0; i += 2) {
        const char *option = arguments[i], *value = i + 1 < count ? arguments[i + 1] : NULL;
        uint64_t number;
        if (!value) return misused("a value is missing after ", option);
        if (strcmp(option, "--sensors") == 0) {
            options.sensors = value;
        } else if (strcmp(option, "--out") == 0) {
            options.out = value;
        } else if (strcmp(option, "--deadline") == 0) {
            if (!seconds(value, &options.deadline_us)) return misused("--deadline must be 0.001 to 10000000 seconds, not ", value);
        } else if (strcmp(option, "--max-output") == 0) {
            if (!whole(value, 1, UINT64_MAX, &options.max_output)) return misused("--max-output must be a number of bytes from 1, not ", value);
        } else if (strcmp(option, "--wake-us") == 0) {
            if (!whole(value, 0, 60000000, &number) || (number != 0 && number < 100))
                return misused("--wake-us must be 0, or 100 to 60000000 microseconds, not ", value);
            options.wake_us = (int64_t)number;
        } else if (strcmp(option, "--threads-ms") == 0) {
            if (!whole(value, 0, 3600000, &number) || (number != 0 && number < 10))
                return misused("--threads-ms must be 0, or 10 to 3600000 milliseconds, not ", value);
            options.threads_us = (int64_t)number * 1000;
        } else {
            return misused("no such option: ", option);
        }
    }
    if (!options.sensors) return misused("--sensors is missing", "");
    if (!options.out) return misused("--out is missing", "");
    if (i + 1 >= count) return misused("the command is missing after --", "");
    options.command = arguments + i + 1;
    return run(&options);
}

int main(int count, char **arguments) {
    if (count >= 2 && strcmp(arguments[1], "run") == 0) return run_command(count - 2, arguments + 2);
    if (count >= 2 && strcmp(arguments[1], "sensors") == 0) {
        if (count == 2) return discover("");
        if (count == 4 && strcmp(arguments[2], "--root") == 0) return discover(arguments[3]);
        return misused("sensors takes nothing but --root PREFIX", "");
    }
    if (count == 2 && strcmp(arguments[1], "--version") == 0) return puts(PROBE_VERSION) == EOF ? EXIT_IO : EXIT_RECORDED;
    if (count == 2 && strcmp(arguments[1], "--help") == 0) return fputs(usage, stdout) == EOF ? EXIT_IO : EXIT_RECORDED;
    if (count < 2) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    return misused("no such command: ", arguments[1]);
}
