// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_directed_disk.c - the protocol's directed tests 8 to 10: a disk that is
 * full, one that fails, and the file's locks.  See test_directed.c.
 */
#include "trial.h"
#include "lock.h"

/* ---- 8: a new refcount block and a new table ---- */

#define TINY_SECT	2048		/* clusters of 512, 64 to a table or block */

static uint8_t taken[REC_FILE_MAX / 512];	/* sectors with space on the disk */
static uint64_t nr_taken, disk_room;
static bool others_take;	/* what is given back, at once */

/* The file ends that many bytes behind what its image takes, which are a hole. */
static void begin_tiny(uint64_t tail)
{
	static const uint8_t zeros[TINY_SECT];
	char *image;
	size_t len;

	if (access(in_scratch("tiny.qcow2"), F_OK))
		assert_int_equal(sh("qemu-img create -f qcow2 -o cluster_size=512,refcount_bits=64 tiny.qcow2 %u",
				    TINY_SECT * 512), 0);
	image = read_file(in_scratch("tiny.qcow2"), &len);
	unlink(in_scratch("img.qcow2"));
	write_file(in_scratch("img.qcow2"), image, len);
	free(image);
	assert_int_equal(truncate(in_scratch("img.qcow2"), len + tail), 0);
	rec_start(in_scratch("img.qcow2"), TINY_SECT, zeros, NULL);
	memset(taken, 0, sizeof(taken));
	memset(taken, 1, len / 512);
	nr_taken = len / 512;
	disk_room = UINT64_MAX;
	open_dev();
}

/*
 * Fails without q2_sync() in link_blocks() of qcow2/refcount.c: the refcount
 * table may name a block that has yet to be written.
 */
static void t8_first_cluster_then_cut(void **state)
{
	(void)state;
	if (!qemu)
		skip();
	begin_tiny(0);
	assert_int_equal(rec_write(dev, 64, 1, 1, false), 0);
	flush();
	/* And some more, so that a pool's worth of blocks comes anew. */
	assert_int_equal(rec_write(dev, 200, 700, 2, false), 0);
	flush();
	finish();
}

/*
 * The file is far longer than its table counts, as crashes leave it or as somebody
 * likes it; the table that counts more of it would have its place at the end.
 *
 * Fails without "blocks < w->nb / refs + 1" in rt_grow() of qcow2/rtable.c: reads
 * and writes behind the table in memory.
 */
static void t8_the_table_moves_behind_a_long_tail(void **state)
{
	unsigned int i;

	(void)state;
	if (!qemu)
		skip();
	begin_tiny(20 << 20);
	/* Discarded clusters are not taken again before it is safe: more are needed. */
	for (i = 0; i < 6; i++) {
		assert_int_equal(rec_write(dev, 0, TINY_SECT, 1 + i, false), 0);
		flush();
		assert_int_equal(rec_discard(dev, 0, TINY_SECT), 0);
	}
	assert_int_equal(rec_write(dev, 100, 1000, 8, false), 0);
	flush();
	finish();
}

/* A disk that gives and takes space; full at disk_room sectors. */
static int full_disk(const struct sp_file *f, enum sp_io_op op, const void *buf, uint64_t off,
		     uint64_t len)
{
	uint64_t s, more = 0, end = (off + len + 511) / 512;

	(void)f; (void)buf;
	if (end > sizeof(taken))
		end = sizeof(taken);
	for (s = off / 512; s < end; s++) {
		if (op == SP_IO_PUNCH) {
			nr_taken -= taken[s];
			disk_room -= taken[s] && others_take;
			taken[s] = 0;
		} else if (op == SP_IO_WRITE || op == SP_IO_ZERO) {
			more += !taken[s];
		}
	}
	if (!more)
		return 0;
	if (nr_taken + more > disk_room)
		return -ENOSPC;
	memset(taken + off / 512, 1, end - off / 512);
	nr_taken += more;
	return 0;
}

/*
 * The mapper dies before it could link anything, and the next ones at any step
 * of their attach, with the disk full: the first steps one by one, which are all
 * different, of those behind (cluster after cluster) some.  EVERY=1 takes them all.
 *
 * Space that is given back is somebody else's at once.
 *
 * Fails without reserve_in_place() in qcow2/refill.c: the dead mapper's reserve is gone.
 */
