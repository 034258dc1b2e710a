// SPDX-License-Identifier: GPL-2.0-only
/*
 * record.c - see record.h.
 *
 * Which contents are allowed.  A request that writes may have had its effect
 * as soon as it has begun.  It is durable when a FLUSH that began after its end is
 * answered, or it is a FUA write and is answered.  What had ended before a durable
 * request began is gone; what overlaps with it in time may be there.
 */
#include "util.h"
#include <limits.h>
#include <pthread.h>
#include "record.h"

struct record rec;
int (*rec_before)(const struct sp_file *f, enum sp_io_op op, const void *buf,
		  uint64_t off, uint64_t len);
void (*rec_after)(const struct sp_file *f, enum sp_io_op op, const void *buf,
		  uint64_t off, uint64_t len);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Not malloc(): a test may make that one fail for the slowpath. */
static void *must_alloc(size_t n)
{
	void *p;

	if (posix_memalign(&p, 64, n ? n : 1))
		abort();
	return p;
}

/* ---- the log ---- */

void rec_change(enum sp_io_op op, const void *data, uint64_t off, uint64_t len)
{
	struct change *c, *more;

	pthread_mutex_lock(&lock);
	if (rec.nr == rec.room) {
		rec.room = rec.room ? 2 * rec.room : 1024;
		more = must_alloc(rec.room * sizeof(*more));
		if (rec.nr)
			memcpy(more, rec.log, rec.nr * sizeof(*more));
		free(rec.log);
		rec.log = more;
	}
	c = &rec.log[rec.nr++];
	*c = (struct change) { op, off, len, NULL };
	if (op == SP_IO_WRITE) {
		c->data = must_alloc(len);
		memcpy(c->data, data, len);
	}
	pthread_mutex_unlock(&lock);
}

static int pass(const struct sp_file *f, enum sp_io_op op, const void *buf, uint64_t off,
		uint64_t len)
{
	int rc = rec_before ? rec_before(f, op, buf, off, len) : 0;

	if (rc)
		return rc;
	if (op != SP_IO_READ)
		rec_change(op, buf, off, len);
	if (rec_after)
		rec_after(f, op, buf, off, len);
	return 0;
}

static int log_file(const struct sp_file *f, enum sp_io_op op, const void *buf, uint64_t off,
		    uint64_t len)
{
	/* Not backing files, nor the cache. */
	return f->writable && !strcmp(f->path, rec.path) ? pass(f, op, buf, off, len) : 0;
}

static int log_data(const void *buf, uint64_t off, uint64_t len)
{
	return pass(NULL, buf ? SP_IO_WRITE : SP_IO_SYNC, buf, off, len);
}

static uint8_t *copy_of(const uint8_t *from, uint64_t n)
{
	uint8_t *to = must_alloc(n);

	if (from)
		memcpy(to, from, n);
	else
		memset(to, 0, n);
	return to;
}

void rec_start(const char *path, uint64_t size, const uint8_t *initial, const uint8_t *below)
{
	rec_free();
	rec.size = size;
	snprintf(rec.path, sizeof(rec.path), "%s", path);
	rec.initial = copy_of(initial, size);
	rec.below = copy_of(below, size);
	rec.base = read_file(path, &rec.base_len);
	if (rec.base_len > REC_FILE_MAX)
		abort();
	sp_io_hook = log_file;
	fdev_data_hook = log_data;
}

void rec_stop(void)
{
	sp_io_hook = NULL;
	fdev_data_hook = NULL;
	rec_before = NULL;
	rec_after = NULL;
}

void rec_free(void)
{
	rec_stop();
	while (rec.nr)
		free(rec.log[--rec.nr].data);
	free(rec.log);
	free(rec.initial);
	free(rec.below);
	free(rec.base);
	memset(&rec, 0, sizeof(rec));
}

/* ---- requests ---- */

unsigned int rec_begin(enum rec_kind kind, uint64_t lba, uint64_t len, uint8_t val)
{
	unsigned int id;

	pthread_mutex_lock(&lock);
	id = rec.nr_req++;
	if (id >= REC_REQS)
		abort();
	rec.req[id] = (struct request) {
		.kind = kind, .lba = lba, .len = len, .val = val, .begin = rec.nr,
		.end = UINT_MAX, .began = ++rec.clock, .ended = UINT_MAX,
		.unsure = kind == REC_DISCARD,
	};
	pthread_mutex_unlock(&lock);
	return id;
}

void rec_end(unsigned int id, int rc)
{
	struct request *r = &rec.req[id];

	pthread_mutex_lock(&lock);
	/* A FLUSH that failed has promised nothing. */
	if (!rc || r->kind != REC_FLUSH) {
		r->end = rec.nr;
		r->ended = ++rec.clock;
	}
	r->unsure |= rc != 0;
	pthread_mutex_unlock(&lock);
}

