#include "swarmctl/info.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdlib.h>

#include "swarmctl/human.h"
#include "swarmctl/jpath.h"

/* One line of the page: how a field is shown. */
enum kind { TEXT, TEXT_IF, NUMBER, TRUTH, WORDS, WORDS_IF, BYTES };

struct line {
    const char *label;
    enum kind kind;
    const char *path;
};

static void put_words(struct buf *b, json_t *list)
{
    json_t *item;
    size_t i;

    for_each (list, i, item)
        buf_printf(b, "%s%s", i ? " " : "", json_string_value(item));
}

static void put_line(struct buf *b, json_t *j, const struct line *l)
{
    if ((l->kind == TEXT_IF && !*jstr(j, l->path)) || (l->kind == WORDS_IF && jlen(j, l->path) == 0))
        return;
    buf_printf(b, "%s ", l->label);
    switch (l->kind) {
    case TEXT:
    case TEXT_IF:
        buf_puts(b, jstr(j, l->path));
        break;
    case NUMBER:
        buf_printf(b, "%" PRId64, jint(j, l->path));
        break;
    case TRUTH:
        buf_puts(b, jbool(j, l->path) ? "true" : "false");
        break;
    case WORDS:
    case WORDS_IF:
        put_words(b, jget(j, l->path));
        break;
    case BYTES:
        human_bytes(b, (double)jint(j, l->path));
        break;
    }
    buf_putc(b, '\n');
}

static void put_lines(struct buf *b, json_t *j, const struct line *l, size_t n)
{
    for (size_t i = 0; i < n; i++)
        put_line(b, j, &l[i]);
}
#define PUT_LINES(b, j, t) put_lines(b, j, t, sizeof(t) / sizeof((t)[0]))

static const struct line head[] = {
    { " Containers:", NUMBER, "Containers" },
    { "  Running:", NUMBER, "ContainersRunning" },
    { "  Paused:", NUMBER, "ContainersPaused" },
    { "  Stopped:", NUMBER, "ContainersStopped" },
    { " Images:", NUMBER, "Images" },
    { " Server Version:", TEXT_IF, "ServerVersion" },
    { " Storage Driver:", TEXT_IF, "Driver" },
};
static const struct line plugins[] = {
    { " Logging Driver:", TEXT_IF, "LoggingDriver" },
    { " Cgroup Driver:", TEXT_IF, "CgroupDriver" },
    { " Cgroup Version:", TEXT_IF, "CgroupVersion" },
};
static const struct line plugin_kinds[] = {
    { "  Volume:", WORDS, "Plugins.Volume" },
    { "  Network:", WORDS, "Plugins.Network" },
    { "  Authorization:", WORDS_IF, "Plugins.Authorization" },
    { "  Log:", WORDS, "Plugins.Log" },
};
static const struct line linux_parts[] = {
    { " Init Binary:", TEXT, "InitBinary" },
    { " containerd version:", TEXT, "ContainerdCommit.ID" },
    { " runc version:", TEXT, "RuncCommit.ID" },
    { " init version:", TEXT, "InitCommit.ID" },
};
static const struct line machine[] = {
    { " Kernel Version:", TEXT_IF, "KernelVersion" },
    { " Operating System:", TEXT_IF, "OperatingSystem" },
    { " OSType:", TEXT_IF, "OSType" },
    { " Architecture:", TEXT_IF, "Architecture" },
    { " CPUs:", NUMBER, "NCPU" },
    { " Total Memory:", BYTES, "MemTotal" },
    { " Name:", TEXT_IF, "Name" },
    { " ID:", TEXT_IF, "ID" },
    { " Docker Root Dir:", TEXT, "DockerRootDir" },
    { " Debug Mode:", TRUTH, "Debug" },
};
static const struct line debug[] = {
    { "  File Descriptors:", NUMBER, "NFd" },
    { "  Goroutines:", NUMBER, "NGoroutines" },
    { "  System Time:", TEXT, "SystemTime" },
    { "  EventsListeners:", NUMBER, "NEventsListener" },
};
static const struct line proxies[] = {
    { " HTTP Proxy:", TEXT_IF, "HttpProxy" },
    { " HTTPS Proxy:", TEXT_IF, "HttpsProxy" },
    { " No Proxy:", TEXT_IF, "NoProxy" },
};

