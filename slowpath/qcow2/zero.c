// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * zero.c - DISCARD and ZEROES (rule 9).
 *
 * Whole clusters become an entry that reads zeros, and leave an uncommitted ZERO;
 * what they held goes back by the usual way, after the commit.  ZEROES over part
 * of a cluster writes the zeros; DISCARD of a part does nothing.
 *
 * Version 2 has no entry for zeros over a backing file: DISCARD does nothing
 * there and ZEROES writes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"

#define MAX_LOOKED	65536		/* clusters per call */
#define SMALL_WRITE	(128u << 10)	/* zeros below this are written as data */

enum step { SKIP, SET, IN_PLACE, ALLOC };

static bool has_backing(const struct q2w *w)
{
	return w->img->nr_layers > 1;
}

static enum step set_zero(const struct q2w *w, uint64_t *next)
{
	*next = has_backing(w) ? Q2_ZERO : 0;
	return SET;
}

/* What is to be done with a whole cluster. */
static enum step decide(const struct q2w *w, const struct sp_req *req, uint64_t entry,
			enum class class, uint64_t *next)
{
	bool keep = req->kind == SP_ZEROES && req->flags & SP_REQ_NOUNMAP;
	bool can = w->q->version >= 3 || !has_backing(w);

	if (class == CLASS_ZERO)
		return SKIP;
	if (req->kind == SP_DISCARD)
		return can ? set_zero(w, next) : SKIP;
	if (class == CLASS_KEPT)
		return keep ? SKIP : set_zero(w, next);
	if (class == CLASS_COPY)
		return can ? set_zero(w, next) : ALLOC;
	if (keep && w->q->version >= 3) {
		*next = q2_offset(entry) | Q2_COPIED | Q2_ZERO;
		return SET;
	}
	return keep || !can ? IN_PLACE : set_zero(w, next);
}

static int need_pool(struct need *need)
{
	need->kind = NEED_POOL;
	need->arg = 1;
	return -EAGAIN;
}

static int need_zero(struct need *need, uint64_t lba, uint64_t len)
{
	need->kind = NEED_ZERO;
	need->lba = lba;
	need->len = len;
	return -EAGAIN;
}

static bool taken(const struct q2w *w, uint64_t gc)
{
	const struct chg *c = chg_find(w, gc);

	return c && (c->sent || c->busy);
}

/* 0: done; -EAGAIN: something is lacking. */
static int whole_cluster(struct q2w *w, const struct sp_req *req, uint64_t gc,
			 struct pend *p, struct need *need)
{
	uint64_t entry = entry_get(w, gc), next = 0, hc, n;
	enum class class;
	enum step step;
	struct chg *c;
	int rc;

	rc = classify(w, gc, &class, need);
	if (rc)
		return rc;
	step = decide(w, req, entry, class, &next);
	if (step == SKIP)
		return 0;
	if (step == IN_PLACE)
		return need_zero(need, gc_lba(w, gc), gc_end(w, gc) - gc_lba(w, gc));
	if ((table_missing(w, gc) && !w->reserve_nr) || (step == ALLOC && !w->pool_total))
		return need_pool(need);
	c = chg_get(w, gc);
	if (!c || table_ensure(w, gc)) {
		if (c)
			chg_put(w, c);
		return -ENOMEM;
	}
	if (step == ALLOC) {
		hc = pool_take(w, 1, &n);
		next = hc << w->q->cbits | Q2_COPIED;
	}
	chg_apply(w, p, c, next);
	return 0;
}

/* A part of a cluster.  0: nothing to do. */
static int part(struct q2w *w, const struct sp_req *req, uint64_t gc, uint64_t lba,
		uint64_t len, struct need *need)
{
	enum class class;
	int rc;

	if (req->kind == SP_DISCARD)
		return 0;
	rc = classify(w, gc, &class, need);
	if (rc)
		return rc;
	if (class == CLASS_ZERO || class == CLASS_KEPT)
		return 0;
	if (class == CLASS_COPY) {
		if (!w->pool_total || (table_missing(w, gc) && !w->reserve_nr))
			return need_pool(need);
		need->kind = NEED_COPY;
		need->arg = gc;
		need->lba = lba;
		need->len = len;
		return -EAGAIN;
	}
	return need_zero(need, lba, len);
}