int rec_write(struct fdev *d, uint64_t lba, uint64_t len, uint8_t val, bool fua)
{
	unsigned int id = rec_begin(fua ? REC_FUA : REC_WRITE, lba, len, val);
	char *buf = must_alloc(len * 512);
	int rc;

	memset(buf, val, len * 512);
	rc = fdev_write(d, buf, lba, len, fua);
	rec_end(id, rc);
	free(buf);
	return rc;
}

int rec_zeroes(struct fdev *d, uint64_t lba, uint64_t len, bool nounmap)
{
	unsigned int id = rec_begin(REC_ZEROES, lba, len, 0);
	int rc = fdev_zeroes(d, lba, len, nounmap);

	rec_end(id, rc);
	return rc;
}

int rec_discard(struct fdev *d, uint64_t lba, uint64_t len)
{
	unsigned int id = rec_begin(REC_DISCARD, lba, len, 0);
	int rc = fdev_discard(d, lba, len);

	rec_end(id, rc);
	return rc;
}

int rec_flush(struct fdev *d)
{
	unsigned int id = rec_begin(REC_FLUSH, 0, 0, 0);
	int rc = fdev_flush(d);

	rec_end(id, rc);
	return rc;
}

/* Did one of the latest requests leave it so?  Behind one that is sure is none. */
static bool reads(uint64_t lba, uint8_t val)
{
	unsigned int i;

	for (i = rec.nr_req; i--;) {
		const struct request *r = &rec.req[i];

		if (r->kind == REC_FLUSH || lba < r->lba || lba >= r->lba + r->len)
			continue;
		if (r->val == val)
			return true;
		if (!r->unsure)
			return false;
	}
	return rec.initial[lba] == val;
}

int64_t rec_read(struct fdev *d)
{
	enum { STEP = 256 };
	uint8_t *buf = must_alloc(STEP * 512);
	int64_t bad = -1, rc;
	uint64_t lba, n, i;

	for (lba = 0; bad == -1 && lba < rec.size; lba += n) {
		n = rec.size - lba < STEP ? rec.size - lba : STEP;
		rc = fdev_read(d, buf, lba, n);
		if (rc)
			bad = rc - 1;
		for (i = 0; bad == -1 && i < n; i++)
			if (memcmp(buf + i * 512, buf + i * 512 + 1, 511) ||
			    !reads(lba + i, buf[i * 512]))
				bad = lba + i;
	}
	free(buf);
	return bad;
}

/* ---- what is allowed ---- */

/* Who may have the sector: requests by number + 1; 0: what was there first. */
struct owners {
	uint16_t nr, room;
	uint16_t *who;
};

struct allowed {
	struct owners *sector;
	unsigned int begun;		/* requests */
	bool over[REC_REQS];
	bool durable[REC_REQS];
};

static void add_owner(struct owners *o, uint16_t who)
{
	uint16_t *more;

	if (o->nr == o->room) {
		o->room = o->room ? 2 * o->room : 4;
		more = must_alloc(o->room * sizeof(*more));
		if (o->nr)
			memcpy(more, o->who, o->nr * sizeof(*more));
		free(o->who);
		o->who = more;
	}
	o->who[o->nr++] = who;
}

struct allowed *allowed_new(void)
{
	struct allowed *a = must_alloc(sizeof(*a));
	uint64_t s;

	memset(a, 0, sizeof(*a));
	a->sector = must_alloc(rec.size * sizeof(*a->sector));
	memset(a->sector, 0, rec.size * sizeof(*a->sector));
	for (s = 0; s < rec.size; s++)
		add_owner(&a->sector[s], 0);
	return a;
}

void allowed_free(struct allowed *a)
{
	uint64_t s;

	for (s = 0; s < rec.size; s++)
		free(a->sector[s].who);
	free(a->sector);
	free(a);
}

/* Whoever was over when this one began is gone. */
static void now_durable(struct allowed *a, unsigned int id)
{
	const struct request *r = &rec.req[id];
	unsigned int i, kept;
	uint64_t s;

	if (a->durable[id] || r->unsure || r->kind == REC_FLUSH)
		return;
	a->durable[id] = true;
	for (s = r->lba; s < r->lba + r->len; s++) {
		struct owners *o = &a->sector[s];

		for (i = kept = 0; i < o->nr; i++)
			if (o->who[i] && rec.req[o->who[i] - 1].ended > r->began)
				o->who[kept++] = o->who[i];
		o->nr = kept;
	}
}

