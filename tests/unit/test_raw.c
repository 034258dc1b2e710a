// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_raw.c - raw images: storage that cannot do all that is asked of it.
 */
#include "rules.h"

#define SECTORS		8192u		/* of the image */
#define PART		64u

static bool no_punch;

static int refusing_hook(const struct sp_file *f, enum sp_io_op op, const void *buf,
			 uint64_t off, uint64_t len)
{
	int rc = log_hook(f, op, buf, off, len);

	return op == SP_IO_PUNCH && no_punch ? -EOPNOTSUPP : rc;
}

static void open_raw(void)
{
	int fd;

	unlink(in_scratch("a.raw"));
	fd = open(in_scratch("a.raw"), O_RDWR | O_CREAT, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, SECTORS * 512), 0);
	close(fd);
	if (try_open_as("a.raw", "raw", false))
		fail_msg("%s", err.msg);
	sp_io_hook = refusing_hook;
}

static void fill(uint64_t lba, char byte)
{
	memset(data, byte, PART * 512);
	assert_int_equal(fdev_write(dev, data, lba, PART, false), 0);
}

/* ---- discards ---- */

static void a_discard_writes_nothing_where_it_can_free_nothing(void **state)
{
	(void)state;
	no_punch = true;
	open_raw();
	fill(0, 0x11);
	fill(SECTORS - PART, 0x22);
	nr_ev = 0;
	assert_int_equal(fdev_discard(dev, 0, SECTORS), 0);
	assert_int_equal(count(SP_IO_WRITE) + count(SP_IO_ZERO), 0);
	assert_int_equal(count(SP_IO_PUNCH), 1);	/* and is not tried for each part */
	expect_at(0, PART, 0x11);
	expect_at(SECTORS - PART, PART, 0x22);
	assert_int_equal(fdev_flush(dev), 0);
	no_punch = false;
	finish();
}

static void zeroes_are_written_where_nothing_can_be_punched(void **state)
{
	(void)state;
	no_punch = true;
	open_raw();
	fill(0, 0x11);
	fill(PART, 0x22);
	fill(2 * PART, 0x33);
	assert_int_equal(fdev_zeroes(dev, 0, PART, false), 0);
	assert_int_equal(fdev_zeroes(dev, PART, PART, true), 0);
	expect_at(0, 2 * PART, 0);
	expect_at(2 * PART, PART, 0x33);
	no_punch = false;
	finish();
}

static void a_discard_frees_where_it_can(void **state)
{
	struct stat before, after;

	(void)state;
	open_raw();
	fill(0, 0x11);
	fill(PART, 0x22);
	assert_int_equal(fdev_flush(dev), 0);
	assert_int_equal(stat(in_scratch("a.raw"), &before), 0);
	assert_int_equal(fdev_discard(dev, 0, PART), 0);
	assert_int_equal(stat(in_scratch("a.raw"), &after), 0);
	assert_true(after.st_blocks < before.st_blocks);
	expect_at(0, PART, 0);
	expect_at(PART, PART, 0x22);
	assert_true(fdev_info(dev)->discard_gran);
	finish();
}

/* What the pool gives away has to be zero, so there it does matter. */
static void clusters_of_a_qcow2_image_are_zero_without_punching(void **state)
{
	unsigned int i;

	(void)state;
	no_punch = true;
	open_sound();
	sp_io_hook = refusing_hook;
	for (i = 0; i < 40; i++) {
		write_at(100 + i, CRAFT_SECTORS, 0x5a);
		assert_int_equal(fdev_discard(dev, SECT(100 + i), CRAFT_SECTORS), 0);
		assert_int_equal(fdev_flush(dev), 0);
		expect_at(SECT(100 + i), CRAFT_SECTORS, 0);
	}
	for (i = 0; i < 60; i++) {
		write_at(200 + i, 1, 0x6a);
		expect_at(SECT(200 + i), 1, 0x6a);
		expect_at(SECT(200 + i) + 1, CRAFT_SECTORS - 1, 0);
	}
	no_punch = false;
	finish();
	assert_int_equal(judged("img.qcow2"), 0);
}

/* ---- a file of another size than the device ---- */

static void attach_after(uint64_t bytes)
{
	struct fdev_opts o = { .path = in_scratch("a.raw"), .format = "raw", .seed = 1,
			       .hostile = true };	/* the file may end too early */

	open_raw();
	finish();
	if (fdev_open(&dev, &o, &err))
		fail_msg("%s", err.msg);
	fill(0, 0x11);
	fill(SECTORS - PART, 0x22);
	fdev_orphan(dev);
	fdev_evict(dev, 100);
	assert_int_equal(truncate(in_scratch("a.raw"), bytes), 0);
	if (fdev_reattach(dev, &err))
		fail_msg("%s", err.msg);
	assert_int_equal(sp_info(fdev_image(dev))->size, SECTORS);
}

static void a_file_that_grew_does_not_make_the_device_larger(void **state)
{
	(void)state;
	attach_after(2 * SECTORS * 512 + 77);
	expect_at(SECTORS - PART, PART, 0x22);
	expect_at(0, PART, 0x11);
	assert_int_equal(fdev_discard(dev, 0, SECTORS), 0);
	expect_at(SECTORS - PART, PART, 0);
	finish();
}

static void what_a_file_that_shrank_lacks_is_eio_until_it_is_written(void **state)
{
	(void)state;
	attach_after(PART * 512);
	expect_at(0, PART, 0x11);
	assert_int_equal(fdev_read(dev, back, SECTORS - PART, PART), -EIO);
	assert_int_equal(fdev_read(dev, back, PART, 1), -EIO);
	fill(SECTORS - PART, 0x33);
	expect_at(SECTORS - PART, PART, 0x33);
	expect_at(PART, PART, 0);
	assert_int_equal(fdev_flush(dev), 0);
	finish();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_discard_writes_nothing_where_it_can_free_nothing),
		cmocka_unit_test(zeroes_are_written_where_nothing_can_be_punched),
		cmocka_unit_test(a_discard_frees_where_it_can),
		cmocka_unit_test(clusters_of_a_qcow2_image_are_zero_without_punching),
		cmocka_unit_test(a_file_that_grew_does_not_make_the_device_larger),
		cmocka_unit_test(what_a_file_that_shrank_lacks_is_eio_until_it_is_written),
	};

	begin_rules();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
