// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_blocks.c - a device whose blocks are larger than the image's files need: all
 * that the kernel is told is in whole ones (which fake/fakemap.c looks at), and all
 * reads as qemu-img reads it.
 */
#include "rules.h"

#define BLOCK	4096u
#define SECTS	(BLOCK / 512)

static char *model;
static size_t model_len;

/* Something at every byte, repeatably, that compresses. */
static void make_base(const char *name, size_t len, unsigned int seed)
{
	char *buf = malloc(len);
	struct rng r;

	rng_seed(&r, seed);
	for (size_t i = 0; i < len; i++)
		buf[i] = i % 512 < 64 ? (char)(rng_next(&r) >> 56) : (char)(i / 512 + seed);
	unlink(in_scratch(name));
	write_file(in_scratch(name), buf, len);
	free(buf);
}

static int try_blocks(const char *name, unsigned int block_size, unsigned int seed)
{
	struct fdev_opts o = {
		.path = in_scratch(name), .block_size = block_size, .allow_backing = allow_all,
		.seed = seed, .evict = 20, .late = 20, .work = 10, .widen = 30, .untaken = 20,
	};

	return fdev_open(&dev, &o, &err);
}

static void same(uint64_t lba, uint64_t n)
{
	assert_int_equal(fdev_read(dev, back, lba, n), 0);
	for (uint64_t i = 0; i < n * 512; i++)
		if (back[i] != model[lba * 512 + i])
			fail_msg("lba %llu byte %llu: %02x instead of %02x",
				 (unsigned long long)lba, (unsigned long long)i,
				 back[i] & 0xff, model[lba * 512 + i] & 0xff);
}

static void all_same(void)
{
	uint64_t lba, n, size = model_len / 512;

	for (lba = 0; lba < size; lba += n) {
		n = size - lba < 128 ? size - lba : 128;
		same(lba, n);
	}
}

static void change_something(struct rng *r)
{
	uint64_t size = model_len / 512 / SECTS;
	/* What is hard lies at the ends of files: half of it is there. */
	uint64_t at = rng_chance(r, 50) ? rng_below(r, size) : size * 3 / 4 + rng_below(r, size / 8);
	uint64_t n = 1 + rng_below(r, rng_chance(r, 20) ? 40 : 3);

	if (n > size - at)
		n = size - at;
	switch (rng_below(r, 6)) {
	case 0 ... 2:
		memset(data, rng_next(r) >> 56, n * BLOCK);
		assert_int_equal(fdev_write(dev, data, at * SECTS, n * SECTS,
					    rng_chance(r, 10)), 0);
		memcpy(model + at * BLOCK, data, n * BLOCK);
		break;
	case 3:
		assert_int_equal(fdev_zeroes(dev, at * SECTS, n * SECTS, rng_chance(r, 50)), 0);
		memset(model + at * BLOCK, 0, n * BLOCK);
		break;
	case 4:
		if (rng_chance(r, 20))
			assert_int_equal(fdev_flush(dev), 0);
		break;
	default:
		same(at * SECTS, n * SECTS);
	}
}

/* The image a.qcow2, which is there, as a device of large blocks. */
static void serve_all(unsigned int seed)
{
	struct rng r;
	size_t len;
	char *now;

	rng_seed(&r, seed);
	assert_int_equal(sh("qemu-img convert -O raw a.qcow2 model.raw"), 0);
	model = read_file(in_scratch("model.raw"), &model_len);
	if (try_blocks("a.qcow2", BLOCK, seed))
		fail_msg("%s", err.msg);
	assert_int_equal(fdev_info(dev)->size, model_len / 512);
	all_same();
	for (int i = 0; i < 600; i++) {
		change_something(&r);
		if (i % 200 == 199 && fdev_reattach(dev, &err))
			fail_msg("%s", err.msg);
	}
	all_same();
	finish();
	assert_int_equal(sh("qemu-img check a.qcow2"), 0);
	assert_int_equal(sh("qemu-img convert -O raw a.qcow2 model.raw"), 0);
	now = read_file(in_scratch("model.raw"), &len);
	assert_int_equal(len, model_len);
	assert_memory_equal(now, model, len);
	free(now);
	free(model);
}

static void a_backing_file_may_end_inside_a_block(void **state)
{
	(void)state;
	if (!qemu)
		skip();
	for (unsigned int seed = 1; seed <= 3; seed++) {
		make_base("base.raw", (3u << 20) + 1024 + (seed == 3 ? 77 : 0), seed);
		assert_int_equal(sh("rm -f a.qcow2; qemu-img create -f qcow2 -b base.raw -F raw -o cluster_size=%s a.qcow2 4M",
				    seed == 1 ? "64k" : "4k"), 0);
		serve_all(seed);
	}
}

