// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_encode.c - commands come out as the uapi wants them, or not at all.
 */
#include <errno.h>
#include <string.h>

#include "cm.h"
#include "encode.h"

#define RW (SP_PERM_R | SP_PERM_W)

static struct sp_extent linear(uint64_t lba, uint64_t len, uint64_t off)
{
	return (struct sp_extent){ .lba = lba, .len = len, .off = off,
				   .type = SP_LINEAR, .perm = SP_PERM_R };
}

static int encode_one(struct sp_extent e)
{
	struct ubdm_extent out;

	return ubdm_encode_extents(&out, &e, 1);
}

/* Bytes of the body behind what the command uses. */
static void assert_rest_is_zero(const struct ubdm_msg *m, size_t used)
{
	for (size_t i = used; i < UBDM_CMD_BODY; i++)
		assert_int_equal(m->body[i], 0);
}

/* --- extents ------------------------------------------------------------ */

static void extents_survive_there_and_back(void **state)
{
	struct sp_extent in = { .lba = 8, .len = 16, .off = 128, .tid = 7,
				.store = 3, .type = SP_LINEAR, .perm = RW,
				.flags = SP_EXT_REPLACE | SP_EXT_TOUCHED };
	struct ubdm_extent wire;
	struct sp_extent out;

	(void)state;
	assert_int_equal(ubdm_encode_extents(&wire, &in, 1), 0);
	ubdm_decode_extent(&out, &wire);
	assert_memory_equal(&in, &out, sizeof(in));
}

static void zero_extents_name_no_place(void **state)
{
	struct sp_extent in = { .lba = 8, .len = 16, .off = 99, .store = 5,
				.type = SP_ZERO, .perm = SP_PERM_R };
	struct ubdm_extent wire;

	(void)state;
	assert_int_equal(ubdm_encode_extents(&wire, &in, 1), 0);
	assert_int_equal(wire.off, 0);
	assert_int_equal(wire.backing, 0);
}

static void extents_that_overflow_are_refused(void **state)
{
	struct sp_extent e;

	(void)state;
	assert_int_equal(encode_one(linear(0, 0, 0)), -EINVAL);
	assert_int_equal(encode_one(linear(UINT64_MAX, 1, 0)), -EINVAL);
	assert_int_equal(encode_one(linear(UINT64_MAX - 1, 2, 0)), -EINVAL);
	assert_int_equal(encode_one(linear(UINT64_MAX - 1, 1, 0)), 0);
	assert_int_equal(encode_one(linear(0, 2, UINT64_MAX - 1)), -EINVAL);
	e = linear(0, 1, 0);
	e.store = UBDM_MAX_BACKINGS;
	assert_int_equal(encode_one(e), -EINVAL);
}

static void extents_must_rise(void **state)
{
	struct sp_extent e[2] = { linear(8, 8, 0), linear(16, 8, 64) };
	struct ubdm_extent out[2];

	(void)state;
	assert_int_equal(ubdm_encode_extents(out, e, 2), 0);
	e[1].lba = 15;
	assert_int_equal(ubdm_encode_extents(out, e, 2), -EINVAL);
	e[1].lba = 0;
	assert_int_equal(ubdm_encode_extents(out, e, 2), -EINVAL);
}

static void type_and_permission_must_fit(void **state)
{
	static const struct {
		uint8_t type, perm;
		uint64_t tid;
		int want;
	} cases[] = {
		{ SP_LINEAR, 0, 0, -EINVAL },
		{ SP_LINEAR, SP_PERM_W, 0, -EINVAL },
		{ SP_LINEAR, SP_PERM_R, 0, 0 },
		{ SP_LINEAR, RW, 0, 0 },
		{ SP_LINEAR, 4, 0, -EINVAL },
		{ SP_ZERO, SP_PERM_R, 0, 0 },
		{ SP_ZERO, RW, 1, -EINVAL },
		{ SP_ZERO, 0, 0, -EINVAL },
		{ SP_EIO, 0, 0, 0 },
		{ SP_EIO, SP_PERM_R, 0, -EINVAL },
		{ SP_JOURNAL, 0, 1, 0 },
		{ SP_JOURNAL, 0, 0, -EINVAL },
		{ SP_JOURNAL, SP_PERM_R, 1, -EINVAL },
		{ 0, 0, 0, -EINVAL },
		{ 5, 0, 0, -EINVAL },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct sp_extent e = linear(0, 8, 0);

		e.type = cases[i].type;
		e.perm = cases[i].perm;
		e.tid = cases[i].tid;
		if (encode_one(e) != cases[i].want)
			fail_msg("type %d perm %d tid %d", e.type, e.perm,
				 (int)e.tid);
	}
}

