/* A stand-in for llama-mtmd-cli 0.3.16: it computes a given amount in each phase and prints that version's lines with
 * the times that it took. No model is in it. WORK: thousandths of the usual amount of computing; ANSWER: the answer's
 * first word; ENDING: what follows the answer, of which all but two line ends counts as a part of it. */
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#ifndef WORK
#define WORK 1000
#endif
#ifndef ANSWER
#define ANSWER "word"
#endif
#ifndef ENDING
#define ENDING "\n\n"
#endif
#ifndef ROUNDS
#define ROUNDS 1000000 /* of the generator below, for a unit of work: some milliseconds */
#endif

static volatile uint64_t sink;

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec * 1e-6;
}

/* Each step needs the one before it, so that no compiler and no processor shortens it. */
static double compute(long units) {
    double start = now_ms();
    uint64_t x = 88172645463325252ull + (uint64_t)start;
    for (long i = 0; i < units * ROUNDS / 1000 * WORK; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    sink = x;
    return now_ms() - start;
}

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    double load = compute(1);
    fputs("main: loading model: model.gguf\n", stderr);
    double start = now_ms();
    compute(1);
    fputs("encoding image slice...\n", stdout);
    double encode = compute(3);
    printf("image slice encoded in %.0f ms\n", encode);
    printf("decoding image batch 1/1, n_tokens_batch = 289\n");
    double image = compute(3);
    printf("image decoded (batch 1/1) in %.0f ms\n", image);
    compute(1);
    double prompt = now_ms() - start;
    fputs("\n", stdout);
    double first = now_ms();
    fputs(" " ANSWER, stdout);
    for (int i = 1; i < 40; i++) {
        compute(1);
        fputs(" word", stdout);
    }
    double decode = now_ms() - first;
    compute(4); /* the last token is evaluated, too, for nothing */
    fputs(ENDING, stdout);
    fprintf(stderr, "llama_perf_context_print:        load time = %10.2f ms\n", load);
    fprintf(stderr, "llama_perf_context_print: prompt eval time = %10.2f ms /   300 tokens\n", prompt);
    fprintf(stderr, "llama_perf_context_print:        eval time = %10.2f ms /    39 runs\n", decode);
    fprintf(stderr, "llama_perf_context_print:       total time = %10.2f ms /   339 tokens\n", prompt + decode);
    return 0;
}
