// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_sweep.c - the N-th allocation fails, then the N-th I/O, for N = 1, 2, ...
 * until the scenario passes untouched.
 *
 * Who is short of memory or space has to wait, not to fail.  After each: what a
 * request said is true (an error: old or new, sector by
 * sector; success: new), the image opens again, contains what had been flushed,
 * and after that clean end `qemu-img check` finds nothing.  qemu-img is asked at every
 * few N only, unless SWEEP_ALL is set.
 */
#include "util.h"
#include "cm.h"
#include "craft.h"
#include "failalloc.h"
#include "fakedev.h"
#include "history.h"
#include "io.h"

#define SECT(guest)	((uint64_t)(guest) * CRAFT_SECTORS)
#define GUEST		CRAFT_GUEST

static unsigned int io_in;
static int io_error;
static bool io_stays;		/* broken from the N-th on */
static bool io_broken;

static int failing_hook(const struct sp_file *f, enum sp_io_op op, const void *buf,
			uint64_t off, uint64_t len)
{
	(void)f; (void)buf; (void)off; (void)len;
	if (io_error == -ENOSPC && op != SP_IO_WRITE && op != SP_IO_ZERO && op != SP_IO_TRUNCATE)
		return 0;
	if (io_broken && io_stays)
		return io_error;
	if (io_in && !--io_in) {
		io_broken = true;
		return io_error;
	}
	return 0;
}

/* The kernel's own, once. */
static unsigned int data_in;

static int failing_data(const void *data, uint64_t off, uint64_t len)
{
	(void)data; (void)off; (void)len;
	return data_in && !--data_in ? -EIO : 0;
}

static struct history h;
static struct fdev *dev;
static struct sp_err err;
static char buf[32 * CRAFT_CLUSTER];
static bool qemu;

static uint64_t seed = 3;
static bool tiny;		/* clusters of 512: tables and blocks come anew */

#define TINY_SECT	2048

static void make_tiny(void)
{
	size_t len;
	char *image;

	if (access(in_scratch("tiny.qcow2"), F_OK))
		assert_int_equal(sh("qemu-img create -f qcow2 -o cluster_size=512,refcount_bits=64 tiny.qcow2 %u",
				    TINY_SECT * 512), 0);
	image = read_file(in_scratch("tiny.qcow2"), &len);
	write_file(in_scratch("img.qcow2"), image, len);
	free(image);
	free(h.s);
	hist_init(&h, TINY_SECT);
	hist_set(&h, 0, TINY_SECT, 0);
}

static void make(void)
{
	struct craft c;
	unsigned int i;

	unlink(in_scratch("img.qcow2"));
	if (tiny) {
		make_tiny();
		return;
	}

	craft_new(&c);
	/* A second L2 table has yet to be made; its cluster is data instead. */
	craft_be64(&c, AT(CR_L1) + 8, 0);
	craft_be64(&c, craft_l2(9), AT(CR_L2B) | QC_COPIED);
	craft_backing(&c, "base", 4, "raw");
	write_file(in_scratch("img.qcow2"), c.buf, c.size);
	free(c.buf);
	memset(buf, 0x77, sizeof(buf));
	write_file(in_scratch("base"), buf, 20 * CRAFT_CLUSTER + 512);
	free(h.s);
	hist_init(&h, SECT(GUEST));
	for (i = 0; i < 20; i++)
		hist_set(&h, SECT(i), CRAFT_SECTORS, 0x77);
	hist_set(&h, SECT(20), 1, 0x77);
	hist_set(&h, SECT(G_DATA), CRAFT_SECTORS, 0x11);
	hist_set(&h, SECT(G_ZERO), 2 * CRAFT_SECTORS, 0);
	hist_set(&h, SECT(G_PACKED), CRAFT_SECTORS, 0x33);
	hist_set(&h, SECT(G_DATA2), CRAFT_SECTORS, 0x55);
	hist_set(&h, SECT(9), CRAFT_SECTORS, 0);
}

