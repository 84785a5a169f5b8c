/* image_worker.c - see image_worker.h. Straight-line code: this process has one job and may block. */
#include "agentd/image_worker.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "agentd/fsutil.h"
#include "agentd/image_index.h"
#include "agentd/image_ref.h"
#include "common/util/base64.h"
#include "common/util/cleanup.h"
#include "common/util/clock.h"
#include "common/util/crypto.h"
#include "common/util/err.h"
#include "common/util/str.h"

#define CONFIG_MAX (8u << 20)

struct job {
    json_t *in;
    const char *store, *tmp, *run;
    char work[512];     /* <tmp>/<pid> */
    uint64_t layer_max; /* bytes of one when unpacked */
};

/* ---- helpers ---- */

static int read_fd(int fd, struct buf *out, size_t max, struct err *e)
{
    char chunk[16384];
    ssize_t n;
    while ((n = read(fd, chunk, sizeof chunk)) > 0) {
        if (out->n + (size_t)n > max)
            return err_set(e, ERR_TOO_BIG, "file is too large");
        buf_put(out, chunk, (size_t)n);
    }
    return n < 0 ? err_errno(e, errno, "read") : 0;
}

static void sha256_hex(struct str s, char hex[CRYPTO_HEX])
{
    uint8_t hash[CRYPTO_HASH];
    crypto_sha256(s, hash);
    crypto_hex(hash, hex);
}

/* first line of a program's complaint, without its timestamps */
static void first_line(int fd, char *out, size_t cap)
{
    ssize_t n = pread(fd, out, cap - 1, 0);
    out[n > 0 ? n : 0] = '\0';
    char *msg = strstr(out, "msg=\"");
    if (msg)
        memmove(out, msg + 5, strlen(msg + 5) + 1);
    out[strcspn(out, "\n")] = '\0';
    size_t len = strlen(out);
    if (msg && len > 0 && out[len - 1] == '"')
        out[len - 1] = '\0';
    for (char *q = out; msg && (q = strstr(q, "\\\"")) != NULL;)
        memmove(q, q + 1, strlen(q));
    char *get =
        strstr(out, "Get \""); /* skopeo says first what it was about to do; the request that failed is enough */
    if (get && get != out)
        memmove(out, get, strlen(get) + 1);
}

/* run - a program to its end. Returns its exit code, or -1; out_fd/err_fd: memory files (may be -1 for none). */
static pid_t start(const char *const *argv, int in_fd, int out_fd, int err_fd)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(in_fd >= 0 ? in_fd : null, 0);
    dup2(out_fd >= 0 ? out_fd : null, 1);
    dup2(err_fd >= 0 ? err_fd : null, 2);
    execv(argv[0], (char *const *)(uintptr_t)argv);
    _exit(127);
}

static int finish(pid_t pid)
{
    int status;
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
        return -1;
    return WEXITSTATUS(status);
}

static int run(const char *const *argv, int out_fd, int err_fd)
{
    return finish(start(argv, -1, out_fd, err_fd));
}

static json_t *load_json_at(int dir, const char *path, struct str *ret_text, struct buf *text, struct err *e)
{
    json_error_t je;
    _cleanup_(closep) int fd = fs_open_at(dir, path);
    if (fd < 0) {
        err_set(e, ERR_INVALID, "invalid image archive: %s: %s", path, strerror(-fd));
        return NULL;
    }
    if (read_fd(fd, text, CONFIG_MAX, e) < 0) {
        err_wrap(e, "invalid image archive: %s", path);
        return NULL;
    }
    *ret_text = buf_str(text);
    json_t *j = json_loadb(text->p ? text->p : "", text->n, 0, &je);
    if (!j)
        err_set(e, ERR_INVALID, "invalid image archive: %s: %s", path, je.text);
    return j;
}

/* ---- layers ---- */

static uint64_t tree_bytes;
static int tree_errno;

