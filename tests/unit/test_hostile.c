// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_hostile.c - every image of fake/craft.c is refused, answered with EIO, or
 * harmless.  With CORPUS_OUT=folder the fuzzer's seeds are written there instead.
 */
#include "util.h"
#include "cm.h"
#include "craft.h"
#include "fakedev.h"

static struct sp_err err;
static char buf[64 * CRAFT_CLUSTER];

static bool allow(void *ctx, const char *path)
{
	(void)ctx;
	return !strncmp(path, scratch, strlen(scratch));
}

static void store_image(const struct craft_variant *v, struct craft *c)
{
	craft_new(c);
	v->change(c);
	write_file(in_scratch("img.qcow2"), c->buf, c->size);
	memset(buf, 0x77, sizeof(buf));
	write_file(in_scratch("base"), buf, 8 * CRAFT_CLUSTER);
	write_file(in_scratch("base.qcow2"), "QFI\xfb\0\0\0\3", 8);
}

static int open_it(struct fdev **d, bool read_only)
{
	struct fdev_opts o = {
		.path = in_scratch("img.qcow2"), .format = "qcow2", .read_only = read_only,
		.hostile = true, .allow_backing = allow, .seed = 1,
		.evict = 20, .late = 20, .work = 20,
	};

	return fdev_open(d, &o, &err);
}

static int read_cluster(struct fdev *d, unsigned int guest)
{
	return fdev_read(d, buf, (uint64_t)guest * CRAFT_SECTORS, CRAFT_SECTORS);
}

static bool all(char byte)
{
	unsigned int i;

	for (i = 0; i < CRAFT_CLUSTER; i++)
		if (buf[i] != byte)
			return false;
	return true;
}

static void expect_sound(struct fdev *d, bool v2)
{
	const char want[] = { 0x11, 0, 0, 0x33, 0, 0x55 };
	unsigned int i;

	(void)v2;
	for (i = 0; i < sizeof(want); i++) {
		assert_int_equal(read_cluster(d, i), 0);
		assert_true(all(want[i]));
	}
	assert_int_equal(read_cluster(d, CRAFT_GUEST - 1), 0);
	assert_true(all(0));
}

/* Clusters that the image's own tables call metadata are not the guest's. */
static void check_tables(const struct craft *c, struct fdev *d)
{
	uint64_t l1 = craft_get64(c, H_L1_OFF), rt = craft_get64(c, H_RT_OFF), off;
	unsigned int i;

	assert_false(fdev_writable(d, 0, CRAFT_SECTORS));
	if (!(l1 % CRAFT_CLUSTER) && l1 < c->size) {
		assert_false(fdev_writable(d, l1 / 512, CRAFT_SECTORS));
		for (i = 0; i < 2; i++) {
			off = craft_get64(c, l1 + 8 * i) & 0x00fffffffffffe00;
			if (off && !(off % CRAFT_CLUSTER))
				assert_false(fdev_writable(d, off / 512, CRAFT_SECTORS));
		}
	}
	if (!(rt % CRAFT_CLUSTER) && rt < c->size) {
		assert_false(fdev_writable(d, rt / 512, CRAFT_SECTORS));
		for (i = 0; i < CRAFT_CLUSTER / 8; i++) {
			off = craft_get64(c, rt + 8 * i);
			if (off && !(off % CRAFT_CLUSTER) && off < c->size)
				assert_false(fdev_writable(d, off / 512, CRAFT_SECTORS));
		}
	}
}

static void exercise(const struct craft *c, struct fdev *d, bool read_only)
{
	uint64_t size = fdev_info(d)->size, lba;
	struct rng r;
	int i;

	for (lba = 0; lba + CRAFT_SECTORS <= size && lba < 16 * CRAFT_SECTORS; lba += CRAFT_SECTORS)
		fdev_read(d, buf, lba, CRAFT_SECTORS);
	if (read_only || size < 64 * CRAFT_SECTORS)
		return;
	rng_seed(&r, 5);
	memset(buf, 0xd5, sizeof(buf));
	for (i = 0; i < 120; i++) {
		lba = rng_chance(&r, 60) ? rng_below(&r, 8 * CRAFT_SECTORS) :
		      rng_chance(&r, 50) ? rng_below(&r, 16 * CRAFT_SECTORS) + 512 * CRAFT_SECTORS :
		      rng_below(&r, size - 8 * CRAFT_SECTORS);
		if (lba + 64 > size)
			continue;
		switch (rng_below(&r, 5)) {
		case 0 ... 1:
			fdev_write(d, buf, lba, 1 + rng_below(&r, 40), false);
			break;
		case 2:
			fdev_write(d, buf, lba & ~7ull, CRAFT_SECTORS, false);
			break;
		case 3:
			fdev_discard(d, lba, 1 + rng_below(&r, 40));
			break;
		case 4:
			if (rng_chance(&r, 30))
				fdev_flush(d);
			else
				fdev_zeroes(d, lba, 1 + rng_below(&r, 40), rng_chance(&r, 50));
			break;
		}
		check_tables(c, d);
	}
}

