// SPDX-License-Identifier: GPL-2.0-only
/* test_io.c - slowpath/io.c against plain memory, with direct and buffered I/O. */
#include "../fake/util.h"
#include "../fake/cm.h"
#include "io.h"

#define SPAN	(1u << 20)

static char model[2 * SPAN];
static char tmp[2 * SPAN];

static int ops[6];
static int fail_op = -1;

static int count_hook(const struct sp_file *f, enum sp_io_op op, const void *buf,
		      uint64_t off, uint64_t len)
{
	(void)f; (void)off; (void)len;
	assert_true((op == SP_IO_WRITE) == (buf != NULL));
	ops[op]++;
	return fail_op == (int)op ? -ENOSPC : 0;
}

static void open_new(struct sp_file *f, const char *name, size_t size)
{
	struct sp_err err = { "" };

	memset(model, 0, sizeof(model));
	write_file(in_scratch(name), model, size);
	assert_int_equal(sp_file_open(f, in_scratch(name), -1, true, &err), 0);
	assert_string_equal(err.msg, "");
}

/* Random operations at any alignment, buffer alignment included. */
static void random_ops(struct sp_file *f, uint64_t seed)
{
	char *buf = malloc(SPAN + 64);
	uint64_t off, len, size = 0, now;
	struct rng r;
	size_t got, i;
	int n;

	rng_seed(&r, seed);
	assert_int_equal(sp_file_size(f, &size), 0);
	for (n = 0; n < 400; n++) {
		char *p = buf + rng_below(&r, 3) * 16;

		len = 1 + rng_below(&r, rng_chance(&r, 10) ? SPAN / 2 : 9000);
		off = rng_below(&r, SPAN);
		if (rng_chance(&r, 50)) {
			len = (len + 511) & ~511ull;
			off &= ~511ull;
		}
		switch (rng_below(&r, 8)) {
		case 0 ... 2:
			for (i = 0; i < len; i++)
				p[i] = rng_next(&r) >> 56;
			assert_int_equal(sp_file_pwrite(f, p, len, off), 0);
			memcpy(model + off, p, len);
			if (off + len > size)
				size = off + len;
			break;
		case 3:
			assert_int_equal(sp_file_zero(f, off, len), 0);
			memset(model + off, 0, len);
			if (off + len > size)
				size = off + len;
			break;
		case 4:
			assert_int_equal(sp_file_size(f, &now), 0);
			assert_int_equal(sp_file_punch(f, off, len), 0);
			memset(model + off, 0, len);
			assert_int_equal(sp_file_size(f, &size), 0);
			assert_true(size == now);	/* never grows, never shrinks */
			break;
		default:
			memset(p, 0xaa, len);
			assert_int_equal(sp_file_pread(f, p, len, off, &got), 0);
			assert_memory_equal(p, model + off, len);
			assert_int_equal(sp_file_size(f, &now), 0);
			assert_true(got == (off >= now ? 0 : off + len > now ? now - off : len));
			/* NULL instead of got: the end of file is an error. */
			assert_int_equal(sp_file_pread(f, p, len, off, NULL),
					 got < len ? -EIO : 0);
			break;
		}
		/* The file may end a block later than the model, not earlier. */
		assert_int_equal(sp_file_size(f, &now), 0);
		assert_true(now >= size && now < size + f->align);
		size = now;
	}
	assert_int_equal(sp_file_sync(f), 0);
	assert_int_equal(sp_file_pread(f, tmp, sizeof(tmp), 0, &got), 0);
	assert_memory_equal(tmp, model, sizeof(tmp));
	/* And through the page cache, as anybody else sees it. */
	memset(tmp, 0, sizeof(tmp));
	assert_true(pread(f->fd_l, tmp, sizeof(tmp), 0) == (ssize_t)size);
	assert_memory_equal(tmp, model, sizeof(tmp));
	free(buf);
}

static void direct_io_of_any_alignment_equals_memory(void **state)
{
	struct sp_file f;
	uint64_t seed;

	(void)state;
	for (seed = 1; seed <= 6; seed++) {
		open_new(&f, "a", seed * 333 % 2000);
		if (f.buffered)
			print_message("# no direct I/O here: buffered instead\n");
		else
			assert_true(fcntl(f.fd_m, F_GETFL) & O_DIRECT);
		random_ops(&f, seed);
		sp_file_close(&f);
	}
}

