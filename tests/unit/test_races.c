// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_races.c - corners where several meet, as far as the mapper's half is
 * concerned.  The driver's half of them is tested in guests.
 */
#include "util.h"
#include <pthread.h>
#include "cm.h"
#include "craft.h"
#include "cuts.h"
#include "fakedev.h"
#include "io.h"
#include "record.h"

#define WRITERS		64
#define BIG		128		/* sectors of a cluster of 64 KiB */

static struct sp_err err;
static struct fdev *dev;
static bool qemu;

static void must_open(struct fdev_opts o)
{
	o.path = in_scratch("img.qcow2");
	o.format = "qcow2";
	o.seed = 1;
	if (fdev_open(&dev, &o, &err))
		fail_msg("%s", err.msg);
}

static void must_finish(void)
{
	if (fdev_finish(dev, &err))
		fail_msg("%s", err.msg);
	sp_io_hook = NULL;
	if (qemu)
		assert_int_equal(sh("qemu-img check -f qcow2 img.qcow2"), 0);
}

static void fill(const char *name, uint8_t val, size_t bytes)
{
	char *buf = malloc(bytes);

	memset(buf, val, bytes);
	write_file(in_scratch(name), buf, bytes);
	free(buf);
}

/* ---- many writers, one cluster ---- */

static pthread_barrier_t together;
static unsigned int cluster_writes;

static void *write_one(void *arg)
{
	unsigned long n = (unsigned long)arg;
	char buf[512];

	memset(buf, 0x80 + n, sizeof(buf));
	pthread_barrier_wait(&together);
	return (void *)(long)fdev_write(dev, buf, BIG + 2 * n, 1, false);
}

/* Whoever comes meanwhile finds the copy under way. */
static int slow_copy(const struct sp_file *f, enum sp_io_op op, const void *buf, uint64_t off,
		     uint64_t len)
{
	(void)buf; (void)off;
	if (op != SP_IO_WRITE || !f->writable || len != BIG * 512)
		return 0;
	__atomic_fetch_add(&cluster_writes, 1, __ATOMIC_RELAXED);
	usleep(20000);
	return 0;
}

/*
 * Of 64 writers of a sector each one cluster is copied once, and each sector is
 * there.  The driver sends one fault per cluster at a time (rule 1); with crowd
 * this one does not, and the mapper has to hold them apart by itself.
 *
 * Fails without taken() in try_write() of qcow2/write.c.
 */
static void writers_of_one_cluster(unsigned int crowd)
{
	uint8_t got[BIG * 512], want;
	pthread_t thread[WRITERS];
	struct sp_stats stats;
	unsigned long i;
	void *rc;

	if (!qemu)
		skip();
	fill("base", 0x11, 4 * BIG * 512);
	assert_int_equal(sh("rm -f img.qcow2; qemu-img create -f qcow2 -b base -F raw img.qcow2"), 0);
	must_open((struct fdev_opts){ .late = 30, .slow = 20, .crowd = crowd });
	assert_int_equal(fdev_write(dev, got, 0, 1, false), 0);	/* all is prepared */
	sp_io_hook = slow_copy;
	cluster_writes = 0;
	pthread_barrier_init(&together, NULL, WRITERS);
	for (i = 0; i < WRITERS; i++)
		pthread_create(&thread[i], NULL, write_one, (void *)i);
	for (i = 0; i < WRITERS; i++) {
		pthread_join(thread[i], &rc);
		assert_null(rc);
	}
	pthread_barrier_destroy(&together);
	sp_stats(fdev_image(dev), &stats);
	assert_int_equal(stats.cows, 2);		/* one is that of before */
	assert_int_equal(cluster_writes, 1);
	assert_int_equal(fdev_read(dev, got, BIG, BIG), 0);
	for (i = 0; i < BIG * 512; i++) {
		want = i / 512 % 2 ? 0x11 : 0x80 + i / 1024;
		if (got[i] != want)
			fail_msg("sector %lu is %02x instead of %02x", i / 512, got[i], want);
	}
	must_finish();
}

static void writers_of_one_cluster_copy_it_once(void **state)
{
	(void)state;
	writers_of_one_cluster(0);
}

