/*
 * echo.c - answers each TCP connection on a port with who it is and who asked, as a small HTTP reply; UDP on the same
 * port likewise. Process 1 of a container of the tests: leaves at once on SIGTERM.
 *
 * `echo [PORT]` (8080). GET /env shows the environment, /exit/N ends the process with code N, anything else is answered
 * by "host=... client=IP:PORT server=IP:PORT path=...".
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

extern char **environ;

static void leave(int sig)
{
    (void)sig;
    _exit(0);
}

static void addr_text(const struct sockaddr_in *sa, char *out, size_t cap)
{
    char ip[INET_ADDRSTRLEN] = "?";
    inet_ntop(AF_INET, &sa->sin_addr, ip, sizeof ip);
    snprintf(out, cap, "%s:%u", ip, ntohs(sa->sin_port));
}

static size_t describe(char *out, size_t cap, const struct sockaddr_in *from, const char *server, const char *path)
{
    char host[128] = "?", client[64];
    gethostname(host, sizeof host - 1);
    addr_text(from, client, sizeof client);
    return (size_t)snprintf(out, cap, "host=%s client=%s server=%s path=%s\n", host, client, server, path);
}

static void serve_tcp(int lfd)
{
    struct sockaddr_in from = { 0 }, to = { 0 };
    socklen_t len = sizeof from, to_len = sizeof to;
    int fd = accept(lfd, (struct sockaddr *)&from, &len);
    if (fd < 0)
        return;
    char req[2048], body[16384], server[64] = "?";
    struct timeval tv = { .tv_sec = 5 };
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    ssize_t n = read(fd, req, sizeof req - 1);
    req[n > 0 ? n : 0] = '\0';
    char *path = strchr(req, ' '), *end = path ? strpbrk(path + 1, " \r\n") : NULL;
    if (end)
        *end = '\0';
    path = end ? path + 1 : (char *)"/";
    if (getsockname(fd, (struct sockaddr *)&to, &to_len) == 0)
        addr_text(&to, server, sizeof server);
    size_t used = 0;
    if (strcmp(path, "/env") == 0)
        for (char **e = environ; *e && used < sizeof body - 1024; e++)
            used += (size_t)snprintf(body + used, sizeof body - used, "%.1000s\n", *e);
    else
        used = describe(body, sizeof body, &from, server, path);
    dprintf(fd, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%.*s",
            used, (int)used, body);
    close(fd);
    if (strncmp(path, "/exit/", 6) == 0)
        _exit((int)strtol(path + 6, NULL, 10));
}

static void serve_udp(int ufd)
{
    struct sockaddr_in from = { 0 };
    socklen_t len = sizeof from;
    char in[512], body[1024];
    ssize_t n = recvfrom(ufd, in, sizeof in - 1, 0, (struct sockaddr *)&from, &len);
    if (n < 0)
        return;
    in[n] = '\0';
    size_t used = describe(body, sizeof body, &from, "udp", "/");
    sendto(ufd, body, used, 0, (struct sockaddr *)&from, len);
}

int main(int argc, char **argv)
{
    signal(SIGTERM, leave);
    signal(SIGINT, leave);
    signal(SIGPIPE, SIG_IGN);
    struct sockaddr_in sa = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)(argc > 1 ? strtol(argv[1], NULL, 10) : 8080)) };
    int one = 1, lfd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0),
        ufd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    setsockopt(lfd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(lfd, (struct sockaddr *)&sa, sizeof sa) < 0 || listen(lfd, 512) < 0 ||
        bind(ufd, (struct sockaddr *)&sa, sizeof sa) < 0) {
        perror("echo: bind");
        return 1;
    }
    printf("listening on %u\n", ntohs(sa.sin_port));
    fflush(stdout);
    for (;;) {
        struct pollfd p[2] = { { lfd, POLLIN, 0 }, { ufd, POLLIN, 0 } };
        if (poll(p, 2, -1) < 0)
            continue;
        if (p[0].revents)
            serve_tcp(lfd);
        if (p[1].revents)
            serve_udp(ufd);
    }
}