/* A device of 4096-byte blocks, played by a coarser granularity. */
static void direct_io_with_large_blocks_equals_memory(void **state)
{
	struct sp_file f;
	uint64_t seed;

	(void)state;
	for (seed = 10; seed <= 14; seed++) {
		open_new(&f, "a", 0);
		if (!f.buffered) {
			f.align = 4096;
			f.mem_align = 4096;
		}
		random_ops(&f, seed);
		sp_file_close(&f);
	}
}

static void buffered_io_equals_memory(void **state)
{
	struct sp_file f;

	(void)state;
	open_new(&f, "a", 12345);
	assert_int_equal(sp_file_set_buffered(&f), 0);
	assert_true(f.buffered && f.align == 1);
	assert_false(fcntl(f.fd_m, F_GETFL) & O_DIRECT);
	random_ops(&f, 7);
	sp_file_close(&f);
}

static void a_write_keeps_what_is_around_it(void **state)
{
	struct sp_file f;
	size_t got;
	char c;

	(void)state;
	open_new(&f, "a", 0);
	memset(tmp, 0x11, 16384);
	assert_int_equal(sp_file_pwrite(&f, tmp, 16384, 0), 0);
	c = 0x22;
	assert_int_equal(sp_file_pwrite(&f, &c, 1, 5000), 0);
	assert_int_equal(sp_file_pread(&f, tmp, 16384, 0, &got), 0);
	assert_int_equal(tmp[4999], 0x11);
	assert_int_equal(tmp[5000], 0x22);
	assert_int_equal(tmp[5001], 0x11);
	assert_int_equal(tmp[16383], 0x11);
	sp_file_close(&f);
}

static void punching_frees_space_and_keeps_the_size(void **state)
{
	struct stat a, b;
	struct sp_file f;

	(void)state;
	open_new(&f, "a", 0);
	memset(tmp, 1, SPAN);
	assert_int_equal(sp_file_pwrite(&f, tmp, SPAN, 0), 0);
	assert_int_equal(sp_file_sync(&f), 0);
	assert_int_equal(fstat(f.fd_l, &a), 0);
	assert_int_equal(sp_file_punch(&f, 0, SPAN), 0);
	assert_int_equal(fstat(f.fd_l, &b), 0);
	assert_true(b.st_size == a.st_size);
	assert_true(b.st_blocks < a.st_blocks / 4);
	sp_file_close(&f);
}

static void a_failed_sync_is_never_retried_as_success(void **state)
{
	struct sp_file f;
	size_t got;
	char c = 1;

	(void)state;
	open_new(&f, "a", 4096);
	sp_io_hook = count_hook;
	fail_op = SP_IO_SYNC;
	assert_int_equal(sp_file_sync(&f), -ENOSPC);
	fail_op = -1;
	memset(ops, 0, sizeof(ops));
	assert_true(f.failed);
	assert_int_equal(sp_file_sync(&f), -EIO);
	assert_int_equal(sp_file_pwrite(&f, &c, 1, 0), -EIO);
	assert_int_equal(sp_file_zero(&f, 0, 512), -EIO);
	assert_int_equal(sp_file_punch(&f, 0, 512), -EIO);
	assert_int_equal(sp_file_truncate(&f, 0), -EIO);
	assert_int_equal(ops[SP_IO_SYNC] + ops[SP_IO_WRITE] + ops[SP_IO_ZERO] +
			 ops[SP_IO_PUNCH] + ops[SP_IO_TRUNCATE], 0);
	assert_int_equal(sp_file_pread(&f, &c, 1, 0, &got), 0);	/* reads go on */
	sp_io_hook = NULL;
	sp_file_close(&f);
}

