// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_powercut.c - the power fails at any moment.
 *
 * Random requests, kills and evictions, full disks and I/O errors are recorded (fake/record.h): every change
 * of the image's file, by the slowpath and by the kernel's half.  An image after a
 * power cut is: all that came before the last sync that had succeeded, and of
 * what came later, up to the cut, any subset of sectors.
 *
 * All such images, at every place of the log, are decided exactly by fake/cuts.c,
 * which knows qcow2 and shares no code with the slowpath.  Some are rebuilt for
 * real as well: no error in `qemu-img check` (leaks are allowed), qemu-img and our
 * own reader find what had been flushed or was written since, and after a
 * clean end the check finds nothing at all.
 *
 *	TRACES=n	recordings of each kind that are only decided (default 8)
 *	CUTS=n		images rebuilt of each kind's first recording (default 12)
 *	CUT_SEED=n	the first seed
 *	CUT_TIME=s	rebuild for so many seconds of each kind
 *	CUT_OPS=n	requests of a recording (default 60)
 *	ONLY=kind	of the table below
 */
#include "util.h"
#include "cm.h"
#include "craft.h"
#include "fakedev.h"
#include "cuts.h"
#include "record.h"

struct kind {
	const char *name;
	const char *create;
	unsigned int cluster;
	uint64_t bytes, few;		/* to be rebuilt; only decided */
	bool backing, kills, trouble;
};

static struct cuts_sum sum;
static unsigned long kills, rebuilt;
static uint8_t *initial;		/* a byte for each sector */
static uint64_t size;

static unsigned int env(const char *name, unsigned int otherwise)
{
	return getenv(name) ? strtoul(getenv(name), NULL, 0) : otherwise;
}

static void compare(const struct allowed *a, uint64_t lba, const char *buf, uint64_t len,
		    const char *who)
{
	uint64_t i;

	for (i = 0; i < len; i++)
		if (memcmp(buf + i * 512, buf + i * 512 + 1, 511) ||
		    !allowed_has(a, lba + i, buf[i * 512]))
			fail_msg("%s: sector %llu is %02x", who, (unsigned long long)(lba + i),
				 buf[i * 512] & 0xff);
}

static void judge(const struct allowed *h, unsigned int cut, uint64_t seed)
{
	struct fdev_opts o = { .path = in_scratch("cut.qcow2"), .format = "qcow2", .seed = 1 };
	static char buf[512 * 512];
	struct sp_err err;
	struct fdev *d;
	uint64_t lba, n;
	size_t len;
	char *raw;
	int rc;

	rc = sh("qemu-img check -f qcow2 cut.qcow2 >check.out 2>&1");
	if (rc && rc != 3) {
		char cmd[300];

		snprintf(cmd, sizeof(cmd), "head -5 %s >&2", in_scratch("check.out"));
		if (system(cmd))
			print_message("# silence\n");
		fail_msg("seed %llu, cut at %u of %u: qemu-img check says %d",
			 (unsigned long long)seed, cut, rec.nr, rc);
	}
	if (sh("qemu-img convert -f qcow2 -O raw cut.qcow2 out.raw"))
		fail_msg("qemu-img cannot read it");
	raw = read_file(in_scratch("out.raw"), &len);
	assert_int_equal(len, size * 512);
	compare(h, 0, raw, size, "qemu-img");
	free(raw);
	rc = fdev_open(&d, &o, &err);
	if (rc)
		fail_msg("cannot open: %s", err.msg);
	for (lba = 0; lba < size; lba += n) {
		n = size - lba < 512 ? size - lba : 512;
		assert_int_equal(fdev_read(d, buf, lba, n), 0);
		compare(h, lba, buf, n, "our reader");
	}
	memset(buf, 0xfe, 4096);
	for (n = 0; n < 8; n++)
		assert_int_equal(fdev_write(d, buf, n * (size / 8), 3, false), 0);
	rc = fdev_finish(d, &err);
	if (rc)
		fail_msg("cannot finish: %s", err.msg);
	if (sh("qemu-img check -f qcow2 cut.qcow2"))
		fail_msg("seed %llu, cut at %u: not clean after a clean end",
			 (unsigned long long)seed, cut);
}

/* Bytes of each sector must be equal: the base is made of such. */
static void make_image(struct rng *r, const char *create, uint64_t bytes, bool backing)
{
	char *buf = calloc(1, bytes);
	uint64_t i, run;

	size = bytes / 512;
	free(initial);
	initial = calloc(1, size);
	for (i = 0; i < size; i += run) {
		uint8_t v = rng_chance(r, 60) ? 1 + rng_below(r, 50) : 0;

		run = 1 + rng_below(r, 60);
		if (run > size - i)
			run = size - i;
		memset(buf + i * 512, v, run * 512);
		memset(initial + i, v, run);
	}
	write_file(in_scratch("src.raw"), buf, bytes);
	free(buf);
	if (backing)
		assert_int_equal(sh("rm -f img.qcow2 && qemu-img create -f qcow2 -b src.raw -F raw %s img.qcow2", create), 0);
	else
		assert_int_equal(sh("rm -f img.qcow2 && qemu-img convert -f raw -O qcow2 %s src.raw img.qcow2", create), 0);
}

