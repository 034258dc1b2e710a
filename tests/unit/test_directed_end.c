// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_directed_end.c - the protocol's directed tests of a clean end: what becomes of
 * clusters that were mapped ahead and that nobody wrote to (rules 24 and 27).  See
 * test_directed.c.
 */
#include "trial.h"

/* ---- 27: what was mapped ahead, at a clean end ---- */

#define G_AHEAD		(G_BETWEEN - 1)

/*
 * Zeros over what G_BETWEEN and its neighbours have, then somebody in sequence before
 * them.  They are mapped ahead, in an extent that nobody writes to.
 */
static void zero_and_map_ahead(void)
{
	struct sp_extent e;
	unsigned int i;

	assert_int_equal(rec_zeroes(dev, SECT(100), SECT(21), false), 0);
	fdev_settle(dev);
	put(100, 1, 0x51);
	put(101, 1, 0x52);
	for (i = G_AHEAD; i <= G_BETWEEN; i++) {
		assert_true(fdev_extent(dev, SECT(i), &e));
		assert_int_equal(e.type, SP_LINEAR);
		assert_true(e.tid && !(e.flags & SP_EXT_TOUCHED));
	}
}

/*
 * The next mapper is told of the second change only: that there was one before it, the
 * file's entry tells.
 *
 * Fails without "c->again =" in note() of qcow2/relink.c: the file's entry is put back.
 */
static void r27_zeros_mapped_ahead_then_kill(void **state)
{
	unsigned int i;

	(void)state;
	for (i = 0; i < 2; i++) {
		begin_narrow(i);
		zero_and_map_ahead();
		assert_int_equal(fdev_reattach(dev, &err), 0);
		finish();
	}
}

static bool zero_at_sync;

static void zero_into_the_sync(const struct sp_file *f, enum sp_io_op op, const void *buf,
			       uint64_t off, uint64_t len)
{
	(void)buf; (void)off; (void)len;
	if (!f || op != SP_IO_SYNC || !zero_at_sync)
		return;
	zero_at_sync = false;
	zero_and_map_ahead();
}

/*
 * Both changes come while a round is open that has the data of before: it covers
 * neither of them.
 *
 * Fails with "c->again = false" in round_committed() of qcow2/round.c instead of
 * round_snapshot(): what the round has brought to the file is put back.
 */
static void r27_zeros_mapped_ahead_into_a_round(void **state)
{
	(void)state;
	begin_narrow(false);
	put(G_AHEAD, CRAFT_SECTORS, 0x42);
	fdev_settle(dev);
	zero_at_sync = true;
	rec_after = zero_into_the_sync;
	assert_int_equal(fdev_try_flush(dev, newest_tid()), 0);
	assert_false(zero_at_sync);
	rec_after = NULL;
	finish();
}

/* ---- 27: killed when a clean end has cut the file already ---- */

static unsigned int die_in;		/* 1: with the next I/O after the cut, 0: not */
static bool no_room, was_cut;

static int cut_then_die(const struct sp_file *f, enum sp_io_op op, const void *buf,
			uint64_t off, uint64_t len)
{
	(void)buf; (void)off; (void)len;
	if (!f || op == SP_IO_READ)
		return 0;
	if (op == SP_IO_TRUNCATE) {
		if (no_room)
			return -ENOSPC;
		was_cut = true;
	} else if (was_cut && die_in && !--die_in) {
		fdev_die(dev);
		return -EIO;
	}
	return 0;
}

/*
 * Clusters are mapped ahead of who writes, each an extent of its own, and only the first
 * is written to; the others are the last of the file that anybody has.
 */
static void map_ahead_at_the_end(void)
{
	unsigned int i;

	/* All of the pool but a few.  The last ones take turns, backwards, so that they lie apart. */
	assert_int_equal(rec_write(dev, SECT(6), SECT(944), 1, false), 0);
	assert_int_equal(rec_write(dev, SECT(990), SECT(34), 2, false), 0);
	for (i = 0; i < 20; i++) {
		put(969 - i, 1, 3);
		put(989 - i, 1, 4);
	}
	flush();
	assert_int_equal(rec_zeroes(dev, SECT(950), SECT(20), false), 0);
	flush();
	no_room = true;			/* nothing but what was dropped */
	for (i = 0; i < 7; i++)
		put(950 + i, 1, 5);
	assert_int_equal(rec_zeroes(dev, SECT(950), SECT(7), false), 0);
	assert_int_equal(rec_zeroes(dev, SECT(970), SECT(20), false), 0);
	no_room = false;
}