#define CL "Swarm.Cluster."
static const struct line cluster_top[] = {
    { "  ClusterID:", TEXT, CL "ID" },
    { "  Managers:", NUMBER, "Swarm.Managers" },
    { "  Nodes:", NUMBER, "Swarm.Nodes" },
};
static const struct line cluster_raft[] = {
    { "   Task History Retention Limit:", NUMBER, CL "Spec.Orchestration.TaskHistoryRetentionLimit" },
};

/* Not docker's: who signs the nodes' certificates, out of the name's DER in base64. */
static void put_issuer(struct buf *b, const char *base64)
{
    unsigned char der[1024];
    const unsigned char *p = der;
    size_t n = strlen(base64);
    char text[256];

    if (n == 0 || n % 4 != 0 || n / 4 * 3 > sizeof der ||
        EVP_DecodeBlock(der, (const unsigned char *)base64, (int)n) < 0)
        return;
    X509_NAME *name = d2i_X509_NAME(NULL, &p, (long)(n / 4 * 3));
    if (name && X509_NAME_oneline(name, text, sizeof text))
        buf_printf(b, "   Certificate Issuer: %s\n", text[0] == '/' ? text + 1 : text);
    X509_NAME_free(name);
}

static void put_cluster(struct buf *b, json_t *info)
{
    json_t *spec = jget(info, CL "Spec"), *item;
    size_t i;

    PUT_LINES(b, info, cluster_top);
    if (jget(info, CL "DefaultAddrPool")) {
        buf_puts(b, "  Default Address Pool: ");
        for_each (jget(info, CL "DefaultAddrPool"), i, item)
            buf_printf(b, "%s  ", json_string_value(item));
        buf_printf(b, "\n  SubnetSize: %" PRId64 "\n", jint(info, CL "SubnetSize"));
    }
    if (jint(info, CL "DataPathPort") > 0)
        buf_printf(b, "  Data Path Port: %" PRId64 "\n", jint(info, CL "DataPathPort"));
    buf_puts(b, "  Orchestration:\n");
    PUT_LINES(b, info, cluster_raft);
    buf_printf(b, "  Raft:\n   Snapshot Interval: %" PRId64 "\n", jint(spec, "Raft.SnapshotInterval"));
    if (jget(spec, "Raft.KeepOldSnapshots"))
        buf_printf(b, "   Number of Old Snapshots to Retain: %" PRId64 "\n", jint(spec, "Raft.KeepOldSnapshots"));
    buf_printf(b, "   Heartbeat Tick: %" PRId64 "\n   Election Tick: %" PRId64 "\n  Dispatcher:\n   Heartbeat Period: ",
               jint(spec, "Raft.HeartbeatTick"), jint(spec, "Raft.ElectionTick"));
    human_duration(b, jint(spec, "Dispatcher.HeartbeatPeriod"));
    buf_puts(b, "\n  CA Configuration:\n   Expiry Duration: ");
    human_duration(b, jint(spec, "CAConfig.NodeCertExpiry"));
    buf_printf(b, "\n   Force Rotate: %" PRId64 "\n", jint(spec, "CAConfig.ForceRotate"));
    put_issuer(b, jstr(info, CL "TLSInfo.CertIssuerSubject"));
    if (jlen(spec, "CAConfig.ExternalCAs"))
        buf_puts(b, "   External CAs:\n");
    for_each (jget(spec, "CAConfig.ExternalCAs"), i, item)
        buf_printf(b, "     %s: %s\n", jstr(item, "Protocol"), jstr(item, "URL"));
    buf_printf(b, "  Autolock Managers: %s\n  Root Rotation In Progress: %s\n",
               jbool(spec, "EncryptionConfig.AutoLockManagers") ? "true" : "false",
               jbool(info, CL "RootRotationInProgress") ? "true" : "false");
}

static int cmp_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void put_managers(struct buf *b, json_t *list)
{
    size_t n = json_array_size(list), i;
    const char **addrs = calloc(n + 1, sizeof *addrs);

    for (i = 0; i < n; i++)
        addrs[i] = jstr(json_array_get(list, i), "Addr");
    qsort(addrs, n, sizeof *addrs, cmp_text);
    if (n > 0)
        buf_puts(b, "  Manager Addresses:\n");
    for (i = 0; i < n; i++)
        buf_printf(b, "   %s\n", addrs[i]);
    free(addrs);
}