static void flags_need_a_tid_and_must_be_known(void **state)
{
	struct sp_extent e = linear(0, 8, 0);

	(void)state;
	e.flags = SP_EXT_REPLACE;
	assert_int_equal(encode_one(e), -EINVAL);
	e.tid = 1;
	assert_int_equal(encode_one(e), 0);
	e.flags = SP_EXT_PLACING;	/* only the kernel says so */
	assert_int_equal(encode_one(e), -EINVAL);
	e.flags = 1U << 31;
	assert_int_equal(encode_one(e), -EINVAL);
}

/* --- RESOLVE ------------------------------------------------------------ */

static int resolve(struct ubdm_msg *m, struct sp_reply r)
{
	static struct ubdm_extent table[8];

	return ubdm_encode_resolve(m, 0x100000002ULL, &r, table);
}

static const struct ubdm_resolve *resolve_of(const struct ubdm_msg *m)
{
	return (const struct ubdm_resolve *)m->body;
}

static void resolve_with_one_extent_is_inline(void **state)
{
	struct sp_extent e = linear(8, 8, 64);
	struct ubdm_msg m;

	(void)state;
	assert_int_equal(resolve(&m, (struct sp_reply){ .action = SP_REDRIVE,
							.nr_ext = 1,
							.ext = &e }), 0);
	assert_int_equal(m.op, UBDM_CMD_RESOLVE);
	assert_int_equal(resolve_of(&m)->cookie, 0x100000002ULL);
	assert_int_equal(resolve_of(&m)->action, UBDM_RESOLVE_REDRIVE);
	assert_int_equal(resolve_of(&m)->flags, UBDM_RESOLVE_F_INLINE);
	assert_int_equal(resolve_of(&m)->nr_ext, 1);
	assert_int_equal(resolve_of(&m)->addr, 0);
	assert_int_equal(resolve_of(&m)->ext.off, 64);
}

static void resolve_with_more_points_to_them(void **state)
{
	struct sp_extent e[2] = { linear(8, 8, 64), linear(32, 8, 0) };
	struct ubdm_extent table[2];
	struct sp_reply r = { .action = SP_DONE, .done = 5, .nr_ext = 2,
			      .ext = e };
	struct ubdm_msg m;

	(void)state;
	assert_int_equal(ubdm_encode_resolve(&m, 9, &r, table), 0);
	assert_int_equal(resolve_of(&m)->addr, (uintptr_t)table);
	assert_int_equal(resolve_of(&m)->flags, 0);
	assert_int_equal(resolve_of(&m)->done, 5);
	assert_int_equal(table[1].lba, 32);
	assert_rest_is_zero(&m, offsetof(struct ubdm_resolve, pad));
}

static void resolve_error_must_be_one(void **state)
{
	struct ubdm_msg m;

	(void)state;
	assert_int_equal(resolve(&m, (struct sp_reply){ .action = SP_ERROR,
							.error = -ENOSPC }), 0);
	assert_int_equal(resolve_of(&m)->error, -ENOSPC);
	assert_int_equal(resolve(&m, (struct sp_reply){ .action = SP_ERROR }),
			 -EINVAL);
	assert_int_equal(resolve(&m, (struct sp_reply){ .action = SP_ERROR,
							.error = 5 }),
			 -EINVAL);
	assert_int_equal(resolve(&m, (struct sp_reply){ .action = SP_ERROR,
							.error = -4096 }),
			 -EINVAL);
	assert_int_equal(resolve(&m, (struct sp_reply){ .action = 0 }),
			 -EINVAL);
	assert_int_equal(resolve(&m, (struct sp_reply){ .action = 6 }),
			 -EINVAL);
}

static void hold_is_no_longer_than_the_driver_allows(void **state)
{
	struct ubdm_msg m;

	(void)state;
	assert_int_equal(resolve(&m, (struct sp_reply){ .action = SP_HOLD,
							.done = 250 }), 0);
	assert_int_equal(resolve_of(&m)->done, 250);
	assert_int_equal(resolve(&m, (struct sp_reply){ .action = SP_HOLD,
							.done = UINT64_MAX }),
			 0);
	assert_int_equal(resolve_of(&m)->done, 60000);
}

