/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * tlb_model.h - a TLB that is plainly right, and how the real one is held to it.
 *
 * The model is an array with the translation of every sector.  touched is told
 * to it for the whole extent that a lookup reported.
 */
#ifndef TLB_MODEL_H
#define TLB_MODEL_H

#include "tlb_real.h"

#define SIZE	512		/* sectors */

struct cell {			/* one sector */
	u8 type, perm;
	u16 backing;
	u64 off, tid;
	bool touched;
};

struct model {
	struct cell c[SIZE];
	u64 committed, max_tid, touched_tid;
};

static bool m_storage(const struct cell *c)
{
	return c->type == UBDM_EXT_LINEAR || c->type == UBDM_EXT_JOURNAL;
}

static bool m_dirty(const struct model *m, u64 lba)
{
	return m->c[lba].type && m->c[lba].tid > m->committed;
}

/* A hole as an install sees it. */
static bool m_free(const struct model *m, u64 lba)
{
	return !m->c[lba].type ||
	       (m->c[lba].type == UBDM_EXT_JOURNAL && !m_dirty(m, lba));
}

static struct cell m_cell(const struct ubdm_extent *e, u64 lba)
{
	bool storage = e->type == UBDM_EXT_LINEAR || e->type == UBDM_EXT_JOURNAL;

	return (struct cell) {
		.type = e->type,
		.perm = e->perm,
		.backing = e->backing,
		.off = storage ? e->off + (lba - e->lba) : 0,
		.tid = e->tid,
		.touched = e->tid && e->flags & UBDM_EXT_F_TOUCHED,
	};
}

static bool m_same_storage(const struct cell *a, const struct cell *b)
{
	return m_storage(a) && m_storage(b) && a->backing == b->backing &&
	       a->off == b->off;
}

static int m_install(struct model *m, const struct ubdm_extent *ext, unsigned int nr)
{
	struct model *n = malloc(sizeof(*n));
	int ret = 0;
	unsigned int i;
	u64 s;

	*n = *m;
	for (i = 0; i < nr; i++) {
		const struct ubdm_extent *e = &ext[i];
		bool inherit = false;

		if (e->tid && e->tid <= m->committed)
			goto inval;
		if (!e->tid && (e->flags & UBDM_EXT_F_REPLACE ||
				e->type == UBDM_EXT_JOURNAL))
			goto inval;
		for (s = e->lba; s < e->lba + e->len; s++) {
			struct cell c = m_cell(e, s), *old = &n->c[s];

			if (!e->tid) {
				if (m_free(n, s))
					*old = c;
				else if (old->type == UBDM_EXT_LINEAR &&
					 c.type == UBDM_EXT_LINEAR &&
					 m_same_storage(old, &c))
					old->perm |= c.perm;
				continue;
			}
			if (!m_free(n, s)) {
				if (!(e->flags & UBDM_EXT_F_REPLACE)) {
					free(n);
					return -EEXIST;
				}
				ret = 1;
				if (m_dirty(n, s) && old->touched && m_same_storage(old, &c))
					inherit = true;
			}
			*old = c;
		}
		if (!e->tid)
			continue;
		if (inherit)
			for (s = e->lba; s < e->lba + e->len; s++)
				n->c[s].touched = true;
		if (n->max_tid < e->tid)
			n->max_tid = e->tid;
		if ((inherit || e->flags & UBDM_EXT_F_TOUCHED) && n->touched_tid < e->tid)
			n->touched_tid = e->tid;
	}
	*m = *n;
	free(n);
	return ret;
inval:
	free(n);
	return -EINVAL;
}

static int m_inval(struct model *m, u64 lba, u64 len, int backing, u64 off, u64 blen)
{
	int pass;
	u64 s;

	for (pass = 0; pass < 2; pass++)
		for (s = lba; s < lba + len && s < SIZE; s++) {
			struct cell *c = &m->c[s];

			if (!c->type)
				continue;
			if (backing >= 0 && (!m_storage(c) || c->backing != backing ||
					     c->off < off || c->off - off >= blen))
				continue;
			if (pass)
				*c = (struct cell) { 0 };
			else if (m_dirty(m, s))
				return -EBUSY;
		}
	return 0;
}

/* -- the real one ---------------------------------------------------------- */

struct walk {
	struct cell c[SIZE];
	bool first[SIZE];		/* an extent begins here */
	u64 nr, nodes, leaves, prev_end;
	unsigned int depth;
	unsigned int clean;
};

static void walk_node(const struct ubdm_tlb *tlb, const struct ubdm_tlb_node *node,
		      unsigned int depth, struct walk *w)
{
	unsigned int i;
	u64 s;

	w->nodes++;
	assert_true(node->nr > 0);
	assert_false(node->dead);
	assert_false(node->frozen);
	assert_true(node->txn <= tlb->txn);
	if (node->level) {
		assert_true(node->nr <= UBDM_INNER_MAX);
		assert_true(depth || node->nr > 1);
		for (i = node->nr; i < UBDM_INNER_MAX; i++)
			assert_true(node->key[i] == U64_MAX);
		for (i = 0; i < node->nr; i++) {
			assert_int_equal(node->child[i]->level, node->level - 1);
			assert_int_equal(node->key[i], ubdm_tlb_first(node->child[i]));
			walk_node(tlb, node->child[i], depth + 1, w);
		}
		return;
	}
	w->leaves++;
	w->depth = depth + 1;
	assert_true(node->nr <= UBDM_LEAF_MAX);
	assert_int_equal(node->accessed >> node->nr, 0);
	assert_int_equal(node->touched >> node->nr, 0);
	for (i = node->nr; i < UBDM_LEAF_MAX; i++)
		assert_true(node->start[i] == U64_MAX);
	for (i = 0; i < node->nr; i++) {
		struct ubdm_tlb_ent e;

		ubdm_tlb_read_slot(tlb, node, i, &e);
		assert_true(node->tids || !node->slot[i].tid);
		assert_true(e.lba >= w->prev_end);
		assert_true(e.end > e.lba);
		assert_true(e.end <= SIZE);
		w->prev_end = e.end;
		w->nr++;
		w->clean += !e.tid;
		w->first[e.lba] = true;
		for (s = e.lba; s < e.end; s++)
			w->c[s] = (struct cell) {
				.type = e.type, .perm = e.perm,
				.backing = e.backing,
				.off = ubdm_tlb_has_storage(e.type) ?
					e.off + (s - e.lba) : e.off,
				.tid = e.tid, .touched = e.touched,
			};
	}
}

