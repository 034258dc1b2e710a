// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_directed.c - the durability protocol's directed tests, each by its name:
 * schedules that random ones hit once in thousands of times, or never.
 *
 * What the image's file saw is recorded, and every power cut at every place of
 * it is decided (fake/cuts.h); in the end the device is finished and qemu-img
 * asked.  On top of each test stands a line of the slowpath without which it
 * fails; that was tried for each.
 *
 * In userspace there is the real slowpath and a kernel's half that is fake;
 * what is the kernel's alone (its drain, its half of the fence, real SIGKILL and
 * SIGSTOP, qemu beside a mounted device) is tested in guests.
 */
#include "trial.h"

#define LAND_MS		120		/* how late a ghost comes */

/* ---- 1: hidden supersede ---- */

/*
 * A is made zeros, its FLUSH is at the mapper.  A is written: new storage, which
 * is not acknowledged, hides the zeros.  A round for others goes by.
 *
 * Fails without the lowering of *tid for what is left out (round_snapshot() in
 * qcow2/round.c): the FLUSH is answered and A may still be what it was.
 */
static void t1_hidden_supersede_then_cut(void **state)
{
	unsigned int id;
	uint64_t tid;
	int rc;

	(void)state;
	begin();
	put(100, 1, 1);
	flush();
	assert_int_equal(rec_zeroes(dev, SECT(G_DATA), CRAFT_SECTORS, false), 0);
	fdev_settle(dev);
	tid = newest_tid();
	id = rec_begin(REC_FLUSH, 0, 0, 0);
	fdev_hold(dev);
	put(G_DATA, 1, 0x44);
	put(101, 1, 2);
	rc = fdev_try_flush(dev, tid);
	if (!rc)
		rec_end(id, 0);
	else
		assert_int_equal(rc, -EAGAIN);
	put(102, 1, 3);
	fdev_unhold(dev);
	if (rc) {
		assert_int_equal(fdev_try_flush(dev, tid), 0);
		rec_end(id, 0);
	}
	finish();
}

/*
 * Likewise, but the mapper dies and the FLUSH comes to the next one, with the
 * newest tid.
 *
 * Fails without "c->oldest = e->tid" in note() of qcow2/relink.c.
 */
static void t1_hidden_supersede_then_kill(void **state)
{
	unsigned int id;

	(void)state;
	begin();
	put(100, 1, 1);
	flush();
	assert_int_equal(rec_zeroes(dev, SECT(G_DATA), CRAFT_SECTORS, false), 0);
	fdev_settle(dev);
	id = rec_begin(REC_FLUSH, 0, 0, 0);
	fdev_hold(dev);
	put(G_DATA, 1, 0x44);
	assert_int_equal(fdev_try_flush(dev, newest_tid() - 1), -EAGAIN);
	fdev_orphan(dev);
	fdev_unhold(dev);
	assert_int_equal(fdev_reattach(dev, &err), 0);
	assert_int_equal(fdev_try_flush(dev, newest_tid()), 0);
	rec_end(id, 0);
	finish();
}

/*
 * A round for another, whose entry is in the same sector of the table: that of a
 * copy which is not durable yet must not go along (rule 14).
 *
 * Fails with entry_get() for all in file_entry() of qcow2/round.c.
 */
static void r14_a_round_writes_only_what_is_in_it(void **state)
{
	uint64_t tid;

	(void)state;
	begin();
	put(100, 1, 1);
	flush();
	put(60, 1, 2);
	fdev_settle(dev);
	tid = newest_tid();
	fdev_hold(dev);
	put(G_PACKED, 1, 0x44);
	assert_int_equal(fdev_try_flush(dev, tid), 0);
	fdev_unhold(dev);
	flush();
	finish();
}

/* ---- 2: the old mapper's ghost ---- */

static struct {
	enum sp_io_op op;
	uint64_t at, n;			/* where it is to be caught */
	bool armed, caught;
	pthread_t thread;
	int fd;				/* M's description, with the fence */
	void *data;
	uint64_t off, len;
} ghost;

/* What was in flight when its mapper died gets there late; the fence with it. */
static void *land(void *arg)
{
	(void)arg;
	usleep(LAND_MS * 1000);
	rec_change(ghost.op, ghost.data, ghost.off, ghost.len);
	if (ghost.op == SP_IO_WRITE ?
	    pwrite(ghost.fd, ghost.data, ghost.len, ghost.off) != (ssize_t)ghost.len :
	    fallocate(ghost.fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, ghost.off,
		      ghost.len))
		abort();
	close(ghost.fd);
	return NULL;
}

