// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * class.c - what a write to a cluster has to do first.
 */
#include <errno.h>

#include "engine.h"

/**
 * gc_lba - first sector of a guest cluster
 * @w: the engine
 * @gc: the cluster
 */
uint64_t gc_lba(const struct q2w *w, uint64_t gc)
{
	return gc << w->q->csect_bits;
}

/**
 * gc_end - the sector behind a guest cluster, or behind the disk
 * @w: the engine
 * @gc: the cluster
 */
uint64_t gc_end(const struct q2w *w, uint64_t gc)
{
	uint64_t end = (gc + 1) << w->q->csect_bits;

	return end < w->img->info.size ? end : w->img->info.size;
}

/**
 * linear_extent - clusters that follow each other in the file too
 * @w: the engine
 * @e: the result
 * @gc: first guest cluster
 * @n: how many
 * @hc: first cluster of the file
 * @tid: or 0
 * @flags: SP_EXT_*
 */
void linear_extent(const struct q2w *w, struct sp_extent *e, uint64_t gc, uint64_t n,
		   uint64_t hc, uint64_t tid, uint32_t flags)
{
	*e = (struct sp_extent){
		.lba = gc_lba(w, gc),
		.len = gc_end(w, gc + n - 1) - gc_lba(w, gc),
		.off = gc_lba(w, hc),
		.tid = tid,
		.type = SP_LINEAR,
		.perm = SP_PERM_R | SP_PERM_W,
		.flags = flags,
	};
}

/**
 * classify - what is a cluster's content now?
 * @w: the engine
 * @gc: the cluster
 * @class: the answer
 * @need: with -EAGAIN: a table of a backing file
 *
 * Return: 0 or -EAGAIN.
 */
int classify(struct q2w *w, uint64_t gc, enum class *class, struct need *need)
{
	uint64_t lba = gc_lba(w, gc), end = gc_end(w, gc);
	struct mapping m;
	int rc;

	switch (q2_type(w->q, entry_get(w, gc))) {
	case Q2_NORMAL:
		*class = CLASS_DATA;
		return 0;
	case Q2_ZERO_PLAIN:
		*class = CLASS_ZERO;
		return 0;
	case Q2_ZERO_ALLOC:
		*class = CLASS_KEPT;
		return 0;
	case Q2_UNALLOC:
		break;
	default:
		*class = CLASS_COPY;
		return 0;
	}
	*class = CLASS_ZERO;
	for (; w->img->nr_layers > 1 && lba < end; lba += m.len) {
		rc = resolve(w->img, lba, end - lba, &m, need);
		if (rc)
			return rc;
		if (m.kind != MAP_ZERO) {
			*class = CLASS_COPY;
			return 0;
		}
	}
	return 0;
}
