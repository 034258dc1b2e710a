// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * copy.c - copy on write (rule 7).
 *
 * The new cluster is written whole with the old content, also what the guest is
 * about to overwrite, and mapped when that is done.  Meanwhile the guest cluster
 * is marked busy and the lock dropped.
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
	j->buf = sp_buf_alloc(w->q->cs);
	if (!j->buf)
		return -ENOMEM;
	j->hc = pool_take(w, 1, &n);
	return n ? 0 : -ENOSPC;
}

/* Old content, with zeros over what ZEROES names.  Drops the lock. */
static int transfer(struct q2w *w, struct job *j, const struct need *need)
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
	if (j->kept)
		rc = sp_file_zero(w->file, j->hc << w->q->cbits, w->q->cs);
	else
		rc = sp_file_pwrite(w->file, j->buf, w->q->cs, j->hc << w->q->cbits);
	pthread_mutex_lock(&w->img->lock);
	if (!rc && (w->img->failed || w->img->gone))
		rc = -EIO;
	return rc;
}

static void answer(struct q2w *w, struct job *j, const struct sp_req *req,
		   const struct need *need)
{
	struct sp_extent e;
	struct extents x = { .nr = 1, .ext = &e };

	/* Which fdatasync makes it durable?  The next that begins. */
	j->c->f1 = w->img->sync_started + 1;
	chg_apply(w, j->p, j->c, j->hc << w->q->cbits | Q2_COPIED);
	chg_send(w, j->p);
	w->img->stats.cows++;
	linear_extent(w, &e, j->gc, 1, j->hc, j->p->tid,
		      SP_EXT_REPLACE | (need->len ? SP_EXT_TOUCHED : 0));
	if (need->len)
		reply_done(w->img, req, &x, need->len, j->p->tid);
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
		rc = transfer(w, &j, need);
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
	sp_buf_free(j.buf);
	return rc;
}
