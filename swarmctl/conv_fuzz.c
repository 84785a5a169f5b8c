/* conv_fuzz.c - a flag's value: the first byte picks the type, the rest is the text. What is accepted must be JSON
 * again. */
#include <stdlib.h>

#include "common/util/check.h"
#include "swarmctl/conv.h"
#include "swarmctl/imageref.h"
#include "swarmctl/jpath.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct flag_type *const types[] = {
    &T_BOOL,       &T_STRING,    &T_STRINGS,
    &T_UINT,       &T_UINT32,    &T_INT,
    &T_FLOAT,      &T_DURATION,  &T_POSITIVE_DURATION,
    &T_BYTES,      &T_CPUS,      &T_LIST,
    &T_LABELS,     &T_ENVS,      &T_IPS,
    &T_DOMAINS,    &T_HOSTS,     &T_GENERIC,
    &T_WORDS,      &T_FILTER,    &T_MOUNT,
    &T_NETWORK,    &T_PORT,      &T_SECRET,
    &T_CONFIG,     &T_PREF,      &T_ULIMIT,
    &T_CREDENTIAL, &T_NODE_ADDR, &T_POOL,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err e = ERR_INIT;
    json_t *v = NULL;
    struct buf b = BUF_INIT;

    if (size < 1 || size > 1024)
        return 0;
    char *text = malloc(size);
    memcpy(text, data + 1, size - 1);
    text[size - 1] = '\0';
    if (types[data[0] % (sizeof types / sizeof types[0])]->parse(text, &v, &e) == 0 && v) {
        jdump(&b, v);
        json_t *again = json_loadb(b.p, b.n, JSON_DECODE_ANY, NULL);
        CHECK(again);
        json_decref(again);
    }
    buf_clear(&b);
    imageref_tagged(&b, text);
    buf_clear(&b);
    imageref_shown(&b, text);
    json_decref(v);
    buf_done(&b);
    free(text);
    return 0;
}