static void try_variant(const struct craft_variant *v, bool read_only)
{
	enum craft_fate fate = v->fate;
	struct craft c;
	struct fdev *d;
	char head[8];
	int rc, fd;

	store_image(v, &c);
	alarm(20);
	rc = open_it(&d, read_only);
	if (fate == CRAFT_NO_WRITE && read_only)
		fate = CRAFT_ANY;
	if (rc)
		print_message("# %s%s: %d %s\n", v->name, read_only ? " (ro)" : "", rc, err.msg);
	if (fate == CRAFT_SOUND)
		assert_int_equal(rc, 0);
	if (fate == CRAFT_REFUSED || fate == CRAFT_NO_WRITE) {
		assert_int_not_equal(rc, 0);
		if (v->error)
			assert_int_equal(rc, v->error);
		if (v->says && !strcasestr(err.msg, v->says))
			fail_msg("\"%s\" does not say \"%s\"", err.msg, v->says);
	}
	if (rc) {
		/* Damaged but readable has to be readable. */
		assert_false(fate == CRAFT_EIO && read_only);
		free(c.buf);
		return;
	}
	if (fate == CRAFT_SOUND)
		expect_sound(d, false);
	if (fate == CRAFT_EIO)
		assert_int_equal(read_cluster(d, v->guest), -EIO);
	exercise(&c, d, read_only);
	fdev_finish(d, &err);
	alarm(0);
	/* Whatever happened, the header is a header. */
	fd = open(in_scratch("img.qcow2"), O_RDONLY);
	assert_int_equal(pread(fd, head, 4, 0), 4);
	close(fd);
	assert_memory_equal(head, c.buf, 4);
	free(c.buf);
}

static void refused_eio_or_harmless(void **state)
{
	try_variant(*state, false);
	try_variant(*state, true);
}

/* ---- seeds for tests/fuzz/fuzz_qcow2.c; its head tells the format ---- */

#define NR_OPS		24
#define RUN		32	/* of equal bytes that count; more would only be long */

static void write_seed(const char *path, const uint8_t *img, size_t size, uint64_t seed)
{
	uint8_t head[1 + 4 * NR_OPS + 4], chunk[6];
	size_t off, end, same, i;
	struct rng r;
	FILE *f = fopen(path, "w");

	if (!f) {
		perror(path);
		exit(1);
	}
	rng_seed(&r, seed);
	head[0] = NR_OPS;
	for (i = 1; i <= 4 * NR_OPS; i++)
		head[i] = rng_next(&r) >> 56;
	for (i = 0; i < 4; i++)
		head[1 + 4 * NR_OPS + i] = size >> (24 - 8 * i);
	fwrite(head, 1, sizeof(head), f);
	for (off = 0; off < size; off = end) {
		if (!img[off]) {
			end = off + 1;
			continue;
		}
		/* Up to a gap of zeros, or where it gets boring. */
		for (end = off, same = 0; end < size && end - off < 4096 && same < RUN; end++)
			same = end > off && img[end] == img[end - 1] ? same + 1 : 0;
		for (i = 0; i < 4; i++)
			chunk[i] = off >> (24 - 8 * i);
		chunk[4] = (end - off) >> 8;
		chunk[5] = end - off;
		fwrite(chunk, 1, sizeof(chunk), f);
		fwrite(img + off, 1, end - off, f);
		while (same >= RUN && end < size && img[end] == img[end - 1])
			end++;
	}
	if (fclose(f)) {
		perror(path);
		exit(1);
	}
}

static void write_corpus(const char *folder)
{
	static const char *const made[] = {
		"qemu-img create -f qcow2 -o cluster_size=512 s 300k",
		"qemu-img create -f qcow2 -o cluster_size=2M s 20M",
		"qemu-img create -f qcow2 -o cluster_size=64k,refcount_bits=1 s 1T",
		"qemu-img create -f qcow2 -o cluster_size=1k,refcount_bits=64 s 8M",
		"qemu-img create -f qcow2 -o compat=0.10,cluster_size=4k s 100M",
		"qemu-img create -f qcow2 -o cluster_size=16k,preallocation=metadata s 700k",
		"qemu-img create -f qcow2 -o lazy_refcounts=on s 3M",
		"qemu-img create -f qcow2 -u -b base -F raw -o cluster_size=512 s 100k",
		"qemu-img create -f qcow2 -u -b base.qcow2 -F qcow2 s 1M",
		"qemu-img create -f raw r 200k && qemu-img convert -c -f raw -O qcow2 -o compression_type=zstd r s",
	};
	unsigned int i;
	struct craft c;
	char path[400];

	for (i = 0; i < craft_nr_variants; i++) {
		craft_new(&c);
		craft_variants[i].change(&c);
		snprintf(path, sizeof(path), "%s/%s", folder, craft_variants[i].name);
		write_seed(path, c.buf, c.size, i);
		free(c.buf);
	}
	for (i = 0; i < sizeof(made) / sizeof(made[0]); i++) {
		memset(buf, 0x77, 8192);
		write_file(in_scratch("base"), buf, 8192);
		if (sh("rm -f s; %s && { qemu-io -f qcow2 -c 'write 1k 40k' -c 'write -z 50k 10k' s || true; }",
		       made[i]))
			continue;
		c.buf = (uint8_t *)read_file(in_scratch("s"), &c.size);
		snprintf(path, sizeof(path), "%s/made_%u", folder, i);
		write_seed(path, c.buf, c.size, 1000 + i);
		free(c.buf);
	}
}

int main(void)
{
	struct CMUnitTest *tests = calloc(craft_nr_variants, sizeof(*tests));
	unsigned int i, n = 0;
	int rc;

	if (getenv("CORPUS_OUT")) {
		write_corpus(getenv("CORPUS_OUT"));
		return 0;
	}
	scratch_make();
	for (i = 0; i < craft_nr_variants; i++) {
		if (getenv("ONLY") && strcmp(getenv("ONLY"), craft_variants[i].name))
			continue;
		tests[n].name = craft_variants[i].name;
		tests[n].test_func = refused_eio_or_harmless;
		tests[n++].initial_state = (void *)&craft_variants[i];
	}
	rc = _cmocka_run_group_tests("hostile", tests, n, NULL, NULL);
	free(tests);
	return rc;
}
