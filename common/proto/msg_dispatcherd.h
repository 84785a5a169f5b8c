/*
 * msg_dispatcherd.h - what dispatcherd answers to agents.
 *
 * The caller's node is a property of the connection: over the local socket it is this node; from other nodes gatewayd
 * adds the certificate's identity.
 */
#pragma once

#include "common/proto/fields.h"
#include "common/proto/msg_network.h"

struct disp_session {
    struct str Hostname;
    struct str Description;  /* raw map: Node.Description as Docker spells it (Platform, Resources, Engine) */
    struct str Addr;         /* the node's address as it knows it; may be empty */
    struct str DataPathAddr; /* where its overlay packets come from; empty: Addr */
    struct str BootID;       /* another one each time that the node's run folder, and what is in its kernel, is new */
};
struct disp_session_reply {
    struct str NodeID;
    struct str SessionID; /* a restarted dispatcherd forgets sessions: calls then fail with ERR_GONE, open a new one */
    uint64_t HeartbeatMs; /* a session is dead after three times this without a call */
};

/* What one node must run. Everything a node needs for a task is in here. */
struct assignment {
    struct str ID; /* task */
    uint64_t Rev;  /* of the task's desired state; grows */
    struct str ServiceID, ServiceName;
    struct strmap ServiceLabels;
    uint64_t Slot; /* 0 for global services */
    struct str NodeID, NodeHostname;
    struct str DesiredState;     /* "ready", "running", "complete", "shutdown", "remove" */
    struct str Spec;             /* raw map: the TaskTemplate (ServiceSpec.TaskTemplate) */
    struct str Ports;            /* raw array of Docker PortConfig maps, published ports resolved */
    struct str GenericResources; /* raw array of Docker GenericResource maps: what the scheduler gave it; or empty */
    struct str LogDriver;        /* raw map {Name, Options} or empty: service's, else the cluster's default */
    struct str RegistryAuth;     /* X-Registry-Auth's JSON text, decoded; secret; may be empty */
    struct list Networks;        /* struct net_attachment: with its addresses; fixed for the task's life */
    /* DesiredState is to stop it, and no node sends it new connections any more (each one that could has said so, or
     * was given up waiting for): now what is open may finish, for DrainMs at most, before it is stopped. */
    bool Drained;
    uint64_t DrainMs; /* 0: nothing to wait for */
};

struct disp_assignments {
    struct str SessionID;
    uint64_t Seq;    /* what the agent has; 0 asks for everything */
    uint64_t WaitMs; /* answer at the latest after this, with nothing new; at most HeartbeatMs */
};
struct disp_assignments_reply {
    uint64_t Seq;
    bool Full;           /* Tasks is everything: drop whatever is not in it */
    struct list Tasks;   /* struct assignment: new or changed */
    struct strs Removed; /* task ids to stop (if still running) and forget */
};

struct task_port {
    struct str Protocol, PublishMode;
    uint64_t TargetPort, PublishedPort;
};
struct task_status {
    struct str TaskID;
    struct str State; /* "accepted" .. "rejected" */
    struct str Message, Err;
    int64_t Timestamp; /* wall ns */
    struct str ContainerID;
    uint64_t PID;
    int64_t ExitCode;
    bool HasContainer; /* ContainerStatus is reported */
    struct list Ports; /* struct task_port: host-mode ports in use */
    struct strs Addresses;
};
struct disp_status {
    struct str SessionID;
    struct list Statuses; /* struct task_status; later entries win */
};
struct disp_status_reply {
    struct strs Unknown; /* ids of tasks that no longer exist: stop reporting them */
};

/*
 * What a node's meshd must know of the networks that its tasks are on, and of the ingress network (long poll).
 *
 * Seq is a revision of the store, so it means the same to every manager. The answer brings a node from what it has (all
 * of Networks, at Seq) to what is: everything of networks that are not among those, the changes of the others. Asking
 * with a Seq says that everything up to it is in the kernel: dispatcherd waits for that before a task may stop.
 */
struct disp_network {
    uint64_t Seq; /* 0: knows nothing */
    uint64_t WaitMs;
    struct strs Networks; /* IDs of those it holds */
};
struct disp_network_reply {
    uint64_t Seq;
    bool Full;             /* forget everything first (the changes since Seq are not known any more) */
    uint64_t DataPathPort; /* UDP, of VXLAN */
    struct list Networks;  /* struct net_network: new or changed */
    struct list Services;  /* struct net_service */
    struct list Endpoints; /* struct net_endpoint */
    struct list Nodes;     /* struct net_node: of the whole swarm */
    struct list Keys;      /* struct net_key: all of them; empty: as before */
    struct strs GoneNetworks, GoneNodes;
    struct strs GoneServices, GoneEndpoints; /* "<network ID>/<ID>"; may name what the node never heard of */
};

/*
 * The content of one secret or config, for a task that is assigned to the caller's node and refers to it; anything else
 * is refused. It is asked for when the task is prepared and lives only in that task's files: no node keeps it. It comes
 * in a box (common/daemon/box.h) that only the asker can open, so that it is in the memory of no process on the way.
 */
struct disp_payload {
    struct str SessionID;
    struct str TaskID;
    struct str Kind; /* "secret" or "config" */
    struct str ID;
    struct str Key; /* public, for the box: BOX_KEY bytes, a new one each time */
};
struct disp_payload_reply {
    struct str Name;
    struct strmap Labels;
    struct str Box;        /* of the content */
    struct str Templating; /* "golang": expand it; empty: as it is */
};

/* For the local apid, which cannot read secrets: is this what the secret holds? The digest is HMAC-SHA256 under Nonce,
 * so that nothing that was sent once can be tried out later. */
struct disp_secret_is {
    struct str ID;
    struct str Nonce, Digest; /* 32 bytes each */
};
struct disp_secret_is_reply {
    bool Same;
};

/* What tasks use, of services that are scaled by it (labels microswarm.autoscale.*); about every 5 s. */
struct task_usage {
    struct str TaskID;
    uint64_t NanoCPUs;    /* CPU time used since the last report, per time passed: 10^9 is one CPU */
    uint64_t MemoryBytes; /* without what the kernel can take back */
    bool HasMetric;
    double Metric;    /* what the container exposes */
    struct str Error; /* why there is no metric */
};
struct disp_usage {
    struct str SessionID;
    struct list Usages; /* struct task_usage */
};
struct disp_usage_reply {
    char unused_;
};

/* A hint from this host's gatewayd: the link to a node came or went. */
struct disp_link {
    struct str NodeID;
    bool Up;
};
struct disp_link_reply {
    char unused_;
};

extern const struct field assignment_fields[], task_status_fields[], task_port_fields[];
/* Asked by agentd; by apid (secret_is), meshd (network) and gatewayd (link). X takes struct disp_X, gives disp_X_reply.
 */
extern const struct op op_disp_session, op_disp_assignments, op_disp_status, op_disp_payload, op_disp_usage,
    op_disp_secret_is, op_disp_network, op_disp_link;
