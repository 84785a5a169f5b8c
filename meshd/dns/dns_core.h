/*
 * dns_core.h - what a container gets to hear for a question: names of the networks that it is on, from the netmap. No
 * I/O. The tests read its answers with ldns.
 *
 * On each of its networks, in their order, the first that knows the name answers (as Docker does):
 *   <service>, <alias>     the service's addresses; those of its usable tasks when it has none (dnsrr)
 *   tasks.<service>        all its usable tasks
 *   <service>.<slot>.<id>  that task
 *   its own host name      its own addresses
 *   any of these followed by "." and the network's name
 * and addresses backwards. A known name without addresses of the type asked for is an empty answer. What nobody knows
 * is for the outside's nameservers. Answers hold for DNS_TTL_S; several addresses come in a shuffled order.
 */
#pragma once

#include "meshd/netmap/netmap.h"

#define DNS_TTL_S 2u
#define DNS_UDP_MIN 512u  /* RFC 1035 §4.2.1: without EDNS */
#define DNS_UDP_MAX 1232u /* of our answers: passes any path unfragmented */
#define DNS_MESSAGE_MAX 65535u

/* A container's place in the world. */
struct dns_zone {
    const struct netmap *map;
    const char *task;     /* ID */
    const char *hostname; /* its own; "": none */
    size_t nnetworks;     /* in order; never the ingress network */
    const char (*networks)[ID_SIZE];
    bool single_inside; /* names without a dot are never asked outside: its resolver tries them with its search list */
    bool outside;       /* false: on internal networks only, nothing is asked outside */
};

enum dns_verdict {
    DNS_REPLY,   /* `out` has the answer */
    DNS_FORWARD, /* the outside's to answer */
    DNS_IGNORE,  /* not a question: no answer at all */
};

/*
 * dns_answer - to one question.
 *
 * @query  one message, any bytes
 * @tcp    no limit on the answer's size but DNS_MESSAGE_MAX; else what does not fit is left out and TC is set
 * @seed   any number: the order of addresses follows from it
 * @out    appended to
 */
enum dns_verdict dns_answer(const struct dns_zone *z, struct str query, bool tcp, uint32_t seed, struct arena *a,
                            struct buf *out);

#define DNS_SERVFAIL 2u
#define DNS_REFUSED 5u
/* dns_failure - the question back with a result code. */
void dns_failure(struct str query, unsigned rcode, struct buf *out);

/* dns_is_answer - has it the form of an answer to this very question (names compared without case)? The id does not
 * count. */
bool dns_is_answer(struct str query, struct str answer);

/* dns_try_next - does this answer of a nameserver mean that another one should be asked? */
bool dns_try_next(struct str answer);
