// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * doubt.c - clusters of which the kernel may have extents that say less than is true.
 *
 * A file may end inside its last cluster.  Until something is written what is
 * missing of that cluster is zeros to the kernel, or comes from the cache; before
 * the first write the file is made longer (q2_prepare()), and then it has all of it.
 * But a clean extent fills holes and replaces nothing (rule 2).  A write to that
 * part is answered with the cluster, finds the zeros again, comes back, and fails in
 * the end.
 *
 * Which cluster it is only that mapper could tell that has seen the file end
 * there, and it may have died since: the next one finds a file that is whole, and the
 * kernel tells nobody of extents that are clean.  So it is found by what it does:
 * a write that comes again and again although it was answered.  Then what the
 * kernel has is replaced, by an uncommitted extent with the same storage, whose entry
 * is committed as it is.
 *
 * Writes come again for clusters without any doubt too: the kernel evicts, and a
 * write may have missed before the answer to another one arrived.  There the same
 * costs an entry in a commit, and until then an extent that cannot be evicted.  Such a
 * cluster is taken for a stale one at its third write, and only once: what has
 * replaced the kernel's extents of a cluster was ours, and the whole cluster, so
 * from there on there is no doubt.  If it was refused there still is.
 *
 * For each cluster of a table, in two bits, made at its first such write:
 *
 *	0, 1, STALE	writes answered with clean extents
 *	SURE		replaced by us
 *
 * Nothing of this is needed by a mapper that made the device of a file that was
 * whole, nor on a block device, where a cluster that is not all there is refused.
 */
#include <errno.h>
#include <stdlib.h>

#include "engine.h"

enum { STALE = 2, SURE = 3 };

static uint8_t *byte_of(const struct q2w *w, uint64_t gc, unsigned int *shift)
{
	uint64_t i = gc & ((1ull << w->q->l2_bits) - 1);

	*shift = i % 4 * 2;
	return &w->l2[gc >> w->q->l2_bits].asked[i / 4];
}

static unsigned int get(const struct q2w *w, uint64_t gc)
{
	unsigned int shift;
	const uint8_t *at = byte_of(w, gc, &shift);

	return *at >> shift & 3;
}

static void set(struct q2w *w, uint64_t gc, unsigned int value)
{
	unsigned int shift;
	uint8_t *at = byte_of(w, gc, &shift);

	*at = (*at & ~(3u << shift)) | value << shift;
}

/**
 * doubt_look - is what the kernel has of a cluster to be replaced?
 * @w: the engine
 * @gc: the cluster, which a write is about to be answered for; it has a place of its
 *	own and is clean
 * @stale: the answer
 *
 * Context: the lock.
 * Return: 0 or -ENOMEM.
 */
int doubt_look(struct q2w *w, uint64_t gc, bool *stale)
{
	struct l2 *l2 = &w->l2[gc >> w->q->l2_bits];

	*stale = false;
	if (!w->in_doubt)
		return 0;
	if (!l2->asked)
		l2->asked = calloc(w->q->cs / 8 / 4, 1);
	if (!l2->asked)
		return -ENOMEM;
	*stale = get(w, gc) == STALE;
	return 0;
}

/**
 * doubt_answered - the write was answered with clean extents
 * @w: the engine
 * @gc: the cluster, after doubt_look()
 *
 * Context: the lock.
 */
void doubt_answered(struct q2w *w, uint64_t gc)
{
	if (w->in_doubt && get(w, gc) < STALE)
		set(w, gc, get(w, gc) + 1);
}

/**
 * doubt_settled - all that the kernel had of a cluster was replaced
 * @w: the engine
 * @gc: the cluster
 *
 * Context: the lock.
 */
void doubt_settled(struct q2w *w, uint64_t gc)
{
	if (w->l2[gc >> w->q->l2_bits].asked)
		set(w, gc, SURE);
}
