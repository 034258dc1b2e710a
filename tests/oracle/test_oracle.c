// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_oracle.c - random operations on images of many kinds, with QEMU's
 * programs as the judge.
 *
 * A case is a kind of image.  qemu-img makes it and says what it contains; that
 * becomes the model, plain memory.  Then come sessions.  In each, random
 * requests go through the fake device, every read is compared with the model, and
 * after the clean end `qemu-img check` must find neither error nor leak and
 * `qemu-img convert` must give the model.  The sessions differ:
 *
 *	0  read-only
 *	1  plain; the same operations are also given to qemu-io on a copy, which
 *	   must end up the same
 *	2  the mapper is killed at a random I/O, again and again; before it qemu-io
 *	   writes to the image, so that we go on with metadata of its making
 *	3  several threads; memory runs out and writes fail in the device now and then
 *
 * The default set is fixed and takes some seconds.  ORACLE_TIME=seconds makes
 * random kinds instead for so long; ORACLE_SEED=n begins there (printed on failure);
 * ORACLE_CASE=name runs one kind, ORACLE_SESSION=name one session, ORACLE_OPS=n
 * more operations in each.
 */
#include "util.h"
#include "cm.h"
#include <pthread.h>
#include "fakedev.h"

#define KIB	1024ull
#define MIB	(1024 * KIB)
#define THREADS	4

enum base { RAW_IMAGE, EMPTY, FILLED, PACKED, RAW_BASE, QCOW2_BASE, PACKED_BASE, CHAIN };

struct kind {
	const char *name;
	const char *opts;	/* of qemu-img create */
	unsigned int cluster;
	uint64_t size;		/* of the image */
	enum base base;
	uint64_t base_size;
	const char *base_opts;	/* of the backing file, or for PACKED */
};

#define V3	"compat=1.1"
#define V2	"compat=0.10"
#define ODD	(7 * 512)

