/* id.h - identifiers: 25 characters [0-9a-z], 129 random bits, as Docker's (swarmkit.md §1.1). */
#pragma once

#include <stdbool.h>

#include "common/util/str.h"

#define ID_LEN 25
#define ID_SIZE (ID_LEN + 1)

/* id_new - a fresh identifier from the kernel's random source. */
void id_new(char id[ID_SIZE]);

/* id_from_bytes - the same from 17 given bytes, for tests and pure cores. */
void id_from_bytes(const uint8_t bytes[17], char id[ID_SIZE]);

/* id_ok - may the text become a file's name and part of a mount option: 1..64 of [0-9A-Za-z_.-], no dot in front. */
#define ID_TEXT_MAX 64
bool id_ok(struct str id);
bool id_char(char ch);

/* random_bytes - from getrandom(2); aborts if the kernel has none. */
void random_bytes(void *p, size_t n);
