// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_rules_image.c - what others believed of an image, rule by rule: its flags, its
 * tables, its extensions, its compressed data.  Images made to hurt are in
 * test_hostile.c.
 */
#include "rules.h"

/* ---- trust ---- */

static void internal_snapshots_are_refused_for_writing(void **state)
{
	(void)state;
	if (!qemu)
		skip();
	assert_int_equal(sh("rm -f s.qcow2; qemu-img create -f qcow2 s.qcow2 1M && qemu-io -c 'write 0 64k' s.qcow2 && qemu-img snapshot -c one s.qcow2"), 0);
	assert_int_equal(try_open_as("s.qcow2", "qcow2", false), -ENOTSUP);
	assert_non_null(strstr(err.msg, "snapshot"));
	sp_io_hook = NULL;
	assert_int_equal(sh("qemu-img snapshot -l s.qcow2 | grep one"), 0);
}

static void an_image_not_closed_cleanly_is_checked_or_refused(void **state)
{
	struct craft c;
	int i;

	(void)state;
	/* Refcounts as a dirty image may have them: too low, too high. */
	craft_new(&c);
	craft_be64(&c, H_INCOMPAT, 1);
	memset(c.buf + craft_rc(CR_DATA), 0, 2);
	memset(c.buf + craft_rc(CR_DATA2), 0, 2);
	memset(c.buf + craft_rc(CR_L2B), 0, 2);
	c.buf[craft_rc(CR_END + 1) + 1] = 1;
	store(&c, "img.qcow2");
	if (try_open()) {
		print_message("# refused: %s\n", err.msg);
		sp_io_hook = NULL;
		return;
	}
	for (i = 0; i < 40; i++)
		write_at(100 + i, CRAFT_SECTORS, 0x5a);
	expect_at(SECT(G_DATA), CRAFT_SECTORS, 0x11);
	expect_at(SECT(G_DATA2), CRAFT_SECTORS, 0x55);
	finish();
	assert_int_equal(judged("img.qcow2"), 0);
}

static void copied_is_not_believed_against_the_refcount(void **state)
{
	struct craft c;
	int rc;

	(void)state;
	/* Dirty, and a cluster that two entries share says COPIED. */
	craft_new(&c);
	craft_be64(&c, H_INCOMPAT, 1);
	craft_be64(&c, craft_l2(G_DATA2), AT(CR_DATA) | QC_COPIED);
	store(&c, "img.qcow2");
	rc = try_open();
	if (rc) {
		print_message("# refused: %s\n", err.msg);
		sp_io_hook = NULL;
		return;
	}
	write_at(G_DATA, CRAFT_SECTORS, 0x5a);
	expect_at(SECT(G_DATA2), CRAFT_SECTORS, 0x11);
	fdev_finish(dev, &err);
	sp_io_hook = NULL;
}

/* Whoever dies leaves the dirty bit, so that the next one knows. */
static void the_dirty_bit_is_set_while_written_and_clear_after(void **state)
{
	unsigned int cleared, i;

	(void)state;
	open_sound();
	expect_at(0, 1, 0x11);
	assert_int_equal(on_file("img.qcow2", H_INCOMPAT), 0);
	nr_ev = 0;
	write_at(G_DATA, 1, 1);
	assert_int_equal(on_file("img.qcow2", H_INCOMPAT), 1);
	/* And durably so before the kernel may write. */
	assert_true(next_sync(next_event(0, SP_IO_WRITE, 0, 512)) < nr_ev);
	nr_ev = 0;
	finish();
	/* It goes alone, when all else is durable. */
	cleared = next_event(0, SP_IO_WRITE, 0, 512);
	assert_true(cleared < nr_ev && cleared > 0);
	for (i = cleared; i-- && ev[i].op != SP_IO_SYNC;)
		assert_int_equal(ev[i].op, SP_IO_TRUNCATE);
	assert_true(next_sync(cleared) < nr_ev);
	assert_int_equal(on_file("img.qcow2", H_INCOMPAT), 0);
	assert_int_equal(judged("img.qcow2"), 0);
}

/* ---- limits and overlaps: the rest is in test_hostile.c ---- */

static void refused_with(void (*change)(struct craft *c), const char *says)
{
	struct craft c;
	int rc;

	craft_new(&c);
	change(&c);
	store(&c, "img.qcow2");
	rc = try_open();
	sp_io_hook = NULL;
	if (!rc)
		fdev_drop(dev);
	assert_int_not_equal(rc, 0);
	if (says && !strcasestr(err.msg, says))
		fail_msg("\"%s\" does not say \"%s\"", err.msg, says);
}

