/* rotate_core.c - see rotate_core.h. */
#include "cad/rotate_core.h"

int64_t rotate_node(const struct rotate_view *v, int64_t now_ns)
{
    if (v->down)
        return 0;
    if (!v->issued)
        return ROTATE_BEHIND;
    if (!v->reports || v->uses || now_ns >= v->issued_ns + ROTATE_GRACE_NS)
        return 0;
    return v->issued_ns > now_ns ? now_ns + ROTATE_GRACE_NS : v->issued_ns + ROTATE_GRACE_NS;
}

bool rotate_over(unsigned long behind, int64_t deadline_ns, int64_t now_ns)
{
    return behind == 0 || now_ns >= deadline_ns;
}
