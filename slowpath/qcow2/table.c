// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * table.c - L2 tables of a file that is written to, all of them in memory.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"

/**
 * q2w_table - an L2 table
 * @q: the layer
 * @l1: index in the L1 table
 *
 * Return: its entries; NULL: there is none, all is unallocated.
 */
const uint64_t *q2w_table(const struct q2 *q, uint64_t l1)
{
	return q->w->l2[l1].e;
}

/**
 * q2w_any_dirty - is anything of a cluster's table uncommitted?
 * @q: the layer
 * @gc: the cluster
 */
bool q2w_any_dirty(const struct q2 *q, uint64_t gc)
{
	return q->w->l2[gc >> q->l2_bits].nr_chg;
}

/**
 * q2w_is_dirty - is a cluster uncommitted?
 * @q: the layer
 * @gc: the cluster
 */
bool q2w_is_dirty(const struct q2 *q, uint64_t gc)
{
	const struct chg *c = q2w_any_dirty(q, gc) ? chg_find(q->w, gc) : NULL;

	return c && (c->oldest || c->sent || c->in_snap);
}

/**
 * q2w_is_busy - is a change of a cluster under way?
 * @q: the layer
 * @gc: the cluster
 */
bool q2w_is_busy(const struct q2 *q, uint64_t gc)
{
	const struct chg *c = q2w_any_dirty(q, gc) ? chg_find(q->w, gc) : NULL;

	return c && c->sent;
}

/**
 * entry_get - the entry of a cluster
 * @w: the engine
 * @gc: the cluster
 */
uint64_t entry_get(const struct q2w *w, uint64_t gc)
{
	const struct l2 *l2 = &w->l2[gc >> w->q->l2_bits];

	return l2->e ? l2->e[gc & ((1ull << w->q->l2_bits) - 1)] : 0;
}

/**
 * entry_set - change the entry of a cluster, in memory
 * @w: the engine
 * @gc: the cluster, its table is there
 * @entry: the new one
 */
void entry_set(struct q2w *w, uint64_t gc, uint64_t entry)
{
	w->l2[gc >> w->q->l2_bits].e[gc & ((1ull << w->q->l2_bits) - 1)] = entry;
}

/**
 * table_missing - does a cluster's table have to be made?
 * @w: the engine
 * @gc: the cluster
 */
bool table_missing(const struct q2w *w, uint64_t gc)
{
	return !w->l2[gc >> w->q->l2_bits].e;
}

/**
 * table_ensure - see to it that a cluster has a table
 * @w: the engine
 * @gc: the cluster
 *
 * A new one comes from the reserve, zero as it is there.  The L1 table of the
 * file learns of it when a round has something to write into it.
 *
 * Return: 0, -ENOSPC: the reserve is empty, -ENOMEM.
 */
int table_ensure(struct q2w *w, uint64_t gc)
{
	struct l2 *l2 = &w->l2[gc >> w->q->l2_bits];
	uint64_t *e;

	if (l2->e)
		return 0;
	if (!w->reserve_nr)
		return -ENOSPC;
	e = calloc(w->q->cs / 8, 8);
	if (!e)
		return -ENOMEM;
	l2->e = e;
	l2->hc = w->reserve[--w->reserve_nr];
	hc_set(w, l2->hc, HC_USED, 1);
	return 0;
}
