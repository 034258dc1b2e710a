// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_rules_data.c - what others got wrong with a guest's data, rule by rule: what is
 * durable before what, what a freed cluster may become and when, and what an error or
 * the next mapper leaves.
 */
#include "rules.h"

/* ---- a freed cluster ---- */

/* The mapper of a VMM let a punch and a new owner meet. */
static void a_freed_cluster_is_not_reusable_before_its_readers_have_drained(void **state)
{
	uint64_t host;
	int i;

	(void)state;
	open_sound();
	expect_at(SECT(G_DATA), CRAFT_SECTORS, 0x11);
	host = host_of(G_DATA);
	fdev_hold(dev);			/* a reader of it */
	assert_int_equal(fdev_discard(dev, SECT(G_DATA), CRAFT_SECTORS), 0);
	/* No flush: it would have to wait for that reader as well. */
	for (i = 0; i < 4; i++) {
		write_at(100 + i, 1, 1);
		sp_work(fdev_image(dev));
	}
	assert_int_equal(write_until_reuse(host, 200, 150), 150);
	/* And its bytes are still there for that reader. */
	assert_int_equal(next_event(0, SP_IO_PUNCH, host * CRAFT_CLUSTER, CRAFT_CLUSTER), nr_ev);
	assert_int_equal(next_event(0, SP_IO_ZERO, host * CRAFT_CLUSTER, CRAFT_CLUSTER), nr_ev);
	assert_int_equal(next_event(0, SP_IO_WRITE, host * CRAFT_CLUSTER, CRAFT_CLUSTER), nr_ev);
	fdev_unhold(dev);
	finish();
	assert_int_equal(judged("img.qcow2"), 0);
}

static void a_freed_cluster_is_not_reusable_before_its_metadata_is_durable(void **state)
{
	uint64_t host;

	(void)state;
	open_sound();
	expect_at(SECT(G_DATA), CRAFT_SECTORS, 0x11);
	host = host_of(G_DATA);
	write_at(60, 1, 1);		/* the pool is there */
	assert_int_equal(fdev_flush(dev), 0);
	nr_ev = 0;
	assert_int_equal(fdev_discard(dev, SECT(G_DATA), CRAFT_SECTORS), 0);
	fdev_settle(dev);
	while (!sp_work(fdev_image(dev)))
		;
	/* Nobody has flushed: whatever was written, it is not reused or punched
	 * unless the L2 entry went to the file and was synced. */
	write_until_reuse(host, 200, 60);
	{
		unsigned int l2 = next_event(0, SP_IO_WRITE, craft_l2(G_DATA), 8);
		unsigned int synced = next_sync(l2);
		unsigned int ops[] = { SP_IO_PUNCH, SP_IO_ZERO, SP_IO_WRITE }, i;

		for (i = 0; i < 3; i++) {
			unsigned int n = next_event(0, ops[i], host * CRAFT_CLUSTER,
						    CRAFT_CLUSTER);

			if (n < nr_ev)
				assert_true(l2 < synced && synced < n);
		}
	}
	finish();
	assert_int_equal(judged("img.qcow2"), 0);
}

static void a_freed_cluster_is_reused_zeroed_and_synced(void **state)
{
	unsigned int l2, synced, punched, n;
	uint64_t host;

	(void)state;
	open_sound();
	expect_at(SECT(G_DATA), CRAFT_SECTORS, 0x11);
	host = host_of(G_DATA);
	nr_ev = 0;
	assert_int_equal(fdev_discard(dev, SECT(G_DATA), CRAFT_SECTORS), 0);
	/* Rounds of commit and work until it comes round. */
	for (n = 0; n < 20; n++) {
		sp_clock_skew_ms += 700;
		write_at(300 + n, 1, 1);
		assert_int_equal(fdev_flush(dev), 0);
		fdev_settle(dev);
		while (!sp_work(fdev_image(dev)))
			;
		if (host_of(300 + n) == host)
			break;
	}
	if (n == 20 && write_until_reuse(host, 400, 200) == 200)
		print_message("# never reused; allowed, but the file grows\n");
	l2 = next_event(0, SP_IO_WRITE, craft_l2(G_DATA), 8);
	synced = next_sync(l2);
	punched = next_event(synced, SP_IO_PUNCH, host * CRAFT_CLUSTER, CRAFT_CLUSTER);
	if (punched == nr_ev)
		punched = next_event(synced, SP_IO_ZERO, host * CRAFT_CLUSTER, CRAFT_CLUSTER);
	assert_true(l2 < synced && synced < punched && punched < nr_ev);
	/* The punch has to be durable before somebody else gets the cluster. */
	if (n < 20)
		assert_true(next_sync(punched) < nr_ev);
	finish();
	assert_int_equal(judged("img.qcow2"), 0);
}

