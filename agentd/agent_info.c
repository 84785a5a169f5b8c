/* agent_info.c - see agent_info.h. */
#include "agentd/agent_info.h"

#include <linux/netlink.h>
#include <sched.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "agentd/agent_shell.h"
#include "agentd/generic.h"
#include "common/daemon/daemon.h"
#include "common/proto/mp.h"

void host_info_read(struct host_info *ret)
{
    struct utsname u;
    cpu_set_t set;
    *ret = (struct host_info){ .os = "linux", .ncpu = 1 };
    if (uname(&u) == 0) {
        snprintf(ret->hostname, sizeof ret->hostname, "%s", u.nodename);
        snprintf(ret->arch, sizeof ret->arch, "%s", u.machine);
    }
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        ret->ncpu = (uint64_t)CPU_COUNT(&set);
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGE_SIZE);
    ret->mem_bytes = pages > 0 && size > 0 ? (uint64_t)pages * (uint64_t)size : 0;
}

/* ---- what the configuration adds ---- */

static int read_labels(struct strmap *ret, struct arena *a, struct err *e)
{
    struct str text = str_from(agent_conf.labels), word;
    struct strmap m = { arena_array(a, text.n + 1, sizeof(struct strpair)), 0 };
    if (!m.v)
        return err_set(e, ERR_NOMEM, "labels");
    for (const char *p = text.p, *end = text.p + text.n; p < end; p = word.p + word.n) {
        while (p < end && *p == ' ')
            p++;
        word = (struct str){ p, strcspn(p, " ") };
        const char *eq = memchr(word.p, '=', word.n);
        if (word.n == 0)
            break;
        if (!eq || eq == word.p)
            return err_set(e, ERR_INVALID, "labels: \"" STR_FMT "\" is not KEY=VALUE", STR_ARG(word));
        m.v[m.n++] =
            (struct strpair){ { word.p, (size_t)(eq - word.p) }, { eq + 1, word.n - (size_t)(eq - word.p) - 1 } };
    }
    *ret = m;
    return 0;
}

static int read_settings(struct strmap *labels, struct generic_list *generic, struct arena *a, struct err *e)
{
    int r = read_labels(labels, a, e);
    if (r == 0)
        r = generic_parse(str_from(agent_conf.node_generic_resources), generic, a, e);
    return r;
}

int host_settings_check(struct err *e)
{
    struct strmap labels;
    struct generic_list generic;
    struct arena a;
    arena_init(&a, 1 << 20);
    int r = read_settings(&labels, &generic, &a, e);
    arena_done(&a);
    return r;
}

/* can_encrypt - the kernel has IPsec: encrypted networks can be here. */
static bool can_encrypt(void)
{
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_XFRM);
    if (fd < 0)
        return false;
    close(fd);
    return true;
}

void host_description(const struct host_info *h, struct buf *out)
{
    static const struct {
        const char *type, *name;
    } plugins[] = {
        { "Log", "json-file" }, { "Log", "none" },     { "Network", "bridge" },
        { "Network", "host" },  { "Network", "null" }, { "Network", "overlay" },
        { "Volume", "local" },  { "Kernel", "esp" }, /* schedulerd looks at these; the last one only where there is
                                                        IPsec */
    };
    struct strmap labels = { 0 };
    struct generic_list generic = { 0 };
    struct arena a;
    struct err e;
    size_t n = sizeof plugins / sizeof plugins[0];
    arena_init(&a, 1 << 20);
    (void)read_settings(&labels, &generic, &a, &e); /* checked when the daemon started */
    mp_map(out, 4);
    mp_kv_cstr(out, "Hostname", h->hostname);
    mp_cstr(out, "Platform");
    mp_map(out, 2);
    mp_kv_cstr(out, "Architecture", h->arch);
    mp_kv_cstr(out, "OS", h->os);
    mp_cstr(out, "Resources");
    mp_map(out, generic.n ? 3 : 2);
    mp_kv_u64(out, "NanoCPUs", h->ncpu * 1000000000ull);
    mp_kv_u64(out, "MemoryBytes", h->mem_bytes);
    if (generic.n) {
        mp_cstr(out, "GenericResources");
        generic_put(&generic, out);
    }
    mp_cstr(out, "Engine");
    mp_map(out, labels.n ? 3 : 2);
    if (labels.n) {
        mp_cstr(out, "Labels");
        mp_map(out, labels.n);
        for (size_t i = 0; i < labels.n; i++) {
            mp_str(out, labels.v[i].key);
            mp_str(out, labels.v[i].val);
        }
    }
    mp_kv_cstr(out, "EngineVersion", MICROSWARM_VERSION);
    mp_cstr(out, "Plugins");
    mp_array(out, n);
    for (size_t i = 0; i < n; i++) {
        bool lacks = i == n - 1 && !can_encrypt();
        mp_map(out, 2);
        mp_kv_cstr(out, "Type", plugins[i].type);
        mp_kv_cstr(out, "Name", lacks ? "none" : plugins[i].name);
    }
    arena_done(&a);
}