static void check_range(uint64_t lba, uint64_t len, bool must_read, bool crashed)
{
	uint64_t i;
	int rc;

	for (; len; lba += i, len -= i) {
		uint64_t part = len < 64 ? len : 64;

		rc = fdev_read(dev, buf, lba, part);
		if (rc && !must_read)
			return;
		if (rc)
			fail_msg("reading %llu: %s", (unsigned long long)lba, strerror(-rc));
		for (i = 0; i < part; i++)
			if (!hist_allows(&h, lba + i, buf + i * 512, crashed))
				fail_msg("sector %llu is %02x", (unsigned long long)(lba + i),
					 buf[i * 512] & 0xff);
	}
}

static void check_all(bool must_read, bool crashed)
{
	if (tiny) {
		check_range(0, TINY_SECT, must_read, crashed);
		return;
	}
	check_range(0, SECT(24), must_read, crashed);
	check_range(SECT(505), SECT(30), must_read, crashed);
	check_range(SECT(1000), SECT(24), must_read, crashed);
}

static unsigned int errors;		/* that requests ended with */

static void put(uint64_t lba, uint64_t len, uint8_t v, bool fua)
{
	int rc;

	memset(buf, v, len * 512);
	rc = fdev_write(dev, buf, lba, len, fua);
	hist_change(&h, lba, len, v, rc);
	errors += rc != 0;
}

static void zeroes(uint64_t lba, uint64_t len)
{
	int rc = fdev_zeroes(dev, lba, len, false);

	hist_change(&h, lba, len, 0, rc);
	errors += rc != 0;
}

static void flush(void)
{
	if (!fdev_flush(dev))
		hist_flush(&h);
	else
		errors++;
}

/* Touches every kind of thing the engine does. */
static void body(void)
{
	check_range(0, SECT(12), false, false);
	put(SECT(G_PACKED) + 1, 2, 0xa1, false);	/* copy of a compressed one */
	put(SECT(G_NONE) + 3, 1, 0xa2, false);		/* copy from below */
	put(SECT(10), CRAFT_SECTORS, 0xa3, false);	/* no copy */
	put(SECT(G_ZERO_ALLOC), 1, 0xa4, false);	/* stale storage */
	put(SECT(600) + 7, 20, 0xa5, false);		/* a new table */
	flush();
	put(SECT(G_DATA), 3, 0xa6, true);		/* in place, FUA */
	put(SECT(8) + 4, 40, 0xa7, true);		/* a few kinds at once, FUA */
	fdev_discard(dev, SECT(G_DATA2), CRAFT_SECTORS);
	hist_change(&h, SECT(G_DATA2), CRAFT_SECTORS, 0, true);
	zeroes(SECT(18) + 2, 20);
	sp_work(fdev_image(dev));
	put(SECT(G_DATA2) + 1, 1, 0xa8, false);
	flush();
	fdev_evict(dev, 60);
	put(SECT(1010), 60, 0xa9, false);
	check_all(false, false);
}

/* The refcount table moves, blocks and tables are made. */
static void body_tiny(void)
{
	put(5, 1, 0xa1, false);
	put(64 * 7 + 3, 70, 0xa2, false);
	flush();
	put(1500, 200, 0xa3, true);
	zeroes(1510, 20);
	sp_work(fdev_image(dev));
	put(1000, 1, 0xa4, false);
	check_all(false, false);
}

enum what { ALLOCS, IOS, KERNELS };

static bool attach;

/*
 * A mapper that cannot take over leaves the kernel as it was; the next one does,
 * and nothing is missing.
 */
static int attach_at_last(void)
{
	int rc = fdev_reattach(dev, &err);

	if (!rc)
		return 0;
	fail_alloc_on = false;
	sp_io_hook = NULL;
	rc = fdev_reattach(dev, &err);
	if (rc)
		fail_msg("no mapper can take over any more: %s", err.msg);
	return rc;
}

