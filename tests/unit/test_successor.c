// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_successor.c - what the next mapper must not forget: the kernel goes on with
 * what the one before it was told, and tells nobody of what is clean.
 */
#include "rules.h"
#include "fakedev_int.h"

/* ---- the cache ---- */

#define PACKED		(4ull << 20)		/* bytes; the smallest cache has 1 MiB */
#define PIECE		64u			/* sectors */

static void make_packed(void)
{
	if (!qemu)
		skip();
	assert_int_equal(sh("seq 1000000 | head -c %llu >plain && qemu-img convert -c -f raw -O qcow2 plain packed.qcow2",
			    PACKED), 0);
}

static void open_packed(uint64_t cache_bytes)
{
	struct fdev_opts o = { .path = in_scratch("packed.qcow2"), .format = "qcow2",
			       .read_only = true, .seed = 1, .cache_bytes = cache_bytes };

	if (fdev_open(&dev, &o, &err))
		fail_msg("%s", err.msg);
}

/* A hit behind the end of the cache is a breach: the fake device ends the test. */
static void all_reads_as_it_should(const char *plain)
{
	for (uint64_t lba = 0; lba < PACKED / 512; lba += PIECE) {
		assert_int_equal(fdev_read(dev, back, lba, PIECE), 0);
		assert_memory_equal(back, plain + lba * 512, PIECE * 512);
	}
}

static uint64_t cache_size(void)
{
	struct stat st;

	assert_int_equal(fstat(sp_store(fdev_image(dev), 1)->fd, &st), 0);
	return st.st_size;
}

/* A new mapper with that much of a cache; it gets the old one's. */
static void succeed_with(uint64_t cache_bytes)
{
	struct rng r;

	for (r = dev->rng; !rng_chance(&r, 50); r = dev->rng)
		rng_next(&dev->rng);
	dev->opt.cache_bytes = cache_bytes;
	if (fdev_reattach(dev, &err))
		fail_msg("%s", err.msg);
	assert_true(dev->keep_cache);
}

static void a_smaller_cache_leaves_what_the_kernel_has(void **state)
{
	char *plain;
	size_t len;

	(void)state;
	make_packed();
	plain = read_file(in_scratch("plain"), &len);
	open_packed(16 << 20);
	all_reads_as_it_should(plain);
	succeed_with(1 << 20);
	all_reads_as_it_should(plain);
	assert_int_equal(cache_size(), 16 << 20);
	/* Some from where it was, some decompressed anew. */
	fdev_evict(dev, 50);
	all_reads_as_it_should(plain);
	finish();
	free(plain);
}

/* What an extent may point to is forgotten before it is used for something else. */
static void all_of_a_cache_that_was_taken_over_is_used_again(void **state)
{
	unsigned int before;
	char *plain;
	size_t len;

	(void)state;
	make_packed();
	plain = read_file(in_scratch("plain"), &len);
	open_packed(2 << 20);
	all_reads_as_it_should(plain);
	succeed_with(1 << 20);
	before = fdev_stats(dev)->invals;
	for (int i = 0; i < 4; i++) {
		fdev_evict(dev, 100);
		all_reads_as_it_should(plain);
	}
	assert_in_range(fdev_stats(dev)->invals - before, 16, UINT64_MAX);
	assert_int_equal(cache_size(), 2 << 20);
	finish();
	free(plain);
}

static void a_larger_cache_grows(void **state)
{
	char *plain;
	size_t len;

	(void)state;
	make_packed();
	plain = read_file(in_scratch("plain"), &len);
	open_packed(1 << 20);
	all_reads_as_it_should(plain);
	succeed_with(8 << 20);
	assert_int_equal(cache_size(), 8 << 20);
	all_reads_as_it_should(plain);
	fdev_evict(dev, 100);
	all_reads_as_it_should(plain);
	finish();
	free(plain);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_smaller_cache_leaves_what_the_kernel_has),
		cmocka_unit_test(all_of_a_cache_that_was_taken_over_is_used_again),
		cmocka_unit_test(a_larger_cache_grows),
	};

	begin_rules();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
