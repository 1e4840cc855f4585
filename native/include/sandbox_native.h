/*
 * What Python may ask of the kernel. This is the only header Python sees: build_backend.py hands
 * the lines between the two markers to cffi, so they hold plain declarations only.
 *
 * Conventions. A function that can fail returns 0 or a non-negative result, or -errno; it touches
 * *err only when it fails. Nothing is allocated, nothing is kept after a call returns. Every
 * descriptor that is returned is close-on-exec and belongs to the caller; every pointer and
 * descriptor that is passed in is borrowed for the length of the call.
 */
#ifndef SANDBOX_NATIVE_H
#define SANDBOX_NATIVE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#pragma GCC visibility push(default)

/* cdef begin */

/* The act that failed. Names (sb_step_name) are what users read; numbers may change between builds.
 */
enum sb_step {
    SB_STEP_READY = 0,
    SB_STEP_PLAN,
    SB_STEP_CLONE,
    SB_STEP_SIGNALS,
    SB_STEP_KEYRING,
    SB_STEP_JOIN_CGROUP,
    SB_STEP_PARENT_DEATH_SIGNAL,
    SB_STEP_PARENT_GONE,
    SB_STEP_DESCRIPTORS,
    SB_STEP_EXEC,
    SB_STEP_USER_NAMESPACE,
    SB_STEP_SETGROUPS_DENY,
    SB_STEP_UID_MAP,
    SB_STEP_GID_MAP,
    SB_STEP_NAMESPACES,
    SB_STEP_SESSION,
    SB_STEP_HOSTNAME,
    SB_STEP_LOOPBACK,
    SB_STEP_EGRESS,
    SB_STEP_ENTER_NETWORK,
    SB_STEP_MOUNT_PROPAGATION,
    SB_STEP_MOUNT_ROOT,
    SB_STEP_MAKE_DIRECTORY,
    SB_STEP_MAKE_SYMLINK,
    SB_STEP_MAKE_FILE,
    SB_STEP_BIND,
    SB_STEP_BIND_READ_ONLY,
    SB_STEP_DEVICES,
    SB_STEP_SHARED_MEMORY,
    SB_STEP_PROC,
    SB_STEP_MASK_PROC,
    SB_STEP_TMP_IMAGE,
    SB_STEP_TMP_LOOP_DEVICE,
    SB_STEP_TMP_MOUNT,
    SB_STEP_PIVOT_ROOT,
    SB_STEP_ROOT_READ_ONLY,
    SB_STEP_RLIMIT,
    SB_STEP_CAPABILITIES,
    SB_STEP_GROUPS,
    SB_STEP_GID,
    SB_STEP_UID,
    SB_STEP_VERIFY_IDENTITY,
    SB_STEP_NO_NEW_PRIVS,
    SB_STEP_NOT_DUMPABLE,
    SB_STEP_REPORT,
    SB_STEP_COUNT
};

/* Copied as it is through the status pipe of a sandbox's first process: no pointers. */
struct sb_error {
    int32_t code; /* errno, 0 = no error */
    int32_t step; /* enum sb_step */
    char detail[96];
};

struct sb_spawn_request {
    const char *program;     /* absolute path */
    char *const *arguments;  /* argv, NULL at the end; the environment is always empty */
    const int *descriptors;  /* descriptors[i] becomes descriptor i of the program; nothing else
                                stays open */
    size_t descriptor_count; /* at most 16 */
    const int *tasks;        /* cgroup v1: open `tasks` files; the child writes itself into each */
    size_t tasks_count;
    int cgroup;          /* cgroup v2: the leaf's directory, else -1 */
    uint64_t namespaces; /* CLONE_NEW* */
    int die_with_parent; /* SIGKILL when the calling thread ends */
};

const char *sb_step_name(int step);

/* Starts a program without copying the caller's memory; returns its pidfd. The caller's thread
 * waits until the program has replaced the child: every error up to and including exec is returned
 * here. */
int sb_spawn(const struct sb_spawn_request *request, struct sb_error *err);

/* Moves the calling process, which must have one thread, into a user namespace and a mount
 * namespace of its own, where it is uid 0 and gid 0. */
int sb_enter_user_namespace(struct sb_error *err);

/* A new, empty network namespace; returns its descriptor, which keeps it alive. The caller stays
 * where it is, as with all three: the calling thread is inside only for the length of the call. */
int sb_new_network(struct sb_error *err);

/* A socket of the network namespace `network`. */
int sb_socket_in_network(int network, int family, int type, int protocol, struct sb_error *err);

/* Writes a file of /proc/sys/net as it is in the network namespace `network`. */
int sb_set_in_network(int network, const char *path, const char *value, struct sb_error *err);

/* A detached, read-only, nosuid, nodev copy of the mount tree at `path`; returns its descriptor. */
int sb_clone_readonly(const char *path, struct sb_error *err);

/* cdef end */

#pragma GCC visibility pop

#endif
