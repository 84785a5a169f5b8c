/* cad_outside.c - certificates signed by an external CA: which one, what it is asked, where the answer goes. */
#include <stdlib.h>
#include <strings.h>

#include "cad/cad_pass.h"
#include "cad/outside_text.h"
#include "common/daemon/log.h"
#include "common/util/check.h"

#define ASKING_MAX 16u

static const struct field external_fields[] = {
    FIELD_STR(struct cad_external_ca, Protocol, 0, 64),
    FIELD_STR(struct cad_external_ca, URL, 0, 4096),
    FIELD_STR(struct cad_external_ca, CACert, 0, 65536),
    FIELD_END,
};
struct ca_config {
    struct list ExternalCAs;
};
static const struct field config_fields[] = {
    FIELD_LIST(struct ca_config, ExternalCAs, external_fields, struct cad_external_ca, 100),
    FIELD_END,
};

static struct list configured(struct cad_work *w)
{
    struct ca_config c = { .ExternalCAs = { 0 } };
    struct err e = ERR_INIT;
    struct str v;

    if (mp_path(w->doc, "Spec.CAConfig", &v) &&
        fields_decode(&c, config_fields, sizeof c, v, FIELDS_VIEW, w->p->arena, &e) < 0) {
        log_error("external CAs: %s", e.msg);
        return (struct list){ 0 };
    }
    return c.ExternalCAs;
}

static struct str trimmed(struct str s)
{
    while (s.n > 0 && (s.p[s.n - 1] == '\n' || s.p[s.n - 1] == '\r' || s.p[s.n - 1] == ' '))
        s.n--;
    return s;
}

/* signs_for - an external CA without a certificate of its own signs for the root that is trusted now. */
static bool signs_for(const struct cad_work *w, const struct cad_external_ca *x, struct str root)
{
    struct str own = trimmed(x->CACert.n > 0 ? x->CACert : w->root.Cert);

    return (x->Protocol.n == 0 || (x->Protocol.n == 5 && strncasecmp(x->Protocol.p, "cfssl", 5) == 0)) &&
           str_starts(x->URL, STR("https://")) && str_eq(own, trimmed(root));
}

bool cad_outside_for(struct cad_work *w, struct str root, const struct list *more)
{
    struct list have = configured(w);
    const struct cad_external_ca *x = have.v;

    for (size_t i = 0; i < have.n; i++)
        if (signs_for(w, &x[i], root))
            return true;
    x = more ? more->v : NULL;
    for (size_t i = 0; more && i < more->n; i++)
        if (signs_for(w, &x[i], root))
            return true;
    return false;
}

struct str cad_outside_root(struct cad_work *w)
{
    struct list have = configured(w);
    const struct cad_external_ca *x = have.v;
    struct err e = ERR_INIT;

    for (size_t i = 0; i < have.n; i++) {
        if (x[i].CACert.n == 0 || !signs_for(w, &x[i], x[i].CACert))
            continue;
        if (ca_root_check(x[i].CACert, STR(""), w->p->now.ns / 1000000000, &e) == 0)
            return x[i].CACert;
        log_error("external CA " STR_FMT ": its certificate can't be the swarm's root: %s", STR_ARG(x[i].URL), e.msg);
    }
    return (struct str){ NULL, 0 };
}

/* ---- asking ---- */

static struct cad_outside *new_job(struct cad_work *w, struct str root)
{
    struct list have = configured(w);
    const struct cad_external_ca *x = have.v;
    struct cad_outside *o = calloc(1, sizeof *o);

    CHECK(o != NULL);
    o->keeper = w->k;
    for (size_t i = 0; i < have.n && o->nurls < CAD_URLS_MAX; i++)
        if (signs_for(w, &x[i], root))
            o->url[o->nurls++] = str_dup(x[i].URL);
    buf_put(&o->trust, w->root.Cert.p, w->root.Cert.n);
    if (!str_eq(root, w->root.Cert)) {
        buf_putc(&o->trust, '\n');
        buf_put(&o->trust, root.p, root.n);
    }
    return o;
}

void cad_outside_free(struct cad_outside *o)
{
    for (size_t i = 0; i < o->nurls; i++)
        free(o->url[i]);
    buf_done(&o->body);
    buf_done(&o->trust);
    free(o);
}

static void ask(struct cad_work *w, struct cad_outside *o)
{
    w->k->asking++;
    w->k->asked++;
    w->k->calls->ask_outside(o);
}

bool cad_outside_sign(struct cad_work *w, struct cad_wait *wait, const struct ca_leaf *l)
{
    if (w->k->asking >= ASKING_MAX)
        return false;
    struct cad_outside *o = new_job(w, cad_signing_root(&w->root));
    outside_question(&o->body, wait->req->CSR, l);
    o->wait = wait;
    wait->outside = o;
    ask(w, o);
    return true;
}

void cad_outside_cross(struct cad_work *w, struct cad_turn *t, struct err *e)
{
    struct buf csr = BUF_INIT;

    if (!cad_outside_for(w, w->root.Cert, NULL)) {
        err_set(e, ERR_INVALID,
                "there must be at least one valid, reachable external CA corresponding to the current CA certificate");
    } else if (ca_root_csr(buf_str(&t->cert), buf_str(&t->key), &csr, e) == 0) {
        struct cad_outside *o = new_job(w, w->root.Cert);
        outside_question_ca(&o->body, buf_str(&csr));
        o->turn = t;
        t->outside = o;
        ask(w, o);
    }
    buf_done(&csr);
}

/* ---- answers ---- */

static void answer_turn(struct cad_outside *o, struct str body, const struct err *why)
{
    struct cad_turn *t = o->turn;
    struct err e = *why;

    t->outside = NULL;
    buf_clear(&t->cross);
    if (e.code == 0 && outside_answer(body, &t->cross, &e) == 0)
        (void)ca_cross_check(buf_str(&t->cross), buf_str(&t->old), buf_str(&t->cert), &e);
    if (e.code != 0) {
        buf_clear(&t->cross);
        cad_rotate_drop(o->keeper, &e);
    }
}

static void answer_wait(struct cad_outside *o, struct str body, const struct err *why)
{
    struct cad_wait *w = o->wait;

    w->outside = NULL;
    w->outside_err = *why;
    buf_clear(&w->signed_cert);
    if (why->code == 0)
        (void)outside_answer(body, &w->signed_cert, &w->outside_err);
}

void cad_outside_answer(struct cad_outside *o, struct str body, const struct err *why)
{
    struct cad_keeper *k = o->keeper;

    k->asking--;
    if (why->code != 0)
        log_warn("external CA: %s", why->msg);
    if (o->wait)
        answer_wait(o, body, why);
    if (o->turn)
        answer_turn(o, body, why);
    cad_outside_free(o);
    controller_kick(k->controller);
}

void cad_outside_forget(struct cad_outside *o)
{
    if (o) {
        o->wait = NULL;
        o->turn = NULL;
    }
}
