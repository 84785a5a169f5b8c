/*
 * /secrets and /configs: list, create, inspect, update of labels, remove; and what services ask of them.
 *
 * They differ in one thing: a secret's payload is a document of its own in the secret map, which apid can write and not
 * read. So whether an update repeats the payload is asked of dispatcherd, with a digest.
 */
#include <stdio.h>

#include "apid/api_resources.h"
#include "apid/api_secrets.h"
#include "common/proto/msg_dispatcherd.h"
#include "common/util/base64.h"
#include "common/util/check.h"
#include "common/util/crypto.h"
#include "common/util/id.h"

#define USERS_MAX 20 /* services that a refusal names */

struct sort {
    enum kind kind;
    enum index name_ix, user_ix;
    const struct obj_type *type, *spec;
    const char *word;
};
static const struct sort secret_sort = { KIND_SECRET, IX_SECRET_NAME,   IX_SERVICE_SECRET,
                                         &obj_secret, &obj_secret_spec, "secret" };
static const struct sort config_sort = { KIND_CONFIG, IX_CONFIG_NAME,   IX_SERVICE_CONFIG,
                                         &obj_config, &obj_config_spec, "config" };

static const char *text(json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key)) ?: "";
}

/* ---- reading ---- */

static void list_objects(struct req *r, const struct sort *s)
{
    static const char *const known[] = { "id", "name", "names", "label", NULL };
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct filters *f = arena_alloc(&r->arena, sizeof *f);
    struct store_iter it;
    bool any = false;

    CHECK(f);
    if (api_snap(r, &snap, NULL) < 0 || api_filters(r, f, known) < 0)
        return;
    buf_putc(&r->out, '[');
    for (store_each(snap, s->kind, &it); store_next(&it);) {
        struct str name = { NULL, 0 }, labels = { NULL, 0 };
        (void)mp_get_str(it.doc, "Spec.Name", &name);
        (void)mp_path(it.doc, "Spec.Labels", &labels);
        if (!filters_prefix(f, "id", it.id) || !filters_prefix(f, "name", name) || !filters_exact(f, "names", name) ||
            !filters_labels(f, "label", labels))
            continue;
        buf_puts(&r->out, any ? "," : "");
        any = true;
        if (api_emit(r, s->type, it.doc, (struct str){ NULL, 0 }) < 0) {
            store_iter_done(&it);
            return;
        }
    }
    buf_puts(&r->out, "]\n");
    api_reply(r, 200);
}

static void inspect_object(struct req *r, const struct sort *s)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct str doc;

    if (api_snap(r, &snap, NULL) < 0 || api_find(r, snap, s->kind, r->params[0], NULL, &doc) < 0 ||
        api_emit(r, s->type, doc, (struct str){ NULL, 0 }) < 0)
        return;
    buf_putc(&r->out, '\n');
    api_reply(r, 200);
}

/* ---- one change on its way ---- */

struct change {
    const struct sort *s;
    json_t *spec;
    struct buf packed;      /* the spec; a secret's without Data */
    struct buf data;        /* of the payload; a secret's: wiped */
    struct buf payload_doc; /* a secret's document in the secret map: wiped */
    bool has_data;
    char id[ID_SIZE];
    uint64_t version; /* updates: what the client saw */
};

static void wipe(struct buf *b)
{
    if (b->p)
        crypto_wipe(b->p, b->cap);
    buf_done(b);
}

static void change_free(void *p)
{
    struct change *c = p;
    json_t *data = json_object_get(c->spec, "Data");

    if (data && c->s->kind == KIND_SECRET)
        crypto_wipe((char *)json_string_value(data), json_string_length(data));
    json_decref(c->spec);
    buf_done(&c->packed);
    wipe(&c->data);
    wipe(&c->payload_doc);
    free(c);
}

static struct change *change_new(struct req *r, const struct sort *s)
{
    json_t *spec = api_body(r, s->spec);

