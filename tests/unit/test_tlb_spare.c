// SPDX-License-Identifier: GPL-2.0-only
/*
 * Nodes that were let go: when they are taken again, and how many are kept.
 */
#include "tlb_real.h"

#define KEPT	4

static int spare_setup(void **state)
{
	int ret = tlb_setup(state);

	spare_max = KEPT;
	return ret;
}

static struct ubdm_tlb_node *get(void)
{
	struct ubdm_tlb_node *node = ubdm_spare_get(GFP_NOIO);

	assert_non_null(node);
	return node;
}

/* All that is kept, so that the next one has to be allocated. */
static unsigned int take_all(struct ubdm_tlb_node **node)
{
	unsigned int n = 0;
	long before;

	for (;; n++) {
		before = shim_nr_alloc;
		node[n] = get();
		if (shim_nr_alloc > before)
			break;
	}
	kfree(node[n]);
	return n;
}

static void not_while_a_reader_may_be_in_it(void **state)
{
	struct ubdm_tlb_node *node = get(), *other;

	(void)state;
	rcu_read_lock();
	ubdm_spare_retire(node);
	other = ubdm_spare_get(GFP_NOWAIT);
	assert_ptr_not_equal(other, node);
	rcu_read_unlock();

	assert_ptr_equal(get(), node);
	kfree(node);
	kfree(other);
}

/* Readers that come later are none of its business. */
static void a_later_reader_keeps_nothing(void **state)
{
	struct ubdm_tlb_node *node = get();

	(void)state;
	ubdm_spare_retire(node);
	rcu_read_lock();
	assert_ptr_equal(ubdm_spare_get(GFP_NOWAIT), node);
	rcu_read_unlock();
	kfree(node);
}

/* Two are let go in one grace period: the second needs another one. */
static void the_next_grace_period_is_asked_for(void **state)
{
	struct ubdm_tlb_node *one = get(), *two = get(), *three = get();

	(void)state;
	rcu_read_lock();
	ubdm_spare_retire(one);		/* asks */
	rcu_read_unlock();
	rcu_read_lock();
	ubdm_spare_retire(two);		/* the first has ended */
	rcu_read_unlock();
	ubdm_spare_retire(three);
	assert_ptr_equal(get(), one);
	assert_ptr_equal(get(), two);
	assert_ptr_equal(get(), three);
	kfree(one);
	kfree(two);
	kfree(three);
}

static void no_more_are_kept_than_may_be(void **state)
{
	struct ubdm_tlb_node *node[3 * KEPT];
	unsigned int i;

	(void)state;
	for (i = 0; i < 3 * KEPT; i++)
		node[i] = get();
	for (i = 0; i < 2 * KEPT; i++)
		ubdm_spare_retire(node[i]);
	for (; i < 3 * KEPT; i++)
		ubdm_spare_put(node[i]);
	shim_rcu_flush();
	assert_int_equal(shim_nr_alloc, KEPT);
	assert_int_equal(take_all(node), KEPT);
	for (i = 0; i < KEPT; i++)
		kfree(node[i]);
}

/* It goes to the front: nobody can have seen it. */
static void one_that_was_never_seen_is_taken_at_once(void **state)
{
	struct ubdm_tlb_node *seen = get(), *unseen = get();

	(void)state;
	rcu_read_lock();
	ubdm_spare_retire(seen);
	ubdm_spare_put(unseen);
	assert_ptr_equal(ubdm_spare_get(GFP_NOWAIT), unseen);
	rcu_read_unlock();
	assert_ptr_equal(get(), seen);

	/* And the list has an end behind it. */
	ubdm_spare_put(unseen);
	ubdm_spare_retire(seen);
	assert_ptr_equal(get(), unseen);
	assert_ptr_equal(get(), seen);
	kfree(seen);
	kfree(unseen);
}

/* What it is for. */
static void a_tlb_that_changes_all_the_time_allocates_nothing(void **state)
{
	u64 i, seed = 1;
	long before = 0;

	(void)state;
	for (i = 0; i < 3000; i++) {
		struct ubdm_extent e = ext((i < 1000 ? i : xorshift(&seed) % 1000) * 8, 8, i * 8, 0,
					   UBDM_EXT_F_REPLACE);

		ubdm_tlb_install(&tlb, &e, 1);
		if (i == 2000) {
			before = shim_nr_alloc;
			shim_fail_at = 1;
			shim_fail_every = 1;
		}
	}
	shim_fail_at = 0;
	shim_fail_every = 0;
	assert_int_equal(shim_nr_alloc, before);
}

#define T(f) cmocka_unit_test_setup_teardown(f, spare_setup, tlb_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(not_while_a_reader_may_be_in_it),
		T(a_later_reader_keeps_nothing),
		T(the_next_grace_period_is_asked_for),
		T(no_more_are_kept_than_may_be),
		T(one_that_was_never_seen_is_taken_at_once),
		T(a_tlb_that_changes_all_the_time_allocates_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
