/* The command line of forklight-init from arbitrary bytes: words are separated by NUL. */
#include "init.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char text[4096];
    static char *words[sizeof(text)];
    static struct entry entries[MAX_ENTRIES];
    struct sb_error err;
    struct plan plan;
    int count = 0;

    if (size >= sizeof(text))
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    for (size_t i = 0; i < size; i += strlen(text + i) + 1)
        words[count++] = text + i;
    if (sb_read_plan(count, words, &plan, entries, &err) == 0)
        for (size_t i = 0; i < plan.entry_count; i++)
            if (!plan.entries[i].path[0] || strncmp(plan.entries[i].path, "../", 3) == 0)
                __builtin_trap();
    return 0;
}