    if (!spec)
        return NULL;
    struct change *c = calloc(1, sizeof *c);
    CHECK(c);
    c->s = s;
    c->spec = spec;
    r->data = c;
    r->free_data = change_free;
    return c;
}

/* Of what the tables and rules refuse, Docker's front end refuses what it cannot read, its manager the rest. */
static void refuse_spec(struct req *r, const struct err *e)
{
    if (strncmp(e->msg, "illegal base64", 14) == 0)
        api_error(r, 400, "invalid JSON: %s", e->msg);
    else if (strstr(e->msg, ": must be")) /* a path, and what our tables say */
        api_error(r, 400, "%s", e->msg);
    else
        api_rpc_error(r, RPC_INVALID, "%s", e->msg);
}

static int check_driver(struct req *r, json_t *spec)
{
    json_t *driver = json_object_get(spec, "Driver");

    if (!json_is_object(driver))
        return 0;
    if (!*text(driver, "Name"))
        return api_rpc_refuse(r, RPC_INVALID, "secret driver must have a name");
    return api_rpc_refuse(r, RPC_INVALID,
                          "secret driver \"%s\": plugin \"%s\" not found: this version of microswarm has no plugins",
                          text(driver, "Name"), text(driver, "Name"));
}

static int take_data(struct req *r, struct change *c)
{
    json_t *data = json_object_get(c->spec, "Data");

    c->has_data = json_is_string(data) && json_string_length(data) > 0;
    if (!c->has_data)
        return 0;
    if (!buf_reserve(&c->data, json_string_length(data)) || /* never moved: no copy stays behind */
        !base64_take((struct str){ json_string_value(data), json_string_length(data) }, &c->data))
        return api_refuse(r, 400, "invalid JSON: illegal base64 data at input byte 0");
    return 0;
}

static int pack_spec(struct req *r, struct change *c)
{
    struct err e = ERR_INIT;

    if (!json_object_get(c->spec, "Labels"))
        json_object_set_new(c->spec, "Labels", json_object());
    if (obj_check(c->s->spec, c->spec, &e) < 0) {
        refuse_spec(r, &e);
        return -1;
    }
    if (c->s->kind == KIND_SECRET) {
        json_t *data = json_object_get(c->spec, "Data");
        if (data)
            crypto_wipe((char *)json_string_value(data), json_string_length(data));
        json_object_del(c->spec, "Data");
    }
    if (obj_pack(c->s->spec, c->spec, &c->packed, &e) == 0)
        return 0;
    api_fail(r, &e);
    return -1;
}

/* ---- create ---- */

static void pack_payload(struct change *c)
{
    if (c->s->kind != KIND_SECRET || !buf_reserve(&c->payload_doc, c->data.n + 128))
        return;
    mp_map(&c->payload_doc, 2);
    mp_kv_cstr(&c->payload_doc, "ID", c->id);
    mp_cstr(&c->payload_doc, "Data");
    mp_bin(&c->payload_doc, buf_str(&c->data));
}

static int attempt_create(struct req *r, struct txn *t, struct err *e)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct change *c = r->data;
    struct buf b = BUF_INIT;
    struct str other, doc;

    (void)e;
    if (api_snap(r, &snap, NULL) < 0)
        return -1;
    if (r->write.uncertain && store_get(snap, c->s->kind, str_from(c->id), &doc) == 0)
        return 0;
    if (store_find_name(snap, c->s->name_ix, str_from(text(c->spec, "Name")), &other) == 0)
        return api_rpc_refuse(r, RPC_EXISTS, "%s %s already exists", c->s->word, text(c->spec, "Name"));
    mp_map(&b, 2);
    mp_kv_cstr(&b, "ID", c->id);
    mp_kv_raw(&b, "Spec", buf_str(&c->packed));
    txn_create(t, c->s->kind, str_from(c->id), txn_doc(t, &b));
    if (c->payload_doc.n)
        txn_create(t, KIND_SECRET_DATA, str_from(c->id), buf_str(&c->payload_doc));
    buf_done(&b);
    return 1;
}

