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

/* What a worker is about to bring to the cache when its mapper is replaced. */
static struct {
	bool held, let_go, opened;	/* atomic access */
	int fds[2], read_rc, open_rc;
	struct sp_image *next;
} late;

#define get(x)		__atomic_load_n(&(x), __ATOMIC_ACQUIRE)
#define set(x, v)	__atomic_store_n(&(x), v, __ATOMIC_RELEASE)

static int hold_fill(const struct sp_file *f, enum sp_io_op op, const void *buf,
		     uint64_t off, uint64_t len)
{
	(void)buf; (void)off; (void)len;
	if (op != SP_IO_WRITE || strcmp(f->path, "(cache)"))
		return 0;
	set(late.held, true);
	while (!get(late.let_go))
		usleep(1000);
	return 0;
}

static void *fill_late(void *arg)
{
	late.read_rc = fdev_read(dev, arg, SECT(G_PACKED), 1);
	return NULL;
}

static void on_reply(void *ctx, const struct sp_req *req, const struct sp_reply *r)
{
	(void)ctx; (void)req; (void)r;
}

static void *open_next(void *arg)
{
	const struct sp_ops ops = { .reply = on_reply };
	const struct sp_options o = { .path = arg, .format = "qcow2", .read_only = true,
				      .fds = late.fds, .nr_fds = 2, .ops = &ops };
	struct sp_err why;

	late.open_rc = sp_open(&late.next, &o, &why);
	set(late.opened, true);
	return NULL;
}

static void open_sound_read_only(void)
{
	struct craft c;

	craft_new(&c);
	store(&c, "img.qcow2");
	assert_int_equal(try_open_as("img.qcow2", "qcow2", true), 0);
	for (unsigned int i = 0; i < 2; i++)
		late.fds[i] = dup(sp_store(fdev_image(dev), i)->fd);
}

/* The next one may have given the place to something else by then. */
static void who_made_the_cache_is_waited_for_too(void **state)
{
	pthread_t filler, opener;
	char buf[512];
	bool early;

	(void)state;
	open_sound_read_only();
	sp_io_hook = hold_fill;
	pthread_create(&filler, NULL, fill_late, buf);
	while (!get(late.held))
		usleep(1000);
	pthread_create(&opener, NULL, open_next, (void *)in_scratch("img.qcow2"));
	usleep(150000);
	early = get(late.opened);
	set(late.let_go, true);
	pthread_join(filler, NULL);
	sp_io_hook = NULL;
	fdev_drop(dev);
	pthread_join(opener, NULL);
	close(late.fds[0]);
	close(late.fds[1]);
	sp_close(late.next);
	assert_int_equal(late.read_rc, 0);
	assert_int_equal(buf[0], 0x33);
	assert_int_equal(late.open_rc, 0);
	assert_false(early);
}

/* ---- a cluster that was not all there ---- */

static unsigned int answers, changes;	/* to writes; those that leave something to commit */

static void watch_writes(const struct sp_req *req, const struct sp_reply *r)
{
	if (req->kind != SP_WRITE)
		return;
	answers++;
	changes += r->token != 0;
}

static int stop_watching(void **state)
{
	(void)state;
	fdev_reply_hook = NULL;
	return 0;
}

static void watch(void)
{
	answers = 0;
	changes = 0;
	fdev_reply_hook = watch_writes;
}

static void succeed(void)
{
	if (fdev_reattach(dev, &err))
		fail_msg("%s", err.msg);
}

/* The last cluster, G_DATA2's, ends with the file, so many bytes behind its start. */
static void open_cut(unsigned int bytes)
{
	struct craft c;

	craft_new(&c);
	c.size = AT(CR_DATA2) + bytes;
	store(&c, "img.qcow2");
	must_open();
}

/* The kernel knows all of the cluster; then the file becomes longer. */
static void read_then_write_elsewhere(void)
{
	struct sp_extent e;

	assert_int_equal(fdev_read(dev, back, SECT(G_DATA2), CRAFT_SECTORS), 0);
	assert_true(fdev_extent(dev, SECT(G_DATA2) + CRAFT_SECTORS - 1, &e));
	assert_int_equal(e.type, SP_ZERO);
	write_at(16, CRAFT_SECTORS, 0x16);
	assert_int_equal(fdev_flush(dev), 0);
	assert_true(fdev_extent(dev, SECT(G_DATA2) + CRAFT_SECTORS - 1, &e));
	assert_int_equal(e.type, SP_ZERO);
}

/* A sector of the cluster; what it has is sector's number + 1 from then on. */
static void write_tail(unsigned int sector)
{
	memset(data, sector + 1, 512);
	assert_int_equal(fdev_write(dev, data, SECT(G_DATA2) + sector, 1, false), 0);
}

static void expect_tail(unsigned int first, unsigned int end)
{
	for (unsigned int i = first; i < end; i++)
		expect_at(SECT(G_DATA2) + i, 1, i + 1);
}

