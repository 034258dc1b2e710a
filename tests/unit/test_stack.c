// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_stack.c - what lies on what, in a sysfs of our own making.
 *
 *	sda   sda1	a disk with a partition
 *	dm-0		on sda1
 *	dm-1		on dm-0 and ubdmap7
 *	loop0		of a file, which lies on whatever our folder is said to
 *	dm-2		on loop0
 *	dm-3, dm-4	on each other, which no kernel does
 */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "cm.h"
#include "stack.h"

static char sys[64];
static int file;

static void run(const char *what)
{
	char cmd[512];

	snprintf(cmd, sizeof(cmd), "cd %s && { %s\n}", sys, what);
	assert_int_equal(system(cmd), 0);
}

/* The file system of our folder is on this disk. */
static void we_lie_on(const char *disk)
{
	char cmd[256];
	struct stat st;

	assert_int_equal(fstat(file, &st), 0);
	snprintf(cmd, sizeof(cmd), "ln -sfn ../../d/%s dev/block/%u:%u", disk,
		 major(st.st_dev), minor(st.st_dev));
	run(cmd);
}

static bool on(const char *disk)
{
	return ubdm_stack_lies_on(sys, file, disk);
}

static int setup(void **state)
{
	(void)state;
	strcpy(sys, "/tmp/test_stack.XXXXXX");
	assert_non_null(mkdtemp(sys));
	run("mkdir -p dev/block d/sda/sda1 d/sda/slaves d/ubdmap7/slaves\n"
	    "for i in 0 1 2 3 4; do mkdir -p d/dm-$i/slaves; done\n"
	    "mkdir -p d/loop0/loop d/loop0/slaves; echo 1 >d/sda/sda1/partition\n"
	    "ln -s ../../sda/sda1 d/dm-0/slaves/sda1\n"
	    "ln -s ../../dm-0 d/dm-1/slaves/; ln -s ../../ubdmap7 d/dm-1/slaves/\n"
	    "ln -s ../../loop0 d/dm-2/slaves/; touch image\n"
	    "ln -s ../../dm-4 d/dm-3/slaves/; ln -s ../../dm-3 d/dm-4/slaves/\n"
	    "echo $PWD/image >d/loop0/loop/backing_file");
	file = open(sys, O_RDONLY | O_DIRECTORY);
	assert_true(file >= 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	run("rm -rf \"$PWD\"");
	close(file);
	return 0;
}

static void a_file_lies_on_its_disk_and_no_other(void **state)
{
	(void)state;
	assert_false(on("sda")); /* nothing is known */
	we_lie_on("ubdmap7");
	assert_true(on("ubdmap7"));
	assert_false(on("ubdmap"));
	assert_false(on("ubdmap77"));
	we_lie_on("sda/sda1");
	assert_true(on("sda"));
	assert_false(on("ubdmap7"));
}

static void it_is_seen_through_mapped_devices(void **state)
{
	(void)state;
	we_lie_on("dm-0");
	assert_true(on("sda"));
	assert_false(on("ubdmap7"));
	we_lie_on("dm-1");
	assert_true(on("sda"));
	assert_true(on("ubdmap7"));
}

static void and_through_loop_devices(void **state)
{
	struct stat st;

	(void)state;
	/* loop0's file is said to lie where our folder does. */
	we_lie_on("dm-2");
	assert_true(on("loop0"));
	assert_false(on("ubdmap7")); /* round and round, and it ends */
	assert_int_equal(stat("/dev/null", &st), 0);
	run("echo /dev/null >d/loop0/loop/backing_file");
	{
		char cmd[256];

		snprintf(cmd, sizeof(cmd),
			 "ln -sfn ../../d/ubdmap7 dev/block/%u:%u",
			 major(st.st_dev), minor(st.st_dev));
		run(cmd);
	}
	assert_true(on("ubdmap7"));
	run("echo '/gone (deleted)' >d/loop0/loop/backing_file");
	assert_false(on("ubdmap7"));
	run(": >d/loop0/loop/backing_file");
	assert_false(on("ubdmap7"));
}

static void a_stack_without_end_ends(void **state)
{
	(void)state;
	we_lie_on("dm-3");
	assert_true(on("dm-4"));
	assert_false(on("ubdmap7"));
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_file_lies_on_its_disk_and_no_other),
		T(it_is_seen_through_mapped_devices),
		T(and_through_loop_devices),
		T(a_stack_without_end_ends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
