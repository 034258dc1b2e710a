// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * pool.c - clusters that can be mapped at once.
 *
 * Runs in no order.  Who wants many gets from the largest, so that extents
 * stay long; who wants one gets from the smallest, so that the large ones
 * stay large.
 */
#include <stdlib.h>

#include "engine.h"

static bool better(const struct run *a, const struct run *b, uint64_t max)
{
	bool a_fits = a->n >= max, b_fits = b->n >= max;

	if (a_fits != b_fits)
		return a_fits;
	return a_fits ? a->n < b->n : a->n > b->n;
}

/**
 * pool_take - clusters in a row, to be used
 * @w: the engine
 * @max: at most
 * @n: how many; 0: the pool is empty
 *
 * Return: the first.
 */
uint64_t pool_take(struct q2w *w, uint64_t max, uint64_t *n)
{
	struct run *best = NULL;
	uint64_t hc;

	*n = 0;
	for (unsigned int i = 0; i < w->pool_nr; i++)
		if (!best || better(&w->pool[i], best, max))
			best = &w->pool[i];
	if (!best)
		return 0;
	*n = best->n < max ? best->n : max;
	hc = best->hc;
	best->hc += *n;
	best->n -= *n;
	if (!best->n)
		*best = w->pool[--w->pool_nr];
	w->pool_total -= *n;
	w->img->stats.pool = w->pool_total;
	for (uint64_t i = 0; i < *n; i++)
		hc_set(w, hc + i, HC_USED, 1);
	return hc;
}

/**
 * pool_put - clusters that can be mapped at once
 * @w: the engine
 * @hc: the first
 * @n: how many
 *
 * What cannot be noted for want of memory is dropped, to be noted later.
 */
void pool_put(struct q2w *w, uint64_t hc, uint64_t n)
{
	struct run *more;
	unsigned int room, i;

	for (i = 0; i < w->pool_nr; i++)
		if (w->pool[i].hc + w->pool[i].n == hc || hc + n == w->pool[i].hc)
			break;
	if (i == w->pool_nr && i == w->pool_room) {
		room = w->pool_room ? 2 * w->pool_room : 64;
		more = realloc(w->pool, room * sizeof(*more));
		if (!more) {
			for (uint64_t k = 0; k < n; k++)
				hc_drop(w, hc + k);
			return;
		}
		w->pool = more;
		w->pool_room = room;
	}
	for (uint64_t k = 0; k < n; k++)
		hc_set(w, hc + k, HC_POOL, 0);
	if (i == w->pool_nr) {
		w->pool[w->pool_nr++] = (struct run){ hc, n };
	} else {
		if (hc < w->pool[i].hc)
			w->pool[i].hc = hc;
		w->pool[i].n += n;
	}
	w->pool_total += n;
	w->img->stats.pool = w->pool_total;
}
