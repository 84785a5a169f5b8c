/* authority_test.c - who may what; everything else is refused. */
#include "raftd/authority.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/store/layout.h"

static const struct authority table = { .uid = { 101, 102, 103, 104, 105, (uid_t)-1 } };

static int check_fields(unsigned who, const char *op, const char *kind, const char *const *fields, struct err *e)
{
    struct buf b = BUF_INIT;
    size_t n = 0;
    while (fields != NULL && fields[n] != NULL)
        n++;
    mp_map(&b, n);
    for (size_t i = 0; i < n; i++)
        mp_kv_u64(&b, fields[i], 1); /* cppcheck-suppress nullPointer ; n is 0 then */
    struct txn_change ch = { str_from(op), str_from(kind), STR("x"), buf_str(&b) };
    int r = authority_check(who, &ch, e);
    buf_done(&b);
    return r;
}

static int check_one(unsigned who, const char *op, const char *kind, const char *field)
{
    const char *fields[] = { field, NULL };
    struct err e;
    return check_fields(who, op, kind, fields, &e);
}

static void test_peers(void **state)
{
    (void)state;
    char names[128];
    struct authority shared = { .uid = { 5, 5, 6, 7, 8, 9 } };
    assert_int_equal(authority_who(&table, 101), 1u << WHO_APID);
    assert_int_equal(authority_who(&table, 105), 1u << WHO_SCHEDULERD);
    assert_int_equal(authority_who(&table, 0), 0);
    assert_int_equal(authority_who(&table, (uid_t)-1), 0); /* an unknown user is not a missing setting */
    assert_int_equal(authority_who(&shared, 5), 1u << WHO_APID | 1u << WHO_CAD);
    assert_string_equal(authority_names(authority_who(&shared, 5), names), "apid+cad");
    assert_string_equal(authority_names(0, names), "a stranger");
}

static void test_scheduler(void **state)
{
    (void)state;
    unsigned who = 1u << WHO_SCHEDULERD;
    assert_int_equal(check_one(who, "update", "task", "NodeID"), 0);
    assert_int_equal(check_one(who, "merge", "task", "Status"), 0);
    assert_int_equal(check_one(who, "update", "task", "DesiredState"), -ERR_DENIED);
    assert_int_equal(check_one(who, "create", "task", "NodeID"), -ERR_DENIED);
    assert_int_equal(check_one(who, "delete", "task", NULL), -ERR_DENIED);
    assert_int_equal(check_one(who, "update", "service", "Spec"), -ERR_DENIED);
    assert_int_equal(check_one(who, "update", "secret_data", "Data"), -ERR_DENIED);
    assert_int_equal(check_one(who, "purge", "credential", NULL), -ERR_DENIED);
}

static void test_messages(void **state)
{
    (void)state;
    struct err e;
    const char *fields[] = { "NodeID", "DesiredState", NULL };
    assert_int_equal(check_fields(1u << WHO_SCHEDULERD, "update", "task", fields, &e), -ERR_DENIED);
    assert_string_equal(e.msg, "schedulerd may not change task.DesiredState");
    assert_int_equal(check_fields(1u << WHO_DISPATCHERD, "delete", "service", NULL, &e), -ERR_DENIED);
    assert_string_equal(e.msg, "dispatcherd may not remove a service");
}

static void test_field_names_are_whole(void **state)
{
    (void)state;
    unsigned who = 1u << WHO_SCHEDULERD;
    assert_int_equal(check_one(who, "update", "task", "Node"), -ERR_DENIED);
    assert_int_equal(check_one(who, "update", "task", ""), -ERR_DENIED);
    assert_int_equal(check_one(who, "update", "task", " "), -ERR_DENIED);
    assert_int_equal(check_one(who, "update", "task", "NodeID Status"), -ERR_DENIED);
    assert_int_equal(check_one(who, "update", "task", "nodeid"), -ERR_DENIED);
}