static const struct kind kinds[] = {
	{ "raw", "", 65536, 3 * MIB + ODD, RAW_IMAGE, 0, "" },
	{ "v3-64k", V3, 65536, 8 * MIB, EMPTY, 0, "" },
	{ "v2-64k", V2, 65536, 8 * MIB + ODD, EMPTY, 0, "" },
	{ "v3-512", V3, 512, 1 * MIB + ODD, EMPTY, 0, "" },
	{ "v3-1k", V3, 1024, 2 * MIB, FILLED, 0, "" },
	{ "v2-2k", V2, 2048, 2 * MIB, FILLED, 0, "" },
	{ "v3-4k", V3, 4096, 4 * MIB + ODD, EMPTY, 0, "" },
	{ "v3-2M", V3, 2097152, 20 * MIB + ODD, EMPTY, 0, "" },
	{ "v3-4k-filled", V3, 4096, 4 * MIB, FILLED, 0, "" },
	{ "v3-rc1", V3 ",refcount_bits=1", 4096, 4 * MIB, EMPTY, 0, "" },
	{ "v3-rc2", V3 ",refcount_bits=2", 1024, 1 * MIB, EMPTY, 0, "" },
	{ "v3-rc4", V3 ",refcount_bits=4", 65536, 8 * MIB, FILLED, 0, "" },
	{ "v3-rc8", V3 ",refcount_bits=8", 512, 512 * KIB, EMPTY, 0, "" },
	{ "v3-rc32", V3 ",refcount_bits=32", 512, 512 * KIB, EMPTY, 0, "" },
	{ "v3-rc64", V3 ",refcount_bits=64", 512, 1 * MIB, PACKED, 0, V3 ",refcount_bits=64" },
	{ "v3-lazy", V3 ",lazy_refcounts=on", 65536, 8 * MIB, EMPTY, 0, "" },
	{ "v3-meta", V3 ",preallocation=metadata", 65536, 6 * MIB + ODD, EMPTY, 0, "" },
	{ "v3-falloc", V3 ",preallocation=falloc", 4096, 2 * MIB, EMPTY, 0, "" },
	{ "v2-full", V2 ",preallocation=full", 65536, 4 * MIB, EMPTY, 0, "" },
	{ "v3-zlib", V3, 65536, 8 * MIB, PACKED, 0, V3 },
	{ "v3-zlib-4k", V3, 4096, 2 * MIB + ODD, PACKED, 0, V3 },
	{ "v2-zlib-2M", V2, 2097152, 10 * MIB, PACKED, 0, V2 },
	{ "v3-zstd", V3, 65536, 4 * MIB, PACKED, 0, V3 ",compression_type=zstd" },
	{ "v3-zlib-rc1", V3, 4096, 1 * MIB, PACKED, 0, V3 ",refcount_bits=1" },
	{ "v3-raw-base", V3, 65536, 8 * MIB, RAW_BASE, 8 * MIB, "" },
	{ "v2-raw-short", V2, 65536, 8 * MIB, RAW_BASE, 3 * MIB + ODD, "" },
	{ "v3-raw-long", V3, 4096, 2 * MIB + ODD, RAW_BASE, 5 * MIB, "" },
	{ "v3-512-raw-short", V3, 512, 512 * KIB, RAW_BASE, 200 * KIB + 512, "" },
	{ "v3-qcow2-base", V3, 65536, 6 * MIB, QCOW2_BASE, 6 * MIB, V3 ",cluster_size=4096" },
	{ "v3-qcow2-short", V3, 4096, 4 * MIB, QCOW2_BASE, 1 * MIB + ODD, V2 ",cluster_size=65536" },
	{ "v3-zstd-base", V3, 4096, 4 * MIB, PACKED_BASE, 4 * MIB,
	  V3 ",compression_type=zstd,cluster_size=65536" },
	{ "v2-zlib-base", V2, 65536, 6 * MIB, PACKED_BASE, 5 * MIB + ODD, V2 },
	{ "v3-chain", V3, 65536, 6 * MIB + ODD, CHAIN, 4 * MIB, V3 ",cluster_size=4096" },
	{ "v3-chain-512", V3, 512, 512 * KIB, CHAIN, 600 * KIB, V2 ",cluster_size=1024" },
	{ "v3-2M-chain", V3, 2097152, 12 * MIB, CHAIN, 9 * MIB + ODD, V3 ",cluster_size=65536" },
};

struct span {
	uint64_t lba, len;
	struct span *next;
};

/* One case while it runs. */
static struct {
	const struct kind *k;
	const char *img, *copy, *fmt, *session;
	uint64_t seed;
	uint64_t size;		/* sectors */
	char *model;
	struct fdev *dev;
	unsigned int blk;	/* sectors */
	bool threads;
	bool faulty;		/* requests may fail with EIO, ENOMEM */
	FILE *script;		/* for qemu-io, or NULL */
	unsigned int nr_data;
	pthread_mutex_t lock;	/* spans */
	struct span *spans;
} c;

static bool qemu;

__attribute__((format(printf, 1, 2)))
static void bad(const char *fmt, ...)
{
	va_list ap;
	char msg[400];

	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	print_error("# kind %s, seed %llu, session %s: %s\n", c.k->name,
		    (unsigned long long)c.seed, c.session, msg);
	if (c.threads)		/* no jumping out of these */
		abort();
	fail();
}

/* Bytes that compress somewhat and tell sectors apart. */
static void fill(struct rng *r, char *buf, uint64_t sectors)
{
	uint64_t i, stamp;
	unsigned int j;

	for (i = 0; i < sectors; i++) {
		stamp = rng_next(r);
		for (j = 0; j < 512; j += 8)
			memcpy(buf + i * 512 + j, &stamp, 8);
		memcpy(buf + i * 512 + 8 * rng_below(r, 64), &i, 8);
	}
}

/* A raw file with runs of data and of nothing. */
static void make_raw(struct rng *r, const char *name, uint64_t size, unsigned int cluster)
{
	uint64_t lba = 0, nr = size / 512, run, unit = cluster / 512;
	char *buf = calloc(1, size);

	while (lba < nr) {
		run = 1 + rng_below(r, rng_chance(r, 50) ? 4 * unit : unit);
		if (run > nr - lba)
			run = nr - lba;
		if (rng_chance(r, 60))
			fill(r, buf + lba * 512, run);
		lba += run;
	}
	write_file(in_scratch(name), buf, size);
	free(buf);
}

