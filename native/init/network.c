/*
 * The network of a sandbox: its loopback interface and, with egress, one end of a veth pair whose
 * other end lies in the router's network namespace. Both ends are made here, not in the supervisor:
 * it would wait 0.1 ms for each of them, and longer while others hold the kernel's rtnl lock.
 *
 * Nothing has to be taken down: with the sandbox's namespace goes its end, with that the other one
 * and the route to it.
 */
#include "init.h"

#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define INSIDE_NAME "eth0"

/* From <linux/if_link.h>'s IFLA_INET6_ADDR_GEN_MODE: no address, so no IPv6. */
#define NO_IPV6_ADDRESS 1

static int configuration_socket(struct sb_error *err)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    return fd < 0 ? sb_fail_errno(err, SB_STEP_LOOPBACK, "socket") : fd;
}

int sb_bring_up_loopback(struct sb_error *err)
{
    struct ifreq request = {.ifr_name = "lo"};
    cleanup_fd int fd = -1;

    fd = configuration_socket(err);
    if (fd < 0)
        return fd;
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    if (ioctl(fd, SIOCSIFFLAGS, &request) < 0)
        return sb_fail_errno(err, SB_STEP_LOOPBACK, "SIOCSIFFLAGS");
    return 0;
}

/* ---- rtnetlink, as much of it as is needed here ---------------------------------------------- */

/* One request. What is put in is far smaller than the buffer, and put() checks it. */
struct message {
    union {
        struct nlmsghdr header;
        char bytes[512];
    };
    bool overflow;
};

static void begin(struct message *message, uint16_t type, uint16_t flags)
{
    memset(message, 0, sizeof(*message));
    message->header.nlmsg_len = NLMSG_HDRLEN;
    message->header.nlmsg_type = type;
    message->header.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags);
}

/* Room for `size` bytes at the end, which is returned; the message's own memory when full. */
static void *put(struct message *message, size_t size)
{
    size_t at = message->header.nlmsg_len;

    if (at + NLMSG_ALIGN(size) > sizeof(message->bytes)) {
        message->overflow = true;
        return message->bytes;
    }
    message->header.nlmsg_len = (uint32_t)(at + NLMSG_ALIGN(size));
    return message->bytes + at;
}

static void put_attribute(struct message *message, uint16_t type, const void *value, size_t size)
{
    struct rtattr *attribute = put(message, RTA_LENGTH(size));

    if (message->overflow)
        return;
    attribute->rta_type = type;
    attribute->rta_len = (uint16_t)RTA_LENGTH(size);
    if (size)
        memcpy(RTA_DATA(attribute), value, size);
}

static void put_string(struct message *message, uint16_t type, const char *value)
{
    put_attribute(message, type, value, strlen(value) + 1);
}

static void put_u32(struct message *message, uint16_t type, uint32_t value)
{
    put_attribute(message, type, &value, sizeof(value));
}

/* Everything that is put from here to end_nest() is inside. */
static size_t begin_nest(struct message *message, uint16_t type)
{
    size_t at = message->header.nlmsg_len;

    put_attribute(message, type, NULL, 0);
    return at;
}

static void end_nest(struct message *message, size_t at)
{
    struct rtattr *attribute = (struct rtattr *)(message->bytes + at);

    if (!message->overflow)
        attribute->rta_len = (uint16_t)(message->header.nlmsg_len - at);
}

/* Sends and waits for the kernel's answer: 0 or -errno. */
static int exchange(int netlink, const struct message *message)
{
    struct {
        struct nlmsghdr header;
        struct nlmsgerr error;
        char rest[1024];
    } answer;
    long length;

    if (message->overflow)
        return -EMSGSIZE;
    if (RETRY_EINTR(send(netlink, message->bytes, message->header.nlmsg_len, 0)) < 0)
        return -errno;
    length = RETRY_EINTR(recv(netlink, &answer, sizeof(answer), 0));
    if (length < 0)
        return -errno;
    if ((size_t)length < NLMSG_LENGTH(sizeof(answer.error)) ||
        answer.header.nlmsg_type != NLMSG_ERROR)
        return -EBADMSG;
    return answer.error.error;
}

