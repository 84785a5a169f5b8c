/* apply_fuzz.c - any transaction that passes entry_check() applies as a whole or not at all, and takes itself back. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/util/check.h"
#include "raftd/entry.h"
#include "raftd/sm.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[] = "/tmp/apply-fuzz-XXXXXX";
static struct sm *sm;

static void remove_dir(void)
{
    static const char *const names[] = { "state/data.mdb",  "state/lock.mdb", "state", "secret/data.mdb",
                                         "secret/lock.mdb", "secret",         "" };
    char path[64];
    sm = sm_close(sm);
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        if (remove(path) < 0)
            continue;
    }
}

static void start(void)
{
    static const struct raft_log_identity id = { "c", "n", 1 };
    struct sm_conf c = { .secret_private = true, .secret_gid = (gid_t)-1, .map_bytes = 64u << 20 };
    struct err e, why;
    bool fresh;
    CHECK(mkdtemp(dir) != NULL);
    c.run_dir = dir;
    CHECK(sm_open(&sm, &c, &id, 1, UINT64_MAX, &fresh, &why, &e) == 0 && sm_publish(sm, &e) == 0);
    atexit(remove_dir);
}

/* The same entry twice in one batch that is then dropped: whatever it did, the map must stay usable. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err e, result;
    uint64_t revision;
    struct raft_log_entry le = { 1, 1, RAFT_ENTRY_DATA, { (const char *)data, size } };
    if (sm == NULL)
        start();
    CHECK(sm_begin(sm, &e) == 0);
    if (sm_apply(sm, &le, &result, &revision, &e) == 0) {
        CHECK(result.code == 0 || revision == 0);
        le.index = 2;
        (void)sm_apply(sm, &le, &result, &revision, &e);
    }
    sm_abort(sm);
    CHECK(sm_applied(sm) == 0 && sm_revision(sm) == 0);
    return 0;
}