#define MUST(...) do { if (sh(__VA_ARGS__)) bad("failed: " __VA_ARGS__); } while (0)

static void make_image(struct rng *r)
{
	const struct kind *k = c.k;
	unsigned long long size = k->size;

	if (k->base == RAW_IMAGE) {
		make_raw(r, "img.raw", size, k->cluster);
		return;
	}
	if (k->base == FILLED || k->base == PACKED) {
		make_raw(r, "src.raw", size, k->cluster);
		MUST("qemu-img convert %s -f raw -O qcow2 -o %s,cluster_size=%u src.raw img.qcow2",
		     k->base == PACKED ? "-c" : "", k->base == PACKED ? k->base_opts : k->opts,
		     k->cluster);
		return;
	}
	if (k->base == EMPTY) {
		MUST("qemu-img create -f qcow2 -o %s,cluster_size=%u img.qcow2 %llu",
		     k->opts, k->cluster, size);
		return;
	}
	make_raw(r, "base.raw", k->base_size, 65536);
	if (k->base == QCOW2_BASE || k->base == PACKED_BASE)
		MUST("qemu-img convert %s -f raw -O qcow2 -o %s base.raw base.img",
		     k->base == PACKED_BASE ? "-c" : "", k->base_opts);
	if (k->base == CHAIN) {
		MUST("qemu-img create -f qcow2 -o %s -b base.raw -F raw base.img %llu",
		     k->base_opts, (unsigned long long)k->base_size + 64 * 512);
		MUST("qemu-io -c 'write -P 0x11 10k 20k' -c 'write -z 64k 64k' -c 'write -P 7 %llu 512' base.img",
		     (unsigned long long)k->base_size);
	}
	MUST("qemu-img create -f qcow2 -o %s,cluster_size=%u -b %s -F %s img.qcow2 %llu",
	     k->opts, k->cluster, k->base == RAW_BASE ? "base.raw" : "base.img",
	     k->base == RAW_BASE ? "raw" : "qcow2", size);
}

/* What QEMU says the image contains; malloc'ed. */
static char *qemu_reads(const char *name)
{
	char *buf;
	size_t len;

	MUST("qemu-img convert -f %s -O raw %s out.raw", c.fmt, name);
	buf = read_file(in_scratch("out.raw"), &len);
	if (len != c.size * 512)
		bad("%s: %zu bytes instead of %llu", name, len, (unsigned long long)c.size * 512);
	return buf;
}

static void compare(const char *name)
{
	char *buf = qemu_reads(name);
	uint64_t i;

	for (i = 0; i < c.size; i++)
		if (memcmp(buf + i * 512, c.model + i * 512, 512))
			bad("%s: sector %llu differs", name, (unsigned long long)i);
	free(buf);
}

static void check_image(const char *name)
{
	char cmd[400];
	int rc;

	if (c.k->base == RAW_IMAGE)
		return;
	rc = sh("qemu-img check -f qcow2 %s >check.out 2>&1", name);

	if (rc) {
		snprintf(cmd, sizeof(cmd), "head -8 %s >&2", in_scratch("check.out"));
		if (system(cmd))
			print_message("# and nothing was said\n");
		bad("qemu-img check %s: %d", name, rc);
	}
}

/* ---- operations ---- */

