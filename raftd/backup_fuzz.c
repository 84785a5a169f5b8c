/* backup_fuzz.c - a backup from anywhere: refused, or cut short; never believed, and never more than it says. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/util/check.h"
#include "raftd/backup.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char dir[] = "/tmp/backup-fuzz-XXXXXX";
    static bool made;
    struct restore *r = NULL;
    struct err e = ERR_INIT;
    size_t step = size > 0 ? 1 + data[0] : 1, at = 0;
    if (!made)
        CHECK(mkdtemp(dir) != NULL);
    made = true;
    if (size > 10 && data[10] > 10)
        return 0; /* scrypt as it may be asked for takes a second */
    CHECK(restore_begin(&r, dir, STR("p"), &e) == 0);
    for (int rc = 0; rc == 0 && at < size; at += step)
        rc = restore_put(r, at, (struct str){ (const char *)data + at, size - at < step ? size - at : step }, &e);
    CHECK(restore_finish(r, STR("n"), STR(""), &e) < 0);
    restore_free(r);
    rmdir(dir);
    made = false;
    memcpy(dir + strlen(dir) - 6, "XXXXXX", 6);
    return 0;
}
