// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_odd_end.c - file systems that want more for direct I/O than others.  A device whose
 * blocks are larger than a sector, over layers that end inside a block; and storage that
 * the driver goes to through the page cache.
 */
#include "rules.h"
#include <linux/stat.h>

#define BLOCK		8u			/* sectors */
#define PIECES		32u			/* as long as the overlay, in blocks */

static unsigned int mem_align = 512, offset_align = BLOCK * 512;

int __real_statx(int dir, const char *path, int flags, unsigned int mask, struct statx *sx);
int __wrap_statx(int dir, const char *path, int flags, unsigned int mask, struct statx *sx);

int __wrap_statx(int dir, const char *path, int flags, unsigned int mask, struct statx *sx)
{
	int rc = __real_statx(dir, path, flags, mask, sx);

	sx->stx_mask |= STATX_DIOALIGN;
	sx->stx_dio_mem_align = mem_align;
	sx->stx_dio_offset_align = offset_align;
	return rc;
}

/*
 * A compressed image of that many sectors, below one that is longer: in its last
 * block, which may be in the middle of a cluster, data and zeros meet.
 */
static void reads_through(unsigned int sectors, unsigned int cluster)
{
	struct fdev_opts o = { .path = in_scratch("over.qcow2"), .format = "qcow2", .seed = 1 };
	size_t len, want = sectors * 512;
	char *plain;

	assert_int_equal(sh("seq 100000 | head -c %zu >plain && rm -f base.qcow2 over.qcow2 && "
			    "qemu-img convert -c -f raw -O qcow2 -o cluster_size=%u plain base.qcow2 && "
			    "qemu-img create -f qcow2 -b base.qcow2 -F qcow2 over.qcow2 %u",
			    want, cluster, PIECES * BLOCK * 512), 0);
	plain = read_file(in_scratch("plain"), &len);
	assert_int_equal(len, want);
	if (fdev_open(&dev, &o, &err))
		fail_msg("%s", err.msg);
	assert_int_equal(fdev_info(dev)->block_size, BLOCK * 512);
	for (unsigned int n = 0; n < PIECES; n++) {
		size_t at = n * BLOCK * 512, have = at < len ? len - at : 0;

		memset(data, 0, BLOCK * 512);
		memcpy(data, plain + at, have < BLOCK * 512 ? have : BLOCK * 512);
		assert_int_equal(fdev_read(dev, back, n * BLOCK, BLOCK), 0);
		assert_memory_equal(back, data, BLOCK * 512);
	}
	finish();
	free(plain);
}

static void a_block_of_compressed_data_and_zeros_can_be_read(void **state)
{
	(void)state;
	if (!qemu)
		skip();
	reads_through(128 + 17, 65536);
	reads_through(128 + 127, 65536);
	reads_through(128 + 1, 65536);
	reads_through(128, 65536);
	reads_through(128 + 17, 2048);
	reads_through(128 + 17, 512);
}

static bool is_buffered(unsigned int mem, unsigned int offset, const char *format, bool read_only)
{
	struct fdev_opts o = { .path = in_scratch("img"), .format = format,
			       .read_only = read_only, .seed = 1 };
	bool buffered;

	mem_align = mem;
	offset_align = offset;
	assert_int_equal(sh("rm -f img && qemu-img create -f %s img 1M", format), 0);
	if (fdev_open(&dev, &o, &err))
		fail_msg("%s", err.msg);
	buffered = sp_store(fdev_image(dev), 0)->flags & SP_STORE_BUFFERED;
	assert_int_equal(fdev_info(dev)->block_size, buffered ? 512 : offset);
	if (!read_only) {
		memset(data, 0x42, 512 * BLOCK);
		assert_int_equal(fdev_write(dev, data, BLOCK, BLOCK, false), 0);
		assert_int_equal(fdev_read(dev, back, BLOCK, BLOCK), 0);
		assert_memory_equal(back, data, 512 * BLOCK);
	}
	finish();
	mem_align = 512;
	offset_align = BLOCK * 512;
	return buffered;
}

/*
 * The driver refuses direct I/O where memory has to be aligned to more than a sector, as
 * on dm-crypt with large sectors, and where there is none; so do we.
 *
 * Fails without "f->mem_align > 512", and "!f->align", in dio_granularity() of io.c: the
 * driver has the file in the page cache, and we write around it.
 */
static void who_shares_a_file_shares_its_page_cache(void **state)
{
	(void)state;
	if (!qemu)
		skip();
	assert_false(is_buffered(512, 512, "qcow2", false));
	assert_false(is_buffered(4, BLOCK * 512, "raw", false));
	assert_true(is_buffered(4096, 4096, "qcow2", false));
	assert_true(is_buffered(4096, 512, "raw", false));
	assert_true(is_buffered(4096, 4096, "raw", true));
	assert_true(is_buffered(0, 0, "qcow2", false));
	assert_true(is_buffered(512, 0, "qcow2", false));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_block_of_compressed_data_and_zeros_can_be_read),
		cmocka_unit_test(who_shares_a_file_shares_its_page_cache),
	};

	begin_rules();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
