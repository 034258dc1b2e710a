// SPDX-License-Identifier: GPL-2.0-only
/* test_probe.c - formats by name and statement, never by content; backing names. */
#include "../fake/util.h"
#include "../fake/cm.h"
#include "probe.h"

static const char qcow2_head[] = "QFI\xfb\0\0\0\3";
static struct sp_err err;

static int probe(bool backing, const char *name, const char *head, size_t len,
		 const char *stated, enum sp_format *fmt)
{
	struct sp_file f;
	int rc;

	err.msg[0] = 0;
	write_file(in_scratch(name), head, len);
	assert_int_equal(sp_file_open(&f, in_scratch(name), -1, false, &err), 0);
	rc = (backing ? sp_probe_backing : sp_probe_image)(&f, stated, fmt, &err);
	if (rc) {	/* every refusal names the file and the cause, on one line */
		assert_non_null(strstr(err.msg, name));
		assert_null(strchr(err.msg, '\n'));
	}
	sp_file_close(&f);
	return rc;
}

#define IMG(name, head, stated)	probe(false, name, head, sizeof(head) - 1, stated, &fmt)
#define BACK(head, stated)	probe(true, "back", head, sizeof(head) - 1, stated, &fmt)

static void the_name_decides_the_format(void **state)
{
	enum sp_format fmt;

	(void)state;
	assert_int_equal(IMG("a.qcow2", qcow2_head, NULL), 0);
	assert_int_equal(fmt, SP_FMT_QCOW2);
	assert_int_equal(IMG("a.QCOW2", qcow2_head, NULL), 0);
	assert_int_equal(IMG("a.raw", "\0\0\0\0", NULL), 0);
	assert_int_equal(fmt, SP_FMT_RAW);
	assert_int_equal(IMG("a.img", "", NULL), 0);
	assert_int_equal(fmt, SP_FMT_RAW);
}

static void a_name_that_tells_nothing_is_refused(void **state)
{
	enum sp_format fmt;

	(void)state;
	assert_int_equal(IMG("disk", qcow2_head, NULL), -EINVAL);
	assert_non_null(strstr(err.msg, "-f"));
	assert_int_equal(IMG("disk", "\0\0", NULL), -EINVAL);
	assert_int_equal(IMG("disk", qcow2_head, "qcow2"), 0);
	assert_int_equal(IMG("disk", qcow2_head, "raw"), 0);
	assert_int_equal(fmt, SP_FMT_RAW);
}

/* CVE-2008-2004: a guest wrote a header into its raw disk. */
static void a_raw_disk_with_a_formats_magic_is_refused(void **state)
{
	enum sp_format fmt;

	(void)state;
	assert_int_equal(IMG("a.img", qcow2_head, NULL), -EINVAL);
	assert_non_null(strstr(err.msg, "qcow2"));
	assert_non_null(strstr(err.msg, "-f raw"));
	assert_int_equal(IMG("a.raw", "KDMV", NULL), -EINVAL);
	assert_int_equal(IMG("a.raw", "QED\0", NULL), -EINVAL);
	assert_int_equal(IMG("a.raw", "vhdxfile", NULL), -EINVAL);
	assert_int_equal(IMG("a.raw", "conectix", NULL), -EINVAL);
	assert_int_equal(IMG("a.raw", "LUKS\xba\xbe", NULL), -EINVAL);
	assert_int_equal(IMG("a.raw", "# Disk DescriptorFile", NULL), -EINVAL);
	assert_int_equal(IMG("a.raw", "QFI\xfb\0\0\0\1", NULL), -EINVAL);
	assert_int_equal(IMG("a.raw", "QEDx", NULL), 0);	/* not all of it */
}

static void vdi_is_seen_at_its_offset(void **state)
{
	enum sp_format fmt;
	char head[512] = "";

	(void)state;
	memcpy(head + 0x40, "\x7f\x10\xda\xbe", 4);
	assert_int_equal(probe(false, "a.raw", head, 512, NULL, &fmt), -EINVAL);
	assert_int_equal(probe(true, "b", head, 512, NULL, &fmt), -EINVAL);
}

static void a_qcow2_name_without_its_magic_is_refused(void **state)
{
	enum sp_format fmt;

	(void)state;
	assert_int_equal(IMG("a.qcow2", "\0\0\0\0", NULL), -EINVAL);
	assert_int_equal(IMG("a.qcow2", "", NULL), -EINVAL);
	assert_int_equal(IMG("a.qcow2", "KDMV", NULL), -EINVAL);
	assert_non_null(strstr(err.msg, "vmdk"));
	assert_int_equal(IMG("a.qcow2", "\0\0\0\0", "raw"), 0);
	assert_int_equal(fmt, SP_FMT_RAW);
	assert_int_equal(IMG("a.qcow2", "\0\0\0\0", "qcow2"), -EINVAL);
}

