// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_rules.c - what others got wrong on the mapper's side, rule by rule.
 *
 * Each test is named after a rule; the rules are those of "Bugs of this family" in
 * docs/prior-art.md, and some of docs/durability.md that need a directed schedule.
 * Images are made by fake/craft.c, so most of this needs no QEMU; where
 * qemu-img is there it is asked for its opinion of the result.
 */
#include "util.h"
#include "cm.h"
#include "craft.h"
#include "fakedev.h"
#include "io.h"

#define SECT(guest)	((uint64_t)(guest) * CRAFT_SECTORS)

static struct sp_err err;
static struct fdev *dev;
static char data[64 * CRAFT_CLUSTER], back[64 * CRAFT_CLUSTER];
static bool qemu;

/* ---- what the slowpath does to the image file ---- */

struct event {
	enum sp_io_op op;
	uint64_t off, len;
};

static struct event ev[20000];
static unsigned int nr_ev;
static int fail_op = -1;		/* enum sp_io_op */
static uint64_t fail_lo, fail_hi;	/* bytes */
static unsigned int failed;

static int log_hook(const struct sp_file *f, enum sp_io_op op, const void *buf,
		    uint64_t off, uint64_t len)
{
	(void)buf;
	if (!f->writable)
		return 0;
	if (nr_ev < sizeof(ev) / sizeof(ev[0]))
		ev[nr_ev++] = (struct event) { op, off, len };
	if ((int)op == fail_op && off < fail_hi && fail_lo < off + (len ? len : 1)) {
		failed++;
		return -EIO;
	}
	return 0;
}

static unsigned int count(enum sp_io_op op)
{
	unsigned int i, n = 0;

	for (i = 0; i < nr_ev; i++)
		n += ev[i].op == op;
	return n;
}

/* The first event from i on that touches the range with op; nr_ev if none. */
static unsigned int next_event(unsigned int i, enum sp_io_op op, uint64_t off, uint64_t len)
{
	for (; i < nr_ev; i++)
		if (ev[i].op == op && ev[i].off < off + len && off < ev[i].off + ev[i].len)
			break;
	return i;
}

static unsigned int next_sync(unsigned int i)
{
	while (i < nr_ev && ev[i].op != SP_IO_SYNC)
		i++;
	return i;
}

/* ---- images ---- */

static bool allow_all(void *ctx, const char *path)
{
	(void)ctx; (void)path;
	return true;
}

static int try_open_as(const char *name, const char *format, bool read_only)
{
	struct fdev_opts o = { .path = in_scratch(name), .format = format,
			       .read_only = read_only, .seed = 1, .allow_backing = allow_all };

	nr_ev = 0;
	fail_op = -1;
	fail_lo = 0;
	failed = 0;
	sp_io_hook = log_hook;
	return fdev_open(&dev, &o, &err);
}

static int try_open(void)
{
	return try_open_as("img.qcow2", "qcow2", false);
}

static void must_open(void)
{
	int rc = try_open();

	if (rc)
		fail_msg("%s", err.msg);
}

static void store(struct craft *c, const char *name)
{
	unlink(in_scratch(name));	/* a test that failed may still hold it */
	write_file(in_scratch(name), c->buf, c->size);
	free(c->buf);
}

static void open_sound(void)
{
	struct craft c;

	craft_new(&c);
	store(&c, "img.qcow2");
	must_open();
}

static void finish(void)
{
	int rc = fdev_finish(dev, &err);

	sp_io_hook = NULL;
	if (rc)
		fail_msg("%s", err.msg);
}

/* 0: sound, 3: leaks only, 2: errors */
static int judged(const char *name)
{
	return qemu ? sh("qemu-img check -f qcow2 %s", name) : 0;
}

static uint64_t on_file(const char *name, size_t off)
{
	struct craft c;
	uint64_t v;

	c.buf = (uint8_t *)read_file(in_scratch(name), &c.size);
	assert_true(off + 8 <= c.size);
	v = craft_get64(&c, off);
	free(c.buf);
	return v;
}

static void write_at(unsigned int guest, unsigned int sectors, char byte)
{
	memset(data, byte, sectors * 512);
	assert_int_equal(fdev_write(dev, data, SECT(guest), sectors, false), 0);
}

static void expect_at(uint64_t lba, unsigned int sectors, char byte)
{
	unsigned int i;

	assert_int_equal(fdev_read(dev, back, lba, sectors), 0);
	for (i = 0; i < sectors * 512; i++)
		if (back[i] != byte)
			fail_msg("lba %llu byte %u: %02x instead of %02x",
				 (unsigned long long)lba, i, back[i] & 0xff, byte & 0xff);
}

/* The host cluster that guest is mapped to; it must be mapped in the image. */
static uint64_t host_of(unsigned int guest)
{
	struct sp_extent e;

	assert_true(fdev_extent(dev, SECT(guest), &e));
	assert_int_equal(e.type, SP_LINEAR);
	assert_int_equal(e.store, 0);
	return (e.off + SECT(guest) - e.lba) / CRAFT_SECTORS;
}

/* Write clusters until one lands on host, at most n; how many were written. */
static unsigned int write_until_reuse(uint64_t host, unsigned int first, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++) {
		write_at(first + i, CRAFT_SECTORS, 0x61);
		if (host_of(first + i) == host)
			break;
		write_at(first + i + n, 1, 0x62);
		if (host_of(first + i + n) == host)
			break;
	}
	return i;
}

