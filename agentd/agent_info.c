/* agent_info.c - see agent_info.h. */
#include "agentd/agent_info.h"

#include <sched.h>
#include <stdio.h>
#include <sys/utsname.h>
#include <unistd.h>

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

void host_description(const struct host_info *h, struct buf *out)
{
    static const struct {
        const char *type, *name;
    } plugins[] = {
        { "Log", "json-file" }, { "Log", "none" },        { "Network", "bridge" }, { "Network", "host" },
        { "Network", "null" },  { "Network", "overlay" }, { "Volume", "local" },
    };
    size_t n = sizeof plugins / sizeof plugins[0];
    mp_map(out, 4);
    mp_kv_cstr(out, "Hostname", h->hostname);
    mp_cstr(out, "Platform");
    mp_map(out, 2);
    mp_kv_cstr(out, "Architecture", h->arch);
    mp_kv_cstr(out, "OS", h->os);
    mp_cstr(out, "Resources");
    mp_map(out, 2);
    mp_kv_u64(out, "NanoCPUs", h->ncpu * 1000000000ull);
    mp_kv_u64(out, "MemoryBytes", h->mem_bytes);
    mp_cstr(out, "Engine");
    mp_map(out, 2);
    mp_kv_cstr(out, "EngineVersion", MICROSWARM_VERSION);
    mp_cstr(out, "Plugins");
    mp_array(out, n);
    for (size_t i = 0; i < n; i++) {
        mp_map(out, 2);
        mp_kv_cstr(out, "Type", plugins[i].type);
        mp_kv_cstr(out, "Name", plugins[i].name);
    }
}