/* Claim a range nobody else is working on. */
static void claim(struct span *s, struct rng *r)
{
	uint64_t unit = c.k->cluster / 512, max;
	struct span *o;

	if (unit < c.blk)
		unit = c.blk;
again:
	s->lba = rng_below(r, c.size);
	switch (rng_below(r, 5)) {
	case 0:		/* whole clusters */
		s->lba -= s->lba % unit;
		s->len = unit * (1 + rng_below(r, 5));
		break;
	case 1:		/* large */
		max = c.size / 4;
		if (max > 2048)
			max = 2048;
		s->len = 1 + rng_below(r, max);
		break;
	case 2:		/* across a border */
		s->lba -= s->lba % unit;
		s->lba -= s->lba ? 1 : 0;
		s->len = 2 + rng_below(r, 8);
		break;
	default:
		s->len = 1 + rng_below(r, 8);
	}
	s->lba -= s->lba % c.blk;
	s->len = (s->len + c.blk - 1) / c.blk * c.blk;
	if (s->len > c.size - s->lba)
		s->len = c.size - s->lba;
	pthread_mutex_lock(&c.lock);
	for (o = c.spans; o; o = o->next) {
		if (s->lba >= o->lba + o->len || o->lba >= s->lba + s->len)
			continue;
		pthread_mutex_unlock(&c.lock);
		sched_yield();
		goto again;
	}
	s->next = c.spans;
	c.spans = s;
	pthread_mutex_unlock(&c.lock);
}

static void release(struct span *s)
{
	struct span **p;

	pthread_mutex_lock(&c.lock);
	for (p = &c.spans; *p != s; p = &(*p)->next)
		;
	*p = s->next;
	pthread_mutex_unlock(&c.lock);
}

/* May a change fail like this?  Then nothing, or part of it, has happened. */
static bool may_fail(int rc)
{
	return c.faulty && (rc == -EIO || rc == -ENOMEM);
}

static void script_range(const char *cmd, uint64_t lba, uint64_t len)
{
	if (c.script)
		fprintf(c.script, "%s %llu %llu\n", cmd, (unsigned long long)lba * 512,
			(unsigned long long)len * 512);
}

/*
 * Some of the range has changed, each sector to new (NULL: zeros) or not at all;
 * nothing else is allowed, and from now on it has to stay.
 */
static void learn(const struct span *s, const char *new, char *tmp)
{
	static const char zeros[512];
	uint64_t i, run = 0;
	int rc;

	rc = fdev_read(c.dev, tmp, s->lba, s->len);
	if (rc)
		bad("reading %llu+%llu: %s", (unsigned long long)s->lba,
		    (unsigned long long)s->len, strerror(-rc));
	for (i = 0; i < s->len; i++) {
		const char *want = new ? new + i * 512 : zeros;
		char *old = c.model + (s->lba + i) * 512;
		bool changed = !memcmp(tmp + i * 512, want, 512);

		if (!changed && memcmp(tmp + i * 512, old, 512))
			bad("sector %llu is neither old nor new",
			    (unsigned long long)(s->lba + i));
		memcpy(old, tmp + i * 512, 512);
		if (changed) {
			run++;
		} else if (run) {
			script_range("write -z", s->lba + i - run, run);
			run = 0;
		}
	}
	if (run)
		script_range("write -z", s->lba + i - run, run);
}

static void op_write(const struct span *s, struct rng *r, char *buf, char *tmp)
{
	char name[32];
	int rc;

	if (rng_chance(r, 10))
		memset(buf, 0, s->len * 512);
	else
		fill(r, buf, s->len);
	rc = fdev_write(c.dev, buf, s->lba, s->len, rng_chance(r, 10));
	if (may_fail(rc)) {
		learn(s, buf, tmp);
		return;
	}
	if (rc)
		bad("writing %llu+%llu: %s", (unsigned long long)s->lba,
		    (unsigned long long)s->len, strerror(-rc));
	memcpy(c.model + s->lba * 512, buf, s->len * 512);
	if (c.script) {
		snprintf(name, sizeof(name), "data.%u", c.nr_data++);
		write_file(in_scratch(name), buf, s->len * 512);
		fprintf(c.script, "write -s %s %llu %llu\n", in_scratch(name),
			(unsigned long long)s->lba * 512, (unsigned long long)s->len * 512);
	}
}

