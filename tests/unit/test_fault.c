// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_fault.c - the fault table: random operations against the list of bios, then
 * who shares a fault, who gets a tag, and what is told to the mapper.
 */
#include "fault_model.h"

/* -- random operations ------------------------------------------------------ */

static struct ubdm_faultp *any_in(enum ubdm_fault_state state)
{
	unsigned int i, at = rnd(NR_TAGS);

	for (i = 0; i < NR_TAGS; i++) {
		struct ubdm_faultp *f = fault_of(&t, (at + i) % NR_TAGS);

		if (f->state == state)
			return f;
	}
	return NULL;
}

static void step(unsigned int readers, unsigned int parks)
{
	static u64 stale[16];
	static unsigned int nr_stale;
	struct ubdm_faultp *f;
	struct ubdm_fault d;
	struct bio_list out;
	struct tbio *b;
	struct bio *bio;
	unsigned int i;

	bio_list_init(&out);
	if (rnd(100) < parks) {
		u64 s = rnd(4) ? rnd(SIZE) : rnd(20);
		u8 kind = rnd(100) < readers ? UBDM_FAULT_READ :
				UBDM_FAULT_WRITE + rnd(3);

		if (rnd(3)) {
			b = &bios[rnd(NR_BIOS)];	/* again, with its tries */
			if (b->parked)
				return;
			if (b->tries == UBDM_FAULT_TRIES || !b->born) {
				ubdm_bio_own(&b->bio);
				b->tries = 0;
			}
		} else {
			b = new_bio();
			if (!b)
				return;
		}
		if (!rnd(12))
			park(b, UBDM_FAULT_FLUSH, 0, 0);
		else
			park(b, kind, s, 1 + rnd(min_t(u64, SIZE - s,
						       rnd(3) ? 3 : 60)));
		return;
	}
	switch (rnd(11)) {
	case 0:
	case 1:
	case 2:
		deliver(&d);
		f = rnd(8) ? NULL : any_in(UBDM_FS_DELIVERED);
		if (f) {
			stale[nr_stale++ % 16] = f->cookie;
			ubdm_ftab_undeliver(&t, f);
		}
		return;
	case 3:
	case 4:
	case 5:
		f = any_in(UBDM_FS_DELIVERED);
		if (!f)
			return;
		stale[nr_stale++ % 16] = f->cookie;
		if (rnd(3)) {
			end(f, rnd(2));
			return;
		}
		bio = ubdm_ftab_front(f);
		assert_ptr_equal(ubdm_ftab_pop(&t, f), bio);
		assert_null(bio->bi_next);
		tb(bio)->parked = false;
		end(f, true);
		return;
	case 6:
		f = any_in(UBDM_FS_DELIVERED);
		if (!f)
			return;
		stale[nr_stale++ % 16] = f->cookie;
		ubdm_ftab_hold(&t, f, jiffies + rnd(50));
		return;
	case 7:
		f = any_in(UBDM_FS_DELIVERED);
		if (!f || f->kind != UBDM_FAULT_WRITE)
			return;
		stale[nr_stale++ % 16] = f->cookie;
		tb(ubdm_ftab_pop(&t, f))->parked = false;
		ubdm_ftab_place(&t, f, &t);
		assert_ptr_equal(f->priv, &t);
		return;
	case 8:
		f = any_in(UBDM_FS_PLACING);
		if (f)
			end(f, rnd(2));
		return;
	case 9:
		jiffies += rnd(40);
		ubdm_ftab_unhold(&t, jiffies, !rnd(10));
		list_for_each_entry(f, &t.held, link)
			assert_true(time_before(jiffies, f->due));
		return;
	case 10:
		for (i = 0; i < 16; i++) {
			assert_null(ubdm_ftab_find(&t, stale[i]));
			assert_null(ubdm_ftab_find_pos(&t, stale[i] & 0x7fffffff));
			assert_null(ubdm_ftab_find(&t, ((u64)rnd(1u << 31) << 33) |
						       rnd(1u << 31)));
		}
		if (!rnd(20)) {
			unsigned int queued = ubdm_ftab_pending(&t) ||
				any_in(UBDM_FS_DELIVERED) || any_in(UBDM_FS_HELD);

			assert_int_equal(ubdm_ftab_requeue(&t, t.epoch + 1, 1500),
					 queued);
			assert_null(any_in(UBDM_FS_DELIVERED));
			assert_null(any_in(UBDM_FS_HELD));
			for (i = 0; i < 2; i++)
				assert_true(t.flush[i].state == UBDM_FS_FREE ||
					    t.flush[i].tid >= 1500);
		}
		if (!rnd(100)) {
			unsigned int placing = 0;

			for_each_fault(&t, f, i)
				if (f->state == UBDM_FS_PLACING)
					placing += f->nr_waiters;
			ubdm_ftab_kill(&t, &out);
			assert_int_equal(t.nr_parked, placing);
			take_out(&out, false, 0);
		}
		return;
	}
}