static void t8_kill_at_any_step_on_a_full_disk(void **state)
{
	bool every = getenv("EVERY");
	unsigned int n, i, tried = 0, attaches = 2;

	(void)state;
	if (!qemu)
		skip();
	for (n = 1; attaches > 1; n += every ? 1 : 1 + n / 6) {
		begin_tiny(0);
		rec_before = full_disk;
		for (i = 0; i < 8; i++)
			assert_int_equal(rec_write(dev, 64 * i + 3, 1, i + 1, false), 0);
		disk_room = nr_taken;
		others_take = true;
		fdev_orphan(dev);
		fdev_kill_at(dev, n);
		assert_int_equal(fdev_reattach(dev, &err), 0);
		attaches = fdev_stats(dev)->attaches;
		if (attaches > 1)
			fdev_kill_at(dev, 0);
		flush();
		fdev_kill_at(dev, 0);
		others_take = false;
		disk_room = UINT64_MAX;
		/* All cuts of one of these take a second. */
		if (tried++ % 8 == 0 || attaches == 1)
			finish();
		else
			finish_quickly();
	}
	print_message("# killed at %u steps\n", tried - 1);
}

/*
 * The file has more clusters than it has blocks to count them, as a refill leaves it that
 * found room for the length and none for the block.
 *
 * Fails without no_longer() in take_counted(), and without links in share(), of
 * qcow2/refill.c: the attach finds no space.
 */
static void t8_an_attach_needs_no_block(void **state)
{
	unsigned int i;

	(void)state;
	if (!qemu)
		skip();
	begin_tiny(8 << 20);
	rec_before = full_disk;
	for (i = 0; i < 8; i++)
		assert_int_equal(rec_write(dev, 64 * i + 3, 1, i + 1, false), 0);
	disk_room = nr_taken;
	fdev_orphan(dev);
	assert_int_equal(fdev_reattach(dev, &err), 0);
	flush();
	disk_room = UINT64_MAX;
	finish();
}

static uint64_t longest;

static int no_longer_file(const struct sp_file *f, enum sp_io_op op, const void *buf,
			  uint64_t off, uint64_t len)
{
	(void)f; (void)buf; (void)len;
	return op == SP_IO_TRUNCATE && off > longest ? -EFBIG : 0;
}

/*
 * Who takes over wants tables for what it links, and no more: what is FREE is the next
 * writers', for the file gets no longer.
 *
 * Fails with RESERVE_MAX in place of missing_tables() in qcow2/relink.c: they wait, though
 * there are clusters.
 */
static void t8_an_attach_leaves_what_it_does_not_need(void **state)
{
	struct stat st;

	(void)state;
	if (!qemu)
		skip();
	begin_tiny(110 * 512);
	assert_int_equal(stat(in_scratch("img.qcow2"), &st), 0);
	longest = st.st_size + 8 * 512;		/* for blocks */
	rec_before = no_longer_file;
	assert_int_equal(rec_write(dev, 0, 20, 1, false), 0);
	flush();
	assert_int_equal(rec_write(dev, 700, 1, 2, false), 0);
	fdev_orphan(dev);
	assert_int_equal(fdev_reattach(dev, &err), 0);
	assert_int_equal(rec_write(dev, 0, 60, 3, false), 0);
	assert_int_equal(fdev_stats(dev)->holds, 0);
	rec_before = NULL;
	flush();
	finish();
}

static uint64_t file_end, zero_bytes;	/* as it grew, or was given back */
static unsigned int zeroed;
static bool punched;

/* One cluster has its space, until something was to be given back, which fails once. */
static int no_punch(const struct sp_file *f, enum sp_io_op op, const void *buf, uint64_t off,
		    uint64_t len)
{
	(void)f; (void)buf;
	if (op == SP_IO_TRUNCATE && off > file_end) {
		zero_bytes += off - file_end;
		file_end = off;
	}
	if (punched && op == SP_IO_PUNCH)
		zero_bytes += len;
	if (punched || (op != SP_IO_PUNCH && op != SP_IO_ZERO))
		return 0;
	punched = op == SP_IO_PUNCH;
	return punched || zeroed++ ? -ENOSPC : 0;
}

