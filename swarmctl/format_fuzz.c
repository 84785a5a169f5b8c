/* format_fuzz.c - a template, and after a NUL the JSON it is executed over (else a small document). */
#include <stdlib.h>

#include "swarmctl/format.h"
#include "swarmctl/output.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char small[] =
        "{\"ID\":\"x\",\"L\":[1,\"a\",null,{\"b\":2.5}],\"Labels\":{\"k\":\"v\"},\"Delay\":5,\"T\":true}";
    struct err e = ERR_INIT;
    struct tmpl *t = NULL;

    if (size > 4096)
        return 0;
    char *text = malloc(size + 1);
    memcpy(text, data, size);
    text[size] = '\0';
    size_t n = strlen(text);
    json_t *j = n < size ? json_loadb(text + n + 1, size - n - 1, JSON_DECODE_ANY, NULL) : NULL;
    if (!j)
        j = json_loads(small, 0, NULL);
    if (format_parse(&t, text, &e) == 0) {
        for (int mode = TMPL_ROW; mode <= TMPL_HEADER; mode++) {
            struct buf out = { .limit = 1 << 20 };
            format_exec(t, j, (enum tmpl_mode)mode, &out, &e);
            buf_done(&out);
        }
        tmpl_uses(t, "ID");
        tmpl_free(t);
    }
    json_decref(j);
    free(text);
    return 0;
}