/* Of extents that are not touched: behind the file's end. */
static unsigned int behind_the_end(const struct sp_extent *ext, unsigned int nr)
{
	struct stat st;
	unsigned int n = 0;

	assert_int_equal(stat(in_scratch("img.qcow2"), &st), 0);
	for (; nr--; ext++)
		n += ext->type == SP_LINEAR && !(ext->flags & SP_EXT_TOUCHED) &&
		     ext->off * 512 >= (uint64_t)st.st_size;
	return n;
}

static void end_and_die(unsigned int at)
{
	struct sp_extent *ext;
	unsigned int nr, i;

	begin();
	no_room = was_cut = false;
	die_in = 0;
	rec_before = cut_then_die;
	map_ahead_at_the_end();
	fdev_settle(dev);
	nr = fdev_dump(dev, &ext, NULL);
	was_cut = false;
	die_in = at;
	assert_int_equal(sp_finish(fdev_image(dev), ext, nr, &err), at ? -EIO : 0);
	assert_true(was_cut);
	assert_in_range(behind_the_end(ext, nr), 1, nr);
	free(ext);
	die_in = 0;
	fdev_die(dev);
	if (fdev_reattach(dev, &err))
		fail_msg("%s", err.msg);
	rec_before = NULL;
	assert_int_equal(rec_read(dev), -1);
	/* What was mapped ahead is written to; whoever else needs room gets other room. */
	for (i = 0; i < 4; i++)
		put(961 + i, 1, 6);
	assert_int_equal(rec_write(dev, SECT(970), SECT(20), 7, false), 0);
	churn(900, 40, 8);
	assert_int_equal(rec_read(dev), -1);
	finish();
}

/*
 * The kernel has extents still that lie where the file was longer before.
 *
 * Fails without reach_all() of qcow2/relink.c: no mapper can attach any more; and without
 * given_back in pend_floor() of reply.c: the next one does not hear of them.
 */
static void r27_killed_behind_the_cut(void **state)
{
	(void)state;
	end_and_die(1);
	end_and_die(2);
	end_and_die(0);
}

static enum sp_action answered;

static void on_reply(void *ctx, const struct sp_req *req, const struct sp_reply *r)
{
	(void)ctx; (void)req;
	answered = r->action;
}

static void on_commit(void *ctx, uint64_t tid)
{
	(void)ctx; (void)tid;
}

/* The file ends 100 bytes behind CR_END's start.  What becomes of it with one extent? */
static int link_one(uint64_t cluster, unsigned int clusters, uint32_t flags, uint64_t *bytes)
{
	const struct sp_ops ops = { .reply = on_reply, .commit = on_commit };
	const struct sp_options o = { .path = in_scratch("img.qcow2"), .format = "qcow2",
				      .ops = &ops };
	const struct sp_extent e = {
		.lba = SECT(100), .len = SECT(clusters), .off = SECT(cluster), .tid = 5,
		.type = SP_LINEAR, .perm = SP_PERM_R | SP_PERM_W, .flags = flags,
	};
	struct sp_image *img;
	struct stat st;
	int rc;

	craft_it();
	assert_int_equal(truncate(o.path, AT(CR_END) + 100), 0);
	assert_int_equal(sp_open(&img, &o, &err), 0);
	rc = sp_relink(img, &e, 1, 5, &err);
	assert_int_equal(stat(o.path, &st), 0);
	*bytes = st.st_size;
	if (!rc)
		assert_int_equal(sp_finish(img, NULL, 0, &err), 0);	/* it is linked */
	sp_close(img);
	if (qemu)
		assert_int_equal(sh("qemu-img check -f qcow2 img.qcow2"), 0);
	return rc;
}

/*
 * Behind the end is what a clean end can have left there, and nothing else.
 *
 * Fails without is_lost(), and without the bound, in reach_all() of qcow2/relink.c.
 */
