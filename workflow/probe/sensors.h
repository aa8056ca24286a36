/* The sensor list: which files are read, how often, and what is taken out of them (docs/formats.md). */
#ifndef PROBE_SENSORS_H
#define PROBE_SENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "extract.h"

#define LIST_MAX (4 << 20)
#define NAME_MAX_BYTES 100
#define PATH_MAX_BYTES 1024
#define GROUPS_MAX 64
#define SENSORS_MAX 2048

struct sensor {
    char *name;
    struct select select;
    size_t source; /* index in the group's sources */

    /* The rest changes while a run is recorded; only the group's thread touches it. */
    bool present;                 /* the last tick gave a number */
    unsigned char length;         /* of `value` */
    char value[NUMBER_MAX + 1];   /* the last number, as printed */
    int error;                    /* errno the sensor is unreadable with, 0 if it is readable */
    bool has_text;                /* `text` is what the file holds now, and it was recorded */
    unsigned short text_length;
    char text[TEXT_MAX];
    uint64_t reads, unreadable, changes;
};

/* A file of a group, however many sensors name it. */
struct source {
    char *path; /* with {pid} still in it */
    bool of_workload;
    bool has_content; /* some sensor looks at its content, not only at ioctls */
    size_t *sensors;  /* indices of the group's sensors that name it */
    size_t sensor_count;
};

struct group {
    char *name;
    int64_t period_us;
    struct sensor *sensors;
    size_t sensor_count;
    struct source *sources;
    size_t source_count;
};

struct sensor_list {
    struct group *groups;
    size_t group_count;
};

/* Parse a list of `length` bytes. Returns NULL, or a message of its own ("line 3: …") that the caller frees.
 * Free the list in either case. */
char *sensors_parse(const char *text, size_t length, struct sensor_list *list);

/* Read and parse a list from a file. Returns like sensors_parse. */
char *sensors_read(const char *path, struct sensor_list *list);

void sensors_free(struct sensor_list *list);

#endif
