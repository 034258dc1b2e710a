/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine.h - a qcow2 file that is written to.  (stub)
 */
#ifndef QCOW2_ENGINE_H
#define QCOW2_ENGINE_H

#include "qcow2.h"

int q2w_open(struct sp_image *img, struct sp_err *err);
const uint64_t *q2w_table(const struct q2 *q, uint64_t l1);
bool q2w_is_dirty(const struct q2 *q, uint64_t gc);
bool q2w_is_busy(const struct q2 *q, uint64_t gc);
bool q2w_any_dirty(const struct q2 *q, uint64_t gc);

#endif
