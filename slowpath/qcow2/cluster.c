// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * cluster.c - who uses each cluster of the file.
 *
 * The refcount that the file is to have follows from a cluster's state and
 * count; whenever it changes, the unit of refcounts it is in is marked, to be
 * written before the next fdatasync of a refill.  A count on the file may be too
 * high meanwhile (a leak, should we die), never too low.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"

static uint64_t bitmap_words(const struct q2w *w, uint64_t nb)
{
	return nb / ref_per_unit(w) / 64 + 2;
}

/**
 * hc_grow - room for words of more clusters; they are FREE
 * @w: the engine
 * @nb: how many clusters there will be
 *
 * Return: 0, -ENOMEM, -EFBIG.
 */
int hc_grow(struct q2w *w, uint64_t nb)
{
	uint64_t room = w->hc_room, old_words, words;
	uint64_t *bits;
	uint32_t *hc;

	if (nb <= room)
		return 0;
	if (nb > SCAN_MAX_BYTES / sizeof(*hc))
		return -EFBIG;
	room += room / 4;
	if (room < nb)
		room = nb + 1024;
	old_words = w->rdirty ? bitmap_words(w, w->hc_room) : 0;
	words = bitmap_words(w, room);
	bits = realloc(w->rdirty, words * 8);
	if (!bits)
		return -ENOMEM;
	memset(bits + old_words, 0, (words - old_words) * 8);
	w->rdirty = bits;
	if (!w->hc) {	/* the large one at open */
		hc = calloc(room, sizeof(*hc));
	} else {
		hc = realloc(w->hc, room * sizeof(*hc));
		if (hc)
			memset(hc + w->hc_room, 0, (room - w->hc_room) * sizeof(*hc));
	}
	if (!hc)
		return -ENOMEM;
	w->hc = hc;
	w->hc_room = room;
	return 0;
}

/**
 * hc_state - a cluster's state
 * @w: the engine
 * @hc: less than w->nb
 */
enum hc_state hc_state(const struct q2w *w, uint64_t hc)
{
	return (w->hc[hc] & ~HC_COMP) >> HC_STATE_SHIFT;
}

/**
 * hc_refcount - the refcount that the file is to have
 * @w: the engine
 * @hc: less than w->hc_room
 */
uint64_t hc_refcount(const struct q2w *w, uint64_t hc)
{
	switch (hc_state(w, hc)) {
	case HC_FREE:
		return 0;
	case HC_USED:
		return w->hc[hc] & HC_COUNT;
	default:
		return 1;
	}
}

/**
 * hc_set - change a cluster's state
 * @w: the engine
 * @hc: which
 * @state: the new one
 * @count: references, for USED
 */
void hc_set(struct q2w *w, uint64_t hc, enum hc_state state, uint32_t count)
{
	uint64_t before = hc_refcount(w, hc);
	uint32_t comp = state == HC_USED ? w->hc[hc] & HC_COMP : 0;

	w->nr_free -= hc_state(w, hc) == HC_FREE;
	w->nr_free += state == HC_FREE;
	w->hc[hc] = comp | (uint32_t)state << HC_STATE_SHIFT | count;
	if (hc_refcount(w, hc) != before)
		ref_mark(w, hc);
}

static bool push(struct q2w *w, uint64_t hc)
{
	uint64_t *more, room;

	if (w->drop_nr == w->drop_room) {
		room = w->drop_room ? 2 * w->drop_room : 256;
		more = realloc(w->drop, room * sizeof(*more));
		if (!more)
			return false;
		w->drop = more;
		w->drop_room = room;
	}
	w->drop[w->drop_nr++] = hc;
	return true;
}

/**
 * hc_drop - nothing names a cluster any more
 * @w: the engine
 * @hc: which
 */
void hc_drop(struct q2w *w, uint64_t hc)
{
	hc_set(w, hc, HC_DROP, 0);
	if (!push(w, hc))
		w->drop_lost = true;
	if (!w->drop_since)
		w->drop_since = now_ms();
}

static void drop_compressed(struct q2w *w, uint64_t entry)
{
	uint64_t off, len, hc, last;
	uint32_t count;

	q2_comp_range(w->q, entry, &off, &len);
	last = (off + len - 1) >> w->q->cbits;
	for (hc = off >> w->q->cbits; hc <= last && hc < w->nb; hc++) {
		count = w->hc[hc] & HC_COUNT;
		if (count > 1)
			hc_set(w, hc, HC_USED, count - 1);
		else
			hc_drop(w, hc);
	}
}

/**
 * hc_drop_entry - nothing holds an L2 entry any more
 * @w: the engine
 * @entry: it
 */
void hc_drop_entry(struct q2w *w, uint64_t entry)
{
	switch (q2_type(w->q, entry)) {
	case Q2_NORMAL:
	case Q2_ZERO_ALLOC:
		hc_drop(w, q2_offset(entry) >> w->q->cbits);
		break;
	case Q2_COMP:
		drop_compressed(w, entry);
		break;
	default:
		break;
	}
}

/**
 * same_storage - do two entries hold the same clusters?
 * @q: the layer
 * @a: an entry
 * @b: another
 *
 * Return: false also if they hold none.
 */
bool same_storage(const struct q2 *q, uint64_t a, uint64_t b)
{
	enum q2_type ta = q2_type(q, a), tb = q2_type(q, b);

	if (ta == Q2_COMP || tb == Q2_COMP)
		return ta == tb &&
		       (a & ~Q2_COPIED) == (b & ~Q2_COPIED);
	return q2_offset(a) && q2_offset(a) == q2_offset(b);
}

/**
 * hc_find_free - a run of FREE clusters
 * @w: the engine
 * @from: where to begin
 * @max: of this length at most
 * @n: its length, 0: there is none up to the end
 *
 * Return: its first cluster.
 */
uint64_t hc_find_free(struct q2w *w, uint64_t from, uint64_t max, uint64_t *n)
{
	uint64_t hc = from;

	*n = 0;
	while (hc < w->nb && w->hc[hc])
		hc++;
	while (*n < max && hc + *n < w->nb && !w->hc[hc + *n])
		++*n;
	return hc;
}
