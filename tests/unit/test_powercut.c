// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_powercut.c - the power fails at a random moment.
 *
 * Every change of the image file, by the slowpath and by the kernel's half, goes
 * into a log.  An image after a power cut is: all that came before the last sync
 * that had succeeded, and of what came later, up to the moment of the cut,
 * any subset of sectors.  Such an image must show no error in `qemu-img check` (leaks
 * are allowed), open, contain what had been flushed (other sectors: anything they
 * contained since), and check clean after a clean end.
 *
 * The judge of contents is our own reader after the repair at open and also
 * qemu-img convert before it.
 */
#include "util.h"
#include "cm.h"
#include "craft.h"
#include "fakedev.h"
#include "history.h"
#include "io.h"

struct change {
	enum sp_io_op op;
	uint64_t off, len;
	char *data;
};

static struct change *lg;
static unsigned int nr_lg, room_lg;

static void log_change(enum sp_io_op op, const void *data, uint64_t off, uint64_t len)
{
	struct change *c;

	if (nr_lg == room_lg) {
		room_lg = room_lg ? 2 * room_lg : 1024;
		lg = realloc(lg, room_lg * sizeof(*lg));
	}
	c = &lg[nr_lg++];
	*c = (struct change) { op, off, len, NULL };
	if (data) {
		c->data = malloc(len);
		memcpy(c->data, data, len);
	}
}

static int log_hook(const struct sp_file *f, enum sp_io_op op, const void *buf,
		    uint64_t off, uint64_t len)
{
	if (f->writable && op != SP_IO_READ && strstr(f->path, "img.qcow2"))
		log_change(op, buf, off, len);
	return 0;
}

static int log_data(const void *buf, uint64_t off, uint64_t len)
{
	log_change(buf ? SP_IO_WRITE : SP_IO_SYNC, buf, off, len);
	return 0;
}

static void log_reset(void)
{
	while (nr_lg)
		free(lg[--nr_lg].data);
}

/* ---- rebuilding ---- */

#define FILE_MAX	(24u << 20)

static char *disk;
static uint64_t disk_size;

/* One sector of a change; head and tail of it may be less than a sector. */
static void put_part(const struct change *c, uint64_t off, uint64_t len)
{
	if (off + len > FILE_MAX)
		abort();
	if (c->op == SP_IO_WRITE)
		memcpy(disk + off, c->data + (off - c->off), len);
	else
		memset(disk + off, 0, len);
}

/*
 * All of a change, or of those sectors that luck keeps.  Changes are lucky or
 * unlucky as a whole too, so that the late may be there without the early.
 */
static void apply_change(const struct change *c, struct rng *r, bool whole)
{
	static const unsigned int luck[] = { 0, 5, 50, 50, 95, 100 };
	unsigned int kept = luck[rng_below(r, 6)];
	uint64_t off = c->off, end = c->off + c->len, part;

	if (c->op == SP_IO_SYNC)
		return;
	if (c->op == SP_IO_TRUNCATE) {
		if (!whole && !rng_chance(r, kept))
			return;
		if (c->off < disk_size)
			memset(disk + c->off, 0, disk_size - c->off);
		disk_size = c->off;
		return;
	}
	for (; off < end; off += part) {
		part = 512 - off % 512;
		if (part > end - off)
			part = end - off;
		if (c->op == SP_IO_PUNCH && off >= disk_size)
			break;
		if (!whole && !rng_chance(r, kept))
			continue;
		put_part(c, off, part);
		if (c->op != SP_IO_PUNCH && off + part > disk_size)
			disk_size = off + part;
	}
}

static void rebuild(const char *base, size_t base_len, unsigned int cut, struct rng *r)
{
	unsigned int i, synced = 0;

	for (i = 0; i < cut; i++)
		if (lg[i].op == SP_IO_SYNC)
			synced = i;
	memset(disk, 0, FILE_MAX);
	memcpy(disk, base, base_len);
	disk_size = base_len;
	for (i = 0; i < cut; i++)
		apply_change(&lg[i], r, i < synced);
	write_file(in_scratch("cut.qcow2"), disk, disk_size);
}

/* ---- what the guest did ---- */

struct op {
	enum { WRITE, FUA, ZEROES, DISCARD, FLUSH } kind;
	uint64_t lba, len;
	uint8_t val;
	unsigned int begin, end;	/* in the log */
};

#define MAX_OPS	400

static struct op ops[MAX_OPS];
static unsigned int nr_ops;
static uint8_t *initial;		/* a byte for each sector */
static uint64_t size;

static void allowed_at(struct history *h, unsigned int cut)
{
	unsigned int i;
	uint64_t s;

	for (s = 0; s < size; s++)
		hist_set(h, s, 1, initial[s]);
	for (i = 0; i < nr_ops && ops[i].begin <= cut; i++) {
		const struct op *o = &ops[i];
		/* ">": what the request did last is in the log before its end. */
		bool over = o->end <= cut;

		if (o->kind == FLUSH) {
			if (over)
				hist_flush(h);
		} else if (o->kind == FUA && over) {
			hist_set(h, o->lba, o->len, o->val);
		} else {
			hist_change(h, o->lba, o->len, o->val, o->kind == DISCARD);
		}
	}
}

static void compare(const struct history *h, uint64_t lba, const char *buf, uint64_t len,
		    const char *who)
{
	uint64_t i;

	for (i = 0; i < len; i++)
		if (!hist_allows(h, lba + i, buf + i * 512, true))
			fail_msg("%s: sector %llu is %02x", who, (unsigned long long)(lba + i),
				 buf[i * 512] & 0xff);
}