static void op_read(const struct span *s, char *tmp)
{
	uint64_t i;
	int rc;

	memset(tmp, 0xdb, s->len * 512);
	rc = fdev_read(c.dev, tmp, s->lba, s->len);
	if (rc)
		bad("reading %llu+%llu: %s", (unsigned long long)s->lba,
		    (unsigned long long)s->len, strerror(-rc));
	for (i = 0; i < s->len; i++)
		if (memcmp(tmp + i * 512, c.model + (s->lba + i) * 512, 512))
			bad("reading %llu+%llu: sector %llu is wrong",
			    (unsigned long long)s->lba, (unsigned long long)s->len,
			    (unsigned long long)(s->lba + i));
}

static void op_zeroes(const struct span *s, struct rng *r, char *tmp)
{
	bool nounmap = rng_chance(r, 40);
	int rc = fdev_zeroes(c.dev, s->lba, s->len, nounmap);

	if (rc == -EOPNOTSUPP)
		return;
	if (may_fail(rc)) {
		learn(s, NULL, tmp);
		return;
	}
	if (rc)
		bad("zeroing %llu+%llu: %s", (unsigned long long)s->lba,
		    (unsigned long long)s->len, strerror(-rc));
	memset(c.model + s->lba * 512, 0, s->len * 512);
	script_range(nounmap ? "write -z" : "write -z -u", s->lba, s->len);
}

static void op_discard(const struct span *s, char *tmp)
{
	int rc = fdev_discard(c.dev, s->lba, s->len);

	if (rc && rc != -EOPNOTSUPP && !may_fail(rc))
		bad("discarding %llu+%llu: %s", (unsigned long long)s->lba,
		    (unsigned long long)s->len, strerror(-rc));
	learn(s, NULL, tmp);
}

static void random_ops(uint64_t seed, unsigned int nr)
{
	char *buf = malloc(c.k->cluster * 6 + 2 * MIB);
	char *tmp = malloc(c.k->cluster * 6 + 2 * MIB);
	struct span s;
	struct rng r;
	int rc;

	rng_seed(&r, seed);
	while (nr--) {
		claim(&s, &r);
		switch (rng_below(&r, 20)) {
		case 0 ... 8:
			op_write(&s, &r, buf, tmp);
			break;
		case 9 ... 10:
			op_zeroes(&s, &r, tmp);
			break;
		case 11 ... 13:
			op_discard(&s, tmp);
			break;
		case 14:
			rc = fdev_flush(c.dev);
			if (rc)
				bad("flush: %s", strerror(-rc));
			break;
		default:
			op_read(&s, tmp);
		}
		release(&s);
	}
	free(buf);
	free(tmp);
}

struct thread {
	pthread_t id;
	uint64_t seed;
	unsigned int nr;
};

static void *thread_ops(void *arg)
{
	struct thread *t = arg;

	random_ops(t->seed, t->nr);
	return NULL;
}

/* ---- sessions ---- */

static void open_device(struct fdev_opts *o)
{
	struct sp_err err;

	o->path = in_scratch(c.img);
	o->format = c.fmt;
	o->seed = c.seed;
	if (fdev_open(&c.dev, o, &err))
		bad("cannot open: %s", err.msg);
	if (fdev_info(c.dev)->size != c.size)
		bad("size %llu instead of %llu", (unsigned long long)fdev_info(c.dev)->size,
		    (unsigned long long)c.size);
	c.blk = fdev_info(c.dev)->block_size / 512;
}

static void end_device(void)
{
	struct sp_err err;

	if (fdev_finish(c.dev, &err))
		bad("cannot finish: %s", err.msg);
	check_image(c.img);
	compare(c.img);
}

static void session_plain(unsigned int ops)
{
	struct fdev_opts o = { .evict = 20, .late = 30, .work = 10, .widen = 30 };

	MUST("cp --sparse=always %s %s", c.img, c.copy);
	c.script = fopen(in_scratch("script"), "w");
	open_device(&o);
	random_ops(c.seed + 1, ops);
	fclose(c.script);
	c.script = NULL;
	end_device();
	MUST("qemu-io -f %s %s <script", c.fmt, c.copy);
	compare(c.copy);
	sh("rm -f data.*");
}

