// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * relink.c - take over what the kernel kept (rules 22 to 24).
 *
 * First all storage that the kernel's extents point to is marked as in use, so
 * that nothing else gets it; then the image is made ready, which begins with an
 * fdatasync; then the entries become the extents.  What the file had there
 * goes the usual way after the first commit.
 *
 * Storage may lie behind the end of the file: a clean end gives back what nobody wrote
 * to and cuts the file, and the mapper may die before the kernel is told (finish.c).
 * What was there was zeros, which is what the file has when it is as long again.
 *
 * A PLACE in flight is neither old nor new yet: its storage is kept, its
 * acknowledgement is waited for, and FLUSHes with it.
 */
#include <errno.h>
#include <stdlib.h>

#include "engine.h"

#define CUT_BYTES	(256ull << 20)	/* of pool, reserve, and what was dropped */

static int contradiction(struct q2w *w, const struct sp_extent *e, struct sp_err *err)
{
	return sp_fail(err, -EIO, "%s: what the driver keeps for sectors %llu+%llu contradicts the image; check it: qemu-img check -r all",
		       w->file->path, (unsigned long long)e->lba,
		       (unsigned long long)e->len);
}

/* The cluster of the file that an extent means for gc; 0: none can be. */
static uint64_t storage(const struct q2w *w, const struct sp_extent *e, uint64_t gc)
{
	uint64_t off;

	if (e->store || e->off > UINT64_MAX / 2 || e->off + gc_lba(w, gc) < e->lba)
		return 0;
	off = e->off + gc_lba(w, gc) - e->lba;
	if (off & (gc_lba(w, 1) - 1) || off >> w->q->csect_bits >= w->nb)
		return 0;
	return off >> w->q->csect_bits;
}

/* Ours, or nobody's and ours from here on. */
static bool claim(struct q2w *w, const struct chg *c, uint64_t hc)
{
	enum q2_type t = q2_type(w->q, c->file);

	if (!hc)
		return false;
	if (hc_state(w, hc) == HC_FREE) {
		hc_set(w, hc, HC_USED, 1);
		return true;
	}
	if (c->seen && q2_offset(c->snap) >> w->q->cbits == hc)
		return true;
	return (t == Q2_NORMAL || t == Q2_ZERO_ALLOC) &&
	       q2_offset(c->file) >> w->q->cbits == hc;
}

static bool reads_zero(const struct q2w *w, uint64_t entry)
{
	enum q2_type t = q2_type(w->q, entry);

	return t == Q2_ZERO_PLAIN || t == Q2_ZERO_ALLOC ||
	       (t == Q2_UNALLOC && w->img->nr_layers == 1);
}

/* What the kernel says about a cluster, into c->snap.  */
static int note(struct q2w *w, const struct sp_extent *e, struct chg *c)
{
	uint64_t hc, next, end = e->lba + e->len;

	if (e->type == SP_ZERO) {
		if (e->lba > gc_lba(w, c->gc) || end < gc_end(w, c->gc))
			return -EIO;
		next = reads_zero(w, c->file) ? c->file : w->img->nr_layers > 1 ? Q2_ZERO : 0;
		if (next == Q2_ZERO && w->q->version < 3)
			return -EIO;
	} else {
		hc = storage(w, e, c->gc);
		if (!claim(w, c, hc))
			return -EIO;
		next = hc << w->q->cbits | Q2_COPIED;
	}
	if (c->seen && c->snap != next)
		return -EIO;
	c->snap = next;
	c->seen = true;
	/* An extent tells of the latest change only; there may have been zeros before. */
	c->again = !reads_zero(w, c->file);
	if (!c->oldest || e->tid < c->oldest)
		c->oldest = e->tid;
	return 0;
}

static struct pend *placing(struct q2w *w, const struct sp_extent *e, uint64_t items)
{
	struct pend *p = pend_find(w->img, e->tid), *bigger;
	struct list *l;

	if (!p || p->nr + items > p->room) {
		bigger = pend_new(items + (p ? p->nr : 0));
		if (!bigger)
			return NULL;
		bigger->place = true;
		bigger->tid = e->tid;
		for (unsigned int i = 0; p && i < p->nr; i++)
			bigger->item[bigger->nr++] = p->item[i];
		if (p) {
			list_del(&p->link);
			free(p);
		}
		p = bigger;
		for (l = w->img->pending.next; l != &w->img->pending; l = l->next)
			if (list_entry(l, struct pend, link)->tid > e->tid)
				break;
		list_add_tail(&p->link, l);
	}
	return p;
}

static int note_place(struct q2w *w, const struct sp_extent *e, struct chg *c,
		      struct pend *p)
{
	uint64_t hc = storage(w, e, c->gc);

	if (c->sent || !hc || hc_state(w, hc) != HC_FREE)
		return -EIO;
	hc_set(w, hc, HC_USED, 1);
	c->sent = true;
	if (!c->oldest)
		c->oldest = e->tid;
	p->item[p->nr++] = (struct item){
		.gc = c->gc, .prev = c->file, .next = hc << w->q->cbits | Q2_COPIED | 1,
	};
	return 0;
}

