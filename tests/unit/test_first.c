// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_first.c - what a first touch asks for: how many faults a large image takes,
 * what is decompressed for whom, and by how many threads.
 *
 * Here the test is the embedder: it gives requests with the hints that it likes and
 * looks at the answers.  Images are of qemu-img's making.
 */
#include "util.h"
#include <pthread.h>
#include "cm.h"
#include "fakedev.h"
#include "io.h"
#include "slowpath.h"

#define CLUSTER		128ull		/* sectors */
#define PACKED		64ull		/* clusters of the compressed image */
#define MAX_SEEN	256

static struct sp_image *img;
static struct sp_err err;

/* What the slowpath said, all of it under the image's lock. */
static struct {
	unsigned int replies, maps, asked;
	uint64_t made_at_reply;		/* decompressions, at the latest reply */
	uint8_t mapped[PACKED];		/* clusters, by replies and MAPs */
} seen;

static void note(const struct sp_extent *ext, unsigned int nr)
{
	for (unsigned int i = 0; i < nr; i++) {
		assert_int_equal(ext[i].type, SP_LINEAR);
		assert_int_equal(ext[i].tid, 0);
		for (uint64_t lba = ext[i].lba; lba < ext[i].lba + ext[i].len; lba += CLUSTER)
			seen.mapped[lba / CLUSTER] = 1;
	}
}

static uint64_t reads;			/* of compressed data, so far */

static void on_reply(void *ctx, const struct sp_req *req, const struct sp_reply *r)
{
	(void)ctx;
	(void)req;
	assert_int_equal(r->action, SP_REDRIVE);
	seen.replies++;
	seen.made_at_reply = __atomic_load_n(&reads, __ATOMIC_RELAXED);
	note(r->ext, r->nr_ext);
}

static void on_map(void *ctx, const struct sp_extent *ext, unsigned int nr)
{
	(void)ctx;
	seen.maps++;
	note(ext, nr);
}

static void on_invalidate(void *ctx, unsigned int store, uint64_t off, uint64_t len,
			  uint64_t token)
{
	(void)ctx;
	(void)store;
	(void)off;
	(void)len;
	(void)token;
	fail_msg("nothing has to leave the cache");
}

static void on_commit(void *ctx, uint64_t tid)
{
	(void)ctx;
	(void)tid;
}

static void on_ahead(void *ctx)
{
	(void)ctx;
	seen.asked++;
}

static const struct sp_ops ops = {
	.reply = on_reply,
	.map = on_map,
	.invalidate = on_invalidate,
	.commit = on_commit,
	.ahead = on_ahead,
};

/* Reads of compressed data are as long as that is: some sectors, not a table's. */
static int count_reads(const struct sp_file *f, enum sp_io_op op, const void *buf,
		       uint64_t off, uint64_t len)
{
	(void)f;
	(void)buf;
	(void)off;
	(void)len;
	if (op == SP_IO_READ)
		__atomic_fetch_add(&reads, 1, __ATOMIC_RELAXED);
	return 0;
}

static uint64_t made(void)
{
	struct sp_stats s;

	sp_stats(img, &s);
	return s.decompressions;
}

static unsigned int mapped(void)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < PACKED; i++)
		n += seen.mapped[i];
	return n;
}

static int open_packed(void **state)
{
	struct sp_options opt = { .path = in_scratch("packed.qcow2"), .format = "qcow2",
				  .read_only = true, .ops = &ops };

	(void)state;
	if (access(opt.path, F_OK) &&
	    sh("yes 0123456789 | head -c %llu >plain && qemu-img convert -c -f raw -O qcow2 plain packed.qcow2",
	       PACKED * CLUSTER * 512))
		return -1;
	memset(&seen, 0, sizeof(seen));
	reads = 0;
	sp_io_hook = NULL;
	if (sp_open(&img, &opt, &err)) {
		print_error("%s\n", err.msg);
		return -1;
	}
	return 0;
}

static int close_it(void **state)
{
	(void)state;
	sp_io_hook = NULL;
	sp_close(img);
	return 0;
}

static void ask(uint64_t cluster, uint64_t clusters, uint32_t seq)
{
	struct sp_req r = {
		.kind = SP_READ, .lba = cluster * CLUSTER, .len = clusters * CLUSTER,
		.want_lba = cluster * CLUSTER, .want_len = clusters * CLUSTER, .seq = seq,
	};

	assert_int_equal(sp_handle(img, &r, SP_MAY_WAIT), 0);
}

/* ---- who has what decompressed ---- */

static void random_reads_decompress_what_they_read(void **state)
{
	static const unsigned int at[] = { 3, 40, 17, 62, 5, 28 };

	(void)state;
	for (unsigned int i = 0; i < 6; i++)
		ask(at[i], 1, 0);
	assert_int_equal(made(), 6);
	assert_int_equal(mapped(), 6);
	assert_false(sp_ahead(img));
	assert_int_equal(made(), 6);
	assert_int_equal(seen.asked, 0);
}

static void a_second_read_decompresses_nothing(void **state)
{
	(void)state;
	ask(9, 2, 0);
	ask(9, 2, 0);
	ask(10, 1, 0);
	assert_int_equal(made(), 2);
}

