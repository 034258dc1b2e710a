// SPDX-License-Identifier: GPL-2.0-only
/*
 * The TLB against the model, with nodes so small that every split, merge and
 * change of height happens often.
 */
#define UBDM_LEAF_MAX	6
#define UBDM_INNER_MAX	6
#define UBDM_TLB_DEPTH	16
#include "tlb_model.h"

static struct model model;

static int setup(void **state)
{
	memset(&model, 0, sizeof(model));
	shim_fail_at = 0;
	return tlb_setup(state);
}

/* -- random operations ------------------------------------------------------ */

/* What a run does: percent of each operation, and of transactions. */
struct mix {
	u64 max;
	unsigned int ops, inval, commit, touch, evict, oom;
	unsigned int dirty, replace, maxlen;
	bool merged;
};

static unsigned int rnd_extents(struct ubdm_extent *e, const struct mix *mix)
{
	unsigned int n = 0, want = 1 + rnd(rnd(4) ? 3 : 12);
	u64 lba = rnd(SIZE);
	u64 tid = model.max_tid + 1;

	for (; n < want && lba < SIZE; n++) {
		struct ubdm_extent *x = &e[n];
		static const u8 types[] = { 1, 1, 1, 1, 2, 3, 4 };

		*x = (struct ubdm_extent) { .lba = lba };
		x->len = min_t(u64, 1 + rnd(mix->maxlen), SIZE - lba);
		x->type = types[rnd(ARRAY_SIZE(types))];
		if (rnd(100) < mix->dirty) {
			x->tid = rnd(30) ? tid + rnd(2) : rnd(tid) + 1;
			if (rnd(100) < mix->replace)
				x->flags |= UBDM_EXT_F_REPLACE;
			if (!rnd(4))
				x->flags |= UBDM_EXT_F_TOUCHED;
		} else if (x->type == UBDM_EXT_JOURNAL && rnd(50)) {
			x->type = UBDM_EXT_LINEAR;
		}
		if (x->type == UBDM_EXT_ZERO)
			x->perm = UBDM_PERM_R;
		if (x->type == UBDM_EXT_LINEAR)
			x->perm = UBDM_PERM_R | (rnd(2) ? UBDM_PERM_W : 0);
		if (m_storage(&(struct cell) { .type = x->type })) {
			x->backing = 1 + !rnd(3);
			/* mostly such that neighbours continue each other */
			x->off = 1000 + lba + (rnd(4) ? 0 : 7 * rnd(3));
		}
		lba += x->len + (rnd(2) ? 0 : rnd(20));
	}
	return n;
}

enum op { OP_INSTALL, OP_LBA, OP_BACKING };

struct args {
	enum op op;
	struct ubdm_extent e[16];
	unsigned int n;
	u64 start, len;
	u16 backing;
};

static int real(struct args *a)
{
	switch (a->op) {
	case OP_INSTALL:
		return ubdm_tlb_install(&tlb, a->e, a->n);
	case OP_LBA:
		return ubdm_tlb_inval_lba(&tlb, a->start, a->len);
	default:
		return ubdm_tlb_inval_backing(&tlb, a->backing, a->start, a->len);
	}
}

static int ideal(struct args *a)
{
	switch (a->op) {
	case OP_INSTALL:
		return m_install(&model, a->e, a->n);
	case OP_LBA:
		return m_inval(&model, a->start, a->len, -1, 0, 0);
	default:
		return m_inval(&model, 0, SIZE, a->backing, a->start, a->len);
	}
}

static void change(struct args *a, const struct mix *mix)
{
	bool oom = rnd(100) < mix->oom;
	static struct model before;
	u64 evicted;
	int ret, n;

	before = model;
	for (n = 1;; n++) {
		evicted = tlb.evicted;
		shim_fail_at = oom ? n : 0;
		ret = real(a);
		shim_rcu_flush();
		if (ret != -ENOMEM)
			break;
		assert_true(oom);
		assert_int_equal(shim_fail_at, 0);
		check(&tlb, &before, 0, mix->merged);
	}
	oom = oom && !shim_fail_at;	/* met by the eviction only */
	shim_fail_at = 0;
	assert_int_equal(ret, ideal(a));
	evicted = tlb.evicted - evicted;
	if (ret < 0)
		assert_int_equal(evicted, 0);
	check(&tlb, &model, evicted, mix->merged);
	if (a->op == OP_INSTALL && ret >= 0 && tlb.nr > tlb.max && !oom) {
		static struct walk w;

		walk_tree(&tlb, &w);
		assert_true(!w.clean || 3 * w.leaves > EVICT_LEAVES);
	}
}

