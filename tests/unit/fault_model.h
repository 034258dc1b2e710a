/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fault_model.h - the fault table, and a list of bios that knows where each must be.
 *
 * Every operation here keeps that list up to date; check() holds the table to it.
 */
#ifndef FAULT_MODEL_H
#define FAULT_MODEL_H

#define SHIM_IMPLEMENTATION
#include <stdarg.h>
#include <stdio.h>
#include <setjmp.h>
#include <cmocka.h>
#include "../../kernel/fault.c"
#include "xorshift.h"

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
static u64 now, delivered_at[NR_TAGS];

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

/* -- a test ------------------------------------------------------------------ */

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#endif /* FAULT_MODEL_H */
