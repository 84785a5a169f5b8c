/* cmds.h - the command tables of each noun, put together in cmd_root.c; and what several nouns' commands use. */
#pragma once

#include "swarmctl/cli.h"

extern const struct cmd service_cmds[], node_cmds[], swarm_cmds[], image_cmds[], network_cmds[], system_cmds[],
    secret_cmds[], config_cmds[], completion_cmds[];

/* Rows that several commands have. */
extern const struct flag filter_flags[], format_flags[], no_trunc_flags[], quiet_id_flags[], progress_flags[];
extern const struct flag inspect_flags[], pretty_flags[];
#define FORMAT_LIST_HELP                                                                                               \
    "Format output using a custom template:\n'table':            Print output in table format with column headers "    \
    "(default)\n'table TEMPLATE':   Print output in table format using the given Go template\n'json':             "    \
    "Print in JSON format\n'TEMPLATE':         Print output using the given Go template."
#define FORMAT_INSPECT_HELP                                                                                            \
    "Format output using a custom template:\n'json':             Print in JSON format\n'TEMPLATE':         Print "     \
    "output using the given Go template."

int run_version(struct cli *c, struct call *call);
int run_info(struct cli *c, struct call *call);
int run_events(struct cli *c, struct call *call);
int run_inspect(struct cli *c, struct call *call);
int run_image_ls(struct cli *c, struct call *call);
int run_image_load(struct cli *c, struct call *call);
int run_image_pull(struct cli *c, struct call *call);
int run_image_rm(struct cli *c, struct call *call);
int run_image_tag(struct cli *c, struct call *call);
extern const struct flag *const version_tables[], *const events_tables[], *const inspect_any_tables[];
extern const struct flag *const images_tables[], *const load_tables[], *const pull_tables[], *const rmi_tables[];

/* registry_auth - header "X-Registry-Auth: ..." with the client's credentials for an image's registry ("e30=" for
 * none). */
void registry_auth(struct cli *c, const char *image, struct buf *header);

/* first_object - GET path into text for inspect_print(); missing names the kind when it isn't there, NULL: the daemon's
 * words. */
int get_object(struct cli *c, const char *prefix, const char *ref, const char *suffix, const char *missing,
               struct buf *ret);

/* since_text - a duration ago, a date or seconds, as unix seconds[.nanoseconds] for the API. */
int since_text(struct cli *c, const char *text, struct buf *ret);

/* wait_rotation - the same for a rotation of the root CA, whose new certificate is printed at the end. */
int wait_rotation(struct cli *c, bool quiet);

/* newest_version - of the secret or config NAME in a list of them: itself, or what rotations made of it; NULL: none. */
#define VERSION_LABEL "microswarm.version-of"
json_t *newest_version(json_t *list, const char *name);

/* wait_service - shows progress until the service has converged. 0, or 1 with the user told. */
int wait_service(struct cli *c, const char *name, bool quiet);
bool wait_interrupted(void); /* the last wait was ended by the user */