static void created(struct req *r, uint64_t revision)
{
    struct change *c = r->data;

    (void)revision;
    buf_clear(&r->out);
    buf_printf(&r->out, "{\"ID\":\"%s\"}\n", c->id);
    api_reply(r, 201);
}

static void create(struct req *r, const struct sort *s)
{
    struct store_snap *snap = NULL;
    struct err e = ERR_INIT;

    r->body_is_secret = s->kind == KIND_SECRET;
    if (api_snap(r, &snap, NULL) < 0)
        return;
    store_end(snap);
    struct change *c = change_new(r, s);
    if (!c)
        return;
    json_t *data = json_object_get(c->spec, "Data");
    /* Without a payload the rule for its size is not asked. */
    if (obj_check(s->spec, c->spec, &e) < 0) {
        refuse_spec(r, &e);
        return;
    }
    if (s->kind == KIND_SECRET && check_driver(r, c->spec) < 0)
        return;
    if (!json_is_string(data) || json_string_length(data) == 0) {
        api_rpc_error(r, RPC_INVALID, "%s data must be larger than 0 and less than %d bytes", s->word,
                      s->kind == KIND_SECRET ? 512000 : 1024000);
        return;
    }
    id_new(c->id);
    if (take_data(r, c) < 0 || pack_spec(r, c) < 0)
        return;
    pack_payload(c);
    api_write(r, attempt_create, created);
}

/* ---- update ---- */

static int refuse_change(struct req *r)
{
    return api_rpc_refuse(r, RPC_INVALID, "only updates to Labels are allowed");
}

/* new_spec - what is stored, with the labels of the request. */
static int new_spec(struct change *c, struct str doc, struct buf *out, struct err *e)
{
    struct str old = { NULL, 0 }, labels = { NULL, 0 };
    struct buf patch = BUF_INIT;

    (void)mp_path(doc, "Spec", &old);
    (void)mp_find(buf_str(&c->packed), "Labels", &labels);
    mp_map(&patch, 1);
    if (labels.n)
        mp_kv_raw(&patch, "Labels", labels);
    else {
        mp_cstr(&patch, "Labels");
        mp_map(&patch, 0);
    }
    int rc = mp_merge(out, old, buf_str(&patch), e);
    buf_done(&patch);
    return rc;
}

static struct str stored_data(struct str doc)
{
    struct str span;
    struct mp_val v;

    if (!mp_path(doc, "Spec.Data", &span))
        return STR("");
    struct mp_cursor c = mp_cursor(span);
    return mp_next(&c, &v) == 0 && v.type == MP_BIN ? v.s : STR("");
}

static int attempt_update(struct req *r, struct txn *t, struct err *e)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct change *c = r->data;
    struct buf spec = BUF_INIT, b = BUF_INIT;
    struct str doc, id = str_from(c->id), now = { NULL, 0 };
    uint64_t version = 0;
    int rc = 1;

    if (api_snap(r, &snap, NULL) < 0)
        return -1;
    if (store_get(snap, c->s->kind, id, &doc) < 0)
        return api_refuse(r, 404, "%s " STR_FMT " not found", c->s->word, STR_ARG(r->params[0]));
    if (new_spec(c, doc, &spec, e) < 0) {
        api_fail(r, e);
        rc = -1;
        goto out;
    }
    (void)mp_get_u64(doc, "Version.Index", &version);
    (void)mp_path(doc, "Spec", &now);
    if (version != c->version) {
        rc = r->write.uncertain && str_eq(now, buf_str(&spec)) ? 0 : api_out_of_sequence(r);
        goto out;
    }
    if (!str_is(text_at(doc, "Spec.Name"), text(c->spec, "Name")) ||
        (c->has_data && c->s->kind == KIND_CONFIG && !str_eq(stored_data(doc), buf_str(&c->data)))) {
        rc = refuse_change(r);
        goto out;
    }
    mp_map(&b, 1);
    mp_kv_raw(&b, "Spec", buf_str(&spec));
    txn_require_version(t, c->s->kind, id, version);
    txn_update(t, c->s->kind, id, txn_doc(t, &b));