/*
 * A file system that has no room may have none to punch a hole either. With one table of
 * two the attach goes on; what could not be made zero is nobody's.
 *
 * Fails without hcs_give_back() where refill() of qcow2/refill.c goes on: it is the pool's.
 */
static void t8_what_could_not_be_made_zero_is_not_used(void **state)
{
	struct sp_stats s;
	struct stat st;

	(void)state;
	if (!qemu)
		skip();
	begin_tiny(0);
	assert_int_equal(rec_write(dev, 3, 1, 1, false), 0);
	assert_int_equal(rec_write(dev, 643, 1, 2, false), 0);
	fdev_orphan(dev);
	assert_int_equal(stat(in_scratch("img.qcow2"), &st), 0);
	file_end = st.st_size;
	zero_bytes = zeroed = 0;
	punched = false;
	rec_before = no_punch;
	assert_int_equal(fdev_reattach(dev, &err), 0);
	assert_true(punched);
	sp_stats(fdev_image(dev), &s);
	assert_in_range(s.pool * 512, 0, zero_bytes);
	rec_before = NULL;
	flush();
	finish();
}

static int no_room_for_l1(const struct sp_file *f, enum sp_io_op op, const void *buf,
			  uint64_t off, uint64_t len)
{
	(void)f; (void)buf;
	return op == SP_IO_WRITE && within(off, len, AT(CR_L1), CRAFT_CLUSTER) ? -ENOSPC : 0;
}

/*
 * The dead mapper's first write marked the image and found no space for the rest: nothing
 * is to be linked, and to serve reads no space is needed.
 *
 * Fails without "!nr" behind q2_prepare() in q2_relink(), qcow2/relink.c.
 */
static void t8_an_attach_with_nothing_to_link_needs_no_space(void **state)
{
	const uint8_t dirty = 1;
	int fd;

	(void)state;
	craft_it();
	fd = open(in_scratch("img.qcow2"), O_RDWR | O_CLOEXEC);
	assert_int_equal(pwrite(fd, &dirty, 1, H_INCOMPAT + 7), 1);
	close(fd);
	record_it();
	rec_before = no_room_for_l1;
	fdev_orphan(dev);
	assert_int_equal(fdev_reattach(dev, &err), 0);
	assert_int_equal(rec_read(dev), -1);
	rec_before = NULL;
	put(100, 1, 1);
	flush();
	finish();
}

/* ---- a round that found the disk full ---- */

static bool no_room;

/* One sector of the tables finds no space. */
static int sector_without_room(const struct sp_file *f, enum sp_io_op op, const void *buf,
			       uint64_t off, uint64_t len)
{
	(void)buf;
	return no_room && f && op == SP_IO_WRITE && within(off, len, craft_l2(500), 8) ?
	       -ENOSPC : 0;
}

/*
 * It has written an entry for A and is not through, so that the file may have it or
 * not.  A is changed again: what that entry names stays (rule 16).
 *
 * Fails without c->snap in let_go() of qcow2/change.c: it is reused.
 */
static void r16_an_open_round_keeps_what_it_names(void **state)
{
	unsigned int i;

	(void)state;
	begin();
	put(100, 1, 1);
	flush();
	put(G_PACKED, 1, 0x44);
	put(500, 1, 2);
	fdev_settle(dev);
	no_room = true;
	rec_before = sector_without_room;
	assert_int_equal(fdev_try_flush(dev, newest_tid()), -EAGAIN);
	assert_int_equal(rec_zeroes(dev, SECT(G_PACKED), CRAFT_SECTORS, false), 0);
	work();
	work();
	assert_int_equal(rec_write(dev, SECT(200), SECT(60), 5, false), 0);
	for (i = 0; i < 60; i++)	/* here and there: small runs go first */
		put(300 + i * 37 % 190, 1, 6);
	no_room = false;
	flush();
	finish();
}

/* ---- who needs no room, and who gets what there is ---- */

