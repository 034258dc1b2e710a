// SPDX-License-Identifier: GPL-2.0-only
/*
 * The TLB with nodes as they are: lockless readers beside a writer, and what an
 * extent costs.
 */
#include <pthread.h>
#include <time.h>
#include "tlb_real.h"

/* -- readers beside a writer -------------------------------------------------- */

#define NR_READERS	3
#define ROUNDS		4000
#define SECONDS		1	/* at most, where CPUs are scarce */

/* An assert would leave the readers running: say what is wrong, then stop. */
static const char *wrong_with_writer;

#define EXPECT(c) \
	do { if (!(c)) wrong_with_writer = #c; } while (0)

static bool stop;
static u64 nr_lookups;

static time_t ends;

static bool time_left(void)
{
	return time(NULL) < ends;
}

static bool stopped(void)
{
	return __atomic_load_n(&stop, __ATOMIC_ACQUIRE);
}

static void with_readers(void *(*reader)(void *), void (*writer)(void))
{
	pthread_t th[NR_READERS];
	uintptr_t i;

	stop = false;
	wrong_with_writer = NULL;
	ends = time(NULL) + SECONDS;
	nr_lookups = 0;
	for (i = 0; i < NR_READERS; i++)
		assert_int_equal(pthread_create(&th[i], NULL, reader, (void *)i), 0);
	while (!__atomic_load_n(&nr_lookups, __ATOMIC_RELAXED))
		sched_yield();
	writer();
	__atomic_store_n(&stop, true, __ATOMIC_RELEASE);
	for (i = 0; i < NR_READERS; i++) {
		void *ret;

		pthread_join(th[i], &ret);
		if (ret)
			wrong_with_writer = ret;
	}
	if (wrong_with_writer)
		fail_msg("%s", wrong_with_writer);
	print_message("# %llu lookups beside %llu transactions\n", nr_lookups, tlb.txn);
}

/*
 * Generation g of the pair: [A, A+8) and [B, B+8) at offset g << 8, with tid g.
 * Far apart in the tree, and rising, so that a reader who sees g at A must not
 * see less at B afterwards.
 */
#define LBA_A	800
#define LBA_B	400000

static u64 generation(u64 lba)
{
	struct ubdm_hit hit;

	ubdm_tlb_lookup(&tlb, lba + 3, &hit);
	if (hit.type != UBDM_EXT_LINEAR || hit.lba != lba || hit.len != 8)
		return 0;
	return hit.off >> 8;
}

static void *pair_reader(void *arg)
{
	u64 a, b, a_then, b_then = 0, n = 0;
	void *wrong = NULL;

	(void)arg;
	while (!stopped() && !wrong) {
		rcu_read_lock();
		a = generation(LBA_A);
		b = generation(LBA_B);
		a_then = generation(LBA_A);
		/* both are always there, and at one time they were the same */
		if (!a || b < a || a_then < b || a < b_then)
			wrong = "a pair that is not of one time";
		b_then = b;
		rcu_read_unlock();
		if (!(n++ % 64))
			__atomic_fetch_add(&nr_lookups, 64, __ATOMIC_RELAXED);
	}
	return wrong;
}

static void install_pair(u64 g)
{
	struct ubdm_extent e[] = {
		ext(LBA_A, 8, g << 8, g, g > 1 ? UBDM_EXT_F_REPLACE : 0),
		ext(LBA_B, 8, g << 8, g, g > 1 ? UBDM_EXT_F_REPLACE : 0),
	};

	EXPECT(ubdm_tlb_install(&tlb, e, 2) == (g > 1));
}

static void pair_writer(void)
{
	u64 g, seed = 99;
	int i;

	for (g = 2; g < ROUNDS && time_left(); g++) {
		struct ubdm_extent e = ext((xorshift(&seed) % 50000) * 16, 8, g, 0, 0);

		install_pair(g);
		for (i = 0; i < 3; i++) {
			e.lba = (xorshift(&seed) % 50000) * 16;
			ubdm_tlb_install(&tlb, &e, 1);
			ubdm_tlb_inval_lba(&tlb, (xorshift(&seed) % 500) * 1600 + 8, 300);
		}
		if (!(g % 8))
			shim_rcu_flush();
	}
}

static void readers_see_a_transaction_whole_or_not_at_all(void **state)
{
	struct ubdm_extent e;
	u64 i;

	(void)state;
	for (i = 0; i < 50000; i++) {
		e = ext(i * 16, 8, i, 0, 0);
		if (e.lba == LBA_A || e.lba == LBA_B)
			continue;
		assert_int_equal(ubdm_tlb_install(&tlb, &e, 1), 0);
	}
	install_pair(1);
	shim_rcu_flush();
	with_readers(pair_reader, pair_writer);
}

/*
 * Slots of 16 sectors: an uncommitted extent in the first 8, clean ones coming
 * and going behind it, so that its leaf is copied all the time.
 *
 *	guest					writer
 *	lookup_write, hit.tid = g
 *	marked[i] = g
 *						reads marked[i] == g
 *						DUMP: must be touched if its tid
 *						is g still
 */
#define NR_MARKED	64

static u64 marked[NR_MARKED], must_commit_wrong;

static void *marking_reader(void *arg)
{
	u64 seed = 12345 + 77 * (uintptr_t)arg, n = 0;
	struct ubdm_hit hit;

	while (!stopped()) {
		unsigned int i = xorshift(&seed) % NR_MARKED;

		rcu_read_lock();
		hit.perm = UBDM_PERM_W;
		if (!(n % 2) || !ubdm_tlb_translate(&tlb, i * 16 + 2, 2, true, &hit))
			ubdm_tlb_lookup_write(&tlb, i * 16 + 2, &hit);
		rcu_read_unlock();
		if (hit.tid && hit.perm & UBDM_PERM_W) {
			__atomic_store_n(&marked[i], hit.tid, __ATOMIC_SEQ_CST);
			if (__atomic_load_n(&tlb.touched_tid, __ATOMIC_SEQ_CST) < hit.tid)
				__atomic_store_n(&must_commit_wrong, 1, __ATOMIC_RELAXED);
		}
		if (!(n++ % 64))
			__atomic_fetch_add(&nr_lookups, 64, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void fresh_slots(u64 tid)
{
	struct ubdm_extent e[NR_MARKED];
	unsigned int i;

	/* other storage, so that the marks of before do not count */
	for (i = 0; i < NR_MARKED; i++)
		e[i] = ext(i * 16, 8, tid << 20 | i << 8, tid + i,
			   tid > 1 ? UBDM_EXT_F_REPLACE : 0);
	EXPECT(ubdm_tlb_install(&tlb, e, NR_MARKED) >= 0);
}

static void check_marks(void)
{
	struct ubdm_extent e[4 * NR_MARKED];
	u64 was[NR_MARKED], lba = 0;
	unsigned int i, n;

	for (i = 0; i < NR_MARKED; i++)
		was[i] = __atomic_load_n(&marked[i], __ATOMIC_SEQ_CST);
	n = ubdm_tlb_dump(&tlb, &lba, true, e, ARRAY_SIZE(e));
	EXPECT(lba == U64_MAX);
	EXPECT(n >= NR_MARKED);
	for (i = 0; i < n; i++) {
		u64 slot = e[i].lba / 16;

		/* lookups were at sector 2 of the slot; it may be split since */
		if (was[slot] == e[i].tid && e[i].lba % 16 < 6)
			EXPECT(e[i].flags & UBDM_EXT_F_TOUCHED);
	}
}

static void marking_writer(void)
{
	u64 round, i, seed = 4711;

	for (round = 1; round < ROUNDS && time_left(); round++) {
		u64 tid = round * 1000;

		fresh_slots(tid);
		for (i = 0; i < 6; i++) {
			struct ubdm_extent e = ext((xorshift(&seed) % NR_MARKED) * 16 + 8,
						   4, round << 10 | i, 0, 0);

			ubdm_tlb_install(&tlb, &e, 1);
			if (i == 2) {	/* cuts the slot's last two sectors off */
				e.lba -= 2;
				e.len = 2;
				e.tid = tid + 900;
				e.flags = UBDM_EXT_F_REPLACE;
				EXPECT(ubdm_tlb_install(&tlb, &e, 1) == 1);
			}
			if (i == 4)
				ubdm_tlb_inval_backing(&tlb, 1, 0, round << 9);
			check_marks();
		}
		if (!(round % 16))
			shim_rcu_flush();
	}
	EXPECT(must_commit_wrong == 0);
}

static void a_mark_that_was_set_is_in_every_later_dump(void **state)
{
	(void)state;
	memset(marked, 0, sizeof(marked));
	fresh_slots(1);
	with_readers(marking_reader, marking_writer);
}

/* -- what it costs -------------------------------------------------------------- */

#define NR_EXTENTS	200000

static u64 fill_up(unsigned int how)
{
	u64 i, at, seed = 1;
	struct ubdm_extent e;

	for (i = 0; i < NR_EXTENTS; i++) {
		switch (how) {
		case 0:
			at = i;
			break;
		case 1:
			at = NR_EXTENTS - 1 - i;
			break;
		case 2:			/* a permutation: the step is coprime */
			at = i * 123457 % NR_EXTENTS;
			break;
		case 3:			/* runs, each in a middle and backwards */
			at = i / 1000 * 1000 * 77 % NR_EXTENTS + 999 - i % 1000;
			break;
		default:
			at = xorshift(&seed) % (1 << 19);
			break;
		}
		e = ext(at * 4, 2, i * 64, 0, 0);
		assert_int_equal(ubdm_tlb_install(&tlb, &e, 1), 0);
		if (!(i % 1024))
			shim_rcu_flush();
	}
	shim_rcu_flush();
	return tlb.nr;
}

static void an_extent_costs_at_most_100_bytes(void **state)
{
	static const char *const names[] = {
		"ascending", "descending", "scattered", "runs", "random",
	};
	unsigned int how;

	for (how = 0; how < ARRAY_SIZE(names); how++) {
		u64 nr = fill_up(how), bytes = shim_nr_alloc * UBDM_NODE_BYTES / nr;
		struct timespec a, b;
		struct ubdm_hit hit;
		u64 seed = 5;
		int i;

		clock_gettime(CLOCK_MONOTONIC, &a);
		for (i = 0; i < 100000; i++) {
			rcu_read_lock();
			ubdm_tlb_lookup(&tlb, xorshift(&seed) % (nr * 4), &hit);
			rcu_read_unlock();
		}
		clock_gettime(CLOCK_MONOTONIC, &b);
		print_message("# %s: %llu extents, %llu bytes each, %ld ns a random lookup\n",
			      names[how], nr, bytes,
			      ((b.tv_sec - a.tv_sec) * 1000000000L + b.tv_nsec -
			       a.tv_nsec) / 100000);
		/* runs split leaves where they begin: half full at worst */
		assert_true(bytes <= (how == 3 ? 110 : 100));
		tlb_teardown(state);
		tlb_setup(state);
	}
}

/* Thinned out, the tree gives nodes back. */
static void a_thinned_tree_does_not_keep_its_nodes(void **state)
{
	u64 i;

	(void)state;
	fill_up(2);
	for (i = 0; i < NR_EXTENTS; i++) {
		if (i % 50)
			assert_int_equal(ubdm_tlb_inval_lba(&tlb, i * 4, 2), 0);
		if (!(i % 1024))
			shim_rcu_flush();
	}
	shim_rcu_flush();
	assert_int_equal(tlb.nr, NR_EXTENTS / 50);
	print_message("# 1 of 50 left: %llu bytes each\n",
		      (u64)shim_nr_alloc * UBDM_NODE_BYTES / tlb.nr);
	assert_true(shim_nr_alloc * UBDM_NODE_BYTES / tlb.nr <= 200);
}

#define T(f) cmocka_unit_test_setup_teardown(f, tlb_setup, tlb_teardown)

/* As in the driver: a node that was let go is soon another one. */
static int keeping_setup(void **state)
{
	int ret = tlb_setup(state);

	spare_max = 64;
	return ret;
}

#define KEEPING(f) { #f ", nodes used again", f, keeping_setup, tlb_teardown, NULL }

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(readers_see_a_transaction_whole_or_not_at_all),
		KEEPING(readers_see_a_transaction_whole_or_not_at_all),
		T(a_mark_that_was_set_is_in_every_later_dump),
		KEEPING(a_mark_that_was_set_is_in_every_later_dump),
		T(an_extent_costs_at_most_100_bytes),
		T(a_thinned_tree_does_not_keep_its_nodes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
