// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_text.c - names with any bytes in them, on a terminal and in JSON.
 */
#include "util.h"
#include "text.h"
#include "cm.h"

static void no_line_ends_in_a_name(void **state)
{
	char text[] = "a\nready 5\r\x1b[31m\x7f\tb\xe9\xc3\xa9 z";

	(void)state;
	text_one_line(text);
	assert_string_equal(text, "a?ready 5??[31m??b\xe9\xc3\xa9 z");
	/* As UTF-8, and by themselves; what they are a part of stays. */
	strcpy(text, "\xc2\x9b\x9b\xc3\x9b\xc2\xa0\xe2\x82\x9b\x85");
	text_one_line(text);
	assert_string_equal(text, "???\xc3\x9b\xc2\xa0\xe2\x82\x9b?");
	text[0] = '\0';
	text_one_line(text);
	assert_string_equal(text, "");
}

static void expect(const char *from, const char *to)
{
	char got[64];

	assert_ptr_equal(text_utf8(got, from), got);
	assert_string_equal(got, to);
}

#define NO	"\xef\xbf\xbd"

/* The last of each length, and what lies behind or is too long for what it says. */
static void only_utf8_gets_into_json(void **state)
{
	(void)state;
	expect("", "");
	expect("plain\n", "plain\n");
	expect("caf\xe9.raw", "caf" NO ".raw");
	expect("caf\xc3\xa9.raw", "caf\xc3\xa9.raw");
	expect("\x7f\xdf\xbf\xef\xbf\xbf\xf4\x8f\xbf\xbf", "\x7f\xdf\xbf\xef\xbf\xbf\xf4\x8f\xbf\xbf");
	expect("\xc2\x80\xe0\xa0\x80\xf0\x90\x80\x80", "\xc2\x80\xe0\xa0\x80\xf0\x90\x80\x80");
	expect("\xc0\x80", NO NO);
	expect("\xc1\xbf", NO NO);
	expect("\xe0\x9f\xbf", NO NO NO);
	expect("\xed\xa0\x80", NO NO NO);
	expect("\xf0\x8f\xbf\xbf", NO NO NO NO);
	expect("\xf4\x90\x80\x80", NO NO NO NO);
	expect("\xf5\x80", NO NO);
	/* Cut off by the end, or by what follows. */
	expect("\xe2\x82", NO NO);
	expect("\xe2\x82x", NO NO "x");
	expect("\xf0\x9f\x98", NO NO NO);
	expect("\x80", NO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_line_ends_in_a_name),
		cmocka_unit_test(only_utf8_gets_into_json),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