static int catch_ghost(const struct sp_file *f, enum sp_io_op op, const void *buf,
		       uint64_t off, uint64_t len)
{
	if (!f || !ghost.armed || op != ghost.op || !within(off, len, ghost.at, ghost.n))
		return 0;
	ghost.armed = false;
	ghost.caught = true;
	ghost.fd = fcntl(f->fd_m, F_DUPFD_CLOEXEC, 3);
	ghost.off = off;
	ghost.len = len;
	if (buf) {
		if (posix_memalign(&ghost.data, 4096, len))
			abort();
		memcpy(ghost.data, buf, len);
	}
	fdev_die(dev);
	pthread_create(&ghost.thread, NULL, land, NULL);
	return -EIO;
}

static void arm_ghost(enum sp_io_op op, uint64_t at, uint64_t n)
{
	memset(&ghost, 0, sizeof(ghost));
	ghost.op = op;
	ghost.at = at;
	ghost.n = n;
	ghost.armed = true;
	rec_before = catch_ghost;
}

static void ghost_gone(void)
{
	assert_true(ghost.caught);
	pthread_join(ghost.thread, NULL);
	free(ghost.data);
}

/*
 * All three: fail without the call of sp_lock_fence() in open_file() of chain.c,
 * which makes the attach wait until nobody has the old M any more.
 */
static void t2_ghost_of_a_table_write(void **state)
{
	(void)state;
	begin();
	put(100, 1, 1);
	flush();
	put(101, 1, 2);
	arm_ghost(SP_IO_WRITE, craft_l2(101), 8);
	flush();			/* dies, attaches, goes on */
	put(102, 1, 3);
	put(G_DATA2, 3, 4);
	assert_int_equal(rec_zeroes(dev, SECT(101), CRAFT_SECTORS, false), 0);
	flush();
	churn(200, 40, 5);
	ghost_gone();
	finish();
}

static void t2_ghost_of_a_copy(void **state)
{
	(void)state;
	begin();
	put(100, 1, 1);
	flush();
	arm_ghost(SP_IO_WRITE, AT(CR_END), 1ull << 40);
	put(G_PACKED, 1, 0x44);
	churn(200, 40, 5);
	/* All of the pool: somebody has the copy's place now. */
	assert_int_equal(rec_write(dev, SECT(300), SECT(60), 6, false), 0);
	churn(400, 40, 7);
	ghost_gone();
	finish();
}

/* Is it where the ghost goes? */
static bool haunted(unsigned int guest)
{
	struct sp_extent e;

	return fdev_extent(dev, SECT(guest), &e) && e.type == SP_LINEAR && !e.store &&
	       within((e.off + SECT(guest) - e.lba) * 512, CRAFT_CLUSTER, ghost.off, ghost.len);
}

static void t2_ghost_of_a_punch(void **state)
{
	bool reused = false;
	unsigned int i;

	(void)state;
	begin();
	assert_int_equal(rec_write(dev, SECT(100), SECT(40), 1, false), 0);
	flush();
	assert_int_equal(rec_zeroes(dev, SECT(100), SECT(40), false), 0);
	flush();
	arm_ghost(SP_IO_PUNCH, AT(CR_END), 1ull << 40);
	for (i = 0; i < 10 && !ghost.caught; i++)
		work();
	/* Also hung instead of dead: the attach waits, and goes on when it is killed. */
	assert_int_equal(fdev_reattach(dev, &err), 0);
	for (i = 0; i < 60; i++) {	/* here and there: small runs go first */
		put(200 + i * 37 % 300, CRAFT_SECTORS, 5);
		reused |= haunted(200 + i * 37 % 300);
	}
	assert_true(reused);
	ghost_gone();
	finish();
}

/* ---- 3: killed between a table's write and its fdatasync ---- */

static uint64_t kill_after;		/* a write of this byte */

static void die_at_the_sync(const struct sp_file *f, enum sp_io_op op, const void *buf,
			    uint64_t off, uint64_t len)
{
	(void)buf;
	if (!f || !kill_after || op != SP_IO_WRITE || !within(off, len, kill_after, 8))
		return;
	kill_after = 0;
	fdev_kill_at(dev, 1);
}

/*
 * The next mapper finds the entry without its old cluster, and takes that for
 * free, while the disk may still have the old entry.
 *
 * Fails without q2_sync() after header_write() in prepare() of qcow2/prepare.c:
 * the compressed data may be punched while the table may still name it.
 */
