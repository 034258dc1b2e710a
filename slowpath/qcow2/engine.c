// SPDX-License-Identifier: LGPL-2.1-or-later
#include "engine.h"
#include <errno.h>
const struct engine q2_engine;
int q2w_open(struct sp_image *img, struct sp_err *err){(void)img;(void)err;return -ENOTSUP;}
const uint64_t *q2w_table(const struct q2 *q, uint64_t l1){(void)q;(void)l1;return 0;}
bool q2w_is_dirty(const struct q2 *q, uint64_t gc){(void)q;(void)gc;return 0;}
bool q2w_is_busy(const struct q2 *q, uint64_t gc){(void)q;(void)gc;return 0;}
bool q2w_any_dirty(const struct q2 *q, uint64_t gc){(void)q;(void)gc;return 0;}
