// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_odd_end.c - a device whose blocks are larger than a sector, over layers that
 * end inside a block.  The file system is told to want 4 KiB for direct I/O.
 */
#include "rules.h"
#include <linux/stat.h>

#define BLOCK		8u			/* sectors */
#define PIECES		32u			/* as long as the overlay, in blocks */

int __real_statx(int dir, const char *path, int flags, unsigned int mask, struct statx *sx);
int __wrap_statx(int dir, const char *path, int flags, unsigned int mask, struct statx *sx);

int __wrap_statx(int dir, const char *path, int flags, unsigned int mask, struct statx *sx)
{
	int rc = __real_statx(dir, path, flags, mask, sx);

	sx->stx_mask |= STATX_DIOALIGN;
	sx->stx_dio_mem_align = 512;
	sx->stx_dio_offset_align = BLOCK * 512;
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_block_of_compressed_data_and_zeros_can_be_read),
	};

	begin_rules();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