/* AUFS-style marks of a layer become overlayfs's: a 0/0 device hides, an attribute makes a folder opaque */
static int fix_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    const char *name = path + ftw->base;
    char target[4096];
    if (type == FTW_F && S_ISREG(st->st_mode))
        tree_bytes += (uint64_t)st->st_size;
    if (strncmp(name, ".wh.", 4) != 0)
        return 0;
    size_t dirlen = (size_t)ftw->base;
    if (dirlen + strlen(name) >= sizeof target)
        return 0;
    memcpy(target, path, dirlen);
    if (strcmp(name, ".wh..wh..opq") == 0) {
        target[dirlen > 1 ? dirlen - 1 : dirlen] = '\0';
        if (setxattr(target, "trusted.overlay.opaque", "y", 1, 0) < 0)
            tree_errno = errno;
    } else if (strncmp(name, ".wh..wh.", 8) != 0) {
        snprintf(target + dirlen, sizeof target - dirlen, "%s", name + 4);
        if (mknod(target, S_IFCHR, makedev(0, 0)) < 0 && errno != EEXIST)
            tree_errno = errno;
    }
    if (type == FTW_F || type == FTW_SL)
        unlink(path);
    return tree_errno ? 1 : 0;
}

static int is_layer_done(const struct job *j, const char *hex)
{
    char path[600];
    snprintf(path, sizeof path, "%s/layers/%.*s", j->store, LAYER_NAME_LEN, hex);
    return access(path, F_OK) == 0;
}

static uint64_t layer_bytes(const struct job *j, const char *hex)
{
    char path[600], text[32] = "";
    snprintf(path, sizeof path, "%s/sizes/%.*s", j->store, LAYER_NAME_LEN, hex);
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && read(fd, text, sizeof text - 1) > 0)
        return strtoull(text, NULL, 10);
    return 0;
}

/* the program that undoes the compression, by the file's first bytes; NULL: none */
static const char *const *unpacker(int fd)
{
    static const char *const gz[] = { "/usr/bin/gzip", "-dc", NULL };
    static const char *const zst[] = { "/usr/bin/zstd", "-dcq", NULL };
    static const char *const xz[] = { "/usr/bin/xz", "-dc", NULL };
    static const char *const bz[] = { "/usr/bin/bzip2", "-dc", NULL };
    unsigned char m[6] = { 0 };
    if (pread(fd, m, sizeof m, 0) < 4)
        return NULL;
    if (m[0] == 0x1f && m[1] == 0x8b)
        return gz;
    if (m[0] == 0x28 && m[1] == 0xb5 && m[2] == 0x2f && m[3] == 0xfd)
        return zst;
    if (memcmp(m,
               "\xfd"
               "7zXZ",
               5) == 0)
        return xz;
    return memcmp(m, "BZh", 3) == 0 ? bz : NULL;
}

static bool write_all(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t w = write(fd, p, n);
        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0)
            return false;
        p += w;
        n -= (size_t)w;
    }
    return true;
}

/* pump - from the (uncompressed) stream into tar's standard input, hashing on the way; false: more than max bytes */
static bool pump(int from, int to, uint64_t max, char hex[65])
{
    static char chunk[1 << 18];
    uint8_t hash[CRYPTO_HASH];
    struct crypto_sha256 *h = crypto_sha256_new();
    ssize_t n;
    bool open = true;
    uint64_t sum = 0;
    while (sum <= max && (n = read(from, chunk, sizeof chunk)) > 0) {
        sum += (uint64_t)n;
        crypto_sha256_add(h, chunk, (size_t)n);
        open = open && write_all(to, chunk, (size_t)n); /* tar may stop early at its end mark: keep hashing */
    }
    crypto_sha256_end(h, hash);
    crypto_hex(hash, hex);
    return sum <= max;
}