/* Small cache, so that it turns over. */
static void session_readonly(unsigned int ops)
{
	struct fdev_opts o = { .evict = 30, .late = 30, .widen = 30, .read_only = true,
			       .cache_bytes = 1 };
	char *tmp = malloc(c.k->cluster * 6 + 2 * MIB);
	struct sp_err err;
	struct span s;
	struct rng r;

	rng_seed(&r, c.seed + 5);
	open_device(&o);
	while (ops--) {
		claim(&s, &r);
		op_read(&s, tmp);
		release(&s);
		if (rng_chance(&r, 5) && fdev_reattach(c.dev, &err))
			bad("cannot attach: %s", err.msg);
	}
	if (fdev_write(c.dev, tmp, 0, c.blk, false) != -EROFS)
		bad("written to although read-only");
	free(tmp);
	if (fdev_finish(c.dev, &err))
		bad("cannot finish: %s", err.msg);
}

static void session_kill(unsigned int ops, struct rng *r)
{
	struct fdev_opts o = { .evict = 20, .late = 50, .work = 20, .widen = 30, .rekill = 80 };
	uint64_t off = rng_below(r, c.size / 2) * 512;

	MUST("qemu-io -f %s -c 'write -P 0x5a %llu 40k' -c 'discard 64k 128k' -c 'write -z 256k 4k' %s",
	     c.fmt, (unsigned long long)off, c.img);
	free(c.model);
	c.model = qemu_reads(c.img);
	open_device(&o);
	fdev_kill_at(c.dev, 1 + rng_below(r, 60));
	random_ops(c.seed + 2, ops);
	end_device();
}

static void session_threads(unsigned int ops)
{
	struct fdev_opts o = { .evict = 20, .late = 50, .work = 10, .widen = 50, .slow = 10,
			       .refuse = 2, .place_fail = 5, .untaken = 30 };
	struct thread t[THREADS];
	int i;

	c.faulty = true;
	open_device(&o);
	c.threads = true;
	for (i = 0; i < THREADS; i++) {
		t[i].seed = c.seed + 10 + i;
		t[i].nr = ops / THREADS;
		assert_int_equal(pthread_create(&t[i].id, NULL, thread_ops, &t[i]), 0);
	}
	for (i = 0; i < THREADS; i++)
		pthread_join(t[i].id, NULL);
	c.threads = false;
	c.faulty = false;
	end_device();
}

static bool wanted(const char *session)
{
	const char *only = getenv("ORACLE_SESSION");

	c.session = session;
	return !only || strstr(only, session);
}

static void run_kind(const struct kind *k, uint64_t seed, unsigned int ops)
{
	struct rng r;

	memset(&c, 0, sizeof(c));
	pthread_mutex_init(&c.lock, NULL);
	c.k = k;
	c.seed = seed;
	c.session = "none";
	c.fmt = k->base == RAW_IMAGE ? "raw" : "qcow2";
	c.img = k->base == RAW_IMAGE ? "img.raw" : "img.qcow2";
	c.copy = k->base == RAW_IMAGE ? "copy.raw" : "copy.qcow2";
	c.size = k->size / 512;
	rng_seed(&r, seed);
	sh("rm -f *");
	make_image(&r);
	c.model = qemu_reads(c.img);
	if (wanted("read-only"))
		session_readonly(ops / 2);
	if (wanted("plain"))
		session_plain(ops);
	if (wanted("kill"))
		session_kill(ops, &r);
	if (wanted("threads"))
		session_threads(ops);
	free(c.model);
}

static uint64_t first_seed(void)
{
	return getenv("ORACLE_SEED") ? strtoull(getenv("ORACLE_SEED"), NULL, 0) : 1;
}

static unsigned int nr_ops(void)
{
	return getenv("ORACLE_OPS") ? strtoul(getenv("ORACLE_OPS"), NULL, 0) : 60;
}

static void qemu_agrees(void **state)
{
	const struct kind *k = *state;

	if (!qemu) {
		print_message("# skipped: no qemu-img and qemu-io\n");
		skip();
	}
	run_kind(k, first_seed() + (k - kinds), nr_ops());
}

