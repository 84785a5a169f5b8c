#include "meshd/overlay/attach.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/util/check.h"
#include "common/util/cleanup.h"
#include "common/util/dir.h"

#define FILE_BYTES_MAX (4u << 20)
#define ARENA_MAX (32u << 20)
#define VNI_MAX 0xffffffu
#define MTU_MIN 576u

/* ---- requests ---- */

static int net_in(const struct net_attachment *in, unsigned eth, struct attach_net *n, struct err *e)
{
    const struct net_network *net = &in->Network;
    if (!str_copy(n->id, sizeof n->id, net->ID) || !id_ok(net->ID))
        return err_set(e, ERR_INVALID, "Networks: ID " STR_FMT " is not an identifier", STR_ARG(net->ID));
    if (net->VNI < 1 || net->VNI > VNI_MAX)
        return err_set(e, ERR_INVALID, "network %s: VNI must be 1 to %u", n->id, VNI_MAX);
    if (net->MTU && (net->MTU < MTU_MIN || net->MTU > 65535))
        return err_set(e, ERR_INVALID, "network %s: MTU must be %u to 65535", n->id, MTU_MIN);
    if (in->Addresses.n < 1 || in->Addresses.n > NETMAP_IPS_MAX)
        return err_set(e, ERR_INVALID, "network %s: 1 to %u addresses, not %zu", n->id, NETMAP_IPS_MAX,
                       in->Addresses.n);
    n->vni = (uint32_t)net->VNI;
    n->mtu = (uint32_t)net->MTU;
    n->encrypted = net->Encrypted;
    n->internal = net->Internal;
    n->eth = eth;
    n->nips = in->Addresses.n;
    for (size_t i = 0; i < n->nips; i++)
        if (!netmap_ip_parse(in->Addresses.v[i], &n->ips[i]))
            return err_set(e, ERR_INVALID, "network %s: address " STR_FMT " is malformed", n->id,
                           STR_ARG(in->Addresses.v[i]));
    return 0;
}

static int parse(struct attach *a, struct err *e)
{
    const struct net_attachment *in = a->up.Networks.v;
    if (!id_ok(a->up.TaskID) || !str_copy(a->task, sizeof a->task, a->up.TaskID))
        return err_set(e, ERR_INVALID, "TaskID: must be 1 to 64 of letters, digits, '_', '-' and '.'");
    a->nets = arena_array(&a->arena, a->up.Networks.n + 1, sizeof *a->nets);
    if (!a->nets)
        return err_set(e, ERR_NOMEM, "request does not fit");
    for (size_t i = 0; i < a->up.Networks.n; i++) {
        if (in[i].Network.Ingress)
            continue;
        int r = net_in(&in[i], (unsigned)a->nnets + 1, &a->nets[a->nnets], e);
        if (r < 0)
            return r;
        if (attach_net_of(a, in[i].Network.ID))
            return err_set(e, ERR_INVALID, "network %s: twice", a->nets[a->nnets].id);
        a->nnets++;
    }
    return 0;
}

int attach_decode(struct str in, struct attach **ret, struct err *e)
{
    struct attach *a = calloc(1, sizeof *a);
    CHECK(a != NULL);
    arena_init(&a->arena, ARENA_MAX);
    struct str own = arena_str(&a->arena, in); /* decoded text points into the input */
    int r = in.n && !own.p
                ? err_set(e, ERR_NOMEM, "request does not fit")
                : fields_decode(&a->up, op_mesh_up.req, op_mesh_up.req_size, own, FIELDS_STRICT, &a->arena, e);
    if (r == 0)
        r = parse(a, e);
    if (r < 0) {
        attach_free(a);
        return r;
    }
    *ret = a;
    return 0;
}

int attach_new(const struct mesh_up *up, struct attach **ret, struct err *e)
{
    const struct net_attachment *in = up->Networks.v;
    struct buf b = { .limit = FILE_BYTES_MAX };
    bool any = false;
    *ret = NULL;
    for (size_t i = 0; i < up->Networks.n; i++)
        any |= !in[i].Network.Ingress;
    if (!any)
        return 0;
    fields_encode(up, op_mesh_up.req, &b);
    int r = b.failed ? err_set(e, ERR_TOO_BIG, "request does not fit") : attach_decode(buf_str(&b), ret, e);
    buf_done(&b);
    return r;
}

struct attach *attach_free(struct attach *a)
{
    if (a)
        arena_done(&a->arena);
    free(a);
    return NULL;
}

const struct attach_net *attach_net_of(const struct attach *a, struct str network)
{
    for (size_t i = 0; i < a->nnets; i++)
        if (str_is(network, a->nets[i].id))
            return &a->nets[i];
    return NULL;
}

