/* layout.c - the tables of kinds and indexes, and how a document becomes index keys. */
#include "common/store/layout.h"

#include <stdio.h>

#include "common/proto/mp.h"

const struct kind_info kind_info[KIND_COUNT] = {
    [KIND_CLUSTER] = { "cluster", false, "Spec", false },
    [KIND_NODE] = { "node", false, "Spec", false },
    [KIND_SERVICE] = { "service", false, "Spec", true },
    [KIND_TASKSPEC] = { "taskspec", false, NULL, false },
    [KIND_TASK] = { "task", false, NULL, false },
    [KIND_NETWORK] = { "network", false, "Spec", true },
    [KIND_SECRET] = { "secret", false, "Spec", true },
    [KIND_CONFIG] = { "config", false, "Spec", true },
    [KIND_RESERVATION] = { "reservation", false, NULL, false },
    [KIND_SECRET_DATA] = { "secret_data", true, NULL, false },
    [KIND_CREDENTIAL] = { "credential", true, NULL, false },
};

#define NO_REF KIND_COUNT
const struct index_info index_info[IX_COUNT] = {
    [IX_SERVICE_NAME] = { "service_name", KIND_SERVICE, "Spec.Name", true, true, NO_REF },
    [IX_NODE_HOSTNAME] = { "node_hostname", KIND_NODE, "Description.Hostname", true, false, NO_REF },
    [IX_NETWORK_NAME] = { "network_name", KIND_NETWORK, "Spec.Name", true, true, NO_REF },
    [IX_SECRET_NAME] = { "secret_name", KIND_SECRET, "Spec.Name", true, true, NO_REF },
    [IX_CONFIG_NAME] = { "config_name", KIND_CONFIG, "Spec.Name", true, true, NO_REF },
    [IX_TASK_SERVICE] = { "task_service", KIND_TASK, "ServiceID", false, false, NO_REF },
    [IX_TASK_NODE] = { "task_node", KIND_TASK, "NodeID", false, false, NO_REF },
    [IX_TASK_NETWORK] = { "task_network", KIND_TASK, "NetworksAttachments[].NetworkID", false, false, NO_REF },
    [IX_TASKSPEC_SERVICE] = { "taskspec_service", KIND_TASKSPEC, "ServiceID", false, false, NO_REF },
    [IX_RESERVATION_OWNER] = { "reservation_owner", KIND_RESERVATION, "OwnerID", false, false, NO_REF },
    [IX_SERVICE_NETWORK] = { "service_network", KIND_SERVICE, "Spec.TaskTemplate.Networks[].Target", false, false,
                             KIND_NETWORK },
    [IX_SERVICE_SECRET] = { "service_secret", KIND_SERVICE, "Spec.TaskTemplate.ContainerSpec.Secrets[].SecretID", false,
                            false, KIND_SECRET },
    [IX_SERVICE_CONFIG] = { "service_config", KIND_SERVICE, "Spec.TaskTemplate.ContainerSpec.Configs[].ConfigID", false,
                            false, KIND_CONFIG },
};

enum kind kind_by_name(const char *name, size_t len)
{
    for (enum kind k = 0; k < KIND_COUNT; k++)
        if (strlen(kind_info[k].name) == len && memcmp(kind_info[k].name, name, len) == 0)
            return k;
    return KIND_COUNT;
}

bool store_id_ok(struct str id)
{
    return id.n > 0 && id.n <= STORE_ID_MAX && memchr(id.p, 0, id.n) == NULL;
}

bool store_is_cads(struct str credential_id)
{
    static const char *const ids[] = { STORE_CA_KEY_ID, STORE_CA_NEXT_ID, STORE_TOKENS_ID, STORE_UNLOCK_KEY_ID,
                                       STORE_NETWORK_KEYS_ID };

    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        if (str_is(credential_id, ids[i]))
            return true;
    return false;
}

/* ---- keys ---- */

/* A key while it is made: the first bytes, and the hash of all of them. */
struct keymaker {
    char *buf;
    size_t n;
    uint64_t hash;
    bool fold;
};

#define FNV_START 0xcbf29ce484222325ull
#define FNV_PRIME 0x100000001b3ull
#define KEY_CUT (STORE_KEY_MAX - 17)

static void key_put(struct keymaker *k, struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c == 0)
            c = 1;
        else if (k->fold && c >= 'A' && c <= 'Z')
            c += 'a' - 'A';
        k->hash = (k->hash ^ c) * FNV_PRIME;
        if (k->n < STORE_KEY_MAX)
            k->buf[k->n] = (char)c;
        k->n++;
    }
}

