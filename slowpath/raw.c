// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * raw.c - files whose bytes are the disk's.
 *
 * As the image: one writable extent covers everything, and the kernel needs us
 * only for what an extent cannot do: punching holes.  What was punched is left
 * as an uncommitted extent, so that the next FLUSH comes to us.
 */
#include <errno.h>
#include <stdlib.h>

#include "internal.h"

#define ZERO_MAX	(256u << 11)	/* sectors punched in one go */

/**
 * raw_map - as q2_map()
 * @l: the layer
 * @lba: sector inside it
 * @max: sectors, inside it
 * @m: the answer
 *
 * Return: 0.
 */
int raw_map(const struct layer *l, uint64_t lba, uint64_t max, struct mapping *m)
{
	uint64_t whole = l->file_bytes >> SP_SECTOR_SHIFT;

	*m = (struct mapping){ .kind = MAP_DATA, .off = lba, .len = max };
	if (lba >= whole) {	/* an odd tail */
		m->kind = MAP_MIXED;
		m->len = 1;
	} else if (max > whole - lba) {
		m->len = whole - lba;
	}
	return 0;
}

static int try_zero(struct sp_image *img, const struct sp_req *req, struct need *need)
{
	(void)img;
	need->kind = NEED_ZERO;
	need->lba = req->lba;
	need->len = req->len < ZERO_MAX ? req->len : ZERO_MAX;
	return -EAGAIN;
}

static int change(struct sp_file *f, const struct sp_req *req, uint64_t off, uint64_t len)
{
	if (req->kind == SP_DISCARD)
		return sp_file_discard(f, off, len);
	return req->flags & SP_REQ_NOUNMAP ? sp_file_zero(f, off, len) :
					     sp_file_punch(f, off, len);
}

static int zero(struct sp_image *img, const struct sp_req *req, const struct need *need)
{
	const struct extents none = { .ext = img->scratch };
	uint64_t off = need->lba << SP_SECTOR_SHIFT, len = need->len << SP_SECTOR_SHIFT;
	struct sp_file *f = &img->layers[0].file;
	struct pend *p = pend_new(0);
	struct sp_extent e;
	struct extents x = { .nr = 1, .ext = &e };
	int rc;

	if (!p)
		return -ENOMEM;
	pthread_mutex_unlock(&img->lock);
	rc = change(f, req, off, len);
	pthread_mutex_lock(&img->lock);
	if (rc) {
		free(p);
		if (rc != -EOPNOTSUPP || req->kind != SP_DISCARD)
			return rc;
		reply_done(img, req, &none, req->len, 0);
		return 1;
	}
	pend_send(img, p);
	e = (struct sp_extent){
		.lba = need->lba, .len = need->len, .off = need->lba, .tid = p->tid,
		.type = SP_LINEAR, .perm = SP_PERM_R | SP_PERM_W,
		.flags = SP_EXT_REPLACE | SP_EXT_TOUCHED,
	};
	reply_done(img, req, &x, need->len, p->tid);
	return 1;
}

static int fulfil(struct sp_image *img, const struct sp_req *req, struct need *need)
{
	return need->kind == NEED_ZERO ? zero(img, req, need) : -EIO;
}

static void acked(struct sp_image *img, struct pend *p, int res)
{
	(void)img, (void)p, (void)res;
}

static bool snapshot(struct sp_image *img, uint64_t *tid)
{
	(void)img, (void)tid;
	return false;
}

static int write_meta(struct sp_image *img)
{
	(void)img;
	return 0;
}

static void committed(struct sp_image *img)
{
	(void)img;
}

static int work(struct sp_image *img)
{
	(void)img;
	return -1;
}

static int relink(struct sp_image *img, const struct sp_extent *ext, unsigned int nr,
		  struct sp_err *err)
{
	(void)img, (void)ext, (void)nr, (void)err;
	return 0;
}

static int finish(struct sp_image *img, const struct sp_extent *ext, unsigned int nr,
		  struct sp_err *err)
{
	struct pend *p;

	(void)ext, (void)nr, (void)err;
	while (!list_empty(&img->pending)) {
		p = list_entry(img->pending.next, struct pend, link);
		list_del(&p->link);
		free(p);
	}
	return commit_upto(img, img->next_tid - 1);
}

static void no_exit(struct sp_image *img)
{
	(void)img;
}

static bool work_due(const struct sp_image *img)
{
	(void)img;
	return false;
}

const struct engine raw_engine = {
	.write = try_read,	/* all is mapped for writing */
	.zero = try_zero,
	.fulfil = fulfil,
	.acked = acked,
	.snapshot = snapshot,
	.write_meta = write_meta,
	.committed = committed,
	.work = work,
	.work_due = work_due,
	.relink = relink,
	.finish = finish,
	.exit = no_exit,
};
