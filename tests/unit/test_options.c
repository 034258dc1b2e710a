// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_options.c - what "add" is told and what it tells the mapper are the same.
 */
#include "util.h"
#include "options.h"
#include "cm.h"

static const struct command cmd = { .name = "add" };

static int parse(char **argv, int nr, bool internal, struct serve_options *o)
{
	char *args[16] = { "add" };

	for (int i = 0; i < nr; i++)
		args[i + 1] = argv[i];
	return parse_serve(&cmd, nr + 1, args, internal, o);
}

/* The options were made; the dashes and the image were not. */
static void drop(struct serve_options *o)
{
	for (int i = 0; i < o->nr_args - 2; i++)
		free(o->args[i]);
	free(o->args);
}

static void expect_equal(const struct serve_options *a, const struct serve_options *b)
{
	assert_string_equal(a->image, b->image);
	assert_int_equal(!a->format, !b->format);
	if (a->format)
		assert_string_equal(a->format, b->format);
	assert_int_equal(a->read_only, b->read_only);
	assert_int_equal(a->partscan, b->partscan);
	assert_int_equal(a->block_size, b->block_size);
	assert_int_equal(a->cache_bytes, b->cache_bytes);
	assert_int_equal(a->space_timeout, b->space_timeout);
	assert_int_equal(a->orphan_timeout, b->orphan_timeout);
	assert_int_equal(a->detach, b->detach);
	assert_false(b->foreground || b->take_over || b->attach);
	assert_int_equal(b->ready_fd, 2);
}

/* As launch.c starts it. */
static void expect_passed_on(char **argv, int nr)
{
	char *args[16] = { "--ready-fd=2" };
	struct serve_options told, passed;

	assert_int_equal(parse(argv, nr, false, &told), EXIT_OK);
	assert_in_range(told.nr_args, 1, 15);
	memcpy(args + 1, told.args, told.nr_args * sizeof(*args));
	if (parse(args, told.nr_args + 1, true, &passed))
		fail_msg("the mapper does not take what add did of \"%s\"", argv[0]);
	expect_equal(&told, &passed);
	drop(&told);
	drop(&passed);
}

/* A letter less each time; those that fit several are the user's mistake. */
static void an_abbreviation_means_the_same_to_the_mapper(void **state)
{
	static const struct {
		const char *name, *value;
		unsigned int least;
	} all[] = {
		{ "--read-only", NULL, 3 },
		{ "--format", "raw", 3 },
		{ "--sector-size", "4096", 4 },
		{ "--partscan", NULL, 3 },
		{ "--cache-size", "1M", 3 },
		{ "--space-timeout", "7", 4 },
		{ "--orphan-timeout", "8", 3 },
		{ "--detach", NULL, 3 },
	};

	(void)state;
	for (unsigned int i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		for (unsigned int n = all[i].least; n <= strlen(all[i].name); n++) {
			char word[64], *apart[] = { word, (char *)all[i].value, "a.raw" };
			char *joined[] = { word, "a.raw" };

			snprintf(word, sizeof(word), "%.*s", (int)n, all[i].name);
			if (all[i].value)
				expect_passed_on(apart, 3);
			else
				expect_passed_on(joined, 2);
			if (!all[i].value)
				continue;
			snprintf(word, sizeof(word), "%.*s=%s", (int)n, all[i].name,
				 all[i].value);
			expect_passed_on(joined, 2);
		}
	}
}

static void letters_and_odd_names_are_passed_on(void **state)
{
	char *cluster[] = { "-rPrPrPfqcow2", "a", "-b", "1K" };
	char *dashed[] = { "-r", "--", "--read-only" };
	char *behind[] = { "a.raw", "--fo", "raw" };

	(void)state;
	expect_passed_on(cluster, 4);
	expect_passed_on(dashed, 3);
	expect_passed_on(behind, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_abbreviation_means_the_same_to_the_mapper),
		cmocka_unit_test(letters_and_odd_names_are_passed_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
