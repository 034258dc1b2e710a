// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * refcount.c - refcounts on the file.
 *
 * The file's counts are never read again after the scan: units that are marked
 * are written from memory, whole.  A new block goes to the file with its content,
 * its own refcount included; only when that is durable does the table name it; and
 * only when that is durable may a cluster be used that it counts (rule 10).
 *
 * Context of everything that does I/O: the lock, dropped meanwhile, and
 * w->refilling.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"

#define WRITE_MAX	(64u << 10)

/**
 * ref_per_block - clusters that a refcount block counts
 * @q: the layer
 */
uint64_t ref_per_block(const struct q2 *q)
{
	return q->cs * 8 >> q->rorder;
}

/**
 * ref_per_unit - clusters that a sector of refcounts counts
 * @w: the engine
 */
uint64_t ref_per_unit(const struct q2w *w)
{
	return (uint64_t)w->unit * 8 >> w->q->rorder;
}

/**
 * ref_get - a refcount of a block
 * @q: the layer
 * @block: as in the file
 * @i: which
 */
uint64_t ref_get(const struct q2 *q, const uint8_t *block, uint64_t i)
{
	unsigned int bits = 1u << q->rorder, n;
	uint64_t v = 0;

	if (bits < 8)
		return block[i * bits / 8] >> (i * bits % 8) & ((1u << bits) - 1);
	for (n = 0; n < bits / 8; n++)
		v = v << 8 | block[i * (bits / 8) + n];
	return v;
}

static void put(const struct q2 *q, uint8_t *block, uint64_t i, uint64_t v)
{
	unsigned int bits = 1u << q->rorder, n;

	if (bits < 8) {
		block[i * bits / 8] |= v << (i * bits % 8);
		return;
	}
	for (n = bits / 8; n--; v >>= 8)
		block[i * (bits / 8) + n] = v;
}

/**
 * ref_build - refcounts as the file is to have them
 * @w: the engine
 * @buf: where to
 * @bytes: how many
 * @hc: the first cluster they count
 */
void ref_build(const struct q2w *w, uint8_t *buf, size_t bytes, uint64_t hc)
{
	uint64_t n = bytes * 8 >> w->q->rorder;

	memset(buf, 0, bytes);
	for (uint64_t i = 0; i < n && hc + i < w->hc_room; i++)
		if (w->hc[hc + i])
			put(w->q, buf, i, hc_refcount(w, hc + i));
}

/**
 * ref_mark - a cluster's refcount has to be written
 * @w: the engine
 * @hc: the cluster
 */
void ref_mark(struct q2w *w, uint64_t hc)
{
	uint64_t u = hc / ref_per_unit(w), bit = 1ull << u % 64;

	w->nr_rdirty += !(w->rdirty[u / 64] & bit);
	w->rdirty[u / 64] |= bit;
}

static bool marked(const struct q2w *w, uint64_t u)
{
	return w->rdirty[u / 64] >> u % 64 & 1;
}

static void unmark(struct q2w *w, uint64_t u)
{
	w->nr_rdirty -= marked(w, u);
	w->rdirty[u / 64] &= ~(1ull << u % 64);
}

/**
 * q2_sync - fdatasync on behalf of the pool
 * @w: the engine
 *
 * Return: 0 or -errno.
 */
int q2_sync(struct q2w *w)
{
	w->img->stats.refill_syncs++;
	return image_sync(w->img);
}

static int write_off_lock(struct q2w *w, const void *buf, size_t len, uint64_t off)
{
	int rc;

	pthread_mutex_unlock(&w->img->lock);
	rc = sp_file_pwrite(w->file, buf, len, off);
	pthread_mutex_lock(&w->img->lock);
	return rc;
}

/* Units from u on that are marked and follow each other in one block. */
static int write_units(struct q2w *w, uint64_t u, uint64_t *n, uint8_t *buf)
{
	uint64_t per_unit = ref_per_unit(w), units = w->q->cs / w->unit;
	uint64_t block = w->rt[u / units], first = u;
	int rc;

	for (*n = 0; u / units == first / units && *n < WRITE_MAX / w->unit &&
	     marked(w, u); u++, ++*n)
		unmark(w, u);
	ref_build(w, buf, *n * w->unit, first * per_unit);
	rc = write_off_lock(w, buf, *n * w->unit, block + first % units * w->unit);
	while (rc && u > first)
		ref_mark(w, --u * per_unit);
	return rc;
}

/**
 * ref_write - write what is marked, as far as there are blocks for it
 * @w: the engine
 *
 * Return: 0 or -errno; what was not written stays marked.
 */
