// SPDX-License-Identifier: GPL-2.0-only
/*
 * The fault table against a list of bios that knows where each must be.
 */
#define SHIM_IMPLEMENTATION
#include <stdarg.h>
#include <stdio.h>
#include <setjmp.h>
#include <cmocka.h>
#include "../../kernel/fault.c"

#define SIZE	4001		/* sectors; not whole granules */
#define SHIFT	2
#define GRANULE	(1 << SHIFT)
#define NR_BIOS	300
#define NR_TAGS	(UBDM_FAULT_TAGS + 2)

/* A bio and what the test knows of it. */
struct tbio {
	struct bio bio;
	bool parked;
	bool overflowed;
	u8 kind;
	unsigned int tries;
	u64 born;		/* when it was parked */
	u64 tid;
	unsigned int met;	/* in this check */
};

static struct ubdm_ftab t;
static struct tbio bios[NR_BIOS];
static u64 now, delivered_at[NR_TAGS], rng;

static u32 rnd(u32 n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (rng >> 11) % n;
}

static int setup(void **state)
{
	(void)state;
	memset(bios, 0, sizeof(bios));
	now = 0;
	ubdm_ftab_init(&t, SIZE);
	t.granule_shift = SHIFT;
	t.epoch = 7;
	spin_lock(&t.lock);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	spin_unlock(&t.lock);
	return 0;
}

static struct tbio *tb(struct bio *bio)
{
	return container_of(bio, struct tbio, bio);
}

/* -- all that must hold at any time ---------------------------------------- */

static unsigned int meet_list(struct bio_list *l, bool overflow)
{
	struct bio *bio, *last = NULL;
	unsigned int n = 0;
	u64 born = 0;

	bio_list_for_each(bio, l) {
		struct tbio *b = tb(bio);

		assert_true(b->parked);
		assert_int_equal(b->met++, 0);
		assert_int_equal(bio_tries(bio), b->tries);
		assert_int_equal(bio_kind(bio), b->kind);
		b->overflowed |= overflow;
		if (overflow || !b->overflowed) {
			assert_true(b->born > born);
			born = b->born;
		}
		last = bio;
		n++;
	}
	assert_ptr_equal(last, l->tail);
	return n;
}

static void check(void)
{
	unsigned int used = 0, other = 0, parked = 0, i, n, queued = 0, held = 0;
	struct ubdm_faultp *f;
	struct rb_node *node;
	u64 end = 0, u;

	for (i = 0; i < NR_BIOS; i++)
		bios[i].met = 0;
	for (node = rb_first(&t.ranges); node; node = rb_next(node)) {
		f = rb_entry(node, struct ubdm_faultp, node);
		assert_true(f->state != UBDM_FS_FREE);
		assert_true(f->start >= end && f->end > f->start);
		assert_int_equal(f->start % GRANULE, 0);
		assert_true(!(f->end % GRANULE) || f->end == SIZE);
		assert_true(f->end <= SIZE);
		end = f->end;
		used++;
		other += f->kind != UBDM_FAULT_READ;
	}
	assert_int_equal(used, t.nr_used);
	assert_int_equal(other, t.nr_used_other);
	assert_true(other <= UBDM_FAULT_TAGS - UBDM_FAULT_TAGS_READ);

	for_each_fault(&t, f, i) {
		struct bio *bio;

		if (f->state == UBDM_FS_FREE) {
			used += i < TAG_FLUSH;
			continue;
		}
		n = meet_list(&f->waiters, false);
		assert_int_equal(n, f->nr_waiters);
		assert_true(n || f->state == UBDM_FS_PLACING);
		parked += n;
		queued += f->state == UBDM_FS_QUEUED;
		held += f->state == UBDM_FS_HELD;
		assert_int_equal(!!f->cookie, f->state == UBDM_FS_DELIVERED);
		bio_list_for_each(bio, &f->waiters) {
			u64 s = bio->bi_iter.bi_sector & ~(u64)(GRANULE - 1);

			if (f->kind == UBDM_FAULT_FLUSH) {
				assert_true(f->tid >= tb(bio)->tid);
				assert_int_equal(tb(bio)->kind, UBDM_FAULT_FLUSH);
				if (f->state == UBDM_FS_DELIVERED)
					assert_true(tb(bio)->born < delivered_at[i]);
				continue;
			}
			assert_true(s >= f->start && s < f->end);
			assert_true(f->want_start <= bio->bi_iter.bi_sector);
			assert_true(f->want_end >= bio_end_sector(bio));
			assert_true(f->tries >= tb(bio)->tries);
		}
		if (f->waiters.head && f->state < UBDM_FS_PLACING)
			assert_int_equal(f->kind, tb(f->waiters.head)->kind);
	}
	assert_int_equal(used, UBDM_FAULT_TAGS);	/* FREE or in the tree */
	list_for_each_entry(f, &t.queued, link) {
		assert_int_equal(f->state, UBDM_FS_QUEUED);
		queued--;
	}
	list_for_each_entry(f, &t.held, link) {
		assert_int_equal(f->state, UBDM_FS_HELD);
		held--;
	}
	assert_int_equal(queued, 0);
	assert_int_equal(held, 0);
	/* One FLUSH with the mapper, one that gathers, never more. */
	for (i = 0; i < 2; i++)
		if (t.flush[i].state == UBDM_FS_GATHERING)
			assert_true(t.flush[!i].state == UBDM_FS_DELIVERED ||
				    t.flush[!i].state == UBDM_FS_HELD);
	assert_true(t.flush[0].state < UBDM_FS_QUEUED ||
		    t.flush[1].state < UBDM_FS_QUEUED);

	parked += meet_list(&t.overflow_read, true);
	parked += meet_list(&t.overflow, true);
	if (t.overflow_read.head)
		assert_int_equal(t.nr_used, UBDM_FAULT_TAGS);
	if (t.overflow.head)
		assert_true(t.nr_used == UBDM_FAULT_TAGS ||
			    other == UBDM_FAULT_TAGS - UBDM_FAULT_TAGS_READ);
	assert_int_equal(parked, t.nr_parked);
	for (i = 0, u = 0; i < NR_BIOS; i++) {
		assert_int_equal(bios[i].met, bios[i].parked);
		u += bios[i].parked;
	}
	assert_int_equal(u, t.nr_parked);
}

