/*
 * sp.h - sockets that speak nng's protocols over ipc://, read and written by the loop itself.
 *
 * What goes over them is what nng sends (the SP header of eight bytes each way, then one byte 1 and the length before
 * each message; nng's own tools can be at the other end), but nng's library is not used: there a message wakes two to
 * three threads on its way in and one on its way out, which for a small request is most of what it costs.
 *
 * Everything is called on the loop. A pipe is one connection; its bytes are kept until the peer takes them.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "common/util/err.h"
#include "common/util/str.h"

/* The protocols' numbers, as they stand in the header. */
enum sp_proto { SP_PAIR = 0x10, SP_PUB = 0x20, SP_SUB = 0x21, SP_REQ = 0x30, SP_REP = 0x31 };

struct sp;
struct sp_pipe;

/* Each may be NULL but `msg`. Any of them may close pipes and free the socket. */
struct sp_ops {
    bool (*admit)(void *arg, uid_t uid);                       /* who is at the other end; false: it is hung up on */
    void (*up)(void *arg, struct sp_pipe *p);                  /* both headers were said */
    void (*msg)(void *arg, struct sp_pipe *p, struct str msg); /* msg lives during the call */
    void (*down)(void *arg, struct sp_pipe *p);                /* of one that was up; it is gone afterwards */
    void (*drained)(void *arg, struct sp_pipe *p);             /* all of what the peer had not taken, it has */
};

struct sp_conf {
    sd_event *loop;
    const char *path; /* of the Unix socket */
    enum sp_proto own;
    size_t msg_max;                      /* who sends a larger one is hung up on */
    unsigned retry_min_ms, retry_max_ms; /* of sp_dial(): between attempts, doubling */
    const struct sp_ops *ops;
    void *arg;
};

/* sp_listen - takes the place of a socket that is there; mode 0660. */
int sp_listen(struct sp **ret, const struct sp_conf *c, struct err *e);

/* sp_dial - one connection; made in the background, and again after each loss. */
int sp_dial(struct sp **ret, const struct sp_conf *c, struct err *e);
struct sp *sp_free(struct sp *s); /* without a call of `down` */

/* sp_send - head and body are one message, copied when they can't be written at once. Never blocks; a pipe that broke
 * is reported later, by `down`. */
void sp_send(struct sp_pipe *p, struct str head, struct str body);
size_t sp_unsent(const struct sp_pipe *p); /* bytes that wait for the peer */

/* sp_pause - its messages wait in the kernel, and then at the peer. What has been read already comes after resuming,
 * not during the call. */
void sp_pause(struct sp_pipe *p, bool pause);
void sp_hang_up(struct sp_pipe *p); /* `down` is called */

uid_t sp_uid(const struct sp_pipe *p);
pid_t sp_pid(const struct sp_pipe *p);
void sp_set(struct sp_pipe *p, void *data);
void *sp_get(const struct sp_pipe *p);

/* sp_each - the socket's pipes that are up, one after the other: NULL begins, and is the end. None may be closed
 * meanwhile. */
struct sp_pipe *sp_each(const struct sp *s, const struct sp_pipe *before);

/* For those who talk without a loop: the header of a protocol, and of a message of n bytes; the length in the latter,
 * false when it is none. */
#define SP_HELLO_BYTES 8u
#define SP_HEAD_BYTES 9u
void sp_hello(char ret[SP_HELLO_BYTES], enum sp_proto own);
void sp_head(char ret[SP_HEAD_BYTES], size_t n);
bool sp_head_read(const char head[SP_HEAD_BYTES], size_t max, size_t *ret_n);
