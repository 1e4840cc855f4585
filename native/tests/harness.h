/*
 * A TAP harness. A test program is a list of TEST(name) { ... } and one RUN_TESTS(). It prints one
 * TAP line per test; with names as arguments it runs only those. CHECK fails the test and ends it;
 * SKIP ends it with a reason.
 */
#ifndef HARNESS_H
#define HARNESS_H

#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct test {
    const char *name;
    void (*run)(void);
    struct test *next;
};

static struct test *first_test;
static struct test **last_test = &first_test;
static jmp_buf end_of_test;
static char problem[512];
static const char *skip_reason = "";

#define TEST(test_name)                                                                            \
    static void test_name(void);                                                                   \
    static struct test test_name##_entry = {#test_name, test_name, NULL};                          \
    __attribute__((constructor)) static void test_name##_register(void)                            \
    {                                                                                              \
        *last_test = &test_name##_entry;                                                           \
        last_test = &test_name##_entry.next;                                                       \
    }                                                                                              \
    static void test_name(void)

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            snprintf(problem, sizeof(problem), "%s:%d: %s", __FILE__, __LINE__, #condition);       \
            longjmp(end_of_test, 1);                                                               \
        }                                                                                          \
    } while (0)

#define CHECK_INT(actual, expected)                                                                \
    do {                                                                                           \
        long long actual_ = (actual), expected_ = (expected);                                      \
        if (actual_ != expected_) {                                                                \
            snprintf(problem, sizeof(problem), "%s:%d: %s is %lld, not %lld", __FILE__, __LINE__,  \
                     #actual, actual_, expected_);                                                 \
            longjmp(end_of_test, 1);                                                               \
        }                                                                                          \
    } while (0)

#define CHECK_TEXT(actual, expected)                                                               \
    do {                                                                                           \
        const char *actual_ = (actual), *expected_ = (expected);                                   \
        if (strcmp(actual_, expected_) != 0) {                                                     \
            snprintf(problem, sizeof(problem), "%s:%d: %s is \"%s\", not \"%s\"", __FILE__,        \
                     __LINE__, #actual, actual_, expected_);                                       \
            longjmp(end_of_test, 1);                                                               \
        }                                                                                          \
    } while (0)

#define SKIP(reason)                                                                               \
    do {                                                                                           \
        skip_reason = (reason);                                                                    \
        longjmp(end_of_test, 2);                                                                   \
    } while (0)

static bool is_wanted(const char *name, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return true;
    return argc < 2;
}

static bool run_test(const struct test *test, int number)
{
    int outcome = setjmp(end_of_test);

    if (outcome == 0)
        test->run();
    if (outcome == 1)
        printf("not ok %d - %s\n# %s\n", number, test->name, problem);
    else if (outcome == 2)
        printf("ok %d - %s # SKIP %s\n", number, test->name, skip_reason);
    else
        printf("ok %d - %s\n", number, test->name);
    fflush(stdout);
    return outcome != 1;
}

static int run_tests(int argc, char **argv)
{
    int number = 0, failed = 0;

    for (const struct test *test = first_test; test; test = test->next)
        if (is_wanted(test->name, argc, argv) && !run_test(test, ++number))
            failed++;
    printf("1..%d\n", number);
    return failed || !number ? 1 : 0;
}

#define RUN_TESTS()                                                                                \
    int main(int argc, char **argv)                                                                \
    {                                                                                              \
        return run_tests(argc, argv);                                                              \
    }

#endif
