#include "extract.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* Return the length of the number that the text begins with, 0 if it begins with none. */
static size_t number_length(const char *text, size_t length) {
    size_t i = 0, digits = 0;
    bool exponent = false;
    if (i < length && (text[i] == '+' || text[i] == '-')) i++;
    for (; i < length && is_digit(text[i]); i++) digits++;
    if (i < length && text[i] == '.')
        for (i++; i < length && is_digit(text[i]); i++) digits++;
    if (digits == 0) return 0;
    if (i < length && (text[i] == 'e' || text[i] == 'E')) {
        size_t j = i + 1;
        if (j < length && (text[j] == '+' || text[j] == '-')) j++;
        if (j < length && is_digit(text[j])) {
            while (j < length && is_digit(text[j])) j++;
            exponent = true;
            i = j;
        }
    }
    if (i > NUMBER_MAX) return 0;
    if (exponent) { /* only an exponent can leave the range of a double within so few characters */
        char copy[NUMBER_MAX + 1];
        memcpy(copy, text, i);
        copy[i] = 0;
        if (!isfinite(strtod(copy, NULL))) return 0;
    }
    return i;
}

bool is_number(const char *text, size_t length) { return length > 0 && number_length(text, length) == length; }

/* Read digits as a small number; returns false if there is anything else or it exceeds `most`. */
static bool parse_index(const char *text, size_t length, unsigned most, unsigned *index) {
    unsigned value = 0;
    if (length == 0 || length > 6) return false;
    for (size_t i = 0; i < length; i++) {
        if (!is_digit(text[i])) return false;
        value = value * 10 + (unsigned)(text[i] - '0');
    }
    *index = value;
    return value <= most;
}

static bool parse_hex(const char *text, size_t length, uint32_t *request) {
    if (length > 2 && text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) text += 2, length -= 2;
    if (length == 0 || length > 8) return false;
    uint32_t value = 0;
    for (size_t i = 0; i < length; i++) {
        char c = text[i];
        unsigned digit = is_digit(c)              ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                         : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A') + 10
                                                : 16;
        if (digit == 16) return false;
        value = value << 4 | digit;
    }
    *request = value;
    return true;
}

static bool starts(const char *text, size_t length, const char *prefix) {
    size_t size = strlen(prefix);
    return length >= size && memcmp(text, prefix, size) == 0;
}

const char *select_parse(const char *text, size_t length, struct select *select) {
    memset(select, 0, sizeof *select);
    if (length == 5 && starts(text, length, "first")) {
        select->kind = SELECT_FIRST;
    } else if (length == 4 && starts(text, length, "text")) {
        select->kind = SELECT_TEXT;
    } else if (starts(text, length, "field:")) {
        select->kind = SELECT_FIELD;
        if (!parse_index(text + 6, length - 6, 9999, &select->index)) return "field:N needs a number from 0 to 9999";
    } else if (starts(text, length, "stat:")) {
        select->kind = SELECT_STAT;
        if (!parse_index(text + 5, length - 5, 9999, &select->index) || select->index == 0)
            return "stat:N needs a number from 1 to 9999";
        if (select->index == 2 || select->index == 3) return "stat:2 and stat:3 are no numbers";
    } else if (starts(text, length, "line:")) {
        size_t colon = length;
        while (colon > 5 && text[colon - 1] != ':') colon--;
        if (colon <= 6) return "line:KEY:N needs a key and a number";
        size_t size = colon - 1 - 5;
        if (size > KEY_MAX) return "the key of line:KEY:N is longer than 63 bytes";
        for (size_t i = 0; i < size; i++)
            if (is_space(text[5 + i]) || text[5 + i] == 0) return "the key of line:KEY:N holds white space";
        if (!parse_index(text + colon, length - colon, 9999, &select->index))
            return "line:KEY:N needs a number from 0 to 9999";
        select->kind = SELECT_LINE;
        select->key_length = (unsigned char)size;
        memcpy(select->key, text + 5, size);
    } else if (starts(text, length, "ioctl:")) {
        select->kind = SELECT_IOCTL;
        if (!parse_hex(text + 6, length - 6, &select->request)) return "ioctl:REQUEST needs a hexadecimal number of 32 bits";
    } else {
        return "the select is none of first, field:N, line:KEY:N, stat:N, text, ioctl:REQUEST";
    }
    return NULL;
}

