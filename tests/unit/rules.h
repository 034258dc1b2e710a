/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * rules.h - an image under a test's eyes: every I/O of its file is noted, and some
 * can be made to fail.  For the rules on the mapper's side, each of which has a test
 * of its name in test_rules_*.c; they are those of "Bugs of this family" in
 * docs/prior-art.md, and some of docs/durability.md that need a directed schedule.
 * Images are made by fake/craft.c, so most of this needs no QEMU; where qemu-img is
 * there it is asked for its opinion of the result.  Included by the one file of each
 * test program.
 */
#ifndef TESTS_UNIT_RULES_H
#define TESTS_UNIT_RULES_H

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

static MAYBE_UNUSED int log_hook(const struct sp_file *f, enum sp_io_op op, const void *buf,
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

static MAYBE_UNUSED unsigned int count(enum sp_io_op op)
{
	unsigned int i, n = 0;

	for (i = 0; i < nr_ev; i++)
		n += ev[i].op == op;
	return n;
}

/* The first event from i on that touches the range with op; nr_ev if none. */
static MAYBE_UNUSED unsigned int next_event(unsigned int i, enum sp_io_op op, uint64_t off, uint64_t len)
{
	for (; i < nr_ev; i++)
		if (ev[i].op == op && ev[i].off < off + len && off < ev[i].off + ev[i].len)
			break;
	return i;
}

static MAYBE_UNUSED unsigned int next_sync(unsigned int i)
{
	while (i < nr_ev && ev[i].op != SP_IO_SYNC)
		i++;
	return i;
}

/* ---- images ---- */

static MAYBE_UNUSED bool allow_all(void *ctx, const char *path)
{
	(void)ctx; (void)path;
	return true;
}

static MAYBE_UNUSED int try_open_as(const char *name, const char *format, bool read_only)
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

static MAYBE_UNUSED int try_open(void)
{
	return try_open_as("img.qcow2", "qcow2", false);
}

static MAYBE_UNUSED void must_open(void)
{
	int rc = try_open();

	if (rc)
		fail_msg("%s", err.msg);
}

static MAYBE_UNUSED void store(struct craft *c, const char *name)
{
	unlink(in_scratch(name));	/* a test that failed may still hold it */
	write_file(in_scratch(name), c->buf, c->size);
	free(c->buf);
}

static MAYBE_UNUSED void open_sound(void)
{
	struct craft c;

	craft_new(&c);
	store(&c, "img.qcow2");
	must_open();
}

static MAYBE_UNUSED void finish(void)
{
	int rc = fdev_finish(dev, &err);

	sp_io_hook = NULL;
	if (rc)
		fail_msg("%s", err.msg);
}

/* 0: sound, 3: leaks only, 2: errors */
static MAYBE_UNUSED int judged(const char *name)
{
	return qemu ? sh("qemu-img check -f qcow2 %s", name) : 0;
}

static MAYBE_UNUSED uint64_t on_file(const char *name, size_t off)
{
	struct craft c;
	uint64_t v;

	c.buf = (uint8_t *)read_file(in_scratch(name), &c.size);
	assert_true(off + 8 <= c.size);
	v = craft_get64(&c, off);
	free(c.buf);
	return v;
}

static MAYBE_UNUSED void write_at(unsigned int guest, unsigned int sectors, char byte)
{
	memset(data, byte, sectors * 512);
	assert_int_equal(fdev_write(dev, data, SECT(guest), sectors, false), 0);
}

static MAYBE_UNUSED void expect_at(uint64_t lba, unsigned int sectors, char byte)
{
	unsigned int i;

	assert_int_equal(fdev_read(dev, back, lba, sectors), 0);
	for (i = 0; i < sectors * 512; i++)
		if (back[i] != byte)
			fail_msg("lba %llu byte %u: %02x instead of %02x",
				 (unsigned long long)lba, i, back[i] & 0xff, byte & 0xff);
}

/* The host cluster that guest is mapped to; it must be mapped in the image. */
static MAYBE_UNUSED uint64_t host_of(unsigned int guest)
{
	struct sp_extent e;

	assert_true(fdev_extent(dev, SECT(guest), &e));
	assert_int_equal(e.type, SP_LINEAR);
	assert_int_equal(e.store, 0);
	return (e.off + SECT(guest) - e.lba) / CRAFT_SECTORS;
}

/* Write clusters until one lands on host, at most n; how many were written. */
static MAYBE_UNUSED unsigned int write_until_reuse(uint64_t host, unsigned int first, unsigned int n)
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

/* ---- a test program ---- */

static MAYBE_UNUSED void begin_rules(void)
{
	scratch_make();
	qemu = have("qemu-img");
	if (getenv("ONLY"))
		cmocka_set_test_filter(getenv("ONLY"));
}

#endif /* TESTS_UNIT_RULES_H */