/* ---- a freed cluster ---- */

/* The mapper of a VMM let a punch and a new owner meet. */
static void a_freed_cluster_is_not_reusable_before_its_readers_have_drained(void **state)
{
	uint64_t host;
	int i;

	(void)state;
	open_sound();
	expect_at(SECT(G_DATA), CRAFT_SECTORS, 0x11);
	host = host_of(G_DATA);
	fdev_hold(dev);			/* a reader of it */
	assert_int_equal(fdev_discard(dev, SECT(G_DATA), CRAFT_SECTORS), 0);
	/* No flush: it would have to wait for that reader as well. */
	for (i = 0; i < 4; i++) {
		write_at(100 + i, 1, 1);
		sp_work(fdev_image(dev));
	}
	assert_int_equal(write_until_reuse(host, 200, 150), 150);
	/* And its bytes are still there for that reader. */
	assert_int_equal(next_event(0, SP_IO_PUNCH, host * CRAFT_CLUSTER, CRAFT_CLUSTER), nr_ev);
	assert_int_equal(next_event(0, SP_IO_ZERO, host * CRAFT_CLUSTER, CRAFT_CLUSTER), nr_ev);
	assert_int_equal(next_event(0, SP_IO_WRITE, host * CRAFT_CLUSTER, CRAFT_CLUSTER), nr_ev);
	fdev_unhold(dev);
	finish();
	assert_int_equal(judged("img.qcow2"), 0);
}

static void a_freed_cluster_is_not_reusable_before_its_metadata_is_durable(void **state)
{
	uint64_t host;

	(void)state;
	open_sound();
	expect_at(SECT(G_DATA), CRAFT_SECTORS, 0x11);
	host = host_of(G_DATA);
	write_at(60, 1, 1);		/* the pool is there */
	assert_int_equal(fdev_flush(dev), 0);
	nr_ev = 0;
	assert_int_equal(fdev_discard(dev, SECT(G_DATA), CRAFT_SECTORS), 0);
	fdev_settle(dev);
	while (!sp_work(fdev_image(dev)))
		;
	/* Nobody has flushed: whatever was written, it is not reused or punched
	 * unless the L2 entry went to the file and was synced. */
	write_until_reuse(host, 200, 60);
	{
		unsigned int l2 = next_event(0, SP_IO_WRITE, craft_l2(G_DATA), 8);
		unsigned int synced = next_sync(l2);
		unsigned int ops[] = { SP_IO_PUNCH, SP_IO_ZERO, SP_IO_WRITE }, i;

		for (i = 0; i < 3; i++) {
			unsigned int n = next_event(0, ops[i], host * CRAFT_CLUSTER,
						    CRAFT_CLUSTER);

			if (n < nr_ev)
				assert_true(l2 < synced && synced < n);
		}
	}
	finish();
	assert_int_equal(judged("img.qcow2"), 0);
}

static void a_freed_cluster_is_reused_zeroed_and_synced(void **state)
{
	unsigned int l2, synced, punched, n;
	uint64_t host;

	(void)state;
	open_sound();
	expect_at(SECT(G_DATA), CRAFT_SECTORS, 0x11);
	host = host_of(G_DATA);
	nr_ev = 0;
	assert_int_equal(fdev_discard(dev, SECT(G_DATA), CRAFT_SECTORS), 0);
	/* Rounds of commit and work until it comes round. */
	for (n = 0; n < 20; n++) {
		sp_clock_skew_ms += 700;
		write_at(300 + n, 1, 1);
		assert_int_equal(fdev_flush(dev), 0);
		fdev_settle(dev);
		while (!sp_work(fdev_image(dev)))
			;
		if (host_of(300 + n) == host)
			break;
	}
	if (n == 20 && write_until_reuse(host, 400, 200) == 200)
		print_message("# never reused; allowed, but the file grows\n");
	l2 = next_event(0, SP_IO_WRITE, craft_l2(G_DATA), 8);
	synced = next_sync(l2);
	punched = next_event(synced, SP_IO_PUNCH, host * CRAFT_CLUSTER, CRAFT_CLUSTER);
	if (punched == nr_ev)
		punched = next_event(synced, SP_IO_ZERO, host * CRAFT_CLUSTER, CRAFT_CLUSTER);
	assert_true(l2 < synced && synced < punched && punched < nr_ev);
	/* The punch has to be durable before somebody else gets the cluster. */
	if (n < 20)
		assert_true(next_sync(punched) < nr_ev);
	finish();
	assert_int_equal(judged("img.qcow2"), 0);
}

static void a_replaced_cluster_keeps_its_content_until_the_link_is_durable(void **state)
{
	(void)state;
	/* Overwrite of a compressed cluster: its host cluster is dropped. */
	open_sound();
	nr_ev = 0;
	write_at(G_PACKED, 1, 0x44);
	expect_at(SECT(G_PACKED) + 1, CRAFT_SECTORS - 1, 0x33);
	assert_int_equal(next_event(0, SP_IO_PUNCH, AT(CR_PACKED), 512), nr_ev);
	assert_int_equal(next_event(0, SP_IO_ZERO, AT(CR_PACKED), 512), nr_ev);
	fdev_drop(dev);			/* everything dies: the old one is there */
	sp_io_hook = NULL;
	assert_int_equal(on_file("img.qcow2", craft_l2(G_PACKED)),
			 AT(CR_PACKED) | QC_COMPRESSED);
	must_open();
	expect_at(SECT(G_PACKED), CRAFT_SECTORS, 0x33);
	write_at(G_ZERO, 1, 1);		/* without a write nothing is tidied up */
	finish();
	assert_int_equal(judged("img.qcow2"), 0);
}

