/*
 * images.h - the node's image store: <state>/images/{index.json,configs/,layers/,sizes/,tmp/}.
 *
 * A layer is unpacked once, under its diff id, and shared by every image and every container that has it. Heavy work
 * runs in worker processes (image_worker.h), two at a time; the index changes only here, after the work is complete.
 */
#pragma once

#include <jansson.h>
#include <systemd/sd-event.h>

#include "common/daemon/rpc.h"
#include "common/proto/msg_agentd.h"

struct images;

typedef bool images_in_use_fn(void *arg, const char *image_id);

struct images_conf {
    const char *state_dir, *run_dir;
    const char *insecure_registries; /* blank-separated; registries on loopback always are */
    const char *self;                /* program to run as the worker */
    uint64_t layer_max;              /* bytes of an unpacked layer; 0: any number */
    images_in_use_fn *in_use;
    void *arg;
};

int images_open(struct images **ret, sd_event *loop, const struct images_conf *conf, struct err *e);
struct images *images_close(struct images *im);

/*
 * images_want - the image a task asks for, fetched when it must be.
 *
 * A local image is used at once if it was asked for by id or digest, or came from an archive. One that was pulled by
 * tag is looked up in its registry again; if that fails, the local one is used.
 *
 * Returns 0 with *ret_img (given: json_decref) when it is there, 1 when fn will be called later (never before this
 * returns) unless *ret_want is dropped with images_unwant().
 */
struct image_want;
typedef void image_ready_fn(void *arg, json_t *img, const struct err *e);
int images_want(struct images *im, struct str ref, struct str auth, image_ready_fn *fn, void *arg, json_t **ret_img,
                struct image_want **ret_want);
void images_unwant(struct image_want *w);

/* images_by_id - given, or NULL. */
json_t *images_by_id(struct images *im, const char *id);

/* images_config - the parsed configuration of an image (borrowed; cached). NULL when it cannot be read. */
json_t *images_config(struct images *im, json_t *img, struct err *e);

/* images_lowerdir - the overlayfs option value for an image's layers, top first, relative to images_layer_dir(). */
void images_lowerdir(struct images *im, json_t *img, struct buf *out);
int images_layer_dirfd(const struct images *im);

size_t images_count(const struct images *im);

/* The operations of msg_agentd.h. */
void images_op_load(struct images *im, struct rpc_call *c, const struct agent_image_load *req);
void images_op_pull(struct images *im, struct rpc_call *c, const struct agent_image_ref *req);
void images_op_list(struct images *im, struct rpc_call *c);
void images_op_inspect(struct images *im, struct rpc_call *c, const struct agent_image_ref *req);
void images_op_remove(struct images *im, struct rpc_call *c, const struct agent_image_ref *req);
void images_op_tag(struct images *im, struct rpc_call *c, const struct agent_image_tag *req);
void images_op_resolve(struct images *im, struct rpc_call *c, const struct agent_image_ref *req);