static void touch(u64 lba)
{
	struct ubdm_hit hit, t;
	u64 s;

	check_lookup(&tlb, &model, lba);
	rcu_read_lock();
	/* Either way of looking up leaves the mark. */
	if (lba % 2 && ubdm_tlb_translate(&tlb, lba, 1, true, &t))
		ubdm_tlb_lookup(&tlb, lba, &hit);
	else
		ubdm_tlb_lookup_write(&tlb, lba, &hit);
	rcu_read_unlock();
	if (hit.type && hit.perm & UBDM_PERM_W && m_dirty(&model, lba)) {
		for (s = hit.lba; s < hit.lba + hit.len; s++)
			model.c[s].touched = true;
		model.touched_tid = max(model.touched_tid, model.c[lba].tid);
	}
}

/* Also with little room, so that it goes on where it was. */
static void check_dump(void)
{
	bool uncommitted = rnd(2);
	struct ubdm_extent e[8];
	unsigned int room = 1 + rnd(8), n, i;
	u64 lba = 0, s = 0, k;

	do {
		n = ubdm_tlb_dump(&tlb, &lba, uncommitted, e, room);
		assert_true(n == room || lba == U64_MAX);
		for (i = 0; i < n; i++) {
			for (; s < e[i].lba; s++)
				assert_true(!model.c[s].type ||
					    (uncommitted && !m_dirty(&model, s)));
			for (k = 0; k < e[i].len; k++, s++) {
				struct cell c = m_cell(&e[i], s);

				assert_true(same_cell(&model, s, &c));
				assert_true(!uncommitted || c.tid);
			}
		}
	} while (lba != U64_MAX);
	for (; s < SIZE; s++)
		assert_true(!model.c[s].type || (uncommitted && !m_dirty(&model, s)));
}

static void check_must_commit(void)
{
	bool must = false, want = model.touched_tid > model.committed;
	u64 tid = 0, s;

	for (s = 0; s < SIZE; s++)
		must |= m_dirty(&model, s) && model.c[s].touched;
	assert_true(want || !must);
	assert_int_equal(ubdm_tlb_must_commit(&tlb, &tid), want);
	if (want)
		assert_int_equal(tid, model.max_tid);
}

static void run(u64 seed, const struct mix *mix)
{
	static struct walk w;
	static unsigned int max_depth;
	unsigned int op, i;

	rng = seed * 0x9e3779b97f4a7c15ULL + 1;
	tlb.max = mix->max;
	for (op = 0; op < mix->ops; op++) {
		unsigned int what = rnd(100);
		struct args a;

		if (what < mix->inval) {
			a.op = rnd(3) ? OP_LBA : OP_BACKING;
			a.start = rnd(SIZE);
			a.len = rnd(10) ? rnd(80) : U64_MAX - rnd(600);
			a.backing = 1 + rnd(2);
			if (a.op == OP_BACKING)
				a.start += rnd(10) ? 1000 : 0;
			if (a.op == OP_LBA && a.len > SIZE)
				a.len = SIZE;
			change(&a, mix);
		} else if (what < mix->inval + mix->commit) {
			u64 tid = model.committed +
				rnd(model.max_tid - model.committed + 2);

			tid -= min_t(u64, tid, rnd(8) ? 0 : 5);
			assert_int_equal(ubdm_tlb_commit(&tlb, tid), 0);
			model.max_tid = max(model.max_tid, tid);
			model.committed = max(model.committed, tid);
			check(&tlb, &model, 0, false);
		} else if (what < mix->inval + mix->commit + mix->touch) {
			touch(rnd(SIZE));
			check(&tlb, &model, 0, mix->merged);
		} else if (what < mix->inval + mix->commit + mix->touch + mix->evict) {
			u64 evicted = tlb.evicted;
			unsigned int n;

			shim_fail_at = rnd(4) ? 0 : 1 + rnd(4);
			n = ubdm_tlb_evict(&tlb, rnd(20));
			shim_fail_at = 0;
			shim_rcu_flush();
			assert_int_equal(n, tlb.evicted - evicted);
			check(&tlb, &model, n, mix->merged);
		} else {
			a.op = OP_INSTALL;
			a.n = rnd_extents(a.e, mix);
			change(&a, mix);
		}
		for (i = 0; i < 4; i++)
			check_lookup(&tlb, &model, rnd(SIZE));
		check_must_commit();
		if (!(op % 16)) {
			check_dump();
			walk_tree(&tlb, &w);
			max_depth = max(max_depth, w.depth);
			for (i = 0; i < 3; i++) {
				bool used = false;
				u64 s;

				for (s = 0; s < SIZE; s++)
					used |= m_storage(&model.c[s]) &&
						model.c[s].backing == i;
				assert_int_equal(ubdm_tlb_uses_backing(&tlb, i), used);
			}
		}
	}
	assert_true(max_depth >= 4);
}

