/* What a crash may leave, or somebody else may have: a VXLAN device with our id. And what the kernel lacks. */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/net_namespace.h>
#include <linux/rtnetlink.h>
#include <linux/xfrm.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "common/util/check.h"
#include "common/util/cleanup.h"
#include "meshd/overlay/overlay_nl.h"

#define ROOM 1024

/* ---- one namespace ---- */

struct search {
    const struct overlay_vxlan *vx;
    int32_t host_id; /* the host's namespace, as seen from this one; -1: not seen */
    bool is_host;
    char name[IFNAMSIZ], alias[256];
};

struct candidate {
    char name[IFNAMSIZ], alias[256];
    bool vxlan;
    uint32_t vni;
    uint16_t port;
    int32_t link_ns;
};

static void parse_data(const struct nlattr *data, struct candidate *c)
{
    const struct nlattr *a;
    for (struct mesh_attrs it = mesh_attrs_in(data); mesh_attrs_next(&it, &a);) {
        if (mnl_attr_get_type(a) == IFLA_VXLAN_ID)
            c->vni = mnl_attr_get_u32(a);
        else if (mnl_attr_get_type(a) == IFLA_VXLAN_PORT)
            c->port = ntohs(mnl_attr_get_u16(a));
    }
}

static void parse_info(const struct nlattr *info, struct candidate *c)
{
    const struct nlattr *a;
    for (struct mesh_attrs it = mesh_attrs_in(info); mesh_attrs_next(&it, &a);) {
        if (mnl_attr_get_type(a) == IFLA_INFO_KIND)
            c->vxlan = strcmp(mnl_attr_get_str(a), "vxlan") == 0;
        else if (mnl_attr_get_type(a) == IFLA_INFO_DATA && c->vxlan)
            parse_data(a, c);
    }
}

static void search_link(const struct nlmsghdr *h, void *arg)
{
    struct search *s = arg;
    struct candidate c = { .link_ns = -1 };
    const struct nlattr *a;
    for (struct mesh_attrs it = mesh_attrs_of(h, sizeof(struct ifinfomsg)); mesh_attrs_next(&it, &a);) {
        if (mnl_attr_get_type(a) == IFLA_IFNAME)
            snprintf(c.name, sizeof c.name, "%s", mnl_attr_get_str(a));
        else if (mnl_attr_get_type(a) == IFLA_IFALIAS)
            snprintf(c.alias, sizeof c.alias, "%s", mnl_attr_get_str(a));
        else if (mnl_attr_get_type(a) == IFLA_LINKINFO)
            parse_info(a, &c);
        else if (mnl_attr_get_type(a) == IFLA_LINK_NETNSID)
            c.link_ns = (int32_t)mnl_attr_get_u32(a);
    }
    /* Its packets must be the host's: elsewhere the id may be used as often as one likes. */
    if (!c.vxlan || c.vni != s->vx->vni || c.port != s->vx->port || c.link_ns != (s->is_host ? -1 : s->host_id))
        return;
    snprintf(s->name, sizeof s->name, "%s", c.name);
    snprintf(s->alias, sizeof s->alias, "%s", c.alias);
}

static void nsid_one(const struct nlmsghdr *h, void *arg)
{
    const struct nlattr *a;
    for (struct mesh_attrs it = mesh_attrs_of(h, sizeof(struct rtgenmsg)); mesh_attrs_next(&it, &a);)
        if (mnl_attr_get_type(a) == NETNSA_NSID)
            *(int32_t *)arg = (int32_t)mnl_attr_get_u32(a);
}

static int look_inside(struct overlay_host *h, struct search *s, const char *pins, bool *ret_freed)
{
    struct mesh_msg m;
    if (mesh_msg_open(&m, NETLINK_ROUTE, NULL) < 0)
        return -1;
    struct nlmsghdr *g = mesh_msg_put(&m, RTM_GETNSID, NLM_F_ACK, sizeof(struct rtgenmsg), ROOM);
    mnl_attr_put_u32(g, NETNSA_FD, (uint32_t)h->ns);
    s->host_id = -1;
    (void)mesh_msg_dump(&m, "look for a namespace", nsid_one, &s->host_id, NULL, NULL);
    if (s->is_host || s->host_id >= 0) {
        (void)mesh_msg_put(&m, RTM_GETLINK, NLM_F_DUMP, sizeof(struct ifinfomsg), ROOM);
        (void)mesh_msg_dump(&m, "list links", search_link, s, NULL, NULL);
    }
    size_t n = strlen(pins);
    if (s->name[0] && strncmp(s->alias, pins, n) == 0 && s->alias[n] == '/') {
        struct nlmsghdr *d = mesh_msg_put(&m, RTM_DELLINK, NLM_F_ACK, sizeof(struct ifinfomsg), ROOM);
        mnl_attr_put_strz(d, IFLA_IFNAME, s->name);
        *ret_freed = mesh_msg_send(&m, "delete a VXLAN device", NULL, NULL) == 0;
    }
    mesh_msg_close(&m);
    return 0;
}

/* ---- all namespaces ---- */

