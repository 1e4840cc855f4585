/* All that differs between the processors we build for, besides the seccomp policies. */
#ifndef SB_ARCH_H
#define SB_ARCH_H

#include <linux/sched.h>
#include <sys/syscall.h>

/*
 * clone3 for a child with a stack of its own: it runs entry(argument), which must not return. The
 * system call cannot be made through syscall(): the child would return through a stack that is not
 * its own. Returns in the parent only: the pid or -errno.
 */
#if defined(__x86_64__)

static inline long sb_clone3_entry(struct clone_args *args, void (*entry)(void *), void *argument)
{
    register void (*child_entry)(void *) __asm__("r8") = entry;
    register void *child_argument __asm__("r9") = argument;
    long result;

    __asm__ volatile("syscall\n\t"
                     "testq %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xorl %%ebp, %%ebp\n\t" /* the outermost frame, for unwinders */
                     "movq %%r9, %%rdi\n\t"
                     "callq *%%r8\n\t"
                     "hlt\n"
                     "1:"
                     : "=a"(result)
                     : "0"((long)SYS_clone3), "D"(args), "S"(sizeof(*args)), "r"(child_entry),
                       "r"(child_argument)
                     : "rcx", "r11", "memory", "cc");
    return result;
}

#elif defined(__aarch64__)

static inline long sb_clone3_entry(struct clone_args *args, void (*entry)(void *), void *argument)
{
    register long number __asm__("x8") = SYS_clone3;
    register long result __asm__("x0") = (long)args;
    register long size __asm__("x1") = (long)sizeof(*args);
    register void (*child_entry)(void *) __asm__("x9") = entry;
    register void *child_argument __asm__("x10") = argument;

    __asm__ volatile("svc #0\n\t"
                     "cbnz x0, 1f\n\t"
                     "mov x29, xzr\n\t" /* the outermost frame, for unwinders */
                     "mov x0, x10\n\t"
                     "blr x9\n\t"
                     "brk #1\n"
                     "1:"
                     : "+r"(result)
                     : "r"(number), "r"(size), "r"(child_entry), "r"(child_argument)
                     : "memory", "cc");
    return result;
}

#else
#error "forklight runs on x86_64 and aarch64"
#endif

#endif
