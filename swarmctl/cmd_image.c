#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "common/util/cleanup.h"
#include "swarmctl/cmds.h"
#include "swarmctl/conv.h"
#include "swarmctl/display.h"
#include "swarmctl/human.h"
#include "swarmctl/imageref.h"
#include "swarmctl/jpath.h"
#include "swarmctl/output.h"

static const struct flag ls_flags[] = {
    { .name = "all", .shorthand = 'a', .type = &T_BOOL, .help = "Show all images (default hides intermediate images)" },
    { .name = "digests", .type = &T_BOOL, .help = "Show digests" },
    { .name = "no-trunc", .type = &T_BOOL, .help = "Don't truncate output" },
    { .name = "quiet", .shorthand = 'q', .type = &T_BOOL, .help = "Only show image IDs" },
    FLAGS_END,
};
static const struct flag load_flags[] = {
    { .name = "input",
      .shorthand = 'i',
      .type = &T_STRING,
      .choices = "@file",
      .help = "Read from tar archive file, instead of STDIN" },
    { .name = "quiet", .shorthand = 'q', .type = &T_BOOL, .help = "Suppress the load output" },
    FLAGS_END,
};
static const struct flag pull_flags[] = {
    { .name = "all-tags", .shorthand = 'a', .type = &T_BOOL, .help = "Download all tagged images in the repository" },
    { .name = "platform", .type = &T_STRING, .help = "Set platform if server is multi-platform capable" },
    { .name = "quiet", .shorthand = 'q', .type = &T_BOOL, .help = "Suppress verbose output" },
    FLAGS_END,
};
static const struct flag rm_flags[] = {
    { .name = "force", .shorthand = 'f', .type = &T_BOOL, .help = "Force removal of the image" },
    { .name = "no-prune", .type = &T_BOOL, .help = "Do not delete untagged parents" },
    FLAGS_END,
};
const struct flag *const images_tables[] = { filter_flags, format_flags, ls_flags, NULL };
const struct flag *const load_tables[] = { load_flags, NULL };
const struct flag *const pull_tables[] = { pull_flags, NULL };
const struct flag *const rmi_tables[] = { rm_flags, NULL };
static const struct flag *const inspect_tables[] = { inspect_flags, NULL };

/* ---- ls ---- */

static const char *const ls_titles[][2] = {
    { "ID", "IMAGE ID" },
    { "Repository", "REPOSITORY" },
    { "Tag", "TAG" },
    { "Digest", "DIGEST" },
    { "CreatedSince", "CREATED" },
    { "CreatedAt", "CREATED AT" },
    { "Size", "SIZE" },
    { "Containers", "CONTAINERS" },
    { "VirtualSize", "SIZE" },
    { "SharedSize", "SHARED SIZE" },
    { "UniqueSize", "UNIQUE SIZE" },
    { NULL, NULL },
};
#define COMMON_COLUMNS "{{.ID}}\\t{{if .CreatedSince}}{{.CreatedSince}}{{else}}N/A{{end}}\\t{{.Size}}"
static const struct listing ls_listing = {
    .table = "table {{.Repository}}\\t{{.Tag}}\\t" COMMON_COLUMNS,
    .raw = "repository: {{.Repository}}\\ntag: {{.Tag}}\\nimage_id: {{.ID}}\\ncreated_at: {{.CreatedAt}}\\n"
           "virtual_size: {{.Size}}\\n",
    .titles = ls_titles,
};
static const struct listing digest_listing = {
    .table = "table {{.Repository}}\\t{{.Tag}}\\t{{.Digest}}\\t" COMMON_COLUMNS,
    .raw = "repository: {{.Repository}}\\ntag: {{.Tag}}\\ndigest: {{.Digest}}\\nimage_id: {{.ID}}\\n"
           "created_at: {{.CreatedAt}}\\nvirtual_size: {{.Size}}\\n",
    .titles = ls_titles,
};

struct image_list {
    struct cli *c;
    bool trunc, digests;
    json_t *rows;
};

static void put_size(json_t *row, const char *field, int64_t size, int digits)
{
    struct buf b = BUF_INIT;

    if (size < 0)
        buf_puts(&b, "N/A");
    else
        human_size(&b, (double)size, digits);
    row_text(row, field, &b);
    buf_done(&b);
}