/* As far as it goes from the request's start: *done sectors. */
static int walk(struct q2w *w, const struct sp_req *req, struct pend *p,
		uint64_t *done, struct need *need)
{
	uint64_t lba = req->lba, end = req->lba + req->len, gc, stop;
	int rc = 0;

	for (int n = 0; lba < end && n < MAX_LOOKED && p->nr < p->room; n++, lba = stop) {
		gc = lba >> w->q->csect_bits;
		stop = gc_end(w, gc);
		if (table_missing(w, gc) && !has_backing(w))	/* all of it is zero */
			stop = gc_end(w, gc | ((1ull << w->q->l2_bits) - 1));
		if (stop > end)
			stop = end;
		if (table_missing(w, gc) && !has_backing(w))
			continue;
		if (taken(w, gc)) {
			need->kind = NEED_WAIT;
			rc = -EAGAIN;
			break;
		}
		if (lba == gc_lba(w, gc) && stop == gc_end(w, gc))
			rc = whole_cluster(w, req, gc, p, need);
		else
			rc = part(w, req, gc, lba, stop - lba, need);
		if (rc)
			break;
	}
	*done = lba - req->lba;
	return *done ? 0 : rc;
}

static void extents_of(const struct q2w *w, const struct pend *p, struct extents *x)
{
	struct sp_extent e;

	for (unsigned int i = 0; i < p->nr; i++) {
		uint64_t gc = p->item[i].gc, next = p->item[i].next;

		linear_extent(w, &e, gc, 1, q2_offset(next) >> w->q->cbits, p->tid,
			      SP_EXT_REPLACE | SP_EXT_TOUCHED);
		if (q2_type(w->q, next) != Q2_NORMAL) {
			e.type = SP_ZERO;
			e.perm = SP_PERM_R;
			e.off = 0;
		}
		extents_add(x, &e);
	}
}

/**
 * try_zero - answer DISCARD or ZEROES
 * @img: the image
 * @req: the request
 * @need: with -EAGAIN: what is lacking
 *
 * Context: the lock.
 * Return: 0: replied; -EAGAIN; -ENOMEM.
 */
int try_zero(struct sp_image *img, const struct sp_req *req, struct need *need)
{
	struct q2w *w = img->layers[0].q->w;
	struct extents x = { .max = SP_MAX_REPLY, .ext = img->scratch };
	uint64_t room = (req->len >> w->q->csect_bits) + 2, done;
	struct pend *p;
	int rc;

	if (!img->prepared) {
		need->kind = NEED_PREPARE;
		return -EAGAIN;
	}
	if (w->nr_chg > MAX_UNCOMMITTED) {
		need->kind = NEED_COMMIT;
		return -EAGAIN;
	}
	/* Each may be an extent of its own. */
	p = pend_new(room < SP_MAX_REPLY ? room : SP_MAX_REPLY);
	if (!p)
		return -ENOMEM;
	rc = walk(w, req, p, &done, need);
	if (rc || !p->nr) {
		free(p);
		if (!rc)
			reply_done(img, req, &x, done, 0);
		return rc;
	}
	chg_send(w, p);
	extents_of(w, p, &x);
	reply_done(img, req, &x, done, p->tid);
	return 0;
}

static int write_zeros(struct q2w *w, uint64_t off, uint64_t len)
{
	uint8_t *buf;
	int rc;

	if (len > SMALL_WRITE)
		return sp_file_zero(w->file, off, len);
	buf = sp_buf_alloc(len);
	if (!buf)
		return -ENOMEM;
	memset(buf, 0, len);
	rc = sp_file_pwrite(w->file, buf, len, off);
	sp_buf_free(buf);
	return rc;
}

/**
 * zero_in_place - write zeros into a cluster that has a place in the file
 * @w: the engine
 * @req: the request, which is answered
 * @need: [lba, lba + len): where, in one cluster
 *
 * Context: the lock, dropped meanwhile; nobody works on the cluster.
 * Return: 1: replied; -errno.
 */
int zero_in_place(struct q2w *w, const struct sp_req *req, const struct need *need)
{
	uint64_t gc = need->lba >> w->q->csect_bits;
	uint64_t entry = entry_get(w, gc), skip = need->lba - gc_lba(w, gc);
	uint64_t off = q2_offset(entry) + (skip << SP_SECTOR_SHIFT);
	struct pend *p = pend_new(1);
	struct chg *c = p ? chg_get(w, gc) : NULL;
	struct sp_extent e;
	struct extents x = { .nr = 1, .ext = &e };
	int rc;

	if (!c) {
		free(p);
		return -ENOMEM;
	}
	c->busy = true;
	pthread_mutex_unlock(&w->img->lock);
	rc = write_zeros(w, off, need->len << SP_SECTOR_SHIFT);
	pthread_mutex_lock(&w->img->lock);
	c->busy = false;
	pthread_cond_broadcast(&w->img->cond);
	if (rc) {
		free(p);
		chg_put(w, c);
		return rc;
	}
	chg_apply(w, p, c, entry);
	chg_send(w, p);
	/* All of the cluster: who is uncommitted is not mapped by anybody else. */
	linear_extent(w, &e, gc, 1, q2_offset(entry) >> w->q->cbits, p->tid,
		      SP_EXT_REPLACE | SP_EXT_TOUCHED);
	reply_done(w->img, req, &x, need->len, p->tid);
	return 1;
}
