/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * lock.h - QEMU-compatible image locks (OFD byte locks), so that qemu-img,
 * qemu-nbd and QEMU refuse an image we use, and we one that they use.
 */
#ifndef SLOWPATH_LOCK_H
#define SLOWPATH_LOCK_H

#include "io.h"

/*
 * Take the locks on f->fd_l that a reader (a writer) of an image holds in QEMU,
 * after checking that nobody holds what conflicts.  -EBUSY with a message.
 * Readers of one backing file share it.
 */
int sp_lock_image(struct sp_file *f, bool writer, struct sp_err *err);
/* Take the fence byte on fd_m; waits up to timeout_ms for the old holder. -ETIMEDOUT */
int sp_lock_fence(struct sp_file *f, int timeout_ms, struct sp_err *err);

#endif /* SLOWPATH_LOCK_H */
