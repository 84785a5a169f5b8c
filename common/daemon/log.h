/*
 * log.h - one line per event on standard error, as systemd's journal takes it ("<6>schedulerd: placed task=...
 * node=..."). Only shells log. Levels: debug; info for operators; warn for what we survive; error for a failed request;
 * fatal.
 */
#pragma once

enum log_level { LOG_L_DEBUG, LOG_L_INFO, LOG_L_WARN, LOG_L_ERROR, LOG_L_FATAL };

void log_init(const char *daemon);
int log_set_level(const char *name); /* 0, or -1 for an unknown name */
const char *log_level_name(void);
void log_msg(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_debug(...) log_msg(LOG_L_DEBUG, __VA_ARGS__)
#define log_info(...) log_msg(LOG_L_INFO, __VA_ARGS__)
#define log_warn(...) log_msg(LOG_L_WARN, __VA_ARGS__)
#define log_error(...) log_msg(LOG_L_ERROR, __VA_ARGS__)
