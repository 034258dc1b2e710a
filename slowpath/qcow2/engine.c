// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * engine.c - life of what writes to a qcow2 file.
 */
#include <errno.h>
#include <stdlib.h>

#include "engine.h"

#define ROUND_BUF	(64u << 10)

static void free_tables(struct q2w *w)
{
	for (uint32_t i = 0; w->l2 && i < w->q->l1_size; i++) {
		free(w->l2[i].e);
		free(w->l2[i].asked);
	}
	free(w->l2);
}

static void engine_exit(struct sp_image *img)
{
	struct q2 *q = img->layers[0].q;
	struct q2w *w = q ? q->w : NULL;

	if (!w)
		return;
	chg_exit(w);
	free_tables(w);
	free(w->hc);
	free(w->rt);
	free(w->rdirty);
	free(w->pool);
	free(w->drop);
	sp_buf_free(w->round_buf);
	buffers_exit(w);
	free(w);
	q->w = NULL;
}

/**
 * q2w_open - make an image's engine
 * @img: the image, layer 0 is qcow2
 * @err: message
 *
 * Return: 0 or -errno; the engine's exit in any case.
 */
int q2w_open(struct sp_image *img, struct sp_err *err)
{
	struct layer *l = &img->layers[0];
	struct q2w *w = calloc(1, sizeof(*w));

	if (!w)
		return sp_fail(err, -ENOMEM, "out of memory");
	w->img = img;
	w->q = l->q;
	w->file = &l->file;
	list_init(&w->changes);
	w->unit = l->file.align > 512 ? l->file.align : 512;
	l->q->w = w;
	w->round_buf = sp_buf_alloc(ROUND_BUF);
	if (!w->round_buf)
		return sp_fail(err, -ENOMEM, "out of memory");
	return q2_scan(w, err);
}

/* Space that a commit may bring back is as good as any. */
static int get_pool(struct sp_image *img, uint64_t clusters)
{
	struct q2w *w = img->layers[0].q->w;
	int rc = pool_refill(w, clusters, 1);

	if (!no_longer(rc) || !w->nr_chg)
		return rc;
	rc = commit_upto(img, img->next_tid - 1);
	if (rc)
		return rc == -ETIME ? -ENOSPC : rc;
	return pool_refill(w, 1, 1);
}

static int fulfil(struct sp_image *img, const struct sp_req *req, struct need *need)
{
	struct q2w *w = img->layers[0].q->w;
	int rc;

	switch (need->kind) {
	case NEED_PREPARE:
		rc = q2_prepare(w);
		break;
	case NEED_POOL:
		rc = get_pool(img, need->arg);
		break;
	case NEED_COPY:
		rc = copy_cluster(w, req, need);
		break;
	case NEED_ZERO:
		rc = zero_in_place(w, req, need);
		break;
	default:
		rc = -EIO;
		break;
	}
	/* What was discarded and not committed may be what is missing. */
	if (is_full(rc) && img->oldest_ms)
		img->oldest_ms = 1;
	return rc;
}

static int work(struct sp_image *img)
{
	return pool_work(img->layers[0].q->w);
}

static bool work_due(const struct sp_image *img)
{
	return pool_due(img->layers[0].q->w);
}

const struct engine q2_engine = {
	.write = try_write,
	.zero = try_zero,
	.fulfil = fulfil,
	.acked = chg_acked,
	.snapshot = round_snapshot,
	.write_meta = round_write,
	.committed = round_committed,
	.work = work,
	.work_due = work_due,
	.relink = q2_relink,
	.finish = q2_finish,
	.exit = engine_exit,
};
