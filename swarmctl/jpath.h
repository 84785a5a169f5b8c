/* jpath.h - reading and building JSON by dotted path: "TaskTemplate.ContainerSpec.Image". NULL roots are fine
 * everywhere. */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "common/template/gotext.h"
#include "common/util/str.h"

/* jget - borrowed; NULL when any step is missing, null or not an object. */
json_t *jget(const json_t *root, const char *path);

/* The rest give a zero value instead of NULL: "", 0, false. */
const char *jstr(const json_t *root, const char *path);
int64_t jint(const json_t *root, const char *path);
double jnum(const json_t *root, const char *path);
bool jbool(const json_t *root, const char *path);
size_t jlen(const json_t *root, const char *path); /* elements of an array or members of an object */

/* jset - takes `value`; objects on the way are created. jdel - quiet when absent. */
void jset(json_t *root, const char *path, json_t *value);
void jdel(json_t *root, const char *path);

/* jenter - the object at path, created if it is missing or null; borrowed. */
json_t *jenter(json_t *root, const char *path);

/* jprune_null - drops every null member, at any depth. */
void jprune_null(json_t *v);

/* jdump - appended compactly; floats with as many digits as a float32 has. */
void jdump(struct buf *b, const json_t *v);

/* jsorted - a new array with the elements in natural order of the text at `path`; given. */
json_t *jsorted(json_t *list, const char *path);
