/* Texts that come from services and from inside images: users, passwd and group files, paths, names. */
#include "agentd/oci_seccomp.h"
#include "agentd/oci_spec.h"
#include "agentd/volumes.h"
#include "common/util/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct oci_user u;
    struct str all = { (const char *)data, size }, out;
    struct err e = ERR_INIT;
    struct arena a;
    struct tspec spec;
    const char *nl = size ? memchr(all.p, '\n', size) : NULL;
    struct str first = { all.p, nl ? (size_t)(nl - all.p) : size },
               rest = { nl ? nl + 1 : all.p, nl ? size - first.n - 1 : 0 };
    struct strs groups = { &first, 1 };
    arena_init(&a, 4u << 20);
    if (oci_user_resolve(first, &groups, rest, rest, &u, &e) == 0)
        CHECK(u.ngids <= OCI_GIDS_MAX);
    if (oci_path_clean(all, &a, &out, &e) == 0)
        CHECK(out.n >= 1 && out.p[0] == '/' && out.n <= size && !memmem(out.p, out.n, "/../", 4));
    (void)oci_signal(first);
    (void)capability_by_name(first);
    (void)volume_name_ok(first);
    (void)tspec_decode(all, &spec, &a, &e);
    arena_done(&a);
    return 0;
}
