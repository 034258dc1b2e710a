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
#include "util.h"
#include <pthread.h>
#include "cm.h"
#include "craft.h"
#include "cuts.h"
#include "fakedev.h"
#include "lock.h"
#include "record.h"

#define SECT(guest)	((uint64_t)(guest) * CRAFT_SECTORS)
#define NR_SECT		SECT(CRAFT_GUEST)
#define LAND_MS		120		/* how late a ghost comes */

static struct sp_err err;
static struct fdev *dev;
static struct cuts_sum sum;
static unsigned long kills;
static bool qemu;
static unsigned int seed = 1;

/* ---- a device on the hand-made image, recorded ---- */

static void craft_it(void)
{
	struct craft c;

	craft_new(&c);
	unlink(in_scratch("img.qcow2"));	/* a test that failed may still hold it */
	write_file(in_scratch("img.qcow2"), c.buf, c.size);
	free(c.buf);
}

static void open_dev(void)
{
	struct fdev_opts o = { .path = in_scratch("img.qcow2"), .format = "qcow2",
			       .seed = seed };
	int rc = fdev_open(&dev, &o, &err);

	if (rc)
		fail_msg("%s", err.msg);
}

static void begin(void)
{
	static uint8_t initial[NR_SECT];

	fdev_read_hook = NULL;
	fdev_reply_hook = NULL;
	memset(initial + SECT(G_DATA), 0x11, CRAFT_SECTORS);
	memset(initial + SECT(G_PACKED), 0x33, CRAFT_SECTORS);
	memset(initial + SECT(G_DATA2), 0x55, CRAFT_SECTORS);
	craft_it();
	rec_start(in_scratch("img.qcow2"), NR_SECT, initial, NULL);
	open_dev();
}

static void decide(void)
{
	char why[300];

	if (!cuts_decide(&sum, why, sizeof(why)))
		fail_msg("%s", why);
}

static void finish(void)
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
static void finish_quickly(void)
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
static void put(unsigned int guest, unsigned int sectors, uint8_t val)
{
	assert_int_equal(rec_write(dev, SECT(guest), sectors, val, false), 0);
}

static void flush(void)
{
	assert_int_equal(rec_flush(dev), 0);
}

static uint64_t newest_tid(void)
{
	struct sp_extent *ext;
	uint64_t tid;

	fdev_dump(dev, &ext, &tid);
	free(ext);
	return tid;
}

static void work(void)
{
	__atomic_fetch_add(&sp_clock_skew_ms, 700, __ATOMIC_RELAXED);
	fdev_settle(dev);
	while (!sp_work(fdev_image(dev)))
		;
}

/* Commit, reclaim and write, until what was dropped has new owners. */
static void churn(unsigned int first, unsigned int nr, uint8_t val)
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

static bool within(uint64_t off, uint64_t len, uint64_t at, uint64_t n)
{
	return off < at + n && at < off + len;
}

static unsigned int syncs_since(unsigned int i)
{
	unsigned int n = 0;

	for (; i < rec.nr; i++)
		n += rec.log[i].op == SP_IO_SYNC;
	return n;
}

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

/* ---- 8: a new refcount block and a new table ---- */

#define TINY_SECT	2048		/* clusters of 512, 64 to a table or block */

static uint8_t taken[REC_FILE_MAX / 512];	/* sectors with space on the disk */
static uint64_t nr_taken, disk_room;

static void begin_tiny(void)
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
	rec_start(in_scratch("img.qcow2"), TINY_SECT, zeros, NULL);
	memset(taken, 0, sizeof(taken));
	memset(taken, 1, rec.base_len / 512);
	nr_taken = rec.base_len / 512;
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
	begin_tiny();
	assert_int_equal(rec_write(dev, 64, 1, 1, false), 0);
	flush();
	/* And some more, so that a pool's worth of blocks comes anew. */
	assert_int_equal(rec_write(dev, 200, 700, 2, false), 0);
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
 * Fails without the punch before the reserve is filled (collect() in
 * qcow2/refill.c): the space of the dead mapper's reserve is not found again.
 */
static void t8_kill_at_any_step_on_a_full_disk(void **state)
{
	bool every = getenv("EVERY");
	unsigned int n, i, tried = 0, attaches = 2;

	(void)state;
	if (!qemu)
		skip();
	for (n = 1; attaches > 1; n += every ? 1 : 1 + n / 6) {
		begin_tiny();
		rec_before = full_disk;
		for (i = 0; i < 8; i++)
			assert_int_equal(rec_write(dev, 64 * i + 3, 1, i + 1, false), 0);
		disk_room = nr_taken;
		fdev_orphan(dev);
		fdev_kill_at(dev, n);
		assert_int_equal(fdev_reattach(dev, &err), 0);
		attaches = fdev_stats(dev)->attaches;
		if (attaches > 1)
			fdev_kill_at(dev, 0);
		flush();
		fdev_kill_at(dev, 0);
		disk_room = UINT64_MAX;
		/* All cuts of one of these take a second. */
		if (tried++ % 8 == 0 || attaches == 1)
			finish();
		else
			finish_quickly();
	}
	print_message("# killed at %u steps\n", tried - 1);
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

static int report(void **state)
{
	(void)state;
	print_message("# %lu places of %lu recordings decided, %lu kills in them\n",
		      sum.places, sum.recordings, kills);
	rec_free();
	return 0;
}

#define TEST(f)	cmocka_unit_test(f)

int main(void)
{
	const struct CMUnitTest tests[] = {
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
		TEST(t8_first_cluster_then_cut),
		TEST(t8_kill_at_any_step_on_a_full_disk),
		TEST(t9_one_failed_background_fdatasync),
		TEST(t10_locks),
		TEST(t11_zero_cluster_with_stale_storage),
		TEST(a_flush_costs_what_rule_20_says),
	};

	scratch_make();
	qemu = have("qemu-img") && have("qemu-io");
	if (getenv("SEED"))
		seed = strtoul(getenv("SEED"), NULL, 0);
	if (getenv("ONLY"))
		cmocka_set_test_filter(getenv("ONLY"));
	return cmocka_run_group_tests_name("directed", tests, NULL, report);
}
