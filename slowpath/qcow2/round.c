// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * round.c - the tables' part of a commit round (rules 12 to 16).
 *
 * A sector of a table is written with the entries of the snapshot and, for
 * everything else, what the file has there already.  L1 is written after L2, but
 * in the same fdatasync: a new table is durably zero, so that whichever of the
 * two gets there first, the other's absence reads as before.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"

#define BUF_BYTES	(64u << 10)

static int by_gc(const void *a, const void *b)
{
	uint64_t x = (*(struct chg *const *)a)->gc, y = (*(struct chg *const *)b)->gc;

	return x < y ? -1 : x > y;
}

/**
 * round_snapshot - what is finished now
 * @img: the image
 * @tid: lowered below what is left out
 *
 * Context: the lock; no round is open.
 * Return: whether an fdatasync is due before the tables are written (rule 13).
 */
bool round_snapshot(struct sp_image *img, uint64_t *tid)
{
	struct q2w *w = img->layers[0].q->w;
	bool f1 = false;
	struct list *l;

	w->snap_nr = 0;
	for (l = w->changes.next; l != &w->changes; l = l->next) {
		struct chg *c = list_entry(l, struct chg, link);

		if (!c->oldest)
			continue;
		if (c->sent) {
			if (c->oldest <= *tid)
				*tid = c->oldest - 1;
			continue;
		}
		c->in_snap = true;
		c->snap = entry_get(w, c->gc);
		c->newer = 0;
		c->again = false;
		w->snap[w->snap_nr++] = c;
		f1 |= c->f1 > img->sync_done;
	}
	if (w->snap_nr)
		qsort(w->snap, w->snap_nr, sizeof(w->snap[0]), by_gc);
	return f1;
}

/* The entry that the file is to have when this round is through. */
static uint64_t file_entry(const struct q2w *w, uint64_t gc)
{
	const struct chg *c = q2w_any_dirty(w->q, gc) ? chg_find(w, gc) : NULL;

	if (!c)
		return entry_get(w, gc);
	return c->in_snap ? c->snap : c->file;
}

static int write_at(struct q2w *w, size_t len, uint64_t off)
{
	int rc;

	pthread_mutex_unlock(&w->img->lock);
	rc = sp_file_pwrite(w->file, w->round_buf, len, off);
	pthread_mutex_lock(&w->img->lock);
	return rc;
}

/*
 * The sector with the entry of snap[*i], and those behind it as long as each
 * has something of the snapshot; *i becomes the first that is not written.
 */
static int write_l2(struct q2w *w, uint64_t *i)
{
	uint64_t per = w->unit / 8, table = w->snap[*i]->gc >> w->q->l2_bits;
	uint64_t first = w->snap[*i]->gc / per * per, end = first;
	uint64_t mask = (1ull << w->q->l2_bits) - 1;

	while (*i < w->snap_nr && (end - first) * 8 < BUF_BYTES &&
	       w->snap[*i]->gc >> w->q->l2_bits == table && w->snap[*i]->gc < end + per) {
		end += per;
		while (*i < w->snap_nr && w->snap[*i]->gc < end)
			++*i;
	}
	for (uint64_t gc = first; gc < end; gc++)
		q2_put64(w->round_buf + (gc - first) * 8, file_entry(w, gc));
	return write_at(w, (end - first) * 8,
			(w->l2[table].hc << w->q->cbits) + (first & mask) * 8);
}

/* The sector of L1 with entry i, if a table is new to it. */
static int write_l1(struct q2w *w, uint64_t i)
{
	uint64_t per = w->unit / 8, first = i / per * per, old;
	int rc;

	if (q2_offset(w->q->l1[i]))
		return 0;
	old = w->q->l1[i];
	w->q->l1[i] = w->l2[i].hc << w->q->cbits | Q2_COPIED;
	memset(w->round_buf, 0, w->unit);
	for (uint64_t k = 0; k < per && first + k < w->q->l1_size; k++)
		q2_put64(w->round_buf + k * 8, w->q->l1[first + k]);
	rc = write_at(w, w->unit, w->q->l1_off + first * 8);
	if (rc)
		w->q->l1[i] = old;	/* again, when the round goes on */
	return rc;
}

/**
 * round_write - write the tables' sectors
 * @img: the image
 *
 * Context: the lock, dropped meanwhile; img->committing.
 * Return: 0; -ENOSPC: call again; others.
 */
int round_write(struct sp_image *img)
{
	struct q2w *w = img->layers[0].q->w;
	uint64_t last = UINT64_MAX, l1;
	int rc = 0;

	for (uint64_t i = 0; !rc && i < w->snap_nr;)
		rc = write_l2(w, &i);
	for (uint64_t i = 0; !rc && i < w->snap_nr; i++) {
		l1 = w->snap[i]->gc >> w->q->l2_bits;
		if (l1 != last)
			rc = write_l1(w, l1);
		last = l1;
	}
	return rc;
}

/**
 * round_committed - what the round brought to the file is there
 * @img: the image
 *
 * What it replaced there is named by nothing any more: the acknowledgement of the
 * change, without which it would not have been in the snapshot, says that the
 * kernel has drained.
 *
 * Context: the lock.
 */
void round_committed(struct sp_image *img)
{
	struct q2w *w = img->layers[0].q->w;
	uint64_t old;

	for (uint64_t i = 0; i < w->snap_nr; i++) {
		struct chg *c = w->snap[i];

		old = c->file;
		c->file = c->snap;
		c->in_snap = false;
		c->oldest = c->newer;
		c->newer = 0;
		if (!same_storage(w->q, old, c->file) &&
		    !same_storage(w->q, old, entry_get(w, c->gc)))
			hc_drop_entry(w, old);
		if (!c->oldest && !c->sent)
			c->f1 = 0;
		chg_put(w, c);
	}
	w->snap_nr = 0;
}