static void do_op(struct fdev *d, struct rng *r, const struct kind *k, unsigned int i)
{
	uint64_t lba = rng_below(r, size), len;
	unsigned int unit = k->cluster / 512;
	int rc = 0;

	if (rng_chance(r, 40)) {
		lba -= lba % unit;
		len = unit;
	} else {
		len = 1 + rng_below(r, 2 * unit < 100 ? 2 * unit : 100);
	}
	if (len > size - lba)
		len = size - lba;
	switch (rng_below(r, 16)) {
	case 0 ... 7:
		rc = rec_write(d, lba, len, 60 + i % 190, false);
		break;
	case 8:
		rc = rec_write(d, lba, len, 60 + i % 190, true);
		break;
	case 9 ... 10:
		rc = rec_zeroes(d, lba, len, rng_chance(r, 50));
		break;
	case 11 ... 13:
		rec_discard(d, lba, len);
		break;
	default:
		rc = rec_flush(d);
	}
	if (rc && !(k->trouble && (rc == -EIO || rc == -ENOMEM)))
		fail_msg("request: %s", strerror(-rc));
}

/* ---- a disk that is full now and then, and fails once ---- */

static struct rng luck;
static bool unlucky;
static unsigned int fail_in;		/* changes and syncs; 0: not */

static int trouble(const struct sp_file *f, enum sp_io_op op, const void *buf, uint64_t off,
		   uint64_t len)
{
	(void)buf; (void)off; (void)len;
	if (!unlucky || op == SP_IO_READ)
		return 0;
	if (f && (op == SP_IO_WRITE || op == SP_IO_ZERO || op == SP_IO_TRUNCATE) &&
	    rng_below(&luck, 200) == 0)
		return -ENOSPC;
	return fail_in && !--fail_in ? -EIO : 0;
}

static void begin_trouble(struct rng *r)
{
	luck = *r;
	rng_next(&luck);
	fail_in = rng_chance(r, 60) ? 1 + rng_below(r, 150) : 0;
	unlucky = true;
	rec_before = trouble;
}

/* An attach is what ends trouble, if it finds none. */
static int new_mapper(struct fdev *d)
{
	struct sp_err err;
	bool was = unlucky;
	int rc;

	unlucky = false;
	rc = fdev_reattach(d, &err);
	unlucky = was;
	return rc;
}

/* Random requests on img.qcow2, into rec. */
static void run_trace(struct rng *r, uint64_t seed, const struct kind *k)
{
	struct fdev_opts o = { .path = in_scratch("img.qcow2"), .format = "qcow2",
			       .seed = seed, .evict = 20, .late = 40, .work = 25,
			       .rekill = k->kills ? 20 : 0, .refuse = k->trouble ? 10 : 0,
			       .place_fail = k->trouble ? 10 : 0, .untaken = 30 };
	unsigned int i, nr = env("CUT_OPS", 60);
	struct sp_err err;
	struct fdev *d;
	int64_t bad;

	rec_start(o.path, size, initial, k->backing ? initial : NULL);
	if (fdev_open(&d, &o, &err))
		fail_msg("%s", err.msg);
	if (k->trouble)
		begin_trouble(r);
	for (i = 0; i < nr; i++) {
		if ((k->kills || k->trouble) && rng_chance(r, 4))
			assert_int_equal(new_mapper(d), 0);
		else if (k->kills && rng_chance(r, 8))
			fdev_kill_at(d, 1 + rng_below(r, 25));
		do_op(d, r, k, i);
	}
	unlucky = false;
	bad = rec_read(d);
	if (bad != -1)
		fail_msg("seed %llu: sector %lld reads wrong", (unsigned long long)seed,
			 (long long)bad);
	kills += fdev_stats(d)->attaches;
	if (rng_chance(r, 50)) {
		/* The clean end is also a time at which power fails. */
		if (fdev_finish(d, &err) && !k->trouble)
			fail_msg("%s", err.msg);
	} else {
		fdev_drop(d);
	}
	rec_stop();
}

static void decide(uint64_t seed)
{
	char why[300];

	if (!cuts_decide(&sum, why, sizeof(why)))
		fail_msg("seed %llu: %s", (unsigned long long)seed, why);
}

