// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * scan.c - read all metadata of a file that is to be written to.
 *
 * Counts every reference to every cluster of the file.  Tables that overlap,
 * are unaligned or reach outside the file are refused: whoever wrote into such an
 * image would damage it further.  Refcounts on the file are compared and not
 * believed; what differs is marked and rewritten before the first use, which is
 * all the repair that an image needs that was not closed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine.h"

#define ADVICE	"repair it with qemu-img check -r all, or open it read-only"

static int damaged(struct q2w *w, struct sp_err *err, const char *what, uint64_t off)
{
	return sp_fail(err, -EINVAL, "%s: damaged: %s at byte %llu of the file; " ADVICE,
		       w->file->path, what, (unsigned long long)off);
}

static int mark(struct q2w *w, uint64_t off, uint64_t len, bool comp, const char *what,
		struct sp_err *err)
{
	uint64_t first = off >> w->q->cbits, last = (off + len - 1) >> w->q->cbits;
	uint64_t most = w->q->rorder < 5 ? (1ull << (1u << w->q->rorder)) - 1 : HC_COUNT;
	uint32_t *hc;

	if (last >= w->nb)
		return damaged(w, err, what, off);
	if (most > HC_COUNT)
		most = HC_COUNT;
	for (uint64_t c = first; c <= last; c++) {
		hc = &w->hc[c];
		if (*hc && !(comp && *hc & HC_COMP))
			return damaged(w, err, "a cluster that is used twice, again", off);
		if ((*hc & HC_COUNT) >= most)
			return damaged(w, err, "a cluster that is used too often", off);
		*hc = (*hc & HC_COUNT) + 1;
		*hc |= (uint32_t)HC_USED << HC_STATE_SHIFT | (comp ? HC_COMP : 0);
	}
	return 0;
}

/*
 * Snapshots that QEMU made or deleted by half leave entries without COPIED and counts that
 * are too high, which is a leak. We would correct the counts, and it were an error. Not
 * for those who take over: what the kernel has for them is right.
 */
static bool is_shared(const struct q2w *w, uint64_t entry)
{
	return !(entry & Q2_COPIED) && !w->img->opt.fds;
}

static int mark_entry(struct q2w *w, uint64_t entry, struct sp_err *err)
{
	uint64_t off, len, bytes = w->img->layers[0].file_bytes;

	switch (q2_type(w->q, entry)) {
	case Q2_NORMAL:
	case Q2_ZERO_ALLOC:
		if (is_shared(w, entry))
			return damaged(w, err, "a data cluster that is shared, though there is no snapshot,",
				       q2_offset(entry));
		return mark(w, q2_offset(entry), w->q->cs, false, "a data cluster", err);
	case Q2_COMP:
		/*
		 * The last sector may be short.  What reaches further would name
		 * clusters that come to be later, and are somebody else's.
		 */
		q2_comp_range(w->q, entry, &off, &len);
		if (off + len >= bytes + 512)
			return damaged(w, err, "a compressed cluster that goes on behind the end of the file",
				       off);
		return mark(w, off, len, true, "a compressed cluster", err);
	case Q2_BAD:
		return damaged(w, err, "an unaligned data cluster", q2_offset(entry));
	default:
		return 0;
	}
}

static int read_table(struct q2w *w, uint32_t i, struct sp_err *err)
{
	uint64_t off = q2_offset(w->q->l1[i]), n = w->q->cs / 8;
	struct l2 *l2 = &w->l2[i];
	int rc;

	if (!q2_table_ok(w->q, off, w->q->cs, w->img->layers[0].file_bytes))
		return damaged(w, err, "an L2 table outside the file or unaligned", off);
	if (is_shared(w, w->q->l1[i]))
		return damaged(w, err, "an L2 table that is shared, though there is no snapshot,",
			       off);
	rc = mark(w, off, w->q->cs, false, "an L2 table", err);
	if (rc)
		return rc;
	l2->e = sp_buf_alloc(w->q->cs);
	if (!l2->e)
		return sp_fail(err, -ENOMEM, "%s: out of memory for its tables", w->file->path);
	l2->hc = off >> w->q->cbits;
	rc = sp_file_pread(w->file, l2->e, w->q->cs, off, NULL);
	if (rc)
		return sp_fail(err, rc, "%s: cannot read an L2 table: %s", w->file->path,
			       strerror(-rc));
	for (uint64_t k = 0; k < n; k++)
		l2->e[k] = q2_get64((const uint8_t *)&l2->e[k]);
	return 0;
}

/*
 * A file of any length costs nothing, but our words for its clusters do, and a mapper's
 * memory is locked: an image must not be able to take all there is.  Whoever takes an image
 * over has more room, for it has grown since.
 */
static uint64_t max_table_bytes(const struct q2w *w)
{
	long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
	uint64_t bytes = pages > 0 && page > 0 ? (uint64_t)pages * page : UINT64_MAX;

	bytes /= w->img->opt.fds ? 2 : 4;
	return bytes < SCAN_MAX_BYTES ? bytes : SCAN_MAX_BYTES;
}

static int too_large(const struct q2w *w, uint64_t max, struct sp_err *err)
{
	return sp_fail(err, -ENOTSUP, "%s: what must be known of its clusters for writing takes more than %llu MiB of memory; open it read-only, or convert it to larger clusters",
		       w->file->path, (unsigned long long)max >> 20);
}

