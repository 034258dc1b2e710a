/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * keeper.h - the parent of a mapper, which starts another when that one dies.
 */
#ifndef UBDMAP_KEEPER_H
#define UBDMAP_KEEPER_H

#include "mapper_process.h"

/**
 * keep - fork a mapper, and another one each time it dies
 * @p: options are set, nothing else
 *
 * Returns in the mapper only, each time anew: @p then tells whether it is the
 * first or a later one.  The keeper itself never comes back: it exits with the
 * first mapper's status if that did not get ready, and with 0 when the device
 * is gone or somebody else serves it.
 *
 * Context: one thread, no resources but the standard streams and ready_fd.
 * Return: 0, or -errno: nothing was forked.
 */
int keep(struct mapper_process *p);

/**
 * keep_tell_ready - the mapper serves: from here on the keeper replaces it
 * @p: with its index
 */
void keep_tell_ready(struct mapper_process *p);

#endif /* UBDMAP_KEEPER_H */
