/* A stand-in for a program of MLC-LLM or MLC-Imp: it computes nothing and prints what one prints.
 *
 * How it behaves is said by `stand-in.txt` in the folder in the place of the weights, in lines `key value`:
 *   load_ms prefill_ms token_ms   how long each takes
 *   prompt_tokens                 tokens of text and image
 *   system_ms                     time of a system prompt, which MLC-Imp's prefill time counts and its tokens do not
 *   interval                      how many tokens are shown at a time (1 if it is not there)
 *   caught 1                      says that a check failed, and ends with 0 all the same
 * --stats is short, imp, verbose or usage.
 */
#include "standin.h"

static void statistics(const char *form, double prompt, double prefill, double decode, int tokens) {
    int steps = tokens - 1;
    if (!strcmp(form, "short"))
        printf("USER: prefill: %.1f tok/s, decode: %.1f tok/s\n", prompt / prefill, steps / decode);
    else if (!strcmp(form, "imp"))
        printf("prefill: %.1f tok/s, decode: %.1f tok/s prefill:%.1f s, decode: %.1f s\n", prompt / prefill,
               steps / decode, prefill, decode);
    else if (!strcmp(form, "verbose")) {
        printf("----------- prefill -----------\nthroughput: %.3f tok/s\ntotal tokens: %.0f tok\ntotal time: %.3f s\n",
               prompt / prefill, prompt, prefill);
        printf("------------ decode ------------\nthroughput: %.3f tok/s\ntotal tokens: %d tok\ntotal time: %.3f s\n",
               steps / decode, steps, decode);
    } else
        printf("{\"prompt_tokens\": %.0f, \"completion_tokens\": %d, \"total_tokens\": %.0f, \"extra\": "
               "{\"prefill_tokens\": %.0f, \"decode_tokens\": %d, \"jump_forward_tokens\": 0, "
               "\"prefill_tokens_per_s\": %.6f, \"decode_tokens_per_s\": %.6f, \"end_to_end_latency_s\": %.6f, "
               "\"ttft_s\": %.6f, \"inter_token_latency_s\": %.6f}}\n",
               prompt, tokens, prompt + tokens, prompt, steps, prompt / prefill, steps / decode, prefill + decode,
               prefill, (prefill + decode) / tokens);
}

int main(int argc, char **argv) {
    char path[4096], text[4096], other[4096];
    int tokens = atoi(option(argc, argv, "--max-gen-len"));
    const char *form = option(argc, argv, "--stats"), *threads = getenv("TVM_NUM_THREADS");
    if (tokens < 2 || !threads || atoi(threads) < 1 || !*option(argc, argv, "--prompt")) return 2;
    if (atof(option(argc, argv, "--temperature")) != 0 || strcmp(option(argc, argv, "--device"), "cpu")) return 2;
    snprintf(path, sizeof path, "%s/stand-in.txt", option(argc, argv, "--model"));
    if (!slurp(path, text) || !slurp(option(argc, argv, "--model-lib"), other) ||
        !slurp(option(argc, argv, "--image"), other)) {
        fprintf(stderr, "InternalError: Check failed: cannot open the weights, the library or the image\n");
        return 0;
    }
    say("Loading model...\n");
    spend(setting(text, "load_ms"));
    say("Loading finished\n");
    double prefill = spend(setting(text, "system_ms"));
    say("ASSISTANT: ");
    prefill += spend(setting(text, "prefill_ms"));
    if (setting(text, "caught")) {
        fprintf(stderr, "[12:00:00] llm_chat.cc:262: InternalError: Check failed: (false) is false\n");
        say("\n");
        return 0;
    }
    int interval = (int)setting(text, "interval"), held = 1;
    double decode = 0;
    if (interval < 2) say("word");
    for (int i = 1; i < tokens; i++) {
        decode += spend(setting(text, "token_ms"));
        held++;
        if (interval < 2) say(" word");
        else if (held >= interval || i + 1 == tokens) {
            for (int j = 0; j < held; j++) fputs(" word", stdout);
            fflush(stdout);
            held = 0;
        }
    }
    say("\n");
    statistics(form, setting(text, "prompt_tokens"), prefill, decode, tokens);
    return 0;
}
