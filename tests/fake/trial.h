/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * trial.h - a device on a hand-made image, recorded from its first to its last
 * change, and judged: every power cut at every place of it is decided (cuts.h), it
 * is read while it lives and when it is opened again, and qemu-img is asked.
 * Included by the one file of a test.
 */
#ifndef TESTS_FAKE_TRIAL_H
#define TESTS_FAKE_TRIAL_H

#include "util.h"
#include <pthread.h>
#include "cm.h"
#include "craft.h"
#include "cuts.h"
#include "fakedev.h"
#include "record.h"

#define SECT(guest)	((uint64_t)(guest) * CRAFT_SECTORS)
#define NR_SECT		SECT(CRAFT_GUEST)

static struct sp_err err;
static struct fdev *dev;
static struct cuts_sum sum;
static unsigned long kills;
static bool qemu;
static unsigned int seed = 1;

/* ---- a device on the hand-made image, recorded ---- */

static MAYBE_UNUSED void craft_it(void)
{
	struct craft c;

	craft_new(&c);
	unlink(in_scratch("img.qcow2"));	/* a test that failed may still hold it */
	write_file(in_scratch("img.qcow2"), c.buf, c.size);
	free(c.buf);
}

static MAYBE_UNUSED void open_dev(void)
{
	struct fdev_opts o = { .path = in_scratch("img.qcow2"), .format = "qcow2",
			       .seed = seed };
	int rc = fdev_open(&dev, &o, &err);

	if (rc)
		fail_msg("%s", err.msg);
}

/* What is in img.qcow2 reads as craft_it() made it. */
static MAYBE_UNUSED void record_it(void)
{
	static uint8_t initial[NR_SECT];

	fdev_read_hook = NULL;
	fdev_reply_hook = NULL;
	memset(initial + SECT(G_DATA), 0x11, CRAFT_SECTORS);
	memset(initial + SECT(G_PACKED), 0x33, CRAFT_SECTORS);
	memset(initial + SECT(G_DATA2), 0x55, CRAFT_SECTORS);
	rec_start(in_scratch("img.qcow2"), NR_SECT, initial, NULL);
	open_dev();
}

static MAYBE_UNUSED void begin(void)
{
	craft_it();
	record_it();
}

/* ---- a file that has little room ---- */

/*
 * Free clusters on both sides of G_BETWEEN's, and the file does not grow: the first
 * four are the reserve, the others the pool, in two runs.  Below it, if it is to have
 * something there, a file with NR_BELOW clusters of 0x77.
 */
#define CR_BETWEEN	26
#define CR_ROOM		36
#define G_BETWEEN	115
#define NR_BELOW	128
#define NARROW_POOL	(CR_ROOM - CR_END - 1 - 4)

static int growth_error;		/* what it says to who wants more */
static unsigned int growth_fails;	/* how often */

static MAYBE_UNUSED int narrow(const struct sp_file *f, enum sp_io_op op, const void *buf,
			       uint64_t off, uint64_t len)
{
	(void)buf; (void)len;
	if (!f || op != SP_IO_TRUNCATE || off <= AT(CR_ROOM) || !growth_fails)
		return 0;
	growth_fails--;
	return growth_error;
}

static MAYBE_UNUSED void begin_narrow(bool backing)
{
	static uint8_t initial[NR_SECT], below[NR_SECT];
	static char all[NR_BELOW * CRAFT_CLUSTER];
	struct craft c;
	int fd;

	fdev_read_hook = NULL;
	fdev_reply_hook = NULL;
	memset(below, 0, sizeof(below));
	if (backing)
		memset(below, 0x77, SECT(NR_BELOW));
	memcpy(initial, below, sizeof(initial));
	memset(initial + SECT(G_DATA), 0x11, CRAFT_SECTORS);
	memset(initial + SECT(G_ZERO), 0, 2 * CRAFT_SECTORS);
	memset(initial + SECT(G_PACKED), 0x33, CRAFT_SECTORS);
	memset(initial + SECT(G_DATA2), 0x55, CRAFT_SECTORS);
	memset(initial + SECT(G_BETWEEN), 0x41, CRAFT_SECTORS);
	craft_new(&c);
	craft_be64(&c, craft_l2(G_BETWEEN), AT(CR_BETWEEN) | QC_COPIED);
	c.buf[craft_rc(CR_BETWEEN) + 1] = 1;
	if (backing) {
		memset(all, 0x77, sizeof(all));
		write_file(in_scratch("base"), all, sizeof(all));
		craft_backing(&c, "base", 4, "raw");
	}
	unlink(in_scratch("img.qcow2"));
	write_file(in_scratch("img.qcow2"), c.buf, c.size);
	free(c.buf);
	memset(all, 0x41, CRAFT_CLUSTER);
	fd = open(in_scratch("img.qcow2"), O_RDWR | O_CLOEXEC);
	assert_int_equal(pwrite(fd, all, CRAFT_CLUSTER, AT(CR_BETWEEN)), CRAFT_CLUSTER);
	assert_int_equal(ftruncate(fd, AT(CR_ROOM)), 0);
	close(fd);
	rec_start(in_scratch("img.qcow2"), NR_SECT, initial, backing ? below : NULL);
	growth_error = -ENOSPC;
	growth_fails = 10;
	rec_before = narrow;
	open_dev();
}