static void test_turns(void **state)
{
    struct err e;
    struct txn_change ch = { STR("create"), STR("reservation"), STR("turn/schedulerd"), STR("\x80") };
    (void)state;
    for (unsigned w = 0; w < WHO_COUNT; w++) {
        assert_int_equal(authority_check(1u << w, &ch, &e), w == WHO_SCHEDULERD ? 0 : -ERR_DENIED);
    }
    ch.Op = STR("purge");
    assert_int_equal(authority_check(1u << WHO_ALLOCATORD, &ch, &e), -ERR_DENIED);
    assert_int_equal(authority_check(1u << WHO_SCHEDULERD, &ch, &e), 0);
    ch.ID = STR("turn/");
    assert_int_equal(authority_check(1u << WHO_SCHEDULERD, &ch, &e), -ERR_DENIED);
    ch.ID = STR("port/tcp/80");
    assert_int_equal(authority_check(1u << WHO_SCHEDULERD, &ch, &e), -ERR_DENIED);
}

static void test_stranger(void **state)
{
    (void)state;
    static const char *const ops[] = { "create", "update", "merge", "delete", "purge" };
    for (enum kind k = 0; k < KIND_COUNT; k++)
        for (unsigned i = 0; i < 5; i++)
            assert_int_equal(check_one(0, ops[i], kind_info[k].name, "Spec"), -ERR_DENIED);
}

/* Secrets: payloads come from users through apid, keys from cad; nobody else writes either. */
static void test_secret_kinds(void **state)
{
    (void)state;
    for (unsigned w = 0; w < WHO_COUNT; w++) {
        bool payload = w == WHO_APID, credential = w == WHO_APID || w == WHO_CAD;
        assert_int_equal(check_one(1u << w, "create", "secret_data", "Data"), payload ? 0 : -ERR_DENIED);
        assert_int_equal(check_one(1u << w, "create", "credential", "Data"), credential ? 0 : -ERR_DENIED);
        assert_int_equal(check_one(1u << w, "update", "cluster", "RootCA"), w == WHO_CAD ? 0 : -ERR_DENIED);
    }
}

static void test_cads_credentials(void **state)
{
    (void)state;
    static const char *const ops[] = { "create", "delete", "purge" };
    static const char *const ids[] = { STORE_CA_KEY_ID, STORE_CA_NEXT_ID, STORE_TOKENS_ID, STORE_UNLOCK_KEY_ID };
    struct err e;
    for (unsigned w = 0; w < WHO_COUNT; w++)
        for (unsigned i = 0; i < 12; i++) {
            struct txn_change ch = { str_from(ops[i % 3]), STR("credential"), str_from(ids[i / 3]), { 0, 0 } };
            assert_int_equal(authority_check(1u << w, &ch, &e), w == WHO_CAD ? 0 : -ERR_DENIED);
        }
    assert_int_equal(check_one(1u << WHO_ORCHESTRATORD, "purge", "credential", NULL), 0);
}

/* ---- the automatic rollback ---- */

struct stored {
    const char *previous, *taskspec; /* NULL: none */
    uint64_t version;
};

static void put_spec(struct buf *b, const char *key, const char *image)
{
    mp_cstr(b, key);
    mp_map(b, 1);
    mp_kv_cstr(b, "Image", image);
}

static int read_service(void *arg, enum kind kind, struct str id, struct buf *out, struct err *e)
{
    const struct stored *s = arg;
    if (kind != KIND_SERVICE || !str_is(id, "s1"))
        return err_set(e, ERR_NOT_FOUND, "not found");
    mp_map(out, 3u + (s->previous != NULL) + (s->taskspec != NULL));
    mp_cstr(out, "Version");
    mp_map(out, 1);
    mp_kv_u64(out, "Index", s->version);
    put_spec(out, "Spec", "bad");
    mp_kv_cstr(out, "TaskSpecID", "t2");
    if (s->previous)
        put_spec(out, "PreviousSpec", s->previous);
    if (s->taskspec)
        mp_kv_cstr(out, "PreviousTaskSpecID", s->taskspec);
    return 0;
}