/* ---- errors between allocation and link ---- */

static void an_error_while_linking_frees_neither_old_nor_new(void **state)
{
	uint64_t old, new;
	int rc, i;

	(void)state;
	open_sound();
	expect_at(SECT(G_DATA), CRAFT_SECTORS, 0x11);
	old = host_of(G_DATA);
	assert_int_equal(fdev_zeroes(dev, SECT(G_DATA), CRAFT_SECTORS, false), 0);
	write_at(G_DATA, 3, 0x44);
	new = host_of(G_DATA);
	fail_op = SP_IO_WRITE;
	fail_lo = AT(CR_L2);
	fail_hi = AT(CR_L2) + CRAFT_CLUSTER;
	rc = fdev_flush(dev);
	assert_int_not_equal(rc, 0);
	assert_true(failed > 0);
	nr_ev = 0;
	/* What is on the file for this entry is unknown now: both stay. */
	for (i = 0; i < 30; i++) {
		struct sp_extent e;

		memset(data, 1, 512);
		rc = fdev_write(dev, data, SECT(700 + i), 1, false);
		if (rc || !fdev_extent(dev, SECT(700 + i), &e) || e.type != SP_LINEAR)
			continue;
		assert_true(host_of(700 + i) != old && host_of(700 + i) != new);
	}
	assert_int_equal(next_event(0, SP_IO_PUNCH, old * CRAFT_CLUSTER, CRAFT_CLUSTER), nr_ev);
	assert_int_equal(next_event(0, SP_IO_PUNCH, new * CRAFT_CLUSTER, CRAFT_CLUSTER), nr_ev);
	expect_at(SECT(G_DATA), 3, 0x44);	/* reads go on */
	fdev_finish(dev, &err);
	sp_io_hook = NULL;
	rc = judged("img.qcow2");
	assert_true(rc == 0 || rc == 3);
}

static void a_failed_placing_write_leaves_the_old_content(void **state)
{
	struct fdev_opts o = { .format = "qcow2", .seed = 1, .place_fail = 100 };
	struct craft c;
	int i, rc;

	(void)state;
	craft_new(&c);
	store(&c, "img.qcow2");
	o.path = in_scratch("img.qcow2");
	nr_ev = 0;
	assert_int_equal(fdev_open(&dev, &o, &err), 0);
	memset(data, 0x66, CRAFT_CLUSTER);
	for (i = 0; i < 4; i++) {
		rc = fdev_write(dev, data, SECT(G_PACKED), CRAFT_SECTORS, false);
		if (!rc) {
			print_message("# not placed\n");
			break;
		}
		assert_int_equal(rc, -EIO);
		expect_at(SECT(G_PACKED), CRAFT_SECTORS, 0x33);
		assert_int_equal(fdev_flush(dev), 0);
	}
	finish();
	assert_int_equal(judged("img.qcow2"), 0);
}

static void after_enospc_no_entry_points_to_a_free_cluster(void **state)
{
	int i, rc, wrote = 0;

	(void)state;
	open_sound();
	write_at(50, 1, 1);
	assert_int_equal(fdev_flush(dev), 0);
	/* The file cannot grow from here, and no refcount can be written. */
	fail_op = SP_IO_WRITE;
	fail_lo = AT(CR_RB);
	fail_hi = AT(CR_RB) + CRAFT_CLUSTER;
	for (i = 0; i < 300; i++) {
		memset(data, 2, 512);
		rc = fdev_write(dev, data, SECT(100 + i), 1, false);
		if (rc)
			break;
		wrote++;
	}
	fdev_flush(dev);
	fdev_drop(dev);
	sp_io_hook = NULL;
	print_message("# %d clusters from the pool before it was empty\n", wrote);
	rc = judged("img.qcow2");
	assert_true(rc == 0 || rc == 3);
}

/* ---- syncs ---- */

static void a_failed_sync_is_never_retried_as_success(void **state)
{
	uint64_t entry;

	(void)state;
	open_sound();
	write_at(70, 1, 1);
	assert_int_equal(fdev_flush(dev), 0);
	write_at(71, 1, 2);
	fail_op = SP_IO_SYNC;
	fail_hi = 1;
	assert_int_not_equal(fdev_flush(dev), 0);
	assert_true(failed > 0);
	fail_op = -1;			/* the disk is well again; too late */
	entry = on_file("img.qcow2", craft_l2(72));
	nr_ev = 0;
	memset(data, 3, 512);
	assert_int_not_equal(fdev_write(dev, data, SECT(72), 1, false), 0);
	assert_int_not_equal(fdev_flush(dev), 0);
	assert_int_not_equal(fdev_flush(dev), 0);
	while (!sp_work(fdev_image(dev)))
		;
	expect_at(SECT(70), 1, 1);	/* reads go on */
	expect_at(SECT(71), 1, 2);
	assert_int_equal(count(SP_IO_WRITE), 0);	/* nothing further is linked */
	assert_int_equal(count(SP_IO_PUNCH), 0);	/* nothing is freed */
	assert_int_equal(on_file("img.qcow2", craft_l2(72)), entry);
	assert_int_not_equal(fdev_finish(dev, &err), 0);
	sp_io_hook = NULL;
	assert_true(err.msg[0]);
}

