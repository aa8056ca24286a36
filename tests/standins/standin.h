/* What the stand-ins share: arguments, the file that says how to behave, and time that really passes. */
#ifndef STANDIN_H
#define STANDIN_H
#define _POSIX_C_SOURCE 200809L

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Returns what follows an option on the command line; ends the program with status 2 if it is not there. */
static const char *option(int argc, char **argv, const char *name) {
    for (int i = 1; i + 1 < argc; i++)
        if (!strcmp(argv[i], name)) return argv[i + 1];
    fprintf(stderr, "stand-in: no %s\n", name);
    exit(2);
}

/* Returns a number from lines `key value` of the text that was read; what is not there is 0. */
static double setting(const char *text, const char *key) {
    size_t length = strlen(key);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        if (*line == '\n') line++;
        if (!strncmp(line, key, length) && line[length] == ' ') return atof(line + length + 1);
    }
    return 0;
}

/* Reads a file of at most 4095 bytes; returns 0 if it cannot be read. */
static int slurp(const char *path, char text[4096]) {
    FILE *file = fopen(path, "rb");
    if (!file) return 0;
    text[fread(text, 1, 4095, file)] = 0;
    fclose(file);
    return 1;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Sleeps so many milliseconds and returns how many seconds it really took. */
static double spend(double ms) {
    double begin = now();
    struct timespec t = {(time_t)(ms / 1e3), (long)((ms - 1e3 * (double)(time_t)(ms / 1e3)) * 1e6)};
    nanosleep(&t, NULL);
    return now() - begin;
}

static void say(const char *text) {
    fputs(text, stdout);
    fflush(stdout);
}

#endif
