/*
 * layout.h - what is in the state map: kinds, indexes, and how their keys are made.
 *
 * The map is an LMDB environment at <run>/state/ that raftd alone writes. Databases:
 *   <kind>            ID -> document (msgpack map)
 *   ix:<index>        key 0x00 ID -> empty            (key and ID hold no 0x00)
 *   log               revision (8 bytes, big endian) seq (4 bytes, big endian) -> {"Kind","ID","Op"}; bounded
 *   meta              name -> msgpack value (struct store_meta)
 * Secret kinds live in a second environment of the same form at <run>/secret/, which only cad and dispatcherd may open.
 *
 * Every document has ID, Version {Index}, Rev, CreatedAt, UpdatedAt (wall ns), kept by raftd: Version.Index is the
 * revision of the last change of the kind's spec field, Rev that of the last change of anything.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum kind {
    KIND_CLUSTER,
    KIND_NODE,
    KIND_SERVICE,
    KIND_TASKSPEC,    /* an immutable TaskTemplate that tasks and one service refer to */
    KIND_TASK,
    KIND_NETWORK,
    KIND_SECRET,      /* without Data */
    KIND_CONFIG,
    KIND_RESERVATION, /* a unique thing in use: "port/tcp/8080" -> owner */
    KIND_SECRET_DATA, /* secret: payload of a secret, by its ID */
    KIND_CREDENTIAL,  /* secret: registry credentials, join-token and CA keys */
    KIND_COUNT
};

struct kind_info {
    const char *name;
    bool secret;
    const char *spec_field; /* the field whose change moves Version.Index; NULL: creation only */
    bool unique_name;       /* Spec.Name, compared without case, may occur once */
};
extern const struct kind_info kind_info[KIND_COUNT];

/* kind_by_name - KIND_COUNT when unknown. Not NUL-terminated input is fine. */
enum kind kind_by_name(const char *name, size_t len);

enum index {
    IX_SERVICE_NAME,        /* lower-cased Spec.Name */
    IX_NODE_HOSTNAME,       /* Description.Hostname; not unique */
    IX_NETWORK_NAME,
    IX_SECRET_NAME,
    IX_CONFIG_NAME,
    IX_TASK_SERVICE,        /* ServiceID */
    IX_TASK_NODE,           /* NodeID */
    IX_TASK_SLOT,           /* ServiceID "/" Slot as 10 decimal digits */
    IX_TASK_TASKSPEC,       /* TaskSpecID */
    IX_TASKSPEC_SERVICE,    /* ServiceID */
    IX_RESERVATION_OWNER,   /* OwnerID */
    IX_SERVICE_NETWORK,     /* reference: Spec.TaskTemplate.Networks[].Target */
    IX_SERVICE_SECRET,      /* reference: Spec.TaskTemplate.ContainerSpec.Secrets[].SecretID */
    IX_SERVICE_CONFIG,      /* reference: Spec.TaskTemplate.ContainerSpec.Configs[].ConfigID */
    IX_COUNT
};

struct index_info {
    const char *name;
    enum kind kind;
    const char *path;       /* of the value(s) in the document; "[]" steps into an array */
    const char *path2;      /* joined with "/": a second, numeric value; NULL if none */
    bool fold_case;
    bool unique;
    enum kind refers_to;    /* KIND_COUNT: not a reference */
};
extern const struct index_info index_info[IX_COUNT];

#define STORE_LOG_KEEP 100000u /* revisions kept in the change log */
#define STORE_MAP_BYTES (8ull << 30) /* address space, not memory */