/* False: it passed untouched. */
static bool round_n(unsigned int n, enum what what)
{
	struct fdev_opts o = { .path = in_scratch("img.qcow2"), .format = "qcow2", .seed = seed,
			       .late = 20, .work = 20, .untaken = 20 };
	bool crashed = true, hit;
	int rc;

	make();
	errors = 0;
	fail_alloc_in = what == ALLOCS ? n : 0;
	io_in = what == IOS ? n : 0;
	data_in = what == KERNELS ? n : 0;
	io_broken = false;
	sp_io_hook = failing_hook;
	fdev_data_hook = failing_data;
	fail_alloc_on = true;
	rc = fdev_open(&dev, &o, &err);
	if (!rc) {
		if (tiny)
			body_tiny();
		else
			body();
		if (attach)
			attach_at_last();
		check_all(false, false);
		crashed = fdev_finish(dev, &err);
	}
	fail_alloc_on = false;
	sp_io_hook = NULL;
	fdev_data_hook = NULL;
	hit = what == ALLOCS ? !fail_alloc_in : what == IOS ? io_broken : !data_in;
	data_in = 0;
	/* A full disk is waited for, and so is memory. */
	if (errors && (what == ALLOCS || (what == IOS && io_error == -ENOSPC)))
		fail_msg("after failure %u requests fail", n);
	if (!crashed && qemu && (n % 4 == 3 || getenv("SWEEP_ALL")) &&
	    sh("qemu-img check -f qcow2 img.qcow2"))
		fail_msg("after failure %u its end is not clean", n);
	/* Again, in a world without trouble. */
	rc = fdev_open(&dev, &o, &err);
	if (rc)
		fail_msg("after failure %u it cannot be opened: %s", n, err.msg);
	check_all(true, crashed);
	/* What a crash leaked is tidied up with the first write. */
	memset(buf, 0xfe, 512);
	if (fdev_write(dev, buf, tiny ? TINY_SECT - 8 : SECT(700), 1, false))
		fail_msg("after failure %u it cannot be written to", n);
	rc = fdev_finish(dev, &err);
	if (rc)
		fail_msg("after failure %u it cannot be finished: %s", n, err.msg);
	if (qemu && (n % 8 == 1 || !hit || getenv("SWEEP_ALL")) &&
	    sh("qemu-img check -f qcow2 img.qcow2"))
		fail_msg("after failure %u qemu-img check finds something", n);
	return hit;
}

/* With skip the first ones one by one, then one in some. */
static void sweep(enum what what, bool with_attach, bool skip)
{
	unsigned int n, tried = 0;

	attach = with_attach;
	if (getenv("SWEEP_ALL"))
		skip = false;
	if (getenv("SWEEP_N")) {
		round_n(strtoul(getenv("SWEEP_N"), NULL, 0), what);
		return;
	}
	for (n = 1; round_n(n, what); n += skip ? 1 + n / 10 : 1)
		tried++;
	print_message("# %u failures, each survived\n", tried);
}

static void each_allocation_may_fail(void **state)
{
	(void)state;
	sweep(ALLOCS, false, false);
}

static void each_allocation_may_fail_with_an_attach(void **state)
{
	(void)state;
	sweep(ALLOCS, true, false);
}

static void io_fails(int error, bool stays, bool with_attach)
{
	io_error = error;
	io_stays = stays;
	sweep(IOS, with_attach, tiny);
}

static void each_io_may_fail_once(void **state)
{
	(void)state;
	io_fails(-EIO, false, false);
}

static void each_io_may_fail_once_with_an_attach(void **state)
{
	(void)state;
	io_fails(-EIO, false, true);
}

static void each_io_may_find_no_space_once(void **state)
{
	(void)state;
	io_fails(-ENOSPC, false, false);
}

static void each_io_may_find_no_space_once_with_an_attach(void **state)
{
	(void)state;
	io_fails(-ENOSPC, false, true);
}