bool allowed_to(struct allowed *a, unsigned int cut)
{
	bool less = false;
	unsigned int i, k;
	uint64_t s;

	for (; a->begun < rec.nr_req && rec.req[a->begun].begin <= cut; a->begun++) {
		const struct request *r = &rec.req[a->begun];

		for (s = r->lba; r->kind != REC_FLUSH && s < r->lba + r->len; s++)
			add_owner(&a->sector[s], a->begun + 1);
	}
	for (i = 0; i < a->begun; i++) {
		const struct request *r = &rec.req[i];

		if (a->over[i] || r->end > cut)
			continue;
		a->over[i] = true;
		if (r->kind == REC_FUA)
			now_durable(a, i);
		for (k = 0; r->kind == REC_FLUSH && k < a->begun; k++)
			if (rec.req[k].ended < r->began)
				now_durable(a, k);
		less |= r->kind == REC_FLUSH || r->kind == REC_FUA;
	}
	return less;
}

bool allowed_has(const struct allowed *a, uint64_t lba, uint8_t val)
{
	const struct owners *o = &a->sector[lba];
	unsigned int i;

	for (i = 0; i < o->nr; i++)
		if ((o->who[i] ? rec.req[o->who[i] - 1].val : rec.initial[lba]) == val)
			return true;
	return false;
}

void rec_print(unsigned int cut, unsigned int nr)
{
	static const char *const op[] = { "read", "write", "zero", "punch", "sync", "truncate" };
	static const char *const kind[] = { "WRITE", "FUA", "ZEROES", "DISCARD", "FLUSH" };
	unsigned int i = cut > nr ? cut - nr : 0, k;

	for (; i < rec.nr && i < cut + 2; i++) {
		const struct change *c = &rec.log[i];

		for (k = 0; k < rec.nr_req; k++) {
			const struct request *r = &rec.req[k];

			if (r->begin == i)
				fprintf(stderr, "#    %s %llu+%llu = %02x, to %d\n", kind[r->kind],
					(unsigned long long)r->lba, (unsigned long long)r->len,
					r->val, (int)r->end);
		}
		fprintf(stderr, "# %u %s %llx+%llx %02x\n", i, op[c->op],
			(unsigned long long)c->off, (unsigned long long)c->len,
			c->data ? c->data[0] & 0xff : 0);
	}
}

/* ---- images by luck ---- */

static void put_part(char *buf, const struct change *c, uint64_t off, uint64_t len)
{
	if (off + len > REC_FILE_MAX)
		abort();
	if (c->op == SP_IO_WRITE)
		memcpy(buf + off, c->data + (off - c->off), len);
	else
		memset(buf + off, 0, len);
}

/*
 * All of a change, or of those sectors that luck keeps.  Changes are lucky or
 * unlucky as a whole too, so that the late may be there without the early.
 */
static void apply_change(char *buf, uint64_t *size, const struct change *c, struct rng *r,
			 bool whole)
{
	static const unsigned int luck[] = { 0, 5, 50, 50, 95, 100 };
	uint64_t off = c->off, end = c->off + c->len, part;
	unsigned int kept = luck[rng_below(r, 6)];

	if (c->op == SP_IO_SYNC)
		return;
	if (c->op == SP_IO_TRUNCATE) {
		if (!whole && !rng_chance(r, kept))
			return;
		if (c->off < *size && c->off < REC_FILE_MAX)
			memset(buf + c->off, 0,
			       (*size < REC_FILE_MAX ? *size : REC_FILE_MAX) - c->off);
		*size = c->off;
		return;
	}
	for (; off < end; off += part) {
		part = 512 - off % 512;
		if (part > end - off)
			part = end - off;
		if ((c->op == SP_IO_PUNCH && off >= *size) ||
		    (c->op != SP_IO_WRITE && off >= REC_FILE_MAX))
			break;
		if (!whole && !rng_chance(r, kept))
			continue;
		put_part(buf, c, off, part);
		if (c->op != SP_IO_PUNCH && off + part > *size)
			*size = off + part;
	}
}

void rec_rebuild(const char *path, unsigned int cut, struct rng *r)
{
	char *buf = must_alloc(REC_FILE_MAX);
	uint64_t size = rec.base_len;
	unsigned int i, synced = 0;

	for (i = 0; i < cut; i++)
		if (rec.log[i].op == SP_IO_SYNC)
			synced = i;
	memset(buf, 0, REC_FILE_MAX);
	memcpy(buf, rec.base, rec.base_len);
	for (i = 0; i < cut; i++)
		apply_change(buf, &size, &rec.log[i], r, i < synced);
	/* What is behind are holes. */
	write_file(path, buf, size < REC_FILE_MAX ? size : REC_FILE_MAX);
	if (truncate(path, size))
		abort();
	free(buf);
}
