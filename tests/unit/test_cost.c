// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_cost.c - the fdatasyncs of each kind of FLUSH, those of the mapper and
 * those of the kernel, held to rule 20.
 */
#include "trial.h"

/* ---- rule 20: what a FLUSH costs ---- */

static void nothing(void)
{
}

/* The kernel does not know that the mapper's fdatasync was good for it too. */
static void mappers_flush(void)
{
	put(300, 1, 0x20);
	flush();
}

static void overwrite(void)
{
	put(100, 2, 0x21);
}

static void alloc_over_zeros(void)
{
	put(350, 2, 0x22);
}

static void alloc_many(void)
{
	assert_int_equal(rec_write(dev, SECT(400), SECT(20), 0x23, false), 0);
}

static void alloc_with_a_table(void)
{
	put(511, 1, 0x24);
	put(512, 1, 0x24);
}

static void over_zero_entry(void)
{
	put(G_ZERO, 1, 0x25);
}

static void zeroes(void)
{
	assert_int_equal(rec_zeroes(dev, SECT(G_DATA), CRAFT_SECTORS, false), 0);
}

static void zeroes_in_part(void)
{
	assert_int_equal(rec_zeroes(dev, SECT(G_DATA) + 1, 2, false), 0);
}

static void discard(void)
{
	assert_int_equal(rec_discard(dev, SECT(G_DATA2), CRAFT_SECTORS), 0);
}

static void read_only(void)
{
	char buf[512];

	fdev_evict(dev, 100);
	assert_int_equal(fdev_read(dev, buf, SECT(G_PACKED), 1), 0);
}

static void copy(void)
{
	put(G_PACKED, 1, 0x26);
}

static void kept(void)
{
	put(G_ZERO_ALLOC, 1, 0x27);
}

static void place(void)
{
	put(G_PACKED, CRAFT_SECTORS, 0x28);
	fdev_settle(dev);
}

/* An fdatasync of the background, in between. */
static void refill(void)
{
	unsigned int before = rec.nr;

	work();
	assert_true(syncs_since(before) > 0);
}

static void covered_copy(void)
{
	copy();
	refill();
}

static void covered_place(void)
{
	place();
	refill();
}

static void mixed(void)
{
	overwrite();
	alloc_over_zeros();
	zeroes();
	copy();
}

static void fua(unsigned int guest, unsigned int sectors)
{
	assert_int_equal(rec_write(dev, SECT(guest), sectors, 0x29, true), 0);
}

static void fua_overwrite(void)
{
	fua(100, 2);
}

static void fua_over_zeros(void)
{
	fua(350, 2);
}

static void fua_copy(void)
{
	fua(G_PACKED, 1);
}

static const struct cost {
	const char *what;
	void (*with)(void);
	unsigned int mapper, kernel;	/* fdatasyncs of each */
	bool itself;			/* no FLUSH follows */
} costs[] = {
	{ "a FUA overwrite", fua_overwrite, 0, 1, true },
	{ "a FUA write over zeros", fua_over_zeros, 1, 0, true },
	{ "a FUA write that copies", fua_copy, 2, 0, true },
	{ "nothing", nothing, 0, 0, false },
	{ "one by the mapper", mappers_flush, 0, 1, false },
	{ "reads", read_only, 0, 0, false },
	{ "an overwrite", overwrite, 0, 1, false },
	{ "a cluster over zeros", alloc_over_zeros, 1, 0, false },
	{ "clusters over zeros", alloc_many, 1, 0, false },
	{ "clusters of two tables", alloc_with_a_table, 1, 0, false },
	{ "a cluster over an entry of zeros", over_zero_entry, 1, 0, false },
	{ "zeroes", zeroes, 1, 0, false },
	{ "zeroes over part of a cluster", zeroes_in_part, 1, 0, false },
	{ "a discard", discard, 1, 0, false },
	{ "a copy", copy, 2, 0, false },
	{ "zeros that kept their place", kept, 2, 0, false },
	{ "a PLACE", place, 2, 0, false },
	{ "a copy and an fdatasync since", covered_copy, 1, 0, false },
	{ "a PLACE and an fdatasync since", covered_place, 1, 0, false },
	{ "some of all", mixed, 2, 0, false },
};

static unsigned int by_mapper, by_kernel;

static void count_syncs(const struct sp_file *f, enum sp_io_op op, const void *buf,
			uint64_t off, uint64_t len)
{
	(void)buf; (void)off; (void)len;
	by_mapper += f && op == SP_IO_SYNC;
	by_kernel += !f && op == SP_IO_SYNC;
}

static void a_flush_costs_what_rule_20_says(void **state)
{
	unsigned int i;

	(void)state;
	for (i = 0; i < sizeof(costs) / sizeof(costs[0]); i++) {
		const struct cost *c = &costs[i];

		begin();
		put(100, CRAFT_SECTORS, 1);
		/* Something to reclaim, for those who want the background busy. */
		assert_int_equal(rec_zeroes(dev, SECT(G_DATA2), CRAFT_SECTORS, true), 0);
		put(101, CRAFT_SECTORS, 1);
		flush();
		assert_int_equal(rec_zeroes(dev, SECT(101), CRAFT_SECTORS, false), 0);
		flush();		/* the mapper's */
		flush();		/* the kernel's: now there is nothing */
		by_mapper = by_kernel = 0;
		if (c->itself)
			rec_after = count_syncs;
		c->with();
		rec_after = count_syncs;
		if (!c->itself)
			flush();
		if (by_mapper != c->mapper || by_kernel != c->kernel)
			fail_msg("%s: %u fdatasyncs of the mapper, %u of the kernel",
				 c->what, by_mapper, by_kernel);
		/* Once more, there is nothing for the mapper. */
		flush();
		assert_int_equal(by_mapper, c->mapper);
		finish();
	}
}

int main(void)
{
	const struct CMUnitTest cost[] = {
		TEST(a_flush_costs_what_rule_20_says),
	};

	return RUN_TRIALS(cost);
}