static void end_and_look_again(unsigned int first)
{
	assert_int_equal(fdev_flush(dev), 0);
	expect_tail(first, CRAFT_SECTORS);
	finish();
	assert_int_equal(judged("img.qcow2"), 0);
	must_open();
	expect_tail(first, CRAFT_SECTORS);
	expect_at(SECT(16), CRAFT_SECTORS, 0x16);
	finish();
}

static void zeros_behind_the_end_can_be_written_to(void **state)
{
	(void)state;
	open_cut(1024);
	read_then_write_elsewhere();
	for (unsigned int i = 2; i < CRAFT_SECTORS; i++)
		write_tail(i);
	end_and_look_again(2);
}

static void zeros_behind_an_end_that_another_mapper_saw_too(void **state)
{
	(void)state;
	open_cut(1024);
	read_then_write_elsewhere();
	succeed();
	write_tail(4);
	expect_at(SECT(G_DATA2) + 5, 3, 0);
	succeed();
	succeed();
	for (unsigned int i = 2; i < CRAFT_SECTORS; i++)
		write_tail(i);
	end_and_look_again(2);
}

/* The sector with the end in it is in the cache, whose mapper is gone as well. */
static void a_sector_with_the_end_in_it_too(void **state)
{
	(void)state;
	open_cut(100);
	read_then_write_elsewhere();
	succeed();
	for (unsigned int i = 0; i < CRAFT_SECTORS; i++)
		write_tail(i);
	end_and_look_again(0);
}

static void a_successor_that_dies_with_its_answer_leaves_it_to_the_next(void **state)
{
	struct sp_extent *ext;
	unsigned int n;

	(void)state;
	open_cut(1024);
	read_then_write_elsewhere();
	succeed();
	watch();
	write_tail(2);
	assert_int_equal(changes, 1);
	n = fdev_dump(dev, &ext, NULL);
	assert_int_equal(n, 1);
	assert_int_equal(ext[0].lba, SECT(G_DATA2));
	assert_int_equal(ext[0].len, CRAFT_SECTORS);
	assert_int_equal(ext[0].off, SECT(CR_DATA2));
	assert_int_equal(ext[0].flags & SP_EXT_TOUCHED, SP_EXT_TOUCHED);
	free(ext);
	succeed();
	for (unsigned int i = 2; i < CRAFT_SECTORS; i++)
		write_tail(i);
	assert_int_equal(changes, 1);
	end_and_look_again(2);
}

static void an_answer_that_was_refused_is_given_again(void **state)
{
	struct sp_extent *ext;

	(void)state;
	open_cut(1024);
	read_then_write_elsewhere();
	succeed();
	watch();
	dev->opt.refuse = 100;
	for (int i = 0; i < 5; i++)
		assert_int_equal(fdev_write(dev, data, SECT(G_DATA2) + 4, 1, false), -ENOMEM);
	assert_int_equal(changes, 5);
	dev->opt.refuse = 0;
	assert_int_equal(fdev_dump(dev, &ext, NULL), 0);
	free(ext);
	for (unsigned int i = 2; i < CRAFT_SECTORS; i++)
		write_tail(i);
	assert_int_equal(changes, 6);
	end_and_look_again(2);
}

/*
 * A small TLB: what is written is forgotten, and written again.  Clusters of their
 * own, committed, have nothing to commit; or once, if there might have been a reason.
 */
static unsigned int overwrites_leave(unsigned int rounds)
{
	watch();
	for (unsigned int i = 0; i < rounds; i++) {
		fdev_evict(dev, 100);
		write_at(G_DATA, 1, 0x40 + i);
		fdev_evict(dev, 100);
		write_at(16, 1, 0x40 + i);
		if (i % 4 == 3)
			assert_int_equal(fdev_flush(dev), 0);
	}
	assert_in_range(answers, rounds, UINT32_MAX);
	return changes;
}

static void overwrites_after_eviction_have_nothing_to_commit(void **state)
{
	(void)state;
	open_sound();
	write_at(16, CRAFT_SECTORS, 0x16);
	assert_int_equal(fdev_flush(dev), 0);
	assert_int_equal(overwrites_leave(40), 0);
	succeed();
	assert_in_range(overwrites_leave(40), 0, 2);
	finish();
	assert_int_equal(judged("img.qcow2"), 0);
}

#define TEST(f)	cmocka_unit_test_teardown(f, stop_watching)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_smaller_cache_leaves_what_the_kernel_has),
		cmocka_unit_test(all_of_a_cache_that_was_taken_over_is_used_again),
		cmocka_unit_test(a_larger_cache_grows),
		cmocka_unit_test(who_made_the_cache_is_waited_for_too),
		TEST(zeros_behind_the_end_can_be_written_to),
		TEST(zeros_behind_an_end_that_another_mapper_saw_too),
		TEST(a_sector_with_the_end_in_it_too),
		TEST(a_successor_that_dies_with_its_answer_leaves_it_to_the_next),
		TEST(an_answer_that_was_refused_is_given_again),
		TEST(overwrites_after_eviction_have_nothing_to_commit),
	};

	begin_rules();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