static void t3_kill_between_an_entry_and_its_fdatasync(void **state)
{
	(void)state;
	begin();
	put(100, 1, 1);
	flush();
	assert_int_equal(rec_zeroes(dev, SECT(G_DATA), CRAFT_SECTORS, false), 0);
	put(G_PACKED, 1, 0x44);
	fdev_settle(dev);
	kill_after = craft_l2(G_DATA);
	rec_after = die_at_the_sync;
	assert_int_equal(fdev_try_flush(dev, newest_tid()), -ESTALE);
	assert_int_equal(fdev_reattach(dev, &err), 0);
	/* No FLUSH: the dead one's fdatasync is not made up for. */
	assert_int_equal(rec_write(dev, SECT(200), SECT(60), 5, false), 0);
	work();
	put(G_DATA2, CRAFT_SECTORS, 6);
	work();
	churn(300, 60, 7);
	finish();
}

/* ---- 4: a full write parked while another's FLUSH completes ---- */

static int parked_rc;
static bool parked;

static void others_go_on(void)
{
	char buf[512];

	flush();
	/* Readers see the old content until the write is through. */
	assert_int_equal(fdev_read(dev, buf, SECT(G_PACKED), 1), 0);
	assert_int_equal(buf[0], 0x33);
	put(G_DATA, 2, 3);
	assert_int_equal(rec_write(dev, SECT(101), 1, 4, true), 0);
}

static int park(const struct sp_file *f, enum sp_io_op op, const void *buf, uint64_t off,
		uint64_t len)
{
	(void)off;
	if (f || op != SP_IO_WRITE || len != CRAFT_CLUSTER || *(const uint8_t *)buf != 0x66)
		return 0;
	parked = true;
	rec_before = NULL;
	others_go_on();
	return parked_rc;
}

static void parked_write(int rc)
{
	char buf[512];

	begin();
	put(100, 1, 1);
	flush();
	assert_int_equal(fdev_read(dev, buf, SECT(G_PACKED), 1), 0);
	put(101, 1, 2);		/* what is flushed meanwhile is older */
	parked = false;
	parked_rc = rc;
	rec_before = park;
	assert_int_equal(rec_write(dev, SECT(G_PACKED), CRAFT_SECTORS, 0x66, false), rc);
	assert_true(parked);
	assert_int_equal(fdev_stats(dev)->places, 1);
	flush();
	churn(200, 20, 5);
	finish();
}

/*
 * Fails without "c->f1 =" in installed() of qcow2/change.c: the entry may be there
 * without the data.  With both pend_floor() of reply.c counting unfinished tids in
 * and *tid not lowered in round_snapshot(), the kernel is told of a commit of what
 * it still writes; either is enough.
 */
static void t4_parked_full_write_then_cut(void **state)
{
	(void)state;
	parked_write(0);
}

/* Fails without "if (!p->place)" in chg_apply() of qcow2/change.c: the new place
 * counts before anything is in it. */
static void t4_parked_full_write_then_eio(void **state)
{
	(void)state;
	parked_write(-EIO);
}

/* And killed meanwhile: the next mapper hears of it as a PLACE in flight.
 * Fails without hc_set() in note_place() of qcow2/relink.c: its place is taken for
 * free and given to others. */
static int park_and_die(const struct sp_file *f, enum sp_io_op op, const void *buf,
			uint64_t off, uint64_t len)
{
	(void)off;
	if (f || op != SP_IO_WRITE || len != CRAFT_CLUSTER || *(const uint8_t *)buf != 0x66)
		return 0;
	parked = true;
	rec_before = NULL;
	if (fdev_reattach(dev, &err))
		fail_msg("%s", err.msg);
	assert_int_equal(rec_write(dev, SECT(300), SECT(60), 6, false), 0);
	work();
	put(500, 1, 7);
	return parked_rc;
}

static void t4_parked_full_write_then_kill(void **state)
{
	unsigned int i;

	(void)state;
	for (i = 0; i < 2; i++) {
		begin();
		put(100, 1, 1);
		flush();
		parked = false;
		parked_rc = i ? -EIO : 0;
		rec_before = park_and_die;
		assert_int_equal(rec_write(dev, SECT(G_PACKED), CRAFT_SECTORS, 0x66, false),
				 parked_rc);
		assert_true(parked);
		flush();
		churn(200, 20, 5);
		finish();
	}
}

/* ---- 5: a slow read through an extent that is gone ---- */