static void add_row(struct image_list *l, json_t *img, struct str repo, struct str tag, struct str digest)
{
    json_t *row = json_object();
    struct buf b = BUF_INIT;
    const char *id = jstr(img, "Id");
    int64_t created = jint(img, "Created"), size = jint(img, "Size"), shared = jint(img, "SharedSize");
    time_t when = (time_t)created;
    struct tm tm;
    char text[64];

    if (jint(img, "Containers") < 0)
        buf_puts(&b, "N/A");
    else
        buf_printf(&b, "%lld", (long long)jint(img, "Containers"));
    row_text(row, "Containers", &b);
    strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S %z %Z", localtime_r(&when, &tm));
    json_object_set_new(row, "CreatedAt", json_string(text));
    human_duration(&b, created < INT64_MAX / 1000000000 ? l->c->now_ns() - created * 1000000000 : 0);
    buf_puts(&b, " ago");
    row_text(row, "CreatedSince", &b);
    buf_put(&b, digest.p, digest.n);
    row_text(row, "Digest", &b);
    if (l->trunc && strncmp(id, "sha256:", 7) == 0)
        id += 7;
    buf_printf(&b, "%.*s", l->trunc ? 12 : 80, id);
    row_text(row, "ID", &b);
    buf_put(&b, repo.p, repo.n);
    row_text(row, "Repository", &b);
    put_size(row, "SharedSize", shared, 4);
    put_size(row, "Size", size, 3);
    buf_put(&b, tag.p, tag.n);
    row_text(row, "Tag", &b);
    put_size(row, "UniqueSize", size < 0 || shared < 0 ? -1 : size - shared, 4);
    put_size(row, "VirtualSize", size, 4);
    json_array_append_new(l->rows, row);
    buf_done(&b);
}

/* A row for each tag (and digest, when they are shown), then for repositories that have a digest only. */
static void add_image(struct image_list *l, json_t *img)
{
    json_t *tags = jget(img, "RepoTags"), *digests = jget(img, "RepoDigests"), *t, *d;
    struct imageref ref, dref;
    size_t i, k, rows = json_array_size(l->rows);

    for_each (tags, i, t) {
        bool any = false;
        if (!imageref_parse(json_string_value(t), &ref) || ref.tag.n == 0)
            continue;
        for_each (digests, k, d)
            if (l->digests && imageref_parse(json_string_value(d), &dref) && str_eq(dref.name, ref.name)) {
                add_row(l, img, ref.name, ref.tag, dref.digest);
                any = true;
            }
        if (!any)
            add_row(l, img, ref.name, ref.tag, STR("<none>"));
    }
    for_each (digests, k, d) {
        bool tagged = false;
        if (!imageref_parse(json_string_value(d), &dref))
            continue;
        for_each (tags, i, t)
            tagged = tagged || (imageref_parse(json_string_value(t), &ref) && str_eq(ref.name, dref.name));
        if (!tagged)
            add_row(l, img, dref.name, STR("<none>"), l->digests ? dref.digest : (struct str){ "", 0 });
    }
    if (json_array_size(l->rows) == rows)
        add_row(l, img, STR("<none>"), STR("<none>"), STR("<none>"));
}

int run_image_ls(struct cli *c, struct call *call)
{
    const struct flagset *fs = &call->fs;
    struct image_list l = { .c = c, .trunc = !flag_bool(fs, "no-trunc"), .rows = json_array() };
    json_t *filters = filters_of(fs, "filter"), *list = NULL, *img;
    const char *format = flag_str(fs, "format");
    struct buf path = BUF_INIT;
    size_t i;
    int r;

    l.digests = flag_bool(fs, "digests") || strstr(format, "{{.Digest}}");
    if (call->argc > 0)
        filter_add(filters, "reference", call->argv[0]);
    buf_puts(&path, "/images/json");
    if (flag_bool(fs, "all"))
        buf_puts(&path, "?all=1");
    url_filters(&path, filters);
    if ((r = api_get(c, &list, "%s", buf_cstr(&path))) != 0) {
        cli_fail_api(c);
    } else {
        for_each (list, i, img)
            add_image(&l, img);
        r = listing_print(c, flag_bool(fs, "digests") ? &digest_listing : &ls_listing, l.rows, format,
                          flag_bool(fs, "quiet"));
    }
    json_decref(l.rows);
    json_decref(list);
    buf_done(&path);
    return r;
}

