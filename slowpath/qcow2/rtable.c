// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * rtable.c - growth: of the file, and of the table that names refcount blocks.
 *
 * A refcount table that is full moves: the copy, with the blocks that count the
 * new place in it, is made durable; then the header names it; when that is durable
 * the old one is dropped (rule 10).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"

#define MAX_FILE_BYTES	(1ull << 55)

/**
 * file_extend - more clusters, all FREE and zero
 * @w: the engine
 * @nb: how many there will be
 *
 * Context: the lock, dropped meanwhile; w->refilling.
 * Return: 0; -ENOSPC: it is a block device; -EFBIG and others.
 */
int file_extend(struct q2w *w, uint64_t nb)
{
	uint64_t bytes = nb << w->q->cbits;
	int rc;

	if (nb <= w->nb)
		return 0;
	if (w->file->blockdev)
		return -ENOSPC;
	if (nb > MAX_FILE_BYTES >> w->q->cbits)
		return -EFBIG;
	rc = hc_grow(w, nb);
	if (rc)
		return rc;
	pthread_mutex_unlock(&w->img->lock);
	rc = sp_file_truncate(w->file, bytes);
	pthread_mutex_lock(&w->img->lock);
	if (rc)
		return rc;
	w->nr_free += nb - w->nb;
	w->nb = nb;
	w->img->layers[0].file_bytes = bytes;
	return 0;
}

/**
 * file_cut - no FREE clusters at the end
 * @w: the engine
 * @least: as many clusters as that stay in any case
 *
 * Context: the lock, dropped meanwhile; w->refilling.
 * Return: 0 or -errno.
 */
int file_cut(struct q2w *w, uint64_t least)
{
	uint64_t nb = w->nb, bytes;
	int rc;

	while (nb > least && !w->hc[nb - 1])
		nb--;
	if (nb == w->nb || w->file->blockdev)
		return 0;
	bytes = nb << w->q->cbits;
	pthread_mutex_unlock(&w->img->lock);
	rc = sp_file_truncate(w->file, bytes);
	pthread_mutex_lock(&w->img->lock);
	if (rc)
		return rc;
	w->nr_free -= w->nb - nb;
	w->nb = nb;
	w->free_hint = 0;
	w->img->layers[0].file_bytes = bytes;
	return 0;
}

/* n FREE clusters in a row. */
static int find_row(struct q2w *w, uint64_t n, uint64_t *hc)
{
	uint64_t got, at;
	int rc;

	if (!w->file->blockdev) {
		*hc = w->nb;
		rc = file_extend(w, w->nb + n);
		return rc;
	}
	for (at = 0; ; at = *hc + got) {
		*hc = hc_find_free(w, at, n, &got);
		if (!got)
			return -ENOSPC;
		if (got == n)
			return 0;
	}
}

/* Blocks for the clusters of the table and, in turn, for themselves. */
static int cover_table(struct q2w *w, uint64_t hc, uint64_t n, uint64_t *blocks)
{
	uint64_t per = ref_per_block(w->q), bi, at;
	uint64_t last = (hc + n - 1) / per;
	int rc;

	if (last >= w->rt_n)
		return -EFBIG;
	for (bi = hc / per; bi <= last; bi++) {
		if (w->rt[bi])
			continue;
		rc = find_row(w, 1, &at);
		if (rc)
			return rc;
		hc_set(w, at, HC_USED, 1);
		w->rt[bi] = at << w->q->cbits;
		blocks[bi / 64] |= 1ull << bi % 64;
		/* Does it need one itself? */
		if (at / per >= w->rt_n)
			return -EFBIG;
		if (at / per > last)
			last = at / per;
		if (!w->rt[at / per] && at / per < bi)
			bi = at / per - 1;
	}
	return 0;
}

static int write_block(struct q2w *w, uint64_t bi)
{
	uint8_t *buf = sp_buf_alloc(w->q->cs);
	int rc;

	if (!buf)
		return -ENOMEM;
	ref_build(w, buf, w->q->cs, bi * ref_per_block(w->q));
	pthread_mutex_unlock(&w->img->lock);
	rc = sp_file_pwrite(w->file, buf, w->q->cs, w->rt[bi]);
	pthread_mutex_lock(&w->img->lock);
	sp_buf_free(buf);
	return rc;
}