static void the_disk_may_break_at_each_io(void **state)
{
	(void)state;
	io_fails(-EIO, true, false);
}

static void the_disk_may_break_at_each_io_until_the_attach(void **state)
{
	(void)state;
	io_fails(-EIO, true, true);
}

static void each_io_of_the_kernel_may_fail_once(void **state)
{
	(void)state;
	sweep(KERNELS, false, false);
}

static unsigned int full_for;
static uint64_t longest;

static int cannot_grow(const struct sp_file *f, enum sp_io_op op, const void *data,
		       uint64_t off, uint64_t len)
{
	(void)data; (void)len;
	if (op != SP_IO_TRUNCATE || strcmp(f->path, in_scratch("img.qcow2")))
		return 0;
	if (off > longest)
		longest = off;
	return full_for && full_for-- ? -ENOSPC : 0;
}

/* Those who ask often get more at a time; not those who were refused. */
static void a_full_disk_is_not_asked_for_more_each_time(void **state)
{
	struct fdev_opts o = { .path = in_scratch("img.qcow2"), .format = "qcow2", .seed = 1 };
	unsigned int i;

	(void)state;
	make();
	full_for = 8;
	longest = 0;
	sp_io_hook = cannot_grow;
	assert_int_equal(fdev_open(&dev, &o, &err), 0);
	for (i = 0; full_for && i < 100; i++)
		put(SECT(600 + i), 1, 1, false);
	assert_int_equal(full_for, 0);
	if (longest > 8 << 20)
		fail_msg("%llu bytes are asked for", (unsigned long long)longest);
	assert_int_equal(fdev_finish(dev, &err), 0);
	sp_io_hook = NULL;
}

static void tables_that_grow(void (*test)(void **state))
{
	if (!qemu)
		skip();
	tiny = true;
	test(NULL);
	tiny = false;
}

static void each_io_may_fail_while_tables_grow(void **state)
{
	(void)state;
	tables_that_grow(each_io_may_fail_once);
}

static void each_io_may_find_no_space_while_tables_grow(void **state)
{
	(void)state;
	tables_that_grow(each_io_may_find_no_space_once);
}

static void the_disk_may_break_while_tables_grow(void **state)
{
	(void)state;
	tables_that_grow(the_disk_may_break_at_each_io_until_the_attach);
}

static void each_allocation_may_fail_while_tables_grow(void **state)
{
	(void)state;
	if (!qemu)
		skip();
	tiny = true;
	sweep(ALLOCS, false, true);
	tiny = false;
}

static int untiny(void **state)
{
	(void)state;
	tiny = false;
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_allocation_may_fail),
		cmocka_unit_test(each_allocation_may_fail_with_an_attach),
		cmocka_unit_test(each_io_may_fail_once),
		cmocka_unit_test(each_io_may_fail_once_with_an_attach),
		cmocka_unit_test(each_io_may_find_no_space_once),
		cmocka_unit_test(each_io_may_find_no_space_once_with_an_attach),
		cmocka_unit_test(the_disk_may_break_at_each_io),
		cmocka_unit_test(the_disk_may_break_at_each_io_until_the_attach),
		cmocka_unit_test(each_io_of_the_kernel_may_fail_once),
		cmocka_unit_test(a_full_disk_is_not_asked_for_more_each_time),
		cmocka_unit_test_teardown(each_allocation_may_fail_while_tables_grow, untiny),
		cmocka_unit_test_teardown(each_io_may_fail_while_tables_grow, untiny),
		cmocka_unit_test_teardown(each_io_may_find_no_space_while_tables_grow, untiny),
		cmocka_unit_test_teardown(the_disk_may_break_while_tables_grow, untiny),
	};
	const char *only = getenv("ONLY");

	if (getenv("SEED"))
		seed = strtoull(getenv("SEED"), NULL, 0);
	scratch_make();
	qemu = have("qemu-img");
	if (only)
		cmocka_set_test_filter(only);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
