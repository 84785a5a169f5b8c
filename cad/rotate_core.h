/* rotate_core.h - which nodes have come over to a new root, and when the move is over. Pure. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define ROTATE_BEHIND INT64_MAX
#define ROTATE_GRACE_NS 30000000000ll

struct rotate_view {
    bool down;         /* nobody waits for it: it comes over when it is back */
    bool issued;       /* the last certificate that was issued to it is of the new root */
    int64_t issued_ns; /* when */
    bool reports;      /* it says whose certificate it uses */
    bool uses;         /* ... which is the new root's */
};

/* rotate_node - 0: it has come over; ROTATE_BEHIND: it has not; else the moment from which on its certificate counts
 * as installed, even if nobody has said so: a node's own account comes with its next session, and may be late. */
int64_t rotate_node(const struct rotate_view *v, int64_t now_ns);

/* rotate_over - is it, with so many nodes behind? */
bool rotate_over(unsigned long behind, int64_t deadline_ns, int64_t now_ns);
