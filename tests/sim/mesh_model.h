/*
 * mesh_model.h - what a node's kernel would hold of the swarm's networks, as lines of text: from dispatcherd's answers,
 * or straight from the store, by other code than dispatcherd's.
 */
#pragma once

#include "common/proto/msg_dispatcherd.h"
#include "common/store/store.h"
#include "common/util/table.h"

struct mesh_model {
    uint64_t seq;
    struct table lines; /* key -> char[MODEL_TEXT]: "n/<network>", "s/<network>/<id>", "e/…", "node/<id>", "key/…" */
};
#define MODEL_TEXT 480

void model_init(struct mesh_model *m);
void model_clear(struct mesh_model *m);
void model_done(struct mesh_model *m);

/* model_ask - Networks and Seq of the next question, from the arena. */
void model_ask(const struct mesh_model *m, struct arena *a, struct disp_network *ret);

/* model_apply - CHECKs that the answer makes sense for what is there. */
void model_apply(struct mesh_model *m, const struct disp_network_reply *r);

/* model_from_store - what should be there. */
void model_from_store(struct mesh_model *m, struct store_snap *snap, struct str node);

/* model_differs - NULL, or one difference, as text that lives until the next call. */
const char *model_differs(const struct mesh_model *is, const struct mesh_model *should);

/* model_sends - would the node open new connections to this task? */
bool model_sends(const struct mesh_model *m, struct str task);
