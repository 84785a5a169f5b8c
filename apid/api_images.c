/* /images and /distribution: agentd has the images; here they get Docker's shapes. */
#include <fnmatch.h>
#include <stdio.h>

#include "apid/api_pieces.h"
#include "apid/api_ref.h"
#include "apid/api_resources.h"
#include "common/proto/msg_agentd.h"
#include "common/util/check.h"
#include "common/util/id.h"

#define PIECE_TIMEOUT_MS 60000u
#define STORE_TIMEOUT_MS 600000u /* unpacking a large image on a slow disk */
#define PULL_TIMEOUT_MS 3600000u
#define PULL_QUIET_MS 700u /* an error within this time is an HTTP error; later it goes into the stream */

/* Docker names what it looked for: "busybox" means "busybox:latest". */
static void no_such_image(struct req *r)
{
    struct image_ref ref;
    struct err e = ERR_INIT;
    char *name = image_ref_parse(r->params[0], &ref, &e) == 0 ? image_ref_familiar(&ref, &r->arena) : NULL;

    if (name)
        api_error(r, 404, "No such image: %s", name);
    else
        api_error(r, 404, "No such image: " STR_FMT, STR_ARG(r->params[0]));
}

/* ---- JSON of images ---- */

static void put_strs(struct buf *b, const struct strs *v)
{
    buf_putc(b, '[');
    for (size_t i = 0; i < v->n; i++) {
        buf_puts(b, i ? "," : "");
        buf_json_str(b, v->v[i]);
    }
    buf_putc(b, ']');
}

static void put_labels(struct buf *b, const struct strmap *m)
{
    if (m->n == 0) {
        buf_puts(b, "null");
        return;
    }
    buf_putc(b, '{');
    for (size_t i = 0; i < m->n; i++) {
        buf_puts(b, i ? "," : "");
        buf_json_str(b, m->v[i].key);
        buf_putc(b, ':');
        buf_json_str(b, m->v[i].val);
    }
    buf_putc(b, '}');
}

static void put_image(struct buf *b, const struct agent_image *im, unsigned version)
{
    buf_printf(b, "{\"Containers\":-1,\"Created\":%lld,\"Id\":", (long long)im->Created); /* -1: not counted */
    buf_json_str(b, im->ID);
    buf_puts(b, ",\"Labels\":");
    put_labels(b, &im->Labels);
    buf_puts(b, ",\"ParentId\":\"\",\"RepoDigests\":");
    put_strs(b, &im->RepoDigests);
    buf_puts(b, ",\"RepoTags\":");
    put_strs(b, &im->RepoTags);
    buf_printf(b, ",\"SharedSize\":-1,\"Size\":%llu", (unsigned long long)im->Size);
    if (version < 144)
        buf_printf(b, ",\"VirtualSize\":%llu", (unsigned long long)im->Size);
    buf_putc(b, '}');
}

/* A reference filter is a pattern for "repository" or "repository:tag". */
static bool reference_fits(const struct filter *x, struct str ref)
{
    char pattern[512], name[512], *cut;

    if (!str_copy(name, sizeof name, ref))
        return false;
    for (size_t i = 0; i < x->n; i++)
        if (str_copy(pattern, sizeof pattern, x->vals[i]) && fnmatch(pattern, name, FNM_PATHNAME) == 0)
            return true;
    if ((cut = strchr(name, '@')) || ((cut = strrchr(name, ':')) && !strchr(cut, '/')))
        *cut = '\0';
    for (size_t i = 0; i < x->n; i++)
        if (str_copy(pattern, sizeof pattern, x->vals[i]) && fnmatch(pattern, name, FNM_PATHNAME) == 0)
            return true;
    return false;
}

/* Of an image's names only those that were asked for are shown. */
static void keep_fitting(const struct filter *x, struct strs *names)
{
    size_t n = 0;

    for (size_t i = 0; i < names->n; i++)
        if (reference_fits(x, names->v[i]))
            names->v[n++] = names->v[i];
    names->n = n;
}

static void images_listed(struct req *r, const void *rep, const struct err *e)
{
    const struct agent_image_list_reply *l = rep;
    struct filters *f = r->data;
    bool any = false;

    if (e->code != 0) {
        api_fail(r, e);
        return;
    }
    const struct filter *dangling = filters_get(f, "dangling"), *reference = filters_get(f, "reference");
    buf_putc(&r->out, '[');
    for (size_t i = 0; i < l->Images.n; i++) {
        struct agent_image im = ((const struct agent_image *)l->Images.v)[i];
        bool untagged = im.RepoTags.n == 0;
        if (dangling && untagged != (str_is(dangling->vals[0], "true") || str_is(dangling->vals[0], "1")))
            continue;
        if (!filters_label_map(f, "label", &im.Labels))
            continue;
        if (reference) {
            keep_fitting(reference, &im.RepoTags);
            keep_fitting(reference, &im.RepoDigests);
            if (im.RepoTags.n + im.RepoDigests.n == 0)
                continue;
        }
        buf_puts(&r->out, any ? "," : "");
        any = true;
        put_image(&r->out, &im, r->version);
    }
    buf_puts(&r->out, "]\n");
    api_reply(r, 200);
}