/* ---- load, pull ---- */

/* Runs a request whose reply is a stream of messages, shown as they come. */
static int stream_messages(struct cli *c, const char *path, int body_fd, const char *type, const char *const *headers,
                           bool quiet)
{
    struct display d = { .out = c->out, .tty = c->out_tty, .columns = c->columns };
    struct message_stream s = { .display = &d, .quiet = quiet };
    int r = 0;

    if (api_stream(c, "POST", path, body_fd, type, headers, message_feed, &s) != 0)
        r = cli_fail_api(c);
    else if (s.error.n > 0)
        r = cli_fail(c, "%s", buf_cstr(&s.error));
    message_done(&s);
    display_done(&d);
    return r;
}

int run_image_load(struct cli *c, struct call *call)
{
    const char *input = flag_str(&call->fs, "input");
    bool quiet = flag_bool(&call->fs, "quiet") || !c->out_tty;
    _cleanup_(closep) int file = -1;

    if (*input) {
        file = open(input, O_RDONLY | O_CLOEXEC);
        if (file < 0)
            return cli_fail(c, "open %s: %s", input, errno == ENOENT ? "no such file or directory" : strerror(errno));
    } else if (c->in_tty) {
        return cli_fail(c, "requested load from stdin, but stdin is empty");
    }
    return stream_messages(c, quiet ? "/images/load?quiet=1" : "/images/load?quiet=0", file >= 0 ? file : c->in_fd,
                           "application/x-tar", NULL, false);
}

int run_image_pull(struct cli *c, struct call *call)
{
    bool quiet = flag_bool(&call->fs, "quiet"), all = flag_bool(&call->fs, "all-tags");
    struct buf path = BUF_INIT, auth = BUF_INIT, name = BUF_INIT, tag = BUF_INIT, full = BUF_INIT;
    struct imageref ref;
    int r = 0;

    if (!imageref_parse(call->argv[0], &ref))
        return cli_fail(c, "invalid reference format");
    if (all && (ref.tag.n || ref.digest.n))
        return cli_fail(c, "tag can't be used with --all-tags/-a");
    buf_put(&name, ref.name.p, ref.name.n);
    if (ref.digest.n)
        buf_put(&tag, ref.digest.p, ref.digest.n);
    else if (ref.tag.n)
        buf_put(&tag, ref.tag.p, ref.tag.n);
    else if (!all)
        buf_puts(&tag, "latest");
    if (!all && !ref.tag.n && !ref.digest.n && !quiet)
        fputs("Using default tag: latest\n", c->out);
    fflush(c->out);
    buf_puts(&path, "/images/create");
    url_query(&path, "fromImage", buf_cstr(&name));
    if (tag.n)
        url_query(&path, "tag", buf_cstr(&tag));
    if (flag_changed(&call->fs, "platform"))
        url_query(&path, "platform", flag_str(&call->fs, "platform"));
    registry_auth(c, call->argv[0], &auth);
    const char *headers[] = { buf_cstr(&auth), NULL };
    r = stream_messages(c, buf_cstr(&path), -1, "text/plain", headers, quiet);
    if (r == 0) {
        /* the full name, as docker prints it at the end */
        imageref_registry(&full, call->argv[0]);
        bool hub = strcmp(buf_cstr(&full), "docker.io") == 0;
        fprintf(c->out, "%s%s%s%s%s\n", hub ? "docker.io/" : "", hub && !strchr(buf_cstr(&name), '/') ? "library/" : "",
                buf_cstr(&name), tag.n ? ref.digest.n ? "@" : ":" : "", buf_cstr(&tag));
    }
    if (auth.n)
        explicit_bzero(auth.p, auth.n);
    buf_done(&path);
    buf_done(&auth);
    buf_done(&name);
    buf_done(&tag);
    buf_done(&full);
    return r;
}

/* ---- rm, tag, inspect ---- */