static void r24_what_may_lie_behind_the_end(void **state)
{
	uint64_t bytes;

	(void)state;
	assert_int_equal(link_one(CR_END + 3, 2, 0, &bytes), 0);
	assert_int_equal(bytes, AT(CR_END + 5));
	/* The write was to the first of them. */
	assert_int_equal(link_one(CR_END, 5, SP_EXT_TOUCHED, &bytes), 0);
	assert_int_equal(bytes, AT(CR_END + 5));
	/* The second refcount block, too. */
	assert_int_equal(link_one(2050, 2, 0, &bytes), 0);
	assert_in_range(bytes, AT(2052), AT(2060));
	assert_int_equal(link_one(CR_END + 1, 2, SP_EXT_TOUCHED, &bytes), -EIO);
	assert_int_equal(bytes, AT(CR_END) + 100);
	assert_int_equal(link_one(CR_END + 1, 2, SP_EXT_PLACING, &bytes), -EIO);
	assert_int_equal(bytes, AT(CR_END) + 100);
	assert_int_equal(link_one(1u << 20, 2, 0, &bytes), -EIO);
	assert_int_equal(bytes, AT(CR_END) + 100);
	assert_int_equal(link_one(1ull << 50, 2, 0, &bytes), -EIO);
	assert_int_equal(bytes, AT(CR_END) + 100);
}

/* ---- 27: an image that could not be made ready ---- */

#define FAR		2050		/* the second refcount block counts it, if there is one */

static uint64_t full_from, full_to;	/* no space there */

static int no_space(const struct sp_file *f, enum sp_io_op op, const void *buf, uint64_t off,
		    uint64_t len)
{
	(void)f; (void)buf;
	return op == SP_IO_WRITE && within(off, len, full_from, full_to - full_from) ? -ENOSPC : 0;
}

static bool is_dirty(const char *path)
{
	size_t len;
	char *image = read_file(path, &len);
	bool dirty = image[H_INCOMPAT + 7] & 1;

	free(image);
	return dirty;
}

/* stays: marked dirty. */
static void write_in_vain(bool stays)
{
	const struct sp_ops ops = { .reply = on_reply, .commit = on_commit };
	const struct sp_options o = { .path = in_scratch("img.qcow2"), .format = "qcow2",
				      .ops = &ops };
	const struct sp_req req = { .kind = SP_WRITE, .lba = SECT(100), .len = 1,
				    .want_lba = SECT(100), .want_len = 1 };
	struct sp_image *img;
	struct stat was, st;
	unsigned int i;

	assert_int_equal(stat(o.path, &was), 0);
	assert_int_equal(sp_open(&img, &o, &err), 0);
	sp_io_hook = no_space;
	for (i = 0; i < 5; i++) {
		sp_handle(img, &req, SP_MAY_WAIT);
		assert_int_equal(answered, SP_HOLD);
		assert_true(is_dirty(o.path));
		assert_int_equal(stat(o.path, &st), 0);
		assert_int_equal(st.st_size, was.st_size);
	}
	assert_int_equal(sp_finish(img, NULL, 0, &err), 0);
	sp_io_hook = NULL;
	sp_close(img);
	assert_int_equal(is_dirty(o.path), stays);
	assert_int_equal(stat(o.path, &st), 0);
	assert_int_equal(st.st_size, was.st_size);
}

/*
 * On a full disk the first write waits, in vain, and the device is deleted: the file is as
 * long as it was, whether the L1 table finds no space or a refcount block that was missing.
 * What was clean is clean, but not with clusters that nothing counts.
 *
 * Fails without w->marked in q2_finish(): it stays dirty; without blocks_missing there: it
 * is called clean; and without file_cut() in make_blocks() of qcow2/prepare.c: each try
 * makes the file longer.
 */
static void r27_a_first_write_in_vain(void **state)
{
	struct craft c;

	(void)state;
	craft_it();
	full_from = AT(CR_L1);
	full_to = AT(CR_L1 + 1);
	write_in_vain(false);
	if (qemu)
		assert_int_equal(sh("qemu-img check -f qcow2 img.qcow2"), 0);
	craft_new(&c);
	craft_be64(&c, craft_l2(G_BETWEEN), AT(FAR) | QC_COPIED);
	write_file(in_scratch("img.qcow2"), c.buf, c.size);
	free(c.buf);
	assert_int_equal(truncate(in_scratch("img.qcow2"), AT(FAR + 1)), 0);
	full_from = AT(2048);
	full_to = UINT64_MAX;
	write_in_vain(true);
	if (qemu)
		assert_int_equal(sh("qemu-img check -q -f qcow2 -r all img.qcow2"), 0);
}

int main(void)
{
	const struct CMUnitTest directed_end[] = {
		TEST(r27_zeros_mapped_ahead_then_kill),
		TEST(r27_zeros_mapped_ahead_into_a_round),
		TEST(r27_killed_behind_the_cut),
		TEST(r24_what_may_lie_behind_the_end),
		TEST(r27_a_first_write_in_vain),
	};

	return RUN_TRIALS(directed_end);
}