static void a_replaced_cluster_keeps_its_content_until_the_link_is_durable(void **state)
{
	(void)state;
	/* Overwrite of a compressed cluster: its host cluster is dropped. */
	open_sound();
	nr_ev = 0;
	write_at(G_PACKED, 1, 0x44);
	expect_at(SECT(G_PACKED) + 1, CRAFT_SECTORS - 1, 0x33);
	assert_int_equal(next_event(0, SP_IO_PUNCH, AT(CR_PACKED), 512), nr_ev);
	assert_int_equal(next_event(0, SP_IO_ZERO, AT(CR_PACKED), 512), nr_ev);
	fdev_drop(dev);			/* everything dies: the old one is there */
	sp_io_hook = NULL;
	assert_int_equal(on_file("img.qcow2", craft_l2(G_PACKED)),
			 AT(CR_PACKED) | QC_COMPRESSED);
	must_open();
	expect_at(SECT(G_PACKED), CRAFT_SECTORS, 0x33);
	write_at(G_ZERO, 1, 1);		/* without a write nothing is tidied up */
	finish();
	assert_int_equal(judged("img.qcow2"), 0);
}

/* ---- errors between allocation and link ---- */

static void an_error_while_linking_frees_neither_old_nor_new(void **state)
{
	uint64_t old, new;
	int rc, i;

	(void)state;
	open_sound();
	expect_at(SECT(G_DATA), CRAFT_SECTORS, 0x11);
	old = host_of(G_DATA);
	assert_int_equal(fdev_zeroes(dev, SECT(G_DATA), CRAFT_SECTORS, false), 0);
	write_at(G_DATA, 3, 0x44);
	new = host_of(G_DATA);
	fail_op = SP_IO_WRITE;
	fail_lo = AT(CR_L2);
	fail_hi = AT(CR_L2) + CRAFT_CLUSTER;
	rc = fdev_flush(dev);
	assert_int_not_equal(rc, 0);
	assert_true(failed > 0);
	nr_ev = 0;
	/* What is on the file for this entry is unknown now: both stay. */
	for (i = 0; i < 30; i++) {
		struct sp_extent e;

		memset(data, 1, 512);
		rc = fdev_write(dev, data, SECT(700 + i), 1, false);
		if (rc || !fdev_extent(dev, SECT(700 + i), &e) || e.type != SP_LINEAR)
			continue;
		assert_true(host_of(700 + i) != old && host_of(700 + i) != new);
	}
	assert_int_equal(next_event(0, SP_IO_PUNCH, old * CRAFT_CLUSTER, CRAFT_CLUSTER), nr_ev);
	assert_int_equal(next_event(0, SP_IO_PUNCH, new * CRAFT_CLUSTER, CRAFT_CLUSTER), nr_ev);
	expect_at(SECT(G_DATA), 3, 0x44);	/* reads go on */
	fdev_finish(dev, &err);
	sp_io_hook = NULL;
	rc = judged("img.qcow2");
	assert_true(rc == 0 || rc == 3);
}

