/* /_ping, /version, /info, and what other engines have beside a swarm: answered truthfully, or refused. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

#include "apid/api_resources.h"
#include "common/proto/msg_agentd.h"
#include "common/util/check.h"

#define AGENT_INFO_TIMEOUT_MS 2000u

void system_ping(struct req *r)
{
    api_header(r, "Cache-Control", "no-cache, no-store, must-revalidate");
    api_header(r, "Pragma", "no-cache");
    api_header(r, "Builder-Version", "1");
    api_header(r, "Swarm", swarm_header());
    r->out_type = "text/plain; charset=utf-8";
    if (!r->head)
        buf_puts(&r->out, "OK");
    api_reply(r, 200);
}

static const char *go_arch(const char *machine)
{
    if (strcmp(machine, "x86_64") == 0)
        return "amd64";
    return strcmp(machine, "aarch64") == 0 ? "arm64" : machine;
}

void system_version(struct req *r)
{
    struct utsname u;

    CHECK(uname(&u) == 0);
    api_reply_json(
        r, 200,
        json_pack(
            "{s:{s:s}, s:[{s:s, s:s, s:{s:s, s:s, s:s, s:s, s:s, s:s, s:s}}], s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, "
            "s:s}",
            "Platform", "Name", "microswarm", "Components", "Name", "Engine", "Version", MICROSWARM_VERSION, "Details",
            "ApiVersion", API_VERSION_MAX_TEXT, "MinAPIVersion", API_VERSION_MIN_TEXT, "Arch", go_arch(u.machine), "Os",
            "linux", "KernelVersion", u.release, "Experimental", "false", "GitCommit", "", "Version",
            MICROSWARM_VERSION, "ApiVersion", API_VERSION_MAX_TEXT, "MinAPIVersion", API_VERSION_MIN_TEXT, "GitCommit",
            "", "GoVersion", "none (written in C)", "Os", "linux", "Arch", go_arch(u.machine), "KernelVersion",
            u.release, "BuildTime", ""));
}

/* ---- info ---- */

/* PRETTY_NAME of os-release(5), without quotes. */
static void os_name(char *ret, size_t cap)
{
    char line[256];
    FILE *f = fopen("/etc/os-release", "re");

    (void)snprintf(ret, cap, "Linux");
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, "PRETTY_NAME=", 12) != 0)
            continue;
        char *v = line + 12;
        v[strcspn(v, "\n")] = '\0';
        size_t n = strlen(v);
        if (n >= 2 && v[0] == '"' && v[n - 1] == '"') {
            v[n - 1] = '\0';
            v++;
        }
        (void)snprintf(ret, cap, "%s", v);
    }
    if (f)
        fclose(f);
}

static void put(struct buf *b, const char *key, struct str v)
{
    buf_printf(b, ",\"%s\":", key);
    buf_json_str(b, v);
}

static struct str or_text(struct str s, const char *def)
{
    return s.n > 0 ? s : str_from(def);
}

/* Fixed answers: what there is no setting for. */
static const char info_fixed[] =
    ",\"DriverStatus\":[],\"Plugins\":{\"Volume\":[\"local\"],\"Network\":[\"bridge\",\"host\",\"null\",\"overlay\"],"
    "\"Authorization\":null,\"Log\":[\"json-file\",\"none\"]},\"MemoryLimit\":true,\"SwapLimit\":true,"
    "\"CpuCfsPeriod\":true,\"CpuCfsQuota\":true,\"CPUShares\":true,\"CPUSet\":true,\"PidsLimit\":true,"
    "\"IPv4Forwarding\":true,\"Debug\":false,\"NFd\":0,\"OomKillDisable\":false,\"NGoroutines\":0,"
    "\"LoggingDriver\":\"json-file\",\"NEventsListener\":0,\"OSType\":\"linux\","
    "\"IndexServerAddress\":\"https://index.docker.io/v1/\",\"RegistryConfig\":{\"InsecureRegistryCIDRs\":"
    "[\"127.0.0.0/8\",\"::1/128\"],\"IndexConfigs\":{\"docker.io\":{\"Name\":\"docker.io\",\"Mirrors\":[],"
    "\"Secure\":true,\"Official\":true}},\"Mirrors\":[]},\"GenericResources\":null,\"HttpProxy\":\"\","
    "\"HttpsProxy\":\"\",\"NoProxy\":\"\",\"Labels\":[],\"ExperimentalBuild\":false,\"LiveRestoreEnabled\":true,"
    "\"Isolation\":\"\",\"InitBinary\":\"\",\"SecurityOptions\":[\"name=seccomp,profile=builtin\"]";