static void reuse_below_the_reader(uint64_t off, uint64_t len)
{
	(void)len;
	if (off != AT(CR_DATA))
		return;
	fdev_read_hook = NULL;
	fdev_evict(dev, 100);
	put(600, 1, 1);
	assert_int_equal(rec_zeroes(dev, SECT(G_DATA), CRAFT_SECTORS, false), 0);
	/* No FLUSH: it waits for the reader as well.  The timer's round: */
	__atomic_fetch_add(&sp_clock_skew_ms, 6000, __ATOMIC_RELAXED);
	sp_work(fdev_image(dev));
	work();
	assert_int_equal(rec_write(dev, SECT(200), SECT(100), 0x99, false), 0);
	work();
	assert_int_equal(rec_write(dev, SECT(400), SECT(100), 0x9a, false), 0);
}

/*
 * The reader has its extent, which is evicted and replaced; nobody may touch
 * what it points to until the reader is through.
 *
 * Fails without "if (c->sent) ..." in round_snapshot() of qcow2/round.c: a change is
 * committed, and what it drops reused, before the kernel has drained.
 */
static void t5_slow_read_through_an_evicted_extent(void **state)
{
	char buf[CRAFT_CLUSTER];
	unsigned int i;

	(void)state;
	begin();
	put(100, 1, 1);
	flush();
	assert_int_equal(fdev_read(dev, buf, SECT(G_DATA), CRAFT_SECTORS), 0);
	fdev_read_hook = reuse_below_the_reader;
	assert_int_equal(fdev_read(dev, buf, SECT(G_DATA), CRAFT_SECTORS), 0);
	assert_null(fdev_read_hook);
	for (i = 0; i < CRAFT_CLUSTER; i++)
		assert_int_equal(buf[i], 0x11);
	finish();
}

/* ---- 6: a late MAP ---- */

static pthread_t writer;
static bool writing, written;

static void *write_and_evict(void *arg)
{
	(void)arg;
	put(G_PACKED, 1, 0x44);
	flush();
	fdev_evict(dev, 100);
	__atomic_store_n(&written, true, __ATOMIC_RELEASE);
	return NULL;
}

/* The answer to a read is on its way; meanwhile its neighbour is written. */
static void hold_the_answer(const struct sp_req *req, const struct sp_reply *r)
{
	(void)r;
	if (req->kind != SP_READ || writing)
		return;
	writing = true;
	pthread_create(&writer, NULL, write_and_evict, NULL);
	usleep(60000);
	assert_false(__atomic_load_n(&written, __ATOMIC_ACQUIRE));
}

/*
 * What a read maps ahead must not come after a change of it.
 *
 * Fails with the image's lock dropped around reply_redrive() in try_read() of
 * read.c: the mapping is decided and submitted under one hold of it (rule 1).
 */
static void t6_late_map(void **state)
{
	char buf[512];

	(void)state;
	begin();
	put(100, 1, 1);
	flush();
	assert_int_equal(fdev_read(dev, buf, SECT(G_PACKED), 1), 0);	/* to the cache */
	fdev_evict(dev, 100);
	writing = written = false;
	fdev_reply_hook = hold_the_answer;
	assert_int_equal(fdev_read(dev, buf, SECT(G_DATA), 1), 0);
	fdev_reply_hook = NULL;
	assert_true(writing);
	pthread_join(writer, NULL);
	finish();
}

/* ---- 7: a flush into a flush ---- */

static pthread_t second;
static unsigned int second_at;		/* what the sync counts down to */
static bool second_fua;

static void *flush_again(void *arg)
{
	(void)arg;
	if (second_fua)
		assert_int_equal(rec_write(dev, SECT(300) + 2, 1, 0x78, true), 0);
	else
		flush();
	return NULL;
}

/* While fdatasync runs, it is too late for it. */
static void write_into_the_sync(const struct sp_file *f, enum sp_io_op op, const void *buf,
				uint64_t off, uint64_t len)
{
	(void)buf; (void)off; (void)len;
	if (!f || op != SP_IO_SYNC || !second_at || --second_at)
		return;
	put(300, 1, 0x77);
	pthread_create(&second, NULL, flush_again, NULL);
	usleep(60000);
}

static void flush_into_a_flush(bool fua)
{
	begin();
	put(99, 1, 1);
	flush();
	put(300, 4, 0x70);
	second_at = 1;
	second_fua = fua;
	rec_after = write_into_the_sync;
	flush();
	assert_int_equal(second_at, 0);
	pthread_join(second, NULL);
	/* Now at the latest it is there: nothing more is done for it. */
	rec_after = NULL;
	decide();
	finish();
}

/* Both: fail if want in commit_upto() of commit.c is the round that is under way. */
static void t7_flush_into_a_flush(void **state)
{
	(void)state;
	flush_into_a_flush(false);
}

