// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * write.c - WRITE: somewhere to write to (rules 6 to 8).
 *
 *	content now        answer
 *	a cluster's own    map it for writing
 *	zeros              map clusters of the pool, ahead of a writer in sequence
 *	elsewhere, all     PLACE: the request's data goes to clusters of the pool,
 *	  overwritten        which are mapped when it is there
 *	elsewhere          copy to a cluster of the pool, then map it
 */
#include <errno.h>
#include <stdlib.h>

#include "engine.h"

#define MAX_RUNS	1024

/* The clusters of a reply being chosen. */
struct choice {
	struct pend *p;
	uint64_t gc;		/* the next one */
	unsigned int runs;
};

static bool taken(const struct q2w *w, uint64_t gc)
{
	const struct chg *c = chg_find(w, gc);

	return c && (c->sent || c->busy);
}

/*
 * How many clusters from gc on may be given new storage?  place: whatever they
 * hold but storage of their own; else zeros only.
 */
static uint64_t count(struct q2w *w, uint64_t gc, uint64_t max, bool place)
{
	unsigned int tables = 0;
	struct need need;
	enum class class;
	uint64_t n;

	for (n = 0; n < max && gc + n < w->q->nr_gc; n++) {
		if (taken(w, gc + n) || classify(w, gc + n, &class, &need))
			break;
		if (class == CLASS_DATA || (!place && class != CLASS_ZERO))
			break;
		if (table_missing(w, gc + n) &&
		    (!n || !((gc + n) & ((1ull << w->q->l2_bits) - 1))) &&
		    ++tables > w->reserve_nr)
			break;
	}
	return n;
}

/* Does the content now have to be seen as there before the new is linked? */
static uint64_t place_flag(struct q2w *w, uint64_t gc)
{
	struct need need;
	enum class class;

	return !classify(w, gc, &class, &need) && class == CLASS_ZERO ? 0 : 1;
}

/* Give n clusters storage from the pool, as long as that lasts. */
static void give(struct q2w *w, struct choice *ch, uint64_t n)
{
	uint64_t hc, got, i, next;
	struct chg *c;

	for (; n && ch->runs < MAX_RUNS; n -= got, ch->runs++) {
		hc = pool_take(w, n, &got);
		if (!got)
			return;
		for (i = 0; i < got; i++) {
			c = chg_get(w, ch->gc);
			if (!c)
				break;
			if (table_ensure(w, ch->gc)) {
				chg_put(w, c);
				break;
			}
			next = (hc + i) << w->q->cbits | Q2_COPIED;
			if (ch->p->place)
				next |= place_flag(w, ch->gc);
			chg_apply(w, ch->p, c, next);
			ch->gc++;
		}
		if (i < got) {
			pool_put(w, hc + i, got - i);
			return;
		}
	}
}

static void extents_of(const struct q2w *w, const struct pend *p, struct extents *x,
		       uint32_t flags)
{
	struct sp_extent e;

	for (unsigned int i = 0; i < p->nr; i++) {
		linear_extent(w, &e, p->item[i].gc, 1, q2_offset(p->item[i].next & ~1ull)
			      >> w->q->cbits, p->tid, flags);
		extents_add(x, &e);
	}
}

/* New storage for n clusters, one of them at least. */
static int map_new(struct q2w *w, const struct sp_req *req, uint64_t gc, uint64_t n,
		   bool place)
{
	struct extents x = { .max = SP_MAX_REPLY, .ext = w->img->scratch };
	struct choice ch = { .gc = gc };

	if (n > w->pool_total)
		n = w->pool_total;
	ch.p = pend_new(n);
	if (!ch.p)
		return -ENOMEM;
	ch.p->place = place;
	give(w, &ch, n);
	if (!ch.p->nr) {
		free(ch.p);
		return -ENOMEM;
	}
	chg_send(w, ch.p);
	extents_of(w, ch.p, &x, place ? 0 : SP_EXT_REPLACE);
	if (place) {
		w->img->stats.places++;
		reply_place(w->img, req, &x, ch.p->tid);
	} else {
		w->img->stats.allocs += ch.p->nr;
		reply_redrive(w->img, req, &x, ch.p->tid);
	}
	return 0;
}

static int need_pool(struct need *need, uint64_t clusters)
{
	need->kind = NEED_POOL;
	need->arg = clusters;
	return -EAGAIN;
}

static int write_zeros(struct q2w *w, const struct sp_req *req, uint64_t gc,
		       struct need *need)
{
	uint64_t last = (req->want_lba + req->want_len - 1) >> w->q->csect_bits;
	uint64_t asked = last - gc + 1, ahead, n, pool;
	int rc;

