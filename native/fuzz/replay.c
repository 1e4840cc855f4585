/* Instead of a fuzzer: runs the entry point once for each file named on the command line, and with
 * --mutate=N before them also for N changed copies of each. What is changed follows from the bytes
 * alone: a run can be repeated. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { ROOM = 1 << 20, MOST_CHANGES = 8 };

static uint64_t dice;

static size_t roll(size_t sides)
{
    dice ^= dice << 13;
    dice ^= dice >> 7;
    dice ^= dice << 17;
    return (size_t)(dice % sides);
}

static void seed(const uint8_t *data, size_t size)
{
    dice = 0x9e3779b97f4a7c15u;
    for (size_t i = 0; i < size; i++)
        dice = (dice ^ data[i]) * 0x100000001b3u;
    dice |= 1;
}

/* One change of `size` bytes; the new size, which ROOM bounds. */
static size_t change(uint8_t *data, size_t size)
{
    static const uint8_t edges[] = {0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF, '\r', '\n', ' '};
    size_t at = size > 0 ? roll(size) : 0, length = size > 0 ? 1 + roll(size - at) : 0;
    if (length > 64)
        length = 1 + roll(64);
    switch (roll(6)) {
    case 0:
        if (size > 0)
            data[at] ^= (uint8_t)(1 << roll(8));
        return size;
    case 1:
        if (size > 0)
            data[at] = edges[roll(sizeof edges)];
        return size;
    case 2: /* some are gone */
        memmove(data + at, data + at + length, size - at - length);
        return size - length;
    case 3: /* some come twice */
        if (size + length > ROOM)
            return size;
        memmove(data + at + length, data + at, size - at);
        return size + length;
    case 4: /* some come from elsewhere */
        if (size > 0) {
            size_t from = roll(size), most = size - (at > from ? at : from);
            memmove(data + at, data + from, length < most ? length : most);
        }
        return size;
    default: /* it ends there */
        return at;
    }
}

int main(int argc, char **argv)
{
    static uint8_t data[ROOM], copy[ROOM];
    static const char option[] = "--mutate=";
    long mutants = 0;
    int first = 1;

    if (argc > 1 && strncmp(argv[1], option, sizeof option - 1) == 0) {
        mutants = strtol(argv[1] + sizeof option - 1, NULL, 10);
        first = 2;
    }
    for (int i = first; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        size_t size;

        if (!file) {
            perror(argv[i]);
            return 1;
        }
        size = fread(data, 1, sizeof(data), file);
        fclose(file);
        LLVMFuzzerTestOneInput(data, size);
        seed(data, size);
        for (long mutant = 0; mutant < mutants; mutant++) {
            size_t length = size;
            memcpy(copy, data, size);
            for (size_t changes = 1 + roll(MOST_CHANGES); changes > 0; changes--)
                length = change(copy, length);
            LLVMFuzzerTestOneInput(copy, length);
        }
    }
    printf("%d inputs replayed\n", argc - first);
    return 0;
}