static void a_stream_is_answered_first_and_read_ahead_then(void **state)
{
	unsigned int n;

	(void)state;
	ask(0, 1, 0);
	ask(1, 1, CLUSTER);
	ask(2, 1, 2 * CLUSTER);
	sp_io_hook = count_reads;
	ask(3, 1, 3 * CLUSTER);
	assert_int_equal(seen.made_at_reply, 1);
	assert_int_equal(made(), 4);
	assert_true(seen.asked > 0);
	while (sp_ahead(img))
		;
	/* As far ahead as it has come: clusters 4, 5 and 6, which the kernel knows. */
	assert_int_equal(made(), 7);
	assert_int_equal(mapped(), 7);
	n = seen.replies;
	ask(4, 3, 4 * CLUSTER);
	assert_int_equal(made(), 7);
	assert_int_equal(seen.replies, n + 1);
}

static void reading_ahead_is_bounded(void **state)
{
	(void)state;
	ask(0, 1, 1 << 30);
	while (sp_ahead(img))
		;
	assert_int_equal(made(), 1 + (2 << 20) / 65536);
}

static void reading_ahead_ends_with_the_disk(void **state)
{
	(void)state;
	ask(PACKED - 3, 1, 1 << 30);
	while (sp_ahead(img))
		;
	assert_int_equal(made(), 3);
	assert_int_equal(mapped(), 3);
}

/* A fault takes a worker: of 64 clusters most must come without. */
static void a_stream_takes_few_faults(void **state)
{
	unsigned int faults = 0;

	(void)state;
	for (uint64_t at = 0; at < PACKED; at++) {
		if (seen.mapped[at])
			continue;
		ask(at, 1, at * CLUSTER);
		faults++;
		while (sp_ahead(img))
			;
	}
	assert_int_equal(made(), PACKED);
	assert_in_range(faults, 2, 9);
}

/* ---- by how many threads ---- */

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_moved = PTHREAD_COND_INITIALIZER;
static unsigned int inside, most;

/* Each waits here until two are there at a time, which it tells by the number. */
static int meet(const struct sp_file *f, enum sp_io_op op, const void *buf, uint64_t off,
		uint64_t len)
{
	struct timespec until;

	(void)f;
	(void)buf;
	(void)off;
	(void)len;
	if (op != SP_IO_READ)
		return 0;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 5;
	pthread_mutex_lock(&gate);
	if (++inside > most)
		most = inside;
	pthread_cond_broadcast(&gate_moved);
	while (most < 2)
		if (pthread_cond_timedwait(&gate_moved, &gate, &until))
			break;
	inside--;
	pthread_mutex_unlock(&gate);
	return 0;
}

static bool stop;

static void *helper(void *arg)
{
	(void)arg;
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		if (!sp_ahead(img))
			usleep(100);
	return NULL;
}

static void one_request_is_decompressed_by_several_threads(void **state)
{
	pthread_t thread;

	(void)state;
	most = 0;
	stop = false;
	assert_int_equal(pthread_create(&thread, NULL, helper, NULL), 0);
	sp_io_hook = meet;
	ask(0, 16, 0);
	__atomic_store_n(&stop, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	assert_int_equal(most, 2);
	assert_int_equal(mapped(), 16);
	assert_int_equal(made(), 16);
	assert_int_equal(seen.replies, 1);
	assert_int_equal(seen.maps, 0);	/* who waits has been told */
}

/* ---- an image that is large ---- */

static struct fdev *open_large(void)
{
	struct fdev_opts o = { .path = in_scratch("large.qcow2"), .format = "qcow2",
			       .seed = 1 };
	struct fdev *d;

	if (access(o.path, F_OK))
		assert_int_equal(sh("qemu-img create -f qcow2 -o preallocation=metadata large.qcow2 64G"), 0);
	if (fdev_open(&d, &o, &err))
		fail_msg("%s", err.msg);
	return d;
}

static void a_fully_allocated_64_gib_image_takes_a_handful_of_faults(void **state)
{
	struct fdev *d = open_large();
	uint64_t blocks = fdev_info(d)->size / 8;
	static char buf[4096];
	struct rng r;

	(void)state;
	rng_seed(&r, 1);
	for (int i = 0; i < 4000; i++)
		assert_int_equal(fdev_read(d, buf, 8 * rng_below(&r, blocks), 8), 0);
	print_message("# %u faults to read\n", fdev_stats(d)->faults[SP_READ]);
	assert_in_range(fdev_stats(d)->faults[SP_READ], 1, 16);
	for (int i = 0; i < 4000; i++)
		assert_int_equal(fdev_write(d, buf, 8 * rng_below(&r, blocks), 8, false), 0);
	print_message("# %u faults to write\n", fdev_stats(d)->faults[SP_WRITE]);
	assert_in_range(fdev_stats(d)->faults[SP_WRITE], 1, 16);
	fdev_drop(d);
}

#define WITH_PACKED(f)	cmocka_unit_test_setup_teardown(f, open_packed, close_it)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_PACKED(random_reads_decompress_what_they_read),
		WITH_PACKED(a_second_read_decompresses_nothing),
		WITH_PACKED(a_stream_is_answered_first_and_read_ahead_then),
		WITH_PACKED(reading_ahead_is_bounded),
		WITH_PACKED(reading_ahead_ends_with_the_disk),
		WITH_PACKED(a_stream_takes_few_faults),
		WITH_PACKED(one_request_is_decompressed_by_several_threads),
		cmocka_unit_test(a_fully_allocated_64_gib_image_takes_a_handful_of_faults),
	};

	if (!have("qemu-img")) {
		puts("1..0 # SKIP there is no qemu-img");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