static void rebuild(uint64_t seed, struct rng *r)
{
	unsigned int i, cut, nr_cuts = env("CUTS", 12);
	struct allowed *a;

	for (i = 0; i < nr_cuts; i++, rebuilt++) {
		/* Mostly just before a sync: then the most may be missing. */
		cut = i ? rng_below(r, rec.nr + 1) : rec.nr;
		while (i % 4 && cut < rec.nr && rec.log[cut].op != SP_IO_SYNC)
			cut++;
		rec_rebuild(in_scratch("cut.qcow2"), cut, r);
		a = allowed_new();
		allowed_to(a, cut);
		judge(a, cut, seed);
		allowed_free(a);
	}
}

static const struct kind kinds[] = {
	{ "4k", "-o cluster_size=4k", 4096, 1 << 20, 128 << 10, false, false, false },
	{ "4k over raw", "-o cluster_size=4k", 4096, 1 << 20, 128 << 10, true, false, false },
	{ "64k over raw, kills", "-o cluster_size=64k", 65536, 2 << 20, 1 << 20, true, true, false },
	{ "64k compressed, kills", "-c -o cluster_size=64k", 65536, 2 << 20, 1 << 20, false,
	  true, false },
	{ "512 over raw", "-o cluster_size=512", 512, 256 << 10, 64 << 10, true, false, false },
	{ "512 rc64, kills", "-o cluster_size=512,refcount_bits=64", 512, 256 << 10, 64 << 10,
	  false, true, false },
	{ "v2 4k over raw", "-o compat=0.10,cluster_size=4k", 4096, 1 << 20, 128 << 10, true,
	  true, false },
	{ "4k compressed", "-c -o cluster_size=4k", 4096, 1 << 20, 128 << 10, false, true, false },
	{ "4k over raw, trouble", "-o cluster_size=4k", 4096, 1 << 20, 128 << 10, true, false,
	  true },
	{ "64k compressed, trouble", "-c -o cluster_size=64k", 65536, 2 << 20, 1 << 20, false,
	  false, true },
	{ "512 rc64, trouble", "-o cluster_size=512,refcount_bits=64", 512, 256 << 10, 64 << 10,
	  false, false, true },
};

/* A base for many: what differs is the requests. */
static void only_decide(const struct kind *k, uint64_t seed, unsigned int nr)
{
	size_t len;
	struct rng r;
	char *base;

	rng_seed(&r, seed);
	make_image(&r, k->create, k->few, k->backing);
	base = read_file(in_scratch("img.qcow2"), &len);
	for (; nr--; seed++) {
		rng_seed(&r, seed);
		write_file(in_scratch("img.qcow2"), base, len);
		run_trace(&r, seed, k);
		decide(seed);
	}
	free(base);
}

static void a_power_cut_never_corrupts(void **state)
{
	int64_t end = clock_ms() + 1000 * env("CUT_TIME", 0);
	uint64_t seed = env("CUT_SEED", 1);
	const struct kind *k = *state;
	struct rng r;

	if (!have("qemu-img")) {
		print_message("# skipped: no qemu-img\n");
		skip();
	}
	only_decide(k, seed, env("TRACES", 8));
	do {
		rng_seed(&r, seed);
		make_image(&r, k->create, k->bytes, k->backing);
		run_trace(&r, seed, k);
		decide(seed);
		rebuild(seed++, &r);
	} while (clock_ms() < end);
}

static int report(void **state)
{
	(void)state;
	print_message("# %lu places of %lu recordings decided, %lu kills in them, %lu images rebuilt\n",
		      sum.places, sum.recordings, kills, rebuilt);
	print_message("# at most 2^%u images at a place, %u contents of a sector\n",
		      sum.open_sectors, sum.most_values);
	print_message("# leaked clusters: %u at most, %.1f per recording\n", sum.most_leaks,
		      sum.recordings ? (double)sum.leaks / sum.recordings : 0);
	rec_free();
	free(initial);
	return 0;
}

#define NR_KINDS	(sizeof(kinds) / sizeof(kinds[0]))

int main(void)
{
	static struct CMUnitTest tests[NR_KINDS];
	static char names[NR_KINDS][80];
	const char *only = getenv("ONLY");
	size_t i, n = 0;

	scratch_make();
	for (i = 0; i < NR_KINDS; i++) {
		if (only && strcmp(only, kinds[i].name))
			continue;
		snprintf(names[n], sizeof(names[0]), "a_power_cut_never_corrupts (%s)",
			 kinds[i].name);
		tests[n].name = names[n];
		tests[n].test_func = a_power_cut_never_corrupts;
		tests[n++].initial_state = (void *)&kinds[i];
	}
	return _cmocka_run_group_tests("powercut", tests, n, NULL, report);
}