/* ---- random kinds, for as long as there is time ---- */

static void random_kind(struct kind *k, struct rng *r, char *opts, char *base_opts)
{
	const char *pre[] = { "metadata", "falloc", "full" };
	unsigned int bits = 9 + rng_below(r, 13);
	bool v3 = rng_chance(r, 75);
	char *end;

	memset(k, 0, sizeof(*k));
	k->name = "random";
	k->cluster = 1u << bits;
	k->size = k->cluster * (8 + rng_below(r, bits < 13 ? 1000 : bits < 17 ? 100 : 10));
	if (k->size > 40 * MIB)
		k->size = 40 * MIB;
	if (k->size < 300 * KIB)
		k->size = 300 * KIB;
	if (rng_chance(r, 50))
		k->size += 512 * rng_below(r, 200);
	k->base = rng_below(r, 8);
	k->base_size = rng_chance(r, 40) ? k->size : 32768 + rng_below(r, 2 * k->size) / 512 * 512;
	end = opts + sprintf(opts, "%s", v3 ? V3 : V2);
	if (v3 && rng_chance(r, 50))
		end += sprintf(end, ",refcount_bits=%u", 1u << rng_below(r, 7));
	if (v3 && rng_chance(r, 15))
		end += sprintf(end, ",lazy_refcounts=on");
	k->opts = opts;
	if (k->base == PACKED) {
		snprintf(base_opts, 300, "%s%s", opts,
			 v3 && rng_chance(r, 40) ? ",compression_type=zstd" : "");
	} else {
		sprintf(base_opts, "%s,cluster_size=%u", rng_chance(r, 30) ? V2 : V3,
			1u << (9 + rng_below(r, 13)));
		if (k->base == PACKED_BASE && !strncmp(base_opts, V3, strlen(V3)) &&
		    rng_chance(r, 40))
			strcat(base_opts, ",compression_type=zstd");
	}
	k->base_opts = base_opts;
	if (k->base == EMPTY && rng_chance(r, 30))
		sprintf(end, ",preallocation=%s", pre[rng_below(r, 3)]);
}

static void qemu_agrees_on_random_kinds(void **state)
{
	int64_t end = clock_ms() + 1000 * strtol(getenv("ORACLE_TIME"), NULL, 0);
	char opts[200], base_opts[300];
	uint64_t seed = first_seed();
	struct kind k;
	struct rng r;

	(void)state;
	for (; clock_ms() < end; seed++) {
		rng_seed(&r, seed ^ 0xabcdef);
		random_kind(&k, &r, opts, base_opts);
		print_message("# seed %llu: %s cluster %u size %llu base %d %llu %s\n",
			      (unsigned long long)seed, opts, k.cluster,
			      (unsigned long long)k.size, k.base,
			      (unsigned long long)k.base_size, base_opts);
		run_kind(&k, seed, nr_ops());
	}
}

#define NR_KINDS	(sizeof(kinds) / sizeof(kinds[0]))

int main(void)
{
	const struct CMUnitTest random_test = cmocka_unit_test(qemu_agrees_on_random_kinds);
	const char *only = getenv("ORACLE_CASE");
	static struct CMUnitTest tests[NR_KINDS];
	static char names[NR_KINDS][64];
	size_t i, n = 0;

	qemu = have("qemu-img") && have("qemu-io");
	if (getenv("ORACLE_TIME"))
		return _cmocka_run_group_tests("oracle", &random_test, 1, NULL, NULL);
	for (i = 0; i < NR_KINDS; i++) {
		if (only && strcmp(only, kinds[i].name))
			continue;
		snprintf(names[n], sizeof(names[0]), "qemu_agrees (%s)", kinds[i].name);
		tests[n].name = names[n];
		tests[n].test_func = qemu_agrees;
		tests[n].initial_state = (void *)&kinds[i];
		n++;
	}
	return _cmocka_run_group_tests("oracle", tests, n, NULL, NULL);
}
