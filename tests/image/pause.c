/* pause.c - a container's smallest possible process: waits, and leaves at once when it is told to. */
#include <signal.h>
#include <unistd.h>

static void leave(int sig)
{
    _exit(sig == SIGTERM || sig == SIGINT ? 0 : 128 + sig);
}

int main(void)
{
    signal(SIGTERM, leave);
    signal(SIGINT, leave);
    for (;;)
        pause();
}