static void a_failed_placing_write_leaves_the_old_content(void **state)
{
	struct fdev_opts o = { .format = "qcow2", .seed = 1, .place_fail = 100 };
	struct craft c;
	int i, rc;

	(void)state;
	craft_new(&c);
	store(&c, "img.qcow2");
	o.path = in_scratch("img.qcow2");
	nr_ev = 0;
	assert_int_equal(fdev_open(&dev, &o, &err), 0);
	memset(data, 0x66, CRAFT_CLUSTER);
	for (i = 0; i < 4; i++) {
		rc = fdev_write(dev, data, SECT(G_PACKED), CRAFT_SECTORS, false);
		if (!rc) {
			print_message("# not placed\n");
			break;
		}
		assert_int_equal(rc, -EIO);
		expect_at(SECT(G_PACKED), CRAFT_SECTORS, 0x33);
		assert_int_equal(fdev_flush(dev), 0);
	}
	finish();
	assert_int_equal(judged("img.qcow2"), 0);
}

static void after_enospc_no_entry_points_to_a_free_cluster(void **state)
{
	int i, rc, wrote = 0;

	(void)state;
	open_sound();
	write_at(50, 1, 1);
	assert_int_equal(fdev_flush(dev), 0);
	/* The file cannot grow from here, and no refcount can be written. */
	fail_op = SP_IO_WRITE;
	fail_lo = AT(CR_RB);
	fail_hi = AT(CR_RB) + CRAFT_CLUSTER;
	for (i = 0; i < 300; i++) {
		memset(data, 2, 512);
		rc = fdev_write(dev, data, SECT(100 + i), 1, false);
		if (rc)
			break;
		wrote++;
	}
	fdev_flush(dev);
	fdev_drop(dev);
	sp_io_hook = NULL;
	print_message("# %d clusters from the pool before it was empty\n", wrote);
	rc = judged("img.qcow2");
	assert_true(rc == 0 || rc == 3);
}

/* ---- syncs ---- */

static void a_failed_sync_is_never_retried_as_success(void **state)
{
	uint64_t entry;

	(void)state;
	open_sound();
	write_at(70, 1, 1);
	assert_int_equal(fdev_flush(dev), 0);
	write_at(71, 1, 2);
	fail_op = SP_IO_SYNC;
	fail_hi = 1;
	assert_int_not_equal(fdev_flush(dev), 0);
	assert_true(failed > 0);
	fail_op = -1;			/* the disk is well again; too late */
	entry = on_file("img.qcow2", craft_l2(72));
	nr_ev = 0;
	memset(data, 3, 512);
	assert_int_not_equal(fdev_write(dev, data, SECT(72), 1, false), 0);
	assert_int_not_equal(fdev_flush(dev), 0);
	assert_int_not_equal(fdev_flush(dev), 0);
	while (!sp_work(fdev_image(dev)))
		;
	expect_at(SECT(70), 1, 1);	/* reads go on */
	expect_at(SECT(71), 1, 2);
	assert_int_equal(count(SP_IO_WRITE), 0);	/* nothing further is linked */
	assert_int_equal(count(SP_IO_PUNCH), 0);	/* nothing is freed */
	assert_int_equal(on_file("img.qcow2", craft_l2(72)), entry);
	assert_int_not_equal(fdev_finish(dev, &err), 0);
	sp_io_hook = NULL;
	assert_true(err.msg[0]);
}

static void a_flush_of_overwrites_needs_no_mapper_and_of_new_zeros_one_sync(void **state)
{
	unsigned int flushes;

	(void)state;
	open_sound();
	write_at(80, 1, 1);
	assert_int_equal(fdev_flush(dev), 0);
	/* Rule 20: an allocation over zeros costs one fdatasync. */
	nr_ev = 0;
	write_at(81, 1, 1);
	assert_int_equal(count(SP_IO_SYNC), 0);
	assert_int_equal(fdev_flush(dev), 0);
	assert_int_equal(count(SP_IO_SYNC), 1);
	/* Overwrites: the kernel alone. */
	flushes = fdev_stats(dev)->faults[SP_FLUSH];
	nr_ev = 0;
	write_at(81, 1, 9);
	assert_int_equal(fdev_flush(dev), 0);
	assert_int_equal(count(SP_IO_SYNC), 0);
	assert_int_equal(fdev_stats(dev)->faults[SP_FLUSH], flushes);
	/* A copy: at most two. */
	write_at(G_PACKED, 1, 9);
	nr_ev = 0;
	assert_int_equal(fdev_flush(dev), 0);
	assert_in_range(count(SP_IO_SYNC), 1, 2);
	finish();
	assert_int_equal(judged("img.qcow2"), 0);
}

