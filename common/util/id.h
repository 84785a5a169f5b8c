/* id.h - identifiers: 25 characters [0-9a-z], 129 random bits, as Docker's (swarmkit.md §1.1). */
#pragma once

#include "common/util/str.h"

#define ID_LEN 25
#define ID_SIZE (ID_LEN + 1)

/* id_new - a fresh identifier from the kernel's random source. */
void id_new(char id[ID_SIZE]);

/* id_from_bytes - the same from 17 given bytes, for tests and pure cores. */
void id_from_bytes(const uint8_t bytes[17], char id[ID_SIZE]);

/* random_bytes - from getrandom(2); aborts if the kernel has none. */
void random_bytes(void *p, size_t n);