static void writers_of_one_cluster_are_held_apart_by_the_mapper_too(void **state)
{
	(void)state;
	writers_of_one_cluster(100);
}

/* ---- FUA on a hit ---- */

/*
 * A miss has changed tables, a FUA write then hits the same cluster.  When it is
 * through, power fails: its sector has to be found.
 *
 * Fails without image_sync() at the end of round_io() in commit.c.
 */
static void fua_on_a_hit_after_a_miss_is_found_again(void **state)
{
	static const uint8_t zeros[1024];
	struct cuts_sum sum = { 0 };
	uint64_t lba;
	char why[300];

	(void)state;
	if (!qemu)
		skip();
	assert_int_equal(sh("rm -f img.qcow2; qemu-img create -f qcow2 -o cluster_size=4k img.qcow2 512k"), 0);
	rec_start(in_scratch("img.qcow2"), 1024, zeros, NULL);
	must_open((struct fdev_opts){ .late = 30 });
	for (lba = 0; lba < 1024; lba += 128) {
		assert_int_equal(rec_write(dev, lba, 1, 0x41, false), 0);
		assert_int_equal(rec_write(dev, lba + 2, 1, 0x42, true), 0);
	}
	if (!cuts_decide(&sum, why, sizeof(why)))
		fail_msg("%s", why);
	assert_true(fdev_stats(dev)->write_hits >= 16);
	fdev_drop(dev);
	rec_stop();
	rec_free();
}

/* ---- a backing file that is cut short under us ---- */

/*
 * What was behind the new end cannot be copied: the write fails, nothing of it is
 * linked, and others go on.  Zeros instead would be another's word for data.
 *
 * Fails with a short read taken for zeros: NULL for got in read_mapped() of
 * chain.c becoming &got.
 */
static void what_a_truncated_backing_lacks_is_eio(void **state)
{
	char buf[512];
	struct craft c;

	(void)state;
	fill("base", 0x77, 64 * CRAFT_CLUSTER);
	craft_new(&c);
	craft_backing(&c, "base", 4, "raw");
	unlink(in_scratch("img.qcow2"));
	write_file(in_scratch("img.qcow2"), c.buf, c.size);
	free(c.buf);
	must_open((struct fdev_opts){ .hostile = true });
	memset(buf, 0x42, sizeof(buf));
	assert_int_equal(fdev_write(dev, buf, 20 * CRAFT_SECTORS, 1, false), 0);
	assert_int_equal(truncate(in_scratch("base"), 40 * CRAFT_CLUSTER), 0);
	assert_int_equal(fdev_write(dev, buf, 50 * CRAFT_SECTORS + 1, 1, false), -EIO);
	assert_int_equal(fdev_read(dev, buf, 50 * CRAFT_SECTORS, 1), -EIO);
	/* The others. */
	memset(buf, 0x43, sizeof(buf));
	assert_int_equal(fdev_write(dev, buf, 30 * CRAFT_SECTORS + 1, 1, false), 0);
	assert_int_equal(fdev_read(dev, buf, 30 * CRAFT_SECTORS, 1), 0);
	assert_int_equal(buf[0], 0x77);
	assert_int_equal(fdev_read(dev, buf, 20 * CRAFT_SECTORS + 1, 1), 0);
	assert_int_equal(buf[0], 0x77);
	assert_int_equal(fdev_flush(dev), 0);
	must_finish();
	/* Nothing of it is linked: it reads as if never written. */
	fill("base", 0x77, 64 * CRAFT_CLUSTER);
	must_open((struct fdev_opts){ 0 });
	assert_int_equal(fdev_read(dev, buf, 50 * CRAFT_SECTORS + 1, 1), 0);
	assert_int_equal(buf[0], 0x77);
	must_finish();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(writers_of_one_cluster_copy_it_once),
		cmocka_unit_test(writers_of_one_cluster_are_held_apart_by_the_mapper_too),
		cmocka_unit_test(fua_on_a_hit_after_a_miss_is_found_again),
		cmocka_unit_test(what_a_truncated_backing_lacks_is_eio),
	};

	scratch_make();
	qemu = have("qemu-img");
	if (getenv("ONLY"))
		cmocka_set_test_filter(getenv("ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
