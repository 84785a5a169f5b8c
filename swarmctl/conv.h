/*
 * conv.h - flag texts to the JSON the API wants; pure except where a type reads a file or the caller's environment.
 *
 * Each is a struct flag_type for use in flag tables. The wording of the errors is what docker's users know.
 */
#pragma once

#include "swarmctl/flags.h"

extern const struct flag_type T_BOOL, T_STRING, T_STRINGS;
extern const struct flag_type T_UINT, T_UINT32, T_INT, T_FLOAT;
extern const struct flag_type T_DURATION;          /* nanoseconds */
extern const struct flag_type T_POSITIVE_DURATION; /* the same, refused below zero */
extern const struct flag_type T_BYTES;             /* "64m", "1GiB" */
extern const struct flag_type T_CPUS;              /* "0.5" -> 500000000 */
extern const struct flag_type T_LIST;              /* any text */
extern const struct flag_type T_LABELS;            /* k=v, k not empty and without blanks */
extern const struct flag_type T_ENVS;              /* k=v; k alone takes the caller's value */
extern const struct flag_type T_IPS, T_DOMAINS;
extern const struct flag_type T_HOSTS;   /* "name:ip" */
extern const struct flag_type T_GENERIC; /* kind=number */
extern const struct flag_type T_WORDS;   /* a string split as a shell does */
extern const struct flag_type T_FILTER;  /* {"key","value"} */
extern const struct flag_type T_MOUNT, T_NETWORK, T_PORT, T_SECRET, T_CONFIG, T_PREF, T_ULIMIT, T_CREDENTIAL;
extern const struct flag_type T_NODE_ADDR, T_POOL, T_EXTERNAL_CA, T_PEM;

/* csv_fields - RFC 4180 fields of one line as an array of strings; NULL with e set when quotes don't match. */
json_t *csv_fields(const char *text, struct err *e);

/* shell_words - an array of words; NULL with e set on an unfinished quote. */
json_t *shell_words(const char *text, struct err *e);

/* env_file - appends the variables of a file ("K=V" lines, "#" comments, K alone takes the environment's) to `list`. */
int env_file(const char *path, json_t *list, struct err *e);

/* cap_name - "net_admin" as "CAP_NET_ADMIN"; "ALL" and "RESET" stay. */
void cap_name(struct buf *b, const char *text);

/* port_range - "80", "80-90"; first and last. */
int port_range(struct str s, unsigned *ret_first, unsigned *ret_last);

/* parse_go_uint - digits only, or with 0x, 0o, 0b when base is 0; errors as strconv words them. */
int parse_go_uint(const char *text, int base, unsigned bits, uint64_t *ret, struct err *e);
int parse_go_bool(const char *text, bool *ret, struct err *e);
int parse_bytes(const char *text, int64_t *ret, struct err *e);