/*
 * A zero cluster that kept its place is made zero there: it takes nothing from the pool.
 *
 * Fails without "class != CLASS_KEPT" at the first condition of write_over() in
 * qcow2/write.c: it waits.
 */
static void r29_a_zero_cluster_that_kept_its_place_needs_no_room(void **state)
{
	unsigned int i;

	(void)state;
	for (i = 0; i < 2; i++) {	/* in part, and whole */
		begin_narrow(false);
		drain_pool();
		growth_fails = 1;
		put(G_ZERO_ALLOC, i ? CRAFT_SECTORS : 1, 0x44);
		assert_int_equal(growth_fails, 1);
		assert_int_equal(fdev_stats(dev)->holds, 0);
		flush();
		finish();
	}
}

/*
 * However the file is kept from growing, by its disk, a quota or a limit: what
 * was dropped is there to be used, and what a commit drops.
 *
 * Fails with -ENOSPC alone in place of no_longer() in collect() of qcow2/refill.c, or in
 * get_pool() of qcow2/engine.c: a write waits, or fails.
 */
static void r29_what_was_dropped_is_used_whatever_the_error(void **state)
{
	static const int errors[] = { -ENOSPC, -EDQUOT, -EFBIG };
	unsigned int i;

	(void)state;
	for (i = 0; i < 6; i++) {
		begin_narrow(false);
		drain_pool();
		flush();
		growth_error = errors[i / 2];
		growth_fails = 5;
		assert_int_equal(rec_zeroes(dev, SECT(200), SECT(8), false), 0);
		fdev_settle(dev);
		if (i & 1)
			flush();
		put(300, 1, 0x44);
		assert_int_equal(fdev_stats(dev)->holds, 0);
		assert_in_range(growth_fails, 0, 4);
		finish();
	}
}

#define TINY_ROOM	60u		/* clusters of the file to begin with */
#define TINY_BLOCK	64u		/* that the first block counts */

static unsigned int no_block;		/* how often there is no room for another */

static int block_without_room(const struct sp_file *f, enum sp_io_op op, const void *buf,
			      uint64_t off, uint64_t len)
{
	(void)buf; (void)len;
	if (op == SP_IO_TRUNCATE && growth_fails && off > TINY_ROOM * 512) {
		growth_fails--;
		return -ENOSPC;
	}
	if (f && op == SP_IO_WRITE && no_block && off >= TINY_BLOCK * 512) {
		no_block--;
		return -ENOSPC;
	}
	return 0;
}

/* One by one. */
static void fill_tiny(unsigned int first, unsigned int end)
{
	for (; first < end; first++)
		assert_int_equal(rec_write(dev, first, 1, 0x41, false), 0);
	assert_int_equal(fdev_stats(dev)->holds, 0);
}

/*
 * The file gets longer, but what it got has no block: all else is there to be used, and
 * it gets no longer each time.
 *
 * Fails in qcow2/refill.c without few in share(), the reserve takes it all, and without
 * no_longer() in take_counted(): a write waits; without !full in collect() or file_cut()
 * in rt_grow(): the file gets longer.
 */
static void r29_a_block_that_has_no_room(void **state)
{
	unsigned int i;
	struct stat st;
	off_t was = 0;

	(void)state;
	if (!qemu)
		skip();
	begin_tiny(0);
	fdev_drop(dev);
	rec_stop();
	assert_int_equal(stat(in_scratch("tiny.qcow2"), &st), 0);
	assert_in_range(st.st_size, 512, 10 * 512);
	begin_tiny(TINY_ROOM * 512 - st.st_size);
	rec_before = block_without_room;
	growth_fails = 20;
	no_block = 20;
	fill_tiny(0, TINY_ROOM - (st.st_size + 511) / 512 - 4);
	growth_fails = 0;
	/* What is left of the first block. */
	fill_tiny(60, 63);
	assert_int_equal(no_block, 19);
	flush();
	for (i = 0; i < 4; i++) {
		assert_int_equal(rec_discard(dev, 10 * i, 10), 0);
		flush();
		fill_tiny(100 + 10 * i, 105 + 10 * i);
		assert_int_equal(stat(in_scratch("img.qcow2"), &st), 0);
		assert_true(!was || st.st_size == was);
		was = st.st_size;
	}
	assert_in_range(no_block, 1, 18);
	no_block = 0;
	finish();
}

