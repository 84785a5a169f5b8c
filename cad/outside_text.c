/* outside_text.c - see outside_text.h. */
#include "cad/outside_text.h"

#include <jansson.h>
#include <stdio.h>

static void put(struct buf *b, const char *key, struct str v)
{
    buf_puts(b, key);
    buf_json_str(b, v);
}

void outside_question(struct buf *b, struct str csr, const struct ca_leaf *l)
{
    struct str host[CA_HOSTS_MAX];
    unsigned n = ca_leaf_hosts(l, host);

    put(b, "{\"hosts\":[", host[0]);
    for (unsigned i = 1; i < n; i++)
        put(b, ",", host[i]);
    put(b, "],\"certificate_request\":", csr);
    put(b, ",\"subject\":{\"CN\":", l->node_id);
    put(b, ",\"names\":[{\"OU\":", host[0]);
    put(b, ",\"O\":", l->cluster_id);
    buf_puts(b, "}]}}");
}

void outside_question_ca(struct buf *b, struct str csr)
{
    put(b, "{\"certificate_request\":", csr);
    buf_puts(b, ",\"profile\":\"CA\"}");
}

static int refused(const json_t *answer, struct err *e)
{
    const json_t *first = json_array_get(json_object_get(answer, "errors"), 0);
    const char *text = json_string_value(json_object_get(first, "message"));
    char line[200];
    size_t n = 0;

    for (; text && text[n] && n < sizeof line - 1; n++) /* it goes into a log */
        line[n] = (unsigned char)text[n] < 0x20 ? ' ' : text[n];
    line[n] = 0;
    return err_set(e, ERR_IO, "the external CA refused: %s", n > 0 ? line : "no reason given");
}

int outside_answer(struct str body, struct buf *ret_cert, struct err *e)
{
    json_error_t why;
    json_t *answer = body.n <= OUTSIDE_ANSWER_MAX ? json_loadb(body.p ? body.p : "", body.n, 0, &why) : NULL;
    const json_t *cert = json_object_get(json_object_get(answer, "result"), "certificate");
    int r = 0;

    if (!json_is_object(answer))
        r = err_set(e, ERR_IO, "the external CA's answer is not a JSON object");
    else if (!json_is_true(json_object_get(answer, "success")))
        r = refused(answer, e);
    else if (!json_is_string(cert) || json_string_length(cert) == 0)
        r = err_set(e, ERR_IO, "the external CA's answer has no certificate");
    else
        buf_put(ret_cert, json_string_value(cert), json_string_length(cert));
    json_decref(answer);
    return r;
}