out:
    buf_done(&b);
    buf_done(&spec);
    return rc;
}

static void updated(struct req *r, uint64_t revision)
{
    (void)revision;
    api_reply_empty(r, 200);
}

static void compared(struct req *r, const void *rep, const struct err *e)
{
    const struct disp_secret_is_reply *is = rep;

    if (!is)
        api_error(r, e->code == ERR_NOT_FOUND ? 404 : 503, "the secret's content could not be compared: %s", e->msg);
    else if (!is->Same)
        (void)refuse_change(r);
    else
        api_write(r, attempt_update, updated);
}

static void compare_secret(struct req *r, struct change *c)
{
    uint8_t nonce[32];
    uint8_t digest[CRYPTO_HASH];
    struct err e = ERR_INIT;

    /* Seldom asked, and only of managers: not before there is something to ask. */
    if (!api.dispatcherd && rpc_client_open(&api.dispatcherd, daemon_loop(), daemon_run_dir(), "dispatcherd", &e) < 0) {
        api_fail(r, &e);
        return;
    }
    random_bytes(nonce, sizeof nonce);
    crypto_hmac_sha256((struct str){ (char *)nonce, sizeof nonce }, buf_str(&c->data), digest);
    struct disp_secret_is q = { .ID = str_from(c->id),
                                .Nonce = { (char *)nonce, sizeof nonce },
                                .Digest = { (char *)digest, sizeof digest } };
    api_call(r, api.dispatcherd, &op_disp_secret_is, &q, API_AGENT_DEADLINE_MS, compared);
}

/* A data field that no create would accept cannot be what is stored. */
static void update(struct req *r, const struct sort *s)
{
    struct store_snap *snap = NULL;
    struct err e = ERR_INIT;
    uint64_t version;
    struct str id, doc;

    r->body_is_secret = s->kind == KIND_SECRET;
    if (query_version(&r->query, s->word, &version, &e) < 0) {
        api_fail(r, &e);
        return;
    }
    struct change *c = change_new(r, s);
    if (!c || api_snap(r, &snap, NULL) < 0)
        return;
    bool found = api_find(r, snap, s->kind, r->params[0], &id, &doc) == 0;
    bool fits = found && str_copy(c->id, sizeof c->id, id);
    bool same_name = found && str_is(text_at(doc, "Spec.Name"), text(c->spec, "Name"));
    store_end(snap);
    if (!found)
        return;
    c->version = version;
    if (!fits || !same_name) {
        (void)refuse_change(r);
        return;
    }
    if (take_data(r, c) < 0)
        return;
    json_object_del(c->spec, "Driver"); /* as Docker: looked at by nobody */
    if (pack_spec(r, c) < 0)
        return;
    if (s->kind == KIND_SECRET && c->has_data)
        compare_secret(r, c);
    else
        api_write(r, attempt_update, updated);
}

/* ---- remove ---- */

static int by_text(const void *a, const void *b)
{
    return str_cmp(*(const struct str *)a, *(const struct str *)b);
}

/* refuse_used - "secret 'x' is in use by the following services: a, b". */
static int refuse_used(struct req *r, struct store_snap *snap, const struct sort *s, struct str id, struct str name)
{
    struct str v[USERS_MAX], last = { NULL, 0 };
    struct buf b = BUF_INIT;
    struct store_iter it;
    size_t n = 0, all = 0;

    for (store_each_index(snap, s->user_ix, id, &it); store_next(&it);) {
        if (str_eq(it.id, last)) /* under two targets */
            continue;
        last = it.id;
        if (all++ < USERS_MAX)
            v[n++] = text_at(it.doc, "Spec.Name");
    }
    if (all == 0)
        return 0;
    qsort(v, n, sizeof *v, by_text);
    for (size_t i = 0; i < n; i++)
        buf_printf(&b, "%s" STR_FMT, i ? ", " : "", STR_ARG(v[i]));
    if (all > n)
        buf_puts(&b, ", ...");
    api_rpc_error(r, RPC_INVALID, "%s '" STR_FMT "' is in use by the following service%s: %s", s->word, STR_ARG(name),
                  all > 1 ? "s" : "", buf_cstr(&b));
    buf_done(&b);
    return -1;
}

