#define _GNU_SOURCE
#include "sensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base.h"

#define FIELDS_MAX 4

struct field {
    const char *at;
    size_t length;
};

static char *complain(unsigned line, const char *format, ...) __attribute__((format(printf, 2, 3)));

static char *complain(unsigned line, const char *format, ...) {
    char text[400], *message = allocate(512, 1);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    snprintf(message, 512, "line %u: %s.", line, text);
    return message;
}

static bool is(struct field field, const char *word) {
    return field.length == strlen(word) && memcmp(field.at, word, field.length) == 0;
}

static char *copy(struct field field) {
    char *text = allocate(field.length + 1, 1);
    memcpy(text, field.at, field.length);
    return text;
}

/* Split a line at tabs; returns the number of fields, FIELDS_MAX + 1 if there are more. */
static size_t split(const char *at, const char *end, struct field fields[FIELDS_MAX]) {
    size_t count = 0;
    for (;;) {
        const char *tab = memchr(at, '\t', (size_t)(end - at));
        const char *stop = tab ? tab : end;
        if (count == FIELDS_MAX) return count + 1;
        fields[count++] = (struct field){at, (size_t)(stop - at)};
        if (!tab) return count;
        at = tab + 1;
    }
}

static bool is_name(struct field field) {
    if (field.length == 0 || field.length > NAME_MAX_BYTES) return false;
    for (size_t i = 0; i < field.length; i++) {
        char c = field.at[i];
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '-')) return false;
    }
    return true;
}

static bool parse_period(struct field field, int64_t *period_us) {
    int64_t value = 0;
    if (field.length == 0 || field.length > 7) return false;
    for (size_t i = 0; i < field.length; i++) {
        if (field.at[i] < '0' || field.at[i] > '9') return false;
        value = value * 10 + (field.at[i] - '0');
    }
    *period_us = value * 1000;
    return value >= 1 && value <= 3600000;
}

static void *grow(void *items, size_t count, size_t size) {
    /* Powers of two: `items` is full whenever its count is one. */
    if (count != 0 && (count & (count - 1)) != 0) return items;
    void *more = allocate(count ? 2 * count : 1, size);
    if (count) memcpy(more, items, count * size);
    free(items);
    return more;
}

static char *add_group(struct sensor_list *list, unsigned line, struct field *fields, size_t count) {
    if (count != 3) return complain(line, "a group has a name and a period, separated by tabs");
    if (!is_name(fields[1]))
        return complain(line, "the group's name must be 1 to %d characters of a-z, 0-9, _ . -", NAME_MAX_BYTES);
    if (is(fields[1], "wake")) return complain(line, "the name wake is taken by the responsiveness thread");
    for (size_t i = 0; i < list->group_count; i++)
        if (is(fields[1], list->groups[i].name)) return complain(line, "the group %s stands here twice", list->groups[i].name);
    if (list->group_count == GROUPS_MAX) return complain(line, "more than %d groups", GROUPS_MAX);
    int64_t period_us;
    if (!parse_period(fields[2], &period_us)) return complain(line, "the period must be 1 to 3600000 milliseconds");
    list->groups = grow(list->groups, list->group_count, sizeof *list->groups);
    list->groups[list->group_count++] = (struct group){.name = copy(fields[1]), .period_us = period_us};
    return NULL;
}

static size_t find_source(struct group *group, struct field path) {
    for (size_t i = 0; i < group->source_count; i++)
        if (is(path, group->sources[i].path)) return i;
    group->sources = grow(group->sources, group->source_count, sizeof *group->sources);
    struct source *source = &group->sources[group->source_count];
    *source = (struct source){.path = copy(path)};
    source->of_workload = strstr(source->path, "{pid}") != NULL;
    return group->source_count++;
}

