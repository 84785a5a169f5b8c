/*
 * alloc_space.h - what of the numbered things is in use: a mirror of the reservations in the store, made to find what
 * is free without looking through them.
 *
 * The store has the last word: a reservation is created in the transaction that gives the thing away, and creating one
 * that exists fails. The mirror follows it reservation by reservation (space_sync), and what a transaction claims is
 * marked at once, so that the same pass does not give it twice; when the transaction fails, or nobody knows what became
 * of it, each of its claims is compared with the store again (space_settle, space_recheck).
 *
 *   vni/<n>                       one for each network
 *   subnet/<prefix>               a network's
 *   addr/<network ID>/<address>   of a service or a task
 */
#pragma once

#include "allocatord/alloc_pool.h"
#include "allocatord/alloc_subnet.h"
#include "common/store/controller.h"

#define VNI_INGRESS 4096u /* the first network of a swarm, as in Docker */
#define VNI_FIRST 4097u
#define VNI_LAST 0xffffffu
#define VXLAN_OPTION "com.docker.network.driver.overlay.vxlanid_list"
#define RESERVATION_ID_SIZE (STORE_ID_MAX + 1)

struct alloc_net {
    bool ingress;
    struct str name; /* owned */
    size_t npools;   /* 0: nothing is allocated yet */
    struct alloc_pool *pools;
    struct str error;     /* owned: why it has nothing yet */
    struct table waiters; /* "s" and a service's ID, "t" and a task's: want something of it that it has not */
};

struct space {
    struct table nets; /* ID -> struct alloc_net */
    char ingress[STORE_ID_MAX + 1];
    struct subnets subnets;
    struct ip cursor4, cursor6; /* behind the last subnet given */
    uint64_t vni_cursor;
    struct table claimed;  /* reservation ID -> nothing: of the transaction under way */
    struct table doubtful; /* of one that may not have been applied */
};

void space_init(struct space *s);
void space_clear(struct space *s);
void space_done(struct space *s);

struct alloc_net *space_net(struct space *s, struct str id); /* NULL: there is no such network */

/* space_sync - one reservation was made or given back. space_sync_net - one network appeared, changed or went; true
 * when it went. */
void space_sync(struct space *s, struct store_snap *snap, struct str reservation);
bool space_sync_net(struct space *s, struct store_snap *snap, struct str id);

/* net_set_pools - the network has these subnets from now on. net_set_error - why it has none yet. */
void net_set_pools(struct alloc_net *net, const struct subnet *v, size_t n);
void net_set_error(struct alloc_net *net, struct str error);

/* space_free - nobody has this reservation, in the store or by this transaction. */
bool space_free(struct space *s, struct store_snap *snap, struct str reservation);

/* space_take - an address of this family (4, 6) on the network; false: there is none left. It is marked in the pool,
 * which space_untake() takes back; the caller claims it. */
bool space_take(struct space *s, struct store_snap *snap, struct alloc_net *net, struct str id, uint8_t family,
                struct cidr *ret);
void space_untake(struct alloc_net *net, struct ip ip);
bool net_has_family(const struct alloc_net *net, uint8_t family);

/* space_claim - puts the creation of a reservation into the transaction. @owner_kind: KIND_SERVICE, KIND_TASK,
 * KIND_NETWORK. */
void space_claim(struct space *s, struct txn *txn, struct buf *scratch, struct str reservation, enum kind owner_kind,
                 struct str owner);

/* space_settle - the transaction was applied, or not. space_recheck - before the next pass. */
void space_settle(struct space *s, bool ok);
void space_recheck(struct space *s, struct store_snap *snap);

/* ID of a reservation in a buffer of RESERVATION_ID_SIZE. */
struct str addr_reservation(char buf[RESERVATION_ID_SIZE], struct str net, struct ip ip);
struct str subnet_reservation(char buf[RESERVATION_ID_SIZE], struct cidr c);
struct str vni_reservation(char buf[RESERVATION_ID_SIZE], uint64_t vni);

/* addr_split - "addr/<network>/<address>". */
bool addr_split(struct str reservation, struct str *ret_net, struct ip *ret_ip);