void images_list(struct req *r)
{
    static const char *const known[] = { "dangling", "label", "reference", NULL };
    static const struct agent_empty none;
    struct filters *f = arena_alloc(&r->arena, sizeof *f);

    CHECK(f);
    r->data = f;
    if (api_filters(r, f, known) == 0)
        api_call(r, api.agentd, &op_agent_image_list, &none, API_AGENT_DEADLINE_MS, images_listed);
}

/* ---- inspect ---- */

static void put_from_config(struct buf *b, const char *key, struct str config, const char *path)
{
    struct str v;

    buf_printf(b, ",\"%s\":", key);
    if (config.n > 0 && mp_path(config, path, &v))
        mp_to_json(b, v);
    else
        buf_puts(b, "null");
}

static void put_text_from_config(struct buf *b, const char *key, struct str config, const char *path)
{
    struct str v = { "", 0 };

    if (config.n > 0)
        (void)mp_get_str(config, path, &v);
    buf_printf(b, ",\"%s\":", key);
    buf_json_str(b, v);
}

static void image_inspected(struct req *r, const void *rep, const struct err *e)
{
    const struct agent_image *im = rep;
    struct buf *b = &r->out;
    char created[WALL_TEXT_MAX];

    if (e->code == ERR_NOT_FOUND) {
        no_such_image(r);
        return;
    }
    if (e->code != 0) {
        api_fail(r, e);
        return;
    }
    wall_format((struct wall_ns){ im->Created * 1000000000 }, created);
    buf_puts(b, "{\"Id\":");
    buf_json_str(b, im->ID);
    buf_puts(b, ",\"RepoTags\":");
    put_strs(b, &im->RepoTags);
    buf_puts(b, ",\"RepoDigests\":");
    put_strs(b, &im->RepoDigests);
    buf_printf(b, ",\"Parent\":\"\",\"Comment\":\"\",\"Created\":\"%s\",\"DockerVersion\":\"\"", created);
    put_text_from_config(b, "Author", im->Config, "author");
    put_from_config(b, "Config", im->Config, "config");
    put_text_from_config(b, "Architecture", im->Config, "architecture");
    put_text_from_config(b, "Os", im->Config, "os");
    buf_printf(b,
               ",\"Size\":%llu,\"VirtualSize\":%llu,\"GraphDriver\":{\"Data\":null,\"Name\":\"overlay2\"},"
               "\"RootFS\":{\"Type\":\"layers\"",
               (unsigned long long)im->Size, (unsigned long long)im->Size);
    put_from_config(b, "Layers", im->Config, "rootfs.diff_ids");
    buf_puts(b, "},\"Metadata\":{\"LastTagTime\":\"0001-01-01T00:00:00Z\"}}\n");
    api_reply(r, 200);
}

void images_inspect(struct req *r)
{
    struct agent_image_ref in = { .Image = r->params[0] };
    struct image_ref ref;
    struct err e = ERR_INIT;

    if (image_ref_parse(r->params[0], &ref, &e) < 0) { /* not 400: `docker inspect` then looks for other objects */
        api_error(r, 404, "no such image: " STR_FMT ": %s", STR_ARG(r->params[0]), e.msg);
        return;
    }
    api_call(r, api.agentd, &op_agent_image_inspect, &in, API_AGENT_DEADLINE_MS, image_inspected);
}

/* ---- remove, tag ---- */

static void put_removed(struct buf *b, const char *key, const struct strs *v, bool *any)
{
    for (size_t i = 0; i < v->n; i++) {
        buf_printf(b, "%s{\"%s\":", *any ? "," : "", key);
        buf_json_str(b, v->v[i]);
        buf_putc(b, '}');
        *any = true;
    }
}

static void image_removed(struct req *r, const void *rep, const struct err *e)
{
    const struct agent_image_remove_reply *x = rep;
    bool any = false;

    if (e->code == ERR_NOT_FOUND) {
        no_such_image(r);
        return;
    }
    if (e->code != 0) {
        api_fail(r, e);
        return;
    }
    for (size_t i = 0; i < x->Untagged.n; i++)
        events_image("untag", x->Untagged.v[i], x->Untagged.v[i]);
    for (size_t i = 0; i < x->Deleted.n; i++)
        events_image("delete", x->Deleted.v[i], x->Deleted.v[i]);
    buf_putc(&r->out, '[');
    put_removed(&r->out, "Untagged", &x->Untagged, &any);
    put_removed(&r->out, "Deleted", &x->Deleted, &any);
    buf_puts(&r->out, "]\n");
    api_reply(r, 200);
}

