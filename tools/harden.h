/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * harden.h - a process that memory reclaim may have to wait for.
 */
#ifndef UBDMAP_HARDEN_H
#define UBDMAP_HARDEN_H

#include <stdbool.h>

/**
 * harden_threads - io-flusher, first in line for a CPU; as far as permitted
 *
 * Before the first thread is made: they inherit it.
 */
void harden_threads(void);

/**
 * stay_in_memory - locked in memory, then spared by the OOM killer; as far as permitted
 *
 * An image says how much memory its tables take, and it may be anybody's. So for a new
 * device this is to come when it is open: until all of it is there, the one to be killed
 * for want of memory is whoever wants it.
 */
void stay_in_memory(void);

/**
 * lift_file_limit - whoever started us limited his own files, not the image: no
 *	RLIMIT_FSIZE, or as high a one as permitted, and past it EFBIG instead of
 *	SIGXFSZ, which would kill the next mapper as well
 *
 * Before the keeper forks: mappers inherit it.
 */
void lift_file_limit(void);

#endif /* UBDMAP_HARDEN_H */
