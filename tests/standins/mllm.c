/* A stand-in for a program of mllm: it computes nothing and prints what one prints, in either generation.
 *
 * How it behaves is said by the file in the place of the weights, which begins with `mllm stand-in` (anything
 * else is unreadable to it, and it goes on, as mllm does) and has lines `key value`:
 *   load_ms prefill_ms token_ms   how long each takes; of a vision tower, half of prefill_ms
 *   text_tokens                   tokens of the text, the image counted as one of them
 *   silent 1                      ends with 0 before its statistics
 */
#include "standin.h"

static const char CYAN[] = "\033[38;2;000;255;255m", WHITE[] = "\033[38;2;255;255;255m", PLAIN[] = "\033[0m";

static void second_row(const char *name, const char *value) {
    printf("%s%-20s: %s%s%s%s\n", WHITE, name, PLAIN, CYAN, value, PLAIN);
}

static void second(double prefill, double decode, double vision, int text, int tokens) {
    char value[64];
    printf("%s\n============== Performance Summary ===============\n%s", CYAN, PLAIN);
    snprintf(value, sizeof value, "%10.3f s", prefill + decode);
    second_row("Total time", value);
    snprintf(value, sizeof value, "%10.3f s (%6.2f tokens/s)", prefill, (text + 575) / prefill);
    second_row("Prefill total time", value);
    snprintf(value, sizeof value, "%10.3f s (%6.2f tokens/s)", prefill - vision, (text + 575) / (prefill - vision));
    second_row("LLM prefill time", value);
    snprintf(value, sizeof value, "%10.3f s (%6.2f tokens/s)", decode, (tokens - 1) / decode);
    second_row("Decode time", value);
    snprintf(value, sizeof value, "%10.3f s", prefill);
    second_row("TTFT", value);
    snprintf(value, sizeof value, "%10d", text + 575);
    second_row("Prefill tokens", value);
    snprintf(value, sizeof value, "%10d", tokens - 1);
    second_row("Decode steps", value);
    snprintf(value, sizeof value, "%10.3f s/token", decode / (tokens - 1));
    second_row("Avg decode time", value);
    printf("%s==================================================\n%s", CYAN, PLAIN);
    printf("%s\n================= Custom Events ==================\n%s", CYAN, PLAIN);
    snprintf(value, sizeof value, "%10.2f \316\274s", vision * 1e6);
    second_row("ViT", value);
    printf("%s==================================================\n%s", CYAN, PLAIN);
}

int main(int argc, char **argv) {
    char weights[4096], other[4096];
    const char *prompt = option(argc, argv, "--prompt");
    int tokens = atoi(option(argc, argv, "--tokens")), generation = atoi(option(argc, argv, "--generation"));
    if (atoi(option(argc, argv, "--thread")) < 1 || atoi(option(argc, argv, "--limits")) < 1 || tokens < 2) return 2;
    if (!slurp(option(argc, argv, "--model"), weights) || strncmp(weights, "mllm stand-in", 13)) {
        fprintf(stderr, "Mmap: magic number error\n");
        strcpy(weights, "load_ms 1\nprefill_ms 10\ntoken_ms 1\ntext_tokens 2\n");
    }
    if (!slurp(option(argc, argv, "--vocab"), other) || !slurp(option(argc, argv, "--image"), other)) {
        fprintf(stderr, "Error: no vocabulary or image\n");
        return 0;
    }
    double load = spend(setting(weights, "load_ms"));
    if (generation == 2) say("\360\237\224\204 Processing...\n\n\360\237\244\226 Response: ");
    else say(prompt);
    double vision = spend(setting(weights, "prefill_ms") / 2);
    double prefill = vision + spend(setting(weights, "prefill_ms") / 2);
    say(" word");
    double decode = 0;
    for (int i = 1; i < tokens; i++) {
        decode += spend(setting(weights, "token_ms"));
        say(" word");
    }
    say("\n");
    if (setting(weights, "silent")) return 0;
    int text = (int)setting(weights, "text_tokens");
    if (generation == 2) {
        second(prefill, decode, vision, text, tokens);
        return 0;
    }
    printf("===========================================\n  Load time: %g s\n", load);
    printf("  Prefilling speed: %g tokens/s , TTFT: %g s\n", text / prefill, prefill);
    printf("  Decoding speed: %g tokens/s\n", (tokens - 1) / decode);
    printf("===========================================\n");
    return 0;
}