void images_remove(struct req *r)
{
    struct agent_image_ref in = { .Image = r->params[0], .Force = query_loose(&r->query, "force") };
    struct image_ref ref;
    struct err e = ERR_INIT;

    if (image_ref_parse(r->params[0], &ref, &e) < 0)
        api_fail(r, &e);
    else
        api_call(r, api.agentd, &op_agent_image_remove, &in, STORE_TIMEOUT_MS, image_removed);
}

static void image_tagged(struct req *r, const void *rep, const struct err *e)
{
    (void)rep;
    if (e->code == ERR_NOT_FOUND) {
        no_such_image(r);
    } else if (e->code != 0) {
        api_fail(r, e);
    } else {
        events_image("tag", r->params[0], query_get(&r->query, "repo"));
        api_reply_empty(r, 201);
    }
}

void images_tag(struct req *r)
{
    struct str repo = query_get(&r->query, "repo"), tag = query_get(&r->query, "tag");
    struct agent_image_tag in = { .Image = r->params[0], .Repo = repo, .Tag = tag.n > 0 ? tag : STR("latest") };
    struct image_ref ref;
    struct err e = ERR_INIT;

    if (image_ref_parse(repo, &ref, &e) < 0)
        api_fail(r, &e);
    else
        api_call(r, api.agentd, &op_agent_image_tag, &in, API_AGENT_DEADLINE_MS, image_tagged);
}

/* ---- pull ---- */

struct pull {
    char *image, *tag, *path; /* in the request's arena */
};

static void put_status(struct buf *b, const char *text, const char *id)
{
    buf_puts(b, "{\"status\":");
    buf_json_str(b, str_from(text));
    if (id) {
        buf_puts(b, ",\"id\":");
        buf_json_str(b, str_from(id));
    }
    buf_puts(b, "}\r\n");
}

static void start_progress(struct req *r)
{
    struct pull *p = r->data;

    if (r->streaming)
        return;
    put_status(&r->out, arena_printf(&r->arena, "Pulling from %s", p->path), p->tag);
    api_stream(r, 200, "application/json");
    api_stream_push(r);
}

static void pull_slow(void *arg)
{
    start_progress(arg);
}

static void put_stream_error(struct buf *b, const char *text)
{
    buf_puts(b, "{\"errorDetail\":{\"message\":");
    buf_json_str(b, str_from(text));
    buf_puts(b, "},\"error\":");
    buf_json_str(b, str_from(text));
    buf_puts(b, "}\r\n");
}

static void pulled(struct req *r, const void *rep, const struct err *e)
{
    const struct agent_image_pull_reply *x = rep;
    struct pull *p = r->data;

    api_timer(r, UINT64_MAX, NULL);
    if (e->code != 0 && !r->streaming) {
        api_fail(r, e);
        return;
    }
    if (e->code != 0) {
        put_stream_error(&r->out, e->msg);
        api_stream_end(r);
        return;
    }
    start_progress(r);
    if (x->Digest.n > 0)
        put_status(&r->out, arena_printf(&r->arena, "Digest: " STR_FMT, STR_ARG(x->Digest)), NULL);
    put_status(&r->out,
               arena_printf(&r->arena, "Status: %s for %s",
                            x->UpToDate ? "Image is up to date" : "Downloaded newer image", p->image),
               NULL);
    events_image("pull", str_from(p->image), str_from(p->image));
    api_stream_end(r);
}

/* fromImage=busybox&tag=latest, tag=sha256:..., or the tag within fromImage. */
static int pull_reference(struct req *r, struct pull *p)
{
    struct str from = query_get(&r->query, "fromImage"), tag = query_get(&r->query, "tag");
    struct image_ref ref;
    struct err e = ERR_INIT;
    char *text = NULL;

    if (from.n == 0)
        return api_refuse(r, 501, "importing an image from an archive is not supported; use /images/load");
    if (tag.n > 0 && memchr(tag.p, ':', tag.n))
        text = arena_printf(&r->arena, STR_FMT "@" STR_FMT, STR_ARG(from), STR_ARG(tag));
    else if (tag.n > 0)
        text = arena_printf(&r->arena, STR_FMT ":" STR_FMT, STR_ARG(from), STR_ARG(tag));
    else
        text = arena_printf(&r->arena, STR_FMT, STR_ARG(from));
    CHECK(text);
    if (image_ref_parse(str_from(text), &ref, &e) < 0) {
        api_fail(r, &e);
        return -1;
    }
    p->image = image_ref_familiar(&ref, &r->arena);
    p->path = image_ref_path(&ref, &r->arena);
    p->tag = arena_printf(&r->arena, STR_FMT, STR_ARG(ref.tag.n ? ref.tag : ref.digest.n ? ref.digest : STR("latest")));
    CHECK(p->image && p->path && p->tag);
    return 0;
}

