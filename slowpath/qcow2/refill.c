// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * refill.c - fill the pool ahead of need (rules 10 and 16).
 *
 * Sources, in this order: what was dropped, what was free, the end of the file.
 * In one go all of it is made zero, counted, and made durable by one
 * fdatasync; only then is it the pool's.  What was dropped and is not wanted
 * becomes FREE by the same way.
 */
#include <errno.h>
#include <stdlib.h>

#include "engine.h"

#define BATCH_BYTES	(4ull << 20)
#define BATCH_MAX_BYTES	(64ull << 20)
#define FAST_MS		1000		/* refills closer than this: larger ones */
#define DROP_MS		500		/* how long dropped clusters may wait */
#define DROP_BYTES	(64ull << 20)	/* how many */
#define IN_PLACE_MS	1000		/* a file may have holes without end */

/**
 * refill_begin - be the only one who writes refcounts
 * @w: the engine
 */
void refill_begin(struct q2w *w)
{
	while (w->refilling)
		cond_wait_ms(w->img, 1000);
	w->refilling = true;
}

/**
 * refill_end - let others
 * @w: the engine
 */
void refill_end(struct q2w *w)
{
	w->refilling = false;
	pthread_cond_broadcast(&w->img->cond);
}

static unsigned int reserve_least(const struct q2w *w)
{
	return w->q->cs < 1u << 20 ? 4 : 1;
}

static unsigned int reserve_target(const struct q2w *w)
{
	uint64_t n = reserve_least(w) + 2 * (w->batch >> w->q->l2_bits);

	return n < RESERVE_MAX ? n : RESERVE_MAX;
}

/* FREE clusters within [from, end) to v, which is theirs alone from here on. */
static int take_range(struct q2w *w, uint64_t from, uint64_t end, struct hcs *v)
{
	for (uint64_t hc = from; hc < end; hc++) {
		if (w->hc[hc])
			continue;
		if (hcs_add(v, hc))
			return -ENOMEM;
		hc_set(w, hc, HC_DROP, 0);
	}
	return 0;
}

/*
 * Likewise, with blocks to count them.  Where there is none and no room for one they
 * stay FREE, and *full says why; nobody asks for another block then.
 */
static int take_counted(struct q2w *w, uint64_t from, uint64_t end, struct hcs *v,
			int *full)
{
	uint64_t per = ref_per_block(w->q), hc, next;
	int rc = 0;

	if (!*full)
		rc = ref_cover(w, from, end);	/* may use some of them */
	if (no_longer(rc)) {
		*full = rc;
		rc = 0;
	}
	for (hc = from; !rc && hc < end; hc = next) {
		next = (hc / per + 1) * per;
		if (next > end)
			next = end;
		if (ref_covers(w, hc))
			rc = take_range(w, hc, next, v);
	}
	return rc;
}

/* FREE clusters, from where the last search ended and round. */
static int take_free(struct q2w *w, uint64_t want, struct hcs *v)
{
	uint64_t start = w->free_hint, before, hc, n;
	bool wrapped = false;
	int rc, full = 0;

	while (want && w->nr_free && !(wrapped && w->free_hint >= start)) {
		hc = hc_find_free(w, w->free_hint, want, &n);
		if (!n) {
			if (wrapped)
				break;
			wrapped = true;
			w->free_hint = 0;
			continue;
		}
		w->free_hint = hc + n;
		before = v->nr;
		rc = take_counted(w, hc, hc + n, v, &full);
		if (rc)
			return rc;
		want -= v->nr - before;
	}
	return want ? full : 0;
}

/* From the end of the file: holes, zero already. */
static int take_new(struct q2w *w, uint64_t want, struct hcs *v)
{
	uint64_t first = w->nb;
	int rc, full = 0;

	rc = file_extend(w, first + want);
	if (!rc)
		rc = take_counted(w, first, first + want, v, &full);
	return rc ? rc : full;
}

/* Zero with its space; whoever has no space is passed over, and so many are left. */
static int reserve_from(struct q2w *w, struct hcs *from, struct hcs *to,
			unsigned int want, uint64_t leave)
{
	uint64_t kept = 0, i;
	int rc = 0, one;

	for (i = 0; i < from->nr; i++) {
		uint64_t hc = from->hc[i];

		one = -ENOSPC;
		if (to->nr < want && !rc && kept + from->nr - i > leave) {
			pthread_mutex_unlock(&w->img->lock);
			one = sp_file_zero(w->file, hc << w->q->cbits, w->q->cs);
			pthread_mutex_lock(&w->img->lock);
			if (!one)
				one = hcs_add(to, hc);
			if (one && !is_full(one))
				rc = one;
		}
		if (one)
			from->hc[kept++] = hc;
	}
	from->nr = kept;
	return rc;
}

