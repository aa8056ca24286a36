#define _GNU_SOURCE
#include "base.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int64_t clock_us(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t now_us(void) { return clock_us(CLOCK_BOOTTIME); }

int64_t monotonic_offset_us(void) {
    int64_t shortest = INT64_MAX, offset = 0;
    /* Of some tries the one that took least time: none of the two clocks was asked much later than the other. */
    for (int i = 0; i < 5; i++) {
        int64_t before = clock_us(CLOCK_MONOTONIC), at = clock_us(CLOCK_BOOTTIME), after = clock_us(CLOCK_MONOTONIC);
        if (after - before >= shortest) continue;
        shortest = after - before;
        offset = at - before - shortest / 2;
    }
    return offset;
}

void sleep_until_us(int64_t when) {
    struct timespec t = {.tv_sec = (time_t)(when / 1000000), .tv_nsec = (long)(when % 1000000) * 1000};
    clock_nanosleep(CLOCK_BOOTTIME, TIMER_ABSTIME, &t, NULL);
}

void pause_us(int64_t duration) {
    struct timespec t = {.tv_sec = (time_t)(duration / 1000000), .tv_nsec = (long)(duration % 1000000) * 1000};
    nanosleep(&t, NULL);
}

char *put_number(char *to, int64_t value) {
    char digits[20];
    int count = 0;
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    do {
        digits[count++] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest != 0);
    if (value < 0) *to++ = '-';
    while (count > 0) *to++ = digits[--count];
    return to;
}

/* Return the length of the UTF-8 character at `text`, or 0 if there is none (RFC 3629: no overlong form, no surrogate). */
static size_t utf8_length(const unsigned char *text, size_t left) {
    unsigned char first = text[0];
    if (first < 0x80) return 1;
    size_t length = first >= 0xC2 && first <= 0xDF ? 2 : (first & 0xF0) == 0xE0 ? 3 : first >= 0xF0 && first <= 0xF4 ? 4 : 0;
    if (length == 0 || length > left) return 0;
    for (size_t i = 1; i < length; i++)
        if ((text[i] & 0xC0) != 0x80) return 0;
    if (first == 0xE0 && text[1] < 0xA0) return 0;
    if (first == 0xED && text[1] > 0x9F) return 0;
    if (first == 0xF0 && text[1] < 0x90) return 0;
    if (first == 0xF4 && text[1] > 0x8F) return 0;
    return length;
}

char *json_escape(char *to, const char *text, size_t length) {
    static const char hex[] = "0123456789abcdef";
    for (size_t i = 0; i < length;) {
        unsigned char c = (unsigned char)text[i];
        if (c == '"' || c == '\\') {
            *to++ = '\\';
            *to++ = (char)c;
            i++;
        } else if (c < 0x20 || c == 0x7F) {
            memcpy(to, "\\u00", 4);
            to[4] = hex[c >> 4];
            to[5] = hex[c & 15];
            to += 6;
            i++;
        } else {
            size_t size = utf8_length((const unsigned char *)text + i, length - i);
            if (size == 0) {
                memcpy(to, "\\ufffd", 6);
                to += 6;
                i++;
            } else {
                memcpy(to, text + i, size);
                to += size;
                i += size;
            }
        }
    }
    return to;
}

const char *error_name(int error, char spare[16]) {
    static const struct {
        int error;
        const char *name;
    } names[] = {
#define NAME(e) {e, #e}
        NAME(EACCES), NAME(EAGAIN), NAME(EBADF),  NAME(EBUSY),  NAME(EFAULT),  NAME(EFBIG),     NAME(EINTR),
        NAME(EINVAL), NAME(EIO),    NAME(EISDIR), NAME(ELOOP),  NAME(EMFILE),  NAME(ENAMETOOLONG), NAME(ENFILE),
        NAME(ENODATA), NAME(ENODEV), NAME(ENOENT), NAME(ENOMEM), NAME(ENOSPC), NAME(ENOSYS),    NAME(ENOTDIR),
        NAME(ENOTTY), NAME(ENXIO),  NAME(EOPNOTSUPP), NAME(EPERM), NAME(EPIPE), NAME(ERANGE),   NAME(EREMOTEIO),
        NAME(EROFS),  NAME(ESHUTDOWN), NAME(ESPIPE), NAME(ESRCH), NAME(ESTALE), NAME(ETIMEDOUT), NAME(ENOTCONN),
#undef NAME
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].error == error) return names[i].name;
    snprintf(spare, 16, "E%d", error);
    return spare;
}

void *allocate(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size);
    if (!memory) {
        fprintf(stderr, "probe: not enough memory.\n");
        exit(EXIT_IO);
    }
    return memory;
}