struct everywhere {
    struct overlay_host *host;
    const char *pins;
    struct search search;
    ino_t host_ino;
    ino_t *seen;
    size_t nseen, cseen;
    bool freed;
    char what[OVERLAY_WHAT];
};

static bool seen_before(struct everywhere *ev, ino_t ino)
{
    for (size_t i = 0; i < ev->nseen; i++)
        if (ev->seen[i] == ino)
            return true;
    if (ev->nseen == ev->cseen) {
        ev->cseen = ev->cseen * 2 + 64;
        ev->seen = realloc(ev->seen, ev->cseen * sizeof *ev->seen);
        CHECK(ev->seen != NULL);
    }
    ev->seen[ev->nseen++] = ino;
    return false;
}

/* look_at - a namespace by a path; true when the device was found. */
static bool look_at(struct everywhere *ev, const char *path)
{
    struct stat st;
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0 || seen_before(ev, st.st_ino) || setns(fd, CLONE_NEWNET) < 0)
        return false;
    ev->search.is_host = st.st_ino == ev->host_ino;
    (void)look_inside(ev->host, &ev->search, ev->pins, &ev->freed);
    mesh_ns_back(ev->host->ns);
    if (!ev->search.name[0])
        return false;
    snprintf(ev->what, sizeof ev->what, "device %s in %.200s (alias \"%.100s\")", ev->search.name,
             ev->search.is_host ? "the host's network" : path, ev->search.alias);
    return true;
}

static bool look_at_pins(struct everywhere *ev)
{
    FILE *f = fopen("/proc/self/mountinfo", "re");
    char *line = NULL, path[4096];
    size_t cap = 0;
    bool found = false;
    while (f && !found && getline(&line, &cap, f) > 0) {
        char *dash = strstr(line, " - nsfs ");
        if (dash && sscanf(line, "%*s %*s %*s net:%*s %4095s", path) == 1)
            found = look_at(ev, path);
    }
    free(line);
    if (f)
        fclose(f);
    return found;
}

static bool look_at_processes(struct everywhere *ev)
{
    DIR *d = opendir("/proc");
    struct dirent *de;
    char path[300];
    bool found = false;
    while (d && !found && (de = readdir(d)))
        if (de->d_name[0] >= '1' && de->d_name[0] <= '9') {
            snprintf(path, sizeof path, "/proc/%s/ns/net", de->d_name);
            found = look_at(ev, path);
        }
    if (d)
        closedir(d);
    return found;
}

int overlay_free_vni(struct overlay_host *h, const char *pins, const struct overlay_vxlan *vx, bool *ret_freed,
                     char what[OVERLAY_WHAT], struct err *e)
{
    struct everywhere ev = {
        .host = h, .pins = pins, .search = { .vx = vx }, .what = "a device that can't be seen from here"
    };
    struct stat st;
    if (fstat(h->ns, &st) < 0)
        return err_errno(e, errno, "look at the host's namespace");
    ev.host_ino = st.st_ino;
    if (!look_at_pins(&ev))
        (void)look_at_processes(&ev);
    free(ev.seen);
    *ret_freed = ev.freed;
    memcpy(what, ev.what, OVERLAY_WHAT);
    return 0;
}

/* ---- ESP ---- */

static void put_sa(struct mesh_msg *m)
{
    static const char name[] = "rfc4106(gcm(aes))";
    char buf[sizeof(struct xfrm_algo_aead) + 20] __attribute__((aligned(8))) = { 0 };
    struct xfrm_algo_aead *aead = (struct xfrm_algo_aead *)buf;
    struct nlmsghdr *h =
        mesh_msg_put(m, XFRM_MSG_NEWSA, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, sizeof(struct xfrm_usersa_info), ROOM);
    struct xfrm_usersa_info *sa = mnl_nlmsg_get_payload(h);
    sa->id.daddr.a4 = htonl(INADDR_LOOPBACK);
    sa->saddr.a4 = htonl(INADDR_LOOPBACK);
    sa->id.spi = htonl(0x1000);
    sa->id.proto = IPPROTO_ESP;
    sa->family = AF_INET;
    sa->mode = XFRM_MODE_TRANSPORT;
    sa->lft.soft_byte_limit = sa->lft.hard_byte_limit = XFRM_INF;
    sa->lft.soft_packet_limit = sa->lft.hard_packet_limit = XFRM_INF;
    memcpy(aead->alg_name, name, sizeof name);
    aead->alg_key_len = 160; /* AES-128 and the salt, RFC 4106; zeros: this association goes with its namespace */
    aead->alg_icv_len = 64;
    mnl_attr_put(h, XFRMA_ALG_AEAD, sizeof buf, buf);
}

bool overlay_esp(struct overlay_host *h)
{
    struct mesh_msg m;
    bool can = false;
    if (unshare(CLONE_NEWNET) < 0)
        return false;
    if (mesh_msg_open(&m, NETLINK_XFRM, NULL) == 0) {
        put_sa(&m);
        can = mesh_msg_send(&m, "add an ESP association", NULL, NULL) == 0;
        mesh_msg_close(&m);
    }
    mesh_ns_back(h->ns);
    return can;
}
