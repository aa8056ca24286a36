/* Small things that every part needs: the clock, numbers and JSON as text, names of errors. */
#ifndef PROBE_BASE_H
#define PROBE_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROBE_VERSION "1.1.0"

/* Exit codes of the probe itself; what the workload did is in probe.json. */
enum { EXIT_RECORDED = 0, EXIT_USAGE = 2, EXIT_IO = 3 };

/* Return CLOCK_BOOTTIME in microseconds: the one clock of everything that is recorded. */
int64_t now_us(void);

/* Return CLOCK_BOOTTIME less CLOCK_MONOTONIC in microseconds: how long the device has been suspended since it was started. */
int64_t monotonic_offset_us(void);

/* Sleep until an absolute time of that clock; returns early when a signal arrives. */
void sleep_until_us(int64_t when);

/* Sleep for some microseconds; returns early when a signal arrives. */
void pause_us(int64_t duration);

/* Write a number in decimal, without a terminator, and return the end of it (at most 20 bytes). */
char *put_number(char *to, int64_t value);

/* The longest JSON text that json_escape makes of `length` bytes. */
#define JSON_ESCAPED_MAX(length) ((length) * 6)

/* Write bytes as the inside of a JSON string, without quotes or terminator, and return the end of it.
 * What is no UTF-8 becomes U+FFFD, because a line of JSON cannot hold it. */
char *json_escape(char *to, const char *text, size_t length);

/* Return the name of an errno value ("ENOENT"); `spare` holds the text of one that has no name here. */
const char *error_name(int error, char spare[16]);

/* Allocate zeroed memory or end the program with a message: only ever called before a run starts. */
void *allocate(size_t count, size_t size);

#endif
