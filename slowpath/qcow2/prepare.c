// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * prepare.c - before the first write: what the header has to say (rule 11), and
 * refcounts that were wrong.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"

#define L1_CHUNK	(64u << 10)

static int write_head(struct q2w *w, const void *buf, size_t len, uint64_t off)
{
	int rc;

	pthread_mutex_unlock(&w->img->lock);
	rc = sp_file_pwrite(w->file, buf, len, off);
	pthread_mutex_lock(&w->img->lock);
	return rc;
}

/**
 * header_write - set or clear the dirty bit; clear the autoclear bits
 * @w: the engine
 * @dirty: which
 *
 * Nothing to do for version 2, which has neither.
 *
 * Context: the lock, dropped meanwhile; w->refilling.
 * Return: 0 or -errno.
 */
int header_write(struct q2w *w, bool dirty)
{
	struct q2 *q = w->q;
	uint64_t incompat = q->incompat & ~Q2_INCOMPAT_DIRTY;
	uint8_t buf[24];
	int rc;

	if (dirty)
		incompat |= Q2_INCOMPAT_DIRTY;
	if (q->version < 3 || (incompat == q->incompat && !q->autoclear))
		return 0;
	q2_put64(buf, incompat);
	q2_put64(buf + 8, q->compat);
	q2_put64(buf + 16, 0);
	rc = write_head(w, buf, sizeof(buf), Q2_H_INCOMPAT);
	if (rc)
		return rc;
	q->incompat = incompat;
	q->autoclear = 0;
	return 0;
}

/**
 * header_rt - name another refcount table
 * @w: the engine
 * @off: where it is
 * @clusters: its size
 *
 * Context: the lock, dropped meanwhile; w->refilling.
 * Return: 0 or -errno.
 */
int header_rt(struct q2w *w, uint64_t off, uint32_t clusters)
{
	uint8_t buf[12];

	q2_put64(buf, off);
	q2_put32(buf + 8, clusters);
	return write_head(w, buf, sizeof(buf), Q2_H_RT_OFF);
}

/* A last cluster that is not all there, so that extents may cover it. */
static int complete_tail(struct q2w *w)
{
	uint64_t bytes = w->nb << w->q->cbits;
	int rc;

	if (w->file->blockdev || bytes <= w->img->layers[0].file_bytes)
		return 0;
	pthread_mutex_unlock(&w->img->lock);
	rc = sp_file_truncate(w->file, bytes);
	pthread_mutex_lock(&w->img->lock);
	if (!rc)
		w->img->layers[0].file_bytes = bytes;
	return rc;
}

/*
 * Clusters for the blocks that are missing: behind the end, where the first
 * block can count itself.
 */
static int make_room(struct q2w *w)
{
	uint64_t per = ref_per_block(w->q), first = w->nb, n = 0, bi;
	int rc;

	for (bi = 0; bi * per < first; bi++)
		n += bi >= w->rt_n || !w->rt[bi];
	if (!n || w->file->blockdev)
		return 0;
	rc = file_extend(w, first + n);
	return rc ? rc : ref_cover(w, first + n - 1, first + n);
}

/* Blocks for what is in use and has none. */
static int make_blocks(struct q2w *w)
{
	uint64_t per = ref_per_block(w->q), first = w->nb, hc = 0, end;
	int rc = ref_link(w);

	if (!rc && w->blocks_missing)
		rc = make_room(w);
	for (; w->blocks_missing && !rc && hc < w->nb; hc = end) {
		end = (hc / per + 1) * per;
		if (hc / per < w->rt_n && w->rt[hc / per])
			continue;
		while (hc < end && hc < w->nb && !w->hc[hc])
			hc++;
		if (hc < end && hc < w->nb)
			rc = ref_cover(w, hc, hc + 1);
	}
	if (!rc)
		w->blocks_missing = false;
	else if (!w->img->failed)
		file_cut(w, first);	/* else each try makes it longer */
	return rc;
}

/*
 * QEMU leaves L1 of a new image a hole.  Written once, as it is, it has its space,
 * so that a commit does not need any (rule 29).
 */
static int fill_l1(struct q2w *w)
{
	uint64_t per = L1_CHUNK / 8, n, bytes;
	uint8_t *buf = sp_buf_alloc(L1_CHUNK);
	int rc = buf ? 0 : -ENOMEM;

	for (uint64_t i = 0; !rc && i < w->q->l1_size; i += per) {
		n = w->q->l1_size - i < per ? w->q->l1_size - i : per;
		bytes = (n * 8 + w->unit - 1) & ~(uint64_t)(w->unit - 1);
		memset(buf, 0, bytes);
		for (uint64_t k = 0; k < n; k++)
			q2_put64(buf + k * 8, w->q->l1[i + k]);
		rc = write_head(w, buf, bytes, w->q->l1_off + i * 8);
	}
	sp_buf_free(buf);
	return rc;
}

static int prepare(struct q2w *w)
{
	bool was_dirty = w->q->incompat & Q2_INCOMPAT_DIRTY;
	int rc;

	rc = header_write(w, true);
	w->marked |= !was_dirty && w->q->incompat & Q2_INCOMPAT_DIRTY;
	if (!rc)
		rc = q2_sync(w);
	if (!rc)
		rc = complete_tail(w);
	if (!rc)
		rc = fill_l1(w);
	if (!rc)
		rc = make_blocks(w);
	if (!rc && w->nr_rdirty) {
		rc = ref_write(w);
		if (!rc)
			rc = q2_sync(w);
	}
	return rc;
}

/**
 * q2_prepare - make an image ready for writing
 * @w: the engine
 *
 * Context: the lock, dropped meanwhile.
 * Return: 0 or -errno; may be tried again.
 */
int q2_prepare(struct q2w *w)
{
	int rc = 0;

	refill_begin(w);
	if (!w->img->prepared) {
		rc = prepare(w);
		w->img->prepared = !rc;
	}
	refill_end(w);
	return rc;
}