static void sparse_l1(struct craft *c) { craft_be32(c, H_L1_SIZE, (32u << 20) / 8 + 1); }
static void sparse_rt(struct craft *c) { craft_be32(c, H_RT_CLUSTERS, (8u << 20) / CRAFT_CLUSTER + 1); }
static void many_snaps(struct craft *c) { craft_be32(c, H_NB_SNAP, 65537); }
static void negative(struct craft *c) { craft_be64(c, H_SIZE, 1ull << 63); }

static void limits_are_checked_before_allocation(void **state)
{
	(void)state;
	refused_with(sparse_l1, "L1");
	refused_with(sparse_rt, "refcount");
	refused_with(many_snaps, "snapshot");
	refused_with(negative, NULL);
}

/*
 * QEMU died half way through making or deleting a snapshot: a leak for "qemu-img check". Counts
 * that we correct would make an error of it.
 */
static void half_shared(struct craft *c)
{
	craft_be64(c, craft_l2(G_DATA), AT(CR_DATA));
	c->buf[craft_rc(CR_DATA) + 1] = 2;
}

static void half_shared_table(struct craft *c)
{
	craft_be64(c, AT(CR_L1), AT(CR_L2));
	c->buf[craft_rc(CR_L2) + 1] = 2;
}

static void what_is_shared_without_a_snapshot_is_refused(void **state)
{
	(void)state;
	refused_with(half_shared, "no snapshot");
	refused_with(half_shared_table, "no snapshot");
}

static void rt_l1(struct craft *c) { craft_be64(c, H_RT_OFF, AT(CR_L1)); }
static void l1_hdr(struct craft *c) { craft_be64(c, H_L1_OFF, 0); }
static void rb_hdr(struct craft *c) { craft_be64(c, AT(CR_RT), 0 | 1 << 9); }

static void tables_do_not_overlap(void **state)
{
	(void)state;
	refused_with(rt_l1, NULL);
	refused_with(l1_hdr, NULL);
	refused_with(rb_hdr, NULL);
}

static void metadata_past_the_end_of_the_file_is_an_error_not_zeros(void **state)
{
	struct craft c;
	int rc;

	(void)state;
	craft_new(&c);
	craft_be64(&c, AT(CR_L1), AT(500) | QC_COPIED);
	store(&c, "img.qcow2");
	assert_int_equal(try_open_as("img.qcow2", "qcow2", true), 0);
	assert_int_equal(fdev_read(dev, back, 0, 1), -EIO);
	fdev_drop(dev);
	rc = try_open();
	if (!rc) {
		assert_int_equal(fdev_read(dev, back, 0, 1), -EIO);
		memset(data, 1, 512);
		assert_int_equal(fdev_write(dev, data, 0, 1, false), -EIO);
		fdev_drop(dev);
	}
	sp_io_hook = NULL;
}

/* ---- bits and extensions ---- */

static void unknown_incompatible_bits_are_refused(void **state)
{
	struct craft c;
	int bit;

	(void)state;
	for (bit = 5; bit < 64; bit++) {
		craft_new(&c);
		craft_be64(&c, H_INCOMPAT, 1ull << bit);
		store(&c, "img.qcow2");
		assert_int_equal(try_open(), -ENOTSUP);
		assert_int_equal(try_open_as("img.qcow2", "qcow2", true), -ENOTSUP);
	}
	sp_io_hook = NULL;
}

static void unknown_autoclear_bits_are_cleared_before_the_first_write(void **state)
{
	unsigned int cleared, synced;
	struct craft c;

	(void)state;
	craft_new(&c);
	craft_be64(&c, H_AUTOCLEAR, 1ull << 40 | 1);
	craft_be64(&c, H_COMPAT, 1ull << 41);
	store(&c, "img.qcow2");
	must_open();
	expect_at(0, 8, 0x11);
	assert_int_equal(count(SP_IO_WRITE), 0);	/* reading changes nothing */
	write_at(0, 1, 2);
	assert_int_equal(on_file("img.qcow2", H_AUTOCLEAR), 0);
	assert_int_equal(on_file("img.qcow2", H_COMPAT), 1ull << 41);
	cleared = next_event(0, SP_IO_WRITE, H_AUTOCLEAR, 8);
	synced = next_sync(cleared);
	assert_true(cleared < synced && synced < nr_ev);
	finish();
	assert_int_equal(on_file("img.qcow2", H_COMPAT), 1ull << 41);

	/* Opened and not written to: they stay. */
	craft_new(&c);
	craft_be64(&c, H_AUTOCLEAR, 1ull << 40);
	store(&c, "img.qcow2");
	must_open();
	expect_at(0, 8, 0x11);
	finish();
	assert_int_equal(on_file("img.qcow2", H_AUTOCLEAR), 1ull << 40);
}