static void judge(const struct history *h, unsigned int cut, uint64_t seed)
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
			 (unsigned long long)seed, cut, nr_lg, rc);
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

static void do_op(struct fdev *d, struct rng *r, unsigned int unit, unsigned int i)
{
	static char buf[4096 * 512];
	struct op *o = &ops[nr_ops++];
	int rc = 0;

	o->val = 60 + i % 190;
	o->begin = nr_lg;
	o->lba = rng_below(r, size);
	if (rng_chance(r, 40)) {
		o->lba -= o->lba % unit;
		o->len = unit;
	} else {
		o->len = 1 + rng_below(r, 2 * unit < 100 ? 2 * unit : 100);
	}
	if (o->len > size - o->lba)
		o->len = size - o->lba;
	switch (rng_below(r, 16)) {
	case 0 ... 7:
		o->kind = WRITE;
		break;
	case 8:
		o->kind = FUA;
		break;
	case 9 ... 10:
		o->kind = ZEROES;
		o->val = 0;
		break;
	case 11 ... 13:
		o->kind = DISCARD;
		o->val = 0;
		break;
	default:
		o->kind = FLUSH;
	}
	memset(buf, o->val, o->len * 512);
	if (o->kind == FLUSH)
		rc = fdev_flush(d);
	else if (o->kind == ZEROES)
		rc = fdev_zeroes(d, o->lba, o->len, rng_chance(r, 50));
	else if (o->kind == DISCARD)
		fdev_discard(d, o->lba, o->len);
	else
		rc = fdev_write(d, buf, o->lba, o->len, o->kind == FUA);
	if (rc)
		fail_msg("request: %s", strerror(-rc));
	o->end = nr_lg;
}

static void cut_power(uint64_t seed, const char *create, unsigned int cluster, uint64_t bytes,
		      bool backing, bool kills)
{
	struct fdev_opts o = { .format = "qcow2", .seed = seed, .evict = 20, .late = 40,
			       .work = 25 };
	unsigned int i, cut, nr_cuts = getenv("CUTS") ? atoi(getenv("CUTS")) : 12;
	unsigned int nr = getenv("CUT_OPS") ? atoi(getenv("CUT_OPS")) : 60;
	struct history h;
	struct sp_err err;
	struct fdev *d;
	size_t base_len;
	char *base;
	struct rng r;

	rng_seed(&r, seed);
	make_image(&r, create, bytes, backing);
	o.path = in_scratch("img.qcow2");
	base = read_file(o.path, &base_len);
	assert_true(base_len < FILE_MAX);
	log_reset();
	nr_ops = 0;
	sp_io_hook = log_hook;
	fdev_data_hook = log_data;
	if (fdev_open(&d, &o, &err))
		fail_msg("%s", err.msg);
	for (i = 0; i < nr; i++) {
		if (kills && rng_chance(&r, 8))
			assert_int_equal(fdev_reattach(d, &err), 0);
		do_op(d, &r, cluster / 512, i);
	}
	if (rng_chance(&r, 50)) {
		/* The clean end is also a time at which power fails. */
		assert_int_equal(fdev_finish(d, &err), 0);
	} else {
		fdev_drop(d);
	}
	sp_io_hook = NULL;
	fdev_data_hook = NULL;
	hist_init(&h, size);
	disk = malloc(FILE_MAX);
	for (i = 0; i < nr_cuts; i++) {
		/* Mostly just before a sync: then the most may be missing. */
		cut = i ? rng_below(&r, nr_lg + 1) : nr_lg;
		while (i % 4 && cut < nr_lg && lg[cut].op != SP_IO_SYNC)
			cut++;
		rebuild(base, base_len, cut, &r);
		allowed_at(&h, cut);
		judge(&h, cut, seed);
	}
	free(h.s);
	free(disk);
	free(base);
	free(initial);
	log_reset();
}

struct kind {
	const char *name;
	const char *create;
	unsigned int cluster;
	uint64_t bytes;
	bool backing, kills;
};

static const struct kind kinds[] = {
	{ "4k", "-o cluster_size=4k", 4096, 1 << 20, false, false },
	{ "4k over raw", "-o cluster_size=4k", 4096, 1 << 20, true, false },
	{ "64k over raw, kills", "-o cluster_size=64k", 65536, 2 << 20, true, true },
	{ "64k compressed, kills", "-c -o cluster_size=64k", 65536, 2 << 20, false, true },
	{ "512 over raw", "-o cluster_size=512", 512, 256 << 10, true, false },
	{ "512 rc64, kills", "-o cluster_size=512,refcount_bits=64", 512, 256 << 10, false, true },
	{ "v2 4k over raw", "-o compat=0.10,cluster_size=4k", 4096, 1 << 20, true, true },
};

static void a_power_cut_never_corrupts(void **state)
{
	const struct kind *k = *state;
	uint64_t seed = getenv("CUT_SEED") ? strtoull(getenv("CUT_SEED"), NULL, 0) : 1;
	int64_t end = clock_ms() + (getenv("CUT_TIME") ? 1000 * atoi(getenv("CUT_TIME")) : 0);

	if (!have("qemu-img")) {
		print_message("# skipped: no qemu-img\n");
		skip();
	}
	do {
		print_message("# seed %llu\n", (unsigned long long)seed);
		cut_power(seed++, k->create, k->cluster, k->bytes, k->backing, k->kills);
	} while (clock_ms() < end);
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
	return _cmocka_run_group_tests("powercut", tests, n, NULL, NULL);
}