int ref_write(struct q2w *w)
{
	uint64_t units = w->q->cs / w->unit, last = w->nb / ref_per_unit(w), n;
	uint8_t *buf;
	int rc = 0;

	if (!w->nr_rdirty)
		return 0;
	buf = sp_buf_alloc(WRITE_MAX);
	if (!buf)
		return -ENOMEM;
	for (uint64_t u = 0; !rc && u <= last; u += n) {
		n = 1;
		if (!w->rdirty[u / 64]) {
			n = 64 - u % 64;
			continue;
		}
		if (!marked(w, u))
			continue;
		if (u / units < w->rt_n && w->rt[u / units])
			rc = write_units(w, u, &n, buf);
	}
	sp_buf_free(buf);
	return rc;
}

static int write_rt(struct q2w *w, uint64_t bi)
{
	uint64_t per_unit = w->unit / 8, first = bi / per_unit * per_unit;
	uint8_t *buf = sp_buf_alloc(w->unit);
	int rc;

	if (!buf)
		return -ENOMEM;
	for (uint64_t i = 0; i < per_unit; i++)
		q2_put64(buf + i * 8, w->rt[first + i]);
	rc = write_off_lock(w, buf, w->unit, w->q->rt_off + first * 8);
	sp_buf_free(buf);
	return rc;
}

/* A FREE cluster for block bi: best one that it counts itself. */
static int place_block(struct q2w *w, uint64_t bi, uint64_t *hc)
{
	uint64_t per = ref_per_block(w->q), n, at;

	*hc = hc_find_free(w, bi * per, 1, &n);
	if (n && *hc / per == bi)
		return 0;
	for (at = 0; ; at = *hc + 1) {
		*hc = hc_find_free(w, at, 1, &n);
		if (!n)
			return -ENOSPC;
		if (*hc / per < w->rt_n && w->rt[*hc / per])
			return 0;
	}
}

static int make_block(struct q2w *w, uint64_t bi)
{
	uint64_t per = ref_per_block(w->q), hc;
	uint8_t *buf;
	int rc;

	buf = sp_buf_alloc(w->q->cs);
	if (!buf)
		return -ENOMEM;
	rc = place_block(w, bi, &hc);
	if (!rc) {
		hc_set(w, hc, HC_USED, 1);
		ref_build(w, buf, w->q->cs, bi * per);
		rc = write_off_lock(w, buf, w->q->cs, hc << w->q->cbits);
		if (rc)
			hc_set(w, hc, HC_FREE, 0);
		else
			w->rt[bi] = hc << w->q->cbits;
	}
	sp_buf_free(buf);
	return rc;
}

/**
 * ref_link - have the file's table name blocks that memory's names already
 * @w: the engine
 *
 * What these blocks count may be used afterwards.  If the disk is full that is
 * put off: the table on the file may name some of them, so that they stay.
 *
 * Return: 0; -ENOSPC, -EDQUOT: call again; others, for good.
 */
int ref_link(struct q2w *w)
{
	uint64_t per_unit = w->unit / 8;
	int rc;

	if (!w->link_hi)
		return 0;
	rc = ref_write(w);	/* counts of blocks that others count */
	if (!rc)
		rc = q2_sync(w);
	for (uint64_t bi = w->link_lo; !rc && bi < w->link_hi;
	     bi = (bi / per_unit + 1) * per_unit)
		rc = write_rt(w, bi);
	if (!rc)
		rc = q2_sync(w);
	if (!rc)
		w->link_hi = 0;
	else if (!is_full(rc) && rc != -ENOMEM)	/* memory says that they are linked */
		image_fail(w->img, rc);
	return rc;
}

/**
 * ref_cover - see to it that there are refcount blocks
 * @w: the engine
 * @first: for clusters from here
 * @end: to here
 *
 * Return: 0 or -errno; -ENOSPC: some may be there, none is named by the table
 * that isn't whole.
 */
int ref_cover(struct q2w *w, uint64_t first, uint64_t end)
{
	uint64_t per = ref_per_block(w->q), bi, last = (end + per - 1) / per;
	int rc, link;

	rc = ref_link(w);
	if (!rc && last > w->rt_n)
		rc = rt_grow(w, last);
	for (bi = first / per; !rc && bi < last; bi++) {
		if (w->rt[bi])
			continue;
		rc = make_block(w, bi);
		if (rc)
			break;
		if (!w->link_hi)
			w->link_lo = bi;
		w->link_hi = bi + 1;
	}
	link = ref_link(w);
	return link ? link : rc;
}

/**
 * ref_covers - is a cluster counted by a block that the file's table names?
 * @w: the engine
 * @hc: the cluster
 */
bool ref_covers(const struct q2w *w, uint64_t hc)
{
	uint64_t bi = hc / ref_per_block(w->q);

	return bi < w->rt_n && w->rt[bi] && !(bi >= w->link_lo && bi < w->link_hi);
}
