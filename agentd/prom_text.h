/*
 * prom_text.h - one number out of an HTTP answer in Prometheus' text format. Pure; the bytes come from a container.
 */
#pragma once

#include "common/util/err.h"
#include "common/util/str.h"

/*
 * prom_answer - the value of @name in a whole HTTP/1.x answer: the sum over all its label sets.
 *
 * 0, or -ERR_INVALID with the reason: no answer, another status than 200, no such metric, not a finite number.
 */
int prom_answer(struct str answer, struct str name, double *ret, struct err *e);

/* prom_complete - by its Content-Length, nothing more will come. */
bool prom_complete(struct str answer);
