#include "apid/api_swarm_spec.h"

#include <strings.h>

#define CERT_EXPIRY_MIN_NS 3600000000000ll
#define CERT_EXPIRY_DEFAULT_NS 7776000000000000ll
#define HEARTBEAT_DEFAULT_NS 5000000000ll

json_t *json_sub(json_t *o, const char *key)
{
    json_t *v = json_object_get(o, key);

    if (!json_is_object(v)) {
        v = json_object();
        json_object_set_new(o, key, v);
    }
    return v;
}

static void fill(json_t *o, const char *key, int64_t v)
{
    if (json_integer_value(json_object_get(o, key)) == 0)
        json_object_set_new(o, key, json_integer(v));
}

void swarm_spec_defaults(json_t *spec)
{
    json_t *raft = json_sub(spec, "Raft"), *orch = json_sub(spec, "Orchestration");

    json_object_set_new(spec, "Name", json_string("default"));
    (void)json_sub(spec, "Labels");
    if (!json_object_get(orch, "TaskHistoryRetentionLimit"))
        json_object_set_new(orch, "TaskHistoryRetentionLimit", json_integer(5));
    fill(raft, "SnapshotInterval", 10000);
    if (!json_object_get(raft, "KeepOldSnapshots"))
        json_object_set_new(raft, "KeepOldSnapshots", json_integer(0));
    fill(raft, "LogEntriesForSlowFollowers", 500);
    fill(raft, "ElectionTick", 10);
    fill(raft, "HeartbeatTick", 1);
    fill(json_sub(spec, "Dispatcher"), "HeartbeatPeriod", HEARTBEAT_DEFAULT_NS);
    fill(json_sub(spec, "CAConfig"), "NodeCertExpiry", CERT_EXPIRY_DEFAULT_NS);
    (void)json_sub(spec, "TaskDefaults");
    if (!json_object_get(json_sub(spec, "EncryptionConfig"), "AutoLockManagers"))
        json_object_set_new(json_sub(spec, "EncryptionConfig"), "AutoLockManagers", json_false());
}

void swarm_spec_keep(json_t *spec, json_t *old)
{
    const char *key;
    json_t *v;

    json_object_foreach (old, key, v) {
        json_t *have = json_object_get(spec, key);
        bool zero = !have || (json_is_integer(have) && json_integer_value(have) == 0 &&
                              strcmp(key, "TaskHistoryRetentionLimit") != 0 && strcmp(key, "KeepOldSnapshots") != 0);
        if (zero)
            json_object_set(spec, key, v);
        else if (json_is_object(have) && json_is_object(v) && strcmp(key, "Labels") != 0)
            swarm_spec_keep(have, v);
    }
}

int swarm_spec_check(struct req *r, json_t *spec)
{
    const char *name = json_string_value(json_object_get(spec, "Name")) ?: "";
    json_t *ca = json_object_get(spec, "CAConfig"), *x;
    int64_t expiry = json_integer_value(json_object_get(ca, "NodeCertExpiry"));
    size_t i;

    if (*name && strcmp(name, "default") != 0)
        return api_refuse(r, 400, "swarm spec must be named \"default\"");
    json_array_foreach (json_object_get(ca, "ExternalCAs"), i, x) {
        const char *protocol = json_string_value(json_object_get(x, "Protocol")) ?: "";
        if (*protocol && strcasecmp(protocol, "cfssl") != 0)
            return api_refuse(r, 400, "invalid protocol: \"%s\"", protocol);
    }
    if (expiry != 0 && expiry < CERT_EXPIRY_MIN_NS)
        return api_rpc_refuse(r, RPC_INVALID, "minimum certificate expiry time is: 1h0m0s");
    if (json_integer_value(json_object_get(json_object_get(spec, "Dispatcher"), "HeartbeatPeriod")) < 0)
        return api_rpc_refuse(r, RPC_INVALID, "heartbeat time period cannot be a negative duration");
    return 0;
}
