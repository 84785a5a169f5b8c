#include "meshd/mesh_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "common/util/check.h"
#include "common/util/cleanup.h"

#define RECORD_MAX (1u << 20)
#define ARENA_MAX (16u << 20)
#define PORTS_MAX 65536u
#define MODE_GIVEN "ingress" /* a bridge whose address the managers gave */

struct record {
    struct str TaskID, ServiceID, Mode, State;
    uint64_t Address, Base, Prefix; /* host byte order; 0: no address */
    struct list Ports;              /* struct mesh_port */
};

static const struct field port_fields[] = {
    FIELD_STR(struct mesh_port, Protocol, 1, 8),
    FIELD_STR(struct mesh_port, PublishMode, 1, 16),
    FIELD_U64(struct mesh_port, TargetPort, 1, 65535),
    FIELD_U64(struct mesh_port, PublishedPort, 0, 65535),
    FIELD_END,
};
static const struct field record_fields[] = {
    FIELD_STR(struct record, TaskID, 1, MESH_ID_SIZE - 1),
    FIELD_STR(struct record, ServiceID, 0, MESH_ID_SIZE - 1),
    FIELD_STR(struct record, Mode, 1, 16),
    FIELD_STR(struct record, State, 1, 16),
    FIELD_U64(struct record, Address, 0, UINT32_MAX),
    FIELD_U64(struct record, Base, 0, UINT32_MAX),
    FIELD_U64(struct record, Prefix, 0, 32),
    FIELD_LIST(struct record, Ports, port_fields, struct mesh_port, PORTS_MAX),
    FIELD_END,
};

static int port_in(const struct mesh_port *in, size_t i, struct mesh_publish *ret, struct err *e)
{
    if (!mesh_proto_parse(in->Protocol, &ret->proto))
        return err_set(e, ERR_INVALID, "Ports[%zu].Protocol: must be tcp, udp or sctp", i);
    if (!str_is(in->PublishMode, "host") && !str_is(in->PublishMode, "ingress"))
        return err_set(e, ERR_INVALID, "Ports[%zu].PublishMode: must be ingress or host", i);
    ret->host_mode = str_is(in->PublishMode, "host");
    ret->target = (uint16_t)in->TargetPort;
    ret->published = (uint16_t)in->PublishedPort;
    if (!ret->host_mode && ret->published == 0)
        return err_set(e, ERR_INVALID, "Ports[%zu].PublishedPort: must be given in ingress mode", i);
    return 0;
}

int mesh_ports_in(const struct list *in, struct mesh_publish **ret, size_t *ret_n, struct err *e)
{
    struct mesh_publish *v = calloc(in->n + 1, sizeof *v);
    CHECK(v != NULL);
    for (size_t i = 0; i < in->n; i++) {
        int r = port_in(&((const struct mesh_port *)in->v)[i], i, &v[i], e);
        if (r < 0) {
            free(v);
            return r;
        }
    }
    *ret = v;
    *ret_n = in->n;
    return 0;
}

bool mesh_ports_out(const struct mesh_sandbox *sb, struct arena *a, struct list *ret)
{
    struct mesh_port *v = sb->nports ? arena_array(a, sb->nports, sizeof *v) : NULL;
    if (sb->nports && !v)
        return false;
    for (size_t i = 0; i < sb->nports; i++)
        v[i] = (struct mesh_port){ .Protocol = str_from(mesh_proto_name(sb->ports[i].proto)),
                                   .PublishMode = sb->ports[i].host_mode ? STR("host") : STR("ingress"),
                                   .TargetPort = sb->ports[i].target,
                                   .PublishedPort = sb->ports[i].published };
    *ret = (struct list){ v, sb->nports };
    return true;
}

void mesh_record_encode(const struct mesh_sandbox *sb, struct mesh_subnet subnet, struct arena *a, struct buf *out)
{
    struct record rec = { .TaskID = str_from(sb->task),
                          .ServiceID = str_from(sb->service),
                          .Mode = str_from(mesh_mode_name(sb->mode)),
                          .State = str_from(mesh_state_name(sb->state)),
                          .Address = sb->addr,
                          .Base = sb->addr ? subnet.base : 0,
                          .Prefix = sb->addr ? subnet.prefix : 0 };
    if (sb->given) {
        rec.Mode = STR(MODE_GIVEN);
        rec.Prefix = sb->given;
        rec.Base = sb->addr & (uint32_t)(0xffffffffull << (32 - sb->given));
    }
    if (!mesh_ports_out(sb, a, &rec.Ports))
        out->failed = true;
    fields_encode(&rec, record_fields, out);
}