/* The copy must be durable before the entry that points to it is written. */
static void a_copy_is_durable_before_it_is_linked(void **state)
{
	unsigned int copied, synced, linked;
	uint64_t host;

	(void)state;
	open_sound();
	write_at(50, 1, 1);
	assert_int_equal(fdev_flush(dev), 0);
	nr_ev = 0;
	write_at(G_PACKED, 1, 9);
	host = host_of(G_PACKED);
	assert_int_equal(fdev_flush(dev), 0);
	copied = next_event(0, SP_IO_WRITE, host * CRAFT_CLUSTER, CRAFT_CLUSTER);
	synced = next_sync(copied);
	linked = next_event(0, SP_IO_WRITE, craft_l2(G_PACKED), 8);
	assert_true(copied < synced && synced < linked && linked < nr_ev);
	assert_true(next_sync(linked) < nr_ev);
	finish();
}

/* Likewise what the kernel placed: there was something else there before. */
static void a_placed_cluster_is_durable_before_it_is_linked(void **state)
{
	unsigned int places, linked;

	(void)state;
	open_sound();
	write_at(50, 1, 1);
	assert_int_equal(fdev_flush(dev), 0);
	places = fdev_stats(dev)->places;
	write_at(G_PACKED, CRAFT_SECTORS, 9);
	assert_int_equal(fdev_stats(dev)->places, places + 1);
	fdev_settle(dev);
	nr_ev = 0;
	assert_int_equal(fdev_flush(dev), 0);
	linked = next_event(0, SP_IO_WRITE, craft_l2(G_PACKED), 8);
	assert_true(next_sync(0) < linked && linked < nr_ev);
	assert_true(next_sync(linked) < nr_ev);
	finish();
	assert_int_equal(judged("img.qcow2"), 0);
}

/*
 * Directed test 1 of the durability protocol.
 *
 *	guest				mapper
 *	DISCARD A			ZERO(A), tid 5, uncommitted
 *	FLUSH up to 5, parked
 *	write A				new storage for A, tid 6, not acknowledged
 *					a round: A cannot be in it
 *					FLUSH: 5 is not durable, although all below 6
 *					is acknowledged
 */
static void a_flush_waits_for_what_a_later_change_hides(void **state)
{
	struct sp_extent *ext;
	uint64_t tid;
	int rc;

	(void)state;
	open_sound();
	expect_at(SECT(G_DATA), CRAFT_SECTORS, 0x11);
	write_at(100, 1, 1);
	assert_int_equal(fdev_flush(dev), 0);
	assert_int_equal(fdev_discard(dev, SECT(G_DATA), CRAFT_SECTORS), 0);
	fdev_settle(dev);
	free((fdev_dump(dev, &ext, &tid), ext));
	fdev_hold(dev);
	write_at(G_DATA, 1, 0x44);
	rc = fdev_try_flush(dev, tid);
	if (!rc)	/* then the file must not have the old cluster any more */
		assert_int_not_equal(on_file("img.qcow2", craft_l2(G_DATA)),
				     AT(CR_DATA) | QC_COPIED);
	else
		assert_int_equal(rc, -EAGAIN);
	fdev_unhold(dev);
	assert_int_equal(fdev_try_flush(dev, tid), 0);
	assert_int_not_equal(on_file("img.qcow2", craft_l2(G_DATA)), AT(CR_DATA) | QC_COPIED);
	finish();
	assert_int_equal(judged("img.qcow2"), 0);
}