static void a_hook_fails_each_operation_without_effect(void **state)
{
	struct sp_file f;
	uint64_t size;
	size_t got;
	char c = 1;

	(void)state;
	open_new(&f, "a", 4096);
	c = 9;
	assert_int_equal(sp_file_pwrite(&f, &c, 1, 100), 0);
	sp_io_hook = count_hook;
	fail_op = SP_IO_WRITE;
	c = 1;
	assert_int_equal(sp_file_pwrite(&f, &c, 1, 100), -ENOSPC);
	fail_op = SP_IO_ZERO;
	assert_int_equal(sp_file_zero(&f, 0, 8192), -ENOSPC);
	fail_op = SP_IO_PUNCH;
	assert_int_equal(sp_file_punch(&f, 0, 4096), -ENOSPC);
	fail_op = SP_IO_TRUNCATE;
	assert_int_equal(sp_file_truncate(&f, 0), -ENOSPC);
	fail_op = SP_IO_READ;
	assert_int_equal(sp_file_pread(&f, &c, 1, 100, &got), -ENOSPC);
	fail_op = -1;
	assert_false(f.failed);
	assert_int_equal(sp_file_size(&f, &size), 0);
	assert_int_equal(size, 4096);
	assert_int_equal(sp_file_pread(&f, &c, 1, 100, &got), 0);
	assert_int_equal(c, 9);
	sp_io_hook = NULL;
	sp_file_close(&f);
}

static void what_is_no_file_is_refused_at_once(void **state)
{
	struct sp_err err = { "" };
	struct sp_file f;
	pid_t writer;

	(void)state;
	assert_int_equal(mkfifo(in_scratch("fifo"), 0600), 0);
	/* Who waits for a reader must not see one. */
	writer = fork();
	if (!writer)
		_exit(open(in_scratch("fifo"), O_WRONLY) < 0);
	usleep(100000);
	assert_int_equal(sp_file_open(&f, in_scratch("fifo"), -1, false, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "fifo: neither a regular file"));
	usleep(100000);
	assert_int_equal(waitpid(writer, NULL, WNOHANG), 0);
	kill(writer, SIGKILL);
	waitpid(writer, NULL, 0);
	err.msg[0] = 0;
	assert_int_equal(sp_file_open(&f, scratch, -1, false, &err), -EINVAL);
	err.msg[0] = 0;
	assert_int_equal(sp_file_open(&f, "/dev/null", -1, true, &err), -EINVAL);
	err.msg[0] = 0;
	assert_int_equal(sp_file_open(&f, in_scratch("none"), -1, true, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "none"));
	assert_int_equal(f.fd_l, -1);
	assert_int_equal(f.fd_m, -1);
}

static void a_read_only_file_is_never_changed(void **state)
{
	struct sp_err err = { "" };
	struct sp_file f;
	char c = 1;

	(void)state;
	write_file(in_scratch("ro"), "x", 1);
	assert_int_equal(sp_file_open(&f, in_scratch("ro"), -1, false, &err), 0);
	assert_int_equal(fcntl(f.fd_m, F_GETFL) & O_ACCMODE, O_RDONLY);
	assert_int_equal(fcntl(f.fd_l, F_GETFL) & O_ACCMODE, O_RDONLY);
	assert_int_equal(sp_file_pwrite(&f, &c, 1, 0), -EROFS);
	assert_int_equal(sp_file_zero(&f, 0, 1), -EROFS);
	assert_int_equal(sp_file_punch(&f, 0, 1), -EROFS);
	assert_int_equal(sp_file_truncate(&f, 0), -EROFS);
	sp_file_close(&f);
}

static int open_as_nobody(const char *name, bool writable, struct sp_err *err)
{
	bool root = !geteuid();
	struct sp_file f;
	int rc;

	err->msg[0] = 0;
	if (root)
		assert_int_equal(seteuid(65534), 0);
	rc = sp_file_open(&f, in_scratch(name), -1, writable, err);
	if (root)
		assert_int_equal(seteuid(0), 0);
	if (!rc)
		sp_file_close(&f);
	return rc;
}

