// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_abi.c - the uapi as it is: sizes, offsets, numbers.
 *
 * A change here breaks programs that were compiled before it.
 */
#include <stddef.h>

#include "cm.h"
#include "ubdmap.h"
#include "ubdmap_nl.h"

struct field {
	const char *name;
	size_t offset, size;
	size_t want_offset, want_size;
};

#define FIELD(type, f, off, sz) \
	{ #type "." #f, offsetof(struct type, f), \
	  sizeof(((struct type *)0)->f), off, sz }

static const struct field fields[] = {
	FIELD(ubdm_extent, lba, 0, 8),
	FIELD(ubdm_extent, len, 8, 8),
	FIELD(ubdm_extent, off, 16, 8),
	FIELD(ubdm_extent, tid, 24, 8),
	FIELD(ubdm_extent, backing, 32, 2),
	FIELD(ubdm_extent, type, 34, 1),
	FIELD(ubdm_extent, perm, 35, 1),
	FIELD(ubdm_extent, flags, 36, 4),

	FIELD(ubdm_fault, cookie, 0, 8),
	FIELD(ubdm_fault, lba, 8, 8),
	FIELD(ubdm_fault, len, 16, 8),
	FIELD(ubdm_fault, want_lba, 24, 8),
	FIELD(ubdm_fault, want_len, 32, 8),
	FIELD(ubdm_fault, tid, 40, 8),
	FIELD(ubdm_fault, seq, 48, 4),
	FIELD(ubdm_fault, tries, 52, 2),
	FIELD(ubdm_fault, kind, 54, 1),
	FIELD(ubdm_fault, flags, 55, 1),
	FIELD(ubdm_fault, queue, 56, 2),
	FIELD(ubdm_fault, nr_waiters, 58, 2),
	FIELD(ubdm_fault, pad, 60, 4),

	FIELD(ubdm_start, flags, 0, 4),
	FIELD(ubdm_start, granule_shift, 4, 1),
	FIELD(ubdm_start, pad, 5, 3),

	FIELD(ubdm_stop, flags, 0, 4),
	FIELD(ubdm_stop, error, 4, 4),

	FIELD(ubdm_fetch, buf, 0, 8),
	FIELD(ubdm_fetch, nr, 8, 4),
	FIELD(ubdm_fetch, queue, 12, 2),
	FIELD(ubdm_fetch, flags, 14, 2),

	FIELD(ubdm_resolve, cookie, 0, 8),
	FIELD(ubdm_resolve, addr, 8, 8),
	FIELD(ubdm_resolve, done, 16, 8),
	FIELD(ubdm_resolve, nr_ext, 24, 4),
	FIELD(ubdm_resolve, error, 28, 2),
	FIELD(ubdm_resolve, flags, 30, 1),
	FIELD(ubdm_resolve, action, 31, 1),
	FIELD(ubdm_resolve, pad, 32, 8),
	FIELD(ubdm_resolve, ext, 40, 40),

	FIELD(ubdm_map, addr, 0, 8),
	FIELD(ubdm_map, nr_ext, 8, 4),
	FIELD(ubdm_map, flags, 12, 4),

	FIELD(ubdm_invalidate, start, 0, 8),
	FIELD(ubdm_invalidate, len, 8, 8),
	FIELD(ubdm_invalidate, backing, 16, 2),
	FIELD(ubdm_invalidate, pad, 18, 2),
	FIELD(ubdm_invalidate, flags, 20, 4),

	FIELD(ubdm_commit, tid, 0, 8),
	FIELD(ubdm_commit, flags, 8, 4),
	FIELD(ubdm_commit, pad, 12, 4),

	FIELD(ubdm_backing_add, fd, 0, 4),
	FIELD(ubdm_backing_add, flags, 4, 4),
	FIELD(ubdm_backing_add, start, 8, 8),
	FIELD(ubdm_backing_add, len, 16, 8),

	FIELD(ubdm_backing_ref, index, 0, 4),
	FIELD(ubdm_backing_ref, flags, 4, 4),

	FIELD(ubdm_dump_head, next_lba, 0, 8),
	FIELD(ubdm_dump_head, max_tid, 8, 8),
	FIELD(ubdm_dump_head, committed_tid, 16, 8),
	FIELD(ubdm_dump_head, nr, 24, 4),
	FIELD(ubdm_dump_head, pad, 28, 4),

	FIELD(ubdm_dump, addr, 0, 8),
	FIELD(ubdm_dump, lba, 8, 8),
	FIELD(ubdm_dump, nr, 16, 4),
	FIELD(ubdm_dump, flags, 20, 4),
};

