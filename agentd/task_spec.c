/* task_spec.c - the tables behind task_spec.h. */
#include "agentd/task_spec.h"

#define LIST_CAP 10000u

static const struct field driver_fields[] = {
    FIELD_STR(struct tspec_driver, Name, 0, FIELD_TEXT_MAX),
    FIELD_STRMAP(struct tspec_driver, Options, LIST_CAP),
    FIELD_END,
};
static const struct field bind_fields[] = {
    FIELD_STR(struct tspec_bind, Propagation, 0, 64),      FIELD_BOOL(struct tspec_bind, NonRecursive),
    FIELD_BOOL(struct tspec_bind, CreateMountpoint),       FIELD_BOOL(struct tspec_bind, ReadOnlyNonRecursive),
    FIELD_BOOL(struct tspec_bind, ReadOnlyForceRecursive), FIELD_END,
};
static const struct field volume_fields[] = {
    FIELD_BOOL(struct tspec_volume, NoCopy),
    FIELD_STRMAP(struct tspec_volume, Labels, LIST_CAP),
    FIELD_STR(struct tspec_volume, Subpath, 0, 4096),
    FIELD_PTR(struct tspec_volume, DriverConfig, driver_fields, struct tspec_driver),
    FIELD_END,
};
static const struct field tmpfs_fields[] = {
    FIELD_I64(struct tspec_tmpfs, SizeBytes, 0, INT64_MAX),
    FIELD_U64(struct tspec_tmpfs, Mode, 0, UINT32_MAX),
    FIELD_RAW(struct tspec_tmpfs, Options),
    FIELD_END,
};
static const struct field mount_fields[] = {
    FIELD_STR(struct tspec_mount, Type, 0, 64),
    FIELD_STR(struct tspec_mount, Source, 0, 4096),
    FIELD_STR(struct tspec_mount, Target, 0, 4096),
    FIELD_BOOL(struct tspec_mount, ReadOnly),
    FIELD_PTR(struct tspec_mount, BindOptions, bind_fields, struct tspec_bind),
    FIELD_PTR(struct tspec_mount, VolumeOptions, volume_fields, struct tspec_volume),
    FIELD_PTR(struct tspec_mount, TmpfsOptions, tmpfs_fields, struct tspec_tmpfs),
    FIELD_END,
};
static const struct field seccomp_fields[] = {
    FIELD_STR(struct tspec_seccomp, Mode, 0, 64),
    FIELD_RAW(struct tspec_seccomp, Profile),
    FIELD_END,
};
static const struct field mode_fields[] = {
    FIELD_STR(struct tspec_mode, Mode, 0, 64),
    FIELD_END,
};
static const struct field privileges_fields[] = {
    FIELD_PTR(struct tspec_privileges, Seccomp, seccomp_fields, struct tspec_seccomp),
    FIELD_PTR(struct tspec_privileges, AppArmor, mode_fields, struct tspec_mode),
    FIELD_BOOL(struct tspec_privileges, NoNewPrivileges),
    FIELD_END,
};
static const struct field dns_fields[] = {
    FIELD_STRS(struct tspec_dns, Nameservers, LIST_CAP),
    FIELD_STRS(struct tspec_dns, Search, LIST_CAP),
    FIELD_STRS(struct tspec_dns, Options, LIST_CAP),
    FIELD_END,
};
static const struct field ulimit_fields[] = {
    FIELD_STR(struct tspec_ulimit, Name, 0, 64),
    FIELD_I64(struct tspec_ulimit, Soft, INT64_MIN, INT64_MAX),
    FIELD_I64(struct tspec_ulimit, Hard, INT64_MIN, INT64_MAX),
    FIELD_END,
};
static const struct field health_fields[] = {
    FIELD_STRS(struct health_spec, Test, LIST_CAP),
    FIELD_I64(struct health_spec, Interval, 0, INT64_MAX),
    FIELD_I64(struct health_spec, Timeout, 0, INT64_MAX),
    FIELD_I64(struct health_spec, Retries, 0, INT64_MAX),
    FIELD_I64(struct health_spec, StartPeriod, 0, INT64_MAX),
    FIELD_I64(struct health_spec, StartInterval, 0, INT64_MAX),
    FIELD_END,
};
static const struct field file_fields[] = {
    FIELD_STR(struct tspec_file, Name, 0, 4096),
    FIELD_STR(struct tspec_file, UID, 0, 64),
    FIELD_STR(struct tspec_file, GID, 0, 64),
    FIELD_U64(struct tspec_file, Mode, 0, UINT32_MAX),
    FIELD_END,
};
static const struct field fileref_fields[] = {
    FIELD_STR(struct tspec_fileref, SecretID, 0, 64),
    FIELD_STR(struct tspec_fileref, ConfigID, 0, 64),
    FIELD_PTR(struct tspec_fileref, File, file_fields, struct tspec_file),
    FIELD_STR(struct tspec_fileref, SecretName, 0, FIELD_TEXT_MAX),
    FIELD_STR(struct tspec_fileref, ConfigName, 0, FIELD_TEXT_MAX),
    FIELD_END,
};
#define C struct tspec_container
static const struct field container_fields[] = {
    FIELD_STR(C, Image, 0, 4096),
    FIELD_STR(C, Hostname, 0, 4096),
    FIELD_STR(C, Dir, 0, 4096),
    FIELD_STR(C, User, 0, 4096),
    FIELD_STR(C, StopSignal, 0, 64),
    FIELD_STRMAP(C, Labels, LIST_CAP),
    FIELD_STRMAP(C, Sysctls, LIST_CAP),
    FIELD_STRS(C, Command, LIST_CAP),
    FIELD_STRS(C, Args, LIST_CAP),
    FIELD_STRS(C, Env, LIST_CAP),
    FIELD_STRS(C, Groups, LIST_CAP),
    FIELD_STRS(C, Hosts, LIST_CAP),
    FIELD_STRS(C, CapabilityAdd, LIST_CAP),
    FIELD_STRS(C, CapabilityDrop, LIST_CAP),
    FIELD_BOOL(C, TTY),
    FIELD_BOOL(C, OpenStdin),
    FIELD_BOOL(C, ReadOnly),
    FIELD_RAW(C, Init),
    FIELD_RAW(C, StopGracePeriod),
    FIELD_PTR(C, Privileges, privileges_fields, struct tspec_privileges),
    FIELD_LIST(C, Mounts, mount_fields, struct tspec_mount, LIST_CAP),
    FIELD_LIST(C, Ulimits, ulimit_fields, struct tspec_ulimit, LIST_CAP),
    FIELD_PTR(C, DNSConfig, dns_fields, struct tspec_dns),
    FIELD_PTR(C, Healthcheck, health_fields, struct health_spec),
    FIELD_I64(C, OomScoreAdj, -1000, 1000),
    FIELD_LIST(C, Secrets, fileref_fields, struct tspec_fileref, LIST_CAP),
    FIELD_LIST(C, Configs, fileref_fields, struct tspec_fileref, LIST_CAP),
    FIELD_END,
};
#undef C
static const struct field limits_fields[] = {
    FIELD_I64(struct tspec_limits, NanoCPUs, 0, INT64_MAX),
    FIELD_I64(struct tspec_limits, MemoryBytes, 0, INT64_MAX),
    FIELD_I64(struct tspec_limits, Pids, INT64_MIN, INT64_MAX),
    FIELD_END,
};
static const struct field resources_fields[] = {
    FIELD_OBJ(struct tspec_resources, Limits, limits_fields, struct tspec_limits),
    FIELD_RAW(struct tspec_resources, SwapBytes),
    FIELD_RAW(struct tspec_resources, MemorySwappiness),
    FIELD_END,
};
static const struct field network_fields[] = {
    FIELD_STR(struct tspec_network, Target, 0, 4096),
    FIELD_END,
};
static const struct field tspec_fields[] = {
    FIELD_PTR(struct tspec, ContainerSpec, container_fields, struct tspec_container),
    FIELD_OBJ(struct tspec, Resources, resources_fields, struct tspec_resources),
    FIELD_PTR(struct tspec, LogDriver, driver_fields, struct tspec_driver),
    FIELD_LIST(struct tspec, Networks, network_fields, struct tspec_network, LIST_CAP),
    FIELD_END,
};

int tspec_decode(struct str raw, struct tspec *ret, struct arena *a, struct err *e)
{
    int r = fields_decode(ret, tspec_fields, sizeof *ret, raw, FIELDS_VIEW, a, e);
    if (r < 0)
        return err_wrap(e, "task template");
    if (!ret->ContainerSpec || ret->ContainerSpec->Image.n == 0)
        return err_set(e, ERR_INVALID, "image reference must be provided");
    return 0;
}

int64_t tspec_grace_ns(const struct tspec_container *c)
{
    int64_t ns;
    if (c->StopGracePeriod.n > 0 && mp_as_i64(c->StopGracePeriod, &ns) && ns >= 0)
        return ns;
    return TSPEC_GRACE_DEFAULT_NS;
}