static int extract(int fd, const char *dir, uint64_t max, char hex[65], struct err *e)
{
    char dirarg[600], why[300];
    snprintf(dirarg, sizeof dirarg, "--directory=%s", dir);
    const char *const tar[] = { "/usr/bin/tar",
                                "--extract",
                                "--file=-",
                                "--numeric-owner",
                                "--same-owner",
                                "--preserve-permissions",
                                "--xattrs",
                                "--xattrs-include=*",
                                "--xattrs-exclude=trusted.*", /* overlayfs's own marks: only fix_entry() sets them */
                                "--delay-directory-restore",
                                "--warning=none",
                                dirarg,
                                NULL };
    const char *const *filter = unpacker(fd);
    int in = fd, fp[2] = { -1, -1 }, tp[2];
    pid_t fpid = 0;
    _cleanup_(closep) int errfd = memfd_create("stderr", MFD_CLOEXEC);
    lseek(fd, 0, SEEK_SET);
    if (filter) {
        if (access(filter[0], X_OK) < 0)
            return err_set(e, ERR_IO, "unpack layer: %s is not installed", filter[0]);
        if (pipe2(fp, O_CLOEXEC) < 0)
            return err_errno(e, errno, "unpack layer: pipe");
        fpid = start(filter, fd, fp[1], -1);
        close(fp[1]);
        in = fp[0];
    }
    if (pipe2(tp, O_CLOEXEC) < 0)
        return err_errno(e, errno, "unpack layer: pipe");
    pid_t tpid = start(tar, tp[0], -1, errfd);
    close(tp[0]);
    bool fits = pump(in, tp[1], max, hex);
    close(tp[1]);
    if (fp[0] >= 0)
        close(fp[0]); /* a filter that has more to say ends now */
    int trc = finish(tpid), frc = filter ? finish(fpid) : 0;
    if (!fits)
        return err_set(e, ERR_TOO_BIG, "unpack layer: more than %llu bytes (setting layer_size_max)",
                       (unsigned long long)max);
    if (frc != 0)
        return err_set(e, ERR_INVALID, "invalid image archive: a layer's compression is broken");
    if (trc != 0) {
        first_line(errfd, why, sizeof why);
        return err_set(e, strstr(why, "No space left") ? ERR_IO : ERR_INVALID, "unpack layer: %s", why);
    }
    return 0;
}

