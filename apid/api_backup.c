/*
 * /swarm/backup and /swarm/restore: the whole store as one sealed stream, for swarmctl. Not Docker's.
 *
 * raftd seals and opens; here bytes pass through page by page, and whoever is slower makes the other wait. The
 * passphrase comes in base64 in a header, so that it is in no log of paths; it is wiped after use.
 */

#include "apid/api_pieces.h"
#include "apid/api_resources.h"
#include "apid/api_state.h"
#include "apid/api_swarm_spec.h"
#include "common/util/base64.h"
#include "common/util/check.h"
#include "common/util/crypto.h"
#include "common/util/id.h"

#define PASSPHRASE_MAX 1024u
#define PAGE_TIMEOUT_MS 60000u
#define RESTORE_TIMEOUT_MS 120000u

struct passphrase {
    char text[PASSPHRASE_MAX]; /* secret */
    size_t n;
};

static int read_passphrase(struct req *r, struct passphrase *p)
{
    struct buf text = { .limit = sizeof p->text };
    (void)buf_reserve(&text, sizeof p->text); /* so that it is never moved, and wiped whole */
    bool ok = base64_take(str_from(api_request_header(r, "X-Swarm-Passphrase")), &text);

    if (ok) {
        memcpy(p->text, text.n ? text.p : "", text.n);
        p->n = text.n;
    }
    bool full = text.failed;
    crypto_wipe(text.p, text.cap);
    buf_done(&text);
    if (full || (ok && p->n == 0))
        return api_refuse(r, 400, "X-Swarm-Passphrase: 1 to %u bytes in base64 are needed", PASSPHRASE_MAX);
    return ok ? 0 : api_refuse(r, 400, "X-Swarm-Passphrase: this is not base64");
}

static struct str passphrase_str(const struct passphrase *p)
{
    return (struct str){ p->text, p->n };
}

/* ---- backup ---- */

struct backup {
    struct passphrase pass;
    char id[ID_SIZE];
    uint64_t offset;
    bool asking, last;
};

static void backup_free(void *p)
{
    crypto_wipe(p, sizeof(struct backup));
    free(p);
}

static void backup_more(struct req *r);

static void backup_page(struct req *r, const void *rep, const struct err *e)
{
    struct backup *b = r->data;
    const struct raftd_backup_reply *x = rep;

    b->asking = false;
    if (e->code != 0) {
        log_error("backup: %s", e->msg);
        if (r->streaming)
            api_stream_abort(r); /* cut short, so that nobody takes it for whole */
        else
            api_fail(r, e);
        return;
    }
    if (!r->streaming)
        api_stream(r, 200, "application/octet-stream");
    buf_put(&r->out, x->Data.p, x->Data.n);
    b->offset += x->Data.n;
    b->last = x->Last;
    if (r->out.failed) {
        api_stream_abort(r);
    } else if (b->last) {
        api_stream_end(r);
    } else {
        api_stream_push(r);
        backup_more(r);
    }
}

static void backup_more(struct req *r)
{
    struct backup *b = r->data;

    if (b->asking || b->last || r->answered || api_stream_waiting(r) >= API_STREAM_WINDOW)
        return;
    struct raftd_backup in = { str_from(b->id), passphrase_str(&b->pass), b->offset };
    b->asking = true;
    api_call(r, api.raftd, &op_raftd_backup, &in, PAGE_TIMEOUT_MS, backup_page);
}

void swarm_backup(struct req *r)
{
    struct backup *b = calloc(1, sizeof *b);
    struct store_snap *snap;

    CHECK(b);
    r->data = b;
    r->free_data = backup_free;
    if (read_passphrase(r, &b->pass) < 0 || api_snap(r, &snap, NULL) < 0)
        return;
    store_end(snap);
    id_new(b->id);
    r->on_drain = backup_more;
    backup_more(r);
}

/* ---- restore ---- */

struct restore {
    struct pieces pieces;
    struct passphrase pass;
    char id[ID_SIZE], node[ID_SIZE];
    struct swarm_addrs addrs;
    struct err why; /* of the failure */
};

static void restore_free(void *p)
{
    crypto_wipe(p, sizeof(struct restore));
    free(p);
}

static void undone(struct req *r, const void *rep, const struct err *e)
{
    struct restore *x = r->data;

    (void)rep;
    if (e->code != 0)
        log_warn("restore: gatewayd keeps the addresses: %s", e->msg);
    api_fail(r, &x->why);
}

/* The node is outside again before the client knows that it failed. What is still coming is read and dropped. */
static void give_up(struct req *r, const struct err *e)
{
    static const struct gw_empty none;
    struct restore *x = r->data;

    log_error("restore: %s", e->msg);
    x->why = *e;
    api_call(r, api.gatewayd, &op_gw_leave, &none, API_AGENT_DEADLINE_MS, undone);
    pieces_failed(r);
}

static void piece_stored(struct req *r, const void *rep, const struct err *e)
{
    (void)rep;
    if (e->code == 0)
        pieces_stored(r);
    else
        give_up(r, e);
}

static void restored(struct req *r, const void *rep, const struct err *e)
{
    (void)rep;
    if (e->code != 0) {
        give_up(r, e);
        return;
    }
    swarm_await_start(r);
}

static void send_piece(struct req *r, struct str piece, uint64_t offset, bool last)
{
    struct restore *x = r->data;
    struct raftd_restore in = { .RestoreID = str_from(x->id),
                                .Passphrase = passphrase_str(&x->pass),
                                .Offset = offset,
                                .Data = piece,
                                .Last = last,
                                .NodeID = str_from(x->node),
                                .Addr = str_from(x->addrs.advertise) };

    api_call(r, api.raftd, &op_raftd_restore, &in, last ? RESTORE_TIMEOUT_MS : PAGE_TIMEOUT_MS,
             last ? restored : piece_stored);
}

static void set_up(struct req *r, const void *rep, const struct err *e)
{
    struct restore *x = r->data;
    const struct gw_setup_reply *a = rep;

    if (e->code == 0 && str_copy(x->addrs.advertise, sizeof x->addrs.advertise, a->AdvertiseAddr)) {
        pieces_stored(r);
        return;
    }
    log_error("restore: %s", e->msg);
    api_fail(r, e);
    api_body_more(r);
}

static const char *query_text(struct req *r, const char *key, const char *def)
{
    struct str s = query_get(&r->query, key);
    return s.n > 0 ? arena_str(&r->arena, s).p : def;
}

void swarm_restore(struct req *r)
{
    struct restore *x = calloc(1, sizeof *x);
    enum swarm_state s = state_now();

    CHECK(x);
    r->data = x;
    r->free_data = restore_free;
    if (s != SWARM_INACTIVE && s != SWARM_ERROR) {
        api_error(r, 503,
                  "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm first.");
        return;
    }
    if (read_passphrase(r, &x->pass) < 0 ||
        swarm_resolve_addrs(r, query_text(r, "listenaddr", "0.0.0.0:2377"), query_text(r, "advertiseaddr", ""),
                            query_text(r, "datapathaddr", ""), false, &x->addrs) < 0)
        return;
    id_new(x->id);
    id_new(x->node);
    pieces_open(r, &x->pieces, send_piece, true);
    struct gw_setup in = { .ListenAddr = str_from(x->addrs.listen),
                           .AdvertiseAddr = str_from(x->addrs.advertise),
                           .DataPathAddr = str_from(x->addrs.data) };
    api_call(r, api.gatewayd, &op_gw_setup, &in, API_WRITE_DEADLINE_MS, set_up);
}