static void walk_tree(struct ubdm_tlb *tlb, struct walk *w)
{
	memset(w, 0, sizeof(*w));
	if (tlb->root)
		walk_node(tlb, tlb->root, 0, w);
	assert_int_equal(w->nr, tlb->nr);
}

static bool same_cell(const struct model *m, u64 s, const struct cell *c)
{
	const struct cell *want = &m->c[s];
	bool dirty = m_dirty(m, s);

	if (want->type != c->type)
		return false;
	if (!c->type)
		return true;
	return want->perm == c->perm && want->backing == c->backing &&
	       want->off == c->off && c->tid == (dirty ? want->tid : 0) &&
	       c->touched == (dirty && want->touched);
}

/*
 * The tree is sound and says what the model says.  may_evict: clean extents may
 * be gone, as many as tlb->evicted says; the model forgets them too.
 */
static void check(struct ubdm_tlb *tlb, struct model *m, u64 may_evict, bool merged)
{
	static struct walk w;
	u64 s, gone = 0;

	walk_tree(tlb, &w);
	assert_int_equal(tlb->committed_tid, m->committed);
	assert_int_equal(tlb->max_tid, m->max_tid);
	assert_int_equal(tlb->touched_tid, m->touched_tid);
	assert_int_equal(shim_nr_alloc, w.nodes);
	for (s = 0; s < SIZE; s++) {
		if (same_cell(m, s, &w.c[s]))
			continue;
		if (may_evict && !w.c[s].type && !m_dirty(m, s)) {
			m->c[s].type = 0;
			gone++;
			continue;
		}
		fail_msg("sector %llu: type %u perm %u off %llu tid %llu touched %d, want %u %u %llu %llu %d (committed %llu)",
			 s, w.c[s].type, w.c[s].perm, w.c[s].off, w.c[s].tid,
			 w.c[s].touched, m->c[s].type, m->c[s].perm, m->c[s].off,
			 m->c[s].tid, m->c[s].touched, m->committed);
	}
	assert_true(gone >= may_evict);	/* sectors, extents */
	for (s = 1; merged && s < SIZE; s++) {
		const struct cell *a = &w.c[s - 1], *b = &w.c[s];

		if (a->type && a->type == b->type && a->perm == b->perm &&
		    a->tid == b->tid && a->touched == b->touched &&
		    (!m_storage(a) ||
		     (a->backing == b->backing && a->off + 1 == b->off)))
			assert_false(w.first[s]);
	}
}

/* The short way says the same as the long one, or nothing. */
static void check_translate(struct ubdm_tlb *tlb, u64 lba, const struct ubdm_hit *hit)
{
	u64 left = hit->lba + hit->len - lba, nr;
	bool linear = hit->type == UBDM_EXT_LINEAR && hit->perm & UBDM_PERM_R;
	struct ubdm_hit t;

	for (nr = 1; nr <= 9; nr += 2) {
		bool found;

		rcu_read_lock();
		found = ubdm_tlb_translate(tlb, lba, nr, false, &t);
		rcu_read_unlock();
		assert_int_equal(found, linear && nr <= left);
		if (!found)
			continue;
		assert_int_equal(t.off, hit->off + (lba - hit->lba));
		assert_int_equal(t.tid, hit->tid);
		assert_int_equal(t.backing, hit->backing);
	}
}

/* Every lookup agrees with the model, and a hole is told in full. */
static void check_lookup(struct ubdm_tlb *tlb, struct model *m, u64 lba)
{
	struct ubdm_hit hit;
	u64 a, b;

	rcu_read_lock();
	ubdm_tlb_lookup(tlb, lba, &hit);
	rcu_read_unlock();
	check_translate(tlb, lba, &hit);
	assert_true(hit.lba <= lba && lba - hit.lba < hit.len);
	if (!hit.type) {
		for (a = lba; a && !m->c[a - 1].type; a--)
			;
		for (b = lba; b < SIZE && !m->c[b].type; b++)
			;
		assert_int_equal(hit.lba, a);
		assert_int_equal(hit.lba + hit.len, b == SIZE ? U64_MAX : b);
		assert_int_equal(hit.perm, 0);
		assert_int_equal(m->c[lba].type, 0);
		return;
	}
	for (a = hit.lba; a < hit.lba + hit.len; a++) {
		struct cell c = {
			.type = hit.type, .perm = hit.perm,
			.backing = hit.backing, .tid = hit.tid,
			.off = hit.off + (m_storage(&m->c[a]) ? a - hit.lba : 0),
			.touched = m_dirty(m, a) && m->c[a].touched,
		};

		assert_true(same_cell(m, a, &c));
	}
}

#endif /* TLB_MODEL_H */
