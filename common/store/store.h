/*
 * store.h - reading the state map: consistent snapshots at memory speed, and what changed since a revision.
 *
 * A snapshot pins old pages, so hold it for one pass only. All text that comes out points into the map and is valid
 * until the snapshot ends. The library notices when raftd has made a new map and opens it at the next snapshot.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "common/store/layout.h"
#include "common/util/err.h"
#include "common/util/str.h"

struct store;
struct store_snap;

/* store_open - once per process and run folder (LMDB's locks are the process's). @run_dir as daemon_run_dir();
 * @secrets: open the second map as well. Succeeds before raftd has made the map: then store_begin() returns
 * -ERR_UNAVAILABLE. */
int store_open(struct store **ret, const char *run_dir, bool secrets, struct err *e);
struct store *store_close(struct store *s);

/* store_begin - one snapshot at a time per struct store. -ERR_UNAVAILABLE while there is no map. */
int store_begin(struct store *s, struct store_snap **ret, struct err *e);
struct store_snap *store_end(struct store_snap *snap); /* NULL is fine; returns NULL */

struct store_meta {
    uint64_t revision;
    uint64_t term;
    bool initialized; /* this node is in a swarm */
    bool leader;      /* raftd leads, and its own entry of `term` has been applied: controllers may act */
    struct str node_id, cluster_id, leader_id;
};
int store_meta(struct store_snap *snap, struct store_meta *ret, struct err *e);

/* The Raft group, as the newest applied membership entry says. */
struct store_member {
    uint64_t raft_id;
    struct str node_id, addr; /* addr: host:port; may be empty */
    bool learner;
};
#define STORE_MEMBERS_MAX 16u
/* store_members - how many there are; 0 when this node is in no group (and in maps of older versions). */
size_t store_members(struct store_snap *snap, struct store_member ret[STORE_MEMBERS_MAX]);

/* store_get - 0, or -ERR_NOT_FOUND. The document is a msgpack map. */
int store_get(struct store_snap *snap, enum kind kind, struct str id, struct str *ret_doc);

/* Iteration: `for (store_each(snap, KIND_TASK, &it); store_next(&it); )` use it.id, it.doc. Ends by itself; call
 * store_iter_done() only when leaving early. */
struct store_iter {
    struct str id, doc;
    struct store_snap *snap;
    enum kind kind;
    void *cursor;
    bool by_index, prefix, started;
    struct str key;
    char keybuf[600];
};
void store_each(struct store_snap *snap, enum kind kind, struct store_iter *it);
void store_each_prefix(struct store_snap *snap, enum kind kind, struct str id_prefix, struct store_iter *it);
void store_each_index(struct store_snap *snap, enum index ix, struct str key, struct store_iter *it);
bool store_next(struct store_iter *it);
void store_iter_done(struct store_iter *it);

uint64_t store_count(struct store_snap *snap, enum kind kind);

/* store_find_name - the id behind an exact name (case folded as the index says); 0 or -ERR_NOT_FOUND. */
int store_find_name(struct store_snap *snap, enum index ix, struct str name, struct str *ret_id);

/* store_resolve - Docker's look-up: full ID, else exact name (ix; IX_COUNT: none), else unique ID prefix.
 * -ERR_NOT_FOUND, or -ERR_INVALID "<kind> <ref> is ambiguous (N matches found)". */
int store_resolve(struct store_snap *snap, enum kind kind, enum index ix, struct str ref, struct str *ret_id,
                  struct str *ret_doc, struct err *e);

/* store_changes - calls fn for each key touched after revision `since`, oldest first, repeats possible.
 * -ERR_GONE: the log no longer reaches back, or `since` is older than a map that replaced the one it was read from;
 * read everything again. op is 'c'reate, 'u'pdate or 'd'elete. */
typedef void store_change_fn(void *arg, uint64_t revision, enum kind kind, struct str id, char op);
int store_changes(struct store_snap *snap, uint64_t since, store_change_fn *fn, void *arg, struct err *e);

/* store_log_start - the earliest `since` that store_changes() can tell about. */
uint64_t store_log_start(struct store_snap *snap);

/* Wake-ups: fn is called from the loop when raftd may have a newer revision (or new role). Repeated wakes are merged.
 * Also called once soon after opening and after each reconnect, so that nothing is missed. */
struct store_wake;
typedef void store_wake_fn(void *arg);
int store_wake_open(struct store_wake **ret, sd_event *loop, const char *run_dir, store_wake_fn *fn, void *arg,
                    struct err *e);
struct store_wake *store_wake_free(struct store_wake *w);