static char *add_sensor(struct sensor_list *list, unsigned line, struct field *fields, size_t count) {
    if (count != 4) return complain(line, "a sensor has a name, a path and a select, separated by tabs");
    if (list->group_count == 0) return complain(line, "a sensor stands before the first group");
    struct group *group = &list->groups[list->group_count - 1];
    if (!is_name(fields[1]))
        return complain(line, "the sensor's name must be 1 to %d characters of a-z, 0-9, _ . -", NAME_MAX_BYTES);
    size_t total = 0;
    for (size_t i = 0; i < list->group_count; i++) {
        total += list->groups[i].sensor_count;
        for (size_t j = 0; j < list->groups[i].sensor_count; j++)
            if (is(fields[1], list->groups[i].sensors[j].name))
                return complain(line, "the sensor %s stands here twice", list->groups[i].sensors[j].name);
    }
    if (total == SENSORS_MAX) return complain(line, "more than %d sensors", SENSORS_MAX);
    if (fields[2].length == 0 || fields[2].at[0] != '/') return complain(line, "the path must begin with /");
    if (fields[2].length > PATH_MAX_BYTES) return complain(line, "the path is longer than %d bytes", PATH_MAX_BYTES);
    struct sensor sensor = {0};
    const char *wrong = select_parse(fields[3].at, fields[3].length, &sensor.select);
    if (wrong) return complain(line, "%s", wrong);
    sensor.name = copy(fields[1]);
    sensor.source = find_source(group, fields[2]);
    struct source *source = &group->sources[sensor.source];
    source->has_content |= sensor.select.kind != SELECT_IOCTL;
    source->sensors = grow(source->sensors, source->sensor_count, sizeof *source->sensors);
    source->sensors[source->sensor_count++] = group->sensor_count;
    group->sensors = grow(group->sensors, group->sensor_count, sizeof *group->sensors);
    group->sensors[group->sensor_count++] = sensor;
    return NULL;
}

char *sensors_parse(const char *text, size_t length, struct sensor_list *list) {
    memset(list, 0, sizeof *list);
    const char *at = text, *end = text + length;
    const char *nul = length ? memchr(text, 0, length) : NULL;
    unsigned line = 0;
    while (at < end || line == 0) {
        const char *newline = at < end ? memchr(at, '\n', (size_t)(end - at)) : NULL;
        const char *stop = newline ? newline : end;
        struct field fields[FIELDS_MAX] = {0};
        line++;
        if (nul && nul < stop) return complain(line, "it holds a NUL byte");
        size_t count = at < end ? split(at, stop, fields) : 0;
        char *wrong = NULL;
        if (line == 1) {
            if (count != 2 || !is(fields[0], "pocketvlm-sensors") || !is(fields[1], "1"))
                wrong = complain(line, "a sensor list begins with pocketvlm-sensors, a tab and 1");
        } else if (is(fields[0], "group")) {
            wrong = add_group(list, line, fields, count);
        } else if (is(fields[0], "sensor")) {
            wrong = add_sensor(list, line, fields, count);
        } else {
            wrong = complain(line, "a record begins with group or sensor, and its fields are separated by tabs");
        }
        if (wrong) return wrong;
        at = newline ? newline + 1 : end;
    }
    for (size_t i = 0; i < list->group_count; i++)
        if (list->groups[i].sensor_count == 0)
            return complain(line, "the group %s has no sensor", list->groups[i].name);
    return NULL;
}

char *sensors_read(const char *path, struct sensor_list *list) {
    memset(list, 0, sizeof *list);
    char spare[16], *message = allocate(512, 1), *text = NULL;
    size_t length = 0, capacity = 1 << 16;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd >= 0) {
        text = allocate(capacity, 1);
        for (;;) {
            ssize_t got = read(fd, text + length, capacity - length);
            if (got < 0 && errno == EINTR) continue;
            if (got < 0) break;
            length += (size_t)got;
            if (got == 0 || length > LIST_MAX) {
                errno = length > LIST_MAX ? EFBIG : 0;
                break;
            }
            if (length == capacity) {
                char *more = allocate(2 * capacity, 1);
                memcpy(more, text, length);
                free(text);
                text = more;
                capacity *= 2;
            }
        }
        int error = errno;
        close(fd);
        errno = error;
    }
    if (fd < 0 || errno != 0) {
        snprintf(message, 512, "it cannot be read: %s.", error_name(errno, spare));
    } else {
        free(message);
        message = sensors_parse(text, length, list);
    }
    free(text);
    return message;
}

void sensors_free(struct sensor_list *list) {
    for (size_t i = 0; i < list->group_count; i++) {
        struct group *group = &list->groups[i];
        for (size_t j = 0; j < group->sensor_count; j++) free(group->sensors[j].name);
        for (size_t j = 0; j < group->source_count; j++) {
            free(group->sources[j].path);
            free(group->sources[j].sensors);
        }
        free(group->sensors);
        free(group->sources);
        free(group->name);
    }
    free(list->groups);
    memset(list, 0, sizeof *list);
}
