/* agent_db.c - see agent_db.h. The one file here that knows LMDB. */
#include "agentd/agent_db.h"

#include <errno.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>

#include "agentd/fsutil.h"
#include "common/proto/msg_dispatcherd.h"

const struct field agent_record_fields[] = {
    FIELD_RAW_REQ(struct agent_record, Assignment),
    FIELD_U64(struct agent_record, Phase, 0, 100),
    FIELD_U64(struct agent_record, State, 0, 10000),
    FIELD_U64(struct agent_record, Desired, 0, 10000),
    FIELD_BOOL(struct agent_record, Removed),
    FIELD_BOOL(struct agent_record, HasContainer),
    FIELD_BOOL(struct agent_record, HasAuth),
    FIELD_STR(struct agent_record, Message, 0, 1024),
    FIELD_STR(struct agent_record, Err, 0, 4096),
    FIELD_I64(struct agent_record, Since, INT64_MIN, INT64_MAX),
    FIELD_I64(struct agent_record, ExitCode, INT64_MIN, INT64_MAX),
    FIELD_U64(struct agent_record, PID, 0, UINT32_MAX),
    FIELD_U64(struct agent_record, MonitorPID, 0, UINT32_MAX),
    FIELD_STR(struct agent_record, ContainerID, 0, 80),
    FIELD_STR(struct agent_record, ImageID, 0, 80),
    FIELD_STRS(struct agent_record, Volumes, 10000),
    FIELD_STRS(struct agent_record, Addresses, 10000),
    FIELD_LIST(struct agent_record, Ports, task_port_fields, struct task_port, 10000),
    FIELD_END,
};

struct agent_db {
    MDB_env *env;
    MDB_dbi dbi;
    MDB_txn *txn; /* the gathering one, or NULL */
};

static int db_err(struct err *e, int r, const char *what)
{
    return err_set(e,
                   r == ENOSPC || r == MDB_MAP_FULL         ? ERR_IO
                   : r == MDB_CORRUPTED || r == MDB_INVALID ? ERR_CORRUPT
                                                            : ERR_IO,
                   "agent database: %s: %s", what, mdb_strerror(r));
}

int agent_db_open(struct agent_db **ret, const char *state_dir, struct err *e)
{
    char path[600];
    MDB_txn *txn = NULL;
    struct agent_db *db = calloc(1, sizeof *db);
    if (!db)
        return err_set(e, ERR_NOMEM, "agent database: out of memory");
    snprintf(path, sizeof path, "%s/agent", state_dir);
    int r = fs_mkdirs(path, 0700, e);
    if (r < 0) {
        free(db);
        return r;
    }
    r = mdb_env_create(&db->env);
    if (r == 0)
        r = mdb_env_set_mapsize(db->env, 1ull << 30);
    /* the last commit may be lost with the power, not an older one; the containers are lost then, too */
    if (r == 0)
        r = mdb_env_open(db->env, path, MDB_NOMETASYNC | MDB_NOTLS, 0600);
    if (r == 0)
        r = mdb_txn_begin(db->env, NULL, 0, &txn);
    if (r == 0)
        r = mdb_dbi_open(txn, NULL, MDB_CREATE, &db->dbi);
    if (r == 0)
        r = mdb_txn_commit(txn);
    else if (txn)
        mdb_txn_abort(txn);
    if (r != 0) {
        r = db_err(e, r, path);
        agent_db_close(db);
        return r;
    }
    *ret = db;
    return 0;
}

struct agent_db *agent_db_close(struct agent_db *db)
{
    if (!db)
        return NULL;
    if (db->txn)
        mdb_txn_abort(db->txn);
    if (db->env)
        mdb_env_close(db->env);
    free(db);
    return NULL;
}

static int begin(struct agent_db *db, struct err *e)
{
    int r = db->txn ? 0 : mdb_txn_begin(db->env, NULL, 0, &db->txn);
    return r == 0 ? 0 : db_err(e, r, "begin");
}

int agent_db_put(struct agent_db *db, const char *task_id, struct str record, struct err *e)
{
    MDB_val k = { strlen(task_id), (void *)(uintptr_t)task_id }, v = { record.n, (void *)(uintptr_t)record.p };
    int r = begin(db, e);
    if (r < 0)
        return r;
    r = mdb_put(db->txn, db->dbi, &k, &v, 0);
    return r == 0 ? 0 : db_err(e, r, "put");
}

int agent_db_del(struct agent_db *db, const char *task_id, struct err *e)
{
    MDB_val k = { strlen(task_id), (void *)(uintptr_t)task_id };
    int r = begin(db, e);
    if (r < 0)
        return r;
    r = mdb_del(db->txn, db->dbi, &k, NULL);
    return r == 0 || r == MDB_NOTFOUND ? 0 : db_err(e, r, "delete");
}

int agent_db_commit(struct agent_db *db, struct err *e)
{
    if (!db->txn)
        return 0;
    int r = mdb_txn_commit(db->txn);
    db->txn = NULL;
    return r == 0 ? 0 : db_err(e, r, "commit");
}

int agent_db_each(struct agent_db *db, agent_db_fn *fn, void *arg, struct err *e)
{
    MDB_txn *txn = NULL;
    MDB_cursor *c = NULL;
    MDB_val k, v;
    int r = mdb_txn_begin(db->env, NULL, MDB_RDONLY, &txn);
    if (r == 0)
        r = mdb_cursor_open(txn, db->dbi, &c);
    while (r == 0 && (r = mdb_cursor_get(c, &k, &v, MDB_NEXT)) == 0)
        fn(arg, (struct str){ k.mv_data, k.mv_size }, (struct str){ v.mv_data, v.mv_size });
    if (c)
        mdb_cursor_close(c);
    if (txn)
        mdb_txn_abort(txn);
    return r == 0 || r == MDB_NOTFOUND ? 0 : db_err(e, r, "read");
}
