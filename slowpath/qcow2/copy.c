// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * copy.c - copy on write (rule 7).
 *
 * The new cluster is written whole, with the old content and over it what the write
 * that asked for it has there; when that is done it is mapped, and with the same
 * answer the write is.  Who cannot have the write's data, or may not end it (FUA),
 * writes the old content alone and leaves the write to the guest.  Meanwhile the
 * guest cluster is marked busy and the lock dropped.
 *
 * The write may be in the new cluster before it is acknowledged, and whatever comes
 * then finds it as it would find any write that was under way: if this mapper dies
 * nobody names the new cluster, and the next one copies again for the same write; if
 * the answer is refused the entry falls back to the old cluster.
 *
 * A cluster that reads zeros and kept its place in the file is made zero there,
 * and then mapped likewise.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"

struct job {
	uint64_t gc;
	uint64_t hc;
	bool kept;
	uint64_t merged;	/* sectors of the write, from its first one, in the copy */
	uint8_t *buf;
	struct pend *p;
	struct chg *c;
};

static int start(struct q2w *w, struct job *j)
{
	uint64_t entry = entry_get(w, j->gc), n;

	j->p = pend_new(1);
	j->c = chg_get(w, j->gc);
	if (!j->p || !j->c || table_ensure(w, j->gc))
		return -ENOMEM;
	j->kept = q2_type(w->q, entry) == Q2_ZERO_ALLOC;
	if (j->kept) {
		j->hc = q2_offset(entry) >> w->q->cbits;
		return 0;
	}
	j->buf = buffer_get(w);
	if (!j->buf)
		return -ENOMEM;
	j->hc = pool_take(w, 1, &n);
	return n ? 0 : -ENOSPC;
}

/* What the write has of this cluster goes over the old content.  No lock. */
static void merge(struct q2w *w, struct job *j, const struct sp_req *req)
{
	const struct sp_ops *ops = w->img->opt.ops;
	uint64_t lba = gc_lba(w, j->gc), end = gc_end(w, j->gc);
	uint64_t len = (req->lba + req->len < end ? req->lba + req->len : end) - req->lba;

	if (req->kind != SP_WRITE || req->flags & SP_REQ_FUA || !ops->take)
		return;
	j->merged = len;
	if (ops->take(w->img->opt.ctx, req, j->buf + ((req->lba - lba) << SP_SECTOR_SHIFT),
		      len << SP_SECTOR_SHIFT))
		j->merged = 0;
}

/* Old content, with zeros over what ZEROES names.  Drops the lock. */
static int transfer(struct q2w *w, struct job *j, const struct sp_req *req,
		    const struct need *need)
{
	uint64_t lba = gc_lba(w, j->gc), len = gc_end(w, j->gc) - lba;
	size_t bytes = len << SP_SECTOR_SHIFT;
	int rc = 0;

	if (!j->kept) {
		rc = chain_read(w->img, lba, len, j->buf);
		if (rc)
			return rc;
		memset(j->buf + bytes, 0, w->q->cs - bytes);
		if (need->len)
			memset(j->buf + ((need->lba - lba) << SP_SECTOR_SHIFT), 0,
			       need->len << SP_SECTOR_SHIFT);
	}
	pthread_mutex_unlock(&w->img->lock);
	if (j->kept) {
		rc = sp_file_zero(w->file, j->hc << w->q->cbits, w->q->cs);
	} else {
		merge(w, j, req);
		rc = sp_file_pwrite(w->file, j->buf, w->q->cs, j->hc << w->q->cbits);
	}
	pthread_mutex_lock(&w->img->lock);
	if (!rc && (w->img->failed || w->img->gone))
		rc = -EIO;
	return rc;
}

static void answer(struct q2w *w, struct job *j, const struct sp_req *req,
		   const struct need *need)
{
	uint64_t done = need->len ? need->len : j->merged;
	struct sp_extent e;
	struct extents x = { .nr = 1, .ext = &e };

	/* Which fdatasync makes it durable?  The next that begins. */
	j->c->f1 = w->img->sync_started + 1;
	chg_apply(w, j->p, j->c, j->hc << w->q->cbits | Q2_COPIED);
	chg_send(w, j->p);
	w->img->stats.cows++;
	linear_extent(w, &e, j->gc, 1, j->hc, j->p->tid,
		      SP_EXT_REPLACE | (done ? SP_EXT_TOUCHED : 0));
	if (done)
		reply_done(w->img, req, &x, done, j->p->tid);
	else
		reply_redrive(w->img, req, &x, j->p->tid);
}

/**
 * copy_cluster - copy a cluster and map the copy
 * @w: the engine
 * @req: the request, which is answered
 * @need: arg: the cluster; [lba, lba + len): to be zero in the copy
 *
 * Context: the lock, dropped meanwhile; nobody works on the cluster.
 * Return: 1: replied; -errno.
 */
int copy_cluster(struct q2w *w, const struct sp_req *req, const struct need *need)
{
	struct job j = { .gc = need->arg };
	int rc;

	rc = start(w, &j);
	if (!rc) {
		j.c->busy = true;
		rc = transfer(w, &j, req, need);
		j.c->busy = false;
		if (rc && !j.kept)
			hc_drop(w, j.hc);
		pthread_cond_broadcast(&w->img->cond);
	}
	if (!rc) {
		answer(w, &j, req, need);
		rc = 1;
	} else {
		free(j.p);
		if (j.c)
			chg_put(w, j.c);
	}
	buffer_put(w, j.buf);
	return rc;
}
