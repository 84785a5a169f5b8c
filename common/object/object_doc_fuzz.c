/* object_doc_fuzz.c - stored bytes: every view and every table copes with anything. The first byte picks the type. */
#include <stdlib.h>

#include "common/object/object.h"
#include "common/object/views.h"
#include "common/util/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct obj_type *const types[] = {
    &obj_service, &obj_task, &obj_node, &obj_cluster, &obj_network, &obj_secret, &obj_config, &obj_taskspec,
};
#define TYPES (sizeof types / sizeof types[0])

static void views(struct str doc)
{
    struct err e = ERR_INIT;
    struct arena a;
    struct view_service service;
    struct view_taskspec taskspec;
    struct view_task task;
    struct view_node node;
    struct view_cluster cluster;
    arena_init(&a, 1 << 20);
    if (view_service(doc, &service, &a, &e) == 0)
        (void)view_replicas(&service);
    if (view_taskspec(doc, &taskspec, &a, &e) == 0)
        (void)(view_restart_delay_ns(&taskspec.Spec.RestartPolicy) + view_stop_grace_ns(taskspec.Spec.ContainerSpec));
    if (view_task(doc, &task, &a, &e) == 0)
        (void)task_state_parse(task.DesiredState);
    (void)view_node(doc, &node, &a, &e);
    if (view_cluster(doc, &cluster, &a, &e) == 0)
        (void)view_history_limit(&cluster);
    arena_done(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err e = ERR_INIT;
    struct buf text = BUF_INIT;
    json_t *dom = NULL;
    if (size < 1)
        return 0;
    const struct obj_type *t = types[data[0] % TYPES];
    struct str doc = { (const char *)data + 1, size - 1 };
    views(doc);
    if (obj_write_json(t, doc, &text, &e) < 0)
        CHECK(text.n == 0);
    if (obj_unpack(t, doc, &dom, &e) == 0)
        json_decref(dom);
    buf_done(&text);
    return 0;
}
