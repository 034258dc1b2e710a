// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_sweep.c - the N-th allocation fails, then the N-th I/O, for N = 1, 2, ...
 * until the scenario passes untouched.
 *
 * After each: what a request said is true (an error: old or new, sector by
 * sector; success: new), the image opens again, contains what had been flushed,
 * and after that clean end `qemu-img check` finds nothing.  qemu-img is asked at every
 * few N only, unless SWEEP_ALL is set.
 */
#include "util.h"
#include "cm.h"
#include "craft.h"
#include "fakedev.h"
#include "history.h"
#include "io.h"

#define SECT(guest)	((uint64_t)(guest) * CRAFT_SECTORS)
#define GUEST		CRAFT_GUEST

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t m);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t a, size_t n);
char *__real_strdup(const char *s);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t m);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t a, size_t n);
char *__wrap_strdup(const char *s);

static unsigned int alloc_in, alloc_seen;
static bool alloc_counts;

static bool alloc_fails(void)
{
	if (!alloc_counts)
		return false;
	alloc_seen++;
	return alloc_in && !--alloc_in;
}

void *__wrap_malloc(size_t n)
{
	return alloc_fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t m)
{
	return alloc_fails() ? NULL : __real_calloc(n, m);
}

void *__wrap_realloc(void *p, size_t n)
{
	return alloc_fails() ? NULL : __real_realloc(p, n);
}

void *__wrap_aligned_alloc(size_t a, size_t n)
{
	return alloc_fails() ? NULL : __real_aligned_alloc(a, n);
}

char *__wrap_strdup(const char *s)
{
	return alloc_fails() ? NULL : __real_strdup(s);
}

static unsigned int io_in, io_seen;
static int io_error;
static bool io_stays;		/* broken from the N-th on */
static bool io_broken;

static int failing_hook(const struct sp_file *f, enum sp_io_op op, const void *buf,
			uint64_t off, uint64_t len)
{
	(void)f; (void)op; (void)buf; (void)off; (void)len;
	io_seen++;
	if (io_broken && io_stays)
		return io_error;
	if (io_in && !--io_in) {
		io_broken = true;
		return io_error;
	}
	return 0;
}

static struct history h;
static struct fdev *dev;
static struct sp_err err;
static char buf[32 * CRAFT_CLUSTER];
static bool qemu;

static void make(void)
{
	struct craft c;
	unsigned int i;

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
	check_range(0, SECT(24), must_read, crashed);
	check_range(SECT(505), SECT(30), must_read, crashed);
	check_range(SECT(1000), SECT(24), must_read, crashed);
}

static void put(uint64_t lba, uint64_t len, uint8_t v, bool fua)
{
	int rc;

	memset(buf, v, len * 512);
	rc = fdev_write(dev, buf, lba, len, fua);
	hist_change(&h, lba, len, v, rc);
}

static void flush(void)
{
	if (!fdev_flush(dev))
		hist_flush(&h);
}

/* Touches every kind of thing the engine does. */
static void body(void)
{
	int rc;

	check_range(0, SECT(12), false, false);
	put(SECT(G_PACKED) + 1, 2, 0xa1, false);	/* copy of a compressed one */
	put(SECT(G_NONE) + 3, 1, 0xa2, false);		/* copy from below */
	put(SECT(10), CRAFT_SECTORS, 0xa3, false);	/* no copy */
	put(SECT(G_ZERO_ALLOC), 1, 0xa4, false);	/* stale storage */
	put(SECT(600) + 7, 20, 0xa5, false);		/* a new table */
	flush();
	put(SECT(G_DATA), 3, 0xa6, true);		/* in place, FUA */
	put(SECT(8) + 4, 40, 0xa7, true);		/* a few kinds at once, FUA */
	rc = fdev_discard(dev, SECT(G_DATA2), CRAFT_SECTORS);
	hist_change(&h, SECT(G_DATA2), CRAFT_SECTORS, 0, true);
	(void)rc;
	rc = fdev_zeroes(dev, SECT(18) + 2, 20, false);
	hist_change(&h, SECT(18) + 2, 20, 0, rc);
	sp_work(fdev_image(dev));
	put(SECT(G_DATA2) + 1, 1, 0xa8, false);
	flush();
	fdev_evict(dev, 60);
	put(SECT(1010), 60, 0xa9, false);
	check_all(false, false);
}