static int registry_auth(struct req *r, struct str *ret)
{
    struct err e = ERR_INIT;

    if (auth_decode(str_from(api_request_header(r, "X-Registry-Auth")), &r->arena, ret, &e) == 0)
        return 0;
    api_fail(r, &e);
    return -1;
}

void images_create(struct req *r)
{
    struct pull *p = arena_alloc(&r->arena, sizeof *p);
    struct agent_image_ref in = { .Force = true };

    CHECK(p);
    r->data = p;
    if (pull_reference(r, p) < 0 || registry_auth(r, &in.RegistryAuth) < 0)
        return;
    in.Image = str_from(p->image);
    api_timer(r, clock_mono().ms + PULL_QUIET_MS, pull_slow);
    api_call(r, api.agentd, &op_agent_image_pull, &in, PULL_TIMEOUT_MS, pulled);
}

/* ---- load: the archive goes to agentd in pieces ---- */

struct load {
    struct pieces pieces;
    char upload[ID_SIZE];
};

static void piece_stored(struct req *r, const void *rep, const struct err *e)
{
    (void)rep;
    if (e->code == 0) {
        pieces_stored(r);
        return;
    }
    api_fail(r, e);
    pieces_failed(r);
}

static void loaded(struct req *r, const void *rep, const struct err *e)
{
    const struct agent_image_load_reply *x = rep;

    if (e->code != 0) {
        api_fail(r, e);
        return;
    }
    for (size_t i = 0; i < x->Loaded.n; i++) {
        struct str name = x->Loaded.v[i];
        bool id = str_starts(name, STR("sha256:"));
        struct buf line = BUF_INIT;
        buf_printf(&line, "Loaded image%s: " STR_FMT "\n", id ? " ID" : "", STR_ARG(name));
        buf_puts(&r->out, "{\"stream\":");
        buf_json_str(&r->out, buf_str(&line));
        buf_puts(&r->out, "}\r\n");
        buf_done(&line);
        events_image("load", name, name);
    }
    api_reply(r, 200);
}

static void send_piece(struct req *r, struct str piece, uint64_t offset, bool last)
{
    const struct load *l = r->data;
    struct agent_image_load in = { .UploadID = str_from(l->upload), .Offset = offset, .Data = piece, .Last = last };

    api_call(r, api.agentd, &op_agent_image_load, &in, last ? STORE_TIMEOUT_MS : PIECE_TIMEOUT_MS,
             last ? loaded : piece_stored);
}

void images_load(struct req *r)
{
    struct load *l = arena_alloc(&r->arena, sizeof *l);

    CHECK(l);
    id_new(l->upload);
    r->data = l;
    pieces_open(r, &l->pieces, send_piece, false);
}

/* ---- distribution ---- */

static void resolved(struct req *r, const void *rep, const struct err *e)
{
    const struct agent_image_resolve_reply *x = rep;
    struct buf *b = &r->out;

    if (e->code != 0) {
        api_fail(r, e);
        return;
    }
    buf_puts(b, "{\"Descriptor\":{\"mediaType\":");
    buf_json_str(b, x->MediaType);
    buf_puts(b, ",\"digest\":");
    buf_json_str(b, x->Digest);
    buf_printf(b, ",\"size\":%llu},\"Platforms\":[", (unsigned long long)x->Size);
    if (x->OS.n > 0) {
        buf_puts(b, "{\"architecture\":");
        buf_json_str(b, x->Architecture);
        buf_puts(b, ",\"os\":");
        buf_json_str(b, x->OS);
        buf_putc(b, '}');
    }
    buf_puts(b, "]}\n");
    api_reply(r, 200);
}

void distribution_inspect(struct req *r)
{
    struct agent_image_ref in = { .Image = r->params[0] };
    struct image_ref ref;
    struct err e = ERR_INIT;

    if (image_ref_parse(r->params[0], &ref, &e) < 0) {
        api_fail(r, &e);
        return;
    }
    if (registry_auth(r, &in.RegistryAuth) == 0)
        api_call(r, api.agentd, &op_agent_image_resolve, &in, (unsigned)api.registry_timeout_ms, resolved);
}