/* Directed test 11 of the durability protocol. */
static void a_zero_cluster_with_stale_storage_shows_only_zeros(void **state)
{
	(void)state;
	open_sound();
	write_at(G_ZERO_ALLOC, 1, 0x77);
	expect_at(SECT(G_ZERO_ALLOC), 1, 0x77);
	expect_at(SECT(G_ZERO_ALLOC) + 1, CRAFT_SECTORS - 1, 0);
	assert_int_equal(fdev_flush(dev), 0);
	fdev_evict(dev, 100);
	expect_at(SECT(G_ZERO_ALLOC) + 1, CRAFT_SECTORS - 1, 0);
	fdev_drop(dev);
	sp_io_hook = NULL;
	must_open();
	expect_at(SECT(G_ZERO_ALLOC), 1, 0x77);
	expect_at(SECT(G_ZERO_ALLOC) + 1, CRAFT_SECTORS - 1, 0);
	write_at(G_ZERO, 1, 1);
	finish();
	assert_int_equal(judged("img.qcow2"), 0);
}

/* ---- attach ---- */

static void numbering_goes_on_above_what_the_kernel_has_seen(void **state)
{
	struct sp_extent *ext;
	uint64_t before, after;
	unsigned int n;

	(void)state;
	open_sound();
	write_at(90, 1, 1);
	free((fdev_dump(dev, &ext, &before), ext));
	assert_int_equal(fdev_reattach(dev, &err), 0);
	write_at(91, 1, 1);
	n = fdev_dump(dev, &ext, &after);
	assert_true(n >= 1 && after > before);
	free(ext);
	finish();
	assert_int_equal(judged("img.qcow2"), 0);
}

static void relinking_loses_nothing_and_invents_nothing(void **state)
{
	int round;

	(void)state;
	open_sound();
	for (round = 0; round < 5; round++) {
		write_at(110 + round, 3, round + 1);
		write_at(G_PACKED, 1, round + 1);
		assert_int_equal(fdev_discard(dev, SECT(G_DATA2), CRAFT_SECTORS), 0);
		assert_int_equal(fdev_reattach(dev, &err), 0);
		expect_at(SECT(110 + round), 3, round + 1);
		expect_at(SECT(G_PACKED), 1, round + 1);
		expect_at(SECT(G_PACKED) + 1, CRAFT_SECTORS - 1, 0x33);
		expect_at(SECT(G_DATA2), CRAFT_SECTORS, 0);
		expect_at(SECT(G_DATA), CRAFT_SECTORS, 0x11);
		write_at(G_DATA2, 1, 7);
		expect_at(SECT(G_DATA2) + 1, CRAFT_SECTORS - 1, 0);
	}
	finish();
	assert_int_equal(judged("img.qcow2"), 0);
	if (qemu)
		assert_int_equal(sh("qemu-io -r -f qcow2 -c 'read -P 5 %llu 1536' img.qcow2 | grep -v -i fail && ! qemu-io -r -f qcow2 -c 'read -P 5 %llu 1536' img.qcow2 | grep -i fail",
				    SECT(114) * 512ull, SECT(114) * 512ull), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_freed_cluster_is_not_reusable_before_its_readers_have_drained),
		cmocka_unit_test(a_freed_cluster_is_not_reusable_before_its_metadata_is_durable),
		cmocka_unit_test(a_freed_cluster_is_reused_zeroed_and_synced),
		cmocka_unit_test(a_replaced_cluster_keeps_its_content_until_the_link_is_durable),
		cmocka_unit_test(an_error_while_linking_frees_neither_old_nor_new),
		cmocka_unit_test(a_failed_placing_write_leaves_the_old_content),
		cmocka_unit_test(after_enospc_no_entry_points_to_a_free_cluster),
		cmocka_unit_test(a_failed_sync_is_never_retried_as_success),
		cmocka_unit_test(a_flush_of_overwrites_needs_no_mapper_and_of_new_zeros_one_sync),
		cmocka_unit_test(a_copy_is_durable_before_it_is_linked),
		cmocka_unit_test(a_placed_cluster_is_durable_before_it_is_linked),
		cmocka_unit_test(a_flush_waits_for_what_a_later_change_hides),
		cmocka_unit_test(a_zero_cluster_with_stale_storage_shows_only_zeros),
		cmocka_unit_test(numbering_goes_on_above_what_the_kernel_has_seen),
		cmocka_unit_test(relinking_loses_nothing_and_invents_nothing),
	};

	begin_rules();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
