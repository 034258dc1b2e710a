// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * read.c - READ: tell where the data is, far beyond what was asked.
 *
 * The reply has three parts: what was asked, which decides whether it can be
 * given at all; what follows, as far as the budget goes; and what lies before, so
 * that random reads find their neighbourhood mapped.  All extents are clean.
 * Uncommitted clusters are in the kernel already and are passed over.
 *
 * Of compressed clusters only what somebody waits for is brought to the cache
 * first; what a stream will want comes there by and by (ahead.c).  Of what is in
 * the cache already no more than the nearest is told: most of it the kernel knows.
 */
#include <errno.h>
#include <string.h>

#include "internal.h"

#define MAX_AHEAD	448		/* extents */
#define MAX_BEHIND	64
#define MAX_PIECES	1024		/* looked at, mapped or not */
#define MAX_CLUSTERS	(1u << 18)	/* entries looked at */
#define NEAR_CLUSTERS	64		/* behind; compressed ones ahead */
#define BEHIND_CLUSTERS	(1u << 17)
#define FEW		8		/* extents */
#define MAX_FILLS	32
#define MAX_LOADS	8		/* slices of tables, only to map more */

static bool add(struct sp_image *img, struct extents *x, const struct mapping *m,
		uint64_t lba)
{
	struct sp_extent e = { .lba = lba, .len = m->len, .perm = SP_PERM_R };

	switch (m->kind) {
	case MAP_DATA:
		e.type = SP_LINEAR;
		e.store = m->layer;
		e.off = m->off;
		if (!m->layer && img->eng && img->prepared && !img->failed)
			e.perm |= SP_PERM_W;
		break;
	case MAP_ZERO:
		e.type = SP_ZERO;
		break;
	default:
		e.type = SP_EIO;
		e.perm = 0;
		break;
	}
	return extents_add(x, &e);
}

static bool add_cached(struct sp_image *img, struct extents *x, struct mapping *m,
		       uint64_t lba)
{
	struct sp_extent e = { .lba = lba, .type = SP_LINEAR, .perm = SP_PERM_R };

	e.store = img->nr_layers;
	e.len = m->len;
	if (!cache_find(img, lba, &e.len, &e.off))
		return false;
	m->len = e.len;
	return extents_add(x, &e);
}

static uint64_t clusters(const struct sp_image *img, uint64_t len)
{
	return (len >> img->info.granule_shift) + 1;
}

static bool is_packed(const struct mapping *m)
{
	return m->kind == MAP_COMP || m->kind == MAP_MIXED;
}

/* Is this piece to be brought to the cache first? */
static bool want_fill(struct sp_image *img, const struct sp_req *req, uint64_t lba,
		      struct need *need)
{
	uint64_t stop = req->want_lba + req->want_len, max;

	if (need->fills >= MAX_FILLS || !img->cache || req->kind != SP_READ)
		return false;
	if (need->stop && need->stop < stop)
		stop = need->stop;
	if (lba != req->lba && lba >= stop)
		return false;
	max = cache_ahead_max(img);
	need->kind = NEED_FILL;
	need->lba = lba;
	need->len = stop - lba < max ? stop - lba : max;
	return true;
}

/* From the request on.  0, -EAGAIN, or why the first piece cannot be given. */
static int look_ahead(struct sp_image *img, const struct sp_req *req, struct extents *x,
		      struct need *need)
{
	uint64_t lba = req->lba, stop = req->want_lba + req->want_len, seen = 0;
	unsigned int packed = 0;
	struct mapping m;
	bool ok;

	for (int n = 0; n < MAX_PIECES && lba < img->info.size; n++, lba += m.len) {
		if (resolve(img, lba, img->info.size - lba, &m, need)) {
			if (lba == req->lba)
				return -EAGAIN;
			if (need->nonblock || need->loads == MAX_LOADS)
				break;
			need->loads++;
			return -EAGAIN;
		}
		seen += clusters(img, m.len);
		if (m.busy && lba == req->lba) {
			need->kind = NEED_WAIT;
			return -EAGAIN;
		}
		if (m.dirty)
			continue;
		if (is_packed(&m)) {
			if (lba >= stop && ++packed > NEAR_CLUSTERS)
				break;
			ok = add_cached(img, x, &m, lba);
			if (!ok && want_fill(img, req, lba, need))
				return -EAGAIN;
			if (!ok && lba == req->lba)
				return -ETIME;
			if (!ok && x->nr == x->max)
				break;
		} else if (!add(img, x, &m, lba)) {
			break;
		}
		if (seen > MAX_CLUSTERS)
			break;
	}
	return 0;
}

/* Those of [lba, end); false when there is no room for more. */
static bool look_through(struct sp_image *img, uint64_t lba, uint64_t end,
			 struct extents *x, bool packed_only)
{
	struct mapping m;
	struct need none;
	bool ok;

	for (int n = 0; n < MAX_PIECES && lba < end; n++, lba += m.len) {
		if (resolve(img, lba, end - lba, &m, &none))
			return false;
		if (m.dirty)
			continue;
		if (is_packed(&m))
			ok = add_cached(img, x, &m, lba) || x->nr < x->max;
		else
			ok = packed_only || add(img, x, &m, lba);
		if (!ok)
			return false;
	}
	return true;
}

/*
 * What is nearest; if that is in one piece, nearly, perhaps so is what lies before,
 * and costs no more.
 */
static void look_behind(struct sp_image *img, uint64_t end, struct extents *x)
{
	uint64_t near = (uint64_t)NEAR_CLUSTERS << img->info.granule_shift;
	uint64_t far = (uint64_t)BEHIND_CLUSTERS << img->info.granule_shift;

	near = end > near ? end - near : 0;
	far = end > far ? end - far : 0;
	if (!look_through(img, near, end, x, false) || x->nr > FEW || !near)
		return;
	x->nr = 0;
	if (look_through(img, far, end, x, false))
		return;
	x->nr = 0;
	look_through(img, near, end, x, false);
}

/**
 * read_cached - the extents of what is in the cache
 * @img: the image, which has one
 * @lba: from this sector
 * @end: to this
 * @x: they are added here, as far as there is room; all clean
 *
 * Context: the lock.
 */
void read_cached(struct sp_image *img, uint64_t lba, uint64_t end, struct extents *x)
{
	look_through(img, lba, end, x, true);
}

/**
 * try_read - answer READ
 * @img: the image
 * @req: the request
 * @need: what is lacking, with -EAGAIN
 *
 * Context: the lock.
 * Return: 0: replied; -EAGAIN; -ETIME: the cache is busy.
 */
int try_read(struct sp_image *img, const struct sp_req *req, struct need *need)
{
	struct extents ahead = { .max = MAX_AHEAD, .ext = img->scratch + MAX_BEHIND };
	struct extents behind = { .max = MAX_BEHIND, .ext = img->scratch };
	int rc;

	rc = look_ahead(img, req, &ahead, need);
	if (rc)
		return rc;
	look_behind(img, req->lba, &behind);
	memmove(behind.ext + behind.nr, ahead.ext, ahead.nr * sizeof(*ahead.ext));
	behind.nr += ahead.nr;
	reply_redrive(img, req, &behind, 0);
	ahead_stream(img, req);
	return 0;
}