static void fields_are_where_they_were(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		const struct field *f = &fields[i];

		if (f->offset != f->want_offset || f->size != f->want_size)
			fail_msg("%s is %zu bytes at %zu", f->name, f->size,
				 f->offset);
	}
}

/* No struct ends with padding that nobody names. */
static void structs_have_their_size(void **state)
{
	(void)state;
	assert_int_equal(sizeof(struct ubdm_extent), 40);
	assert_int_equal(sizeof(struct ubdm_fault), 64);
	assert_int_equal(sizeof(struct ubdm_start), 8);
	assert_int_equal(sizeof(struct ubdm_stop), 8);
	assert_int_equal(sizeof(struct ubdm_fetch), 16);
	assert_int_equal(sizeof(struct ubdm_resolve), UBDM_CMD_BODY);
	assert_int_equal(sizeof(struct ubdm_map), 16);
	assert_int_equal(sizeof(struct ubdm_invalidate), 24);
	assert_int_equal(sizeof(struct ubdm_commit), 16);
	assert_int_equal(sizeof(struct ubdm_backing_add), 24);
	assert_int_equal(sizeof(struct ubdm_backing_ref), 8);
	assert_int_equal(sizeof(struct ubdm_dump_head), 32);
	assert_int_equal(sizeof(struct ubdm_dump), 24);
}

/* _IOWR: direction 3, size, 0xbd, number */
static void commands_have_their_numbers(void **state)
{
	(void)state;
	assert_int_equal(UBDM_CMD_START, 0xc008bd01);
	assert_int_equal(UBDM_CMD_STOP, 0xc008bd02);
	assert_int_equal(UBDM_CMD_FETCH, 0xc010bd03);
	assert_int_equal(UBDM_CMD_RESOLVE, 0xc050bd04);
	assert_int_equal(UBDM_CMD_MAP, 0xc010bd05);
	assert_int_equal(UBDM_CMD_INVALIDATE, 0xc018bd06);
	assert_int_equal(UBDM_CMD_COMMIT, 0xc010bd07);
	assert_int_equal(UBDM_CMD_BACKING_ADD, 0xc018bd08);
	assert_int_equal(UBDM_CMD_BACKING_GET, 0xc008bd09);
	assert_int_equal(UBDM_CMD_BACKING_DEL, 0xc008bd0a);
	assert_int_equal(UBDM_CMD_DUMP, 0xc018bd0b);
}

static void netlink_has_its_numbers(void **state)
{
	(void)state;
	assert_int_equal(UBDM_NL_CREATE, 1);
	assert_int_equal(UBDM_NL_ATTACH, 2);
	assert_int_equal(UBDM_NL_DELETE, 3);
	assert_int_equal(UBDM_NL_RESIZE, 4);
	assert_int_equal(UBDM_NL_GET, 5);
	assert_int_equal(UBDM_NL_STATS, 6);
	assert_int_equal(UBDM_NL_EVENT, 7);
	assert_int_equal(UBDM_NL_EXTENTS, 8);
	assert_int_equal(UBDM_A_INDEX, 2);
	assert_int_equal(UBDM_A_ORPHAN_TIMEOUT, 22);
	assert_int_equal(UBDM_S_READ_HITS, 2);
	assert_int_equal(UBDM_S_COMMITTED_TID, 20);
	assert_int_equal(UBDM_STATE_DYING, 4);
	assert_int_equal(UBDM_EV_RESIZED, 8);
}

static void fault_position_fits_an_offset(void **state)
{
	uint64_t pos = UBDM_FAULT_POS(~0ULL, ~0U);

	(void)state;
	assert_true((int64_t)pos > 0);
	assert_int_equal(UBDM_FAULT_POS(0x500000007ULL, 512),
			 0x700000000ULL + 512);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fields_are_where_they_were),
		cmocka_unit_test(structs_have_their_size),
		cmocka_unit_test(commands_have_their_numbers),
		cmocka_unit_test(netlink_has_its_numbers),
		cmocka_unit_test(fault_position_fits_an_offset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
