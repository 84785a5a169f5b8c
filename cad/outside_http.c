/* outside_http.c - see outside_http.h. */
#define CURL_DISABLE_TYPECHECK
#include "cad/outside_http.h"

#include <curl/curl.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/util/check.h"

#undef curl_easy_setopt
#undef curl_easy_getinfo
#undef curl_multi_setopt

#define LIBCURL "libcurl.so.4"

/* What we need of it. */
struct curl_lib {
    __typeof__(curl_global_init) *global_init;
    __typeof__(curl_easy_init) *easy_init;
    __typeof__(curl_easy_setopt) *easy_setopt;
    __typeof__(curl_easy_getinfo) *easy_getinfo;
    __typeof__(curl_easy_cleanup) *easy_cleanup;
    __typeof__(curl_easy_strerror) *easy_strerror;
    __typeof__(curl_slist_append) *slist_append;
    __typeof__(curl_slist_free_all) *slist_free_all;
    __typeof__(curl_multi_init) *multi_init;
    __typeof__(curl_multi_setopt) *multi_setopt;
    __typeof__(curl_multi_add_handle) *multi_add_handle;
    __typeof__(curl_multi_remove_handle) *multi_remove_handle;
    __typeof__(curl_multi_assign) *multi_assign;
    __typeof__(curl_multi_socket_action) *multi_socket_action;
    __typeof__(curl_multi_info_read) *multi_info_read;
    __typeof__(curl_multi_cleanup) *multi_cleanup;
};

struct post {
    struct post *next;
    struct outside_http *http;
    outside_done_fn *done;
    void *arg;
    CURL *easy;
    struct curl_slist *headers;
    char *body, *trust;
    struct buf answer;
    bool too_big;
    char why[CURL_ERROR_SIZE];
    sd_event_source *failed; /* it could not even be started */
    struct err err;
};

struct outside_http {
    sd_event *loop;
    struct curl_lib lib;
    void *handle;
    CURLM *multi;
    sd_event_source *timer;
    struct post *posts;
};

/* ---- loading ---- */

static int load(struct outside_http *h, struct err *e)
{
    const struct {
        const char *name;
        void *slot;
    } all[] = {
        { "curl_global_init", &h->lib.global_init },
        { "curl_easy_init", &h->lib.easy_init },
        { "curl_easy_setopt", &h->lib.easy_setopt },
        { "curl_easy_getinfo", &h->lib.easy_getinfo },
        { "curl_easy_cleanup", &h->lib.easy_cleanup },
        { "curl_easy_strerror", &h->lib.easy_strerror },
        { "curl_slist_append", &h->lib.slist_append },
        { "curl_slist_free_all", &h->lib.slist_free_all },
        { "curl_multi_init", &h->lib.multi_init },
        { "curl_multi_setopt", &h->lib.multi_setopt },
        { "curl_multi_add_handle", &h->lib.multi_add_handle },
        { "curl_multi_remove_handle", &h->lib.multi_remove_handle },
        { "curl_multi_assign", &h->lib.multi_assign },
        { "curl_multi_socket_action", &h->lib.multi_socket_action },
        { "curl_multi_info_read", &h->lib.multi_info_read },
        { "curl_multi_cleanup", &h->lib.multi_cleanup },
    };
    if (!h->handle)
        h->handle = dlopen(LIBCURL, RTLD_NOW | RTLD_LOCAL);
    if (!h->handle)
        return err_set(e, ERR_IO, "external CA: %s", dlerror());
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        void *fn = dlsym(h->handle, all[i].name);
        if (!fn)
            return err_set(e, ERR_IO, "external CA: %s: no %s", LIBCURL, all[i].name);
        memcpy(all[i].slot, &fn, sizeof fn); /* ISO C knows no cast between the two kinds of pointer */
    }
    return h->lib.global_init(CURL_GLOBAL_DEFAULT) == 0 ? 0 : err_set(e, ERR_IO, "external CA: libcurl does not start");
}

/* ---- posts ---- */

