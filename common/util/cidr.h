/*
 * cidr.h - IP addresses and prefixes as numbers: parsed, printed, compared, counted through. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/util/str.h"

typedef unsigned __int128 ip_num;

struct ip {
    ip_num v;       /* host order */
    uint8_t family; /* 4, 6; 0: none */
};

struct cidr {
    struct ip ip; /* as it was written: see cidr_masked() */
    uint8_t len;
};

#define IP_TEXT_MAX 46
#define CIDR_TEXT_MAX 50

bool ip_parse(struct str text, struct ip *ret);
/* cidr_parse - "10.0.1.5/24", host bits and all; false for anything else, a bare address as well. */
bool cidr_parse(struct str text, struct cidr *ret);
const char *ip_text(struct ip ip, char buf[IP_TEXT_MAX]);
const char *cidr_text(struct cidr c, char buf[CIDR_TEXT_MAX]);

bool ip_eq(struct ip a, struct ip b);
unsigned ip_bits(uint8_t family); /* 32, 128 */

struct cidr cidr_masked(struct cidr c); /* without host bits */
struct ip cidr_first(struct cidr c);    /* the lowest and the highest address in it */
struct ip cidr_last(struct cidr c);
bool cidr_has(struct cidr net, struct ip ip);
bool cidr_holds(struct cidr net, struct cidr inner); /* all of inner */
bool cidr_overlap(struct cidr a, struct cidr b);
int cidr_cmp(struct cidr a, struct cidr b); /* by family, lowest address, length */