/* False: it passed untouched. */
static bool round_n(unsigned int n, bool allocs, bool attach)
{
	struct fdev_opts o = { .path = in_scratch("img.qcow2"), .format = "qcow2", .seed = 3,
			       .late = 20, .work = 20 };
	bool crashed = true, hit;
	int rc;

	make();
	alloc_in = allocs ? n : 0;
	io_in = allocs ? 0 : n;
	io_broken = false;
	sp_io_hook = failing_hook;
	alloc_counts = true;
	rc = fdev_open(&dev, &o, &err);
	if (!rc) {
		body();
		if (attach)
			rc = fdev_reattach(dev, &err);
		if (rc) {
			fdev_drop(dev);
		} else {
			check_all(false, false);
			crashed = fdev_finish(dev, &err);
		}
	}
	alloc_counts = false;
	sp_io_hook = NULL;
	hit = allocs ? !alloc_in : io_broken;
	/* Again, in a world without trouble. */
	rc = fdev_open(&dev, &o, &err);
	if (rc)
		fail_msg("after failure %u it cannot be opened: %s", n, err.msg);
	check_all(true, crashed);
	/* What a crash leaked is tidied up with the first write. */
	memset(buf, 0xfe, 512);
	if (fdev_write(dev, buf, SECT(700), 1, false))
		fail_msg("after failure %u it cannot be written to", n);
	rc = fdev_finish(dev, &err);
	if (rc)
		fail_msg("after failure %u it cannot be finished: %s", n, err.msg);
	if (qemu && (n % 8 == 1 || !hit || getenv("SWEEP_ALL")) &&
	    sh("qemu-img check -f qcow2 img.qcow2"))
		fail_msg("after failure %u qemu-img check finds something", n);
	return hit;
}

static void sweep(bool allocs, bool attach)
{
	unsigned int n = 0, step = 1;

	if (getenv("SWEEP_N")) {
		round_n(strtoul(getenv("SWEEP_N"), NULL, 0), allocs, attach);
		return;
	}
	while (round_n(1 + n, allocs, attach))
		n += step;
	print_message("# %u failures, each survived\n", n);
}

static void each_allocation_may_fail(void **state)
{
	(void)state;
	sweep(true, false);
}

static void each_allocation_may_fail_with_an_attach(void **state)
{
	(void)state;
	sweep(true, true);
}

static void each_io_may_fail_once(void **state)
{
	(void)state;
	io_error = -EIO;
	io_stays = false;
	sweep(false, false);
}

static void each_io_may_fail_once_with_an_attach(void **state)
{
	(void)state;
	io_error = -EIO;
	io_stays = false;
	sweep(false, true);
}

static void each_io_may_find_no_space_once(void **state)
{
	(void)state;
	io_error = -ENOSPC;
	io_stays = false;
	sweep(false, false);
}

static void the_disk_may_break_at_each_io(void **state)
{
	(void)state;
	io_error = -EIO;
	io_stays = true;
	sweep(false, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_allocation_may_fail),
		cmocka_unit_test(each_allocation_may_fail_with_an_attach),
		cmocka_unit_test(each_io_may_fail_once),
		cmocka_unit_test(each_io_may_fail_once_with_an_attach),
		cmocka_unit_test(each_io_may_find_no_space_once),
		cmocka_unit_test(the_disk_may_break_at_each_io),
	};
	const char *only = getenv("ONLY");

	scratch_make();
	qemu = have("qemu-img");
	if (only)
		cmocka_set_test_filter(only);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