static void end_post(struct post *p)
{
    struct outside_http *h = p->http;

    for (struct post **at = &h->posts; *at; at = &(*at)->next)
        if (*at == p) {
            *at = p->next;
            break;
        }
    if (p->easy) {
        h->lib.multi_remove_handle(h->multi, p->easy);
        h->lib.easy_cleanup(p->easy);
    }
    if (p->headers)
        h->lib.slist_free_all(p->headers);
    sd_event_source_disable_unref(p->failed);
    free(p->body);
    free(p->trust);
    buf_done(&p->answer);
    free(p);
}

static void finish(struct post *p, CURLcode code)
{
    struct err e = ERR_INIT;
    long status = 0;

    p->http->lib.easy_getinfo(p->easy, CURLINFO_RESPONSE_CODE, &status);
    if (p->too_big)
        err_set(&e, ERR_TOO_BIG, "external CA: its answer is too big");
    else if (code != CURLE_OK)
        err_set(&e, ERR_IO, "external CA: %s", p->why[0] ? p->why : p->http->lib.easy_strerror(code));
    else if (status != 200 && p->answer.n == 0)
        err_set(&e, ERR_IO, "external CA: HTTP status %ld", status);
    p->done(p->arg, buf_str(&p->answer), &e);
    end_post(p);
}

static void collect(struct outside_http *h)
{
    struct post *p;
    CURLMsg *m;
    int left;

    while (h->multi && (m = h->lib.multi_info_read(h->multi, &left))) {
        CURLcode code = m->data.result;
        if (m->msg != CURLMSG_DONE)
            continue;
        for (p = h->posts; p && p->easy != m->easy_handle;)
            p = p->next;
        CHECK(p != NULL);
        finish(p, code);
    }
}

static size_t on_data(char *data, size_t size, size_t n, void *arg)
{
    struct post *p = arg;

    buf_put(&p->answer, data, size * n);
    p->too_big = p->answer.failed;
    return p->too_big ? 0 : size * n;
}

/* ---- the loop ---- */

static int on_io(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
    struct outside_http *h = arg;
    int flags = 0, running;

    (void)s;
    flags |= revents & EPOLLIN ? CURL_CSELECT_IN : 0;
    flags |= revents & EPOLLOUT ? CURL_CSELECT_OUT : 0;
    flags |= revents & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0;
    h->lib.multi_socket_action(h->multi, fd, flags, &running);
    collect(h);
    return 0;
}

static int on_timer(sd_event_source *s, uint64_t usec, void *arg)
{
    struct outside_http *h = arg;
    int running;

    (void)s, (void)usec;
    h->lib.multi_socket_action(h->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    collect(h);
    return 0;
}

static int want_timer(CURLM *multi, long ms, void *arg)
{
    struct outside_http *h = arg;
    uint64_t now;

    (void)multi;
    if (ms < 0) {
        sd_event_source_set_enabled(h->timer, SD_EVENT_OFF);
        return 0;
    }
    if (sd_event_now(h->loop, CLOCK_MONOTONIC, &now) < 0)
        return -1;
    sd_event_source_set_time(h->timer, now + (uint64_t)ms * 1000);
    sd_event_source_set_enabled(h->timer, SD_EVENT_ONESHOT);
    return 0;
}

static int want_io(CURL *easy, curl_socket_t fd, int what, void *arg, void *source)
{
    struct outside_http *h = arg;
    sd_event_source *s = source;
    uint32_t events = (what & CURL_POLL_IN ? EPOLLIN : 0u) | (what & CURL_POLL_OUT ? EPOLLOUT : 0u);

    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        sd_event_source_disable_unref(s);
        h->lib.multi_assign(h->multi, fd, NULL);
    } else if (s) {
        sd_event_source_set_io_events(s, events);
    } else if (sd_event_add_io(h->loop, &s, fd, events, on_io, h) >= 0) {
        h->lib.multi_assign(h->multi, fd, s);
    } else {
        return -1;
    }
    return 0;
}

