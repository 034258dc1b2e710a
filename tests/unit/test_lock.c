// SPDX-License-Identifier: GPL-2.0-only
/* test_lock.c - slowpath/lock.c against itself and against QEMU's programs. */
#include "../fake/util.h"
#include <pthread.h>
#include "../fake/cm.h"
#include "lock.h"

static bool qemu;

static void need_qemu(void)
{
	if (!qemu) {
		print_message("# skipped: no qemu-img and qemu-io\n");
		skip();
	}
}

static void must_open(struct sp_file *f, const char *name, bool rw)
{
	struct sp_err err = { "" };

	assert_int_equal(sp_file_open(f, in_scratch(name), -1, rw, &err), 0);
}

static void new_image(const char *name)
{
	if (qemu)
		assert_int_equal(sh("rm -f %s; qemu-img create -f qcow2 %s 1M", name, name), 0);
	else
		write_file(in_scratch(name), "x", 1);
}

/* qemu-io that holds the image until told to end. */
static FILE *hold_with_qemu(const char *args, const char *name)
{
	char cmd[600];
	FILE *p;
	int i;

	/* It says that it is there by writing to a file. */
	unlink(in_scratch("there"));
	snprintf(cmd, sizeof(cmd), "qemu-io %s %s >%s 2>&1", args, in_scratch(name),
		 in_scratch("there"));
	p = popen(cmd, "w");
	assert_non_null(p);
	fputs("read 0 512\n", p);
	fflush(p);
	for (i = 0; i < 500 && sh("grep -q ops there"); i++)
		usleep(10000);
	assert_true(i < 500);
	return p;
}

static void two_writers_on_one_image_are_refused(void **state)
{
	struct sp_err err = { "" };
	struct sp_file a, b;

	(void)state;
	new_image("w");
	must_open(&a, "w", true);
	must_open(&b, "w", true);
	assert_int_equal(sp_lock_image(&a, true, &err), 0);
	assert_int_equal(sp_lock_image(&a, true, &err), 0);	/* again: harmless */
	assert_int_equal(sp_lock_image(&b, true, &err), -EBUSY);
	assert_non_null(strstr(err.msg, "close that one first"));
	/* The loser leaves nothing behind: a third comes in after the first. */
	sp_file_close(&a);
	must_open(&a, "w", true);
	err.msg[0] = 0;
	assert_int_equal(sp_lock_image(&a, true, &err), 0);
	sp_file_close(&a);
	sp_file_close(&b);
}

static void a_reader_and_a_writer_exclude_each_other(void **state)
{
	struct sp_err err = { "" };
	struct sp_file a, b;

	(void)state;
	new_image("w");
	must_open(&a, "w", true);
	must_open(&b, "w", false);
	assert_int_equal(sp_lock_image(&a, true, &err), 0);
	assert_int_equal(sp_lock_image(&b, false, &err), -EBUSY);
	sp_file_close(&a);
	assert_int_equal(sp_lock_image(&b, false, &err), 0);
	must_open(&a, "w", true);
	assert_int_equal(sp_lock_image(&a, true, &err), -EBUSY);
	sp_file_close(&a);
	sp_file_close(&b);
}

static void two_readers_share_a_backing_file(void **state)
{
	struct sp_err err = { "" };
	struct sp_file a, b;

	(void)state;
	new_image("w");
	must_open(&a, "w", false);
	must_open(&b, "w", false);
	assert_int_equal(sp_lock_image(&a, false, &err), 0);
	assert_int_equal(sp_lock_image(&b, false, &err), 0);
	if (qemu)
		assert_int_equal(sh("qemu-io -r -c 'read 0 512' w"), 0);
	sp_file_close(&a);
	sp_file_close(&b);
}

