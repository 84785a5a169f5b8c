/*
 * api_spec.h - what Docker's manager checks in a service spec, in Docker's order and words (docker-api.md §2.5). Pure.
 *
 * These checks come before the object model's own (obj_check): what both would refuse is refused in the words that
 * Docker's users and tests know, and the model's path-precise message is left for everything else.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "common/proto/fields.h"

/* Where a fault was found decides the shape of the error: the engine's own conversion, or the manager behind it. */
enum fault_class { FAULT_PLAIN, FAULT_INVALID, FAULT_UNKNOWN, FAULT_UNIMPLEMENTED, FAULT_EXISTS, FAULT_PRECONDITION };

struct spec_fault {
    enum fault_class class;
    unsigned status; /* FAULT_PLAIN: the HTTP status */
    char msg[480];
};

/* spec_check - 0, or -1 with *f filled in. Needs no store. */
int spec_check(json_t *spec, struct spec_fault *f);

/* spec_normalise - what Docker's manager fills in on writing: mode, replicas, port protocol and publish mode, the
 * always-printed update settings, labels. Idempotent. @version: a client below 1.44 may use the old Networks. */
void spec_normalise(json_t *spec, unsigned version);

/* spec_name_random - "adjective_surname" out of eight random bytes, for services without a name. */
void spec_name_random(const uint8_t bytes[8], char name[40]);

/* spec_mode - "Replicated", "Global", "ReplicatedJob", "GlobalJob". */
const char *spec_mode(json_t *spec);

struct spec_port {
    struct str protocol;
    uint64_t published;
    bool host;
};
/* spec_ports - published ports with a number, at most @max; how many there are. */
size_t spec_ports(json_t *spec, struct spec_port *ret, size_t max);
/* spec_port_clash - does @theirs, of another service, keep one of @ours from being published? Host ports of two
 * services may be equal: the scheduler keeps them apart. */
bool spec_port_clash(const struct spec_port *ours, size_t n, const struct spec_port *theirs);
