/*
 * forklight-init: the first process of every sandbox. It is started by sb_spawn inside a new pid
 * namespace and the sandbox's cgroup, makes everything else of the sandbox, gives up every
 * privilege, reports one struct sb_error through its status pipe and then only reaps orphans until
 * it is killed; with it dies everything in the sandbox.
 *
 * It is a program of its own, statically linked, so that slow steps (a network namespace, /tmp)
 * never block the supervisor and so that nothing of the supervisor's memory is in a sandbox.
 */
#ifndef SB_INIT_H
#define SB_INIT_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "internal.h"

/* One thing to put into the new root, in the order of the command line. */
enum entry_kind { ENTRY_DIRECTORY, ENTRY_SYMLINK, ENTRY_FILE, ENTRY_READ_ONLY_BIND };

struct entry {
    enum entry_kind kind;
    const char *path;   /* in the new root, without the leading slash */
    const char *source; /* bind: path on the host; symlink: target; file: contents */
};

/* A way out: a veth pair to the router's network namespace. */
struct egress {
    int router_fd;            /* that namespace; -1: no way out */
    const char *outside_name; /* of the interface in it */
    struct in_addr address;   /* the sandbox's */
    struct in_addr gateway;   /* the router's */
    uint32_t mtu;
};

/* The command line, decoded. Strings are borrowed from argv. */
struct plan {
    int status_fd;
    const char
        *mount_point; /* an existing directory; the new root is mounted on it before the pivot */
    const char *hostname;
    bool host_network;
    struct egress egress;
    bool user_namespace; /* not root on the host: no device nodes, no ids of our own */
    uid_t uid;
    gid_t gid;
    const char *tmp_template;     /* ext4 image to copy for /tmp; NULL: a tmpfs */
    const char *tmp_image_folder; /* where the unnamed copy is made */
    unsigned tmp_megabytes;
    unsigned shm_megabytes;
    const struct entry *entries;
    size_t entry_count;
};

#define MAX_ENTRIES 128

/* plan.c: decodes argv into *plan; entries go into the caller's array. */
int sb_read_plan(int argc, char *const *argv, struct plan *plan, struct entry entries[MAX_ENTRIES],
                 struct sb_error *err);

/* network.c */
int sb_bring_up_loopback(struct sb_error *err);
int sb_connect_to_router(const struct plan *plan, struct sb_error *err);

/* root.c: after success the calling process is in the new root and nothing else is mounted. */
int sb_build_root(const struct plan *plan, struct sb_error *err);

/* root.c: helpers that the other files share. `root` is the descriptor of the new root. */
int sb_new_filesystem(const char *type, const char *const options[][2], unsigned attributes,
                      enum sb_step step, struct sb_error *err);
int sb_attach(int mount, int root, const char *path, enum sb_step step, struct sb_error *err);

/* proc_and_dev.c: /dev first, /proc second (its masks are /dev/null of the new /dev). */
int sb_mount_dev(int root, const struct plan *plan, struct sb_error *err);
int sb_mount_proc(int root, struct sb_error *err);

/* tmp_volume.c */
int sb_mount_tmp(int root, const struct plan *plan, struct sb_error *err);

/* identity.c: the order matters and is the whole point; see there. */
int sb_drop_privileges(const struct plan *plan, struct sb_error *err);

#endif