static int ask(int netlink, const struct message *message, const char *what, struct sb_error *err)
{
    int result = exchange(netlink, message);

    return result < 0 ? sb_fail(err, SB_STEP_EGRESS, -result, what) : 0;
}

/* ---- the pair ---------------------------------------------------------------------------------
 */

/* Sockets of one network namespace: what they do, they do there, wherever the process is. */
struct sockets {
    int netlink;
    int configuration;
};

static int open_sockets(struct sockets *sockets, struct sb_error *err)
{
    sockets->netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (sockets->netlink < 0)
        return sb_fail_errno(err, SB_STEP_EGRESS, "AF_NETLINK");
    sockets->configuration = configuration_socket(err);
    return sockets->configuration < 0 ? sockets->configuration : 0;
}

static void close_sockets(const struct sockets *sockets)
{
    sb_close_fd(&sockets->netlink);
    sb_close_fd(&sockets->configuration);
}

static int index_of(const struct sockets *sockets, const char *name, struct sb_error *err)
{
    struct ifreq request = {0};

    strncpy(request.ifr_name, name, sizeof(request.ifr_name) - 1);
    if (ioctl(sockets->configuration, SIOCGIFINDEX, &request) < 0)
        return sb_fail_errno(err, SB_STEP_EGRESS, name);
    return request.ifr_ifindex;
}