static int install_layer(const struct job *j, int fd, const char *want_hex, struct err *e)
{
    char dir[600], final[600], hex[65], text[32];
    if (is_layer_done(j, want_hex))
        return 0;
    snprintf(dir, sizeof dir, "%s/layer", j->work);
    if (mkdir(dir, 0755) < 0)
        return err_errno(e, errno, "make %s", dir);
    int r = extract(fd, dir, j->layer_max, hex, e);
    if (r < 0)
        return r;
    if (strcmp(hex, want_hex) != 0)
        return err_set(
            e, ERR_INVALID,
            "invalid image archive: a layer has digest sha256:%.12s..., its configuration says sha256:%.12s...", hex,
            want_hex);
    tree_bytes = 0;
    tree_errno = 0;
    if (nftw(dir, fix_entry, 64, FTW_PHYS | FTW_DEPTH) != 0)
        return err_errno(e, tree_errno ? tree_errno : errno, "unpack layer: whiteouts");
    snprintf(final, sizeof final, "%s/sizes/%.*s", j->store, LAYER_NAME_LEN, hex);
    int n = snprintf(text, sizeof text, "%llu\n", (unsigned long long)tree_bytes);
    _cleanup_(closep) int sfd = open(final, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (sfd < 0 || !write_all(sfd, text, (size_t)n))
        return err_errno(e, errno, "write %s", final);
    snprintf(final, sizeof final, "%s/layers/%.*s", j->store, LAYER_NAME_LEN, hex);
    if (rename(dir, final) < 0 && errno != EEXIST && errno != ENOTEMPTY) /* another worker was faster: fine */
        return err_errno(e, errno, "rename to %s", final);
    return 0;
}

/* ---- one image ---- */

/* install_image - configuration text and layer files (paths below dir) into the store; appends the entry to `out` */
static int install_image(const struct job *j, int dir, struct str config, json_t *paths, json_t *tags, json_t *digests,
                         json_t *out, struct err *e)
{
    json_error_t je;
    char hex[65], path[600], id[80];
    size_t i;
    json_t *v, *conf = json_loadb(config.p, config.n, 0, &je);
    json_t *diff = json_object_get(json_object_get(conf, "rootfs"), "diff_ids");
    if (!conf)
        return err_set(e, ERR_INVALID, "invalid image archive: configuration: %s", je.text);
    uint64_t size = 0;
    int r = 0;
    json_t *layers = json_array();
    const char *os = json_string_value(json_object_get(conf, "os"));
    if (!json_is_array(diff) || json_array_size(diff) != json_array_size(paths))
        r = err_set(e, ERR_INVALID, "invalid image archive: layers from manifest don't match image configuration");
    else if (os && strcmp(os, "linux") != 0)
        r = err_set(e, ERR_INVALID, "cannot load %s image on linux", os);
    json_array_foreach (diff, i, v) {
        const char *d = json_string_value(v);
        if (r < 0)
            break;
        if (!d || strncmp(d, "sha256:", 7) != 0 || strlen(d) != 71 || strspn(d + 7, "0123456789abcdef") != 64) {
            r = err_set(e, ERR_INVALID, "invalid image archive: bad diff_id %zu", i);
            break;
        }
        const char *lp = json_string_value(json_array_get(paths, i));
        _cleanup_(closep) int fd = lp ? fs_open_at(dir, lp) : -ENOENT;
        if (fd < 0)
            r = err_set(e, ERR_INVALID, "invalid image archive: layer %s: %s", lp ? lp : "?", strerror(-fd));
        else
            r = install_layer(j, fd, d + 7, e);
        size += layer_bytes(j, d + 7);
        json_array_append_new(layers, json_string(d + 7));
    }
    sha256_hex(config, hex);
    if (r == 0) {
        snprintf(path, sizeof path, "%s/configs/%s", j->store, hex);
        _cleanup_(closep) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (fd < 0 || !write_all(fd, config.p, config.n))
            r = err_errno(e, errno, "write %s", path);
    }
    if (r == 0) {
        struct wall_ns created = { 0 };
        const char *c = json_string_value(json_object_get(conf, "created"));
        if (c)
            (void)wall_parse(str_from(c), &created);
        snprintf(id, sizeof id, "sha256:%s", hex);
        json_array_append_new(out, json_pack("{s:s,s:O,s:O,s:I,s:I,s:O}", "ID", id, "RepoTags", tags, "RepoDigests",
                                             digests, "Created", (json_int_t)(created.ns / 1000000000), "Size",
                                             (json_int_t)size, "Layers", layers));
    }
    json_decref(layers);
    json_decref(conf);
    return r;
}

/* ---- archives ---- */

static json_t *familiar_tags(json_t *tags)
{
    json_t *out = json_array(), *v;
    size_t i;
    struct err e = ERR_INIT;
    json_array_foreach (tags, i, v) {
        struct image_ref r;
        char name[IMAGE_REF_MAX + 130];
        if (json_is_string(v) && image_ref_parse(str_from(json_string_value(v)), &r, &e) == 0 && r.tag[0]) {
            image_ref_familiar_tag(&r, name);
            json_array_append_new(out, json_string(name));
        }
    }
    return out;
}

/* Docker's form: manifest.json lists the images */
static int load_docker(const struct job *j, int dir, json_t *images, struct err *e)
{
    _cleanup_(buf_done) struct buf mtext = BUF_INIT;
    struct str s;
    size_t i;
    json_t *m, *manifest = load_json_at(dir, "manifest.json", &s, &mtext, e);
    int r = 0;
    if (!manifest)
        return -e->code;
    if (!json_is_array(manifest) || json_array_size(manifest) == 0)
        r = err_set(e, ERR_INVALID, "invalid image archive: manifest.json lists no image");
    json_array_foreach (manifest, i, m) {
        _cleanup_(buf_done) struct buf ctext = BUF_INIT;
        const char *cpath = json_string_value(json_object_get(m, "Config"));
        json_t *conf = r == 0 ? load_json_at(dir, cpath ? cpath : "Config", &s, &ctext, e) : NULL;
        if (!conf) {
            r = -e->code;
            break;
        }
        json_decref(conf);
        json_t *tags = familiar_tags(json_object_get(m, "RepoTags")), *none = json_array();
        r = install_image(j, dir, s, json_object_get(m, "Layers"), tags, none, images, e);
        json_decref(tags);
        json_decref(none);
        if (r < 0)
            break;
    }
    json_decref(manifest);
    return r;
}

static void blob_path(const char *digest, char out[128])
{
    snprintf(out, 128, "blobs/sha256/%.64s", strncmp(digest, "sha256:", 7) == 0 ? digest + 7 : "invalid");
}

static const char *arch_name(void)
{
#if defined(__aarch64__)
    return "arm64";
#else
    return "amd64";
#endif
}

static bool is_index(json_t *desc)
{
    const char *t = json_string_value(json_object_get(desc, "mediaType"));
    return t && (strstr(t, "image.index") || strstr(t, "manifest.list"));
}

/* from an image manifest: where its configuration and layers are */
static int install_manifest(const struct job *j, int dir, json_t *manifest, bool oci_layout, json_t *tags,
                            json_t *digests, json_t *images, struct err *e)
{
    _cleanup_(buf_done) struct buf ctext = BUF_INIT;
    char path[128], hex[65];
    struct str s;
    size_t i;
    const char *cd = json_string_value(json_object_get(json_object_get(manifest, "config"), "digest"));
    json_t *l, *layers = json_object_get(manifest, "layers");
    if (!cd || strncmp(cd, "sha256:", 7) != 0 || !json_is_array(layers))
        return err_set(e, ERR_INVALID, "unsupported image manifest (schema 1, or not an image)");
    if (oci_layout)
        blob_path(cd, path);
    else
        snprintf(path, sizeof path, "%.64s", cd + 7);
    json_t *conf = load_json_at(dir, path, &s, &ctext, e);
    if (!conf)
        return -e->code;
    json_decref(conf);
    sha256_hex(s, hex);
    if (strcmp(hex, cd + 7) != 0)
        return err_set(e, ERR_INVALID, "invalid image archive: the configuration's digest is wrong");
    json_t *paths = json_array();
    json_array_foreach (layers, i, l) {
        const char *d = json_string_value(json_object_get(l, "digest"));
        if (oci_layout)
            blob_path(d ? d : "", path);
        else
            snprintf(path, sizeof path, "%.64s", d && strlen(d) == 71 ? d + 7 : "invalid");
        json_array_append_new(paths, json_string(path));
    }
    int r = install_image(j, dir, s, paths, tags, digests, images, e);
    json_decref(paths);
    return r;
}

static int load_oci_entry(const struct job *j, int dir, json_t *desc, json_t *tags, json_t *images, int depth,
                          struct err *e)
{
    _cleanup_(buf_done) struct buf text = BUF_INIT;
    char path[128];
    struct str s;
    size_t i;
    int r = 0;
    const char *d = json_string_value(json_object_get(desc, "digest"));
    blob_path(d ? d : "", path);
    json_t *m = load_json_at(dir, path, &s, &text, e), *v, *none = json_array();
    if (!m) {
        r = -e->code;
    } else if (is_index(desc) || json_is_array(json_object_get(m, "manifests"))) {
        r = err_set(e, ERR_INVALID, "no image for linux/%s in the archive", arch_name());
        json_array_foreach (json_object_get(m, "manifests"), i, v) {
            json_t *p = json_object_get(v, "platform");
            const char *a = json_string_value(json_object_get(p, "architecture"));
            if (depth < 4 && (!a || strcmp(a, arch_name()) == 0)) {
                r = load_oci_entry(j, dir, v, tags, images, depth + 1, e);
                break;
            }
        }
    } else {
        r = install_manifest(j, dir, m, true, tags, none, images, e);
    }
    json_decref(none);
    json_decref(m);
    return r;
}

static int load_oci(const struct job *j, int dir, json_t *images, struct err *e)
{
    _cleanup_(buf_done) struct buf text = BUF_INIT;
    struct str s;
    size_t i;
    json_t *v, *index = load_json_at(dir, "index.json", &s, &text, e);
    if (!index)
        return -e->code;
    int r = 0;
    if (json_array_size(json_object_get(index, "manifests")) == 0)
        r = err_set(e, ERR_INVALID, "invalid image archive: index.json lists no image");
    json_array_foreach (json_object_get(index, "manifests"), i, v) {
        json_t *ann = json_object_get(v, "annotations");
        json_t *name = json_object_get(ann, "io.containerd.image.name");
        json_t *ref = name ? name : json_object_get(ann, "org.opencontainers.image.ref.name");
        json_t *raw = json_array();
        if (ref)
            json_array_append(raw, ref);
        json_t *tags = familiar_tags(raw);
        r = load_oci_entry(j, dir, v, tags, images, 0, e);
        json_decref(raw);
        json_decref(tags);
        if (r < 0)
            break;
    }
    json_decref(index);
    return r;
}

static int job_load(const struct job *j, json_t *out, struct err *e)
{
    char dir[600], why[300];
    const char *file = json_string_value(json_object_get(j->in, "File"));
    snprintf(dir, sizeof dir, "%s/archive", j->work);
    if (!file || mkdir(dir, 0700) < 0)
        return err_errno(e, errno, "make %s", dir);
    const char *const tar[] = { "/usr/bin/tar",   "--extract", "--file",          file,
                                "--directory",    dir,         "--no-same-owner", "--no-same-permissions",
                                "--warning=none", NULL };
    _cleanup_(closep) int errfd = memfd_create("stderr", MFD_CLOEXEC);
    if (run(tar, -1, errfd) != 0) {
        first_line(errfd, why, sizeof why);
        bool full = strstr(why, "No space left");
        return err_set(e, full ? ERR_IO : ERR_INVALID, "%s: %s", full ? "load image" : "invalid image archive", why);
    }
    _cleanup_(closep) int dfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    json_t *images = json_array();
    int r;
    if (faccessat(dfd, "manifest.json", F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        r = load_docker(j, dfd, images, e);
    else if (faccessat(dfd, "index.json", F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        r = load_oci(j, dfd, images, e);
    else
        r = err_set(e, ERR_INVALID, "invalid image archive: neither manifest.json nor index.json in it");
    json_object_set_new(out, "Images", images);
    return r;
}

/* ---- registries ---- */

/* a credentials file for skopeo on tmpfs, gone when the job ends */
static int write_auth(const struct job *j, const struct image_ref *ref, char path[600], struct err *e)
{
    json_t *auth = json_object_get(j->in, "Auth");
    const char *user = json_string_value(json_object_get(auth, "username"));
    const char *pass = json_string_value(json_object_get(auth, "password"));
    const char *ready = json_string_value(json_object_get(auth, "auth"));
    const char *token = json_string_value(json_object_get(auth, "identitytoken"));
    path[0] = '\0';
    if (!(user && *user) && !(ready && *ready) && !(token && *token))
        return 0;
    json_t *entry = json_object();
    if (token && *token)
        json_object_set_new(entry, "identitytoken", json_string(token));
    if (user && *user) {
        _cleanup_(buf_done) struct buf up = BUF_INIT;
        buf_printf(&up, "%s:%s", user, pass ? pass : "");
        _cleanup_(buf_done) struct buf b64 = BUF_INIT;
        base64_put(&b64, buf_str(&up));
        json_object_set_new(entry, "auth", json_string(buf_cstr(&b64)));
        crypto_wipe(b64.p, b64.n);
        crypto_wipe(up.p, up.n);
    } else if (ready && *ready) {
        json_object_set_new(entry, "auth", json_string(ready));
    }
    json_t *root = json_pack("{s:{s:o}}", "auths", ref->domain, entry);
    char *text = json_dumps(root, JSON_COMPACT);
    snprintf(path, 600, "%s/auth-%d.json", j->run, (int)getpid());
    _cleanup_(closep) int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int r = fd >= 0 && text && write_all(fd, text, strlen(text)) ? 0 : err_errno(e, errno, "write credentials");
    if (text)
        explicit_bzero(text, strlen(text));
    free(text);
    json_decref(root);
    return r;
}

static int skopeo_error(const char *why, const struct image_ref *ref, struct err *e)
{
    char name[IMAGE_REF_MAX], full[IMAGE_REF_MAX + 130];
    image_ref_familiar(ref, name);
    if (ref->digest[0])
        image_ref_familiar_digest(ref, ref->digest, full);
    else
        image_ref_familiar_tag(ref, full);
    if (strstr(why, "manifest unknown") || strstr(why, "name unknown") || strstr(why, "404"))
        return err_set(e, ERR_NOT_FOUND, "manifest for %s not found: manifest unknown: manifest unknown", full);
    if (strstr(why, "unauthorized") || strstr(why, "authentication required") || strstr(why, "denied") ||
        strstr(why, "401") || strstr(why, "403") || strstr(why, "invalid username/password"))
        return err_set(e, ERR_UNAUTHORIZED,
                       "pull access denied for %s, repository does not exist or may require 'docker login': "
                       "unauthorized: authentication required",
                       name);
    if (strstr(why, "No space left"))
        return err_set(e, ERR_IO, "pull %s: No space left on device", full);
    return err_set(e, ERR_IO, "pull %s: %s", full, why);
}

static int skopeo(const struct job *j, const struct image_ref *ref, const char *auth, const char *const *args,
                  int out_fd, bool src, struct err *e)
{
    const char *argv[20] = { "/usr/bin/skopeo" };
    size_t n = 1;
    char why[300];
    _cleanup_(closep) int errfd = memfd_create("stderr", MFD_CLOEXEC);
    while (*args)
        argv[n++] = *args++;
    const char *last = argv[n - 1], *prev = src ? argv[n - 2] : NULL;
    n -= src ? 2 : 1;
    if (auth[0]) {
        argv[n++] = src ? "--src-authfile" : "--authfile";
        argv[n++] = auth;
    } else {
        argv[n++] = src ? "--src-no-creds" : "--no-creds";
    }
    if (json_is_true(json_object_get(j->in, "Insecure")))
        argv[n++] = src ? "--src-tls-verify=false" : "--tls-verify=false";
    if (prev)
        argv[n++] = prev;
    argv[n++] = last;
    argv[n] = NULL;
    if (run(argv, out_fd, errfd) == 0)
        return 0;
    first_line(errfd, why, sizeof why);
    return skopeo_error(why, ref, e);
}

static void source_name(const struct image_ref *ref, const char *digest, char out[1200])
{
    if (digest[0])
        snprintf(out, 1200, "docker://%s/%s@%s", ref->domain, ref->path, digest);
    else
        snprintf(out, 1200, "docker://%s/%s:%s", ref->domain, ref->path, ref->tag);
}

/* the manifest as the registry has it (maybe a list), and its digest */
static int fetch_manifest(const struct job *j, const struct image_ref *ref, const char *auth, struct buf *raw,
                          char digest[80], struct err *e)
{
    char src[1200], hex[65];
    source_name(ref, ref->digest, src);
    const char *const args[] = { "inspect", "--raw", src, NULL };
    _cleanup_(closep) int out = memfd_create("manifest", MFD_CLOEXEC);
    int r = skopeo(j, ref, auth, args, out, false, e);
    if (r < 0)
        return r;
    lseek(out, 0, SEEK_SET);
    r = read_fd(out, raw, CONFIG_MAX, e);
    if (r < 0)
        return r;
    sha256_hex(buf_str(raw), hex);
    snprintf(digest, 80, "sha256:%s", hex);
    return 0;
}

static int copy_and_install(const struct job *j, const struct image_ref *ref, const char *auth, const char *digest,
                            json_t *images, struct err *e)
{
    char src[1200], dst[700], dir[600], name[IMAGE_REF_MAX + 130];
    snprintf(dir, sizeof dir, "%s/pull", j->work);
    snprintf(dst, sizeof dst, "dir:%s", dir);
    source_name(ref, digest, src);
    const char *const args[] = { "copy", "--quiet", src, dst, NULL };
    int r = mkdir(dir, 0700) < 0 ? err_errno(e, errno, "make %s", dir) : skopeo(j, ref, auth, args, -1, true, e);
    if (r < 0)
        return r;
    _cleanup_(closep) int dfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    _cleanup_(buf_done) struct buf text = BUF_INIT;
    struct str s;
    json_t *m = load_json_at(dfd, "manifest.json", &s, &text, e), *tags = json_array(), *digests = json_array();
    if (ref->tag[0] && !ref->digest[0]) {
        image_ref_familiar_tag(ref, name);
        json_array_append_new(tags, json_string(name));
    }
    image_ref_familiar_digest(ref, digest, name);
    json_array_append_new(digests, json_string(name));
    r = m ? install_manifest(j, dfd, m, false, tags, digests, images, e) : -e->code;
    json_decref(m);
    json_decref(tags);
    json_decref(digests);
    return r;
}

static bool known(json_t *list, const char *digest)
{
    size_t i;
    json_t *v;
    json_array_foreach (list, i, v) {
        const char *s = json_string_value(v), *at = s ? strrchr(s, '@') : NULL;
        if (at && strcmp(at + 1, digest) == 0)
            return true;
    }
    return false;
}

static int job_pull(const struct job *j, json_t *out, struct err *e)
{
    struct image_ref ref;
    char auth[600] = "", digest[80];
    _cleanup_(buf_done) struct buf raw = BUF_INIT;
    const char *image = json_string_value(json_object_get(j->in, "Image"));
    int r = image_ref_parse(str_from(image), &ref, e);
    if (r == 0)
        r = write_auth(j, &ref, auth, e);
    if (r == 0)
        r = fetch_manifest(j, &ref, auth, &raw, digest, e);
    if (r == 0) {
        json_object_set_new(out, "Digest", json_string(digest));
        if (known(json_object_get(j->in, "Known"), digest)) {
            json_object_set_new(out, "UpToDate", json_true());
        } else {
            json_t *images = json_array();
            r = copy_and_install(j, &ref, auth, digest, images, e);
            json_object_set_new(out, "Images", images);
        }
    }
    if (auth[0])
        unlink(auth);
    return r;
}

static int job_resolve(const struct job *j, json_t *out, struct err *e)
{
    struct image_ref ref;
    char auth[600] = "", digest[80];
    _cleanup_(buf_done) struct buf raw = BUF_INIT;
    json_error_t je;
    const char *image = json_string_value(json_object_get(j->in, "Image"));
    int r = image_ref_parse(str_from(image), &ref, e);
    if (r == 0)
        r = write_auth(j, &ref, auth, e);
    if (r == 0)
        r = fetch_manifest(j, &ref, auth, &raw, digest, e);
    if (auth[0])
        unlink(auth);
    if (r < 0)
        return r;
    json_t *m = json_loadb(raw.p, raw.n, 0, &je);
    const char *mt = json_string_value(json_object_get(m, "mediaType"));
    json_object_set_new(out, "MediaType", json_string(mt ? mt : "application/vnd.oci.image.manifest.v1+json"));
    json_object_set_new(out, "Digest", json_string(digest));
    json_object_set_new(out, "Size", json_integer((json_int_t)raw.n));
    json_object_set_new(out, "Architecture", json_string(arch_name()));
    json_object_set_new(out, "OS", json_string("linux"));
    json_decref(m);
    return 0;
}

/* ---- the process ---- */

static int rm_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    (void)remove(path); /* as much as possible */
    return 0;
}

static int do_job(struct job *j, json_t *out, struct err *e)
{
    const char *op = json_string_value(json_object_get(j->in, "Op"));
    j->store = json_string_value(json_object_get(j->in, "Store"));
    j->tmp = json_string_value(json_object_get(j->in, "Tmp"));
    j->run = json_string_value(json_object_get(j->in, "Run"));
    json_int_t max = json_integer_value(json_object_get(j->in, "LayerMax"));
    j->layer_max = max > 0 ? (uint64_t)max : UINT64_MAX;
    if (!op || !j->store || !j->tmp || !j->run)
        return err_set(e, ERR_INTERNAL, "image worker: incomplete job");
    snprintf(j->work, sizeof j->work, "%s/%d", j->tmp, (int)getpid());
    if (mkdir(j->work, 0700) < 0)
        return err_errno(e, errno, "make %s", j->work);
    int r = strcmp(op, "load") == 0      ? job_load(j, out, e)
            : strcmp(op, "pull") == 0    ? job_pull(j, out, e)
            : strcmp(op, "resolve") == 0 ? job_resolve(j, out, e)
                                         : err_set(e, ERR_INTERNAL, "image worker: unknown job %s", op);
    nftw(j->work, rm_entry, 64, FTW_PHYS | FTW_DEPTH);
    if (r == 0 && json_object_get(out, "Images")) { /* on disk before anybody refers to it */
        _cleanup_(closep) int fd = open(j->store, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0 || syncfs(fd) < 0)
            return err_errno(e, errno, "sync %s", j->store);
    }
    return r;
}

int image_worker_main(void)
{
    struct job j = { 0 };
    struct err e = ERR_INIT;
    json_error_t je;
    _cleanup_(buf_done) struct buf in = BUF_INIT;
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* a job without anybody waiting for it is of no use */
    signal(SIGPIPE, SIG_IGN);
    umask(022);
    json_t *out = json_object();
    int r = read_fd(0, &in, 80u << 20, &e);
    if (r == 0) {
        j.in = json_loadb(in.p ? in.p : "", in.n, 0, &je);
        if (in.p)
            explicit_bzero(in.p, in.n);
        r = j.in ? do_job(&j, out, &e) : err_set(&e, ERR_INTERNAL, "image worker: %s", je.text);
    }
    if (r < 0) {
        json_object_clear(out);
        json_object_set_new(out, "Code", json_integer(e.code));
        json_object_set_new(out, "Error", json_string(e.msg));
    }
    r = json_dumpf(out, stdout, JSON_COMPACT) < 0 || fflush(stdout) != 0;
    json_decref(out);
    json_decref(j.in);
    return r;
}
