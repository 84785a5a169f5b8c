/*
 * reference.c - prints the reference pages that come from the tables the daemons themselves use, so that they cannot
 * drift apart: `reference objects`, `messages`, `store`, `rules`. `make docs` writes docs/reference/.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/object/object.h"
#include "common/proto/msg_agentd.h"
#include "common/proto/msg_cad.h"
#include "common/proto/msg_dispatcherd.h"
#include "common/proto/msg_gatewayd.h"
#include "common/proto/msg_meshd.h"
#include "common/proto/msg_raftd.h"
#include "common/store/layout.h"
#include "gatewayd/gw_authz.h"

static void print_objects(void)
{
    static const struct {
        const char *title;
        const struct obj_type *type;
    } types[] = {
        { "Service specification", &obj_service_spec }, { "Node specification", &obj_node_spec },
        { "Cluster specification", &obj_cluster_spec }, { "Network specification", &obj_network_spec },
        { "Secret specification", &obj_secret_spec },   { "Config specification", &obj_config_spec },
        { "POST /swarm/init", &obj_swarm_init },        { "POST /swarm/join", &obj_swarm_join },
        { "POST /swarm/unlock", &obj_swarm_unlock },
    };
    printf("# Objects\n\nThe fields of what clients send, in Docker's names; checked by these tables, with the path in "
           "the "
           "error. Fields\nthat are not listed are kept as they are.\n");
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct buf out = { 0 };
        obj_reference(types[i].type, &out);
        printf("\n## %s\n\n%s", types[i].title, buf_cstr(&out));
        buf_done(&out);
    }
}

static const char *type_name(enum field_type t)
{
    static const char *const names[] = { "unsigned", "integer",      "boolean",      "number",
                                         "text",     "bytes",        "any value",    "map",
                                         "map",      "list of maps", "list of text", "map of text" };
    return (size_t)t < sizeof names / sizeof *names ? names[t] : "?";
}

static void print_fields(const char *prefix, const struct field *f, int depth)
{
    for (; f && f->name; f++) {
        char range[80] = "", path[256];
        if (f->type == F_U64 && f->max != UINT64_MAX)
            snprintf(range, sizeof range, "%" PRIu64 "…%" PRIu64, f->min, f->max);
        else if (f->type == F_I64 && (f->imin != INT64_MIN || f->imax != INT64_MAX))
            snprintf(range, sizeof range, "%" PRId64 "…%" PRId64, f->imin, f->imax);
        else if (f->type == F_STR || f->type == F_BIN)
            snprintf(range, sizeof range, "%" PRIu64 "…%" PRIu64 " bytes", f->min, f->max);
        else if (f->max > 0 && f->type != F_U64)
            snprintf(range, sizeof range, "up to %" PRIu64, f->max);
        snprintf(path, sizeof path, "%s%s", prefix, f->name);
        printf("| `%s` | %s | %s | %s |\n", path, type_name(f->type), f->required ? "yes" : "", range);
        if (f->sub && depth < 4) {
            snprintf(path, sizeof path, "%s%s%s", prefix, f->name, f->type == F_LIST ? "[]." : ".");
            print_fields(path, f->sub, depth + 1);
        }
    }
}

static void print_table(const char *title, const struct field *f)
{
    if (!f || !f->name) {
        printf("%s: nothing.\n\n", title);
        return;
    }
    printf("%s:\n\n| field | type | required | range |\n|---|---|---|---|\n", title);
    print_fields("", f, 0);
    printf("\n");
}

static void print_messages(void)
{
    static const struct {
        const char *daemon;
        const struct op *ops[24];
    } all[] = {
        { "raftd",
          { &op_raftd_txn, &op_raftd_barrier, &op_raftd_bootstrap, &op_raftd_reset, &op_raftd_status, &op_raftd_members,
            &op_raftd_member_add, &op_raftd_member_remove, &op_raftd_forward, &op_raftd_force_new, &op_raftd_unlock,
            &op_raftd_node_key, &op_raftd_backup, &op_raftd_restore } },
        { "gatewayd", { &op_gw_identity, &op_gw_setup, &op_gw_join, &op_gw_leave, &op_gw_unlock } },
        { "cad", { &op_cad_root, &op_cad_issue, &op_cad_tokens, &op_cad_rotate, &op_cad_unlock_key } },
        { "dispatcherd",
          { &op_disp_session, &op_disp_assignments, &op_disp_status, &op_disp_network, &op_disp_payload,
            &op_disp_secret_is, &op_disp_usage, &op_disp_link } },
        { "agentd",
          { &op_agent_logs, &op_agent_image_load, &op_agent_image_pull, &op_agent_image_list, &op_agent_image_inspect,
            &op_agent_image_remove, &op_agent_image_tag, &op_agent_image_resolve, &op_agent_info, &op_agent_containers,
            &op_agent_volumes, &op_agent_leave } },
        { "meshd", { &op_mesh_up, &op_mesh_ready, &op_mesh_down, &op_mesh_list, &op_mesh_networks } },
    };
    printf("# Messages\n\nWhat the daemons of a host ask each other on `<run>/<daemon>.sock`: msgpack maps over nng, "
           "one table an "
           "operation.\nMissing, repeated, unknown and out-of-range fields are refused, and named.\n");
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        printf("\n## %s\n", all[i].daemon);
        for (size_t k = 0; k < 24 && all[i].ops[k]; k++) {
            const struct op *op = all[i].ops[k];
            printf("\n### %s `%s`\n\n%s\n\n", all[i].daemon, op->name, op->doc);
            print_table("Request", op->req);
            print_table("Reply", op->rep);
        }
    }
}

static void print_rules(void)
{
    printf(
        "# What nodes may ask of each other\n\nThe table that `gatewayd` goes by, at both ends of a link; what is not "
        "in "
        "it is refused before any daemon sees\nit. A role is that of the asking node's certificate, or a lower one if "
        "the store says so. On managers it also\nmatters which daemon asks.\n\n| operation | no certificate | worker | "
        "manager | asked by | of itself only |\n|---|---|---|---|---|---|\n");
    for (const struct gw_rule *r = gw_rules; r->svc; r++) {
        printf("| `%s.%s` | %s | %s | %s | %s | %s |\n", r->svc, r->op->name, r->roles & 1u << RPC_NOBODY ? "yes" : "",
               r->roles & 1u << RPC_WORKER ? "yes" : "", r->roles & 1u << RPC_MANAGER ? "yes" : "",
               r->askers ? r->askers : "any", r->self ? "yes" : "");
    }
    printf("| Raft's messages | | | yes | raftd | |\n");
}

static void print_store(void)
{
    printf("# The store\n\n## Kinds\n\n| kind | map | field whose change moves `Version.Index` | unique name "
           "|\n|---|---|---|---|\n");
    for (int k = 0; k < KIND_COUNT; k++)
        printf("| `%s` | %s | %s | %s |\n", kind_info[k].name, kind_info[k].secret ? "secret" : "state",
               kind_info[k].spec_field ? kind_info[k].spec_field : "(creation only)",
               kind_info[k].unique_name ? "yes" : "");
    printf("\n## Indexes\n\n| index | of | path | refers to |\n|---|---|---|---|\n");
    for (int i = 0; i < IX_COUNT; i++) {
        const struct index_info *ix = &index_info[i];
        printf("| `%s` | %s | `%s` | %s |\n", ix->name, kind_info[ix->kind].name, ix->path,
               ix->refers_to < KIND_COUNT ? kind_info[ix->refers_to].name : "");
    }
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "objects") == 0)
        print_objects();
    else if (argc == 2 && strcmp(argv[1], "messages") == 0)
        print_messages();
    else if (argc == 2 && strcmp(argv[1], "store") == 0)
        print_store();
    else if (argc == 2 && strcmp(argv[1], "rules") == 0)
        print_rules();
    else {
        fprintf(stderr, "usage: reference objects|messages|store|rules\n");
        return 2;
    }
    return 0;
}
