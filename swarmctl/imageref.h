/* imageref.h - names of images: "busybox" is docker.io/library/busybox, and is shown as "busybox" again. */
#pragma once

#include "common/util/str.h"

/* A name taken apart; each part borrowed from the text. Digest without its '@', tag without its ':'. */
struct imageref {
    struct str name; /* familiar: without docker.io/ and library/ */
    struct str tag, digest;
};

/* imageref_parse - false when the text isn't a valid reference (a bare 64-digit id isn't one either). */
bool imageref_parse(const char *text, struct imageref *ret);

/* imageref_shown - what listings show: name and tag without a digest; text as it is when there is no tag or it is
 * invalid. */
void imageref_shown(struct buf *b, const char *text);

/* imageref_tagged - name:tag[@digest], with "latest" when there is neither; text as it is when it is invalid. */
void imageref_tagged(struct buf *b, const char *text);

/* imageref_registry - "docker.io", "127.0.0.1:5000", ... */
void imageref_registry(struct buf *b, const char *text);