static int note_extent(struct q2w *w, const struct sp_extent *e, struct sp_err *err)
{
	uint64_t size = w->img->info.size, gc, last;
	struct pend *p = NULL;
	struct chg *c;
	int rc = 0;

	if (!e->tid || e->type == SP_EIO)
		return 0;
	if (!e->len || e->lba >= size || e->len > size - e->lba)
		return contradiction(w, e, err);
	gc = e->lba >> w->q->csect_bits;
	last = (e->lba + e->len - 1) >> w->q->csect_bits;
	if (e->flags & SP_EXT_PLACING) {
		p = placing(w, e, last - gc + 1);
		if (!p)
			return -ENOMEM;
	}
	for (; !rc && gc <= last; gc++) {
		c = chg_get(w, gc);
		if (!c)
			return -ENOMEM;
		rc = p ? note_place(w, e, c, p) : note(w, e, c);
	}
	return rc ? contradiction(w, e, err) : 0;
}

/* How many tables are missing for what was noted. */
static unsigned int missing_tables(const struct q2w *w)
{
	unsigned int n = 0;

	for (uint32_t i = 0; i < w->q->l1_size; i++)
		n += w->l2[i].nr_chg && !w->l2[i].e;
	return n;
}

static int get_table(struct q2w *w, uint64_t gc)
{
	int rc;

	while ((rc = table_ensure(w, gc)) == -ENOSPC) {
		rc = reserve_for_links(w, missing_tables(w));
		if (rc)
			break;
	}
	return rc;
}

static int link_all(struct q2w *w)
{
	struct list *l;
	int rc = 0;

	for (l = w->changes.next; !rc && l != &w->changes; l = l->next) {
		struct chg *c = list_entry(l, struct chg, link);

		rc = get_table(w, c->gc);
		if (rc || !c->seen)
			continue;
		entry_set(w, c->gc, c->snap);
		c->seen = false;
		c->f1 = w->img->sync_started + 1;
	}
	/* What a PLACE replaces is what was noted for the same cluster. */
	for (l = w->img->pending.next; l != &w->img->pending; l = l->next) {
		struct pend *p = list_entry(l, struct pend, link);

		for (unsigned int i = 0; i < p->nr; i++)
			p->item[i].prev = entry_get(w, p->item[i].gc);
	}
	return rc;
}

/* Behind the last cluster that an extent means; 0: none, or a nonsense. */
static uint64_t storage_end(const struct q2w *w, const struct sp_extent *e)
{
	uint64_t size = w->img->info.size;

	if (!e->tid || e->type != SP_LINEAR || e->store || e->flags & SP_EXT_PLACING ||
	    !e->len || e->lba >= size || e->len > size - e->lba || e->off > UINT64_MAX / 2)
		return 0;
	return ((e->off + e->len - 1) >> w->q->csect_bits) + 1;
}

/* Longer than this no file is that was cut: all of the disk, all of its tables, the pool. */
static uint64_t longest(const struct q2w *w)
{
	return w->nb + 2 * w->q->nr_gc + (CUT_BYTES >> w->q->cbits);
}

/*
 * Something that was written to behind the end is not of that kind: it has made the file
 * longer by itself, or somebody else has cut it.  Hits go on while we attach, so the
 * size counts that the file has now.
 */
static bool is_lost(const struct q2w *w, const struct sp_extent *e)
{
	uint64_t bytes;

	return e->flags & SP_EXT_TOUCHED && e->off >> w->q->csect_bits >= w->nb &&
	       (sp_file_size(w->file, &bytes) || e->off >= bytes >> SP_SECTOR_SHIFT);
}

/*
 * Clusters for what lies behind the end, FREE as yet; the file follows with
 * q2_prepare(), when nothing contradicts it.
 */
static int reach_all(struct q2w *w, const struct sp_extent *ext, unsigned int nr,
		     struct sp_err *err)
{
	uint64_t nb = w->nb, max = longest(w), per = ref_per_block(w->q), end;
	int rc;

	for (unsigned int i = 0; !w->file->blockdev && i < nr; i++) {
		end = storage_end(w, &ext[i]);
		if (end <= w->nb)
			continue;
		if (end > max || is_lost(w, &ext[i]))
			return contradiction(w, &ext[i], err);
		if (end > nb)
			nb = end;
	}
	if (nb == w->nb)
		return 0;
	rc = hc_grow(w, nb);
	if (rc)
		return rc;
	for (uint64_t bi = w->nb / per; bi * per < nb; bi++)
		w->blocks_missing |= bi >= w->rt_n || !w->rt[bi];
	w->nr_free += nb - w->nb;
	w->nb = nb;
	return 0;
}

/**
 * q2_relink - see sp_relink()
 * @img: the image
 * @ext: what the kernel keeps
 * @nr: how many
 * @err: message
 *
 * Return: 0 or -errno; the image is of no use then.
 */
int q2_relink(struct sp_image *img, const struct sp_extent *ext, unsigned int nr,
	      struct sp_err *err)
{
	struct q2w *w = img->layers[0].q->w;
	int rc = 0;

	/* Extents that are clean may be writable already, if it was prepared. */
	if (!nr && w->q->version >= 3 && !(w->q->incompat & Q2_INCOMPAT_DIRTY))
		return 0;
	rc = reach_all(w, ext, nr, err);
	for (unsigned int i = 0; !rc && i < nr; i++)
		rc = note_extent(w, &ext[i], err);
	if (rc)
		return rc;
	rc = q2_prepare(w);
	/* With nothing to link the next write tries again: reads need no space. */
	if (!nr && no_longer(rc) && !img->failed)
		return 0;
	return rc ? rc : link_all(w);
}
