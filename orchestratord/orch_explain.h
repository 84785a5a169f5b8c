/* orch_explain.h - why the tasks of a service are as they are, as JSON for the explain probe. */
#pragma once

#include "orchestratord/orch_core.h"
#include "orchestratord/orch_nodes.h"

struct orch_account {
    struct str service, name;
    struct str update_message;
    uint64_t iteration; /* of a job */
    const struct orch_service *svc;
    const struct orch_task *tasks; /* after orch_reconcile(), sorted by slot */
    size_t n;
    const struct orch_out *out;
    const struct orch_nodes *nodes;
    struct str task; /* only the slot that it is in; "": all */
};

#define ORCH_EXPLAIN_MAX                                                                                               \
    1000u /* tasks; of larger services, those are listed first about which there is something to say */

void orch_explain(const struct orch_account *a, struct buf *out);