static void resolve_tells_of_a_failed_sync(void **state)
{
	struct ubdm_msg m;

	(void)state;
	assert_int_equal(resolve(&m, (struct sp_reply){ .action = SP_ERROR,
							.error = -EIO,
							.fail_dev = true }), 0);
	assert_int_equal(resolve_of(&m)->flags, UBDM_RESOLVE_F_FAIL_DEV);
}

static void place_wants_adjoining_writable_changes(void **state)
{
	struct sp_extent e[2] = { linear(8, 8, 64), linear(16, 8, 128) };
	struct sp_reply r = { .action = SP_PLACE, .nr_ext = 2, .ext = e };
	struct ubdm_msg m;

	(void)state;
	e[0].perm = RW;
	e[1].perm = RW;
	e[0].tid = 1;
	e[1].tid = 1;
	assert_int_equal(resolve(&m, r), 0);
	e[1].lba = 24;
	assert_int_equal(resolve(&m, r), -EINVAL);
	e[1].lba = 16;
	e[1].perm = SP_PERM_R;
	assert_int_equal(resolve(&m, r), -EINVAL);
	e[1].perm = RW;
	e[1].tid = 0;
	assert_int_equal(resolve(&m, r), -EINVAL);
	r.nr_ext = 0;
	assert_int_equal(resolve(&m, r), -EINVAL);
}

static void second_answers_carry_no_extents(void **state)
{
	struct ubdm_msg m;

	(void)state;
	ubdm_encode_resolve_error(&m, 77, -EIO);
	assert_int_equal(resolve_of(&m)->cookie, 77);
	assert_int_equal(resolve_of(&m)->action, UBDM_RESOLVE_ERROR);
	assert_int_equal(resolve_of(&m)->error, -EIO);
	assert_int_equal(resolve_of(&m)->nr_ext, 0);
	assert_rest_is_zero(&m, offsetof(struct ubdm_resolve, pad));

	ubdm_encode_resolve_hold(&m, 78, 20);
	assert_int_equal(resolve_of(&m)->action, UBDM_RESOLVE_HOLD);
	assert_int_equal(resolve_of(&m)->done, 20);
	assert_rest_is_zero(&m, offsetof(struct ubdm_resolve, pad));
}

/* --- the others --------------------------------------------------------- */

static void map_bounds_its_extents(void **state)
{
	struct sp_extent e = linear(8, 8, 64);
	struct ubdm_extent table[1];
	struct ubdm_msg m;
	const struct ubdm_map *b = (const struct ubdm_map *)m.body;

	(void)state;
	assert_int_equal(ubdm_encode_map(&m, &e, 1, table), 0);
	assert_int_equal(m.op, UBDM_CMD_MAP);
	assert_int_equal(b->addr, (uintptr_t)table);
	assert_int_equal(b->nr_ext, 1);
	assert_rest_is_zero(&m, sizeof(*b));
	assert_int_equal(ubdm_encode_map(&m, &e, 0, table), -EINVAL);
	assert_int_equal(ubdm_encode_map(&m, &e, UBDM_MAX_EXTENTS + 1, table),
			 -EINVAL);
}

static void invalidate_names_a_backing(void **state)
{
	struct ubdm_msg m;
	const struct ubdm_invalidate *b =
		(const struct ubdm_invalidate *)m.body;

	(void)state;
	assert_int_equal(ubdm_encode_invalidate(&m, 2, 128, 64), 0);
	assert_int_equal(m.op, UBDM_CMD_INVALIDATE);
	assert_int_equal(b->flags, UBDM_INVAL_F_BACKING);
	assert_int_equal(b->backing, 2);
	assert_int_equal(b->start, 128);
	assert_int_equal(b->len, 64);
	assert_rest_is_zero(&m, sizeof(*b));
	assert_int_equal(ubdm_encode_invalidate(&m, 1024, 0, 1), -EINVAL);
	assert_int_equal(ubdm_encode_invalidate(&m, 0, 0, 0), 0);
	assert_int_equal(ubdm_encode_invalidate(&m, 0, UINT64_MAX, 2),
			 -EINVAL);
}