/* Clusters smaller than a block, packed and not, below ones that are larger. */
static void clusters_below_may_be_smaller_than_a_block(void **state)
{
	(void)state;
	if (!qemu)
		skip();
	for (unsigned int seed = 1; seed <= 4; seed++) {
		make_base("src.raw", (3u << 20) - 512, seed);
		assert_int_equal(sh("rm -f *.qcow2; qemu-img convert -f raw -O qcow2 -o cluster_size=%s %s src.raw base.qcow2",
				    seed == 1 ? "512" : seed == 2 ? "1k" : seed == 3 ? "2k" : "16k",
				    seed == 3 ? "" : "-c"), 0);
		assert_int_equal(sh("qemu-img create -f qcow2 -b base.qcow2 -F qcow2 -o cluster_size=512 mid.qcow2 %u",
				    (7u << 19) + 1536), 0);
		assert_int_equal(sh("qemu-io -f qcow2 -c 'write -P 3 1000k 3k' -c 'write -P 4 1234432 512' -c 'write -z 2561k 5k' -c 'write -P 5 3345k 20k' mid.qcow2"), 0);
		assert_int_equal(sh("qemu-img create -f qcow2 -b mid.qcow2 -F qcow2 -o cluster_size=16k a.qcow2 4M"), 0);
		serve_all(seed);
	}
}

static void the_image_itself_may_end_inside_a_block(void **state)
{
	(void)state;
	if (!qemu)
		skip();
	for (unsigned int seed = 1; seed <= 3; seed++) {
		assert_int_equal(sh("rm -f *.qcow2; qemu-img create -f qcow2 -o cluster_size=64k a.qcow2 4M"), 0);
		assert_int_equal(sh("qemu-io -f qcow2 -c 'write -P 7 3M 64k' a.qcow2"), 0);
		/* The cluster that was written to is the file's last. */
		assert_int_equal(sh("truncate -s -%u a.qcow2", 30000 + seed * 512 + (seed == 3)), 0);
		serve_all(seed);
	}
}

static void refused(const char *options, const char *size, unsigned int block, const char *says)
{
	assert_int_equal(sh("rm -f *.qcow2; qemu-img create -f qcow2 -o %s a.qcow2 %s", options, size), 0);
	assert_int_equal(try_blocks("a.qcow2", block, 1), -ENOTSUP);
	if (!strstr(err.msg, says) || !strstr(err.msg, " -b"))
		fail_msg("\"%s\"", err.msg);
}

static void a_block_that_does_not_suit_the_image_is_refused(void **state)
{
	(void)state;
	if (!qemu)
		skip();
	refused("cluster_size=512", "4M", 4096, "clusters of 512 bytes");
	refused("cluster_size=2k", "4M", 4096, "clusters of 2048 bytes");
	refused("cluster_size=512", "4M", 1024, "clusters of 512 bytes");
	refused("cluster_size=64k", "4196352", 4096, "not a multiple of 4096");
	assert_int_equal(try_blocks("a.qcow2", 3072, 1), -EINVAL);
	assert_int_equal(try_blocks("a.qcow2", 8192, 1), -EINVAL);
	assert_int_equal(try_blocks("a.qcow2", 2048, 1), 0);
	assert_int_equal(sp_info(fdev_image(dev))->block_size, 2048);
	finish();
	assert_int_equal(try_blocks("a.qcow2", 512, 1), 0);
	finish();
}

/* Refusing it would leave the device without anybody to serve what can be served. */
static void a_device_that_has_unsuitable_blocks_is_attached(void **state)
{
	static const struct sp_ops none;
	struct sp_options o = { .path = in_scratch("a.qcow2"), .format = "qcow2",
				.nr_fds = 2, .size = 8192, .block_size = 4096, .ops = &none };
	struct sp_image *img;
	int fd[2];

	(void)state;
	if (!qemu)
		skip();
	assert_int_equal(sh("rm -f *.qcow2; qemu-img create -f qcow2 -o cluster_size=512 a.qcow2 4M"), 0);
	fd[0] = open(o.path, O_RDWR);
	fd[1] = open(in_scratch("cache"), O_RDWR | O_CREAT, 0600);
	o.fds = fd;
	if (sp_open(&img, &o, &err))
		fail_msg("%s", err.msg);
	assert_int_equal(sp_info(img)->block_size, 512);
	sp_close(img);
	close(fd[0]);
	close(fd[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_backing_file_may_end_inside_a_block),
		cmocka_unit_test(clusters_below_may_be_smaller_than_a_block),
		cmocka_unit_test(the_image_itself_may_end_inside_a_block),
		cmocka_unit_test(a_block_that_does_not_suit_the_image_is_refused),
		cmocka_unit_test(a_device_that_has_unsuitable_blocks_is_attached),
	};

	begin_rules();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