static void qemu_refuses_an_image_that_we_write(void **state)
{
	struct sp_err err = { "" };
	struct sp_file f;

	(void)state;
	need_qemu();
	new_image("w");
	must_open(&f, "w", true);
	assert_int_equal(sp_lock_image(&f, true, &err), 0);
	assert_int_not_equal(sh("qemu-io -c 'write 0 512' w"), 0);
	assert_int_not_equal(sh("qemu-io -r -c 'read 0 512' w"), 0);
	assert_int_not_equal(sh("qemu-img check w"), 0);
	assert_int_not_equal(sh("qemu-img info w"), 0);
	assert_int_equal(sh("qemu-img info -U w"), 0);
	assert_int_not_equal(sh("qemu-img resize w 2M"), 0);
	assert_int_not_equal(sh("qemu-img create -f qcow2 w 1M"), 0);
	sp_file_close(&f);
	assert_int_equal(sh("qemu-img check w"), 0);
}

static void qemu_may_read_but_not_write_what_we_read(void **state)
{
	struct sp_err err = { "" };
	struct sp_file f;

	(void)state;
	need_qemu();
	new_image("w");
	must_open(&f, "w", false);
	assert_int_equal(sp_lock_image(&f, false, &err), 0);
	assert_int_not_equal(sh("qemu-io -c 'write 0 512' w"), 0);
	assert_int_equal(sh("qemu-img check w"), 0);
	sp_file_close(&f);
	assert_int_equal(sh("qemu-io -c 'write 0 512' w"), 0);
}

static void we_refuse_an_image_that_qemu_writes(void **state)
{
	struct sp_err err = { "" };
	struct sp_file f;
	FILE *p;

	(void)state;
	need_qemu();
	new_image("w");
	p = hold_with_qemu("", "w");
	must_open(&f, "w", true);
	assert_int_equal(sp_lock_image(&f, true, &err), -EBUSY);
	sp_file_close(&f);
	must_open(&f, "w", false);
	assert_int_equal(sp_lock_image(&f, false, &err), -EBUSY);
	pclose(p);
	assert_int_equal(sp_lock_image(&f, false, &err), 0);
	sp_file_close(&f);
}

static void we_share_with_a_qemu_that_reads(void **state)
{
	struct sp_err err = { "" };
	struct sp_file f;
	FILE *p;

	(void)state;
	need_qemu();
	new_image("w");
	p = hold_with_qemu("-r", "w");
	must_open(&f, "w", false);
	assert_int_equal(sp_lock_image(&f, false, &err), 0);
	sp_file_close(&f);
	must_open(&f, "w", true);
	assert_int_equal(sp_lock_image(&f, true, &err), -EBUSY);
	pclose(p);
	sp_file_close(&f);
}

static void locks_live_as_long_as_the_kernels_descriptor(void **state)
{
	struct sp_err err = { "" };
	struct sp_file f, g, h;
	int kept;

	(void)state;
	new_image("w");
	must_open(&f, "w", true);
	assert_int_equal(sp_lock_image(&f, true, &err), 0);
	kept = dup(f.fd_l);
	sp_file_close(&f);		/* the mapper is dead, the kernel is not */
	must_open(&g, "w", true);
	assert_int_equal(sp_lock_image(&g, true, &err), -EBUSY);
	sp_file_close(&g);
	/* Attach: the same description, no conflict with itself, no gap. */
	assert_int_equal(sp_file_open(&h, in_scratch("w"), kept, true, &err), 0);
	assert_int_equal(sp_lock_image(&h, true, &err), 0);
	sp_file_close(&h);
	must_open(&g, "w", true);
	assert_int_equal(sp_lock_image(&g, true, &err), -EBUSY);
	close(kept);
	assert_int_equal(sp_lock_image(&g, true, &err), 0);
	sp_file_close(&g);
}

static void *let_go_later(void *arg)
{
	usleep(100000);
	sp_file_close(arg);
	return NULL;
}