static void a_flush_of_overwrites_needs_no_mapper_and_of_new_zeros_one_sync(void **state)
{
	unsigned int flushes;

	(void)state;
	open_sound();
	write_at(80, 1, 1);
	assert_int_equal(fdev_flush(dev), 0);
	/* Rule 20: an allocation over zeros costs one fdatasync. */
	nr_ev = 0;
	write_at(81, 1, 1);
	assert_int_equal(count(SP_IO_SYNC), 0);
	assert_int_equal(fdev_flush(dev), 0);
	assert_int_equal(count(SP_IO_SYNC), 1);
	/* Overwrites: the kernel alone. */
	flushes = fdev_stats(dev)->faults[SP_FLUSH];
	nr_ev = 0;
	write_at(81, 1, 9);
	assert_int_equal(fdev_flush(dev), 0);
	assert_int_equal(count(SP_IO_SYNC), 0);
	assert_int_equal(fdev_stats(dev)->faults[SP_FLUSH], flushes);
	/* A copy: at most two. */
	write_at(G_PACKED, 1, 9);
	nr_ev = 0;
	assert_int_equal(fdev_flush(dev), 0);
	assert_in_range(count(SP_IO_SYNC), 1, 2);
	finish();
	assert_int_equal(judged("img.qcow2"), 0);
}

/* The copy must be durable before the entry that points to it is written. */
static void a_copy_is_durable_before_it_is_linked(void **state)
{
	unsigned int copied, synced, linked;
	uint64_t host;

	(void)state;
	open_sound();
	write_at(50, 1, 1);
	assert_int_equal(fdev_flush(dev), 0);
	nr_ev = 0;
	write_at(G_PACKED, 1, 9);
	host = host_of(G_PACKED);
	assert_int_equal(fdev_flush(dev), 0);
	copied = next_event(0, SP_IO_WRITE, host * CRAFT_CLUSTER, CRAFT_CLUSTER);
	synced = next_sync(copied);
	linked = next_event(0, SP_IO_WRITE, craft_l2(G_PACKED), 8);
	assert_true(copied < synced && synced < linked && linked < nr_ev);
	assert_true(next_sync(linked) < nr_ev);
	finish();
}

/* Likewise what the kernel placed: there was something else there before. */
static void a_placed_cluster_is_durable_before_it_is_linked(void **state)
{
	unsigned int places, linked;

	(void)state;
	open_sound();
	write_at(50, 1, 1);
	assert_int_equal(fdev_flush(dev), 0);
	places = fdev_stats(dev)->places;
	write_at(G_PACKED, CRAFT_SECTORS, 9);
	assert_int_equal(fdev_stats(dev)->places, places + 1);
	fdev_settle(dev);
	nr_ev = 0;
	assert_int_equal(fdev_flush(dev), 0);
	linked = next_event(0, SP_IO_WRITE, craft_l2(G_PACKED), 8);
	assert_true(next_sync(0) < linked && linked < nr_ev);
	assert_true(next_sync(linked) < nr_ev);
	finish();
	assert_int_equal(judged("img.qcow2"), 0);
}

/*
 * Directed test 1 of the durability protocol.
 *
 *	guest				mapper
 *	DISCARD A			ZERO(A), tid 5, uncommitted
 *	FLUSH up to 5, parked
 *	write A				new storage for A, tid 6, not acknowledged
 *					a round: A cannot be in it
 *					FLUSH: 5 is not durable, although all below 6
 *					is acknowledged
 */
static void a_flush_waits_for_what_a_later_change_hides(void **state)
{
	struct sp_extent *ext;
	uint64_t tid;
	int rc;

	(void)state;
	open_sound();
	expect_at(SECT(G_DATA), CRAFT_SECTORS, 0x11);
	write_at(100, 1, 1);
	assert_int_equal(fdev_flush(dev), 0);
	assert_int_equal(fdev_discard(dev, SECT(G_DATA), CRAFT_SECTORS), 0);
	fdev_settle(dev);
	free((fdev_dump(dev, &ext, &tid), ext));
	fdev_hold(dev);
	write_at(G_DATA, 1, 0x44);
	rc = fdev_try_flush(dev, tid);
	if (!rc)	/* then the file must not have the old cluster any more */
		assert_int_not_equal(on_file("img.qcow2", craft_l2(G_DATA)),
				     AT(CR_DATA) | QC_COPIED);
	else
		assert_int_equal(rc, -EAGAIN);
	fdev_unhold(dev);
	assert_int_equal(fdev_try_flush(dev, tid), 0);
	assert_int_not_equal(on_file("img.qcow2", craft_l2(G_DATA)), AT(CR_DATA) | QC_COPIED);
	finish();
	assert_int_equal(judged("img.qcow2"), 0);
}

/* Directed test 11 of the durability protocol. */
static void a_zero_cluster_with_stale_storage_shows_only_zeros(void **state)
{
	(void)state;
	open_sound();
	write_at(G_ZERO_ALLOC, 1, 0x77);
	expect_at(SECT(G_ZERO_ALLOC), 1, 0x77);
	expect_at(SECT(G_ZERO_ALLOC) + 1, CRAFT_SECTORS - 1, 0);
	assert_int_equal(fdev_flush(dev), 0);
	fdev_evict(dev, 100);
	expect_at(SECT(G_ZERO_ALLOC) + 1, CRAFT_SECTORS - 1, 0);
	fdev_drop(dev);
	sp_io_hook = NULL;
	must_open();
	expect_at(SECT(G_ZERO_ALLOC), 1, 0x77);
	expect_at(SECT(G_ZERO_ALLOC) + 1, CRAFT_SECTORS - 1, 0);
	write_at(G_ZERO, 1, 1);
	finish();
	assert_int_equal(judged("img.qcow2"), 0);
}