/* room: of max, for the words of clusters and for this. */
static int read_tables(struct q2w *w, uint64_t max, uint64_t room, struct sp_err *err)
{
	int rc = 0;

	room -= w->nb * sizeof(*w->hc);

	w->l2 = calloc(w->q->l1_size + 1ull, sizeof(*w->l2));
	if (!w->l2)
		return sp_fail(err, -ENOMEM, "%s: out of memory for its tables", w->file->path);
	for (uint32_t i = 0; !rc && i < w->q->l1_size; i++) {
		if (!q2_offset(w->q->l1[i]))
			continue;
		if (room < w->q->cs)
			return too_large(w, max, err);
		room -= w->q->cs;
		rc = read_table(w, i, err);
	}
	return rc;
}

/* After all tables, so that what overlaps one is named right. */
static int mark_data(struct q2w *w, struct sp_err *err)
{
	int rc = 0;

	for (uint32_t i = 0; !rc && i < w->q->l1_size; i++)
		for (uint64_t k = 0; !rc && w->l2[i].e && k < w->q->cs / 8; k++)
			rc = mark_entry(w, w->l2[i].e[k], err);
	return rc;
}

static int read_rt(struct q2w *w, struct sp_err *err)
{
	uint64_t bytes = (uint64_t)w->q->rt_clusters << w->q->cbits, off;
	int rc;

	w->rt_n = bytes / 8;
	w->rt = sp_buf_alloc(bytes);
	if (!w->rt)
		return sp_fail(err, -ENOMEM, "%s: out of memory", w->file->path);
	rc = sp_file_pread(w->file, w->rt, bytes, w->q->rt_off, NULL);
	if (rc)
		return sp_fail(err, rc, "%s: cannot read its refcount table: %s",
			       w->file->path, strerror(-rc));
	for (uint64_t i = 0; !rc && i < w->rt_n; i++) {
		w->rt[i] = q2_get64((const uint8_t *)&w->rt[i]) & ~511ull;
		off = w->rt[i];
		if (!off)
			continue;
		if (!q2_table_ok(w->q, off, w->q->cs, w->img->layers[0].file_bytes))
			return damaged(w, err, "a refcount block outside the file or unaligned",
				       off);
		rc = mark(w, off, w->q->cs, false, "a refcount block", err);
	}
	return rc;
}

/* Mark units of refcounts that are wrong, and see whether blocks are missing. */
static int compare(struct q2w *w, struct sp_err *err)
{
	uint64_t per = ref_per_block(w->q), hc = 0, n;
	uint8_t *buf = sp_buf_alloc(w->q->cs);
	int rc = 0;

	if (!buf)
		return sp_fail(err, -ENOMEM, "%s: out of memory", w->file->path);
	for (uint64_t bi = 0; !rc && hc < w->nb; bi++, hc += n) {
		n = w->nb - hc < per ? w->nb - hc : per;
		if (bi >= w->rt_n || !w->rt[bi]) {
			for (uint64_t i = 0; i < n && !w->blocks_missing; i++)
				w->blocks_missing = w->hc[hc + i];
			continue;
		}
		rc = sp_file_pread(w->file, buf, w->q->cs, w->rt[bi], NULL);
		for (uint64_t i = 0; !rc && i < n; i++)
			if (ref_get(w->q, buf, i) != hc_refcount(w, hc + i))
				ref_mark(w, hc + i);
	}
	sp_buf_free(buf);
	return rc ? sp_fail(err, rc, "%s: cannot read its refcounts: %s", w->file->path,
			    strerror(-rc)) : 0;
}

/**
 * q2_scan - read and check all metadata
 * @w: the engine, new
 * @err: message
 *
 * Context: at open.
 * Return: 0; -EINVAL: damaged; -ENOTSUP: too large; -ENOMEM; -EIO.
 */
int q2_scan(struct q2w *w, struct sp_err *err)
{
	uint64_t bytes = w->img->layers[0].file_bytes, max = max_table_bytes(w);
	struct q2 *q = w->q;
	uint64_t l1 = (q->l1_size + 1ull) * (sizeof(*w->l2) + sizeof(*q->l1));
	int rc;

	w->nb = (bytes + q->cs - 1) >> q->cbits;
	if (w->file->blockdev)
		w->nb = bytes >> q->cbits;
	else
		w->in_doubt = bytes & (q->cs - 1) || w->img->opt.fds;
	if (l1 > max || w->nb > (max - l1) / sizeof(*w->hc))
		return too_large(w, max, err);
	rc = hc_grow(w, w->nb);
	if (rc)
		return sp_fail(err, rc, "%s: out of memory for its tables", w->file->path);
	rc = mark(w, 0, 1, false, "the header", err);
	if (!rc && q->l1_size)
		rc = mark(w, q->l1_off, q->l1_size * 8ull, false, "the L1 table", err);
	if (!rc)
		rc = mark(w, q->rt_off, (uint64_t)q->rt_clusters << q->cbits, false,
			  "the refcount table", err);
	if (!rc)
		rc = read_rt(w, err);
	if (!rc)
		rc = read_tables(w, max, max - l1, err);
	if (!rc)
		rc = mark_data(w, err);
	for (uint64_t hc = 0; !rc && hc < w->nb; hc++)
		w->nr_free += !w->hc[hc];
	if (!rc)
		rc = compare(w, err);
	return rc;
}