static void seeds(const struct mix *mix)
{
	const char *s = getenv("UBDM_SEED");
	u64 seed = s ? strtoull(s, NULL, 0) : 1, last = s ? seed : 4;

	for (; seed <= last; seed++) {
		print_message("seed %llu\n", seed);
		run(seed, mix);
		assert_int_equal(tlb_teardown(NULL), 0);
		assert_int_equal(setup(NULL), 0);
	}
}

static void clean_extents_agree_with_the_model(void **state)
{
	static const struct mix mix = {
		.max = U64_MAX, .ops = 6000, .inval = 30, .oom = 10,
		.maxlen = 8, .merged = true,
	};

	(void)state;
	seeds(&mix);
}

static void transactions_agree_with_the_model(void **state)
{
	static const struct mix mix = {
		.max = U64_MAX, .ops = 6000, .inval = 20, .commit = 5, .touch = 20,
		.oom = 10, .dirty = 50, .replace = 70, .maxlen = 12,
	};

	(void)state;
	seeds(&mix);
}

static void a_bounded_tlb_agrees_with_the_model(void **state)
{
	static const struct mix mix = {
		.max = 60, .ops = 6000, .inval = 5, .commit = 5, .touch = 10,
		.evict = 5, .oom = 5, .dirty = 20, .replace = 70, .maxlen = 3,
	};

	(void)state;
	seeds(&mix);
}

/* -- single claims --------------------------------------------------------- */

static void sequential_clean_extents_become_one(void **state)
{
	struct ubdm_extent e;
	u64 i;

	(void)state;
	for (i = 0; i < SIZE; i++) {
		e = ext(SIZE - 1 - i, 1, SIZE - 1 - i, 0, 0);
		assert_int_equal(ubdm_tlb_install(&tlb, &e, 1), 0);
		shim_rcu_flush();
		assert_int_equal(tlb.nr, 1);
	}
}

static void committed_extents_become_one_when_their_leaf_changes(void **state)
{
	struct ubdm_extent e[] = { ext(0, 8, 0, 3, 0), ext(8, 8, 8, 4, 0) };
	struct ubdm_extent more = ext(16, 8, 16, 0, 0);

	(void)state;
	assert_int_equal(ubdm_tlb_install(&tlb, e, 2), 0);
	assert_int_equal(tlb.nr, 2);
	assert_int_equal(ubdm_tlb_commit(&tlb, 4), 0);
	assert_int_equal(ubdm_tlb_install(&tlb, &more, 1), 0);
	assert_int_equal(tlb.nr, 2);	/* 8..24 and, not looked at, 0..8 */
}

static void look_up(u64 lba, struct ubdm_hit *hit)
{
	rcu_read_lock();
	ubdm_tlb_lookup(&tlb, lba, hit);
	rcu_read_unlock();
}

