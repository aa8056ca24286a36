/* The kernels whose rates are a device's peaks. */
#ifndef POCKETVLM_KERNELS_H
#define POCKETVLM_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* Bytes that a thread reads in a pass; its buffer is a multiple of this. */
#define PASS_BYTES ((size_t)64 << 20)

struct load {
    unsigned char *data;
    size_t bytes;
    size_t at;     /* where the next pass reads */
    uint64_t sink; /* what was read or computed, so that no compiler leaves the work out */
};

struct kernel {
    const char *name;
    int shared; /* bandwidth, which all cores share, in bytes; else operations, a multiply-add being two */
    void (*run)(struct load *);
    double (*amount)(void); /* of a thread and pass */
};

extern const struct kernel kernels[];
extern const size_t kernel_count;

#endif