struct rollback {
    const char *image, *taskspec, *extra; /* NULL: not in the change */
    bool keep_previous, keep_taskspec;    /* not removed */
    bool twice;                           /* Spec again, as something else */
    uint64_t version;                     /* required; 0: none */
    const char *op;
};

static int roll_back(unsigned who, const struct rollback *rb, struct stored *stored)
{
    struct buf b = BUF_INIT;
    struct err e = ERR_INIT;
    mp_map(&b, (rb->image != NULL) + (rb->taskspec != NULL) + (rb->extra != NULL) + !rb->keep_previous +
                   !rb->keep_taskspec + rb->twice);
    if (rb->image)
        put_spec(&b, "Spec", rb->image);
    if (rb->twice)
        put_spec(&b, "Spec", "evil");
    if (rb->taskspec)
        mp_kv_cstr(&b, "TaskSpecID", rb->taskspec);
    if (!rb->keep_previous) {
        mp_cstr(&b, "PreviousSpec");
        mp_nil(&b);
    }
    if (!rb->keep_taskspec) {
        mp_cstr(&b, "PreviousTaskSpecID");
        mp_nil(&b);
    }
    if (rb->extra)
        mp_kv_cstr(&b, rb->extra, "x");
    struct txn_require q = { STR("service"), STR("s1"), STR("version"), rb->version };
    struct txn_change ch = { str_from(rb->op ? rb->op : "update"), STR("service"), STR("s1"), buf_str(&b) };
    struct entry en = { .Requires = { &q, rb->version != 0 }, .Changes = { &ch, 1 } };
    int r = authority_check_txn(who, &en, read_service, stored, &e);
    buf_done(&b);
    return r;
}

static void test_rollback(void **state)
{
    struct stored s = { "good", "t1", 7 }, first = { NULL, NULL, 7 }, no_taskspec = { "good", NULL, 7 };
    const unsigned who = 1u << WHO_ORCHESTRATORD;
    static const struct rollback right = { .image = "good", .taskspec = "t1", .version = 7 };
    static const struct rollback wrong[] = {
        { .image = "evil", .taskspec = "t1", .version = 7 },
        { .image = "good", .taskspec = "t9", .version = 7 },
        { .taskspec = "t1", .version = 7 },
        { .image = "good", .version = 7 },
        { .image = "good", .taskspec = "t1", .version = 7, .keep_previous = true },
        { .image = "good", .taskspec = "t1", .version = 7, .keep_taskspec = true },
        { .image = "good", .taskspec = "t1", .version = 7, .twice = true },
        { .image = "good", .taskspec = "t1", .version = 7, .extra = "Endpoint" },
        { .image = "good", .taskspec = "t1", .version = 7, .op = "merge" },
        { .image = "good", .taskspec = "t1", .version = 7, .op = "create" },
        { .image = "good", .taskspec = "t1", .version = 6 }, /* looked at another one */
        { .image = "good", .taskspec = "t1" },
    };
    struct rollback with_status = right;
    (void)state;
    assert_int_equal(roll_back(who, &right, &s), 0);
    with_status.extra = "UpdateStatus";
    assert_int_equal(roll_back(who, &with_status, &s), 0);
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(roll_back(who, &wrong[i], &s), -ERR_DENIED);
    assert_int_equal(roll_back(who, &right, &first), -ERR_DENIED);
    assert_int_equal(roll_back(who, &right, &no_taskspec), -ERR_DENIED);
    for (unsigned w = 0; w < WHO_COUNT; w++)
        if (w != WHO_APID && w != WHO_ORCHESTRATORD)
            assert_int_equal(roll_back(1u << w, &right, &s), -ERR_DENIED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_peers),        cmocka_unit_test(test_scheduler),
        cmocka_unit_test(test_messages),     cmocka_unit_test(test_field_names_are_whole),
        cmocka_unit_test(test_turns),        cmocka_unit_test(test_stranger),
        cmocka_unit_test(test_secret_kinds), cmocka_unit_test(test_cads_credentials),
        cmocka_unit_test(test_rollback),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