static void an_evicted_extent_was_not_accessed_lately(void **state)
{
	struct ubdm_hit hit;
	unsigned int i;

	(void)state;
	for (i = 0; i < 100; i++) {
		struct ubdm_extent e = ext(i * 4, 2, i, 0, 0);

		assert_int_equal(ubdm_tlb_install(&tlb, &e, 1), 0);
	}
	shim_rcu_flush();
	assert_int_equal(ubdm_tlb_evict(&tlb, 20), 20);	/* clears all bits */
	assert_int_equal(tlb.nr, 80);
	for (i = 20; i < 100; i += 2) {
		look_up(i * 4, &hit);
		assert_int_equal(hit.type, UBDM_EXT_LINEAR);
	}
	assert_int_equal(ubdm_tlb_evict(&tlb, 40), 40);
	for (i = 20; i < 100; i += 2) {
		look_up(i * 4, &hit);
		assert_int_equal(hit.type, UBDM_EXT_LINEAR);
	}
	assert_int_equal(tlb.evicted, 60);
}

static void who_was_accessed_is_known_when_others_are_gone(void **state)
{
	struct ubdm_hit hit;
	unsigned int i;

	(void)state;
	for (i = 0; i < 40; i++) {
		struct ubdm_extent e = ext(i * 4, 2, i, 0, 0);

		assert_int_equal(ubdm_tlb_install(&tlb, &e, 1), 0);
	}
	assert_int_equal(ubdm_tlb_evict(&tlb, 1), 1);	/* 0, and clears all bits */
	for (i = 3; i < 40; i += 4)
		look_up(i * 4, &hit);
	for (i = 1; i < 40; i += 4)
		assert_int_equal(ubdm_tlb_inval_lba(&tlb, i * 4, 2), 0);
	shim_rcu_flush();
	assert_int_equal(ubdm_tlb_evict(&tlb, 19), 19);
	for (i = 3; i < 40; i += 4) {
		look_up(i * 4, &hit);
		assert_int_equal(hit.type, UBDM_EXT_LINEAR);
	}
}

/* It costs a copy of its leaf to forget one; a full TLB must not do so each time. */
static void a_full_tlb_evicts_for_many_at_once(void **state)
{
	u64 lowest = U64_MAX, evicted = 0;
	unsigned int i, times = 0;

	(void)state;
	tlb.max = 640;
	for (i = 0; i < 6400; i++) {
		struct ubdm_extent e = ext(i * 7 % 6400 * 4, 2, i, 0, 0);

		assert_int_equal(ubdm_tlb_install(&tlb, &e, 1), 0);
		shim_rcu_flush();
		assert_true(tlb.nr <= 640);
		times += tlb.evicted != evicted;
		evicted = tlb.evicted;
		if (evicted)
			lowest = min(lowest, tlb.nr);
	}
	assert_in_range(times, 1, 6400 / 20);
	assert_in_range(lowest, 640 - 20, 640);
}

static void uncommitted_extents_are_never_evicted(void **state)
{
	unsigned int i;

	(void)state;
	tlb.max = 10;
	for (i = 0; i < 100; i++) {
		struct ubdm_extent e = ext(i * 4, 2, i, i + 1, 0);

		assert_int_equal(ubdm_tlb_install(&tlb, &e, 1), 0);
		shim_rcu_flush();
	}
	assert_int_equal(tlb.nr, 100);
	assert_int_equal(ubdm_tlb_evict(&tlb, 100), 0);
	assert_int_equal(ubdm_tlb_commit(&tlb, 90), 0);
	assert_int_equal(ubdm_tlb_evict(&tlb, 100), 90);
	assert_int_equal(tlb.nr, 10);
}

static void eviction_under_the_writers_lock_does_nothing(void **state)
{
	struct ubdm_extent e = ext(0, 8, 0, 0, 0);

	(void)state;
	assert_int_equal(ubdm_tlb_install(&tlb, &e, 1), 0);
	mutex_lock(&tlb.lock);
	assert_int_equal(ubdm_tlb_evict(&tlb, 1), 0);
	mutex_unlock(&tlb.lock);
	assert_int_equal(tlb.nr, 1);
}

