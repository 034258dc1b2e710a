// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * finish.c - a clean end (rule 27).
 *
 * What nobody wrote to is given back, the rest is committed; then every cluster
 * that is not in use is free, on the file too, and the file no longer than it
 * has to be; then the dirty bit goes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"

/* Replies that nobody acknowledged: the kernel's word is its dump. */
static void settle(struct q2w *w, const struct sp_extent *ext, unsigned int nr)
{
	struct pend *p;
	unsigned int i;

	while (!list_empty(&w->img->pending)) {
		p = list_entry(w->img->pending.next, struct pend, link);
		list_del(&p->link);
		for (i = 0; i < nr; i++)
			if (ext[i].tid == p->tid && !(ext[i].flags & SP_EXT_PLACING))
				break;
		chg_acked(w->img, p, i < nr ? 0 : -ECANCELED);
		free(p);
	}
}

static void mark_touched(struct q2w *w, const struct sp_extent *ext, unsigned int nr)
{
	for (unsigned int i = 0; i < nr; i++) {
		uint64_t gc = ext[i].lba >> w->q->csect_bits, last;

		if (!ext[i].tid || !ext[i].len || ext[i].lba >= w->img->info.size)
			continue;
		last = (ext[i].lba + ext[i].len - 1) >> w->q->csect_bits;
		for (; gc <= last && gc < w->q->nr_gc; gc++) {
			struct chg *c = chg_find(w, gc);

			if (!c)
				continue;
			c->seen = true;
			c->touched |= ext[i].flags & SP_EXT_TOUCHED;
		}
	}
}

/*
 * Changes that only made room.  With more than one change since the round that made
 * the file's entry, that is not what the cluster reads: such a cluster is linked.
 *
 * The kernel has the extents still, and keeps them if we die before it is told of the
 * end.  So they stay uncommitted: the next mapper has to hear of them.
 */
static void give_back(struct q2w *w)
{
	struct list *l = w->changes.next, *next;
	uint64_t entry;

	for (; l != &w->changes; l = next) {
		struct chg *c = list_entry(l, struct chg, link);

		next = l->next;
		entry = entry_get(w, c->gc);
		if (!c->seen || c->touched || c->again || c->in_snap ||
		    q2_type(w->q, entry) != Q2_NORMAL ||
		    same_storage(w->q, entry, c->file))
			continue;
		entry_set(w, c->gc, c->file);
		hc_drop_entry(w, entry);
		if (!w->img->given_back || c->oldest < w->img->given_back)
			w->img->given_back = c->oldest;
		c->oldest = 0;
		chg_put(w, c);
	}
}

static void free_unlinked_tables(struct q2w *w)
{
	for (uint32_t i = 0; i < w->q->l1_size; i++) {
		struct l2 *l2 = &w->l2[i];

		if (!l2->e || q2_offset(w->q->l1[i]) || l2->nr_chg)
			continue;
		hc_drop(w, l2->hc);
		free(l2->e);
		l2->e = NULL;
	}
}

static int free_clusters(struct q2w *w)
{
	struct hcs v = { 0 };
	int rc = 0;

	while (w->pool_nr) {
		struct run r = w->pool[--w->pool_nr];

		for (uint64_t i = 0; i < r.n; i++)
			hc_set(w, r.hc + i, HC_FREE, 0);
	}
	w->pool_total = 0;
	w->img->stats.pool = 0;
	while (w->reserve_nr)
		hc_drop(w, w->reserve[--w->reserve_nr]);
	while (!rc && (w->drop_nr || w->drop_lost)) {
		rc = take_dropped(w, &v);
		if (!rc)
			rc = punch_clusters(w, &v);
		if (rc) {
			hcs_give_back(w, &v);
			return rc;
		}
		for (uint64_t i = 0; i < v.nr; i++)
			hc_set(w, v.hc[i], HC_FREE, 0);
		v.nr = 0;
	}
	free(v.hc);
	return rc;
}

/* Context: w->refilling. */
static int clean(struct q2w *w)
{
	int rc;

	free_unlinked_tables(w);
	rc = free_clusters(w);
	if (!rc)
		rc = ref_link(w);
	if (!rc)
		rc = ref_write(w);
	if (!rc)
		rc = q2_sync(w);
	if (!rc)
		rc = file_cut(w, 0);
	if (!rc)
		rc = header_write(w, false);
	return rc ? rc : q2_sync(w);
}

/**
 * q2_finish - see sp_finish()
 * @img: the image
 * @ext: the uncommitted extents as the kernel has them
 * @nr: how many
 * @err: message
 *
 * Return: 0 or -errno.
 */
int q2_finish(struct sp_image *img, const struct sp_extent *ext, unsigned int nr,
	      struct sp_err *err)
{
	struct q2w *w = img->layers[0].q->w;
	int rc = 0;

	/*
	 * Who could not be made ready may be marked dirty all the same.  It stays so if
	 * something is in use that is not counted: that is to be repaired by who opens it.
	 */
	if (!img->prepared && (!w->marked || w->blocks_missing))
		return 0;
	settle(w, ext, nr);
	mark_touched(w, ext, nr);
	give_back(w);
	rc = commit_upto(img, pend_floor(img));
	if (!rc) {
		refill_begin(w);
		rc = clean(w);
		refill_end(w);
		if (!rc) {
			img->prepared = false;
			w->marked = false;
		}
	}
	return rc ? sp_fail(err, rc, "%s: could not be closed cleanly: %s; it stays marked dirty",
			    w->file->path, strerror(-rc)) : 0;
}