int run_image_rm(struct cli *c, struct call *call)
{
    bool force = flag_bool(&call->fs, "force"), fatal = false;
    struct buf missing = BUF_INIT;

    for (int i = 0; i < call->argc; i++) {
        struct buf path = BUF_INIT;
        json_t *done = NULL, *d;
        size_t k;
        buf_puts(&path, "/images/");
        url_path(&path, call->argv[i]);
        if (force)
            url_query(&path, "force", "1");
        if (flag_bool(&call->fs, "no-prune"))
            url_query(&path, "noprune", "1");
        if (api_call(c, "DELETE", buf_cstr(&path), NULL, &done) != 0) {
            fatal = fatal || c->status != 404;
            buf_printf(&missing, "%s%s", missing.n ? "\n" : "", buf_cstr(&c->why));
        }
        for_each (done, k, d)
            fprintf(c->out, "%s %s\n", *jstr(d, "Deleted") ? "Deleted:" : "Untagged:",
                    *jstr(d, "Deleted") ? jstr(d, "Deleted") : jstr(d, "Untagged"));
        json_decref(done);
        buf_done(&path);
    }
    int r = 0;
    if (missing.n > 0 && force && !fatal)
        fprintf(c->err, "%s\n", buf_cstr(&missing));
    else if (missing.n > 0)
        r = cli_fail(c, "%s", buf_cstr(&missing));
    buf_done(&missing);
    return r;
}

int run_image_tag(struct cli *c, struct call *call)
{
    struct buf path = BUF_INIT, repo = BUF_INIT, tag = BUF_INIT;
    struct imageref ref;
    int r;

    if (!imageref_parse(call->argv[1], &ref) || ref.digest.n)
        return cli_fail(c, "Error parsing reference: \"%s\" is not a valid repository/tag: %s", call->argv[1],
                        strchr(call->argv[1], '@') ? "refusing to create a tag with a digest reference"
                                                   : "invalid reference format");
    buf_put(&repo, ref.name.p, ref.name.n);
    buf_put(&tag, ref.tag.n ? ref.tag.p : "latest", ref.tag.n ? ref.tag.n : 6);
    buf_puts(&path, "/images/");
    url_path(&path, call->argv[0]);
    buf_puts(&path, "/tag");
    url_query(&path, "repo", buf_cstr(&repo));
    url_query(&path, "tag", buf_cstr(&tag));
    r = api_call(c, "POST", buf_cstr(&path), NULL, NULL) != 0 ? cli_fail_api(c) : 0;
    buf_done(&path);
    buf_done(&repo);
    buf_done(&tag);
    return r;
}

static int get_one(struct cli *c, const char *ref, void *arg, struct buf *ret)
{
    (void)arg;
    return get_object(c, "/images/", ref, "/json", NULL, ret);
}

static int run_image_inspect(struct cli *c, struct call *call)
{
    return inspect_print(c, call->argv, call->argc, flag_str(&call->fs, "format"), get_one, NULL);
}

const struct cmd image_cmds[] = {
    { .name = "inspect",
      .args = "IMAGE [IMAGE...]",
      .help = "Display detailed information on one or more images",
      .min = 1,
      .max = -1,
      .flags = inspect_tables,
      .run = run_image_inspect,
      .complete = "@image" },
    { .name = "load",
      .help = "Load an image from a tar archive or STDIN",
      .flags = load_tables,
      .run = run_image_load,
      .also = "load" },
    { .name = "ls",
      .aliases = "list",
      .args = "[REPOSITORY[:TAG]]",
      .help = "List images",
      .max = 1,
      .flags = images_tables,
      .run = run_image_ls,
      .also = "images" },
    { .name = "pull",
      .args = "NAME[:TAG|@DIGEST]",
      .help = "Download an image from a registry",
      .min = 1,
      .max = 1,
      .flags = pull_tables,
      .run = run_image_pull,
      .also = "pull" },
    { .name = "rm",
      .aliases = "remove",
      .args = "IMAGE [IMAGE...]",
      .help = "Remove one or more images",
      .min = 1,
      .max = -1,
      .flags = rmi_tables,
      .run = run_image_rm,
      .also = "rmi",
      .complete = "@image" },
    { .name = "tag",
      .args = "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
      .help = "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
      .min = 2,
      .max = 2,
      .run = run_image_tag,
      .also = "tag",
      .complete = "@image" },
    { .name = NULL },
};
