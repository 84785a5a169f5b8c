/* api_secrets.h - what services ask of secrets and configs. */
#pragma once

#include "apid/api.h"

/* secrets_require - those that the spec refers to (by ID) are there, and will be when the transaction is applied.
 * Answers and returns -1: "secret not found: a", "configs not found: a, b". */
int secrets_require(struct req *r, struct store_snap *snap, struct txn *t, json_t *spec);