static void no_bio_is_lost_or_doubled(void **state)
{
	const char *s = getenv("UBDM_SEED");
	u64 seed = s ? strtoull(s, NULL, 0) : 1, last = s ? seed : 6;
	bool full_read = false, full = false;
	unsigned int i;

	for (; seed <= last; seed++) {
		print_message("seed %llu\n", seed);
		rng = seed * 0x9e3779b97f4a7c15ULL + 1;
		for (i = 0; i < 12000; i++) {
			step(20 + 10 * seed, i / 2000 % 2 ? 40 : 90);
			check();
			full_read |= !!t.overflow_read.head;
			full |= !!t.overflow.head;
		}
		teardown(state);
		setup(state);
	}
	assert_true(s || (full && full_read));
}

/* -- single claims ---------------------------------------------------------- */

static void waiters_of_a_granule_share_a_fault_in_order(void **state)
{
	struct tbio *a, *b, *c;
	struct ubdm_fault d;
	struct ubdm_faultp *f;

	(void)state;
	a = park_new(UBDM_FAULT_READ, 9, 1);
	b = park_new(UBDM_FAULT_WRITE, 8, 2);
	c = park_new(UBDM_FAULT_DISCARD, 11, 40);
	f = deliver(&d);
	assert_null(deliver(&d));
	assert_int_equal(f->kind, UBDM_FAULT_READ);
	assert_int_equal(d.want_lba, 8);
	assert_int_equal(d.want_len, 43);
	assert_int_equal(d.nr_waiters, 3);
	assert_ptr_equal(ubdm_ftab_pop(&t, f), &a->bio);
	assert_ptr_equal(ubdm_ftab_pop(&t, f), &b->bio);
	assert_ptr_equal(ubdm_ftab_pop(&t, f), &c->bio);
}

static void a_fault_ends_where_the_next_begins(void **state)
{
	struct ubdm_fault d;
	struct ubdm_faultp *f;

	(void)state;
	park_new(UBDM_FAULT_READ, 40, 4);
	park_new(UBDM_FAULT_READ, 7, 400);
	deliver(&d);
	f = deliver(&d);
	assert_int_equal(f->start, 4);
	assert_int_equal(f->end, 40);
	assert_int_equal(d.lba, 7);
	assert_int_equal(d.len, 400);
	/* what the front request wants is told in full */
	assert_int_equal(d.want_lba + d.want_len, 407);
	check();
}

static void reads_find_a_tag_however_many_writes_are_held(void **state)
{
	struct ubdm_fault d;
	struct ubdm_faultp *f;
	unsigned int i, n = 0;

	(void)state;
	for (i = 0; i < 200; i++)
		park_new(UBDM_FAULT_WRITE, i * GRANULE, 1);
	while ((f = deliver(&d))) {
		ubdm_ftab_hold(&t, f, jiffies + 1000);
		n++;
	}
	assert_int_equal(n, UBDM_FAULT_TAGS - UBDM_FAULT_TAGS_READ);
	for (i = 0; i < UBDM_FAULT_TAGS_READ; i++) {
		park_new(UBDM_FAULT_READ, (210 + i) * GRANULE, 1);
		check();
	}
	for (i = 0; i < UBDM_FAULT_TAGS_READ; i++) {
		f = deliver(&d);
		assert_int_equal(d.kind, UBDM_FAULT_READ);
	}
	assert_null(deliver(&d));
	/* one answered: the tag is for the next read, not for a waiting write */
	park_new(UBDM_FAULT_READ, 245 * GRANULE, 1);
	end(f, true);
	deliver(&d);
	assert_int_equal(d.kind, UBDM_FAULT_READ);
	assert_int_equal(d.lba, 245 * GRANULE);
	check();
}