static int start_multi(struct outside_http *h, struct err *e)
{
    if (h->multi)
        return 0;
    int r = load(h, e);
    if (r < 0)
        return r;
    if (!h->timer && ((r = sd_event_add_time(h->loop, &h->timer, CLOCK_MONOTONIC, UINT64_MAX, 1000, on_timer, h)) < 0 ||
                      (r = sd_event_source_set_enabled(h->timer, SD_EVENT_OFF)) < 0))
        return err_errno(e, -r, "external CA: add timer");
    h->multi = h->lib.multi_init();
    if (!h->multi)
        return err_set(e, ERR_NOMEM, "external CA: out of memory");
    h->lib.multi_setopt(h->multi, CURLMOPT_SOCKETFUNCTION, want_io);
    h->lib.multi_setopt(h->multi, CURLMOPT_SOCKETDATA, h);
    h->lib.multi_setopt(h->multi, CURLMOPT_TIMERFUNCTION, want_timer);
    h->lib.multi_setopt(h->multi, CURLMOPT_TIMERDATA, h);
    return 0;
}

static bool set_options(struct post *p, const struct outside_post *o)
{
    const struct curl_lib *l = &p->http->lib;
    struct curl_blob trust = { p->trust, o->trust.n, CURL_BLOB_NOCOPY };
    CURL *c = p->easy;
    bool ok = true;

#define SET(opt, v) ok = ok && l->easy_setopt(c, opt, v) == CURLE_OK
    SET(CURLOPT_URL, o->url);
    SET(CURLOPT_PROTOCOLS_STR, "https");
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_NOPROXY, "*"); /* environment variables do not decide where requests for certificates go */
    SET(CURLOPT_TIMEOUT_MS, (long)o->timeout_ms);
    SET(CURLOPT_CAINFO_BLOB, &trust);
    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    SET(CURLOPT_HTTPHEADER, p->headers);
    SET(CURLOPT_POSTFIELDS, p->body);
    SET(CURLOPT_POSTFIELDSIZE, (long)o->body.n);
    SET(CURLOPT_WRITEFUNCTION, on_data);
    SET(CURLOPT_WRITEDATA, p);
    SET(CURLOPT_ERRORBUFFER, p->why);
    if (o->cert && o->key) {
        SET(CURLOPT_SSLCERT, o->cert);
        SET(CURLOPT_SSLKEY, o->key);
    }
#undef SET
    return ok;
}

static int start(struct post *p, const struct outside_post *o, struct err *e)
{
    struct outside_http *h = p->http;

    if (start_multi(h, e) < 0)
        return -e->code;
    p->easy = h->lib.easy_init();
    p->headers = h->lib.slist_append(NULL, "Content-Type: application/json");
    if (!p->easy || !p->headers || !set_options(p, o) || h->lib.multi_add_handle(h->multi, p->easy) != CURLM_OK)
        return err_set(e, ERR_IO, "external CA: libcurl refused the request to %s", o->url);
    return 0;
}

static int on_failed(sd_event_source *s, void *arg)
{
    struct post *p = arg;

    (void)s;
    p->done(p->arg, STR(""), &p->err);
    end_post(p);
    return 0;
}

struct outside_http *outside_http_new(sd_event *loop)
{
    struct outside_http *h = calloc(1, sizeof *h);

    CHECK(h != NULL);
    h->loop = loop;
    return h;
}

void outside_post(struct outside_http *h, const struct outside_post *o, outside_done_fn *done, void *arg)
{
    struct post *p = calloc(1, sizeof *p);

    CHECK(p != NULL);
    p->http = h;
    p->done = done;
    p->arg = arg;
    p->body = str_dup(o->body);
    p->trust = str_dup(o->trust);
    p->answer.limit = o->answer_max;
    p->next = h->posts;
    h->posts = p;
    if (start(p, o, &p->err) < 0)
        CHECK(sd_event_add_defer(h->loop, &p->failed, on_failed, p) >= 0);
}

struct outside_http *outside_http_free(struct outside_http *h)
{
    if (!h)
        return NULL;
    for (struct post *p; (p = h->posts) != NULL;) {
        struct err e = ERR_INIT;
        err_set(&e, ERR_UNAVAILABLE, "external CA: given up: cad stops");
        h->posts = p->next;
        p->done(p->arg, STR(""), &e);
        end_post(p);
    }
    if (h->multi)
        h->lib.multi_cleanup(h->multi);
    sd_event_source_disable_unref(h->timer);
    if (h->handle)
        dlclose(h->handle);
    free(h);
    return NULL;
}
