#include "swarmctl/http.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

#include "common/util/check.h"

struct http {
    CURL *curl;
    char *path;
    FILE *log;
};

/* What the callbacks of one transfer need. */
struct transfer {
    struct http *h;
    const struct http_request *rq;
    struct http_reply *reply;
    bool stopped;
};

struct http *http_open(const char *socket_path, FILE *log)
{
    struct http *h = calloc(1, sizeof *h);

    CHECK(h);
    /* Nothing of what a global init would set up is used: a Unix socket needs no TLS, and no threads resolve names. */
    if (curl_global_init(CURL_GLOBAL_NOTHING) != 0 || !(h->curl = curl_easy_init())) {
        free(h);
        return NULL;
    }
    h->path = strdup(socket_path);
    h->log = log;
    return h;
}

struct http *http_free(struct http *h)
{
    if (h) {
        curl_easy_cleanup(h->curl);
        free(h->path);
        free(h);
    }
    return NULL;
}

void http_reply_done(struct http_reply *reply)
{
    buf_done(&reply->body);
}

static void header_value(struct str line, const char *name, char *out, size_t cap)
{
    size_t n = strlen(name);

    if (line.n <= n || strncasecmp(line.p, name, n) != 0 || line.p[n] != ':')
        return;
    struct str v = { line.p + n + 1, line.n - n - 1 };
    while (v.n > 0 && *v.p == ' ')
        v = (struct str){ v.p + 1, v.n - 1 };
    while (v.n > 0 && (v.p[v.n - 1] == '\r' || v.p[v.n - 1] == '\n'))
        v.n--;
    str_copy(out, cap, v);
}

static size_t on_header(char *p, size_t size, size_t n, void *arg)
{
    struct transfer *tr = arg;
    struct str line = { p, size * n };

    header_value(line, "Api-Version", tr->reply->api_version, sizeof tr->reply->api_version);
    header_value(line, "Content-Type", tr->reply->content_type, sizeof tr->reply->content_type);
    return size * n;
}

static size_t on_body(char *p, size_t size, size_t n, void *arg)
{
    struct transfer *tr = arg;
    long status = 0;

    curl_easy_getinfo(tr->h->curl, CURLINFO_RESPONSE_CODE, &status);
    if (tr->rq->on_data && status < 400) {
        if (!tr->rq->on_data(p, size * n, tr->rq->arg)) {
            tr->stopped = true;
            return 0;
        }
        return size * n;
    }
    buf_put(&tr->reply->body, p, size * n);
    return tr->reply->body.failed ? 0 : size * n;
}

static size_t on_read(char *p, size_t size, size_t n, void *arg)
{
    struct transfer *tr = arg;
    ssize_t got;

    do
        got = read(tr->rq->body_fd, p, size * n);
    while (got < 0 && errno == EINTR);
    return got < 0 ? CURL_READFUNC_ABORT : (size_t)got;
}

static int connect_error(struct http *h, CURLcode code, const char *detail, struct err *e)
{
    long os = 0;

    curl_easy_getinfo(h->curl, CURLINFO_OS_ERRNO, &os);
    if (code == CURLE_COULDNT_CONNECT && os == EACCES)
        return err_set(e, ERR_DENIED,
                       "permission denied while trying to connect to the Docker daemon socket at unix://%s", h->path);
    if (code == CURLE_COULDNT_CONNECT)
        return err_set(e, ERR_UNAVAILABLE, "Cannot connect to the Docker daemon at unix://%s. Is apid running?",
                       h->path);
    return err_set(e, ERR_IO, "error during connect: unix://%s: %s", h->path,
                   detail && *detail ? detail : curl_easy_strerror(code));
}

static struct curl_slist *header_list(const struct http_request *rq)
{
    struct curl_slist *list = curl_slist_append(NULL, "Expect:");
    char type[128];

    if (rq->content_type) {
        snprintf(type, sizeof type, "Content-Type: %s", rq->content_type);
        list = curl_slist_append(list, type);
    }
    if (rq->body_fd >= 0 && !rq->body)
        list = curl_slist_append(list, "Transfer-Encoding: chunked");
    for (const char *const *p = rq->headers; p && *p; p++)
        list = curl_slist_append(list, *p);
    return list;
}

static void set_method(CURL *c, struct transfer *tr)
{
    const struct http_request *rq = tr->rq;

    if (strcmp(rq->method, "HEAD") == 0) {
        curl_easy_setopt(c, CURLOPT_NOBODY, 1L);
    } else if (rq->body || rq->body_fd >= 0 || strcmp(rq->method, "POST") == 0) {
        curl_easy_setopt(c, CURLOPT_POST, 1L);
        if (rq->body_fd >= 0 && !rq->body) {
            curl_easy_setopt(c, CURLOPT_READFUNCTION, on_read);
            curl_easy_setopt(c, CURLOPT_READDATA, tr);
        } else {
            curl_easy_setopt(c, CURLOPT_POSTFIELDS, rq->body ? rq->body : "");
            curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)rq->body_len);
        }
    } else {
        curl_easy_setopt(c, CURLOPT_HTTPGET, 1L);
    }
    if (strcmp(rq->method, "GET") != 0 && strcmp(rq->method, "HEAD") != 0)
        curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, rq->method);
}

int http_do(struct http *h, const struct http_request *rq, struct http_reply *reply, struct err *e)
{
    CURL *c = h->curl;
    struct transfer tr = { .h = h, .rq = rq, .reply = reply };
    struct curl_slist *headers = header_list(rq);
    char detail[CURL_ERROR_SIZE] = "";
    struct buf url = BUF_INIT;

    buf_printf(&url, "http://docker%s", rq->path);
    curl_easy_reset(c); /* keeps the connection */
    curl_easy_setopt(c, CURLOPT_UNIX_SOCKET_PATH, h->path);
    curl_easy_setopt(c, CURLOPT_URL, buf_cstr(&url));
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_PROXY, "");
    curl_easy_setopt(c, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(c, CURLOPT_USERAGENT, "swarmctl");
    curl_easy_setopt(c, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(c, CURLOPT_HEADERDATA, &tr);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, &tr);
    curl_easy_setopt(c, CURLOPT_ERRORBUFFER, detail);
    set_method(c, &tr);
    CURLcode code = curl_easy_perform(c);
    curl_easy_setopt(c, CURLOPT_ERRORBUFFER, NULL);
    curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &reply->status);
    if (h->log)
        fprintf(h->log, "swarmctl: %s %s: %ld\n", rq->method, rq->path, reply->status);
    curl_slist_free_all(headers);
    buf_done(&url);
    if (code == CURLE_OK || tr.stopped)
        return 0;
    return connect_error(h, code, detail, e);
}
