#include "meshd/mesh_proxy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/util/check.h"
#include "common/util/cleanup.h"

#define ANSWER_MS 2000
#define PORTS_MAX 20000u /* in one message */

extern char **environ;

int mesh_proxy_open(struct mesh_proxy *p, const char *run_dir, struct err *e)
{
    *p = (struct mesh_proxy){ .fd = -1 };
    if (snprintf(p->path, sizeof p->path, "%s/mesh/.proxy", run_dir) >= (int)sizeof p->path)
        return err_set(e, ERR_INVALID, "run folder: name too long");
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    p->off = fd < 0 && errno == EAFNOSUPPORT;
    if (fd >= 0)
        close(fd);
    return 0;
}

void mesh_proxy_close(struct mesh_proxy *p)
{
    if (p->fd >= 0)
        close(p->fd);
    p->fd = -1;
    free(p->ports);
    p->ports = NULL;
    p->nports = 0;
}

static struct sockaddr_un address(const struct mesh_proxy *p)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    memcpy(un.sun_path, p->path, sizeof un.sun_path);
    return un;
}

static bool dial(struct mesh_proxy *p)
{
    struct sockaddr_un un = address(p);
    if (p->fd >= 0)
        return true;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&un, sizeof un) == 0)
        p->fd = fd;
    else if (fd >= 0)
        close(fd);
    return p->fd >= 0;
}

/* start - its socket is made here, so that there is no moment in which it runs and cannot be found. */
static int start(struct mesh_proxy *p, struct err *e)
{
    struct sockaddr_un un = address(p);
    posix_spawn_file_actions_t fa;
    posix_spawnattr_t at;
    sigset_t none;
    char name[] = "meshd", flag[] = MESH_PROXY_FLAG, *argv[] = { name, flag, NULL };
    pid_t pid;
    _cleanup_(closep) int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    (void)unlink(p->path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&un, sizeof un) < 0 || listen(fd, 4) < 0)
        return err_errno(e, errno, "%s", p->path);
    sigemptyset(&none);
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_adddup2(&fa, fd, 3);
    posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDWR, 0);
    posix_spawn_file_actions_adddup2(&fa, 0, 1);
    posix_spawn_file_actions_adddup2(&fa, 0, 2);
    posix_spawn_file_actions_addclosefrom_np(&fa, 4);
    posix_spawnattr_init(&at);
    posix_spawnattr_setflags(&at, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
    posix_spawnattr_setsigmask(&at, &none);
    int r = posix_spawn(&pid, p->exe[0] ? p->exe : "/proc/self/exe", &fa, &at, argv, environ);
    posix_spawn_file_actions_destroy(&fa);
    posix_spawnattr_destroy(&at);
    if (r != 0) {
        (void)unlink(p->path);
        return err_errno(e, r, "start the IPv6 proxy");
    }
    p->started++;
    return dial(p) ? 0 : err_errno(e, errno, "%s", p->path);
}

static bool exchange(struct mesh_proxy *p, const struct mesh_proxy_port *ports, size_t n)
{
    struct pollfd pf = { .fd = p->fd, .events = POLLIN };
    struct mesh_proxy_port *in = calloc(n + 1, sizeof *in);
    CHECK(in != NULL);
    int size = (int)((n + 1) * sizeof *ports * 2) + 65536;
    (void)setsockopt(p->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    ssize_t len = -1;
    /* An empty message would look like an end: one byte stands for no ports. */
    if (send(p->fd, n ? ports : in, n ? n * sizeof *ports : 1, MSG_NOSIGNAL) >= 0 && poll(&pf, 1, ANSWER_MS) == 1)
        len = recv(p->fd, in, (n + 1) * sizeof *in, MSG_DONTWAIT);
    if (len <= 0) {
        close(p->fd);
        p->fd = -1;
        free(in);
        return false;
    }
    free(p->ports);
    p->ports = in;
    p->nports = (size_t)len / sizeof *in;
    return true;
}

int mesh_proxy_want(struct mesh_proxy *p, const struct mesh_proxy_port *ports, size_t n, struct err *e)
{
    if (p->off)
        return 0;
    if (n > PORTS_MAX)
        n = PORTS_MAX;
    if (!dial(p) && n == 0)
        return 0;
    for (int tries = 0; tries < 2; tries++) {
        if (p->fd < 0 && start(p, e) < 0)
            return -e->code;
        if (exchange(p, ports, n))
            return 0;
        if (n == 0) /* it had nothing to do any more */
            return 0;
    }
    return err_set(e, ERR_IO, "the IPv6 proxy does not answer");
}

int mesh_proxy_errno(const struct mesh_proxy *p, uint8_t proto, uint16_t port)
{
    for (size_t i = 0; i < p->nports; i++)
        if (p->ports[i].proto == proto && p->ports[i].port == port)
            return p->ports[i].errnum;
    return 0;
}