static void small_commands_fill_their_fields(void **state)
{
	struct ubdm_fault faults[4];
	struct ubdm_dump_head head;
	struct ubdm_msg m;

	(void)state;
	ubdm_encode_start(&m, 7);
	assert_int_equal(m.op, UBDM_CMD_START);
	assert_int_equal(((struct ubdm_start *)m.body)->granule_shift, 7);

	ubdm_encode_stop(&m, true, -EIO);
	assert_int_equal(((struct ubdm_stop *)m.body)->flags,
			 UBDM_STOP_F_DONE);
	assert_int_equal(((struct ubdm_stop *)m.body)->error, -EIO);
	ubdm_encode_stop(&m, false, -EIO);
	assert_rest_is_zero(&m, 0);

	ubdm_encode_fetch(&m, faults, 4);
	assert_int_equal(m.op, UBDM_CMD_FETCH);
	assert_int_equal(((struct ubdm_fetch *)m.body)->buf,
			 (uintptr_t)faults);
	assert_int_equal(((struct ubdm_fetch *)m.body)->nr, 4);

	ubdm_encode_commit(&m, 1ULL << 40);
	assert_int_equal(m.op, UBDM_CMD_COMMIT);
	assert_int_equal(((struct ubdm_commit *)m.body)->tid, 1ULL << 40);

	ubdm_encode_backing_add(&m, 5, UBDM_BACKING_F_WRITE);
	assert_int_equal(m.op, UBDM_CMD_BACKING_ADD);
	assert_int_equal(((struct ubdm_backing_add *)m.body)->fd, 5);
	assert_int_equal(((struct ubdm_backing_add *)m.body)->len, UINT64_MAX);

	ubdm_encode_backing_get(&m, 3);
	assert_int_equal(m.op, UBDM_CMD_BACKING_GET);
	assert_int_equal(((struct ubdm_backing_ref *)m.body)->index, 3);

	ubdm_encode_dump(&m, &head, 16, 8, UBDM_DUMP_F_UNCOMMITTED);
	assert_int_equal(m.op, UBDM_CMD_DUMP);
	assert_int_equal(((struct ubdm_dump *)m.body)->addr, (uintptr_t)&head);
	assert_int_equal(((struct ubdm_dump *)m.body)->lba, 8);
	assert_int_equal(((struct ubdm_dump *)m.body)->nr, 16);
	assert_int_equal(((struct ubdm_dump *)m.body)->flags,
			 UBDM_DUMP_F_UNCOMMITTED);
}

static void faults_become_requests(void **state)
{
	struct ubdm_fault f = {
		.cookie = 5, .lba = 16, .len = 8, .want_lba = 8, .want_len = 64,
		.tid = 3, .seq = 100, .kind = UBDM_FAULT_ZEROES,
		.flags = UBDM_FAULT_F_NOUNMAP | UBDM_FAULT_F_FUA,
	};
	struct sp_req r;

	(void)state;
	assert_int_equal(ubdm_decode_fault(&r, &f), 0);
	assert_int_equal(r.kind, SP_ZEROES);
	assert_int_equal(r.flags, SP_REQ_NOUNMAP | SP_REQ_FUA);
	assert_int_equal(r.lba, 16);
	assert_int_equal(r.len, 8);
	assert_int_equal(r.want_lba, 8);
	assert_int_equal(r.want_len, 64);
	assert_int_equal(r.seq, 100);
	assert_int_equal(r.tid, 3);
	assert_null(r.priv);

	f.kind = UBDM_FAULT_WRITE;
	f.flags = UBDM_FAULT_F_FUA;
	assert_int_equal(ubdm_decode_fault(&r, &f), 0);
	assert_int_equal(r.flags, SP_REQ_FUA);

	f.kind = UBDM_FAULT_SHUTDOWN;
	assert_int_equal(ubdm_decode_fault(&r, &f), -EPROTO);
	f.kind = 0;
	assert_int_equal(ubdm_decode_fault(&r, &f), -EPROTO);
	f.kind = 200;
	assert_int_equal(ubdm_decode_fault(&r, &f), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(extents_survive_there_and_back),
		cmocka_unit_test(zero_extents_name_no_place),
		cmocka_unit_test(extents_that_overflow_are_refused),
		cmocka_unit_test(extents_must_rise),
		cmocka_unit_test(type_and_permission_must_fit),
		cmocka_unit_test(flags_need_a_tid_and_must_be_known),
		cmocka_unit_test(resolve_with_one_extent_is_inline),
		cmocka_unit_test(resolve_with_more_points_to_them),
		cmocka_unit_test(resolve_error_must_be_one),
		cmocka_unit_test(hold_is_no_longer_than_the_driver_allows),
		cmocka_unit_test(resolve_tells_of_a_failed_sync),
		cmocka_unit_test(place_wants_adjoining_writable_changes),
		cmocka_unit_test(second_answers_carry_no_extents),
		cmocka_unit_test(map_bounds_its_extents),
		cmocka_unit_test(invalidate_names_a_backing),
		cmocka_unit_test(small_commands_fill_their_fields),
		cmocka_unit_test(faults_become_requests),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