struct removal {
    const struct sort *s;
    char id[ID_SIZE];
};

static int attempt_remove(struct req *r, struct txn *t, struct err *e)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct removal *m = r->data;
    struct str id = str_from(m->id), doc;

    (void)e;
    if (api_snap(r, &snap, NULL) < 0)
        return -1;
    if (store_get(snap, m->s->kind, id, &doc) < 0) {
        if (r->write.uncertain)
            return 0;
        return api_refuse(r, 404, "%s " STR_FMT " not found", m->s->word, STR_ARG(r->params[0]));
    }
    if (refuse_used(r, snap, m->s, id, text_at(doc, "Spec.Name")) < 0)
        return -1;
    txn_require_unreferenced(t, m->s->kind, id);
    txn_delete(t, m->s->kind, id);
    if (m->s->kind == KIND_SECRET)
        txn_purge(t, KIND_SECRET_DATA, id);
    return 1;
}

static void removed(struct req *r, uint64_t revision)
{
    (void)revision;
    api_reply_empty(r, 204);
}

static void remove_object(struct req *r, const struct sort *s)
{
    struct store_snap *snap = NULL;
    struct removal *m = calloc(1, sizeof *m);
    struct str id;

    CHECK(m);
    m->s = s;
    r->data = m;
    r->free_data = free;
    if (api_snap(r, &snap, NULL) < 0)
        return;
    bool found = api_find(r, snap, s->kind, r->params[0], &id, NULL) == 0 && str_copy(m->id, sizeof m->id, id);
    store_end(snap);
    if (found)
        api_write(r, attempt_remove, removed);
}

/* ---- what services ask ---- */

static int require_all(struct req *r, struct store_snap *snap, struct txn *t, json_t *refs, const struct sort *s,
                       const char *id_key, const char *name_key)
{
    struct buf missing = BUF_INIT;
    size_t i, n = 0;
    json_t *o;

    json_array_foreach (refs, i, o) {
        struct str doc, id = arena_str(&t->arena, str_from(text(o, id_key)));
        if (store_get(snap, s->kind, id, &doc) == 0)
            txn_require_exists(t, s->kind, id);
        else
            buf_printf(&missing, "%s%s", n++ ? ", " : "", text(o, name_key));
    }
    if (n)
        api_rpc_error(r, RPC_INVALID, "%s%s not found: %s", s->word, n > 1 ? "s" : "", buf_cstr(&missing));
    buf_done(&missing);
    return n ? -1 : 0;
}

int secrets_require(struct req *r, struct store_snap *snap, struct txn *t, json_t *spec)
{
    json_t *c = json_object_get(json_object_get(spec, "TaskTemplate"), "ContainerSpec");

    if (require_all(r, snap, t, json_object_get(c, "Secrets"), &secret_sort, "SecretID", "SecretName") < 0)
        return -1;
    return require_all(r, snap, t, json_object_get(c, "Configs"), &config_sort, "ConfigID", "ConfigName");
}

/* ---- routes ---- */

void secrets_list(struct req *r)
{
    list_objects(r, &secret_sort);
}

void secrets_inspect(struct req *r)
{
    inspect_object(r, &secret_sort);
}

void secrets_create(struct req *r)
{
    create(r, &secret_sort);
}

void secrets_update(struct req *r)
{
    update(r, &secret_sort);
}

void secrets_remove(struct req *r)
{
    remove_object(r, &secret_sort);
}

void configs_list(struct req *r)
{
    list_objects(r, &config_sort);
}

void configs_inspect(struct req *r)
{
    inspect_object(r, &config_sort);
}

void configs_create(struct req *r)
{
    create(r, &config_sort);
}

void configs_update(struct req *r)
{
    update(r, &config_sort);
}

void configs_remove(struct req *r)
{
    remove_object(r, &config_sort);
}
