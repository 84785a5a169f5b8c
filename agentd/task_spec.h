/*
 * task_spec.h - the TaskTemplate as agentd reads it: every field that one node can honour, in Docker's names.
 *
 * A view (common/proto/fields.h): text borrows from the assignment, absent fields are zero.
 */
#pragma once

#include "agentd/health_core.h"
#include "common/proto/fields.h"

struct tspec_bind {
    struct str Propagation;
    bool NonRecursive, CreateMountpoint, ReadOnlyNonRecursive, ReadOnlyForceRecursive;
};
struct tspec_driver {
    struct str Name;
    struct strmap Options;
};
struct tspec_volume {
    bool NoCopy;
    struct strmap Labels;
    struct str Subpath;
    struct tspec_driver *DriverConfig;
};
struct tspec_tmpfs {
    int64_t SizeBytes;
    uint64_t Mode;
    struct str Options; /* raw: [["noexec"],["uid","1000"]] */
};
struct tspec_mount {
    struct str Type, Source, Target; /* Type "": volume */
    bool ReadOnly;
    struct tspec_bind *BindOptions;
    struct tspec_volume *VolumeOptions;
    struct tspec_tmpfs *TmpfsOptions;
};
struct tspec_seccomp {
    struct str Mode;    /* "", "default", "unconfined", "custom" */
    struct str Profile; /* raw: bin or base64 text */
};
struct tspec_mode {
    struct str Mode;
};
struct tspec_privileges {
    struct tspec_seccomp *Seccomp;
    struct tspec_mode *AppArmor;
    bool NoNewPrivileges;
};
struct tspec_dns {
    struct strs Nameservers, Search, Options;
};
struct tspec_ulimit {
    struct str Name;
    int64_t Soft, Hard;
};
struct tspec_container {
    struct str Image, Hostname, Dir, User, StopSignal;
    struct strmap Labels, Sysctls;
    struct strs Command, Args, Env, Groups, Hosts, CapabilityAdd, CapabilityDrop;
    bool TTY, OpenStdin, ReadOnly;
    struct str Init;            /* raw: absent, false or true */
    struct str StopGracePeriod; /* raw: absent means 10 s */
    struct tspec_privileges *Privileges;
    struct list Mounts;  /* tspec_mount */
    struct list Ulimits; /* tspec_ulimit */
    struct tspec_dns *DNSConfig;
    struct health_spec *Healthcheck;
    int64_t OomScoreAdj;
    struct list Secrets, Configs; /* tspec_fileref */
};
struct tspec_file {
    struct str Name, UID, GID;
    uint64_t Mode;
};
struct tspec_fileref {
    struct str SecretID, SecretName, ConfigID, ConfigName;
    struct tspec_file *File; /* NULL: a config that is no file */
};
struct tspec_limits {
    int64_t NanoCPUs, MemoryBytes, Pids;
};
struct tspec_resources {
    struct tspec_limits Limits;
    struct str SwapBytes, MemorySwappiness; /* raw */
};
struct tspec_network {
    struct str Target;
};
struct tspec {
    struct tspec_container *ContainerSpec;
    struct tspec_resources Resources;
    struct tspec_driver *LogDriver;
    struct list Networks; /* tspec_network */
};

/* tspec_decode - @raw: the msgpack map of a TaskTemplate. -ERR_INVALID when there is no ContainerSpec with an image. */
int tspec_decode(struct str raw, struct tspec *ret, struct arena *a, struct err *e);

#define TSPEC_GRACE_DEFAULT_NS 10000000000ll
int64_t tspec_grace_ns(const struct tspec_container *c);