static int make_pair(const struct sockets *inside, const struct plan *plan, struct sb_error *err)
{
    const struct egress *egress = &plan->egress;
    struct message message;
    size_t info, data, peer;

    begin(&message, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
    put(&message, sizeof(struct ifinfomsg));
    put_string(&message, IFLA_IFNAME, INSIDE_NAME);
    put_u32(&message, IFLA_MTU, egress->mtu);
    info = begin_nest(&message, IFLA_LINKINFO);
    put_string(&message, IFLA_INFO_KIND, "veth");
    data = begin_nest(&message, IFLA_INFO_DATA);
    peer = begin_nest(&message, VETH_INFO_PEER);
    put(&message, sizeof(struct ifinfomsg));
    put_string(&message, IFLA_IFNAME, egress->outside_name);
    put_u32(&message, IFLA_MTU, egress->mtu);
    put_u32(&message, IFLA_NET_NS_FD, (uint32_t)egress->router_fd);
    end_nest(&message, peer);
    end_nest(&message, data);
    end_nest(&message, info);
    return ask(inside->netlink, &message, "veth", err);
}

/* Before it is up: an interface that comes up gets a link-local address otherwise. */
static int without_ipv6(const struct sockets *inside, int index, struct sb_error *err)
{
    struct message message;
    struct ifinfomsg *link;
    size_t families, ipv6;
    const uint8_t mode = NO_IPV6_ADDRESS;
    int result;

    begin(&message, RTM_SETLINK, 0);
    link = put(&message, sizeof(*link));
    link->ifi_index = index;
    families = begin_nest(&message, IFLA_AF_SPEC);
    ipv6 = begin_nest(&message, AF_INET6);
    put_attribute(&message, IFLA_INET6_ADDR_GEN_MODE, &mode, sizeof(mode));
    end_nest(&message, ipv6);
    end_nest(&message, families);
    result = exchange(inside->netlink, &message);
    /* EAFNOSUPPORT: this kernel has no IPv6, or it is switched off. */
    if (result < 0 && result != -EAFNOSUPPORT)
        return sb_fail(err, SB_STEP_EGRESS, -result, "IPv6 off");
    return 0;
}

static int bring_up(const struct sockets *sockets, int index, const char *what,
                    struct sb_error *err)
{
    struct message message;
    struct ifinfomsg *link;

    begin(&message, RTM_NEWLINK, 0);
    link = put(&message, sizeof(*link));
    link->ifi_index = index;
    link->ifi_flags = link->ifi_change = IFF_UP;
    return ask(sockets->netlink, &message, what, err);
}

/* Point to point: the address is ours, the only neighbour is the router. */
static int set_address(const struct sockets *inside, int index, const struct egress *egress,
                       struct sb_error *err)
{
    struct message message;
    struct ifaddrmsg *address;

    begin(&message, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL);
    address = put(&message, sizeof(*address));
    address->ifa_family = AF_INET;
    address->ifa_prefixlen = 32;
    address->ifa_index = (uint32_t)index;
    put_attribute(&message, IFA_LOCAL, &egress->address, sizeof(egress->address));
    put_attribute(&message, IFA_ADDRESS, &egress->gateway, sizeof(egress->gateway));
    return ask(inside->netlink, &message, "address", err);
}

/* With a gateway the default route, else the route to one address. */
static int add_route(const struct sockets *sockets, int index, const struct in_addr *to,
                     const struct in_addr *gateway, struct sb_error *err)
{
    struct message message;
    struct rtmsg *route;

    begin(&message, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE);
    route = put(&message, sizeof(*route));
    route->rtm_family = AF_INET;
    route->rtm_table = RT_TABLE_MAIN;
    route->rtm_protocol = RTPROT_STATIC;
    route->rtm_type = RTN_UNICAST;
    route->rtm_scope = gateway ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK;
    if (to) {
        route->rtm_dst_len = 32;
        put_attribute(&message, RTA_DST, to, sizeof(*to));
    }
    if (gateway)
        put_attribute(&message, RTA_GATEWAY, gateway, sizeof(*gateway));
    put_u32(&message, RTA_OIF, (uint32_t)index);
    return ask(sockets->netlink, &message, "route", err);
}

static int set_up_inside(const struct sockets *inside, const struct egress *egress,
                         struct sb_error *err)
{
    int index = index_of(inside, INSIDE_NAME, err);
    int result = index < 0 ? index : without_ipv6(inside, index, err);

    if (result == 0)
        result = set_address(inside, index, egress, err);
    if (result == 0)
        result = bring_up(inside, index, INSIDE_NAME, err);
    if (result == 0)
        result = add_route(inside, index, NULL, &egress->gateway, err);
    return result;
}

static int set_up_outside(const struct sockets *outside, const struct egress *egress,
                          struct sb_error *err)
{
    int index = index_of(outside, egress->outside_name, err);
    int result = index < 0 ? index : bring_up(outside, index, egress->outside_name, err);

    if (result == 0)
        result = add_route(outside, index, &egress->address, NULL, err);
    return result;
}

static int open_outside(const struct plan *plan, struct sockets *outside, struct sb_error *err)
{
    cleanup_fd int here = -1;
    int result;

    here = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    if (here < 0)
        return sb_fail_errno(err, SB_STEP_EGRESS, "/proc/self/ns/net");
    if (setns(plan->egress.router_fd, CLONE_NEWNET) < 0)
        return sb_fail_errno(err, SB_STEP_EGRESS, "setns");
    result = open_sockets(outside, err);
    if (setns(here, CLONE_NEWNET) < 0)
        return sb_fail_errno(err, SB_STEP_EGRESS, "setns back");
    return result;
}

int sb_connect_to_router(const struct plan *plan, struct sb_error *err)
{
    struct sockets inside = {-1, -1}, outside = {-1, -1};
    int result = open_sockets(&inside, err);

    if (result == 0)
        result = open_outside(plan, &outside, err);
    if (result == 0)
        result = make_pair(&inside, plan, err);
    if (result == 0)
        result = set_up_inside(&inside, &plan->egress, err);
    if (result == 0)
        result = set_up_outside(&outside, &plan->egress, err);
    close_sockets(&inside);
    close_sockets(&outside);
    return result;
}
