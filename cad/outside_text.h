/*
 * outside_text.h - what an external CA is asked and what it answers: CFSSL's JSON API for signing. Pure.
 */
#pragma once

#include "cad/ca_cert.h"

#define OUTSIDE_ANSWER_MAX (256u << 10)

/* outside_question - the certificate for this node and key. */
void outside_question(struct buf *b, struct str csr, const struct ca_leaf *l);
/* outside_question_ca - another CA certificate for the name and key in the request. */
void outside_question_ca(struct buf *b, struct str csr);

/* outside_answer - the certificate (PEM), appended; or ERR_IO with what the CA has to say. */
int outside_answer(struct str body, struct buf *ret_cert, struct err *e);