static void writes_get_a_turn_however_many_reads_come(void **state)
{
	struct ubdm_fault d;
	struct ubdm_faultp *f;
	unsigned int i, writes = 0;

	(void)state;
	for (i = 0; i < 200; i++)
		park_new(UBDM_FAULT_READ, i * GRANULE, 1);
	for (i = 0; i < 5; i++)
		park_new(UBDM_FAULT_WRITE, (220 + i) * GRANULE, 1);
	for (i = 0; i < 12; i++) {
		f = deliver(&d);
		end(f, true);
	}
	for_each_fault(&t, f, i)
		writes += f->state != UBDM_FS_FREE && f->kind == UBDM_FAULT_WRITE;
	assert_int_equal(writes, 5);
}

static void a_flush_that_comes_after_delivery_waits_for_the_next_round(void **state)
{
	struct tbio *late;
	struct ubdm_faultp *f, *g;
	struct ubdm_fault d;

	(void)state;
	park_new(UBDM_FAULT_FLUSH, 0, 0);
	park_new(UBDM_FAULT_FLUSH, 0, 0);
	f = deliver(&d);
	assert_int_equal(d.nr_waiters, 2);
	late = park_new(UBDM_FAULT_FLUSH, 0, 0);
	park_new(UBDM_FAULT_FLUSH, 0, 0);
	assert_false(ubdm_ftab_pending(&t));
	end(f, true);
	assert_true(late->parked);
	g = deliver(&d);
	assert_int_equal(d.nr_waiters, 2);
	assert_ptr_equal(ubdm_ftab_front(g), &late->bio);
	assert_null(deliver(&d));
}

static void an_undelivered_flush_takes_the_gathering_one_along(void **state)
{
	struct ubdm_faultp *f;
	struct ubdm_fault d;
	struct tbio *first;

	(void)state;
	first = park_new(UBDM_FAULT_FLUSH, 0, 0);
	f = deliver(&d);
	park_new(UBDM_FAULT_FLUSH, 0, 0);
	ubdm_ftab_requeue(&t, 8, 4242);
	check();
	assert_null(ubdm_ftab_find(&t, d.cookie));
	f = deliver(&d);
	assert_int_equal(d.nr_waiters, 2);
	assert_int_equal(d.tid, 4242);
	assert_ptr_equal(ubdm_ftab_front(f), &first->bio);
	assert_null(deliver(&d));
}

static void a_bio_without_progress_fails_after_so_many_tries(void **state)
{
	struct tbio *b = new_bio();
	struct ubdm_fault d;
	unsigned int i;

	(void)state;
	for (i = 0; i < UBDM_FAULT_TRIES; i++) {
		assert_int_equal(park(b, UBDM_FAULT_READ, 5, 2), 1);
		end(deliver(&d), false);
		assert_int_equal(d.tries, i);
	}
	assert_int_equal(park(b, UBDM_FAULT_READ, 5, 2), -EIO);
	assert_int_equal(t.nr_parked, 0);

	ubdm_bio_own(&b->bio);
	b->tries = 0;
	for (i = 0; i < 3 * UBDM_FAULT_TRIES; i++) {
		assert_int_equal(park(b, UBDM_FAULT_READ, 5, 2), 1);
		end(deliver(&d), i % 50 == 49);
	}
}

static void a_bio_that_nobody_owned_counts_as_new(void **state)
{
	struct tbio *b = new_bio();
	struct ubdm_fault d;

	(void)state;
	ubdm_bio_disown(&b->bio);
	assert_int_equal(park(b, UBDM_FAULT_FLUSH, 0, 0), 1);
	deliver(&d);
	assert_int_equal(d.tries, 0);
	b = new_bio();
	ubdm_bio_disown(&b->bio);
	assert_int_equal(park(b, UBDM_FAULT_WRITE, 8, 8), 1);
	end(deliver(&d), false);
	assert_int_equal(park(b, UBDM_FAULT_WRITE, 8, 8), 1);
	deliver(&d);
	assert_int_equal(d.tries, 1);
}

static void a_sequential_stream_is_told_from_random_access(void **state)
{
	struct ubdm_fault d;
	u64 lba = 0;
	unsigned int i;

	(void)state;
	t.size = 1ULL << 40;
	for (i = 0; i < 20; i++) {
		park_new(UBDM_FAULT_READ, 64 + lba, 8);
		end(deliver(&d), true);
		assert_int_equal(d.seq, lba);
		lba += 8 + (i > 5 ? 16 : 0);	/* 16 were mapped ahead */
		park_new(UBDM_FAULT_READ, (1ULL << 30) + ((u64)rnd(1 << 20) << 12), 8);
		end(deliver(&d), true);
		assert_int_equal(d.seq, 0);
	}
}

