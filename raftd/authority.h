/*
 * authority.h - which daemon may change what.
 *
 * A peer is known by its user (the kernel says so, it can't be forged), a user by the settings user_<daemon>. The table
 * says, kind by kind, who may create, change which top-level fields, and remove. Whatever is not in it is refused.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "common/daemon/conf.h"
#include "common/proto/msg_raftd.h"
#include "common/store/layout.h"
#include "raftd/entry.h"

enum who { WHO_APID, WHO_CAD, WHO_ORCHESTRATORD, WHO_ALLOCATORD, WHO_SCHEDULERD, WHO_DISPATCHERD, WHO_COUNT };

extern const char *const who_name[WHO_COUNT];

struct authority {
    uid_t uid[WHO_COUNT]; /* (uid_t)-1: no such user */
};

/* authority_who - a bit for each daemon that runs as this user; 0: nobody we know. */
unsigned authority_who(const struct authority *a, uid_t uid);

/* authority_names - "apid", or "apid+cad" when they share a user. */
const char *authority_names(unsigned who, char buf[128]);

/* authority_parse - the other way round; 0 when a name is unknown. */
unsigned authority_parse(struct str names);

/* authority_check - one change; -ERR_DENIED says who may not do what. The change has passed entry_check(). */
int authority_check(unsigned who, const struct txn_change *ch, struct err *e);

/* Appends the document as it is stored now; -ERR_NOT_FOUND. */
typedef int authority_read_fn(void *arg, enum kind kind, struct str id, struct buf *out, struct err *e);

/*
 * authority_check_txn - every change of a transaction, and the one right that depends on what is stored:
 *
 * orchestratord may put a service back to its PreviousSpec (an automatic rollback): Spec and TaskSpecID become exactly
 * the stored PreviousSpec and PreviousTaskSpecID, and those are removed, in one change; the transaction requires the
 * Version of the service that was looked at, so that this still holds when it is applied.
 */
int authority_check_txn(unsigned who, const struct entry *en, authority_read_fn *read, void *arg, struct err *e);