static void a_journal_extent_permits_nothing(void **state)
{
	struct ubdm_extent e = ext(0, 8, 40, 5, 0);
	struct ubdm_hit hit;
	u64 tid;

	(void)state;
	e.type = UBDM_EXT_JOURNAL;
	assert_int_equal(ubdm_tlb_install(&tlb, &e, 1), 0);
	rcu_read_lock();
	ubdm_tlb_lookup_write(&tlb, 3, &hit);
	rcu_read_unlock();
	assert_int_equal(hit.type, UBDM_EXT_JOURNAL);
	assert_int_equal(hit.perm, 0);
	assert_int_equal(hit.off, 40);
	assert_false(ubdm_tlb_must_commit(&tlb, &tid));
}

static void a_committed_journal_extent_is_no_obstacle(void **state)
{
	struct ubdm_extent j = ext(0, 8, 40, 5, 0), e = ext(0, 8, 80, 0, 0);
	struct ubdm_hit hit;

	(void)state;
	j.type = UBDM_EXT_JOURNAL;
	assert_int_equal(ubdm_tlb_install(&tlb, &j, 1), 0);
	assert_int_equal(ubdm_tlb_install(&tlb, &e, 1), 0);
	rcu_read_lock();
	ubdm_tlb_lookup(&tlb, 0, &hit);
	assert_int_equal(hit.type, UBDM_EXT_JOURNAL);
	rcu_read_unlock();
	assert_int_equal(ubdm_tlb_commit(&tlb, 5), 0);
	assert_int_equal(ubdm_tlb_install(&tlb, &e, 1), 0);
	rcu_read_lock();
	ubdm_tlb_lookup(&tlb, 0, &hit);
	rcu_read_unlock();
	assert_int_equal(hit.type, UBDM_EXT_LINEAR);
	assert_int_equal(hit.off, 80);
}

static void a_refused_transaction_changes_nothing(void **state)
{
	struct ubdm_extent a = ext(8, 8, 8, 2, 0);
	struct ubdm_extent bad[] = { ext(0, 4, 0, 9, UBDM_EXT_F_TOUCHED),
				     ext(15, 4, 0, 9, 0) };
	u64 tid;

	(void)state;
	assert_int_equal(ubdm_tlb_install(&tlb, &a, 1), 0);
	assert_int_equal(ubdm_tlb_install(&tlb, bad, 2), -EEXIST);
	assert_int_equal(tlb.nr, 1);
	assert_int_equal(tlb.max_tid, 2);
	assert_false(ubdm_tlb_must_commit(&tlb, &tid));
	assert_int_equal(ubdm_tlb_commit(&tlb, 9), 0);
	bad[1] = ext(20, 4, 0, 10, 0);
	assert_int_equal(ubdm_tlb_install(&tlb, bad, 2), -EINVAL);
	assert_int_equal(tlb.nr, 1);
	assert_int_equal(ubdm_tlb_commit(&tlb, U64_MAX), -EINVAL);
}

/*
 *	writer					guest
 *	copies the leaf
 *						lookup_write marks the old leaf
 *	publishes
 *
 * The writer is stopped in between by doing its steps by hand.
 */
static void a_mark_set_while_the_leaf_is_copied_is_carried_over(void **state)
{
	struct ubdm_extent e = ext(0, 16, 0, 5, 0), d;
	struct ubdm_hit hit;
	struct ubdm_txn txn;
	u64 tid, lba = 0;

	(void)state;
	assert_int_equal(ubdm_tlb_install(&tlb, &e, 1), 0);
	mutex_lock(&tlb.lock);
	ubdm_txn_begin(&txn, &tlb, GFP_INSTALL);
	assert_int_equal(clear(&txn, 4, 8), 0);	/* splits it, too */
	rcu_read_lock();
	ubdm_tlb_lookup_write(&tlb, 12, &hit);
	rcu_read_unlock();
	ubdm_txn_publish(&txn);
	mutex_unlock(&tlb.lock);
	assert_int_equal(hit.lba, 0);
	assert_int_equal(hit.len, 16);
	assert_true(ubdm_tlb_must_commit(&tlb, &tid));
	assert_int_equal(ubdm_tlb_dump(&tlb, &lba, true, &d, 1), 1);
	assert_int_equal(d.flags, UBDM_EXT_F_TOUCHED);
	assert_int_equal(lba, 4);
	assert_int_equal(ubdm_tlb_dump(&tlb, &lba, true, &d, 1), 1);
	assert_int_equal(d.flags, UBDM_EXT_F_TOUCHED);
	assert_int_equal(lba, U64_MAX);
}

