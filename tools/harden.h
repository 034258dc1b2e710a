/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * harden.h - a process that memory reclaim may have to wait for.
 */
#ifndef UBDMAP_HARDEN_H
#define UBDMAP_HARDEN_H

#include <stdbool.h>

/**
 * harden_process - io-flusher, locked in memory, spared by the OOM killer, first
 *	in line for a CPU; each as far as permitted
 *
 * Before the first thread is made: they inherit it.
 */
void harden_process(void);

/**
 * lift_file_limit - whoever started us limited his own files, not the image: no
 *	RLIMIT_FSIZE, or as high a one as permitted, and past it EFBIG instead of
 *	SIGXFSZ, which would kill the next mapper as well
 *
 * Before the keeper forks: mappers inherit it.
 */
void lift_file_limit(void);

#endif /* UBDMAP_HARDEN_H */
