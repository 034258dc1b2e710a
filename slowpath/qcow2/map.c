// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * map.c - from sectors of the layer to what its tables say.
 *
 * A run is as long as the entries continue each other within one slice.  What
 * they say is never trusted: an offset that is unaligned or outside the file
 * makes MAP_BAD of that cluster alone.
 */
#include <errno.h>

#include "engine.h"
#include "qcow2.h"

/**
 * q2_type - what an L2 entry stands for
 * @q: the layer
 * @entry: it
 *
 * Not checked here: that the offset lies in the file.
 */
enum q2_type q2_type(const struct q2 *q, uint64_t entry)
{
	uint64_t off = q2_offset(entry);

	if (entry & Q2_COMPRESSED)
		return Q2_COMP;
	if (off & (q->cs - 1))
		return Q2_BAD;
	if (entry & Q2_ZERO) {
		if (q->version < 3)
			return Q2_BAD;
		return off ? Q2_ZERO_ALLOC : Q2_ZERO_PLAIN;
	}
	return off ? Q2_NORMAL : Q2_UNALLOC;
}

/* As q2_type(), with the file's size looked at. */
static enum q2_type checked_type(const struct q2 *q, uint64_t entry, uint64_t file_bytes)
{
	enum q2_type t = q2_type(q, entry);
	uint64_t off, len;

	if (t == Q2_NORMAL && q2_offset(entry) >= file_bytes)
		return Q2_BAD;
	if (t == Q2_COMP) {
		q2_comp_range(q, entry, &off, &len);
		if (off >= file_bytes)
			return Q2_BAD;
	}
	return t;
}

/*
 * The entries from gc on: *n of them, at *e.  NULL: no table, all unallocated.
 */
static int entries(struct q2 *q, uint64_t gc, const uint64_t **e, uint64_t *n,
		   struct need *need)
{
	uint64_t l1 = gc >> q->l2_bits;
	unsigned int bits = q->l2_bits;

	if (q->w) {
		*e = q2w_table(q, l1);
	} else if (!q2_offset(q->l1[l1])) {
		*e = NULL;
	} else {
		bits = q2_slice_bits(q);
		*e = q2_slice_get(q, gc >> bits);
		if (!*e) {
			need->kind = NEED_TABLE;
			need->layer = q->layer;
			need->arg = gc >> bits;
			return -EAGAIN;
		}
	}
	*n = (1ull << bits) - (gc & ((1ull << bits) - 1));
	if (*e)
		*e += gc & ((1ull << bits) - 1);
	return 0;
}

/* How many clusters, at most max, continue the first?  All of one type. */
static uint64_t run_length(struct q2 *q, enum q2_type t, const uint64_t *e, uint64_t gc,
			   uint64_t max, uint64_t file_bytes)
{
	uint64_t off = q2_offset(e[0]), n;
	bool dirty = q->w && q2w_is_dirty(q, gc);
	bool look = q->w && q2w_any_dirty(q, gc);

	for (n = 1; n < max; n++) {
		if (checked_type(q, e[n], file_bytes) != t)
			break;
		if (t == Q2_NORMAL && q2_offset(e[n]) != off + (n << q->cbits))
			break;
		if (look && q2w_is_dirty(q, gc + n) != dirty)
			break;
	}
	return n;
}

/* Data may end with the file, inside a cluster. */
static void cut_at_eof(struct mapping *m, uint64_t file_bytes)
{
	uint64_t whole = file_bytes >> SP_SECTOR_SHIFT;

	if (m->off + m->len <= whole)
		return;
	if (m->off < whole) {
		m->len = whole - m->off;
	} else if (m->off == whole && (file_bytes & 511)) {
		m->kind = MAP_MIXED;
		m->len = 1;
	} else {
		m->kind = MAP_ZERO;
	}
}

/**
 * q2_map - what is at a sector, and how far
 * @q: the layer
 * @file_bytes: size of its file
 * @lba: sector, inside the virtual size
 * @max: sectors, at least 1, inside the virtual size
 * @m: the answer; DATA may be MIXED where the file ends in a sector
 * @need: with -EAGAIN: the slice that is not in memory
 *
 * Context: the image's lock.
 * Return: 0 or -EAGAIN.
 */
int q2_map(struct q2 *q, uint64_t file_bytes, uint64_t lba, uint64_t max,
	   struct mapping *m, struct need *need)
{
	uint64_t gc = lba >> q->csect_bits;
	uint64_t skip = lba & ((1ull << q->csect_bits) - 1);
	uint64_t last = (lba + max - 1) >> q->csect_bits;
	const uint64_t *e;
	enum q2_type t;
	uint64_t n;
	int rc;

	rc = entries(q, gc, &e, &n, need);
	if (rc)
		return rc;
	if (n > last - gc + 1)
		n = last - gc + 1;
	*m = (struct mapping){ .kind = MAP_UNALLOC, .layer = q->layer };
	t = e ? checked_type(q, e[0], file_bytes) : Q2_UNALLOC;
	if (q->w) {
		m->dirty = q2w_is_dirty(q, gc);
		m->busy = q2w_is_busy(q, gc);
	}
	if (t == Q2_COMP)
		n = 1;
	else if (e)
		n = run_length(q, t, e, gc, n, file_bytes);
	m->len = (n << q->csect_bits) - skip;
	if (m->len > max)
		m->len = max;

	switch (t) {
	case Q2_UNALLOC:
		break;
	case Q2_NORMAL:
		m->kind = MAP_DATA;
		m->off = (q2_offset(e[0]) >> SP_SECTOR_SHIFT) + skip;
		cut_at_eof(m, file_bytes);
		break;
	case Q2_ZERO_PLAIN:
	case Q2_ZERO_ALLOC:
		m->kind = MAP_ZERO;
		break;
	case Q2_COMP:
		m->kind = MAP_COMP;
		m->desc = e[0];
		m->skip = skip;
		break;
	case Q2_BAD:
		m->kind = MAP_BAD;
		break;
	}
	return 0;
}