/* Which has the same magic. */
static void qcow_is_not_qcow2(void **state)
{
	enum sp_format fmt;

	(void)state;
	assert_int_equal(IMG("a.qcow2", "QFI\xfb\0\0\0\1", NULL), -ENOTSUP);
	assert_non_null(strstr(err.msg, "a qcow image"));
	assert_non_null(strstr(err.msg, "convert it"));
	assert_int_equal(IMG("a.qcow", "QFI\xfb\0\0\0\1", NULL), -ENOTSUP);
	assert_non_null(strstr(err.msg, "a qcow image"));
	assert_int_equal(IMG("a", "QFI\xfb\0\0\0\1", "qcow2"), -ENOTSUP);
	assert_non_null(strstr(err.msg, "a qcow image"));
	assert_int_equal(BACK("QFI\xfb\0\0\0\1", "qcow2"), -ENOTSUP);
	/* Nor does its name say that it is. */
	assert_int_equal(IMG("a.qcow", qcow2_head, NULL), -EINVAL);
	assert_non_null(strstr(err.msg, "-f qcow2"));
	assert_int_equal(IMG("a.qcow", qcow2_head, "qcow2"), 0);
	assert_int_equal(fmt, SP_FMT_QCOW2);
	/* A version that is no such byte. */
	assert_int_equal(IMG("a.qcow2", "QFI\xfb\1\0\0\1", NULL), 0);
}

static void an_unknown_format_is_refused_by_name(void **state)
{
	enum sp_format fmt;

	(void)state;
	assert_int_equal(IMG("a.img", "", "vmdk"), -ENOTSUP);
	assert_non_null(strstr(err.msg, "vmdk"));
	assert_int_equal(BACK("", "vdi"), -ENOTSUP);
	assert_int_equal(BACK("", ""), -ENOTSUP);
}

static void a_backing_format_is_never_guessed(void **state)
{
	enum sp_format fmt;

	(void)state;
	assert_int_equal(BACK(qcow2_head, NULL), -EINVAL);
	assert_int_equal(BACK("KDMV", NULL), -EINVAL);
	assert_int_equal(BACK("plain", NULL), 0);
	assert_int_equal(fmt, SP_FMT_RAW);
	assert_int_equal(BACK(qcow2_head, "raw"), 0);
	assert_int_equal(fmt, SP_FMT_RAW);
	assert_int_equal(BACK(qcow2_head, "qcow2"), 0);
	assert_int_equal(fmt, SP_FMT_QCOW2);
	assert_int_equal(BACK("plain", "qcow2"), -EINVAL);
}

static int path(const char *image, const char *name, size_t len, char **out)
{
	char *exact = malloc(len ? len : 1);
	int rc;

	memcpy(exact, name, len);
	err.msg[0] = 0;
	*out = NULL;
	rc = sp_backing_path(image, exact, len, out, &err);
	free(exact);
	if (rc)
		assert_null(*out);
	return rc;
}

static void expect_path(const char *image, const char *name, const char *want)
{
	char *out;

	assert_int_equal(path(image, name, strlen(name), &out), 0);
	assert_string_equal(out, want);
	free(out);
}

static void a_backing_name_counts_from_the_images_folder(void **state)
{
	(void)state;
	expect_path("/a/b/c.qcow2", "base", "/a/b/base");
	expect_path("/a/b/c.qcow2", "../base", "/a/b/../base");
	expect_path("/a/b/c.qcow2", "/x/base", "/x/base");
	expect_path("c.qcow2", "base", "base");
	expect_path("./c.qcow2", "base", "./base");
	expect_path("/c.qcow2", "base", "/base");
	expect_path("a/c", "sub/with:colon", "a/sub/with:colon");
	expect_path("a/c", "/with:colon", "/with:colon");
}

static void protocols_are_refused(void **state)
{
	const char *names[] = { "nbd:localhost:10809", "nbd://h/x", "json:{}", "http://x/y",
				"file:base", "ssh://", "rbd:pool/x", "fat:/etc", ":", "x:y" };
	unsigned int i;
	char *out;

	(void)state;
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		assert_int_equal(path("/a/c", names[i], strlen(names[i]), &out), -ENOTSUP);
	assert_int_equal(path("/a/c", "", 0, &out), -EINVAL);
	assert_int_equal(path("/a/c", "ba\0se", 5, &out), -EINVAL);
	assert_int_equal(path("/a/c", "\0", 1, &out), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_name_decides_the_format),
		cmocka_unit_test(a_name_that_tells_nothing_is_refused),
		cmocka_unit_test(a_raw_disk_with_a_formats_magic_is_refused),
		cmocka_unit_test(vdi_is_seen_at_its_offset),
		cmocka_unit_test(a_qcow2_name_without_its_magic_is_refused),
		cmocka_unit_test(qcow_is_not_qcow2),
		cmocka_unit_test(an_unknown_format_is_refused_by_name),
		cmocka_unit_test(a_backing_format_is_never_guessed),
		cmocka_unit_test(a_backing_name_counts_from_the_images_folder),
		cmocka_unit_test(protocols_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