/* The same in an earlier moment: what is going to be copied was only looked at. */
static void a_mark_set_between_look_and_copy_is_carried_over(void **state)
{
	struct ubdm_extent e[] = { ext(0, 16, 0, 5, 0), ext(32, 16, 0, 5, 0) }, d;
	struct ubdm_tlb_ent ent;
	struct ubdm_hit hit;
	struct ubdm_txn txn;
	u64 lba = 0;

	(void)state;
	assert_int_equal(ubdm_tlb_install(&tlb, e, 2), 0);
	mutex_lock(&tlb.lock);
	ubdm_txn_begin(&txn, &tlb, GFP_INSTALL);
	assert_true(ubdm_txn_seek(&txn, 0, &ent));
	rcu_read_lock();
	ubdm_tlb_lookup_write(&tlb, 0, &hit);
	ubdm_tlb_lookup_write(&tlb, 32, &hit);
	rcu_read_unlock();
	ent.end = 12;
	assert_int_equal(ubdm_txn_set(&txn, &ent), 0);
	ubdm_txn_publish(&txn);
	mutex_unlock(&tlb.lock);
	assert_int_equal(ubdm_tlb_dump(&tlb, &lba, true, &d, 1), 1);
	assert_int_equal(d.len, 12);
	assert_int_equal(d.flags, UBDM_EXT_F_TOUCHED);
	assert_int_equal(ubdm_tlb_dump(&tlb, &lba, true, &d, 1), 1);
	assert_int_equal(d.lba, 32);
	assert_int_equal(d.flags, UBDM_EXT_F_TOUCHED);
}

/*
 * A full leaf at 0, 16, ..., and one from 96 on with room.  The second is changed, then
 * an extent goes to the first, which has none for it.
 */
static void change_then_insert_before(u64 lba)
{
	struct ubdm_tlb_ent ent, new;
	struct ubdm_txn txn;
	struct ubdm_hit hit;
	u64 i, nr = UBDM_LEAF_MAX + 3;

	for (i = 0; i < nr; i++) {
		struct ubdm_extent e = ext(i * 16, 8, i << 8, 0, 0);

		assert_int_equal(ubdm_tlb_install(&tlb, &e, 1), 0);
	}
	assert_int_equal(tlb.root->level, 1);
	assert_int_equal(tlb.root->child[0]->nr, UBDM_LEAF_MAX);

	mutex_lock(&tlb.lock);
	ubdm_txn_begin(&txn, &tlb, GFP_INSTALL);
	assert_true(ubdm_txn_seek(&txn, (nr - 1) * 16, &ent));
	new = ent;
	ent.end -= 3;
	assert_int_equal(ubdm_txn_set(&txn, &ent), 0);
	new.lba = lba;
	new.end = lba + 2;
	assert_int_equal(ubdm_txn_insert(&txn, &new), 0);
	ubdm_txn_publish(&txn);
	mutex_unlock(&tlb.lock);

	rcu_read_lock();
	ubdm_tlb_lookup(&tlb, (nr - 1) * 16, &hit);
	assert_int_equal(hit.len, 5);
	ubdm_tlb_lookup(&tlb, lba, &hit);
	assert_int_equal(hit.len, 2);
	for (i = 0; i < nr - 1; i++) {
		ubdm_tlb_lookup(&tlb, i * 16, &hit);
		assert_int_equal(hit.len, 8);
	}
	rcu_read_unlock();
}

static void a_change_stays_when_the_leaf_before_gives_it_an_extent(void **state)
{
	(void)state;
	change_then_insert_before((UBDM_LEAF_MAX - 1) * 16 + 10);
}