/* Who is to be refused has the bytes for a moment; that is no conflict. */
static void an_attach_does_not_mind_who_only_asks(void **state)
{
	struct flock fl = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 201, .l_len = 1 };
	struct sp_err err = { "" };
	struct sp_file f, g, h;
	pthread_t thread;

	(void)state;
	new_image("w");
	must_open(&f, "w", true);
	assert_int_equal(sp_lock_image(&f, true, &err), 0);
	assert_int_equal(sp_file_open(&h, in_scratch("w"), f.fd_l, true, &err), 0);
	must_open(&g, "w", true);
	assert_int_equal(fcntl(g.fd_l, F_OFD_SETLK, &fl), 0);
	/* Whoever stays is one; the device keeps its locks all the same. */
	assert_int_equal(sp_lock_image(&h, true, &err), -EBUSY);
	sp_file_close(&g);
	must_open(&g, "w", true);
	assert_int_equal(sp_lock_image(&g, true, &err), -EBUSY);
	assert_int_equal(fcntl(g.fd_l, F_OFD_SETLK, &fl), 0);
	err.msg[0] = 0;
	pthread_create(&thread, NULL, let_go_later, &g);
	assert_int_equal(sp_lock_image(&h, true, &err), 0);
	assert_string_equal(err.msg, "");
	pthread_join(thread, NULL);
	sp_file_close(&h);
	sp_file_close(&f);
}

static void the_fence_waits_for_the_old_mapper(void **state)
{
	struct sp_err err = { "" };
	struct sp_file f, g;
	int64_t t;
	pid_t pid;
	int kept;

	(void)state;
	new_image("w");
	must_open(&f, "w", true);
	assert_int_equal(sp_lock_image(&f, true, &err), 0);
	assert_int_equal(sp_lock_fence(&f, 0, &err), 0);
	kept = dup(f.fd_l);
	assert_int_equal(sp_file_open(&g, in_scratch("w"), kept, true, &err), 0);
	t = clock_ms();
	assert_int_equal(sp_lock_fence(&g, 100, &err), -ETIMEDOUT);
	assert_in_range(clock_ms() - t, 90, 1000);
	assert_non_null(strstr(err.msg, "mapper before this one"));
	pid = fork();
	if (!pid) {		/* holds f's M for a while longer */
		usleep(150000);
		_exit(0);
	}
	sp_file_close(&f);
	t = clock_ms();
	err.msg[0] = 0;
	assert_int_equal(sp_lock_fence(&g, 5000, &err), 0);
	assert_in_range(clock_ms() - t, 100, 3000);
	waitpid(pid, NULL, 0);
	sp_file_close(&g);
	close(kept);
}

static void a_read_only_image_has_no_fence(void **state)
{
	struct sp_err err = { "" };
	struct sp_file f, g;

	(void)state;
	new_image("w");
	must_open(&f, "w", false);
	must_open(&g, "w", false);
	assert_int_equal(sp_lock_fence(&f, 0, &err), 0);
	assert_int_equal(sp_lock_fence(&g, 0, &err), 0);
	sp_file_close(&f);
	sp_file_close(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(two_writers_on_one_image_are_refused),
		cmocka_unit_test(a_reader_and_a_writer_exclude_each_other),
		cmocka_unit_test(two_readers_share_a_backing_file),
		cmocka_unit_test(qemu_refuses_an_image_that_we_write),
		cmocka_unit_test(qemu_may_read_but_not_write_what_we_read),
		cmocka_unit_test(we_refuse_an_image_that_qemu_writes),
		cmocka_unit_test(we_share_with_a_qemu_that_reads),
		cmocka_unit_test(locks_live_as_long_as_the_kernels_descriptor),
		cmocka_unit_test(an_attach_does_not_mind_who_only_asks),
		cmocka_unit_test(the_fence_waits_for_the_old_mapper),
		cmocka_unit_test(a_read_only_image_has_no_fence),
	};

	qemu = have("qemu-img") && have("qemu-io");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
