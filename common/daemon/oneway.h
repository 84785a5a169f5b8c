/*
 * oneway.h - datagrams between two daemons of one host: an nng PAIR0 socket at ipc://<run>/<name>; nothing is answered.
 *
 * For traffic that brings its own acknowledgements (Raft between raftd and gatewayd): a message costs one hop instead
 * of a round trip. What finds no room, or no peer, is dropped, and so is what a dying peer had not read.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "common/util/err.h"
#include "common/util/str.h"

#define ONEWAY_MSG_MAX (4u << 20)
#define ONEWAY_QUEUE_BYTES (16u << 20) /* that the peer has not taken yet */

struct oneway;

typedef void oneway_fn(void *arg, struct str msg); /* msg lives during the call */
typedef void oneway_link_fn(void *arg, bool up);   /* the peer came or went; may be NULL */

/* oneway_listen - one peer at a time; messages of a peer that runs as neither @only nor root are dropped. */
int oneway_listen(struct oneway **ret, sd_event *loop, const char *run_dir, const char *name, uid_t only, oneway_fn *fn,
                  oneway_link_fn *link, void *arg, struct err *e);

/* oneway_dial - the other end; dials in the background and again after each loss. */
int oneway_dial(struct oneway **ret, sd_event *loop, const char *run_dir, const char *name, uid_t only, oneway_fn *fn,
                oneway_link_fn *link, void *arg, struct err *e);

/* oneway_send - front and body are one message; false: dropped. Never blocks. */
bool oneway_send(struct oneway *o, struct str front, struct str body);

/* oneway_cork - what is sent from now on goes out together at oneway_uncork(), soon. */
void oneway_cork(struct oneway *o);
void oneway_uncork(struct oneway *o);

struct oneway *oneway_free(struct oneway *o);
