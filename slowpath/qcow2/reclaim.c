// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * reclaim.c - clusters that nothing names any more, on their way back.
 *
 * On the way they are in state DROP and on no list but a struct hcs, whose owner
 * has w->refilling.
 */
#include <errno.h>
#include <stdlib.h>

#include "engine.h"

#define TAKE_MAX	65536

/**
 * hcs_add - one more
 * @v: the list
 * @hc: cluster
 *
 * Return: 0 or -ENOMEM.
 */
int hcs_add(struct hcs *v, uint64_t hc)
{
	uint64_t room, *more;

	if (v->nr == v->room) {
		room = v->room ? 2 * v->room : 1024;
		more = realloc(v->hc, room * sizeof(*more));
		if (!more)
			return -ENOMEM;
		v->hc = more;
		v->room = room;
	}
	v->hc[v->nr++] = hc;
	return 0;
}

/**
 * hcs_give_back - not to the pool after all
 * @w: the engine
 * @v: emptied and freed
 */
void hcs_give_back(struct q2w *w, struct hcs *v)
{
	for (uint64_t i = 0; i < v->nr; i++)
		hc_drop(w, v->hc[i]);
	free(v->hc);
	*v = (struct hcs){ 0 };
}

/* Find those that could not be noted. */
static void find_lost(struct q2w *w)
{
	w->drop_nr = 0;
	w->drop_lost = false;
	for (uint64_t hc = 0; hc < w->nb && !w->drop_lost; hc++)
		if (hc_state(w, hc) == HC_DROP)
			hc_drop(w, hc);
}

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/**
 * take_dropped - take clusters over from w->drop
 * @w: the engine
 * @v: empty; sorted afterwards
 *
 * Return: 0 or -ENOMEM, and nothing is taken.
 */
int take_dropped(struct q2w *w, struct hcs *v)
{
	if (w->drop_lost)
		find_lost(w);
	while (w->drop_nr && v->nr < TAKE_MAX) {
		if (hcs_add(v, w->drop[w->drop_nr - 1])) {
			hcs_give_back(w, v);
			return -ENOMEM;
		}
		w->drop_nr--;
	}
	if (!w->drop_nr)
		w->drop_since = 0;
	if (v->nr)
		qsort(v->hc, v->nr, sizeof(v->hc[0]), by_number);
	return 0;
}

/**
 * punch_clusters - make them zero and give their space back
 * @w: the engine
 * @v: sorted
 *
 * Context: the lock, dropped meanwhile.
 * Return: 0 or -errno.
 */
int punch_clusters(struct q2w *w, const struct hcs *v)
{
	uint64_t i, n;
	int rc = 0;

	pthread_mutex_unlock(&w->img->lock);
	for (i = 0; !rc && i < v->nr; i += n) {
		for (n = 1; i + n < v->nr && v->hc[i + n] == v->hc[i] + n; n++)
			;
		rc = sp_file_punch(w->file, v->hc[i] << w->q->cbits, n << w->q->cbits);
	}
	pthread_mutex_lock(&w->img->lock);
	return rc;
}