static void t7_fua_into_a_flush(void **state)
{
	(void)state;
	flush_into_a_flush(true);
}

/* ---- 11: a zero cluster that kept its place ---- */

/*
 * Fails with class != CLASS_KEPT left out and its clusters taken as they are:
 * "j->kept" in transfer() of qcow2/copy.c makes them zero first.
 */
static void t11_zero_cluster_with_stale_storage(void **state)
{
	(void)state;
	begin();
	put(G_ZERO_ALLOC, 1, 0x77);
	assert_int_equal(rec_read(dev), -1);
	flush();
	fdev_evict(dev, 100);
	assert_int_equal(rec_read(dev), -1);
	/* Another one, that ZEROES left behind. */
	assert_int_equal(rec_zeroes(dev, SECT(G_DATA2), CRAFT_SECTORS, true), 0);
	flush();
	assert_int_equal(rec_write(dev, SECT(G_DATA2) + 3, 1, 0x78, false), 0);
	flush();
	finish();
}

/* ---- 7: a write that goes with the copy ---- */

/*
 * Fails with fewer or more sectors DONE than the write has of the cluster, without
 * SP_EXT_TOUCHED in answer() of qcow2/copy.c (the FLUSH is none of the mapper's
 * then), and without c->f1 there.
 */
static void r7_a_write_is_done_with_its_copy(void **state)
{
	(void)state;
	begin();
	put(100, 1, 1);
	flush();
	assert_int_equal(rec_write(dev, SECT(G_PACKED) + 3, 2, 0x44, false), 0);
	assert_int_equal(fdev_stats(dev)->merged, 1);
	assert_int_equal(fdev_stats(dev)->write_hits, 1);	/* the one before */
	assert_int_equal(rec_read(dev), -1);
	flush();
	fdev_evict(dev, 100);
	assert_int_equal(rec_read(dev), -1);
	finish();
}

/* The rest of it, in the next cluster, is looked up again.  Fails likewise. */
static void r7_a_write_goes_on_behind_its_copy(void **state)
{
	(void)state;
	begin();
	assert_int_equal(rec_write(dev, SECT(G_NONE) - 2, 5, 0x45, false), 0);
	assert_int_equal(fdev_stats(dev)->merged, 1);
	assert_int_equal(fdev_stats(dev)->write_hits, 1);
	assert_int_equal(rec_read(dev), -1);
	flush();
	finish();
}

/*
 * DONE would end it before it is durable.  Fails without SP_REQ_FUA in merge() of
 * qcow2/copy.c.
 */
static void r7_a_fua_write_is_not_done_with_its_copy(void **state)
{
	(void)state;
	begin();
	assert_int_equal(rec_write(dev, SECT(G_PACKED) + 3, 2, 0x46, true), 0);
	assert_int_equal(fdev_stats(dev)->merged, 0);
	assert_int_equal(fdev_stats(dev)->write_hits, 1);
	finish();
}

/* The same write comes to the next mapper, whatever of it is in some cluster. */
static void r7_a_copy_is_made_again_after_a_kill(void **state)
{
	unsigned int n;

	(void)state;
	for (n = 1; n < 12; n++) {
		begin();
		put(100, 1, 1);
		flush();
		fdev_kill_at(dev, n);
		put(G_PACKED, 1, 0x47);
		assert_int_equal(rec_read(dev), -1);
		flush();
		finish();
	}
}

int main(void)
{
	const struct CMUnitTest directed[] = {
		TEST(t1_hidden_supersede_then_cut),
		TEST(t1_hidden_supersede_then_kill),
		TEST(r14_a_round_writes_only_what_is_in_it),
		TEST(t2_ghost_of_a_table_write),
		TEST(t2_ghost_of_a_copy),
		TEST(t2_ghost_of_a_punch),
		TEST(t3_kill_between_an_entry_and_its_fdatasync),
		TEST(t4_parked_full_write_then_cut),
		TEST(t4_parked_full_write_then_eio),
		TEST(t4_parked_full_write_then_kill),
		TEST(t5_slow_read_through_an_evicted_extent),
		TEST(t6_late_map),
		TEST(t7_flush_into_a_flush),
		TEST(t7_fua_into_a_flush),
		TEST(t11_zero_cluster_with_stale_storage),
		TEST(r7_a_write_is_done_with_its_copy),
		TEST(r7_a_write_goes_on_behind_its_copy),
		TEST(r7_a_fua_write_is_not_done_with_its_copy),
		TEST(r7_a_copy_is_made_again_after_a_kill),
	};

	return RUN_TRIALS(directed);
}
