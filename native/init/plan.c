/* The command line of forklight-init. It is written by the supervisor only, so a mistake is a bug;
 * it is still refused with a name, never guessed at. */
#include "init.h"

#include <arpa/inet.h>
#include <limits.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

/* Walks over argv; the functions below take what they need. */
struct arguments {
    char *const *next;
    char *const *end;
};

static const char *take(struct arguments *arguments)
{
    return arguments->next < arguments->end ? *arguments->next++ : NULL;
}

static bool take_number(struct arguments *arguments, unsigned long limit, unsigned long *value)
{
    const char *text = take(arguments);
    char *rest = NULL;

    if (!text || *text < '0' || *text > '9')
        return false;
    errno = 0;
    *value = strtoul(text, &rest, 10);
    return errno == 0 && *rest == '\0' && *value <= limit;
}

/* A path below the new root: absolute, and without components that lead out of it. */
static const char *take_inner_path(struct arguments *arguments)
{
    const char *path = take(arguments);

    if (!path || path[0] != '/' || path[1] == '\0' || strlen(path) >= PATH_MAX)
        return NULL;
    for (const char *part = path; part; part = strchr(part, '/')) {
        part++;
        if (strncmp(part, "../", 3) == 0 || strcmp(part, "..") == 0)
            return NULL;
    }
    return path + 1;
}

static bool take_entry(struct arguments *arguments, enum entry_kind kind, bool has_source,
                       struct plan *plan, struct entry entries[MAX_ENTRIES])
{
    struct entry *entry;

    if (plan->entry_count == MAX_ENTRIES)
        return false;
    entry = &entries[plan->entry_count++];
    entry->kind = kind;
    entry->source = has_source ? take(arguments) : "";
    entry->path = take_inner_path(arguments);
    return entry->source && entry->path;
}

static bool take_address(struct arguments *arguments, struct in_addr *address)
{
    const char *text = take(arguments);

    return text && inet_pton(AF_INET, text, address) == 1;
}

/* FD NAME ADDRESS GATEWAY MTU */
static bool take_egress(struct arguments *arguments, struct egress *egress)
{
    unsigned long fd = 0, mtu = 0;

    if (!take_number(arguments, INT_MAX, &fd))
        return false;
    egress->router_fd = (int)fd;
    egress->outside_name = take(arguments);
    if (!egress->outside_name || !*egress->outside_name ||
        strlen(egress->outside_name) >= IF_NAMESIZE)
        return false;
    if (!take_address(arguments, &egress->address) || !take_address(arguments, &egress->gateway))
        return false;
    if (!take_number(arguments, 65535, &mtu) || mtu < 68)
        return false;
    egress->mtu = (uint32_t)mtu;
    return true;
}

static bool take_option(const char *name, struct arguments *arguments, struct plan *plan,
                        struct entry entries[MAX_ENTRIES])
{
    unsigned long number = 0;
    bool good = true;

    if (strcmp(name, "--ro-bind") == 0)
        return take_entry(arguments, ENTRY_READ_ONLY_BIND, true, plan, entries);
    if (strcmp(name, "--symlink") == 0)
        return take_entry(arguments, ENTRY_SYMLINK, true, plan, entries);
    if (strcmp(name, "--file") == 0)
        return take_entry(arguments, ENTRY_FILE, true, plan, entries);
    if (strcmp(name, "--dir") == 0)
        return take_entry(arguments, ENTRY_DIRECTORY, false, plan, entries);

    if (strcmp(name, "--status-fd") == 0) {
        good = take_number(arguments, INT_MAX, &number);
        plan->status_fd = (int)number;
    } else if (strcmp(name, "--uid") == 0) {
        good = take_number(arguments, UINT_MAX - 1, &number);
        plan->uid = (uid_t)number;
    } else if (strcmp(name, "--gid") == 0) {
        good = take_number(arguments, UINT_MAX - 1, &number);
        plan->gid = (gid_t)number;
    } else if (strcmp(name, "--tmp-megabytes") == 0) {
        good = take_number(arguments, 1U << 20, &number);
        plan->tmp_megabytes = (unsigned)number;
    } else if (strcmp(name, "--shm-megabytes") == 0) {
        good = take_number(arguments, 1U << 20, &number);
        plan->shm_megabytes = (unsigned)number;
    } else if (strcmp(name, "--root") == 0) {
        good = (plan->mount_point = take(arguments)) != NULL;
    } else if (strcmp(name, "--hostname") == 0) {
        good = (plan->hostname = take(arguments)) != NULL;
    } else if (strcmp(name, "--tmp-image") == 0) {
        plan->tmp_template = take(arguments);
        good = (plan->tmp_image_folder = take(arguments)) != NULL;
    } else if (strcmp(name, "--host-network") == 0) {
        plan->host_network = true;
    } else if (strcmp(name, "--egress") == 0) {
        good = take_egress(arguments, &plan->egress);
    } else if (strcmp(name, "--user-namespace") == 0) {
        plan->user_namespace = true;
    } else {
        good = false;
    }
    return good;
}

int sb_read_plan(int argc, char *const *argv, struct plan *plan, struct entry entries[MAX_ENTRIES],
                 struct sb_error *err)
{
    struct arguments arguments = {argv + (argc > 0 ? 1 : 0), argv + argc};
    const char *name;

    *plan = (struct plan){
        .status_fd = -1,
        .uid = (uid_t)-1,
        .gid = (gid_t)-1,
        .egress.router_fd = -1,
        .entries = entries,
    };
    while ((name = take(&arguments)))
        if (!take_option(name, &arguments, plan, entries))
            return sb_fail(err, SB_STEP_PLAN, EINVAL, name);
    if (plan->status_fd < 0)
        return sb_fail(err, SB_STEP_PLAN, EINVAL, "--status-fd is missing");
    if (plan->host_network && plan->egress.router_fd >= 0)
        return sb_fail(err, SB_STEP_PLAN, EINVAL, "--egress with --host-network");
    if (!plan->mount_point || !plan->hostname)
        return sb_fail(err, SB_STEP_PLAN, EINVAL, "--root or --hostname is missing");
    if (!plan->user_namespace && (plan->uid == (uid_t)-1 || plan->gid == (gid_t)-1))
        return sb_fail(err, SB_STEP_PLAN, EINVAL, "--uid or --gid is missing");
    /* A sandbox that kept the ids of the host's root would be none. */
    if (!plan->user_namespace && (plan->uid == 0 || plan->gid == 0))
        return sb_fail(err, SB_STEP_PLAN, EINVAL, "--uid or --gid is 0");
    if (!plan->tmp_megabytes || !plan->shm_megabytes)
        return sb_fail(err, SB_STEP_PLAN, EINVAL, "--tmp-megabytes or --shm-megabytes is missing");
    return 0;
}