/* ---- 9: one failed fdatasync, in the background ---- */

static bool sync_fails, kernel_hears;
static unsigned int failed_at;

/* The kernel tells of a lost write once through each open file. */
static int fail_sync(const struct sp_file *f, enum sp_io_op op, const void *buf, uint64_t off,
		     uint64_t len)
{
	(void)buf; (void)off; (void)len;
	if (op != SP_IO_SYNC)
		return 0;
	if (f && sync_fails) {
		sync_fails = false;
		kernel_hears = true;
		failed_at = rec.nr;
		return -EIO;
	}
	if (!f && kernel_hears) {
		kernel_hears = false;
		return -EIO;
	}
	return 0;
}

/*
 * Fails without image_fail() in image_sync() of commit.c and has_failed() in io.c,
 * the file's own: FLUSHes go through.  Either is enough.
 */
static void t9_one_failed_background_fdatasync(void **state)
{
	unsigned int i;
	int rc;

	(void)state;
	begin();
	put(100, 1, 1);
	flush();
	work();			/* all refcount blocks: theirs is another matter */
	work();
	assert_int_equal(rec_zeroes(dev, SECT(G_DATA), CRAFT_SECTORS, false), 0);
	flush();
	put(300, 1, 2);
	sync_fails = true;
	rec_before = fail_sync;
	for (i = 0; i < 10 && sync_fails; i++)
		work();
	assert_true(kernel_hears);
	/* To the mapper, then with the kernel alone. */
	assert_int_not_equal(rec_flush(dev), 0);
	for (i = 0; i < 3; i++)
		assert_int_not_equal(rec_flush(dev), 0);
	assert_int_not_equal(rec_write(dev, SECT(102), 1, 3, false), 0);
	work();
	assert_int_equal(rec_read(dev), -1);		/* reads go on */
	assert_int_equal(rec.nr, failed_at);		/* nothing else does */
	assert_int_not_equal(fdev_finish(dev, &err), 0);
	assert_true(err.msg[0]);
	decide();
	rec_stop();
	rc = qemu ? sh("qemu-img check -f qcow2 img.qcow2") : 0;
	assert_true(rc == 0 || rc == 3);
	/* Deleted and added again it works. */
	open_dev();
	assert_int_equal(rec_write(dev, SECT(102), 1, 4, false), 0);
	assert_int_equal(rec_flush(dev), 0);
	assert_int_equal(fdev_finish(dev, &err), 0);
	assert_int_equal(qemu ? sh("qemu-img check -f qcow2 img.qcow2") : 0, 0);
}

/* ---- 10: locks ---- */

static volatile bool probing;

/* Asks again and again, as QEMU does: for a moment it has the bytes it asks for. */
static void *probe(void *arg)
{
	unsigned long *let_in = arg;
	struct sp_err e = { "" };
	struct sp_file f;

	if (sp_file_open(&f, in_scratch("img.qcow2"), -1, true, &e))
		abort();
	while (probing) {
		if (!sp_lock_image(&f, true, &e))
			++*let_in;
		sched_yield();
	}
	sp_file_close(&f);
	return NULL;
}

static int second_open(const char *name, bool read_only)
{
	struct fdev_opts o = { .path = in_scratch(name), .format = "qcow2",
			       .read_only = read_only, .seed = 1 };
	struct fdev *other;
	int rc = fdev_open(&other, &o, &err);

	if (!rc)
		fdev_drop(other);
	return rc;
}

static void all_are_refused(void)
{
	assert_int_equal(second_open("img.qcow2", false), -EBUSY);
	assert_int_equal(second_open("img.qcow2", true), -EBUSY);
	if (!qemu)
		return;
	assert_int_not_equal(sh("qemu-img check img.qcow2"), 0);
	assert_int_not_equal(sh("qemu-img resize img.qcow2 8M"), 0);
	assert_int_not_equal(sh("qemu-io -c 'write 0 512' img.qcow2"), 0);
	assert_int_not_equal(sh("qemu-io -f raw -c 'write 0 512' base"), 0);
}