static struct str key_end(struct keymaker *k)
{
    if (k->n > STORE_KEY_MAX) {
        static const char hex[] = "0123456789abcdef";
        k->buf[KEY_CUT] = '~';
        for (unsigned i = 0; i < 16; i++)
            k->buf[KEY_CUT + 1 + i] = hex[k->hash >> (60 - 4 * i) & 15];
        k->n = STORE_KEY_MAX;
    }
    return (struct str){ k->buf, k->n };
}

struct str index_key(enum index ix, struct str value, char buf[STORE_KEY_MAX])
{
    struct keymaker k = { .buf = buf, .hash = FNV_START, .fold = index_info[ix].fold_case };
    key_put(&k, value);
    return key_end(&k);
}

struct str index_entry(struct str key, struct str id, char buf[STORE_ENTRY_MAX])
{
    size_t kn = key.n < STORE_KEY_MAX ? key.n : STORE_KEY_MAX;
    size_t in = id.n < STORE_ID_MAX ? id.n : STORE_ID_MAX;
    if (kn)
        memmove(buf, key.p, kn);
    buf[kn] = 0;
    if (in)
        memcpy(buf + kn + 1, id.p, in);
    return (struct str){ buf, kn + 1 + in };
}

struct str index_entry_id(struct str entry)
{
    const char *zero = entry.n ? memchr(entry.p, 0, entry.n) : NULL;
    if (zero == NULL)
        return (struct str){ NULL, 0 };
    return (struct str){ zero + 1, entry.n - (size_t)(zero + 1 - entry.p) };
}

/* ---- documents ---- */

struct walk {
    enum index ix;
    index_key_fn *fn;
    void *arg;
    size_t count;
};

static void walk_value(struct walk *w, struct str value)
{
    char buf[STORE_KEY_MAX];
    struct str text;
    if (!mp_as_str(value, &text) || text.n == 0)
        return;
    w->fn(w->arg, index_key(w->ix, text, buf));
    w->count++;
}

/* walk_path - `path` is a chain of names; "[]" behind a name means each element of the array there. */
static void walk_path(struct walk *w, struct str at, const char *path)
{
    while (*path != 0) {
        char name[64];
        size_t n = strcspn(path, ".[");
        if (n >= sizeof name)
            return;
        memcpy(name, path, n);
        name[n] = 0;
        if (!mp_find(at, name, &at))
            return;
        path += n;
        if (path[0] == '[') {
            struct mp_cursor c = mp_cursor(at);
            struct mp_val head;
            struct str item;
            path += path[2] == '.' ? 3 : 2;
            if (mp_next(&c, &head) != 0 || head.type != MP_ARRAY)
                return;
            for (size_t i = 0; i < head.n && mp_span(&c, &item) == 0; i++)
                walk_path(w, item, path);
            return;
        }
        if (*path == '.')
            path++;
    }
    walk_value(w, at);
}

size_t index_keys(enum index ix, struct str doc, index_key_fn *fn, void *arg)
{
    struct walk w = { .ix = ix, .fn = fn, .arg = arg };
    walk_path(&w, doc, index_info[ix].path);
    return w.count;
}

const char *index_db_name(enum index ix, char buf[STORE_DB_NAME_MAX])
{
    snprintf(buf, STORE_DB_NAME_MAX, "ix:%s", index_info[ix].name);
    return buf;
}

/* ---- change log ---- */

void log_key(uint64_t revision, uint32_t seq, uint8_t key[STORE_LOG_KEY])
{
    for (unsigned i = 0; i < 8; i++)
        key[i] = (uint8_t)(revision >> (56 - 8 * i));
    for (unsigned i = 0; i < 4; i++)
        key[8 + i] = (uint8_t)(seq >> (24 - 8 * i));
}

uint64_t log_key_revision(const uint8_t key[STORE_LOG_KEY])
{
    uint64_t v = 0;
    for (unsigned i = 0; i < 8; i++)
        v = v << 8 | key[i];
    return v;
}

void log_put(struct buf *b, enum kind kind, struct str id, char op)
{
    uint8_t head[3] = { (uint8_t)kind, (uint8_t)op, (uint8_t)id.n };
    _Static_assert(STORE_ID_MAX <= UINT8_MAX, "the length of an ID is one byte");
    buf_put(b, head, sizeof head);
    buf_put(b, id.p, head[2]);
}

bool log_next(struct str *record, enum kind *ret_kind, struct str *ret_id, char *ret_op)
{
    const uint8_t *p = (const uint8_t *)record->p;
    if (record->n < 3 || record->n - 3 < p[2] || p[2] == 0)
        return false;
    *ret_kind = p[0];
    *ret_op = (char)p[1];
    *ret_id = (struct str){ record->p + 3, p[2] };
    *record = (struct str){ record->p + 3 + p[2], record->n - 3 - p[2] };
    return true;
}
