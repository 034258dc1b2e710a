// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * ahead.c - what is to be decompressed by whoever has time for it.
 *
 * Two kinds of ranges.  One that somebody waits for is shared with others: its
 * thread works on it too, from the front.  One that a stream will want is brought
 * to the cache and told to the kernel a cluster at a time, so that the stream
 * finds it there.
 *
 * A range is a hint.  There is a fixed number of them, a new one replaces that which
 * was next, and one that meets any trouble is forgotten: whoever needs it asks.
 *
 * A stream is read ahead as far as it has come, up to AHEAD_BYTES: who reads at
 * random has nothing decompressed for him.
 */
#include "internal.h"

#define AHEAD_BYTES	(2u << 20)
#define MAX_STEPS	64		/* entries looked at under one hold of the lock */
#define MAX_EXT		64

static bool is_empty(const struct ahead *a)
{
	return a->next >= a->end;
}

/* The range to which [lba, end) belongs, or the one that is given up for it. */
static struct ahead *choose(struct sp_image *img, uint64_t lba, uint64_t end, bool map)
{
	struct ahead *empty = NULL;

	for (unsigned int i = 0; i < NR_AHEAD; i++) {
		struct ahead *a = &img->ahead[i];

		if (is_empty(a))
			empty = a;
		else if (a->map == map && lba <= a->end && end >= a->next)
			return a;
	}
	return empty ? empty : &img->ahead[img->ahead_turn];
}

/**
 * ahead_want - a range to be brought to the cache
 * @img: the image, which has a cache
 * @lba: its first sector
 * @end: behind its last; nothing is done if that is not above @lba
 * @map: tell the kernel
 *
 * What an overlapping one has in front of it is asked for already.
 *
 * Context: the lock.
 */
void ahead_want(struct sp_image *img, uint64_t lba, uint64_t end, bool map)
{
	struct ahead *a;

	if (lba >= end || !img->opt.ops->ahead || img->gone)
		return;
	a = choose(img, lba, end, map);
	if (is_empty(a) || lba > a->end || end < a->next || a->map != map)
		*a = (struct ahead){ .next = lba, .end = end, .map = map };
	if (a->next < lba)
		a->next = lba;
	if (a->end < end)
		a->end = end;
	img->opt.ops->ahead(img->opt.ctx);
}

/**
 * ahead_stream - a read was answered: will it go on?
 * @img: the image
 * @req: the request
 *
 * Context: the lock.
 */
void ahead_stream(struct sp_image *img, const struct sp_req *req)
{
	uint64_t lba = req->want_lba + req->want_len, len = req->seq, max;
	struct mapping m;
	struct need table;

	if (!len || !img->cache || req->kind != SP_READ || lba >= img->info.size ||
	    resolve(img, lba, img->info.size - lba, &m, &table) || m.kind != MAP_COMP)
		return;
	max = cache_ahead_max(img);
	if (max > AHEAD_BYTES >> SP_SECTOR_SHIFT)
		max = AHEAD_BYTES >> SP_SECTOR_SHIFT;
	if (max < 2ull << img->info.granule_shift)
		max = 2ull << img->info.granule_shift;
	if (len > max)
		len = max;
	if (len > img->info.size - lba)
		len = img->info.size - lba;
	len -= len & (img->block - 1);
	ahead_want(img, lba, lba + len, true);
}

static struct ahead *next_range(struct sp_image *img)
{
	for (unsigned int i = 0; i < NR_AHEAD; i++) {
		struct ahead *a = &img->ahead[img->ahead_turn];

		img->ahead_turn = (img->ahead_turn + 1) % NR_AHEAD;
		if (!is_empty(a))
			return a;
	}
	return NULL;
}

/* The next piece of a range that has to be decompressed.  False: none was found. */
static bool next_piece(struct sp_image *img, struct ahead *a, uint64_t *lba,
		       struct mapping *m)
{
	struct need table;
	uint64_t len, off;

	for (int n = 0; n < MAX_STEPS && !is_empty(a); n++) {
		*lba = a->next;
		if (resolve(img, *lba, a->end - *lba, m, &table)) {
			a->next = a->end;
			return false;
		}
		len = m->len;
		if (m->kind != MAP_COMP || m->dirty) {
			a->next += len;
			continue;
		}
		if (!cache_find(img, *lba, &len, &off)) {
			a->next += m->len;
			return true;
		}
		a->next += len;
	}
	return false;
}

static void tell(struct sp_image *img, uint64_t lba, uint64_t end)
{
	struct extents x = { .max = MAX_EXT, .ext = img->scratch };

	read_cached(img, lba, end, &x);
	if (x.nr)
		img->opt.ops->map(img->opt.ctx, x.ext, x.nr);
}

static void bring(struct sp_image *img, struct ahead *a)
{
	bool map = a->map;
	struct mapping m;
	uint64_t lba, len;
	int rc;

	if (!next_piece(img, a, &lba, &m))
		return;
	/* From here on the lock is dropped, and the range is anybody's. */
	rc = cache_piece(img, &m, lba, &len);
	if (rc == 1 && map && !img->gone)
		tell(img, lba, lba + len);
}

bool sp_ahead(struct sp_image *img)
{
	bool more = false;
	struct ahead *a;

	pthread_mutex_lock(&img->lock);
	a = img->gone ? NULL : next_range(img);
	if (a)
		bring(img, a);
	for (unsigned int i = 0; !img->gone && i < NR_AHEAD; i++)
		more |= !is_empty(&img->ahead[i]);
	pthread_mutex_unlock(&img->lock);
	return more;
}
