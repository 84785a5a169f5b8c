/* raft_log_fuzz.c - a segment that was changed in any way: refused, or of no importance; never a crash or a hang. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/util/check.h"
#include "raftd/raft_log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[64], whole[1 << 17];
static size_t len;

static int seg_open(int flags)
{
    char path[128];
    snprintf(path, sizeof path, "%s/log/seg-0000000001", dir);
    int fd = open(path, flags | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    return fd;
}

static void clean(void)
{
    struct err e;
    (void)raft_log_erase(dir, &e);
    rmdir(dir);
}

static void make(void)
{
    static const struct raft_log_identity id = { "c", "n", 1 };
    struct raft_hard_state hs = { 1, 1 };
    struct raft_log_entry en[20];
    struct err e;
    snprintf(dir, sizeof dir, "/tmp/raft-log-fuzz-XXXXXX");
    CHECK(mkdtemp(dir) != NULL);
    for (unsigned i = 0; i < 20; i++)
        en[i] = (struct raft_log_entry){ i + 1, 1, RAFT_ENTRY_DATA, STR("entry") };
    CHECK(raft_log_create_with(dir, &id, &hs, en, 20, &e) == 0);
    atexit(clean);
    int fd = seg_open(O_RDONLY);
    len = (size_t)read(fd, whole, sizeof whole);
    CHECK(len > 4096 && len < sizeof whole);
    close(fd);
}

/* The first two bytes say where, the others what: laid over what is there, or, from an odd place, in its stead. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char copy[sizeof whole];
    struct raft_log *l = NULL;
    struct err e = ERR_INIT;
    if (dir[0] == 0)
        make();
    memcpy(copy, whole, len);
    size_t at = size >= 2 ? (size_t)data[0] << 8 | data[1] : 0;
    for (size_t i = 2; i < size && at + i - 2 < len; i++)
        copy[at + i - 2] = (char)(at % 2 ? data[i] : (uint8_t)copy[at + i - 2] ^ data[i]);
    int fd = seg_open(O_WRONLY | O_TRUNC);
    CHECK(write(fd, copy, len) == (ssize_t)len);
    close(fd);
    int r = raft_log_open(&l, dir, &e);
    CHECK(r == 0 || r == -ERR_CORRUPT);
    raft_log_close(l);
    return 0;
}