static int write_table(struct q2w *w, uint64_t hc, uint64_t n)
{
	uint64_t per = w->q->cs / 8;
	uint8_t *buf = sp_buf_alloc(w->q->cs);
	int rc = 0;

	if (!buf)
		return -ENOMEM;
	for (uint64_t c = 0; !rc && c < n; c++) {
		for (uint64_t i = 0; i < per; i++)
			q2_put64(buf + i * 8, w->rt[c * per + i]);
		pthread_mutex_unlock(&w->img->lock);
		rc = sp_file_pwrite(w->file, buf, w->q->cs, (hc + c) << w->q->cbits);
		pthread_mutex_lock(&w->img->lock);
	}
	sp_buf_free(buf);
	return rc;
}

/* Everything is durable but the header's word for it. */
static int write_all(struct q2w *w, uint64_t hc, uint64_t n, const uint64_t *blocks)
{
	int rc = 0;

	for (uint64_t bi = 0; !rc && bi < w->rt_n; bi++)
		if (blocks[bi / 64] >> bi % 64 & 1)
			rc = write_block(w, bi);
	if (!rc)
		rc = ref_write(w);	/* counts in blocks that were there */
	if (!rc)
		rc = write_table(w, hc, n);
	return rc ? rc : q2_sync(w);
}

/* A full disk: the header names the old table, as before. */
static int switch_table(struct q2w *w, uint64_t hc, uint64_t n)
{
	uint64_t old = w->q->rt_off >> w->q->cbits, old_n = w->q->rt_clusters;
	int rc;

	rc = header_rt(w, hc << w->q->cbits, n);
	if (is_full(rc))
		return rc;
	if (!rc)
		rc = q2_sync(w);
	if (rc) {	/* the file has either */
		image_fail(w->img, rc);
		return rc;
	}
	w->q->rt_off = hc << w->q->cbits;
	w->q->rt_clusters = n;
	for (uint64_t i = 0; i < old_n; i++)
		hc_drop(w, old + i);
	return 0;
}

/* Nothing names the new table: as if it had never been. */
static void undo(struct q2w *w, uint64_t hc, uint64_t n, const uint64_t *blocks,
		 uint64_t old_n)
{
	for (uint64_t bi = 0; bi < w->rt_n; bi++) {
		if (!(blocks[bi / 64] >> bi % 64 & 1))
			continue;
		hc_set(w, w->rt[bi] >> w->q->cbits, HC_FREE, 0);
		w->rt[bi] = 0;
	}
	for (uint64_t i = 0; i < n; i++)
		hc_set(w, hc + i, HC_FREE, 0);
	w->rt_n = old_n;
}

/**
 * rt_grow - a larger refcount table
 * @w: the engine
 * @blocks: that it is to name, at least
 *
 * Context: the lock, dropped meanwhile; w->refilling.
 * Return: 0 or -errno; -EFBIG: as large as QEMU takes it already.
 */
int rt_grow(struct q2w *w, uint64_t blocks)
{
	uint64_t per = w->q->cs / 8, old_n = w->rt_n, old_nb = w->nb, n, hc, *rt, *bits;
	uint64_t refs = ref_per_block(w->q);
	int rc;

	/* It counts its own place too, at the end of a file that may be far longer. */
	if (!w->file->blockdev && blocks < w->nb / refs + 1)
		blocks = w->nb / refs + 1;
	n = (blocks + blocks / 2 + per) / per;
	if (n > Q2_MAX_RT_BYTES >> w->q->cbits)
		n = Q2_MAX_RT_BYTES >> w->q->cbits;
	if (n * per < blocks || n * per <= old_n)
		return -EFBIG;
	if (!w->file->blockdev && (w->nb + n) / refs >= n * per)
		return -EFBIG;
	rt = realloc(w->rt, n * per * 8);
	if (!rt)
		return -ENOMEM;
	w->rt = rt;
	memset(rt + old_n, 0, (n * per - old_n) * 8);
	bits = calloc(n * per / 64 + 1, 8);
	if (!bits)
		return -ENOMEM;
	rc = find_row(w, n, &hc);
	if (rc)
		goto out;
	w->rt_n = n * per;
	for (uint64_t i = 0; i < n; i++)
		hc_set(w, hc + i, HC_USED, 1);
	rc = cover_table(w, hc, n, bits);
	if (!rc)
		rc = write_all(w, hc, n, bits);
	if (!rc)
		rc = switch_table(w, hc, n);
	if (rc && !w->img->failed) {
		undo(w, hc, n, bits, old_n);
		file_cut(w, old_nb);	/* else each try makes it longer */
	}
out:
	free(bits);
	return rc;
}