static void put_swarm(struct buf *b, json_t *info)
{
    const char *state = jstr(info, "Swarm.LocalNodeState");
    bool manager = jbool(info, "Swarm.ControlAvailable");

    buf_printf(b, " Swarm: %s\n", state);
    if (strcmp(state, "inactive") == 0 || strcmp(state, "locked") == 0)
        return;
    buf_printf(b, "  NodeID: %s\n", jstr(info, "Swarm.NodeID"));
    if (*jstr(info, "Swarm.Error"))
        buf_printf(b, "  Error: %s\n", jstr(info, "Swarm.Error"));
    buf_printf(b, "  Is Manager: %s\n", manager ? "true" : "false");
    if (jget(info, "Swarm.Cluster") && manager && !*jstr(info, "Swarm.Error") && strcmp(state, "error") != 0)
        put_cluster(b, info);
    buf_printf(b, "  Node Address: %s\n", jstr(info, "Swarm.NodeAddr"));
    put_managers(b, jget(info, "Swarm.RemoteManagers"));
}

/* "name=seccomp,profile=default": the name, and the profile under it. */
static void put_security(struct buf *b, json_t *options)
{
    json_t *o;
    size_t i;

    if (json_array_size(options) > 0)
        buf_puts(b, " Security Options:\n");
    for_each (options, i, o) {
        const char *p = json_string_value(o), *name = strstr(p, "name="), *profile = strstr(p, "profile=");
        name = name ? name + 5 : p;
        buf_printf(b, "  %.*s\n", (int)strcspn(name, ","), name);
        if (profile)
            buf_printf(b, "   Profile: %.*s\n", (int)strcspn(profile + 8, ","), profile + 8);
    }
}

static void put_registries(struct buf *b, json_t *config)
{
    json_t *item;
    const char *key;
    size_t i;

    if (jlen(config, "InsecureRegistryCIDRs") || jlen(config, "IndexConfigs"))
        buf_puts(b, " Insecure Registries:\n");
    json_object_foreach (jget(config, "IndexConfigs"), key, item) {
        if (!jbool(item, "Secure"))
            buf_printf(b, "  %s\n", jstr(item, "Name"));
    }
    for_each (jget(config, "InsecureRegistryCIDRs"), i, item)
        buf_printf(b, "  %s\n", json_string_value(item));
    if (jlen(config, "Mirrors"))
        buf_puts(b, " Registry Mirrors:\n");
    for_each (jget(config, "Mirrors"), i, item)
        buf_printf(b, "  %s\n", json_string_value(item));
}

void info_print(struct buf *b, json_t *info)
{
    json_t *item;
    const char *key;
    size_t i;

    PUT_LINES(b, info, head);
    for_each (jget(info, "DriverStatus"), i, item)
        buf_printf(b, "  %s: %s\n", json_string_value(json_array_get(item, 0)),
                   json_string_value(json_array_get(item, 1)));
    PUT_LINES(b, info, plugins);
    buf_puts(b, " Plugins:\n");
    PUT_LINES(b, info, plugin_kinds);
    put_swarm(b, info);
    if (jlen(info, "Runtimes")) {
        buf_puts(b, " Runtimes:");
        json_object_foreach (jget(info, "Runtimes"), key, item) {
            buf_printf(b, " %s", key);
        }
        buf_printf(b, "\n Default Runtime: %s\n", jstr(info, "DefaultRuntime"));
    }
    if (strcmp(jstr(info, "OSType"), "linux") == 0) {
        PUT_LINES(b, info, linux_parts);
        put_security(b, jget(info, "SecurityOptions"));
    }
    PUT_LINES(b, info, machine);
    if (jbool(info, "Debug"))
        PUT_LINES(b, info, debug);
    PUT_LINES(b, info, proxies);
    if (jlen(info, "Labels"))
        buf_puts(b, " Labels:\n");
    for_each (jget(info, "Labels"), i, item)
        buf_printf(b, "  %s\n", json_string_value(item));
    buf_printf(b, " Experimental: %s\n", jbool(info, "ExperimentalBuild") ? "true" : "false");
    put_registries(b, jget(info, "RegistryConfig"));
    buf_printf(b, " Live Restore Enabled: %s\n", jbool(info, "LiveRestoreEnabled") ? "true" : "false");
    if (jlen(info, "DefaultAddressPools"))
        buf_puts(b, " Default Address Pools:\n");
    for_each (jget(info, "DefaultAddressPools"), i, item)
        buf_printf(b, "   Base: %s, Size: %" PRId64 "\n", jstr(item, "Base"), jint(item, "Size"));
}
