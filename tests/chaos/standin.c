/* A program in the place of a framework's: it ignores its arguments and goes wrong in one way. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(void) {
    static char block[1 << 16];
#if defined(SILENT)
    return 0;
#elif defined(ENDLESS)
    for (;;) {
        puts("still here");
        fflush(stdout);
        sleep(1);
    }
#elif defined(GIGABYTE)
    memset(block, 'x', sizeof block);
    for (int i = 0; i < 1 << 14; i++)
        if (fwrite(block, 1, sizeof block, stdout) != sizeof block) return 1;
    return 0;
#elif defined(BINARY)
    /* Escape sequences, NUL and what is no UTF-8. */
    unsigned state = 1;
    for (size_t i = 0; i < sizeof block; i++) block[i] = (char)((state = state * 1103515245u + 12345u) >> 16);
    memcpy(block, "\033]0;owned\007\033[2J", 14);
    fwrite(block, 1, sizeof block, stdout);
    fwrite(block, 1, 4096, stderr);
    return 0;
#elif defined(GREEDY)
    static char *volatile kept; /* or a compiler leaves out what nobody reads */
    for (;;) {
        char *more = malloc(1 << 20);
        if (!more) {
            fputs("out of memory\n", stderr);
            return 1;
        }
        memset(more, 1, 1 << 20);
        kept = more;
        usleep(2000);
    }
#endif
}