static int record_check(const struct record *rec, struct mesh_sandbox *sb, struct err *e)
{
    if (!id_ok(rec->TaskID))
        return err_set(e, ERR_CORRUPT, "TaskID: not an identifier");
    bool given = str_is(rec->Mode, MODE_GIVEN);
    if (!mesh_mode_parse(given ? STR("bridge") : rec->Mode, &sb->mode) || !mesh_state_parse(rec->State, &sb->state))
        return err_set(e, ERR_CORRUPT, "Mode, State: unknown");
    bool inside = rec->Prefix >= (given ? 1 : 16) && rec->Prefix <= 32 && rec->Address >= rec->Base + !given &&
                  rec->Address - rec->Base < 1ull << (32 - rec->Prefix);
    if (rec->Address != 0 && (sb->mode != MESH_BRIDGE || !inside))
        return err_set(e, ERR_CORRUPT, "Address: not in its subnet");
    str_copy(sb->task, sizeof sb->task, rec->TaskID);
    str_copy(sb->service, sizeof sb->service, rec->ServiceID);
    sb->addr = (uint32_t)rec->Address;
    sb->given = given ? (uint8_t)rec->Prefix : 0;
    return 0;
}

int mesh_record_decode(struct str in, struct arena *a, struct mesh_sandbox *ret, struct mesh_subnet *ret_subnet,
                       struct err *e)
{
    struct record rec;
    struct mesh_sandbox sb = { 0 };
    int r = fields_decode(&rec, record_fields, sizeof rec, in, FIELDS_STRICT, a, e);
    if (r == 0)
        r = record_check(&rec, &sb, e);
    if (r == 0)
        r = mesh_ports_in(&rec.Ports, &sb.ports, &sb.nports, e);
    for (size_t i = 0; r == 0 && i < sb.nports; i++)
        if (sb.ports[i].published == 0)
            r = err_set(e, ERR_CORRUPT, "Ports[%zu].PublishedPort: missing", i);
    if (r < 0) {
        free(sb.ports);
        return r;
    }
    *ret = sb;
    *ret_subnet = (struct mesh_subnet){ 0 };
    if (!sb.given)
        *ret_subnet = (struct mesh_subnet){ (uint32_t)rec.Base, (uint8_t)rec.Prefix };
    return 0;
}

static int write_file(const char *path, struct str data, struct err *e)
{
    _cleanup_(closep) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(e, errno, "open %s", path);
    for (size_t off = 0; off < data.n;) {
        ssize_t n = write(fd, data.p + off, data.n - off);
        if (n < 0 && errno != EINTR)
            return err_errno(e, errno, "write %s", path);
        off += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

int mesh_file_save(const char *dir, const struct mesh_sandbox *sb, struct mesh_subnet subnet, struct err *e)
{
    char path[512], tmp[512];
    struct arena a;
    struct buf b = BUF_INIT;
    arena_init(&a, ARENA_MAX);
    mesh_record_encode(sb, subnet, &a, &b);
    arena_done(&a);
    snprintf(path, sizeof path, "%s/%s", dir, sb->task);
    snprintf(tmp, sizeof tmp, "%s/.%s", dir, sb->task);
    int r = b.failed ? err_set(e, ERR_NOMEM, "%s: too large", path) : write_file(tmp, buf_str(&b), e);
    buf_done(&b);
    if (r == 0 && rename(tmp, path) < 0)
        r = err_errno(e, errno, "rename %s", tmp);
    if (r < 0)
        (void)unlink(tmp);
    return r;
}

int mesh_file_remove(const char *dir, const char *task, struct err *e)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, task);
    return unlink(path) < 0 && errno != ENOENT ? err_errno(e, errno, "remove %s", path) : 0;
}

static int read_file(const char *path, struct buf *out, struct err *e)
{
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_errno(e, errno, "open %s", path);
    if (!S_ISREG(st.st_mode) || st.st_size > RECORD_MAX)
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

static void each_one(const char *dir, const char *name, mesh_file_fn *fn, void *arg)
{
    char path[512];
    struct arena a;
    struct buf b = { .limit = RECORD_MAX + 8192 };
    struct mesh_sandbox sb = { 0 };
    struct mesh_subnet subnet = { 0 };
    struct err e = ERR_INIT;
    arena_init(&a, ARENA_MAX);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int r = read_file(path, &b, &e);
    if (r == 0)
        r = mesh_record_decode(buf_str(&b), &a, &sb, &subnet, &e);
    if (r == 0 && strcmp(sb.task, name) != 0) {
        free(sb.ports);
        r = err_set(&e, ERR_CORRUPT, "TaskID: is not the file's name");
    }
    fn(arg, name, r == 0 ? &sb : NULL, subnet, &e);
    arena_done(&a);
    buf_done(&b);
}

int mesh_file_each(const char *dir, mesh_file_fn *fn, void *arg, struct err *e)
{
    DIR *d = opendir(dir);
    struct dirent *de;
    if (!d)
        return err_errno(e, errno, "open %s", dir);
    while ((de = readdir(d)))
        if (de->d_name[0] != '.' && strlen(de->d_name) < MESH_ID_SIZE)
            each_one(dir, de->d_name, fn, arg);
    closedir(d);
    return 0;
}