static void a_change_stays_when_the_leaf_before_is_evened_out(void **state)
{
	(void)state;
	change_then_insert_before(24);
}

/* Whoever brings one extent more copies one leaf, and no node above it. */
static void a_change_of_one_leaf_leaves_what_is_above(void **state)
{
	struct ubdm_tlb_node *root, *first, *last;
	struct ubdm_extent e;
	u64 i;

	(void)state;
	for (i = 0; i < UBDM_LEAF_MAX + 3; i++) {
		e = ext(i * 16, 8, i << 8, 0, 0);
		assert_int_equal(ubdm_tlb_install(&tlb, &e, 1), 0);
	}
	root = tlb.root;
	assert_int_equal(root->level, 1);
	first = root->child[0];
	last = root->child[1];

	e = ext((UBDM_LEAF_MAX + 2) * 16 + 8, 1, 7, 0, 0);
	assert_int_equal(ubdm_tlb_install(&tlb, &e, 1), 0);
	assert_int_equal(ubdm_tlb_inval_lba(&tlb, e.lba - 2, 1), 0);
	assert_ptr_equal(tlb.root, root);
	assert_ptr_equal(root->child[0], first);
	assert_ptr_not_equal(root->child[1], last);
	/* Not so where its first extent goes. */
	assert_int_equal(ubdm_tlb_inval_lba(&tlb, UBDM_LEAF_MAX * 16, 8), 0);
	assert_ptr_not_equal(tlb.root, root);
}

static void marks_survive_a_replacement_that_keeps_the_storage(void **state)
{
	struct ubdm_extent e = ext(0, 16, 0, 5, 0), d;
	struct ubdm_hit hit;
	u64 tid, lba = 0;

	(void)state;
	assert_int_equal(ubdm_tlb_install(&tlb, &e, 1), 0);
	rcu_read_lock();
	ubdm_tlb_lookup_write(&tlb, 12, &hit);
	rcu_read_unlock();
	e.tid = 6;
	e.perm = UBDM_PERM_R;
	e.flags = UBDM_EXT_F_REPLACE;
	assert_int_equal(ubdm_tlb_install(&tlb, &e, 1), 1);
	assert_int_equal(ubdm_tlb_dump(&tlb, &lba, true, &d, 1), 1);
	assert_int_equal(d.tid, 6);
	assert_int_equal(d.flags, UBDM_EXT_F_TOUCHED);
	assert_int_equal(ubdm_tlb_commit(&tlb, 5), 0);
	assert_true(ubdm_tlb_must_commit(&tlb, &tid));
	e.off = 100;
	e.tid = 7;
	assert_int_equal(ubdm_tlb_install(&tlb, &e, 1), 1);
	lba = 0;
	assert_int_equal(ubdm_tlb_dump(&tlb, &lba, true, &d, 1), 1);
	assert_int_equal(d.flags, 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, tlb_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(clean_extents_agree_with_the_model),
		T(transactions_agree_with_the_model),
		T(a_bounded_tlb_agrees_with_the_model),
		T(sequential_clean_extents_become_one),
		T(committed_extents_become_one_when_their_leaf_changes),
		T(an_evicted_extent_was_not_accessed_lately),
		T(who_was_accessed_is_known_when_others_are_gone),
		T(a_full_tlb_evicts_for_many_at_once),
		T(uncommitted_extents_are_never_evicted),
		T(eviction_under_the_writers_lock_does_nothing),
		T(a_journal_extent_permits_nothing),
		T(a_committed_journal_extent_is_no_obstacle),
		T(a_refused_transaction_changes_nothing),
		T(a_mark_set_while_the_leaf_is_copied_is_carried_over),
		T(a_mark_set_between_look_and_copy_is_carried_over),
		T(a_change_stays_when_the_leaf_before_gives_it_an_extent),
		T(a_change_stays_when_the_leaf_before_is_evened_out),
		T(a_change_of_one_leaf_leaves_what_is_above),
		T(marks_survive_a_replacement_that_keeps_the_storage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
