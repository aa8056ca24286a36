/* libFuzzer over what the probe takes out of files.
 *
 * Input: two bytes that say where the content is cut, a SELECT up to a line end, then the content. The content is
 * looked at through that SELECT and through one of each kind. Checked besides memory: what is called a number is
 * one, what is returned lies in the content, an answer that needs no more content is the same with more of it, and
 * text becomes a JSON string. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base.h"
#include "extract.h"

#define CHECK(condition) \
    do { \
        if (!(condition)) abort(); \
    } while (0)

static void check_value(const struct extracted *value, const char *content, size_t length) {
    CHECK(value->length == 0 || (value->at >= content && value->at + value->length <= content + length));
    CHECK(value->length <= TEXT_MAX);
    if (value->number) {
        char copy[NUMBER_MAX + 1], *end;
        CHECK(value->length >= 1 && value->length <= NUMBER_MAX);
        CHECK(is_number(value->at, value->length));
        memcpy(copy, value->at, value->length);
        copy[value->length] = 0;
        CHECK(isfinite(strtod(copy, &end)) && *end == 0);
    } else {
        CHECK(value->length == 0 || !memchr(value->at, '\n', value->length));
    }
}

static void check_json(const struct extracted *value) {
    char *text = malloc(JSON_ESCAPED_MAX(value->length) + 1), *end = json_escape(text, value->at, value->length);
    CHECK((size_t)(end - text) <= JSON_ESCAPED_MAX(value->length));
    for (char *at = text; at < end; at++) {
        CHECK((unsigned char)*at >= 0x20 && *at != '"');
        if (*at == '\\') {
            CHECK(at + 1 < end && strchr("\\\"u", at[1]));
            at += at[1] == 'u' ? 5 : 1;
            CHECK(at < end);
        }
    }
    free(text);
}

static void look(const char *text, size_t size, const char *content, size_t cut, size_t length) {
    struct select select;
    const char *wrong = select_parse(text, size, &select);
    if (wrong) {
        CHECK(*wrong);
        return;
    }
    struct extracted part = extract(&select, content, cut);
    check_value(&part, content, cut);
    check_json(&part);
    if (part.more) return;
    struct extracted whole = extract(&select, content, length);
    CHECK(part.number == whole.number && part.length == whole.length);
    CHECK(part.length == 0 || part.at == whole.at);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const selects[] = {
        "first",  "text",        "field:0",    "field:3",       "line:cpu:1", "line:MemAvailable:1",
        "stat:1", "stat:14",     "stat:22",    "line:VmRSS:1",  "line:a:b:0", "ioctl:0x80047101",
    };
    if (size < 3) return 0;
    const char *text = (const char *)data + 2;
    const char *newline = memchr(text, '\n', size - 2);
    if (!newline) return 0;
    size_t length = size - (size_t)(newline + 1 - (const char *)data);
    char *content = malloc(length ? length : 1); /* a block of its own, so that a read past it is seen */
    memcpy(content, newline + 1, length);
    size_t cut = ((size_t)data[0] << 8 | data[1]) % (length + 1);
    look(text, (size_t)(newline - text), content, cut, length);
    for (size_t i = 0; i < sizeof selects / sizeof *selects; i++) look(selects[i], strlen(selects[i]), content, cut, length);
    free(content);
    return 0;
}
