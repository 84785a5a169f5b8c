/*
 * disp_payload.c - secrets and configs go to the nodes that run a task that uses them, and to nobody else.
 *
 * The content is sealed for the asking agentd straight out of the map: this process holds no copy in the clear.
 */

#include "common/daemon/box.h"
#include "common/daemon/log.h"
#include "common/util/cleanup.h"
#include "common/util/crypto.h"
#include "dispatcherd/disp_pass.h"

#define LOGGED 100u /* refusals that are logged; later one in so many */

DEFINE_CLEANUP(struct store_snap *, store_end)

static struct str text(struct str doc, const char *path)
{
    struct str s;
    return mp_get_str(doc, path, &s) ? s : STR("");
}

/* bytes - a bin (or text) within a document; n is 0 when there is none. */
static struct str bytes(struct str doc, const char *path)
{
    struct str span;
    struct mp_val v;
    if (!mp_path(doc, path, &span))
        return STR("");
    struct mp_cursor c = mp_cursor(span);
    return mp_next(&c, &v) == 0 && (v.type == MP_BIN || v.type == MP_STR) ? v.s : STR("");
}

/* refers - does one of the maps in this list have the ID? */
static bool refers(struct str spec, const char *list, const char *key, struct str id)
{
    struct str span, one;
    struct mp_val head;
    if (!mp_path(spec, list, &span))
        return false;
    struct mp_cursor c = mp_cursor(span);
    if (mp_next(&c, &head) != 0 || head.type != MP_ARRAY)
        return false;
    for (size_t i = 0; i < head.n && mp_span(&c, &one) == 0; i++)
        if (str_eq(text(one, key), id))
            return true;
    return false;
}

/* may_have - the task is this node's, is to run, has not ended, and its own specification names the object. */
static bool may_have(struct store_snap *snap, const struct disp_payload *q, struct str node, bool secret)
{
    struct str task, spec;
    if (store_get(snap, KIND_TASK, q->TaskID, &task) != 0 || !str_eq(text(task, "NodeID"), node))
        return false;
    enum task_state want = task_state_parse(text(task, "DesiredState")),
                    is = task_state_parse(text(task, "Status.State"));
    if (want > TASK_COMPLETE || is < TASK_ASSIGNED || is > TASK_RUNNING)
        return false;
    if (store_get(snap, KIND_TASKSPEC, text(task, "TaskSpecID"), &spec) != 0)
        return false;
    return secret ? refers(spec, "Spec.ContainerSpec.Secrets", "SecretID", q->ID)
                  : refers(spec, "Spec.ContainerSpec.Configs", "ConfigID", q->ID);
}

static int strmap_of(struct str map, struct strmap *ret, struct arena *a)
{
    struct mp_cursor c = mp_cursor(map);
    struct mp_val head, k, v;
    *ret = (struct strmap){ NULL, 0 };
    if (map.n == 0 || mp_next(&c, &head) != 0 || head.type != MP_MAP)
        return 0;
    struct strpair *p = arena_array(a, head.n + 1, sizeof *p);
    for (size_t i = 0; p && i < head.n; i++) {
        if (mp_next(&c, &k) != 0 || mp_next(&c, &v) != 0 || k.type != MP_STR || v.type != MP_STR)
            return -1;
        p[i] = (struct strpair){ k.s, v.s };
    }
    *ret = (struct strmap){ p, p ? head.n : 0 };
    return p ? 0 : -1;
}

static int seal(struct str data, struct str key, struct arena *a, struct str *ret, struct err *e)
{
    _cleanup_(buf_done) struct buf b = BUF_INIT;
    int r = box_seal(data, key, &b, e);
    if (r == 0 && !(*ret = arena_str(a, buf_str(&b))).p)
        r = err_set(e, ERR_NOMEM, "out of memory");
    return r;
}

int disp_payload(struct disp_keeper *k, const struct disp_payload *q, struct str node, struct arena *a,
                 struct disp_payload_reply *ret, struct err *e)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct str owner, doc, data, labels = { NULL, 0 }, holder;
    bool secret = str_is(q->Kind, "secret");
    if (!secret && !str_is(q->Kind, "config"))
        return err_set(e, ERR_INVALID, "there are secrets and configs");
    if (!k->active)
        return err_set(e, ERR_UNAVAILABLE, "this manager does not lead");
    if (!disp_peer_of_call(k, q->SessionID, node, &owner))
        return err_set(e, ERR_GONE, DISP_NO_SESSION);
    int r = store_begin(controller_store(k->controller), &snap, e);
    if (r < 0)
        return r;
    if (!may_have(snap, q, owner, secret)) {
        if (k->refused < LOGGED || k->refused % LOGGED == 0) /* a node may ask as often as it likes */
            log_warn("node=" STR_FMT " task=" STR_FMT ": refused " STR_FMT " " STR_FMT, STR_ARG(owner),
                     STR_ARG(q->TaskID), STR_ARG(q->Kind), STR_ARG(q->ID));
        return err_set(e, ERR_DENIED, "no task of this node that is to run uses this " STR_FMT, STR_ARG(q->Kind));
    }
    if (store_get(snap, secret ? KIND_SECRET : KIND_CONFIG, q->ID, &doc) != 0)
        return err_set(e, ERR_NOT_FOUND, STR_FMT " not found", STR_ARG(q->Kind));
    if (secret && store_get(snap, KIND_SECRET_DATA, q->ID, &holder) != 0)
        return err_set(e, ERR_NOT_FOUND, "secret " STR_FMT " has no content", STR_ARG(text(doc, "Spec.Name")));
    data = secret ? bytes(holder, "Data") : bytes(doc, "Spec.Data");
    (void)mp_path(doc, "Spec.Labels", &labels);
    /* The snapshot ends before the answer is encoded. */
    *ret = (struct disp_payload_reply){ .Name = arena_str(a, text(doc, "Spec.Name")),
                                        .Templating = arena_str(a, text(doc, "Spec.Templating.Name")) };
    if (labels.n && strmap_of(arena_str(a, labels), &ret->Labels, a) < 0)
        ret->Labels = (struct strmap){ NULL, 0 };
    return seal(data, q->Key, a, &ret->Box, e);
}

int disp_secret_is(struct disp_keeper *k, const struct disp_secret_is *q, struct disp_secret_is_reply *ret,
                   struct err *e)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    uint8_t digest[CRYPTO_HASH];
    struct str holder;
    int r = store_begin(controller_store(k->controller), &snap, e);
    if (r < 0)
        return r;
    if (store_get(snap, KIND_SECRET_DATA, q->ID, &holder) != 0)
        return err_set(e, ERR_NOT_FOUND, "secret not found");
    struct str data = bytes(holder, "Data");
    crypto_hmac_sha256(q->Nonce, data, digest);
    ret->Same = q->Digest.n == sizeof digest && crypto_same(digest, q->Digest.p, sizeof digest);
    crypto_wipe(digest, sizeof digest);
    return 0;
}