/* ---- trust ---- */

static void internal_snapshots_are_refused_for_writing(void **state)
{
	(void)state;
	if (!qemu)
		skip();
	assert_int_equal(sh("rm -f s.qcow2; qemu-img create -f qcow2 s.qcow2 1M && qemu-io -c 'write 0 64k' s.qcow2 && qemu-img snapshot -c one s.qcow2"), 0);
	assert_int_equal(try_open_as("s.qcow2", "qcow2", false), -ENOTSUP);
	assert_non_null(strstr(err.msg, "snapshot"));
	sp_io_hook = NULL;
	assert_int_equal(sh("qemu-img snapshot -l s.qcow2 | grep one"), 0);
}

static void an_image_not_closed_cleanly_is_checked_or_refused(void **state)
{
	struct craft c;
	int i;

	(void)state;
	/* Refcounts as a dirty image may have them: too low, too high. */
	craft_new(&c);
	craft_be64(&c, H_INCOMPAT, 1);
	memset(c.buf + craft_rc(CR_DATA), 0, 2);
	memset(c.buf + craft_rc(CR_DATA2), 0, 2);
	memset(c.buf + craft_rc(CR_L2B), 0, 2);
	c.buf[craft_rc(CR_END + 1) + 1] = 1;
	store(&c, "img.qcow2");
	if (try_open()) {
		print_message("# refused: %s\n", err.msg);
		sp_io_hook = NULL;
		return;
	}
	for (i = 0; i < 40; i++)
		write_at(100 + i, CRAFT_SECTORS, 0x5a);
	expect_at(SECT(G_DATA), CRAFT_SECTORS, 0x11);
	expect_at(SECT(G_DATA2), CRAFT_SECTORS, 0x55);
	finish();
	assert_int_equal(judged("img.qcow2"), 0);
}

static void copied_is_not_believed_against_the_refcount(void **state)
{
	struct craft c;
	int rc;

	(void)state;
	/* Dirty, and a cluster that two entries share says COPIED. */
	craft_new(&c);
	craft_be64(&c, H_INCOMPAT, 1);
	craft_be64(&c, craft_l2(G_DATA2), AT(CR_DATA) | QC_COPIED);
	store(&c, "img.qcow2");
	rc = try_open();
	if (rc) {
		print_message("# refused: %s\n", err.msg);
		sp_io_hook = NULL;
		return;
	}
	write_at(G_DATA, CRAFT_SECTORS, 0x5a);
	expect_at(SECT(G_DATA2), CRAFT_SECTORS, 0x11);
	fdev_finish(dev, &err);
	sp_io_hook = NULL;
}

/* Whoever dies leaves the dirty bit, so that the next one knows. */
static void the_dirty_bit_is_set_while_written_and_clear_after(void **state)
{
	unsigned int cleared, i;

	(void)state;
	open_sound();
	expect_at(0, 1, 0x11);
	assert_int_equal(on_file("img.qcow2", H_INCOMPAT), 0);
	nr_ev = 0;
	write_at(G_DATA, 1, 1);
	assert_int_equal(on_file("img.qcow2", H_INCOMPAT), 1);
	/* And durably so before the kernel may write. */
	assert_true(next_sync(next_event(0, SP_IO_WRITE, 0, 512)) < nr_ev);
	nr_ev = 0;
	finish();
	/* It goes alone, when all else is durable. */
	cleared = next_event(0, SP_IO_WRITE, 0, 512);
	assert_true(cleared < nr_ev && cleared > 0);
	for (i = cleared; i-- && ev[i].op != SP_IO_SYNC;)
		assert_int_equal(ev[i].op, SP_IO_TRUNCATE);
	assert_true(next_sync(cleared) < nr_ev);
	assert_int_equal(on_file("img.qcow2", H_INCOMPAT), 0);
	assert_int_equal(judged("img.qcow2"), 0);
}

/* ---- limits and overlaps: the rest is in test_hostile.c ---- */

static void refused_with(void (*change)(struct craft *c), const char *says)
{
	struct craft c;
	int rc;

	craft_new(&c);
	change(&c);
	store(&c, "img.qcow2");
	rc = try_open();
	sp_io_hook = NULL;
	if (!rc)
		fdev_drop(dev);
	assert_int_not_equal(rc, 0);
	if (says && !strcasestr(err.msg, says))
		fail_msg("\"%s\" does not say \"%s\"", err.msg, says);
}

static void sparse_l1(struct craft *c) { craft_be32(c, H_L1_SIZE, (32u << 20) / 8 + 1); }
static void sparse_rt(struct craft *c) { craft_be32(c, H_RT_CLUSTERS, (8u << 20) / CRAFT_CLUSTER + 1); }
static void many_snaps(struct craft *c) { craft_be32(c, H_NB_SNAP, 65537); }
static void negative(struct craft *c) { craft_be64(c, H_SIZE, 1ull << 63); }

static void limits_are_checked_before_allocation(void **state)
{
	(void)state;
	refused_with(sparse_l1, "L1");
	refused_with(sparse_rt, "refcount");
	refused_with(many_snaps, "snapshot");
	refused_with(negative, NULL);
}

