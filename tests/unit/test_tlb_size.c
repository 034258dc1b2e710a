// SPDX-License-Identifier: GPL-2.0-only
/*
 * How much memory the TLB takes for an extent, whatever order they come in: at
 * most 100 bytes.  With nodes as large as they are.
 */
#include "tlb_real.h"

#define NR	30000u		/* a tree of three levels */
#define MAX_BYTES	100

static u64 worst;

/* Extents first, first + 1, ...; no two of all continue each other. */
static void install(u64 first, unsigned int n)
{
	static struct ubdm_extent ext[4096];
	unsigned int i;

	for (i = 0; i < n; i++)
		ext[i] = (struct ubdm_extent) {
			.lba = (first + i) * 8, .len = 8, .off = (first + i) * 16,
			.backing = 1, .type = UBDM_EXT_LINEAR,
			.perm = UBDM_PERM_R | UBDM_PERM_W,
		};
	assert_int_equal(ubdm_tlb_install(&tlb, ext, n), 0);
	shim_rcu_flush();
}

static u64 per_extent(void)
{
	return (u64)shim_nr_alloc * UBDM_NODE_BYTES / tlb.nr;
}

static void check_size(const char *what, unsigned int batch)
{
	u64 bytes = per_extent();

	if (getenv("TLB_SIZE"))
		print_message("# %s, %u at a time: %llu\n", what, batch,
			      (unsigned long long)bytes);
	worst = max(worst, bytes);
	if (bytes > MAX_BYTES)
		fail_msg("%s, %u at a time: %llu bytes for an extent", what, batch,
			 (unsigned long long)bytes);
}

static void again(void)
{
	tlb_teardown(NULL);
	tlb_setup(NULL);
}

static const unsigned int batches[] = {
	1, 2, 3, 5, 8, 13, 17, 23, 24, 25, 26, 31, 32, 33, 40, 47, 48, 49, 50, 64,
	71, 72, 73, 96, 97, 100, 128, 256, 448, 512,
};

static void rising(void **state)
{
	(void)state;
	for (unsigned int b = 0; b < ARRAY_SIZE(batches); b++) {
		unsigned int n = batches[b];

		for (u64 at = 0; at + n <= NR; at += n)
			install(at, n);
		check_size("rising", n);
		again();
	}
}

static void falling(void **state)
{
	(void)state;
	for (unsigned int b = 0; b < ARRAY_SIZE(batches); b++) {
		unsigned int n = batches[b];

		for (u64 at = NR; at >= n; at -= n)
			install(at - n, n);
		check_size("falling", n);
		again();
	}
}

/* Many runs at once, each growing, each downwards or upwards. */
static void runs(unsigned int n, unsigned int nr_runs, bool down, const char *what)
{
	u64 room = NR / nr_runs / n * n, done;
	unsigned int r;

	for (done = 0; done < room; done += n)
		for (r = 0; r < nr_runs; r++)
			install(2 * room * r + (down ? room - done - n : done), n);
	check_size(what, n);
	again();
}

static void many_runs(void **state)
{
	static const unsigned int few[] = { 1, 2, 7, 25, 48, 50 };

	(void)state;
	for (unsigned int b = 0; b < ARRAY_SIZE(few); b++) {
		runs(few[b], 7, true, "7 runs downwards");
		runs(few[b], 7, false, "7 runs upwards");
		runs(few[b], 100, true, "100 runs downwards");
		runs(few[b], 100, false, "100 runs upwards");
	}
}

/* Blocks of a batch in random order. */
static void at_random(void **state)
{
	static u32 order[NR];

	(void)state;
	for (unsigned int b = 0; b < ARRAY_SIZE(batches); b++) {
		unsigned int n = batches[b], blocks = NR / n, i;

		for (i = 0; i < blocks; i++) {
			u32 j = rnd(i + 1);

			order[i] = order[j];
			order[j] = i;
		}
		for (i = 0; i < blocks; i++)
			install((u64)order[i] * n, n);
		check_size("at random", n);
		again();
	}
}

/* What is left when much was forgotten, here and there. */
static void thinned(void **state)
{
	(void)state;
	for (unsigned int keep = 2; keep <= 10; keep++) {
		for (u64 at = 0; at < NR; at += 500)
			install(at, 500);
		for (u64 at = 0; at < NR; at++)
			if (at % keep)
				ubdm_tlb_inval_lba(&tlb, at * 8, 8);
		shim_rcu_flush();
		check_size("thinned, one left of", keep);
		again();
	}
}

static void the_worst(void **state)
{
	(void)state;
	print_message("# the worst of all: %llu bytes for an extent\n",
		      (unsigned long long)worst);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, tlb_setup, tlb_teardown)
	const struct CMUnitTest tests[] = {
		T(rising), T(falling), T(many_runs), T(at_random), T(thinned),
		cmocka_unit_test(the_worst),
	};

	rng = 88172645463325252ull;
	return cmocka_run_group_tests_name("extents are at most 100 bytes", tests, NULL, NULL);
}