static void put_host(struct buf *b)
{
    struct utsname u;
    struct sysinfo si;
    char os[200], now[WALL_TEXT_MAX];

    CHECK(uname(&u) == 0);
    CHECK(sysinfo(&si) == 0);
    os_name(os, sizeof os);
    wall_format(clock_wall(), now);
    put(b, "Name", str_from(u.nodename));
    put(b, "KernelVersion", str_from(u.release));
    put(b, "OperatingSystem", str_from(os));
    put(b, "Architecture", str_from(u.machine));
    put(b, "SystemTime", str_from(now));
    put(b, "ServerVersion", str_from(MICROSWARM_VERSION));
    put(b, "DockerRootDir", str_from(daemon_state_dir()));
    buf_printf(b, ",\"NCPU\":%d,\"MemTotal\":%llu", get_nprocs(),
               (unsigned long long)si.totalram * (unsigned long long)si.mem_unit);
}

static void info_reply(struct req *r, const void *rep, const struct err *e)
{
    static const struct agent_info nothing;
    const struct agent_info *i = rep ? rep : &nothing;
    struct buf *b = &r->out;
    struct str runtime = or_text(i->Runtime, "crun");
    struct buf warning = BUF_INIT;
    struct utsname u;

    CHECK(uname(&u) == 0);
    buf_puts(b, "{\"ID\":");
    buf_json_str(b, str_from(u.nodename));
    buf_printf(b,
               ",\"Containers\":%llu,\"ContainersRunning\":%llu,\"ContainersPaused\":0,\"ContainersStopped\":%llu,"
               "\"Images\":%llu",
               (unsigned long long)i->Containers, (unsigned long long)i->ContainersRunning,
               (unsigned long long)(i->Containers - i->ContainersRunning), (unsigned long long)i->Images);
    put(b, "Driver", or_text(i->StorageDriver, "overlay2"));
    put(b, "CgroupDriver", or_text(i->CgroupDriver, "cgroupfs"));
    put(b, "CgroupVersion", or_text(i->CgroupVersion, "2"));
    put(b, "DefaultRuntime", runtime);
    buf_puts(b, ",\"Runtimes\":{");
    buf_json_str(b, runtime);
    buf_puts(b, ":{\"path\":");
    buf_json_str(b, runtime);
    buf_puts(b, "}}");
    put_host(b);
    buf_puts(b, info_fixed);
    buf_puts(b, ",\"Swarm\":");
    swarm_info(b, &warning);
    buf_puts(b, ",\"Warnings\":");
    if (e->code != 0) {
        char text[600];
        (void)snprintf(text, sizeof text, "WARNING: agentd does not answer: %s", e->msg);
        buf_putc(b, '[');
        buf_json_str(b, str_from(text));
    }
    if (warning.n > 0) {
        buf_putc(b, e->code != 0 ? ',' : '[');
        buf_json_str(b, buf_str(&warning));
    }
    buf_puts(b, e->code != 0 || warning.n > 0 ? "]}\n" : "null}\n");
    buf_done(&warning);
    api_reply(r, 200);
}

void system_info(struct req *r)
{
    static const struct agent_empty none;
    api_call(r, api.agentd, &op_agent_info, &none, AGENT_INFO_TIMEOUT_MS, info_reply);
}