static void who_must_not_write_is_told_of_reading_where_he_may(void **state)
{
	struct sp_err err;

	(void)state;
	assert_int_equal(chmod(scratch_make(), 0755), 0);
	write_file(in_scratch("look"), "x", 1);
	assert_int_equal(chmod(in_scratch("look"), 0444), 0);
	write_file(in_scratch("secret"), "x", 1);
	assert_int_equal(chmod(in_scratch("secret"), 0), 0);
	assert_int_equal(open_as_nobody("look", true, &err), -EACCES);
	assert_non_null(strstr(err.msg, "writing: Permission denied; add it read-only: -r"));
	assert_int_equal(open_as_nobody("look", false, &err), 0);
	assert_int_equal(open_as_nobody("secret", true, &err), -EACCES);
	assert_null(strstr(err.msg, "-r"));
	assert_int_equal(open_as_nobody("secret", false, &err), -EACCES);
	assert_null(strstr(err.msg, "-r"));
	assert_int_equal(open_as_nobody("none", true, &err), -ENOENT);
	assert_null(strstr(err.msg, "-r"));
}

static void offsets_that_overflow_are_errors(void **state)
{
	struct sp_file f;
	size_t got;
	char c = 1;

	(void)state;
	open_new(&f, "a", 4096);
	assert_int_equal(sp_file_pwrite(&f, &c, 1, UINT64_MAX), -EFBIG);
	assert_int_equal(sp_file_pwrite(&f, &c, 1, INT64_MAX), -EFBIG);
	assert_int_equal(sp_file_zero(&f, 4096, UINT64_MAX - 100), -EFBIG);
	assert_int_equal(sp_file_punch(&f, UINT64_MAX - 5, 10), -EFBIG);
	assert_int_equal(sp_file_truncate(&f, UINT64_MAX), -EFBIG);
	assert_int_equal(sp_file_pread(&f, &c, 1, UINT64_MAX, &got), -EIO);
	assert_int_equal(sp_file_pread(&f, &c, 1, INT64_MAX - 1, &got), -EIO);
	sp_file_close(&f);
}

static void an_adopted_descriptor_stays_the_callers(void **state)
{
	struct sp_err err = { "" };
	struct sp_file f;
	int fd;

	(void)state;
	write_file(in_scratch("ad"), "hello", 5);
	fd = open(in_scratch("ad"), O_RDWR);
	assert_int_equal(sp_file_open(&f, "/not/there", fd, true, &err), 0);
	assert_true(f.adopted);
	sp_file_close(&f);
	assert_int_equal(fcntl(fd, F_GETFD), 0);
	close(fd);
	fd = open(in_scratch("ad"), O_RDONLY);
	assert_int_equal(sp_file_open(&f, "x", fd, true, &err), -EACCES);
	assert_int_equal(sp_file_open(&f, "x", fd, false, &err), 0);
	sp_file_close(&f);
	close(fd);
}

static void two_names_of_one_file_have_one_identity(void **state)
{
	struct sp_err err = { "" };
	struct sp_file a, b;

	(void)state;
	write_file(in_scratch("n1"), "x", 1);
	unlink(in_scratch("n2"));
	assert_int_equal(link(in_scratch("n1"), in_scratch("n2")), 0);
	assert_int_equal(sp_file_open(&a, in_scratch("n1"), -1, false, &err), 0);
	assert_int_equal(sp_file_open(&b, in_scratch("n2"), -1, false, &err), 0);
	assert_true(a.dev == b.dev && a.ino == b.ino);
	sp_file_close(&a);
	sp_file_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(direct_io_of_any_alignment_equals_memory),
		cmocka_unit_test(direct_io_with_large_blocks_equals_memory),
		cmocka_unit_test(buffered_io_equals_memory),
		cmocka_unit_test(a_write_keeps_what_is_around_it),
		cmocka_unit_test(punching_frees_space_and_keeps_the_size),
		cmocka_unit_test(a_failed_sync_is_never_retried_as_success),
		cmocka_unit_test(a_hook_fails_each_operation_without_effect),
		cmocka_unit_test(what_is_no_file_is_refused_at_once),
		cmocka_unit_test(a_read_only_file_is_never_changed),
		cmocka_unit_test(who_must_not_write_is_told_of_reading_where_he_may),
		cmocka_unit_test(offsets_that_overflow_are_errors),
		cmocka_unit_test(an_adopted_descriptor_stays_the_callers),
		cmocka_unit_test(two_names_of_one_file_have_one_identity),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