/* All that there is. */
static MAYBE_UNUSED void drain_pool(void)
{
	struct sp_stats s;

	assert_int_equal(rec_write(dev, SECT(200), SECT(NARROW_POOL), 1, false), 0);
	fdev_settle(dev);
	sp_stats(fdev_image(dev), &s);
	assert_int_equal(s.pool, 0);
	assert_int_equal(fdev_stats(dev)->holds, 0);
}

static MAYBE_UNUSED void decide(void)
{
	char why[300];

	if (!cuts_decide(&sum, why, sizeof(why)))
		fail_msg("%s", why);
}

static MAYBE_UNUSED void finish(void)
{
	int64_t bad = rec_read(dev);
	int rc;

	if (bad != -1)
		fail_msg("sector %lld reads wrong", (long long)bad);
	kills += fdev_stats(dev)->attaches;
	rc = fdev_finish(dev, &err);
	if (rc)
		fail_msg("%s", err.msg);
	rec_before = NULL;
	rec_after = NULL;
	decide();
	/* What the next one finds. */
	open_dev();
	bad = rec_read(dev);
	if (bad != -1)
		fail_msg("sector %lld reads wrong when opened again", (long long)bad);
	assert_int_equal(fdev_finish(dev, &err), 0);
	rec_stop();
	if (qemu)
		assert_int_equal(sh("qemu-img check -f qcow2 img.qcow2"), 0);
}

/* Without the cuts. */
static MAYBE_UNUSED void finish_quickly(void)
{
	int64_t bad = rec_read(dev);

	if (bad != -1)
		fail_msg("sector %lld reads wrong", (long long)bad);
	kills += fdev_stats(dev)->attaches;
	if (fdev_finish(dev, &err))
		fail_msg("%s", err.msg);
	rec_stop();
	if (qemu)
		assert_int_equal(sh("qemu-img check -f qcow2 img.qcow2"), 0);
}

/* One write of a whole cluster, or of its first sectors. */
static MAYBE_UNUSED void put(unsigned int guest, unsigned int sectors, uint8_t val)
{
	assert_int_equal(rec_write(dev, SECT(guest), sectors, val, false), 0);
}

static MAYBE_UNUSED void flush(void)
{
	assert_int_equal(rec_flush(dev), 0);
}

static MAYBE_UNUSED uint64_t newest_tid(void)
{
	struct sp_extent *ext;
	uint64_t tid;

	fdev_dump(dev, &ext, &tid);
	free(ext);
	return tid;
}

static MAYBE_UNUSED void work(void)
{
	__atomic_fetch_add(&sp_clock_skew_ms, 700, __ATOMIC_RELAXED);
	fdev_settle(dev);
	while (!sp_work(fdev_image(dev)))
		;
}

/* Commit, reclaim and write, until what was dropped has new owners. */
static MAYBE_UNUSED void churn(unsigned int first, unsigned int nr, uint8_t val)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		put(first + i, i & 1 ? 1 : CRAFT_SECTORS, val);
		if (i % 8 == 3) {
			flush();
			work();
		}
	}
}

static MAYBE_UNUSED bool within(uint64_t off, uint64_t len, uint64_t at, uint64_t n)
{
	return off < at + n && at < off + len;
}

static MAYBE_UNUSED unsigned int syncs_since(unsigned int i)
{
	unsigned int n = 0;

	for (; i < rec.nr; i++)
		n += rec.log[i].op == SP_IO_SYNC;
	return n;
}

static MAYBE_UNUSED int report(void **state)
{
	(void)state;
	print_message("# %lu places of %lu recordings decided, %lu kills in them\n",
		      sum.places, sum.recordings, kills);
	rec_free();
	return 0;
}

static MAYBE_UNUSED int run_trials(const char *name, const struct CMUnitTest *tests, size_t n)
{
	scratch_make();
	qemu = have("qemu-img") && have("qemu-io");
	if (getenv("SEED"))
		seed = strtoul(getenv("SEED"), NULL, 0);
	if (getenv("ONLY"))
		cmocka_set_test_filter(getenv("ONLY"));
	return _cmocka_run_group_tests(name, tests, n, NULL, report);
}

#define RUN_TRIALS(tests)	run_trials(#tests, tests, sizeof(tests) / sizeof((tests)[0]))
#define TEST(f)			cmocka_unit_test(f)

#endif /* TESTS_FAKE_TRIAL_H */