/* -- operations that keep the list of bios up to date ----------------------- */

static int park(struct tbio *b, u8 kind, u64 start, unsigned int len)
{
	int ret;

	b->bio.bi_iter.bi_sector = start;
	b->bio.bi_iter.bi_size = len << 9;
	b->kind = kind;
	b->born = ++now;
	b->parked = true;
	b->overflowed = false;
	b->bio.bi_next = NULL;
	spin_unlock(&t.lock);
	if (kind == UBDM_FAULT_FLUSH)
		ret = ubdm_ftab_park_flush(&t, &b->bio, b->tid = rnd(1000));
	else
		ret = ubdm_ftab_park(&t, &b->bio, kind);
	spin_lock(&t.lock);
	if (ret < 0) {
		assert_int_equal(ret, -EIO);
		assert_int_equal(b->tries, UBDM_FAULT_TRIES);
		b->parked = false;
	} else {
		assert_true(b->tries < UBDM_FAULT_TRIES);
		assert_true(!ret || ubdm_ftab_pending(&t));
	}
	return ret;
}

static struct tbio *new_bio(void)
{
	unsigned int i;

	for (i = 0; i < NR_BIOS; i++)
		if (!bios[i].parked) {
			ubdm_bio_own(&bios[i].bio);
			bios[i].tries = 0;
			bios[i].bio.bi_opf = 0;
			return &bios[i];
		}
	return NULL;
}

static struct tbio *park_new(u8 kind, u64 start, unsigned int len)
{
	struct tbio *b = new_bio();

	assert_non_null(b);
	assert_true(park(b, kind, start, len) >= 0);
	return b;
}

static struct ubdm_faultp *deliver(struct ubdm_fault *d)
{
	struct ubdm_faultp *f = ubdm_ftab_next(&t, d);
	struct bio *front;

	if (!f)
		return NULL;
	front = ubdm_ftab_front(f);
	delivered_at[tag_of(&t, f)] = ++now;
	assert_true(d->cookie && d->cookie >> 32 == t.epoch);
	assert_ptr_equal(ubdm_ftab_find(&t, d->cookie), f);
	assert_int_equal(d->kind, f->kind);
	assert_int_equal(d->nr_waiters, f->nr_waiters);
	assert_int_equal(d->tries, f->tries);
	if (f->kind == UBDM_FAULT_FLUSH) {
		assert_null(ubdm_ftab_find_pos(&t, d->cookie & 0x7fffffff));
		assert_int_equal(d->tid, f->tid);
		return f;
	}
	assert_ptr_equal(ubdm_ftab_find_pos(&t, UBDM_FAULT_POS(d->cookie, 5) >> 32), f);
	assert_int_equal(d->lba, front->bi_iter.bi_sector);
	assert_int_equal(d->len, bio_sectors(front));
	assert_true(d->want_lba <= d->lba);
	assert_true(d->want_lba + d->want_len >= d->lba + d->len);
	return f;
}

static void take_out(struct bio_list *out, bool reset, unsigned int more)
{
	struct bio *bio;

	while ((bio = bio_list_pop(out))) {
		struct tbio *b = tb(bio);

		assert_true(b->parked);
		b->parked = false;
		b->tries = reset ? 0 : b->tries + more;
		assert_int_equal(bio_tries(bio), b->tries);
	}
}

static void end(struct ubdm_faultp *f, bool progress)
{
	struct bio *want[NR_BIOS], *bio;
	struct bio_list out;
	unsigned int n = 0, i = 0;
	int ret;

	bio_list_init(&out);
	bio_list_for_each(bio, &f->waiters)
		want[n++] = bio;
	ret = ubdm_ftab_end(&t, f, progress, &out);
	assert_int_equal(ret, ubdm_ftab_pending(&t));
	bio_list_for_each(bio, &out)
		assert_ptr_equal(bio, want[i++]);
	assert_int_equal(i, n);
	take_out(&out, progress, 1);
}

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

/* -- random operations ------------------------------------------------------ */

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

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

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
		T(the_oldest_wait_is_found_over_a_wrapping_clock),
		T(reads_do_not_wait_for_space_behind_a_write),
		T(space_is_waited_for_so_long_however_often_asked),
		T(a_stall_is_a_wait_for_an_answer_and_names_the_oldest),
		T(the_longest_wait_counts_from_the_attach),
		T(cookies_stay_distinct_when_their_number_wraps),
		T(killing_spares_the_place_in_flight),
	};

	rng = 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
