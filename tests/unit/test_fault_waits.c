// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_fault_waits.c - how long bios have waited, and for whom: the mapper, its next,
 * or space below.
 */
#include "fault_model.h"

static void the_oldest_wait_is_found_over_a_wrapping_clock(void **state)
{
	unsigned long since;
	struct ubdm_fault d;
	struct ubdm_faultp *f;

	(void)state;
	assert_false(ubdm_ftab_oldest(&t, &since));
	jiffies = -5UL;
	park_new(UBDM_FAULT_READ, 0, 8);
	jiffies = 5;
	park_new(UBDM_FAULT_READ, 80, 8);
	assert_true(ubdm_ftab_oldest(&t, &since));
	assert_int_equal(since, -5UL);
	f = deliver(&d);
	ubdm_ftab_hold(&t, f, jiffies + 10);
	assert_true(ubdm_ftab_oldest(&t, &since));
	assert_int_equal(since, 5);
	assert_int_equal(ubdm_ftab_unhold(&t, jiffies + 9, false), 0);
	assert_int_equal(ubdm_ftab_unhold(&t, jiffies + 10, false), 1);
	assert_true(ubdm_ftab_oldest(&t, &since));
	assert_int_equal(since, -5UL);
}

static void reads_do_not_wait_for_space_behind_a_write(void **state)
{
	struct bio_list reads;
	struct ubdm_fault d;
	struct ubdm_faultp *f;
	struct tbio *w, *r, *w2;

	(void)state;
	bio_list_init(&reads);
	jiffies = 100;
	w = park_new(UBDM_FAULT_WRITE, 0, 8);
	r = park_new(UBDM_FAULT_READ, 0, 4);
	w2 = park_new(UBDM_FAULT_WRITE, 0, 4);
	f = deliver(&d);
	assert_false(ubdm_ftab_wants_space(&t));
	ubdm_ftab_want_space(&t, f, jiffies, &reads);
	ubdm_ftab_hold(&t, f, jiffies + 10);
	assert_ptr_equal(bio_list_pop(&reads), &r->bio);
	assert_true(bio_list_empty(&reads));
	r->parked = false;
	check();
	assert_int_equal(t.nr_parked, 2);
	assert_ptr_equal(ubdm_ftab_front(f), &w->bio);
	assert_true(ubdm_ftab_wants_space(&t));
	/* Asked again, it still waits for space; answered, it does not. */
	ubdm_ftab_unhold(&t, jiffies, true);
	assert_true(ubdm_ftab_wants_space(&t));
	f = deliver(&d);
	assert_int_equal(d.nr_waiters, 2);
	end(f, true);
	assert_false(w->parked || w2->parked);
	assert_false(ubdm_ftab_wants_space(&t));
	/* The tag's next user starts afresh. */
	park_new(UBDM_FAULT_WRITE, 0, 8);
	assert_false(ubdm_ftab_wants_space(&t));
}

static void space_is_waited_for_so_long_however_often_asked(void **state)
{
	struct bio_list none, flushes, out;
	struct ubdm_fault d;
	struct ubdm_faultp *f;
	struct tbio *w, *flush, *other;
	unsigned int i;

	(void)state;
	bio_list_init(&none);
	bio_list_init(&flushes);
	bio_list_init(&out);
	jiffies = -20UL;
	w = park_new(UBDM_FAULT_WRITE, 0, 8);
	flush = park_new(UBDM_FAULT_FLUSH, 0, 0);
	other = park_new(UBDM_FAULT_WRITE, 80, 8);
	for (i = 0; i < 5; i++) {
		while ((f = deliver(&d))) {
			if (d.lba != 80 || d.kind == UBDM_FAULT_FLUSH)
				ubdm_ftab_want_space(&t, f, jiffies, &none);
			ubdm_ftab_hold(&t, f, jiffies + 5);
		}
		ubdm_ftab_expire_space(&t, jiffies, 30, &flushes, &out);
		assert_true(bio_list_empty(&flushes) && bio_list_empty(&out));
		jiffies += 5;
		ubdm_ftab_unhold(&t, jiffies, false);
	}
	while ((f = deliver(&d)))
		ubdm_ftab_hold(&t, f, jiffies + 50);
	jiffies += 5;
	ubdm_ftab_expire_space(&t, jiffies, 30, &flushes, &out);
	assert_ptr_equal(bio_list_pop(&out), &w->bio);
	assert_ptr_equal(bio_list_pop(&flushes), &flush->bio);
	assert_true(bio_list_empty(&flushes) && bio_list_empty(&out));
	w->parked = false;
	flush->parked = false;
	check();
	assert_true(other->parked);
	assert_false(ubdm_ftab_wants_space(&t));
}

static void a_stall_is_a_wait_for_an_answer_and_names_the_oldest(void **state)
{
	struct bio_list none;
	struct ubdm_fault d;
	struct ubdm_faultp *f;

	(void)state;
	bio_list_init(&none);
	jiffies = -3UL;
	assert_false(ubdm_ftab_stalled(&t, jiffies, 10, &d));
	park_new(UBDM_FAULT_WRITE, 80, 8);
	jiffies = 4;
	park_new(UBDM_FAULT_READ, 160, 4);
	assert_false(ubdm_ftab_stalled(&t, 6, 10, &d));
	assert_true(ubdm_ftab_stalled(&t, 7, 10, &d));
	assert_int_equal(d.want_lba, 80);
	assert_int_equal(d.want_len, 8);
	assert_int_equal(d.kind, UBDM_FAULT_WRITE);
	/* What the mapper holds, and what waits for space, it has answered. */
	while ((f = deliver(&d))) {
		if (d.kind == UBDM_FAULT_WRITE)
			ubdm_ftab_want_space(&t, f, jiffies, &none);
		ubdm_ftab_hold(&t, f, 1000);
	}
	assert_false(ubdm_ftab_stalled(&t, 500, 10, &d));
	ubdm_ftab_unhold(&t, 500, true);
	assert_true(ubdm_ftab_stalled(&t, 500, 10, &d));
	assert_int_equal(d.want_lba, 160);
}

static void the_longest_wait_counts_from_the_attach(void **state)
{
	struct ubdm_fault d;

	(void)state;
	jiffies = -10UL;
	park_new(UBDM_FAULT_READ, 0, 8);
	deliver(&d);
	ubdm_ftab_requeue(&t, 8, 0);
	jiffies = 20;
	end(deliver(&d), true);
	assert_int_equal(t.longest, 30);
	park_new(UBDM_FAULT_READ, 0, 8);
	jiffies = 25;
	end(deliver(&d), true);
	assert_int_equal(t.longest, 30);
	ubdm_ftab_requeue(&t, 9, 0);
	assert_int_equal(t.longest, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(the_oldest_wait_is_found_over_a_wrapping_clock),
		T(reads_do_not_wait_for_space_behind_a_write),
		T(space_is_waited_for_so_long_however_often_asked),
		T(a_stall_is_a_wait_for_an_answer_and_names_the_oldest),
		T(the_longest_wait_counts_from_the_attach),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
