// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_rules_backing.c - what others got wrong about the files that an image names,
 * rule by rule: whose word on a format counts, and what may be opened.
 */
#include "rules.h"

/* ---- formats and backing files ---- */

static void the_format_of_a_guests_raw_disk_is_not_guessed(void **state)
{
	struct craft c;

	(void)state;
	craft_new(&c);
	craft_backing(&c, "/etc/passwd", 11, "raw");
	write_file(in_scratch("disk.img"), c.buf, c.size);
	write_file(in_scratch("disk"), c.buf, c.size);
	free(c.buf);
	assert_int_equal(try_open_as("disk.img", NULL, false), -EINVAL);
	assert_int_equal(try_open_as("disk", NULL, false), -EINVAL);
	assert_int_equal(try_open_as("disk.img", "raw", false), 0);
	assert_string_equal(fdev_info(dev)->format, "raw");
	assert_int_equal(fdev_info(dev)->depth, 0);
	assert_int_equal(fdev_read(dev, back, 0, 1), 0);
	assert_memory_equal(back, "QFI\xfb", 4);
	finish();
}

static void make_overlay(const char *name, const char *backing, const char *fmt)
{
	struct craft c;

	craft_new(&c);
	craft_backing(&c, backing, strlen(backing), fmt);
	store(&c, name);
}

static void backing_files_are_read_only_and_have_their_stated_format(void **state)
{
	const struct sp_store *s;

	(void)state;
	memset(data, 0x77, sizeof(data));
	memcpy(data, "QFI\xfb\0\0\0\3", 8);
	write_file(in_scratch("base"), data, sizeof(data));
	make_overlay("img.qcow2", "base", NULL);
	assert_int_equal(try_open(), -EINVAL);
	assert_non_null(strstr(err.msg, "base"));
	make_overlay("img.qcow2", "base", "raw");
	must_open();
	assert_int_equal(fdev_info(dev)->depth, 1);
	s = sp_store(fdev_image(dev), 1);
	assert_non_null(s);
	assert_int_equal(s->flags & SP_STORE_WRITE, 0);
	assert_int_equal(fcntl(s->fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	expect_at(SECT(G_NONE), CRAFT_SECTORS, 0x77);
	expect_at(SECT(G_ZERO), CRAFT_SECTORS, 0);
	write_at(G_NONE, 1, 1);
	expect_at(SECT(G_NONE) + 1, CRAFT_SECTORS - 1, 0x77);
	assert_int_equal(fdev_discard(dev, SECT(G_NONE), CRAFT_SECTORS), 0);
	finish();
	assert_int_equal(judged("img.qcow2"), 0);
	{
		size_t len;
		char *now = read_file(in_scratch("base"), &len);

		assert_int_equal(len, sizeof(data));
		memset(data, 0x77, sizeof(data));
		assert_memory_equal(now + 512, data + 512, len - 512);
		free(now);
	}
}

static unsigned int nr_asked;
static char asked[300];

static bool refuse_all(void *ctx, const char *path)
{
	(void)ctx;
	nr_asked++;
	snprintf(asked, sizeof(asked), "%s", path);
	return false;
}

static void backing_files_are_opened_only_where_the_operator_allows(void **state)
{
	struct fdev_opts o = { .format = "qcow2", .allow_backing = refuse_all, .seed = 1 };

	(void)state;
	/* A fifo: opening it would hang, being asked does not. */
	mkfifo(in_scratch("pipe"), 0600);
	make_overlay("img.qcow2", "pipe", "raw");
	o.path = in_scratch("img.qcow2");
	nr_asked = 0;
	assert_int_not_equal(fdev_open(&dev, &o, &err), 0);
	assert_int_equal(nr_asked, 1);
	assert_string_equal(asked, in_scratch("pipe"));
	assert_non_null(strstr(err.msg, "pipe"));
	o.allow_backing = NULL;
	alarm(5);
	assert_int_not_equal(fdev_open(&dev, &o, &err), 0);
	alarm(0);
}

static void no_protocol_or_json_names(void **state)
{
	(void)state;
	make_overlay("img.qcow2", "json:{\"driver\":\"nbd\"}", "raw");
	assert_int_equal(try_open(), -ENOTSUP);
	make_overlay("img.qcow2", "nbd://localhost/x", "raw");
	assert_int_equal(try_open(), -ENOTSUP);
	assert_non_null(strstr(err.msg, "nbd://"));
}

static void cycles_are_found_by_device_and_inode(void **state)
{
	(void)state;
	alarm(10);
	make_overlay("img.qcow2", "img.qcow2", "qcow2");
	assert_int_equal(try_open(), -ELOOP);
	/* a -> b -> a under another name */
	make_overlay("img.qcow2", "b.qcow2", "qcow2");
	make_overlay("b.qcow2", "c.qcow2", "qcow2");
	unlink(in_scratch("c.qcow2"));
	assert_int_equal(link(in_scratch("img.qcow2"), in_scratch("c.qcow2")), 0);
	assert_int_equal(try_open(), -ELOOP);
	alarm(0);
	unlink(in_scratch("c.qcow2"));
}

static void depth_is_bounded(void **state)
{
	char name[32], below[32];
	int i, rc;

	(void)state;
	make_overlay("img.qcow2", "d0", "qcow2");
	for (i = 0; i < 400; i++) {
		snprintf(name, sizeof(name), "d%d", i);
		snprintf(below, sizeof(below), "d%d", i + 1);
		make_overlay(name, below, "qcow2");
	}
	alarm(10);
	rc = try_open();
	alarm(0);
	assert_true(rc == -ELOOP);
	/* A reasonable one is let in. */
	write_file(in_scratch("d20"), "x", 1);
	make_overlay("d19", "d20", "raw");
	must_open();
	assert_int_equal(fdev_info(dev)->depth, 21);
	finish();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_format_of_a_guests_raw_disk_is_not_guessed),
		cmocka_unit_test(backing_files_are_read_only_and_have_their_stated_format),
		cmocka_unit_test(backing_files_are_opened_only_where_the_operator_allows),
		cmocka_unit_test(no_protocol_or_json_names),
		cmocka_unit_test(cycles_are_found_by_device_and_inode),
		cmocka_unit_test(depth_is_bounded),
	};

	begin_rules();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