/* What becomes of dropped clusters that the pool doesn't want. */
static void release(struct q2w *w, struct hcs *v, uint64_t keep)
{
	for (uint64_t i = keep; i < v->nr; i++) {
		hc_set(w, v->hc[i], HC_FREE, 0);
		if (v->hc[i] < w->free_hint)
			w->free_hint = v->hc[i];
	}
	if (v->nr > keep)
		v->nr = keep;
}

static void publish(struct q2w *w, struct hcs *v, struct hcs *tables)
{
	uint64_t i, n;

	for (i = 0; i < tables->nr; i++) {
		hc_set(w, tables->hc[i], HC_RESERVE, 0);
		w->reserve[w->reserve_nr++] = tables->hc[i];
	}
	for (i = 0; i < v->nr; i += n) {
		for (n = 1; i + n < v->nr && v->hc[i + n] == v->hc[i] + n; n++)
			;
		pool_put(w, v->hc[i], n);
	}
	free(v->hc);
	free(tables->hc);
}

/*
 * v: made zero but for fresh.  Everything found is on one of the lists.
 *
 * No room for more is an error only if there is nothing; else *full says so.  And if
 * FREE clusters cannot be counted the file is not made longer, each time anew.
 */
static int collect(struct q2w *w, uint64_t want, struct hcs *v, struct hcs *fresh,
		   int *full)
{
	int rc;

	*full = 0;
	rc = take_dropped(w, v);
	if (!rc && v->nr < want)
		rc = take_free(w, want - v->nr, v);
	if (no_longer(rc)) {
		*full = rc;
		rc = 0;
	}
	if (!rc)
		rc = punch_clusters(w, v);
	if (!rc)
		release(w, v, want);
	if (!rc && !*full && v->nr < want) {
		rc = take_new(w, want - v->nr, fresh);
		if (no_longer(rc)) {
			*full = rc;
			rc = 0;
		}
	}
	return rc || v->nr || fresh->nr ? rc : *full;
}

/*
 * The reserve's part.  Where there is no room for more, or no space, a writer needs
 * something to be mapped first, and no more tables than a few; who links needs nothing
 * but tables.
 */
static int share(struct q2w *w, bool is_full, bool links, struct hcs *v,
		 struct hcs *fresh, struct hcs *tables, unsigned int need)
{
	unsigned int few = reserve_least(w);
	uint64_t leave = !links && !w->pool_total;
	int rc;

	few = few > w->reserve_nr ? few - w->reserve_nr : 0;
	if (few > need)
		few = need;
	if (is_full && !links)
		need = few;
	rc = reserve_from(w, fresh, tables, need, v->nr ? 0 : leave);
	if (tables->nr < need && fresh->nr && !links)	/* it found no space */
		need = few;
	return rc ? rc : reserve_from(w, v, tables, need, fresh->nr ? 0 : leave);
}

/*
 * FREE clusters that have their space already, as the reserve of a mapper that died has it.
 * Before anything is punched: what goes back to the file system may be somebody else's at
 * once, where there is little.
 */
static int reserve_in_place(struct q2w *w, struct hcs *to, unsigned int want)
{
	uint64_t until = now_ms() + IN_PLACE_MS;
	struct hcs one = { 0 };
	int rc = 0;

	for (uint64_t hc = 0; !rc && to->nr < want && hc < w->nb; hc++) {
		if (w->hc[hc] || !ref_covers(w, hc))
			continue;
		rc = hcs_add(&one, hc);
		if (!rc)
			rc = reserve_from(w, &one, to, want, 0);
		/* Not DROP: what is lost of that is looked for by its state. */
		if (!rc && !one.nr)
			hc_set(w, hc, HC_RESERVE, 0);
		else if (now_ms() > until)
			break;
		one.nr = 0;
	}
	free(one.hc);
	return rc;
}

/* links: tables are asked for, and nothing else.  Context: w->refilling. */
static int refill(struct q2w *w, uint64_t clusters, unsigned int want_tables, bool links)
{
	struct hcs v = { 0 }, fresh = { 0 }, tables = { 0 };
	unsigned int need_tables;
	int rc = 0, full;

	need_tables = want_tables > w->reserve_nr ? want_tables - w->reserve_nr : 0;
	if (links)
		rc = reserve_in_place(w, &tables, need_tables);
	if (!rc && (!links || tables.nr < need_tables)) {
		rc = collect(w, clusters + (links ? RESERVE_MAX : need_tables), &v, &fresh,
			     &full);
		if (!rc) {
			rc = share(w, full, links, &v, &fresh, &tables, need_tables);
		} else if (links && no_longer(rc) && tables.nr) {
			/* Some is better than none; these may not have been made zero. */
			hcs_give_back(w, &v);
			hcs_give_back(w, &fresh);
			rc = 0;
		}
	}
	if (!rc)
		rc = ref_write(w);
	if (!rc)
		rc = q2_sync(w);
	if (rc) {
		hcs_give_back(w, &v);
		hcs_give_back(w, &fresh);
		hcs_give_back(w, &tables);
		return rc;
	}
	publish(w, &fresh, &(struct hcs){ 0 });
	publish(w, &v, &tables);
	return 0;
}

