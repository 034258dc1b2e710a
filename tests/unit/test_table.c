// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_table.c - memory for extents: never short, never shared, all of it back.
 */
#include <stdlib.h>
#include <string.h>

#include "cm.h"
#include "table.h"

#define MANY 300

static void tables_do_not_overlap(void **state)
{
	static const unsigned int sizes[] = { 2, 16, 17, 256, 257, 4096, 8192 };
	struct ubdm_extent *got[MANY];
	unsigned int nr[MANY];
	struct tables t;

	(void)state;
	assert_int_equal(ubdm_tables_init(&t), 0);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < MANY; i++) {
			nr[i] = sizes[(i + round) % 7];
			got[i] = ubdm_table_get(&t, nr[i]);
			assert_non_null(got[i]);
			memset(got[i], i & 0xff, nr[i] * sizeof(*got[i]));
		}
		for (int i = 0; i < MANY; i++) {
			const unsigned char *b = (unsigned char *)got[i];

			assert_int_equal(b[0], i & 0xff);
			assert_int_equal(b[nr[i] * sizeof(*got[i]) - 1],
					 i & 0xff);
		}
		for (int i = 0; i < MANY; i++)
			ubdm_table_put(&t, got[(i * 7) % MANY]);
	}
	ubdm_table_put(&t, NULL);
	ubdm_tables_exit(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tables_do_not_overlap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
