/* What a sensor takes out of the content of a file. Pure functions over bytes that nobody has checked. */
#ifndef PROBE_EXTRACT_H
#define PROBE_EXTRACT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A number is copied as printed; a longer one is taken for text. */
#define NUMBER_MAX 63
/* Text that is no number is recorded up to this many bytes. */
#define TEXT_MAX 256
#define KEY_MAX 63

enum select_kind { SELECT_FIRST, SELECT_FIELD, SELECT_LINE, SELECT_STAT, SELECT_TEXT, SELECT_IOCTL };

struct select {
    enum select_kind kind;
    unsigned index;     /* N of field:N, line:KEY:N, stat:N */
    uint32_t request;   /* of ioctl:REQUEST */
    unsigned char key_length;
    char key[KEY_MAX + 1];
};

struct extracted {
    bool number;      /* what `at` points to is a number; else it is the text that stood where one should be */
    bool more;        /* the content may go on, and with it the answer would differ */
    const char *at;   /* inside the content given, or to an empty string */
    size_t length;
};

/* Read a SELECT of the sensor list. Returns NULL, or what is wrong with it as a sentence without a full stop. */
const char *select_parse(const char *text, size_t length, struct select *select);

/* Take the value that `select` names out of `length` bytes of content. SELECT_IOCTL has no content to look at. */
struct extracted extract(const struct select *select, const char *content, size_t length);

/* Tell whether bytes are a decimal integer or real with an optional sign that fits a double. */
bool is_number(const char *text, size_t length);

#endif
