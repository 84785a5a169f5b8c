/*
 * disp_told.h - what each node was told of which task: some 46 bytes a task, of which there may be a million.
 *
 * A task stands for itself by 64 bits of hash of its ID, which is random: that two of a million tasks share them is
 * expected once in forty million swarms.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/util/str.h"

struct disp_peer;
struct told_entry {
    uint64_t task, print;   /* print: of what was said (disp_print()) */
    struct disp_peer *peer; /* NULL: not in use */
    uint32_t next;          /* with the same bucket, or free; indexes from 1, 0 ends a list */
    uint32_t before, after; /* of the same peer */
};
struct told {
    struct told_entry *v;
    uint32_t *buckets;
    uint32_t n, cap, nbuckets, unused;
    size_t count;
};

void told_init(struct told *t);
void told_clear(struct told *t); /* those that peers have as their first are forgotten, too: the caller's affair */
void told_done(struct told *t);

uint64_t told_task(struct str id);

/* told_first - somebody who was told of this task; told_next - another one. NULL: nobody (else). */
struct told_entry *told_first(const struct told *t, uint64_t task);
struct told_entry *told_next(const struct told *t, const struct told_entry *e);

/* told_of - what this peer was told of it; NULL: nothing. told_put - makes it, if need be; moves others in memory. */
struct told_entry *told_of(const struct told *t, uint64_t task, const struct disp_peer *p);
struct told_entry *told_put(struct told *t, uint64_t task, struct disp_peer *p);
void told_del(struct told *t, struct told_entry *e);
void told_del_all(struct told *t, struct disp_peer *p);

void told_check(const struct told *t);