	ahead = stream_ahead(w, req, gc);
	if (asked > MAX_CHANGE)
		asked = MAX_CHANGE;
	n = asked + ahead < MAX_CHANGE ? asked + ahead : MAX_CHANGE;
	n = count(w, gc, n, false);
	if (!n)
		return need_pool(need, 1);	/* no table in the reserve */
	pool = w->pool_total;
	if (pool < asked && pool < n)
		return need_pool(need, n < asked ? n : asked);
	if (n > pool)
		n = pool;
	rc = map_new(w, req, gc, n, false);
	if (!rc)
		stream_mapped(w, gc, gc + n, n > asked ? n - asked : 0);
	return rc;
}

/* Whole clusters that the request overwrites, from its first sector on. */
static uint64_t whole(const struct q2w *w, const struct sp_req *req, uint64_t gc)
{
	uint64_t end = req->lba + req->len, n = 0;

	if (req->lba != gc_lba(w, gc))
		return 0;
	while (n < MAX_CHANGE && gc + n < w->q->nr_gc && gc_end(w, gc + n) <= end)
		n++;
	return n;
}

static int write_over(struct q2w *w, const struct sp_req *req, uint64_t gc,
		      enum class class, struct need *need)
{
	uint64_t n = whole(w, req, gc);

	if (class != CLASS_KEPT &&
	    (!w->pool_total || (table_missing(w, gc) && !w->reserve_nr)))
		return need_pool(need, n ? n : 1);
	if (n && class != CLASS_KEPT) {
		if (n > w->pool_total && w->pool_total < MAX_CHANGE / 8)
			return need_pool(need, n);
		n = count(w, gc, n, true);
		if (n)
			return map_new(w, req, gc, n, true);
	}
	need->kind = NEED_COPY;
	need->arg = gc;
	need->len = 0;
	return -EAGAIN;
}

/* Its own cluster once more, but in place of whatever the kernel has: see doubt.c. */
static int map_again(struct q2w *w, const struct sp_req *req, uint64_t gc)
{
	uint64_t entry = entry_get(w, gc);
	struct pend *p = pend_new(1);
	struct chg *c = p ? chg_get(w, gc) : NULL;
	struct sp_extent e;
	struct extents x = { .nr = 1, .ext = &e };

	if (!c) {
		free(p);
		return -ENOMEM;
	}
	chg_apply(w, p, c, entry);
	chg_send(w, p);
	linear_extent(w, &e, gc, 1, q2_offset(entry) >> w->q->cbits, p->tid,
		      SP_EXT_REPLACE | SP_EXT_TOUCHED);
	reply_redrive(w->img, req, &x, p->tid);
	return 0;
}

static int write_data(struct q2w *w, const struct sp_req *req, uint64_t gc,
		      struct need *need)
{
	const struct extents none = { .ext = w->img->scratch };
	bool stale;
	int rc;

	if (q2w_is_dirty(w->q, gc)) {	/* mapped since it was missed */
		reply_redrive(w->img, req, &none, 0);
		return 0;
	}
	rc = doubt_look(w, gc, &stale);
	if (rc)
		return rc;
	if (stale)
		return map_again(w, req, gc);
	rc = try_read(w->img, req, need);
	if (!rc)
		doubt_answered(w, gc);
	return rc;
}

/**
 * try_write - answer WRITE
 * @img: the image
 * @req: the request
 * @need: with -EAGAIN: what is lacking
 *
 * Context: the lock.
 * Return: 0: replied; -EAGAIN; -ENOMEM.
 */
int try_write(struct sp_image *img, const struct sp_req *req, struct need *need)
{
	struct q2w *w = img->layers[0].q->w;
	uint64_t gc = req->lba >> w->q->csect_bits;
	enum class class;
	int rc;

	if (!img->prepared) {
		need->kind = NEED_PREPARE;
		return -EAGAIN;
	}
	if (w->nr_chg > MAX_UNCOMMITTED) {
		need->kind = NEED_COMMIT;
		return -EAGAIN;
	}
	if (taken(w, gc)) {
		need->kind = NEED_WAIT;
		return -EAGAIN;
	}
	rc = classify(w, gc, &class, need);
	if (rc)
		return rc;
	if (class == CLASS_DATA)
		return write_data(w, req, gc, need);
	if (class == CLASS_ZERO)
		return write_zeros(w, req, gc, need);
	return write_over(w, req, gc, class, need);
}