/*
 * The mapper is dead, the kernel holds L: nobody else gets in, and each attach
 * does, while somebody tries all the time.
 *
 * Fails without the patience of check_patiently() in lock.c, and without "if
 * (!f->adopted)" in sp_lock_image(): the prober gets in.
 */
static void t10_locks(void **state)
{
	unsigned long let_in = 0;
	pthread_t prober;
	struct craft c;
	unsigned int i;
	char *base;

	(void)state;
	begin();
	fdev_drop(dev);
	rec_stop();
	base = calloc(1, 64 * CRAFT_CLUSTER);
	write_file(in_scratch("base"), base, 64 * CRAFT_CLUSTER);
	free(base);
	craft_new(&c);
	craft_backing(&c, "base", 4, "raw");
	write_file(in_scratch("img.qcow2"), c.buf, c.size);
	free(c.buf);
	open_dev();
	assert_int_equal(rec_write(dev, SECT(100), 1, 1, false), 0);
	assert_int_equal(rec_flush(dev), 0);
	all_are_refused();
	fdev_orphan(dev);
	assert_int_equal(rec_write(dev, SECT(100), 1, 2, false), 0);	/* a hit */
	all_are_refused();
	probing = true;
	pthread_create(&prober, NULL, probe, &let_in);
	for (i = 0; i < 100; i++) {
		if (fdev_reattach(dev, &err))
			fail_msg("attach %u: %s", i, err.msg);
		fdev_orphan(dev);
	}
	assert_int_equal(fdev_reattach(dev, &err), 0);
	probing = false;
	pthread_join(prober, NULL);
	assert_int_equal(let_in, 0);
	kills += i;
	all_are_refused();
	assert_int_equal(fdev_finish(dev, &err), 0);
	assert_int_equal(second_open("img.qcow2", false), 0);
	if (qemu) {
		assert_int_equal(sh("qemu-img check img.qcow2"), 0);
		assert_int_equal(sh("qemu-io -f raw -c 'write 0 512' base"), 0);
	}
}

/*
 * A block counts 64 clusters of 512 bytes here, and takes one of them: whatever the file
 * is made longer by, fewer come of it.  That is not want of room.
 *
 * Fails where share() of qcow2/refill.c takes it for that: the reserve never has enough,
 * and the pool gets more with each write.
 */
static void r29_blocks_are_no_want_of_room(void **state)
{
	struct sp_stats s;
	unsigned int i;

	(void)state;
	if (!qemu)
		skip();
	begin_tiny(0);
	for (i = 0; i < 64; i++) {
		assert_int_equal(rec_write(dev, i * 17, 1, 1, false), 0);
		fdev_settle(dev);
		while (!sp_work(fdev_image(dev)))
			;
	}
	sp_stats(fdev_image(dev), &s);
	if (s.pool > (4 << 20) / 512 + 512)
		fail_msg("%llu clusters are in the pool", (unsigned long long)s.pool);
	assert_int_equal(fdev_finish(dev, &err), 0);
}

int main(void)
{
	const struct CMUnitTest directed_disk[] = {
		TEST(t8_first_cluster_then_cut),
		TEST(t8_the_table_moves_behind_a_long_tail),
		TEST(t8_kill_at_any_step_on_a_full_disk),
		TEST(t8_an_attach_needs_no_block),
		TEST(t8_an_attach_leaves_what_it_does_not_need),
		TEST(t8_what_could_not_be_made_zero_is_not_used),
		TEST(t8_an_attach_with_nothing_to_link_needs_no_space),
		TEST(r16_an_open_round_keeps_what_it_names),
		TEST(r29_a_zero_cluster_that_kept_its_place_needs_no_room),
		TEST(r29_what_was_dropped_is_used_whatever_the_error),
		TEST(r29_blocks_are_no_want_of_room),
		TEST(r29_a_block_that_has_no_room),
		TEST(t9_one_failed_background_fdatasync),
		TEST(t10_locks),
	};

	return RUN_TRIALS(directed_disk);
}
