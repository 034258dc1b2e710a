// SPDX-License-Identifier: GPL-2.0-only
/* test_codec.c - decompression of clusters, sound and damaged. */
#include "../fake/util.h"
#include "../fake/cm.h"
#include <zlib.h>
#include <zstd.h>
#include "codec.h"

#define MAX	(2u << 20)
#define GUARD	64

static unsigned char plain[MAX], packed[MAX + 65536], out[MAX + GUARD];

/* Text-like, so that it shrinks, with matches at many distances. */
static void fill(uint64_t seed, size_t len)
{
	struct rng r;
	size_t i;

	rng_seed(&r, seed);
	for (i = 0; i < len; i++)
		plain[i] = i > 700 && rng_chance(&r, 90) ?
			plain[i - 1 - (i / 7) % 700] : rng_next(&r) >> 58;
}

static size_t pack_zlib(size_t len)
{
	z_stream z = { .next_in = plain, .avail_in = len,
		       .next_out = packed, .avail_out = sizeof(packed) };

	assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY), Z_OK);
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	deflateEnd(&z);
	return z.total_out;
}

static size_t pack_zstd(size_t len)
{
	size_t n = ZSTD_compress(packed, sizeof(packed), plain, len, 3);

	assert_false(ZSTD_isError(n));
	return n;
}

struct kind {
	const struct sp_codec *codec;
	size_t (*pack)(size_t len);
};

static struct kind zlib = { &sp_codec_zlib, pack_zlib };
static struct kind zstd = { &sp_codec_zstd, pack_zstd };

static int unpack(const struct kind *k, size_t out_len, size_t in_len)
{
	/* A copy of exactly in_len bytes, so that ASan sees reads past it. */
	unsigned char *in = malloc(in_len ? in_len : 1);
	size_t i;
	int rc;

	memcpy(in, packed, in_len);
	memset(out, 0xee, out_len + GUARD);
	rc = k->codec->decompress(out, out_len, in, in_len);
	for (i = 0; i < GUARD; i++)
		assert_int_equal(out[out_len + i], 0xee);
	free(in);
	return rc;
}

static void a_cluster_comes_back(void **state)
{
	const size_t sizes[] = { 512, 4096, 65536, MAX };
	const struct kind *k = *state;
	size_t i, n;

	for (i = 0; i < 4; i++) {
		fill(i + 1, sizes[i]);
		n = k->pack(sizes[i]);
		assert_int_equal(unpack(k, sizes[i], n), 0);
		assert_memory_equal(out, plain, sizes[i]);
	}
}

static void trailing_garbage_is_ignored(void **state)
{
	const struct kind *k = *state;
	size_t n;

	fill(5, 65536);
	n = k->pack(65536);
	memset(packed + n, 0x5a, 511);
	assert_int_equal(unpack(k, 65536, n + 511), 0);
	assert_memory_equal(out, plain, 65536);
	memset(packed + n, 0, 511);
	assert_int_equal(unpack(k, 65536, n + 511), 0);
}

static void a_short_input_is_an_error(void **state)
{
	const struct kind *k = *state;
	size_t n, i;

	fill(6, 4096);
	n = k->pack(4096);
	for (i = 0; i + 8 < n; i += 1 + i / 16)
		assert_int_equal(unpack(k, 4096, i), -EIO);
}

static void too_little_output_is_an_error(void **state)
{
	const struct kind *k = *state;
	size_t n;

	fill(7, 4096);
	n = k->pack(4096);
	assert_int_equal(unpack(k, 4097, n), -EIO);
	assert_int_equal(unpack(k, 65536, n), -EIO);
}

/* QEMU takes such a stream: what it was asked for is there. */
static void a_stream_may_go_on_behind_the_cluster(void **state)
{
	size_t n;

	(void)state;
	fill(8, 4096);
	n = pack_zlib(4096);
	assert_int_equal(unpack(&zlib, 2048, n), 0);
	assert_memory_equal(out, plain, 2048);
}

static void output_is_bounded_to_the_cluster(void **state)
{
	const struct kind *k = *state;
	size_t n;

	memset(plain, 0, MAX);		/* a bomb */
	n = k->pack(MAX);
	unpack(k, 512, n);		/* the guard is what counts */
}

static void noise_is_an_error_and_no_crash(void **state)
{
	const struct kind *k = *state;
	int i, j, bad = 0;
	struct rng r;
	size_t n;

	rng_seed(&r, 99);
	for (i = 0; i < 2000; i++) {
		if (i % 2) {		/* a sound one with a few bytes changed */
			fill(i, 4096);
			n = k->pack(4096);
			for (j = 0; j < 4; j++)
				packed[rng_below(&r, n)] ^= 1 + rng_below(&r, 255);
		} else {
			n = 1 + rng_below(&r, 700);
			for (j = 0; j < (int)n; j++)
				packed[j] = rng_next(&r) >> 56;
		}
		bad += unpack(k, 4096, n) == -EIO;
	}
	assert_true(bad > 1000);
}

static void a_frame_that_claims_a_huge_window_costs_no_memory(void **state)
{
	/* magic, descriptor without single segment, window of 2^41 bytes,
	 * then one raw last block of 512 zeros */
	static const unsigned char head[] = {
		0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8, 0x01, 0x10, 0x00,
	};

	(void)state;
	memcpy(packed, head, sizeof(head));
	memset(packed + sizeof(head), 7, 512);
	/* Taken or refused; ASan's allocation limit is the judge. */
	unpack(&zstd, 512, sizeof(head) + 512);
}

#define WITH(f, k)	{ #f " (" #k ")", f, NULL, NULL, &k }
#define BOTH(f)		WITH(f, zlib), WITH(f, zstd)

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(a_cluster_comes_back),
		BOTH(trailing_garbage_is_ignored),
		BOTH(a_short_input_is_an_error),
		BOTH(too_little_output_is_an_error),
		cmocka_unit_test(a_stream_may_go_on_behind_the_cluster),
		BOTH(output_is_bounded_to_the_cluster),
		BOTH(noise_is_an_error_and_no_crash),
		cmocka_unit_test(a_frame_that_claims_a_huge_window_costs_no_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