static void rt_l1(struct craft *c) { craft_be64(c, H_RT_OFF, AT(CR_L1)); }
static void l1_hdr(struct craft *c) { craft_be64(c, H_L1_OFF, 0); }
static void rb_hdr(struct craft *c) { craft_be64(c, AT(CR_RT), 0 | 1 << 9); }

static void tables_do_not_overlap(void **state)
{
	(void)state;
	refused_with(rt_l1, NULL);
	refused_with(l1_hdr, NULL);
	refused_with(rb_hdr, NULL);
}

static void metadata_past_the_end_of_the_file_is_an_error_not_zeros(void **state)
{
	struct craft c;
	int rc;

	(void)state;
	craft_new(&c);
	craft_be64(&c, AT(CR_L1), AT(500) | QC_COPIED);
	store(&c, "img.qcow2");
	assert_int_equal(try_open_as("img.qcow2", "qcow2", true), 0);
	assert_int_equal(fdev_read(dev, back, 0, 1), -EIO);
	fdev_drop(dev);
	rc = try_open();
	if (!rc) {
		assert_int_equal(fdev_read(dev, back, 0, 1), -EIO);
		memset(data, 1, 512);
		assert_int_equal(fdev_write(dev, data, 0, 1, false), -EIO);
		fdev_drop(dev);
	}
	sp_io_hook = NULL;
}

/* ---- formats and backing files ---- */

static void the_format_of_a_guests_raw_disk_is_not_guessed(void **state)
{
	struct craft c;

	(void)state;
	craft_new(&c);
	craft_backing(&c, "/etc/passwd", 11, "raw");
	write_file(in_scratch("disk.img"), c.buf, c.size);
	write_file(in_scratch("disk"), c.buf, c.size);
	free(c.buf);
	assert_int_equal(try_open_as("disk.img", NULL, false), -EINVAL);
	assert_int_equal(try_open_as("disk", NULL, false), -EINVAL);
	assert_int_equal(try_open_as("disk.img", "raw", false), 0);
	assert_string_equal(fdev_info(dev)->format, "raw");
	assert_int_equal(fdev_info(dev)->depth, 0);
	assert_int_equal(fdev_read(dev, back, 0, 1), 0);
	assert_memory_equal(back, "QFI\xfb", 4);
	finish();
}

static void make_overlay(const char *name, const char *backing, const char *fmt)
{
	struct craft c;

	craft_new(&c);
	craft_backing(&c, backing, strlen(backing), fmt);
	store(&c, name);
}