static const char *line_end(const char *at, const char *end) {
    const char *newline = at < end ? memchr(at, '\n', (size_t)(end - at)) : NULL;
    return newline ? newline : end;
}

/* Find the N-th white-space separated word, from 0, between two places; both are the end where there is none. */
static void find_word(const char *at, const char *end, unsigned index, const char **word, const char **word_end) {
    for (;;) {
        while (at < end && is_space(*at)) at++;
        const char *stop = at;
        while (stop < end && !is_space(*stop)) stop++;
        if (index == 0 || at == end) {
            *word = at;
            *word_end = stop;
            return;
        }
        index--;
        at = stop;
    }
}

static struct extracted as_text(const char *at, const char *stop, const char *end) {
    size_t length = (size_t)(stop - at);
    struct extracted result = {.number = false, .more = stop == end && length <= TEXT_MAX, .at = at, .length = length};
    if (result.length > TEXT_MAX) result.length = TEXT_MAX;
    return result;
}

/* A word that should be a number. `limit` is where the words end, `end` where the content does. */
static struct extracted as_word(const char *at, const char *limit, const char *end, unsigned index) {
    const char *word, *stop;
    find_word(at, limit, index, &word, &stop);
    struct extracted result = as_text(word, stop, end);
    size_t length = (size_t)(stop - word);
    result.number = length <= NUMBER_MAX && is_number(word, length);
    return result;
}

static struct extracted extract_first(const char *content, const char *end) {
    const char *word, *word_end;
    find_word(content, end, 0, &word, &word_end);
    size_t length = number_length(word, (size_t)(word_end - word));
    const char *stop = word + length;
    struct extracted result = {.number = true, .at = word, .length = length};
    bool number = length > 0 && (stop == word_end || (*stop == '%' && stop + 1 == word_end));
    if (!number) result = as_text(content, line_end(content, end), end);
    result.more |= word_end == end;
    return result;
}

static struct extracted extract_line(const struct select *select, const char *content, const char *end) {
    for (const char *at = content; at < end;) {
        const char *stop = line_end(at, end);
        const char *word = at;
        while (word < stop && is_space(*word)) word++;
        size_t left = (size_t)(stop - word), size = select->key_length;
        if (left >= size && memcmp(word, select->key, size) == 0) {
            const char *after = word + size;
            if (after < stop && *after == ':') after++;
            if (after == stop || is_space(*after)) return as_word(word, stop, end, select->index);
        }
        at = stop < end ? stop + 1 : end;
    }
    return (struct extracted){.number = false, .more = true, .at = "", .length = 0};
}

static struct extracted extract_stat(const struct select *select, const char *content, const char *end) {
    if (select->index == 1) return as_word(content, end, end, 0);
    const char *at = end; /* the name in parentheses may itself hold spaces, parentheses and line ends */
    while (at > content && at[-1] != ')') at--;
    struct extracted result = at == content ? as_text(content, line_end(content, end), end)
                                            : as_word(at, end, end, select->index - 3);
    result.more = true; /* another parenthesis may follow */
    return result;
}

struct extracted extract(const struct select *select, const char *content, size_t length) {
    const char *end = content + length;
    switch (select->kind) {
    case SELECT_FIRST: return extract_first(content, end);
    case SELECT_FIELD: return as_word(content, line_end(content, end), end, select->index);
    case SELECT_LINE: return extract_line(select, content, end);
    case SELECT_STAT: return extract_stat(select, content, end);
    case SELECT_TEXT: return as_text(content, line_end(content, end), end);
    case SELECT_IOCTL: break;
    }
    return (struct extracted){.number = false, .more = false, .at = "", .length = 0};
}
