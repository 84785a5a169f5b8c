/*
 * inbox.h - the one bridge from nng's threads to the event loop.
 *
 * An nng callback posts its item; the loop runs item->fn. Posting takes a lock, appends and writes an eventfd: little
 * else of ours ever runs on an nng thread (rpc's step from sending to receiving). The list is intrusive, so posting
 * cannot fail.
 */
#pragma once

#include <systemd/sd-event.h>

#include "common/util/err.h"

struct inbox_item {
    struct inbox_item *next;
    void (*fn)(struct inbox_item *item);
};

/* inbox_ref - the process's inbox, attached to this loop; counted. One loop at a time. */
int inbox_ref(sd_event *loop, struct err *e);
void inbox_unref(void);

/* inbox_post - from any thread; the item must stay alive until its fn runs or inbox_forget(). */
void inbox_post(struct inbox_item *item);

/* inbox_forget - takes the item out again if it is waiting. */
void inbox_forget(struct inbox_item *item);
