/* swarmctl - the command line of the swarm. */
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/util/clock.h"
#include "swarmctl/cli.h"

static int64_t wall_now(void)
{
    return clock_wall().ns;
}

int main(int argc, char **argv)
{
    struct winsize ws = { 0 };
    struct cli c = { .out = stdout, .err = stderr, .now_ns = wall_now, .in_fd = STDIN_FILENO, .columns = 80 };

    c.in_tty = isatty(STDIN_FILENO);
    c.out_tty = isatty(STDOUT_FILENO);
    if ((ioctl(STDIN_FILENO, TIOCGWINSZ, &ws) == 0 || ioctl(STDOUT_FILENO, TIOCGWINSZ, &ws) == 0) && ws.ws_col > 0)
        c.columns = ws.ws_col;
    int r = cli_main(&c, argc, argv);
    cli_done(&c);
    return r;
}