/* ---- volumes: made by tasks, kept by agentd ---- */

static void put_volume(struct buf *b, const struct agent_volume *v)
{
    char created[WALL_TEXT_MAX];

    wall_format((struct wall_ns){ v->CreatedAt / 1000000000 * 1000000000 }, created);
    buf_printf(b, "{\"CreatedAt\":\"%s\",\"Driver\":\"local\",\"Labels\":", created);
    for (size_t i = 0; i < v->Labels.n; i++) {
        buf_putc(b, i ? ',' : '{');
        buf_json_str(b, v->Labels.v[i].key);
        buf_putc(b, ':');
        buf_json_str(b, v->Labels.v[i].val);
    }
    buf_puts(b, v->Labels.n ? "},\"Mountpoint\":" : "null,\"Mountpoint\":");
    buf_json_str(b, v->Mountpoint);
    buf_puts(b, ",\"Name\":");
    buf_json_str(b, v->Name);
    buf_puts(b, ",\"Options\":null,\"Scope\":\"local\"}");
}

static void volumes_listed(struct req *r, const void *rep, const struct err *e)
{
    const struct agent_volumes_reply *l = rep;
    struct filters *f = r->data;
    bool any = false;

    if (e->code != 0) {
        api_fail(r, e);
        return;
    }
    buf_puts(&r->out, "{\"Volumes\":[");
    for (size_t i = 0; i < l->Volumes.n; i++) {
        const struct agent_volume *v = &((const struct agent_volume *)l->Volumes.v)[i];
        if (!filters_substr(f, "name", v->Name) || !filters_exact(f, "driver", STR("local")) ||
            !filters_label_map(f, "label", &v->Labels))
            continue;
        buf_puts(&r->out, any ? "," : "");
        any = true;
        put_volume(&r->out, v);
    }
    buf_puts(&r->out, "],\"Warnings\":null}\n");
    api_reply(r, 200);
}

void volumes_list(struct req *r)
{
    static const char *const known[] = { "name", "driver", "label", "dangling", NULL };
    static const struct agent_volumes all;
    struct filters *f = arena_alloc(&r->arena, sizeof *f);

    CHECK(f);
    r->data = f;
    if (api_filters(r, f, known) < 0)
        return;
    if (filters_get(f, "dangling"))
        api_error(r, 501, "filter 'dangling' of volumes is not supported by this version of microswarm");
    else
        api_call(r, api.agentd, &op_agent_volumes, &all, API_AGENT_DEADLINE_MS, volumes_listed);
}

static void volume_found(struct req *r, const void *rep, const struct err *e)
{
    const struct agent_volumes_reply *l = rep;

    if (e->code != 0) {
        api_fail(r, e);
    } else if (l->Volumes.n == 0) {
        api_error(r, 404, "get " STR_FMT ": no such volume", STR_ARG(r->params[0]));
    } else if (strcmp(r->route->method, "GET") != 0) {
        not_built(r);
    } else {
        put_volume(&r->out, l->Volumes.v);
        buf_putc(&r->out, '\n');
        api_reply(r, 200);
    }
}

void volumes_inspect(struct req *r)
{
    struct agent_volumes in = { .Name = r->params[0] };

    if (in.Name.n > 255)
        api_error(r, 404, "get " STR_FMT ": no such volume", STR_ARG(r->params[0]));
    else
        api_call(r, api.agentd, &op_agent_volumes, &in, API_AGENT_DEADLINE_MS, volume_found);
}

void volumes_other(struct req *r)
{
    volumes_inspect(r);
}

void plugins_list(struct req *r)
{
    buf_puts(&r->out, "[]\n");
    api_reply(r, 200);
}

void not_built(struct req *r)
{
    api_error(r, 501, "%s %s is not supported by this version of microswarm", r->route->method, r->route->pattern);
}