/* ---- files ---- */

static int write_all(int fd, struct str data)
{
    for (size_t off = 0; off < data.n;) {
        ssize_t n = write(fd, data.p + off, data.n - off);
        if (n < 0 && errno != EINTR)
            return -1;
        off += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static int write_file(const char *tmp, const char *path, struct str data, struct err *e)
{
    _cleanup_(closep) int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write_all(fd, data) < 0 || rename(tmp, path) < 0) {
        int errnum = errno;
        (void)unlink(tmp);
        return err_errno(e, errnum, "write %s", path);
    }
    return 0;
}

static int read_file(const char *path, struct buf *out, struct err *e)
{
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_errno(e, errno, "open %s", path);
    if (!S_ISREG(st.st_mode) || st.st_size > FILE_BYTES_MAX)
        return err_set(e, ERR_CORRUPT, "%s: not a sandbox's file", path);
    for (ssize_t n = 1; n > 0;) {
        char *p = buf_reserve(out, 4096);
        n = p ? read(fd, p, 4096) : -1;
        if (n < 0)
            return err_errno(e, errno, "read %s", path);
        out->n += (size_t)n;
    }
    return 0;
}

static void open_one(struct attach_set *s, const char *name, attach_note_fn *note, void *arg)
{
    struct buf b = { .limit = FILE_BYTES_MAX + 8192 };
    struct attach *a = NULL;
    struct err e = ERR_INIT;
    char path[512], text[700];
    snprintf(path, sizeof path, "%s/%s", s->dir, name);
    int r = read_file(path, &b, &e);
    if (r == 0)
        r = attach_decode(buf_str(&b), &a, &e);
    if (r == 0 && strcmp(a->task, name) != 0)
        r = err_set(&e, ERR_CORRUPT, "TaskID: is not the file's name");
    buf_done(&b);
    if (r == 0) {
        *(struct attach **)table_put(&s->tasks, str_from(a->task), NULL) = a;
        return;
    }
    attach_free(a);
    snprintf(text, sizeof text, "file of task %s on networks: %s; removed", name, e.msg);
    note(arg, text);
    (void)unlink(path);
}

int attach_set_open(struct attach_set *s, const char *dir, attach_note_fn *note, void *arg, struct err *e)
{
    struct dirent *de;
    *s = (struct attach_set){ 0 };
    table_init(&s->tasks, sizeof(struct attach *));
    if (snprintf(s->dir, sizeof s->dir, "%s", dir) >= (int)sizeof s->dir)
        return err_set(e, ERR_INVALID, "run folder: name too long");
    int r = dir_own(dir, 0700, e);
    if (r < 0)
        return r;
    DIR *d = opendir(dir);
    if (!d)
        return err_errno(e, errno, "open %s", dir);
    while ((de = readdir(d)))
        if (de->d_name[0] != '.' && strlen(de->d_name) < ATTACH_TASK_SIZE)
            open_one(s, de->d_name, note, arg);
    closedir(d);
    return 0;
}

void attach_set_close(struct attach_set *s)
{
    struct attach **a;
    for (struct table_pos pos = { 0 }; table_next(&s->tasks, &pos, NULL, &a);)
        attach_free(*a);
    table_done(&s->tasks);
}

struct attach *attach_get(const struct attach_set *s, struct str task)
{
    struct attach **a = table_get(&s->tasks, task);
    return a ? *a : NULL;
}

int attach_save(struct attach_set *s, struct attach *a, struct err *e)
{
    struct buf b = { .limit = FILE_BYTES_MAX };
    char path[512], tmp[512];
    snprintf(path, sizeof path, "%s/%s", s->dir, a->task);
    snprintf(tmp, sizeof tmp, "%s/.%s", s->dir, a->task);
    fields_encode(&a->up, op_mesh_up.req, &b);
    int r = b.failed ? err_set(e, ERR_TOO_BIG, "%s: too large", path) : write_file(tmp, path, buf_str(&b), e);
    buf_done(&b);
    if (r < 0)
        return r;
    struct attach **at = table_put(&s->tasks, str_from(a->task), NULL);
    attach_free(*at);
    *at = a;
    return 0;
}

int attach_forget(struct attach_set *s, struct str task, struct attach **ret, struct err *e)
{
    struct attach **at = table_get(&s->tasks, task);
    char path[512];
    *ret = NULL;
    if (!at)
        return 0;
    snprintf(path, sizeof path, "%s/%s", s->dir, (*at)->task);
    if (unlink(path) < 0 && errno != ENOENT)
        return err_errno(e, errno, "remove %s", path);
    *ret = *at;
    table_del(&s->tasks, task);
    return 0;
}