static void backing_files_are_read_only_and_have_their_stated_format(void **state)
{
	const struct sp_store *s;

	(void)state;
	memset(data, 0x77, sizeof(data));
	memcpy(data, "QFI\xfb\0\0\0\3", 8);
	write_file(in_scratch("base"), data, sizeof(data));
	make_overlay("img.qcow2", "base", NULL);
	assert_int_equal(try_open(), -EINVAL);
	assert_non_null(strstr(err.msg, "base"));
	make_overlay("img.qcow2", "base", "raw");
	must_open();
	assert_int_equal(fdev_info(dev)->depth, 1);
	s = sp_store(fdev_image(dev), 1);
	assert_non_null(s);
	assert_int_equal(s->flags & SP_STORE_WRITE, 0);
	assert_int_equal(fcntl(s->fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	expect_at(SECT(G_NONE), CRAFT_SECTORS, 0x77);
	expect_at(SECT(G_ZERO), CRAFT_SECTORS, 0);
	write_at(G_NONE, 1, 1);
	expect_at(SECT(G_NONE) + 1, CRAFT_SECTORS - 1, 0x77);
	assert_int_equal(fdev_discard(dev, SECT(G_NONE), CRAFT_SECTORS), 0);
	finish();
	assert_int_equal(judged("img.qcow2"), 0);
	{
		size_t len;
		char *now = read_file(in_scratch("base"), &len);

		assert_int_equal(len, sizeof(data));
		memset(data, 0x77, sizeof(data));
		assert_memory_equal(now + 512, data + 512, len - 512);
		free(now);
	}
}

static unsigned int nr_asked;
static char asked[300];

static bool refuse_all(void *ctx, const char *path)
{
	(void)ctx;
	nr_asked++;
	snprintf(asked, sizeof(asked), "%s", path);
	return false;
}

static void backing_files_are_opened_only_where_the_operator_allows(void **state)
{
	struct fdev_opts o = { .format = "qcow2", .allow_backing = refuse_all, .seed = 1 };

	(void)state;
	/* A fifo: opening it would hang, being asked does not. */
	mkfifo(in_scratch("pipe"), 0600);
	make_overlay("img.qcow2", "pipe", "raw");
	o.path = in_scratch("img.qcow2");
	nr_asked = 0;
	assert_int_not_equal(fdev_open(&dev, &o, &err), 0);
	assert_int_equal(nr_asked, 1);
	assert_string_equal(asked, in_scratch("pipe"));
	assert_non_null(strstr(err.msg, "pipe"));
	o.allow_backing = NULL;
	alarm(5);
	assert_int_not_equal(fdev_open(&dev, &o, &err), 0);
	alarm(0);
}

static void no_protocol_or_json_names(void **state)
{
	(void)state;
	make_overlay("img.qcow2", "json:{\"driver\":\"nbd\"}", "raw");
	assert_int_equal(try_open(), -ENOTSUP);
	make_overlay("img.qcow2", "nbd://localhost/x", "raw");
	assert_int_equal(try_open(), -ENOTSUP);
	assert_non_null(strstr(err.msg, "nbd://"));
}

static void cycles_are_found_by_device_and_inode(void **state)
{
	(void)state;
	alarm(10);
	make_overlay("img.qcow2", "img.qcow2", "qcow2");
	assert_int_equal(try_open(), -ELOOP);
	/* a -> b -> a under another name */
	make_overlay("img.qcow2", "b.qcow2", "qcow2");
	make_overlay("b.qcow2", "c.qcow2", "qcow2");
	unlink(in_scratch("c.qcow2"));
	assert_int_equal(link(in_scratch("img.qcow2"), in_scratch("c.qcow2")), 0);
	assert_int_equal(try_open(), -ELOOP);
	alarm(0);
	unlink(in_scratch("c.qcow2"));
}

static void depth_is_bounded(void **state)
{
	char name[32], below[32];
	int i, rc;

	(void)state;
	make_overlay("img.qcow2", "d0", "qcow2");
	for (i = 0; i < 400; i++) {
		snprintf(name, sizeof(name), "d%d", i);
		snprintf(below, sizeof(below), "d%d", i + 1);
		make_overlay(name, below, "qcow2");
	}
	alarm(10);
	rc = try_open();
	alarm(0);
	assert_true(rc == -ELOOP);
	/* A reasonable one is let in. */
	write_file(in_scratch("d20"), "x", 1);
	make_overlay("d19", "d20", "raw");
	must_open();
	assert_int_equal(fdev_info(dev)->depth, 21);
	finish();
}

/* ---- bits and extensions ---- */

static void unknown_incompatible_bits_are_refused(void **state)
{
	struct craft c;
	int bit;

	(void)state;
	for (bit = 5; bit < 64; bit++) {
		craft_new(&c);
		craft_be64(&c, H_INCOMPAT, 1ull << bit);
		store(&c, "img.qcow2");
		assert_int_equal(try_open(), -ENOTSUP);
		assert_int_equal(try_open_as("img.qcow2", "qcow2", true), -ENOTSUP);
	}
	sp_io_hook = NULL;
}

static void unknown_autoclear_bits_are_cleared_before_the_first_write(void **state)
{
	unsigned int cleared, synced;
	struct craft c;

	(void)state;
	craft_new(&c);
	craft_be64(&c, H_AUTOCLEAR, 1ull << 40 | 1);
	craft_be64(&c, H_COMPAT, 1ull << 41);
	store(&c, "img.qcow2");
	must_open();
	expect_at(0, 8, 0x11);
	assert_int_equal(count(SP_IO_WRITE), 0);	/* reading changes nothing */
	write_at(0, 1, 2);
	assert_int_equal(on_file("img.qcow2", H_AUTOCLEAR), 0);
	assert_int_equal(on_file("img.qcow2", H_COMPAT), 1ull << 41);
	cleared = next_event(0, SP_IO_WRITE, H_AUTOCLEAR, 8);
	synced = next_sync(cleared);
	assert_true(cleared < synced && synced < nr_ev);
	finish();
	assert_int_equal(on_file("img.qcow2", H_COMPAT), 1ull << 41);

	/* Opened and not written to: they stay. */
	craft_new(&c);
	craft_be64(&c, H_AUTOCLEAR, 1ull << 40);
	store(&c, "img.qcow2");
	must_open();
	expect_at(0, 8, 0x11);
	finish();
	assert_int_equal(on_file("img.qcow2", H_AUTOCLEAR), 1ull << 40);
}

static void unknown_header_extensions_survive(void **state)
{
	static const char feature[48] = "\0\0dirty bit";
	char *before, *now;
	struct craft c;
	size_t len;
	int i;

	(void)state;
	craft_new(&c);
	craft_extension(&c, 0x12345678, "keep this text", 14);
	craft_extension(&c, 0x6803f857, feature, sizeof(feature));
	memset(c.buf + 3000, 0xcc, 500);	/* nobody's, but ours least of all */
	before = malloc(CRAFT_CLUSTER);
	memcpy(before, c.buf, CRAFT_CLUSTER);
	store(&c, "img.qcow2");
	must_open();
	for (i = 0; i < 200; i++)
		write_at(100 + i, 1, i);
	finish();
	now = read_file(in_scratch("img.qcow2"), &len);
	assert_memory_equal(now + H_EXT, before + H_EXT, CRAFT_CLUSTER - H_EXT);
	free(now);
	free(before);
	assert_int_equal(judged("img.qcow2"), 0);
}

/* ---- decompression ---- */

static void a_damaged_compressed_cluster_is_eio_for_that_cluster_only(void **state)
{
	struct craft c;

	(void)state;
	craft_new(&c);
	memset(c.buf + AT(CR_PACKED), 0xff, 64);
	store(&c, "img.qcow2");
	must_open();
	assert_int_equal(fdev_read(dev, back, SECT(G_PACKED), CRAFT_SECTORS), -EIO);
	expect_at(SECT(G_DATA), CRAFT_SECTORS, 0x11);
	expect_at(SECT(G_DATA2), CRAFT_SECTORS, 0x55);
	/* No copy of it can be made; all of it can be replaced. */
	memset(data, 4, CRAFT_CLUSTER);
	assert_int_equal(fdev_write(dev, data, SECT(G_PACKED), 1, false), -EIO);
	assert_int_equal(fdev_write(dev, data, SECT(G_PACKED), CRAFT_SECTORS, false), 0);
	expect_at(SECT(G_PACKED), CRAFT_SECTORS, 4);
	finish();
	assert_int_equal(judged("img.qcow2"), 0);
}

static void compressed_data_may_end_with_the_file(void **state)
{
	struct craft c;
	size_t off;

	(void)state;
	craft_new(&c);
	/* At the very end, announced as longer than the file is. */
	off = AT(CR_END) + 512;
	memcpy(c.buf + off, c.buf + AT(CR_PACKED), 40);
	c.size = off + 40;
	craft_be64(&c, craft_l2(G_PACKED), off | 1ull << 58 | QC_COMPRESSED);
	c.buf[craft_rc(CR_END) + 1] = 1;
	memset(c.buf + craft_rc(CR_PACKED), 0, 2);
	store(&c, "img.qcow2");
	must_open();
	expect_at(SECT(G_PACKED), CRAFT_SECTORS, 0x33);
	finish();
}

/* ---- attach ---- */

static void numbering_goes_on_above_what_the_kernel_has_seen(void **state)
{
	struct sp_extent *ext;
	uint64_t before, after;
	unsigned int n;

	(void)state;
	open_sound();
	write_at(90, 1, 1);
	free((fdev_dump(dev, &ext, &before), ext));
	assert_int_equal(fdev_reattach(dev, &err), 0);
	write_at(91, 1, 1);
	n = fdev_dump(dev, &ext, &after);
	assert_true(n >= 1 && after > before);
	free(ext);
	finish();
	assert_int_equal(judged("img.qcow2"), 0);
}

static void relinking_loses_nothing_and_invents_nothing(void **state)
{
	int round;

	(void)state;
	open_sound();
	for (round = 0; round < 5; round++) {
		write_at(110 + round, 3, round + 1);
		write_at(G_PACKED, 1, round + 1);
		assert_int_equal(fdev_discard(dev, SECT(G_DATA2), CRAFT_SECTORS), 0);
		assert_int_equal(fdev_reattach(dev, &err), 0);
		expect_at(SECT(110 + round), 3, round + 1);
		expect_at(SECT(G_PACKED), 1, round + 1);
		expect_at(SECT(G_PACKED) + 1, CRAFT_SECTORS - 1, 0x33);
		expect_at(SECT(G_DATA2), CRAFT_SECTORS, 0);
		expect_at(SECT(G_DATA), CRAFT_SECTORS, 0x11);
		write_at(G_DATA2, 1, 7);
		expect_at(SECT(G_DATA2) + 1, CRAFT_SECTORS - 1, 0);
	}
	finish();
	assert_int_equal(judged("img.qcow2"), 0);
	if (qemu)
		assert_int_equal(sh("qemu-io -r -f qcow2 -c 'read -P 5 %llu 1536' img.qcow2 | grep -v -i fail && ! qemu-io -r -f qcow2 -c 'read -P 5 %llu 1536' img.qcow2 | grep -i fail",
				    SECT(114) * 512ull, SECT(114) * 512ull), 0);
}

#define TEST(f)	cmocka_unit_test(f)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_freed_cluster_is_not_reusable_before_its_readers_have_drained),
		TEST(a_freed_cluster_is_not_reusable_before_its_metadata_is_durable),
		TEST(a_freed_cluster_is_reused_zeroed_and_synced),
		TEST(a_replaced_cluster_keeps_its_content_until_the_link_is_durable),
		TEST(an_error_while_linking_frees_neither_old_nor_new),
		TEST(a_failed_placing_write_leaves_the_old_content),
		TEST(after_enospc_no_entry_points_to_a_free_cluster),
		TEST(a_failed_sync_is_never_retried_as_success),
		TEST(a_flush_of_overwrites_needs_no_mapper_and_of_new_zeros_one_sync),
		TEST(a_copy_is_durable_before_it_is_linked),
		TEST(a_placed_cluster_is_durable_before_it_is_linked),
		TEST(a_flush_waits_for_what_a_later_change_hides),
		TEST(a_zero_cluster_with_stale_storage_shows_only_zeros),
		TEST(internal_snapshots_are_refused_for_writing),
		TEST(an_image_not_closed_cleanly_is_checked_or_refused),
		TEST(copied_is_not_believed_against_the_refcount),
		TEST(the_dirty_bit_is_set_while_written_and_clear_after),
		TEST(limits_are_checked_before_allocation),
		TEST(tables_do_not_overlap),
		TEST(metadata_past_the_end_of_the_file_is_an_error_not_zeros),
		TEST(the_format_of_a_guests_raw_disk_is_not_guessed),
		TEST(backing_files_are_read_only_and_have_their_stated_format),
		TEST(backing_files_are_opened_only_where_the_operator_allows),
		TEST(no_protocol_or_json_names),
		TEST(cycles_are_found_by_device_and_inode),
		TEST(depth_is_bounded),
		TEST(unknown_incompatible_bits_are_refused),
		TEST(unknown_autoclear_bits_are_cleared_before_the_first_write),
		TEST(unknown_header_extensions_survive),
		TEST(a_damaged_compressed_cluster_is_eio_for_that_cluster_only),
		TEST(compressed_data_may_end_with_the_file),
		TEST(numbering_goes_on_above_what_the_kernel_has_seen),
		TEST(relinking_loses_nothing_and_invents_nothing),
	};

	scratch_make();
	qemu = have("qemu-img");
	if (getenv("ONLY"))
		cmocka_set_test_filter(getenv("ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
