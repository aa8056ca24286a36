/* libFuzzer over the parser of the sensor list. A list that passes keeps what the rest of the probe relies on. */
#include <stdlib.h>
#include <string.h>

#include "sensors.h"

#define CHECK(condition) \
    do { \
        if (!(condition)) abort(); \
    } while (0)

static void check_group(const struct group *group) {
    size_t named = 0;
    CHECK(group->period_us >= 1000 && group->sensor_count > 0 && group->source_count > 0);
    CHECK(group->name[0] && strlen(group->name) <= NAME_MAX_BYTES && !strchr(group->name, '/'));
    for (size_t i = 0; i < group->source_count; i++) {
        const struct source *source = &group->sources[i];
        CHECK(source->path[0] == '/' && strlen(source->path) <= PATH_MAX_BYTES && !strpbrk(source->path, "\t\n"));
        for (size_t j = 0; j < source->sensor_count; j++) CHECK(group->sensors[source->sensors[j]].source == i);
        named += source->sensor_count;
    }
    CHECK(named == group->sensor_count);
    for (size_t i = 0; i < group->sensor_count; i++) {
        const char *name = group->sensors[i].name;
        CHECK(name[0] && strlen(name) <= NAME_MAX_BYTES && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_.-") == strlen(name));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct sensor_list list;
    char *copy = malloc(size ? size : 1);
    memcpy(copy, data, size);
    char *wrong = sensors_parse(copy, size, &list);
    free(copy);
    if (wrong)
        CHECK(strncmp(wrong, "line ", 5) == 0 && wrong[strlen(wrong) - 1] == '.');
    else
        for (size_t i = 0; i < list.group_count; i++) check_group(&list.groups[i]);
    free(wrong);
    sensors_free(&list);
    return 0;
}
