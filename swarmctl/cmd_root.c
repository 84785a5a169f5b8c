/* The tree of commands. */
#include "swarmctl/cmds.h"
#include "swarmctl/conv.h"

static const struct flag global_flags[] = {
    { .name = "config", .type = &T_STRING, .help = "Location of client config files (registry credentials)",
      .choices = "@file" },
    { .name = "debug", .shorthand = 'D', .type = &T_BOOL, .help = "Show each request on standard error" },
    { .name = "host", .shorthand = 'H', .type = &T_LIST, .choices = "@file",
      .help = "Daemon socket to connect to: unix:///PATH (default $MICROSWARM_HOST, $DOCKER_HOST or " SOCKET_DEFAULT ")" },
    { .name = "version", .shorthand = 'v', .type = &T_BOOL, .help = "Print version information and quit" },
    FLAGS_END,
};
static const struct flag *const global_tables[] = { global_flags, NULL };

static const struct cmd top_cmds[] = {
    { .name = "events", .help = "Get real time events from the server", .flags = events_tables, .run = run_events,
      .same_as = "system events" },
    { .name = "images", .args = "[REPOSITORY[:TAG]]", .help = "List images", .max = 1, .flags = images_tables,
      .run = run_image_ls, .same_as = "image ls" },
    { .name = "info", .help = "Display system-wide information", .flags = version_tables, .run = run_info,
      .same_as = "system info" },
    { .name = "inspect", .args = "NAME|ID [NAME|ID...]", .help = "Return low-level information on Docker objects", .min = 1,
      .max = -1, .flags = inspect_any_tables, .run = run_inspect, .complete = "@service" },
    { .name = "load", .help = "Load an image from a tar archive or STDIN", .flags = load_tables, .run = run_image_load,
      .same_as = "image load" },
    { .name = "pull", .args = "NAME[:TAG|@DIGEST]", .help = "Download an image from a registry", .min = 1, .max = 1,
      .flags = pull_tables, .run = run_image_pull, .same_as = "image pull" },
    { .name = "rmi", .args = "IMAGE [IMAGE...]", .help = "Remove one or more images", .min = 1, .max = -1, .flags = rmi_tables,
      .run = run_image_rm, .same_as = "image rm", .complete = "@image" },
    { .name = "tag", .args = "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
      .help = "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE", .min = 2, .max = 2, .run = run_image_tag,
      .same_as = "image tag", .complete = "@image" },
    { .name = "version", .help = "Show the version information of client and daemon", .flags = version_tables,
      .run = run_version },
    { .name = "completion", .help = "Generate the autocompletion script for a shell", .sub = completion_cmds },
    { .name = "image", .help = "Manage images", .sub = image_cmds },
    { .name = "node", .help = "Manage Swarm nodes", .sub = node_cmds },
    { .name = "service", .help = "Manage Swarm services", .sub = service_cmds },
    { .name = "swarm", .help = "Manage Swarm", .sub = swarm_cmds },
    { .name = "system", .help = "Manage the daemon", .sub = system_cmds },
    { .name = "__complete", .help = "Candidates for the shell", .max = -1, .run = run_complete, .raw_tail = true, .hidden = true },
    { .name = "__man", .help = "The manual page", .run = run_man, .hidden = true },
    { .name = NULL },
};

const struct cmd root_cmd = {
    .name = PROG,
    .help = "The command line of a swarm of containers",
    .flags = global_tables,
    .sub = top_cmds,
};