static void unknown_header_extensions_survive(void **state)
{
	static const char feature[48] = "\0\0dirty bit";
	char *before, *now;
	struct craft c;
	size_t len;
	int i;

	(void)state;
	craft_new(&c);
	craft_extension(&c, 0x12345678, "keep this text", 14);
	craft_extension(&c, 0x6803f857, feature, sizeof(feature));
	memset(c.buf + 3000, 0xcc, 500);	/* nobody's, but ours least of all */
	before = malloc(CRAFT_CLUSTER);
	memcpy(before, c.buf, CRAFT_CLUSTER);
	store(&c, "img.qcow2");
	must_open();
	for (i = 0; i < 200; i++)
		write_at(100 + i, 1, i);
	finish();
	now = read_file(in_scratch("img.qcow2"), &len);
	assert_memory_equal(now + H_EXT, before + H_EXT, CRAFT_CLUSTER - H_EXT);
	free(now);
	free(before);
	assert_int_equal(judged("img.qcow2"), 0);
}

/* ---- decompression ---- */

static void a_damaged_compressed_cluster_is_eio_for_that_cluster_only(void **state)
{
	struct craft c;

	(void)state;
	craft_new(&c);
	memset(c.buf + AT(CR_PACKED), 0xff, 64);
	store(&c, "img.qcow2");
	must_open();
	assert_int_equal(fdev_read(dev, back, SECT(G_PACKED), CRAFT_SECTORS), -EIO);
	expect_at(SECT(G_DATA), CRAFT_SECTORS, 0x11);
	expect_at(SECT(G_DATA2), CRAFT_SECTORS, 0x55);
	/* No copy of it can be made; all of it can be replaced. */
	memset(data, 4, CRAFT_CLUSTER);
	assert_int_equal(fdev_write(dev, data, SECT(G_PACKED), 1, false), -EIO);
	assert_int_equal(fdev_write(dev, data, SECT(G_PACKED), CRAFT_SECTORS, false), 0);
	expect_at(SECT(G_PACKED), CRAFT_SECTORS, 4);
	finish();
	assert_int_equal(judged("img.qcow2"), 0);
}

static void compressed_data_may_end_with_the_file(void **state)
{
	struct craft c;
	size_t off;

	(void)state;
	craft_new(&c);
	/* At the very end, announced as a whole sector, of which the file has a part. */
	off = AT(CR_END) + 512;
	memcpy(c.buf + off, c.buf + AT(CR_PACKED), 40);
	c.size = off + 40;
	craft_be64(&c, craft_l2(G_PACKED), off | QC_COMPRESSED);
	c.buf[craft_rc(CR_END) + 1] = 1;
	memset(c.buf + craft_rc(CR_PACKED), 0, 2);
	store(&c, "img.qcow2");
	must_open();
	expect_at(SECT(G_PACKED), CRAFT_SECTORS, 0x33);
	finish();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(internal_snapshots_are_refused_for_writing),
		cmocka_unit_test(an_image_not_closed_cleanly_is_checked_or_refused),
		cmocka_unit_test(copied_is_not_believed_against_the_refcount),
		cmocka_unit_test(the_dirty_bit_is_set_while_written_and_clear_after),
		cmocka_unit_test(limits_are_checked_before_allocation),
		cmocka_unit_test(what_is_shared_without_a_snapshot_is_refused),
		cmocka_unit_test(tables_do_not_overlap),
		cmocka_unit_test(metadata_past_the_end_of_the_file_is_an_error_not_zeros),
		cmocka_unit_test(unknown_incompatible_bits_are_refused),
		cmocka_unit_test(unknown_autoclear_bits_are_cleared_before_the_first_write),
		cmocka_unit_test(unknown_header_extensions_survive),
		cmocka_unit_test(a_damaged_compressed_cluster_is_eio_for_that_cluster_only),
		cmocka_unit_test(compressed_data_may_end_with_the_file),
	};

	begin_rules();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