static void flags_tell_fua_and_nounmap_of_the_front_request(void **state)
{
	struct ubdm_fault d;
	struct tbio *b = new_bio();

	(void)state;
	b->bio.bi_opf = REQ_FUA | REQ_NOUNMAP;
	park(b, UBDM_FAULT_WRITE, 0, 8);
	deliver(&d);
	assert_int_equal(d.flags, UBDM_FAULT_F_FUA);
	b = new_bio();
	b->bio.bi_opf = REQ_FUA | REQ_NOUNMAP;
	park(b, UBDM_FAULT_ZEROES, 80, 8);
	deliver(&d);
	assert_int_equal(d.flags, UBDM_FAULT_F_NOUNMAP);
}

static void cookies_stay_distinct_when_their_number_wraps(void **state)
{
	struct ubdm_fault d;
	u64 was;

	(void)state;
	t.seq = 0xfffffffe;
	t.epoch = 0;
	park_new(UBDM_FAULT_READ, 0, 8);
	park_new(UBDM_FAULT_READ, 80, 8);
	deliver(&d);
	was = d.cookie;
	deliver(&d);
	assert_true(was != d.cookie);
	assert_non_null(ubdm_ftab_find(&t, was));
	assert_null(ubdm_ftab_find(&t, 0));
	assert_null(ubdm_ftab_find_pos(&t, 0));
	assert_null(ubdm_ftab_find(&t, U64_MAX));
}

static void killing_spares_the_place_in_flight(void **state)
{
	struct bio_list out;
	struct ubdm_fault d;
	struct ubdm_faultp *f;
	struct tbio *front, *behind;

	(void)state;
	bio_list_init(&out);
	front = park_new(UBDM_FAULT_WRITE, 0, 8);
	behind = park_new(UBDM_FAULT_WRITE, 0, 8);
	f = deliver(&d);
	assert_ptr_equal(ubdm_ftab_pop(&t, f), &front->bio);
	front->parked = false;
	ubdm_ftab_place(&t, f, NULL);
	assert_null(ubdm_ftab_find(&t, d.cookie));
	park_new(UBDM_FAULT_FLUSH, 0, 0);
	park_new(UBDM_FAULT_READ, 80, 8);
	ubdm_ftab_kill(&t, &out);
	take_out(&out, false, 0);
	check();
	assert_int_equal(t.nr_parked, 1);
	assert_true(behind->parked);
	end(f, true);
	assert_int_equal(t.nr_parked, 0);
	check();
}

static void killing_spares_what_is_pinned(void **state)
{
	struct tbio *front, *other;
	struct bio_list out;
	struct ubdm_fault d;
	struct ubdm_faultp *f;

	(void)state;
	bio_list_init(&out);
	front = park_new(UBDM_FAULT_WRITE, 0, 8);
	f = deliver(&d);
	other = park_new(UBDM_FAULT_WRITE, 80, 8);
	f->pinned = true;
	ubdm_ftab_kill(&t, &out);
	take_out(&out, false, 0);
	assert_true(front->parked);
	assert_false(other->parked);
	assert_ptr_equal(ubdm_ftab_find(&t, d.cookie), f);
	f->pinned = false;
	ubdm_ftab_kill(&t, &out);
	take_out(&out, false, 0);
	assert_false(front->parked);
	assert_int_equal(t.nr_parked, 0);
	check();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(no_bio_is_lost_or_doubled),
		T(waiters_of_a_granule_share_a_fault_in_order),
		T(a_fault_ends_where_the_next_begins),
		T(reads_find_a_tag_however_many_writes_are_held),
		T(writes_get_a_turn_however_many_reads_come),
		T(a_flush_that_comes_after_delivery_waits_for_the_next_round),
		T(an_undelivered_flush_takes_the_gathering_one_along),
		T(a_bio_without_progress_fails_after_so_many_tries),
		T(a_bio_that_nobody_owned_counts_as_new),
		T(a_sequential_stream_is_told_from_random_access),
		T(flags_tell_fua_and_nounmap_of_the_front_request),
		T(cookies_stay_distinct_when_their_number_wraps),
		T(killing_spares_the_place_in_flight),
		T(killing_spares_what_is_pinned),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
