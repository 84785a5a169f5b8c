#include "common/daemon/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *const level_names[] = { "debug", "info", "warn", "error", "fatal" };
static const int syslog_prio[] = { 7, 6, 4, 3, 2 };
static const char *log_daemon = "microswarm";
static enum log_level threshold = LOG_L_INFO;

void log_init(const char *daemon)
{
    log_daemon = daemon;
}

int log_set_level(const char *name)
{
    for (int i = 0; i <= LOG_L_FATAL; i++) {
        if (strcmp(name, level_names[i]) == 0) {
            threshold = (enum log_level)i;
            return 0;
        }
    }
    return -1;
}

const char *log_level_name(void)
{
    return level_names[threshold];
}

/* One write per line, so that lines of several processes on one descriptor do not mix; control bytes are blanked. */
void log_msg(enum log_level level, const char *fmt, ...)
{
    char line[2048];
    if (level < threshold)
        return;
    int head = snprintf(line, sizeof line, "<%d>%s: ", syslog_prio[level], log_daemon);
    va_list ap;
    va_start(ap, fmt);
    int body = vsnprintf(line + head, sizeof line - (size_t)head - 1, fmt, ap);
    va_end(ap);
    size_t n = (size_t)head + (body > 0 ? (size_t)body : 0);
    if (n > sizeof line - 2)
        n = sizeof line - 2;
    for (size_t i = (size_t)head; i < n; i++) {
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = ' ';
    }
    line[n++] = '\n';
    if (write(STDERR_FILENO, line, n) < 0) {
        /* nobody is left to tell */
    }
}
