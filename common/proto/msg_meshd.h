/* msg_meshd.h - what meshd answers to agentd on its own node: one sandbox (network namespace) per task. */
#pragma once

#include "common/proto/fields.h"
#include "common/proto/msg_network.h"

struct mesh_port {
    struct str Protocol;    /* tcp, udp, sctp */
    struct str PublishMode; /* ingress, host */
    uint64_t TargetPort;
    uint64_t PublishedPort; /* 0 only in host mode: meshd picks a free one */
};

struct mesh_up {
    struct str TaskID, ServiceID;
    struct str Mode;   /* "bridge" (default), "none" (only loopback), "host" (no namespace of its own) */
    struct list Ports; /* struct mesh_port */
    struct strs Nameservers, Search, Options; /* DNSConfig; empty: the host's */
    struct strmap Sysctls;                    /* net.* of the container: set in the namespace */
    struct list Networks;             /* struct net_attachment; the ingress network's gives its outside address */
    struct str ServiceName, TaskName; /* "web", "web.1.<task id>": for DNS; may be empty */
    struct str Hostname;              /* of the container: resolves to its own addresses */
};
/* Idempotent: asking again for a task that is up gives the same answer. ERR_PRECONDITION, ERR_UNIMPLEMENTED: this node
 * can't do it at all (encryption without ESP in the kernel): the task is rejected, with that text. */
struct mesh_up_reply {
    struct str Netns;      /* path of the namespace; empty in host mode */
    struct strs Addresses; /* CIDR */
    struct str ResolvConf; /* content of the container's /etc/resolv.conf */
    struct list Ports;     /* struct mesh_port with the chosen published ports */
};

struct mesh_ready {
    struct str TaskID;
    bool Ready; /* true: send published ports' traffic to it; false: no new connections (drain) */
};
struct mesh_task {
    struct str TaskID;
};
/* After it was taken out everywhere: answered when nobody has been connected to the task for a moment, or after WaitMs.
 */
struct mesh_quiet {
    struct str TaskID;
    uint64_t WaitMs;
};
struct mesh_quiet_reply {
    bool Quiet;
    uint64_t Connections; /* still open */
};
struct mesh_list_reply {
    struct strs TaskIDs;
};
/* What this node has a part in: the networks of its tasks, and the ingress network. */
struct mesh_networks_reply {
    struct list Networks; /* struct net_network; Attachable is not known */
};
struct mesh_empty {
    char unused_;
};

extern const struct op op_mesh_up, op_mesh_ready, op_mesh_quiet, op_mesh_down, op_mesh_list,
    op_mesh_networks; /* mesh_empty -> mesh_networks_reply (apid) */