static void adapt(struct q2w *w)
{
	uint64_t now = now_ms(), max = BATCH_MAX_BYTES >> w->q->cbits;
	uint64_t min = BATCH_BYTES >> w->q->cbits;

	if (min < 8)
		min = 8;
	if (w->batch < min)
		w->batch = min;
	else if (now - w->last_refill < FAST_MS && 2 * w->batch <= max)
		w->batch *= 2;
}

/* A disk that is full, or a file that gets no longer, is asked for no more than has to be. */
static void note_refill(struct q2w *w, int rc)
{
	if (!rc)
		w->last_refill = now_ms();
	else if (no_longer(rc))
		w->batch = 0;
}

/**
 * reserve_for_links - clusters for tables, and for nothing else
 * @w: the engine
 * @tables: the reserve is to have so many, or as many as it can have
 *
 * Context: the lock, dropped meanwhile; while a successor links what it found.
 * Return: 0: there is one at least; -ENOSPC: not one can be had; others.
 */
int reserve_for_links(struct q2w *w, unsigned int tables)
{
	int rc;

	refill_begin(w);
	adapt(w);
	rc = refill(w, w->batch, tables < RESERVE_MAX ? tables : RESERVE_MAX, true);
	if (no_longer(rc) && w->reserve_nr)
		rc = 0;
	else if (!rc && !w->reserve_nr)
		rc = -ENOSPC;
	note_refill(w, rc);
	refill_end(w);
	return rc;
}

/**
 * pool_refill - get clusters
 * @w: the engine
 * @clusters: the pool is to have at least
 * @tables: and the reserve
 *
 * Context: the lock, dropped meanwhile.
 * Return: 0: there are some, or another thread has got some; -ENOSPC: not one
 * can be had; others.
 */
int pool_refill(struct q2w *w, uint64_t clusters, unsigned int tables)
{
	uint64_t want;
	int rc = 0;

	if (w->refilling) {
		refill_begin(w);
		refill_end(w);
		return 0;
	}
	refill_begin(w);
	adapt(w);
	if (tables < reserve_target(w))
		tables = reserve_target(w);
	want = clusters > w->batch ? clusters : w->batch;
	want = want > w->pool_total ? want - w->pool_total : 0;
	rc = refill(w, want, tables, false);
	note_refill(w, rc);
	if (!rc && (!w->pool_total || !w->reserve_nr))
		rc = -ENOSPC;
	refill_end(w);
	return rc;
}

static bool is_low(const struct q2w *w)
{
	return w->last_refill && (w->pool_total < w->batch / 2 ||
				  w->reserve_nr < reserve_target(w) / 2);
}

static bool is_full_of_dropped(const struct q2w *w)
{
	return w->drop_nr << w->q->cbits >= DROP_BYTES;
}

/**
 * pool_due - is there work before the next time that was planned?
 * @w: the engine
 *
 * Context: the lock.
 */
bool pool_due(const struct q2w *w)
{
	if (!w->img->prepared)
		return false;
	if (w->drop_since && (w->drop_since + DROP_MS < w->img->work_at ||
			      is_full_of_dropped(w)))
		return true;
	return is_low(w);
}

/**
 * pool_work - refill and reclaim in the background
 * @w: the engine
 *
 * Context: the lock, dropped meanwhile.
 * Return: milliseconds until there is something to do, or -1.
 */
int pool_work(struct q2w *w)
{
	uint64_t now = now_ms();
	bool low, full;
	int rc;

	if (!w->img->prepared || w->refilling)
		return -1;
	low = is_low(w);
	full = w->drop_since && (now >= w->drop_since + DROP_MS ||
				 is_full_of_dropped(w));
	if (low || full) {
		rc = pool_refill(w, low ? w->batch : 0, 0);
		if (rc)
			return w->img->failed ? -1 : HOLD_SPACE_MS;
		now = now_ms();
	}
	if (!w->drop_since)
		return -1;
	return now >= w->drop_since + DROP_MS ? 0 : w->drop_since + DROP_MS - now;
}
