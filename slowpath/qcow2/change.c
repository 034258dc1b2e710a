// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * change.c - changes of clusters, from the reply to the acknowledgement.
 *
 *	mapped     the entry in memory is the new one as soon as the reply is
 *	           sent; refused, it falls back to the one before
 *	placed     the entry in memory stays until the kernel says that the data
 *	           is written and the extent installed
 *
 * No cluster has two changes without acknowledgement at a time: whoever finds
 * one waits.
 */
#include <errno.h>
#include <stdlib.h>

#include "engine.h"

#define MIN_HASH	1024

static struct chg **bucket(const struct q2w *w, uint64_t gc)
{
	return &w->hash[(gc * 0x9e3779b97f4a7c15ull >> 20) & (w->hash_size - 1)];
}

/**
 * chg_find - is there something about a cluster?
 * @w: the engine
 * @gc: the cluster
 *
 * Return: what, or NULL.
 */
struct chg *chg_find(const struct q2w *w, uint64_t gc)
{
	struct chg *c;

	if (!w->nr_chg)
		return NULL;
	for (c = *bucket(w, gc); c && c->gc != gc; c = c->next)
		;
	return c;
}

static int grow(struct q2w *w)
{
	uint64_t size = w->hash_size ? 4 * w->hash_size : MIN_HASH;
	struct chg **hash, **snap, *c;
	struct list *l;

	if (w->nr_chg < w->hash_size)
		return 0;
	hash = calloc(size, sizeof(*hash));
	snap = realloc(w->snap, size * sizeof(*snap));
	if (snap) {
		w->snap = snap;
		w->snap_room = size;
	}
	if (!hash || !snap) {
		free(hash);
		return -ENOMEM;
	}
	free(w->hash);
	w->hash = hash;
	w->hash_size = size;
	for (l = w->changes.next; l != &w->changes; l = l->next) {
		c = list_entry(l, struct chg, link);
		c->next = *bucket(w, c->gc);
		*bucket(w, c->gc) = c;
	}
	return 0;
}

/**
 * chg_get - find it or make it
 * @w: the engine
 * @gc: the cluster; if it is clean its entry in memory is the file's
 *
 * Return: it; chg_put() when done, whether it was changed or not; NULL: no
 * memory.
 */
struct chg *chg_get(struct q2w *w, uint64_t gc)
{
	struct chg *c = chg_find(w, gc);

	if (c)
		return c;
	if (grow(w))
		return NULL;
	c = calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	c->gc = gc;
	c->file = entry_get(w, gc);
	c->next = *bucket(w, gc);
	*bucket(w, gc) = c;
	list_add_tail(&c->link, &w->changes);
	w->l2[gc >> w->q->l2_bits].nr_chg++;
	w->img->stats.uncommitted = ++w->nr_chg;
	return c;
}

/**
 * chg_put - free it if there is nothing about the cluster any more
 * @w: the engine
 * @c: from chg_get()
 */
void chg_put(struct q2w *w, struct chg *c)
{
	struct chg **at = bucket(w, c->gc);

	if (c->oldest || c->sent || c->in_snap || c->busy)
		return;
	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	list_del(&c->link);
	w->l2[c->gc >> w->q->l2_bits].nr_chg--;
	w->img->stats.uncommitted = --w->nr_chg;
	free(c);
}

/**
 * chg_apply - one more cluster for a reply
 * @w: the engine
 * @p: the reply, with room
 * @c: the cluster; its table is there
 * @next: its new entry; for a PLACE, | 1 if the old content is not zero
 */
void chg_apply(struct q2w *w, struct pend *p, struct chg *c, uint64_t next)
{
	p->item[p->nr++] = (struct item){
		.gc = c->gc, .prev = entry_get(w, c->gc), .next = next,
	};
	c->sent = true;
	if (!p->place)
		entry_set(w, c->gc, next);
}

/* A tid that a cluster has from now on. */
static void note_tid(struct chg *c, uint64_t tid)
{
	if (c->in_snap ? c->newer : c->oldest)
		c->again = true;
	if (c->in_snap) {
		if (!c->newer)
			c->newer = tid;
	} else if (!c->oldest) {
		c->oldest = tid;
	}
}

static void forget_tid(struct chg *c, uint64_t tid)
{
	if (c->in_snap) {
		if (c->newer == tid)
			c->newer = 0;
	} else if (c->oldest == tid) {
		c->oldest = 0;
	}
}

/**
 * chg_send - number a reply; it follows under the same hold of the lock
 * @w: the engine
 * @p: the reply
 */
void chg_send(struct q2w *w, struct pend *p)
{
	pend_send(w->img, p);
	for (unsigned int i = 0; i < p->nr; i++)
		note_tid(chg_find(w, p->item[i].gc), p->tid);
}

/* An entry that c does not have any more: is it still named otherwise? */
static void let_go(struct q2w *w, const struct chg *c, uint64_t entry)
{
	if (same_storage(w->q, entry, entry_get(w, c->gc)) ||
	    same_storage(w->q, entry, c->file) ||
	    (c->in_snap && same_storage(w->q, entry, c->snap)))
		return;
	hc_drop_entry(w, entry);
}

static void installed(struct q2w *w, struct pend *p, struct chg *c, struct item *it)
{
	if (p->place) {
		if (it->next & 1)	/* what is placed has to be there before its link */
			c->f1 = w->img->sync_started + 1;
		entry_set(w, c->gc, it->next & ~1ull);
	}
	let_go(w, c, it->prev);
	doubt_settled(w, c->gc);
}

static void refused(struct q2w *w, struct pend *p, struct chg *c, struct item *it)
{
	if (!p->place)
		entry_set(w, c->gc, it->prev);
	forget_tid(c, p->tid);
	let_go(w, c, p->place ? it->next & ~1ull : it->next);
}

/**
 * chg_acked - what became of a reply
 * @img: the image
 * @p: the reply
 * @res: 0: installed and drained; else nothing was installed
 */
void chg_acked(struct sp_image *img, struct pend *p, int res)
{
	struct q2w *w = img->layers[0].q->w;
	struct chg *c;

	for (unsigned int i = 0; i < p->nr; i++) {
		c = chg_find(w, p->item[i].gc);
		c->sent = false;
		if (res)
			refused(w, p, c, &p->item[i]);
		else
			installed(w, p, c, &p->item[i]);
		chg_put(w, c);
	}
}

/**
 * chg_exit - free all
 * @w: the engine
 */
void chg_exit(struct q2w *w)
{
	while (!list_empty(&w->changes)) {
		struct chg *c = list_entry(w->changes.next, struct chg, link);

		list_del(&c->link);
		free(c);
	}
	free(w->hash);
	free(w->snap);
}
