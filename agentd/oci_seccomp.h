/*
 * oci_seccomp.h - system call filters, compiled here once instead of by the runtime at each start.
 *
 * libseccomp takes about 10 ms to compile Docker's default policy, half of a container's start; crun accepts the
 * finished BPF program as base64 text in the annotation run.oci.seccomp_bpf_data.
 */
#pragma once

#include <stdint.h>

#include "common/util/err.h"
#include "common/util/str.h"

/* seccomp_default - the default policy for a container with these capabilities (bit n: capability n).
 * @ret borrowed from a small cache that lives as long as the process. */
int seccomp_default(uint64_t caps, struct str *ret, struct err *e);

/* seccomp_custom - a policy in the JSON form of the OCI runtime specification or of Docker's --security-opt. Appended.
 */
int seccomp_custom(struct str json, uint64_t caps, struct buf *b64, struct err *e);

void seccomp_forget(void); /* frees the cache */

/* capability_by_name - "CAP_NET_ADMIN", "net_admin"; -1 when unknown. capability_name - NULL outside the range. */
int capability_by_name(struct str name);
const char *capability_name(int cap);
#define CAPABILITY_COUNT 41
