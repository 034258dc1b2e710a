// SPDX-License-Identifier: GPL-2.0-only
/*
 * fakedev.c - the kernel's half of a device, in userspace; see fakedev.h.
 *
 * Lock order: the image's lock (inside the slowpath) > d->lock.  So nothing
 * here calls into the slowpath with d->lock held, and the callbacks take it.
 *
 * A transaction is applied inside the callback: that is its submission.  Its
 * acknowledgement waits in a list until every I/O that began before has ended
 * (the drain), and sometimes longer.  An I/O is in d->active from its lookup,
 * under the same hold of the lock, to its end.
 *
 * A request that misses registers a fault on its granules; others that miss
 * there wait for it and look again.  As in the kernel the fault's own range
 * ends where the next one begins, but the front request is told whole.
 */
#include "util.h"
#include <pthread.h>
#include "fakedev.h"
#include "io.h"

#define MAX_BACKINGS	(4 * SP_MAX_STORES)
#define MAX_TRIES	64
#define HOLD_MAX	2000		/* answers in a row, then it counts as a hang */
#define STUCK_MS	2

struct backing {
	int fd;			/* as the kernel registered it: L */
	int io;			/* our own, direct unless BUFFERED */
	uint32_t flags;
	bool written;		/* since the last flush */
};

struct active {
	uint64_t seq;
	struct active *next;
};

struct ack {
	uint64_t token;
	uint64_t seq;		/* I/O up to this one must have ended */
	uint64_t due;		/* in d->clock, unless told to settle */
	int res;
	struct ack *next;
};

struct fault {
	struct sp_req req;
	uint64_t start, end;	/* granules */
	struct fault *next;
	bool answered;
	struct sp_reply reply;
	struct sp_extent *place;
	int refused;
	bool placing;		/* written, not installed */
};

struct fdev {
	struct sp_image *img;
	struct fdev_opts opt;
	char *path;
	struct sp_info info;	/* as it was first; must not change */
	struct rng rng;
	struct fdev_stats stats;

	pthread_mutex_t lock;	/* all below */
	pthread_cond_t wake, quit;
	struct sp_extent *ext;	/* rising and disjoint; .store is a backing here */
	unsigned int nr, room;
	struct backing backing[MAX_BACKINGS];
	unsigned int nr_backings;
	uint16_t store_to_backing[SP_MAX_STORES];
	unsigned int nr_stores;
	uint64_t max_tid, committed;
	uint64_t placed_tid;	/* highest of a PLACE, installed or not */
	uint64_t seq, clock;
	struct active *active;
	struct ack *acks;
	struct fault *faults;
	bool failed;		/* a sync failed */
	bool dead;		/* the mapper is; nobody listens to it */
	bool attaching, keep_cache;
	int64_t busy_since;	/* the only thread is inside sp_handle() since */
	unsigned int acking;	/* threads inside sp_acked() */

	struct active held;

	pthread_t acker;	/* so that a call that waits for an ack gets it */
	bool stop;
};

int (*fdev_data_hook)(const void *buf, uint64_t off, uint64_t len);
void (*fdev_read_hook)(uint64_t off, uint64_t len);
void (*fdev_reply_hook)(const struct sp_req *req, const struct sp_reply *r);

static struct fdev *to_kill;
static unsigned int kill_in;
static int (*hook_before)(const struct sp_file *f, enum sp_io_op op, const void *buf,
			  uint64_t off, uint64_t len);

__attribute__((format(printf, 1, 2), noreturn))
static void breach(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fprintf(stderr, "fakedev: contract broken: ");
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, "\n");
	va_end(ap);
	abort();
}

static void *must_alloc(size_t n)
{
	void *p;

	/* Not malloc(): a test may make that one fail for the slowpath. */
	if (posix_memalign(&p, 4096, n ? n : 1))
		abort();
	return p;
}

/* ---- the map of extents ---- */

static uint64_t ext_end(const struct sp_extent *e)
{
	return e->lba + e->len;
}

/* The first extent that ends after lba. */
static unsigned int find(const struct fdev *d, uint64_t lba)
{
	unsigned int lo = 0, hi = d->nr;

	while (lo < hi) {
		unsigned int mid = (lo + hi) / 2;

		if (ext_end(&d->ext[mid]) <= lba)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static void insert_at(struct fdev *d, unsigned int i, const struct sp_extent *e)
{
	if (d->nr == d->room) {
		struct sp_extent *n;

		d->room = d->room ? 2 * d->room : 64;
		n = must_alloc(d->room * sizeof(*n));
		if (d->nr)
			memcpy(n, d->ext, d->nr * sizeof(*n));
		free(d->ext);
		d->ext = n;
	}
	memmove(&d->ext[i + 1], &d->ext[i], (d->nr - i) * sizeof(*e));
	d->ext[i] = *e;
	d->nr++;
}

static void remove_at(struct fdev *d, unsigned int i)
{
	d->nr--;
	memmove(&d->ext[i], &d->ext[i + 1], (d->nr - i) * sizeof(d->ext[0]));
}

static bool has_off(const struct sp_extent *e)
{
	return e->type == SP_LINEAR || e->type == SP_JOURNAL;
}

static void advance(struct sp_extent *e, uint64_t n)
{
	e->lba += n;
	e->len -= n;
	if (has_off(e))
		e->off += n;
}

/* Make lba a border between extents. */
static void split_at(struct fdev *d, uint64_t lba)
{
	unsigned int i = find(d, lba);
	struct sp_extent tail;

	if (i == d->nr || d->ext[i].lba >= lba)
		return;
	tail = d->ext[i];
	d->ext[i].len = lba - d->ext[i].lba;
	advance(&tail, lba - tail.lba);
	insert_at(d, i + 1, &tail);
}

static void carve(struct fdev *d, uint64_t lba, uint64_t end)
{
	unsigned int i;

	split_at(d, lba);
	split_at(d, end);
	i = find(d, lba);
	while (i < d->nr && d->ext[i].lba < end)
		remove_at(d, i);
}

static void fill_holes(struct fdev *d, const struct sp_extent *e)
{
	uint64_t lba = e->lba, end = ext_end(e), stop;
	struct sp_extent part;
	unsigned int i;

	while (lba < end) {
		i = find(d, lba);
		if (i < d->nr && d->ext[i].lba <= lba) {
			struct sp_extent *o = &d->ext[i];

			stop = ext_end(o) < end ? ext_end(o) : end;
			if (o->type == SP_LINEAR && e->type == SP_LINEAR && !o->tid &&
			    o->store == e->store && e->perm & ~o->perm &&
			    o->off + (lba - o->lba) == e->off + (lba - e->lba)) {
				split_at(d, lba);
				split_at(d, stop);
				d->ext[find(d, lba)].perm |= e->perm;
			}
			lba = stop;
			continue;
		}
		stop = i < d->nr && d->ext[i].lba < end ? d->ext[i].lba : end;
		part = *e;
		advance(&part, lba - part.lba);
		part.len = stop - lba;
		insert_at(d, i, &part);
		lba = stop;
	}
}

/* No two sectors of the device may be written to one sector of a file. */
static void check_shared(const struct fdev *d, const struct sp_extent *e)
{
	unsigned int i;

	if (d->opt.hostile || e->type != SP_LINEAR || !(e->perm & SP_PERM_W))
		return;
	for (i = 0; i < d->nr; i++) {
		const struct sp_extent *o = &d->ext[i];

		if (!has_off(o) || o->store != e->store || o->off >= e->off + e->len ||
		    e->off >= o->off + o->len)
			continue;
		if (o->lba - o->off == e->lba - e->off)
			continue;
		if (o->lba >= e->lba && ext_end(o) <= ext_end(e) &&
		    e->flags & SP_EXT_REPLACE)
			continue;	/* on its way out */
		breach("sector %llu of the image for lba %llu and %llu",
		       (unsigned long long)e->off, (unsigned long long)e->lba,
		       (unsigned long long)o->lba);
	}
}

static void check_ext(struct fdev *d, const struct sp_extent *e, bool clean_only)
{
	unsigned int blk = d->info.block_size >> SP_SECTOR_SHIFT;
	bool rw = e->perm & SP_PERM_W;

	if (!e->len || e->lba >= d->info.size || e->len > d->info.size - e->lba)
		breach("extent %llu+%llu outside the device of %llu",
		       (unsigned long long)e->lba, (unsigned long long)e->len,
		       (unsigned long long)d->info.size);
	if (e->lba % blk || e->len % blk)
		breach("extent %llu+%llu not in blocks of %u sectors",
		       (unsigned long long)e->lba, (unsigned long long)e->len, blk);
	if (e->flags & ~(SP_EXT_REPLACE | SP_EXT_TOUCHED))
		breach("flags %x", e->flags);
	if (e->perm & ~(SP_PERM_R | SP_PERM_W) || (rw && !(e->perm & SP_PERM_R)))
		breach("permission %x", e->perm);
	if (e->flags & SP_EXT_REPLACE && !e->tid)
		breach("REPLACE without a tid");
	if (clean_only && e->tid)
		breach("an uncommitted extent from map()");
	if (e->tid && e->tid <= d->committed)
		breach("tid %llu, but %llu was committed", (unsigned long long)e->tid,
		       (unsigned long long)d->committed);
	switch (e->type) {
	case SP_LINEAR:
		if (e->store >= d->nr_stores)
			breach("store %u of %u", e->store, d->nr_stores);
		if (!(e->perm & SP_PERM_R))
			breach("LINEAR without R");
		if (rw && !(d->backing[d->store_to_backing[e->store]].flags & SP_STORE_WRITE))
			breach("W on store %u, which is read-only", e->store);
		if (rw && d->opt.read_only)
			breach("W on a read-only device");
		if (e->off > INT64_MAX / 512 - e->len)
			breach("offset %llu overflows", (unsigned long long)e->off);
		if (rw && !e->off && !strcmp(d->info.format, "qcow2"))
			breach("W on the header");
		break;
	case SP_JOURNAL:
		if (e->store >= d->nr_stores || e->perm || !e->tid)
			breach("JOURNAL store %u perm %x", e->store, e->perm);
		break;
	case SP_ZERO:
		if (e->off || e->store || e->perm != SP_PERM_R)
			breach("ZERO with off %llu store %u perm %x",
			       (unsigned long long)e->off, e->store, e->perm);
		break;
	case SP_EIO:
		if (e->off || e->store || e->perm || e->tid)
			breach("ERROR with off, store, perm or tid");
		break;
	default:
		breach("type %u", e->type);
	}
}

/* One transaction: whole or not at all. */
static int apply(struct fdev *d, const struct sp_extent *ext, unsigned int nr, bool clean_only)
{
	bool uncommitted = false;
	struct sp_extent e;
	unsigned int i, j;

	if (nr > SP_MAX_REPLY)
		breach("%u extents", nr);
	for (i = 0; i < nr; i++) {
		check_ext(d, &ext[i], clean_only);
		if (i && ext[i].lba < ext_end(&ext[i - 1]))
			breach("extents not rising: %llu+%llu, %llu",
			       (unsigned long long)ext[i - 1].lba,
			       (unsigned long long)ext[i - 1].len,
			       (unsigned long long)ext[i].lba);
		if (!ext[i].tid)
			continue;
		uncommitted = true;
		if (ext[i].flags & SP_EXT_REPLACE)
			continue;
		j = find(d, ext[i].lba);
		if (j < d->nr && d->ext[j].lba < ext_end(&ext[i]))
			return -EEXIST;
	}
	if (uncommitted && rng_chance(&d->rng, d->opt.refuse))
		return -ENOMEM;
	for (i = 0; i < nr; i++) {
		e = ext[i];
		if (e.tid > d->max_tid)
			d->max_tid = e.tid;
		check_shared(d, &e);
		if (has_off(&e))
			e.store = d->store_to_backing[e.store];
		if (e.flags & SP_EXT_REPLACE)
			carve(d, e.lba, ext_end(&e));
		e.flags &= ~SP_EXT_REPLACE;
		fill_holes(d, &e);
	}
	return 0;
}

/* ---- acknowledgements ---- */

static void queue_ack(struct fdev *d, uint64_t token, int res)
{
	struct ack *a, **p;

	if (!token)
		return;
	a = must_alloc(sizeof(*a));
	*a = (struct ack) { .token = token, .seq = d->seq, .res = res, .due = d->clock };
	if (rng_chance(&d->rng, d->opt.late))
		a->due += 1 + rng_below(&d->rng, 8);
	for (p = &d->acks; *p; p = &(*p)->next)
		;
	*p = a;
}

/* One that may be delivered, in no particular order.  Call with the lock. */
static struct ack *take_ack(struct fdev *d, bool all)
{
	uint64_t oldest = UINT64_MAX;
	struct active *io;
	struct ack **p, *a;

	for (io = d->active; io; io = io->next)
		if (io->seq < oldest)
			oldest = io->seq;
	for (p = &d->acks; (a = *p); p = &a->next) {
		if (a->seq >= oldest || (!all && a->due > d->clock))
			continue;
		if (a->next && !all && rng_chance(&d->rng, 20))
			continue;
		*p = a->next;
		return a;
	}
	return NULL;
}

static void pump(struct fdev *d, bool all)
{
	struct ack *a;

	pthread_mutex_lock(&d->lock);
	while (!d->dead && (a = take_ack(d, all))) {
		d->stats.acks++;
		d->acking++;
		pthread_mutex_unlock(&d->lock);
		sp_acked(d->img, a->token, a->res);
		free(a);
		pthread_mutex_lock(&d->lock);
		if (!--d->acking)
			pthread_cond_broadcast(&d->wake);
	}
	pthread_mutex_unlock(&d->lock);
}

/* Where everybody waits for acknowledgements nobody else would deliver them. */
static void *acker(void *arg)
{
	struct fdev *d = arg;
	struct timespec ts;

	pthread_mutex_lock(&d->lock);
	while (!d->stop) {
		clock_gettime(CLOCK_REALTIME, &ts);
		ts.tv_nsec += 1000000;
		if (ts.tv_nsec >= 1000000000) {
			ts.tv_nsec -= 1000000000;
			ts.tv_sec++;
		}
		pthread_cond_timedwait(&d->quit, &d->lock, &ts);
		if (d->stop || !d->busy_since || clock_ms() - d->busy_since < STUCK_MS)
			continue;
		pthread_mutex_unlock(&d->lock);
		pump(d, true);
		pthread_mutex_lock(&d->lock);
	}
	pthread_mutex_unlock(&d->lock);
	return NULL;
}

/* ---- callbacks ---- */

static void on_reply(void *ctx, const struct sp_req *req, const struct sp_reply *r)
{
	struct fault *f = req->priv;
	struct fdev *d = ctx;
	size_t size;

	if (fdev_reply_hook)
		fdev_reply_hook(req, r);
	pthread_mutex_lock(&d->lock);
	if (d->dead)
		goto out;
	if (f->answered)
		breach("two replies to one request");
	if (req->kind != f->req.kind || req->lba != f->req.lba)
		breach("the reply is to another request");
	f->answered = true;
	f->reply = *r;
	f->reply.ext = NULL;
	d->failed |= r->fail_dev;
	if (r->action == SP_ERROR && r->error >= 0)
		breach("ERROR %d", r->error);
	if (r->action == SP_PLACE) {
		size = r->nr_ext * sizeof(*r->ext);
		f->place = must_alloc(size);
		memcpy(f->place, r->ext, size);
		goto out;
	}
	if (r->action < SP_REDRIVE || r->action > SP_HOLD)
		breach("action %d", r->action);
	f->refused = apply(d, r->ext, r->nr_ext, false);
	if (f->refused == -EEXIST)
		breach("uncommitted extents over what is mapped, lba %llu",
		       (unsigned long long)r->ext[0].lba);
	if (f->refused) {
		d->stats.refused++;
		if (!r->token)
			breach("uncommitted extents without a token");
	}
	queue_ack(d, r->token, f->refused);
out:
	pthread_mutex_unlock(&d->lock);
}

static void on_map(void *ctx, const struct sp_extent *ext, unsigned int nr)
{
	struct fdev *d = ctx;

	pthread_mutex_lock(&d->lock);
	if (!d->dead) {
		d->stats.maps++;
		apply(d, ext, nr, true);
	}
	pthread_mutex_unlock(&d->lock);
}

static void on_invalidate(void *ctx, unsigned int store, uint64_t off, uint64_t len,
			  uint64_t token)
{
	struct fdev *d = ctx;
	unsigned int i, b;
	int pass, res = 0;

	pthread_mutex_lock(&d->lock);
	if (d->dead)
		goto out;
	if (store >= d->nr_stores || !len)
		breach("INVALIDATE of store %u, %llu sectors", store, (unsigned long long)len);
	b = d->store_to_backing[store];
	d->stats.invals++;
	for (pass = 0; pass < 2 && !res; pass++) {
		for (i = 0; i < d->nr; i++) {
			struct sp_extent *e = &d->ext[i];
			uint64_t lo, hi;

			if (!has_off(e) || e->store != b || e->off >= off + len ||
			    off >= e->off + e->len)
				continue;
			if (!pass && e->tid) {
				res = -EBUSY;
				break;
			}
			if (!pass)
				continue;
			lo = off > e->off ? e->lba + (off - e->off) : e->lba;
			hi = off + len < e->off + e->len ?
				e->lba + (off + len - e->off) : ext_end(e);
			carve(d, lo, hi);
			i = -1;		/* the map has changed: from the start */
		}
	}
	queue_ack(d, token, res);
out:
	pthread_mutex_unlock(&d->lock);
}

static void on_commit(void *ctx, uint64_t tid)
{
	struct fdev *d = ctx;
	unsigned int i;

	pthread_mutex_lock(&d->lock);
	if (d->dead)
		goto out;
	d->stats.commits++;
	if (tid > d->committed)
		d->committed = tid;
	if (tid > d->max_tid)
		d->max_tid = tid;
	for (i = 0; i < d->nr; i++) {
		struct sp_extent *e = &d->ext[i];

		if (!e->tid || e->tid > tid)
			continue;
		e->tid = 0;
		e->flags = 0;
		if (e->type == SP_JOURNAL)
			remove_at(d, i--);
	}
out:
	pthread_mutex_unlock(&d->lock);
}

static const struct sp_ops ops = {
	.reply = on_reply,
	.map = on_map,
	.invalidate = on_invalidate,
	.commit = on_commit,
};

/* ---- the mapper's life ---- */

static int dying_hook(const struct sp_file *f, enum sp_io_op op, const void *buf,
		      uint64_t off, uint64_t len)
{
	struct fdev *d = to_kill;

	if (d && __atomic_load_n(&d->dead, __ATOMIC_ACQUIRE))
		return -EIO;
	if (d && kill_in && !--kill_in) {
		__atomic_store_n(&d->dead, true, __ATOMIC_RELEASE);
		return -EIO;
	}
	return hook_before ? hook_before(f, op, buf, off, len) : 0;
}

void fdev_kill_at(struct fdev *d, unsigned int n)
{
	if (sp_io_hook != dying_hook) {
		hook_before = sp_io_hook;
		sp_io_hook = dying_hook;
	}
	to_kill = d;
	kill_in = n;
	if (n)
		return;
	sp_io_hook = hook_before;
	hook_before = NULL;
}

void fdev_die(struct fdev *d)
{
	fdev_kill_at(d, UINT32_MAX);
	__atomic_store_n(&d->dead, true, __ATOMIC_RELEASE);
	kill_in = 0;
}

static int add_backing(struct fdev *d, const struct sp_store *s)
{
	struct backing *b = &d->backing[d->nr_backings];
	int acc = s->flags & SP_STORE_WRITE ? O_RDWR : O_RDONLY;
	char name[40];

	if (d->nr_backings == MAX_BACKINGS)
		abort();
	b->flags = s->flags;
	b->written = false;
	b->fd = fcntl(s->fd, F_DUPFD_CLOEXEC, 3);
	snprintf(name, sizeof(name), "/proc/self/fd/%d", b->fd);
	if (!(s->flags & (SP_STORE_BUFFERED | SP_STORE_CACHE)))
		acc |= O_DIRECT;
	b->io = open(name, acc | O_CLOEXEC);
	if (b->fd < 0 || b->io < 0)
		breach("store %s cannot be registered: %s", s->path, strerror(errno));
	return d->nr_backings++;
}

static void take_stores(struct fdev *d, bool attach)
{
	const struct sp_store *s;
	unsigned int i;

	for (i = 0; (s = sp_store(d->img, i)); i++) {
		if (i == SP_MAX_STORES)
			breach("too many stores");
		if (s->flags & SP_STORE_WRITE && d->opt.read_only)
			breach("a writable store of a read-only image");
		if (!attach || (s->flags & SP_STORE_CACHE && !d->keep_cache))
			d->store_to_backing[i] = add_backing(d, s);
	}
	if (attach && i != d->nr_stores)
		breach("%u stores before, %u now", d->nr_stores, i);
	d->nr_stores = i;
	if (sp_store(d->img, i + 1))
		breach("a store past the last");
}

static int open_image(struct fdev *d, struct sp_err *err)
{
	struct sp_options o = {
		.path = d->path,
		.format = d->opt.format,
		.read_only = d->opt.read_only,
		.cache_bytes = d->opt.cache_bytes,
		.allow_backing = d->opt.allow_backing,
		.ctx = d,
		.ops = &ops,
	};
	int fds[SP_MAX_STORES];
	unsigned int i;

	if (d->attaching) {
		d->keep_cache = rng_chance(&d->rng, 50);
		for (i = 0; i < d->nr_stores; i++) {
			struct backing *b = &d->backing[d->store_to_backing[i]];

			if (b->flags & SP_STORE_CACHE && !d->keep_cache)
				break;
			fds[i] = b->fd;
		}
		o.fds = fds;
		o.nr_fds = i;
		/* What was raw when it was added is raw now. */
		o.format = d->info.format;
	}
	return sp_open(&d->img, &o, err);
}

int fdev_open(struct fdev **out, const struct fdev_opts *opt, struct sp_err *err)
{
	struct fdev *d = must_alloc(sizeof(*d));
	int rc;

	memset(d, 0, sizeof(*d));
	d->opt = *opt;
	d->path = strdup(opt->path);
	rng_seed(&d->rng, opt->seed);
	pthread_mutex_init(&d->lock, NULL);
	pthread_cond_init(&d->wake, NULL);
	pthread_cond_init(&d->quit, NULL);
	err->msg[0] = 0;
	rc = open_image(d, err);
	if (rc) {
		if (rc > 0 || !err->msg[0] || strchr(err->msg, '\n'))
			breach("sp_open: %d with message \"%s\"", rc, err->msg);
		free(d->path);
		free(d);
		return rc;
	}
	d->info = *sp_info(d->img);
	if (d->info.block_size < 512 || d->info.block_size > 4096 ||
	    d->info.size > UINT64_MAX >> SP_SECTOR_SHIFT)
		breach("block %u, size %llu", d->info.block_size,
		       (unsigned long long)d->info.size);
	take_stores(d, false);
	if (pthread_create(&d->acker, NULL, acker, d))
		abort();
	*out = d;
	return 0;
}

const struct sp_info *fdev_info(struct fdev *d)
{
	return &d->info;
}

struct sp_image *fdev_image(struct fdev *d)
{
	return d->img;
}

const struct fdev_stats *fdev_stats(struct fdev *d)
{
	return &d->stats;
}

unsigned int fdev_dump(struct fdev *d, struct sp_extent **ext, uint64_t *max_tid)
{
	unsigned int i, j, n = 0, places = 0;
	struct fault *f;

	pthread_mutex_lock(&d->lock);
	for (f = d->faults; f; f = f->next)
		places += f->placing ? f->reply.nr_ext : 0;
	*ext = must_alloc((d->nr + places + 1) * sizeof(**ext));
	for (i = 0; i < d->nr; i++) {
		struct sp_extent e = d->ext[i];

		if (!e.tid)
			continue;
		if (has_off(&e)) {
			for (j = 0; j < d->nr_stores && d->store_to_backing[j] != e.store; j++)
				;
			if (j == d->nr_stores)
				breach("an uncommitted extent in no store");
			e.store = j;
		}
		(*ext)[n++] = e;
	}
	for (f = d->faults; f; f = f->next) {
		for (i = 0; f->placing && i < f->reply.nr_ext; i++) {
			(*ext)[n] = f->place[i];
			(*ext)[n++].flags |= SP_EXT_PLACING;
		}
	}
	if (max_tid)
		*max_tid = d->placed_tid > d->max_tid ? d->placed_tid : d->max_tid;
	pthread_mutex_unlock(&d->lock);
	return n;
}

bool fdev_writable(struct fdev *d, uint64_t off, uint64_t len)
{
	bool found = false;
	unsigned int i;

	pthread_mutex_lock(&d->lock);
	for (i = 0; i < d->nr && !found; i++) {
		const struct sp_extent *e = &d->ext[i];

		found = e->type == SP_LINEAR && e->perm & SP_PERM_W &&
			e->store == d->store_to_backing[0] &&
			e->off < off + len && off < e->off + e->len;
	}
	pthread_mutex_unlock(&d->lock);
	return found;
}

static bool is_dead(const struct fdev *d)
{
	return __atomic_load_n(&d->dead, __ATOMIC_ACQUIRE);
}

/* The mapper is no more; what it might still say is not heard. */
static void close_image(struct fdev *d, bool dead)
{
	pthread_mutex_lock(&d->lock);
	if (dead)
		__atomic_store_n(&d->dead, true, __ATOMIC_RELEASE);
	while (d->acking)
		pthread_cond_wait(&d->wake, &d->lock);
	pthread_mutex_unlock(&d->lock);
	if (d->img)
		sp_close(d->img);
	d->img = NULL;
}

static void drop_acks(struct fdev *d)
{
	struct ack *a;

	while ((a = d->acks)) {
		d->acks = a->next;
		free(a);
	}
}

static int attach_once(struct fdev *d, struct sp_err *err)
{
	const struct sp_info *info;
	struct sp_extent *ext;
	uint64_t max_tid;
	unsigned int n;
	int rc;

	close_image(d, true);
	pthread_mutex_lock(&d->lock);
	drop_acks(d);
	__atomic_store_n(&d->dead, false, __ATOMIC_RELEASE);
	d->stats.attaches++;
	if (to_kill == d && !kill_in && rng_chance(&d->rng, d->opt.rekill))
		kill_in = 1 + rng_below(&d->rng, 30);
	pthread_mutex_unlock(&d->lock);

	d->attaching = true;
	err->msg[0] = 0;
	rc = open_image(d, err);
	d->attaching = false;
	if (rc)
		return rc;
	info = sp_info(d->img);
	if (info->size != d->info.size || info->granule_shift != d->info.granule_shift)
		breach("another size after attach");
	take_stores(d, true);
	n = fdev_dump(d, &ext, &max_tid);
	rc = sp_relink(d->img, ext, n, max_tid, err);
	free(ext);
	return rc;
}

void fdev_orphan(struct fdev *d)
{
	close_image(d, true);
}

int fdev_reattach(struct fdev *d, struct sp_err *err)
{
	int rc;

	do	/* it may well die again on the way */
		rc = attach_once(d, err);
	while (is_dead(d));
	return rc;
}

void fdev_settle(struct fdev *d)
{
	pump(d, true);
}

static void free_device(struct fdev *d)
{
	unsigned int i;

	pthread_mutex_lock(&d->lock);
	d->stop = true;
	pthread_cond_signal(&d->quit);
	pthread_mutex_unlock(&d->lock);
	pthread_join(d->acker, NULL);
	drop_acks(d);
	if (to_kill == d)
		fdev_kill_at(NULL, 0);
	for (i = 0; i < d->nr_backings; i++) {
		close(d->backing[i].fd);
		close(d->backing[i].io);
	}
	pthread_mutex_destroy(&d->lock);
	pthread_cond_destroy(&d->wake);
	pthread_cond_destroy(&d->quit);
	free(d->ext);
	free(d->path);
	free(d);
}

static bool revive(struct fdev *d)
{
	struct sp_err err = { "" };
	int rc;

	if (!is_dead(d))
		return false;
	rc = fdev_reattach(d, &err);
	if (rc)
		breach("attach failed: %d %s", rc, err.msg);
	return true;
}

int fdev_finish(struct fdev *d, struct sp_err *err)
{
	struct sp_extent *ext;
	unsigned int n;
	int rc;

	do {
		revive(d);
		fdev_settle(d);
		n = fdev_dump(d, &ext, NULL);
		err->msg[0] = 0;
		rc = sp_finish(d->img, ext, n, err);
		free(ext);
	} while (is_dead(d));
	if (rc && !err->msg[0])
		breach("sp_finish: %d without a message", rc);
	close_image(d, false);
	free_device(d);
	return rc;
}

void fdev_drop(struct fdev *d)
{
	close_image(d, true);
	free_device(d);
}

/* ---- requests ---- */

void fdev_evict(struct fdev *d, unsigned int percent)
{
	unsigned int i;

	pthread_mutex_lock(&d->lock);
	for (i = 0; i < d->nr; i++) {
		if (d->ext[i].tid || !rng_chance(&d->rng, percent))
			continue;
		d->stats.evicted++;
		remove_at(d, i--);
	}
	pthread_mutex_unlock(&d->lock);
}

/* Between requests: what may happen at any time. */
static void chores(struct fdev *d)
{
	bool evict, work;
	int tries = 100;

	pthread_mutex_lock(&d->lock);
	d->clock++;
	evict = rng_chance(&d->rng, d->opt.evict);
	work = rng_chance(&d->rng, d->opt.work);
	/* Time goes by: what is done by timer only comes up too. */
	if (work)
		__atomic_fetch_add(&sp_clock_skew_ms, rng_below(&d->rng, 2000),
				   __ATOMIC_RELAXED);
	pthread_mutex_unlock(&d->lock);
	pump(d, false);
	if (evict)
		fdev_evict(d, 30);
	if (work) {
		while (!d->dead && !sp_work(d->img) && --tries)
			;
		if (!tries)
			breach("sp_work() has always more to do");
		revive(d);
	}
}

static void begin_io(struct fdev *d, struct active *io)
{
	io->seq = ++d->seq;
	io->next = d->active;
	d->active = io;
}

static void end_io(struct fdev *d, struct active *io)
{
	struct active **p;

	pthread_mutex_lock(&d->lock);
	for (p = &d->active; *p != io; p = &(*p)->next)
		;
	*p = io->next;
	pthread_mutex_unlock(&d->lock);
}

static void dawdle(struct fdev *d)
{
	unsigned int us = 0;

	pthread_mutex_lock(&d->lock);
	if (rng_chance(&d->rng, d->opt.slow))
		us = rng_below(&d->rng, 2000);
	pthread_mutex_unlock(&d->lock);
	if (us)
		usleep(us);
}

/* Move bytes to or from a backing, whole or -EIO. */
static int transfer(struct fdev *d, unsigned int b, void *buf, uint64_t sect, uint64_t nr,
		    bool write)
{
	size_t len = nr << SP_SECTOR_SHIFT, done = 0;
	uint64_t off = sect << SP_SECTOR_SHIFT;
	char *tmp = must_alloc(len);
	ssize_t n = 0;
	int rc = 0;

	dawdle(d);
	if (!write && fdev_read_hook)
		fdev_read_hook(off, len);
	if (write) {
		memcpy(tmp, buf, len);
		__atomic_store_n(&d->backing[b].written, true, __ATOMIC_RELEASE);
		if (fdev_data_hook)
			rc = fdev_data_hook(tmp, off, len);
	}
	while (!rc && done < len) {
		n = write ? pwrite(d->backing[b].io, tmp + done, len - done, off + done) :
			    pread(d->backing[b].io, tmp + done, len - done, off + done);
		if (n <= 0)
			break;
		done += n;
	}
	if (!rc && n < 0)
		rc = -errno;
	else if (!rc && done < len)
		rc = -EIO;
	if (!rc && !write)
		memcpy(buf, tmp, len);
	free(tmp);
	if (rc && !d->opt.hostile && !(write && fdev_data_hook))
		breach("a hit on sectors %llu+%llu of backing %u failed: %s",
		       (unsigned long long)sect, (unsigned long long)nr, b, strerror(-rc));
	return rc;
}

/* The extent that serves lba, cut to what can be done at once; or false. */
static bool lookup(struct fdev *d, uint64_t lba, uint64_t end, bool write,
		   struct sp_extent *hit)
{
	unsigned int i = find(d, lba);

	if (i == d->nr || d->ext[i].lba > lba)
		return false;
	*hit = d->ext[i];
	if (hit->type == SP_JOURNAL || (write && hit->type == SP_ZERO))
		return false;
	if (hit->type == SP_LINEAR && write && !(hit->perm & SP_PERM_W))
		return false;
	if (write && hit->tid)
		d->ext[i].flags |= SP_EXT_TOUCHED;
	advance(hit, lba - hit->lba);
	if (hit->len > end - lba)
		hit->len = end - lba;
	return true;
}

/* Register on the first granule and as far as nobody else is; or wait there. */
static bool begin_fault(struct fdev *d, struct fault *f)
{
	uint64_t g = 1ull << d->info.granule_shift;
	struct fault *o;

	f->start = f->req.lba & ~(g - 1);
	f->end = (f->req.lba + f->req.len + g - 1) & ~(g - 1);
	for (o = d->faults; o; o = o->next) {
		if (f->start >= o->start && f->start < o->end) {
			if (rng_chance(&d->rng, d->opt.crowd))
				break;
			pthread_cond_wait(&d->wake, &d->lock);
			return false;
		}
		if (o->start > f->start && o->start < f->end)
			f->end = o->start;
	}
	f->next = d->faults;
	d->faults = f;
	d->stats.faults[f->req.kind]++;
	return true;
}

static void end_fault(struct fdev *d, struct fault *f)
{
	struct fault **p;

	pthread_mutex_lock(&d->lock);
	for (p = &d->faults; *p != f; p = &(*p)->next)
		;
	*p = f->next;
	pthread_cond_broadcast(&d->wake);
	pthread_mutex_unlock(&d->lock);
	free(f->place);
}

/* Others wait around the front request. */
static void widen(struct fdev *d, struct sp_req *r)
{
	uint64_t g = 1ull << d->info.granule_shift;
	uint64_t blk = d->info.block_size >> SP_SECTOR_SHIFT, end;

	r->want_lba = r->lba;
	r->want_len = r->len;
	if ((r->kind != SP_READ && r->kind != SP_WRITE) || !rng_chance(&d->rng, d->opt.widen))
		return;
	r->want_lba = rng_chance(&d->rng, 50) ? r->lba & ~(g - 1) :
		      r->lba - rng_below(&d->rng, (r->lba & (g - 1)) / blk + 1) * blk;
	end = r->lba + r->len + rng_below(&d->rng, 4 * g) / blk * blk;
	if (end > d->info.size)
		end = d->info.size;
	r->want_len = end - r->want_lba;
}

static int place(struct fdev *d, struct fault *f, const char *buf, uint64_t *done)
{
	const struct sp_extent *e = f->place;
	uint64_t lba = f->req.lba, end = lba + f->req.len;
	unsigned int i, nr = f->reply.nr_ext;
	bool fail;
	int rc = 0;

	if (f->req.kind != SP_WRITE || !nr)
		breach("PLACE for kind %d with %u extents", f->req.kind, nr);
	pthread_mutex_lock(&d->lock);
	d->stats.places++;
	fail = rng_chance(&d->rng, d->opt.place_fail);
	for (i = 0; i < nr; lba += e[i++].len) {
		check_ext(d, &e[i], false);
		if (e[i].lba != lba || e[i].len > end - lba || e[i].type != SP_LINEAR ||
		    !(e[i].perm & SP_PERM_W) || !e[i].tid)
			breach("PLACE extent %llu+%llu", (unsigned long long)e[i].lba,
			       (unsigned long long)e[i].len);
		/* The kernel has seen this number, installed or not. */
		if (e[i].tid > d->placed_tid)
			d->placed_tid = e[i].tid;
	}
	f->placing = true;
	pthread_mutex_unlock(&d->lock);
	for (i = 0; i < nr && !rc; i++) {
		if (fail && i == nr - 1)
			rc = -EIO;
		else
			rc = transfer(d, d->store_to_backing[e[i].store],
				      (char *)buf + ((e[i].lba - f->req.lba) << SP_SECTOR_SHIFT),
				      e[i].off, e[i].len, true);
	}
	pthread_mutex_lock(&d->lock);
	f->placing = false;
	for (i = 0; i < nr && !rc; i++) {
		struct sp_extent n = e[i];

		if (n.tid <= d->committed)
			breach("tid %llu was committed while its PLACE was in flight",
			       (unsigned long long)n.tid);
		n.flags |= SP_EXT_REPLACE;
		check_shared(d, &n);
		n.flags = SP_EXT_TOUCHED;
		if (n.tid > d->max_tid)
			d->max_tid = n.tid;
		n.store = d->store_to_backing[n.store];
		carve(d, n.lba, ext_end(&n));
		fill_holes(d, &n);
	}
	queue_ack(d, f->reply.token, rc);
	pthread_mutex_unlock(&d->lock);
	if (!rc)
		*done = lba - f->req.lba;
	return rc;
}

static int handle(struct fdev *d, struct fault *f)
{
	bool nonblock;
	int rc;

	pthread_mutex_lock(&d->lock);
	nonblock = rng_chance(&d->rng, 50);
	d->busy_since = clock_ms();
	pthread_mutex_unlock(&d->lock);
	if (nonblock) {
		rc = sp_handle(d->img, &f->req, true);
		if (rc == -EAGAIN && f->answered)
			breach("EAGAIN after a reply");
		if (rc && rc != -EAGAIN)
			breach("sp_handle(nonblock) returned %d", rc);
	}
	if (!nonblock || rc == -EAGAIN) {
		rc = sp_handle(d->img, &f->req, false);
		if (rc)
			breach("sp_handle() returned %d", rc);
	}
	pthread_mutex_lock(&d->lock);
	d->busy_since = 0;
	pthread_mutex_unlock(&d->lock);
	if (is_dead(d))
		return -ESTALE;
	if (!f->answered)
		breach("no reply");
	return 0;
}

/*
 * Take one registered fault to the mapper and do as it says.  *done: sectors
 * of the front request that are complete now.
 */
static int serve(struct fdev *d, struct fault *f, const void *buf, uint64_t *done)
{
	unsigned int holds = 0;
	int rc;

	*done = 0;
again:
	f->answered = false;
	rc = handle(d, f);
	if (rc)
		return rc == -ESTALE ? 0 : rc;	/* a new mapper gets it again */
	if (f->refused)
		return f->refused;
	switch (f->reply.action) {
	case SP_REDRIVE:
		d->stats.redrives++;
		return 0;
	case SP_DONE:
		if (f->req.kind == SP_READ || f->req.kind == SP_WRITE)
			breach("DONE for kind %d", f->req.kind);
		if (f->req.kind != SP_FLUSH &&
		    (!f->reply.done || f->reply.done > f->req.len))
			breach("DONE %llu of %llu", (unsigned long long)f->reply.done,
			       (unsigned long long)f->req.len);
		*done = f->reply.done;
		return 0;
	case SP_PLACE:
		return place(d, f, buf, done);
	case SP_ERROR:
		return f->reply.error;
	case SP_HOLD:
		d->stats.holds++;
		if (++holds > HOLD_MAX)
			breach("held for ever");
		d->clock++;
		pump(d, holds > 3);
		sp_work(d->img);
		if (d->opt.slow || holds > 20)
			usleep(1000 * (f->reply.done < 5 ? f->reply.done : 5));
		if (is_dead(d))
			return 0;
		goto again;
	}
	return -EIO;
}

static int flush_tid(struct fdev *d, uint64_t tid)
{
	struct fault f = { .req = { .kind = SP_FLUSH, .tid = tid } };
	unsigned int i, tries = 0;
	uint64_t done;
	int rc;

	f.req.priv = &f;
	pthread_mutex_lock(&d->lock);
	d->stats.faults[SP_FLUSH]++;
	pthread_mutex_unlock(&d->lock);
	do {
		if (++tries > MAX_TRIES)
			breach("FLUSH makes no progress");
		rc = serve(d, &f, NULL, &done);
		/* Held, and then its mapper died: serve() came back for that. */
		if (f.answered && !f.refused && f.reply.action != SP_DONE &&
		    f.reply.action != SP_ERROR &&
		    !(f.reply.action == SP_HOLD && is_dead(d)))
			breach("FLUSH answered with %d", f.reply.action);
	} while (revive(d));
	if (rc)
		return rc;
	pthread_mutex_lock(&d->lock);
	for (i = 0; i < d->nr; i++)
		if (d->ext[i].tid && d->ext[i].tid <= tid)
			breach("FLUSH up to %llu done, %llu not committed",
			       (unsigned long long)tid, (unsigned long long)d->ext[i].tid);
	pthread_mutex_unlock(&d->lock);
	return 0;
}

int fdev_try_flush(struct fdev *d, uint64_t tid)
{
	struct fault f = { .req = { .kind = SP_FLUSH, .tid = tid } };
	int rc;

	f.req.priv = &f;
	rc = handle(d, &f);
	if (rc || f.refused)
		return rc ? rc : f.refused;
	return f.reply.action == SP_HOLD ? -EAGAIN :
	       f.reply.action == SP_DONE ? 0 : f.reply.error;
}

static int sync_backings(struct fdev *d)
{
	unsigned int b;
	int rc;

	for (b = 0; b < d->nr_backings; b++) {
		if (!__atomic_exchange_n(&d->backing[b].written, false, __ATOMIC_ACQ_REL))
			continue;
		rc = fdev_data_hook ? fdev_data_hook(NULL, 0, 0) : 0;
		if (!rc && fdatasync(d->backing[b].io))
			rc = -errno;
		if (rc) {
			d->failed = true;
			return rc;
		}
	}
	return 0;
}

bool fdev_extent(struct fdev *d, uint64_t lba, struct sp_extent *e)
{
	unsigned int i, j;
	bool found;

	pthread_mutex_lock(&d->lock);
	i = find(d, lba);
	found = i < d->nr && d->ext[i].lba <= lba;
	if (found) {
		*e = d->ext[i];
		for (j = 0; has_off(e) && j < d->nr_stores; j++) {
			if (d->store_to_backing[j] == d->ext[i].store) {
				e->store = j;
				break;
			}
		}
	}
	pthread_mutex_unlock(&d->lock);
	return found;
}

void fdev_hold(struct fdev *d)
{
	pthread_mutex_lock(&d->lock);
	begin_io(d, &d->held);
	pthread_mutex_unlock(&d->lock);
}

void fdev_unhold(struct fdev *d)
{
	end_io(d, &d->held);
	fdev_settle(d);
}

int fdev_flush(struct fdev *d)
{
	bool due = false;
	unsigned int i;
	uint64_t tid;

	chores(d);
	pthread_mutex_lock(&d->lock);
	if (d->failed) {
		pthread_mutex_unlock(&d->lock);
		return -EIO;
	}
	tid = d->max_tid;
	for (i = 0; i < d->nr; i++)
		due |= d->ext[i].tid && d->ext[i].flags & SP_EXT_TOUCHED;
	if (!due)
		d->stats.flush_local++;
	pthread_mutex_unlock(&d->lock);
	return due ? flush_tid(d, tid) : sync_backings(d);
}

int fdev_read(struct fdev *d, void *buf, uint64_t lba, uint64_t len)
{
	uint64_t end = lba + len, done;
	unsigned int tries = 0;
	struct sp_extent hit;
	int rc;

	chores(d);
	pthread_mutex_lock(&d->lock);
	while (lba < end) {
		struct fault f = { .req = { .kind = SP_READ, .lba = lba, .len = end - lba } };
		struct active io;

		if (lookup(d, lba, end, false, &hit)) {
			begin_io(d, &io);
			d->stats.read_hits++;
			pthread_mutex_unlock(&d->lock);
			rc = 0;
			if (hit.type == SP_ZERO)
				memset(buf, 0, hit.len << SP_SECTOR_SHIFT);
			else if (hit.type == SP_EIO)
				rc = -EIO;
			else
				rc = transfer(d, hit.store, buf, hit.off, hit.len, false);
			end_io(d, &io);
			pump(d, false);
			if (rc)
				return rc;
			buf = (char *)buf + (hit.len << SP_SECTOR_SHIFT);
			lba += hit.len;
			tries = 0;
			pthread_mutex_lock(&d->lock);
			continue;
		}
		if (!begin_fault(d, &f))
			continue;
		if (++tries > MAX_TRIES)
			breach("reading %llu makes no progress", (unsigned long long)lba);
		f.req.priv = &f;
		f.req.seq = rng_chance(&d->rng, 50) ? 0 : rng_below(&d->rng, 1 << 14);
		widen(d, &f.req);
		pthread_mutex_unlock(&d->lock);
		rc = serve(d, &f, NULL, &done);
		end_fault(d, &f);
		revive(d);
		pump(d, false);
		if (rc)
			return rc;
		pthread_mutex_lock(&d->lock);
	}
	pthread_mutex_unlock(&d->lock);
	return 0;
}

int fdev_write(struct fdev *d, const void *buf, uint64_t lba, uint64_t len, bool fua)
{
	uint64_t end = lba + len, done, tid = 0;
	unsigned int tries = 0;
	struct sp_extent hit;
	int rc;

	chores(d);
	pthread_mutex_lock(&d->lock);
	while (lba < end) {
		struct fault f = { .req = { .kind = SP_WRITE, .lba = lba, .len = end - lba } };
		struct active io;

		if (d->failed) {
			pthread_mutex_unlock(&d->lock);
			return -EIO;
		}
		if (lookup(d, lba, end, true, &hit)) {
			begin_io(d, &io);
			d->stats.write_hits++;
			pthread_mutex_unlock(&d->lock);
			rc = hit.type == SP_EIO ? -EIO :
			     transfer(d, hit.store, (void *)buf, hit.off, hit.len, true);
			end_io(d, &io);
			pump(d, false);
			if (rc)
				return rc;
			done = hit.len;
			if (hit.tid > tid)
				tid = hit.tid;
			pthread_mutex_lock(&d->lock);
			goto progress;
		}
		if (!begin_fault(d, &f))
			continue;
		if (++tries > MAX_TRIES)
			breach("writing %llu makes no progress", (unsigned long long)lba);
		f.req.priv = &f;
		f.req.seq = rng_chance(&d->rng, 50) ? 0 : rng_below(&d->rng, 1 << 14);
		widen(d, &f.req);
		pthread_mutex_unlock(&d->lock);
		rc = serve(d, &f, buf, &done);
		if (done && f.place[f.reply.nr_ext - 1].tid > tid)
			tid = f.place[f.reply.nr_ext - 1].tid;
		end_fault(d, &f);
		revive(d);
		pump(d, false);
		if (rc)
			return rc;
		pthread_mutex_lock(&d->lock);
progress:
		if (done)
			tries = 0;
		buf = (const char *)buf + (done << SP_SECTOR_SHIFT);
		lba += done;
	}
	pthread_mutex_unlock(&d->lock);
	if (!fua)
		return 0;
	return tid ? flush_tid(d, tid) : sync_backings(d);
}

static int range_op(struct fdev *d, enum sp_kind kind, uint64_t lba, uint64_t len,
		    uint32_t flags)
{
	uint64_t end = lba + len, done;
	unsigned int tries = 0;
	int rc;

	chores(d);
	while (lba < end) {
		struct fault f = { .req = { .kind = kind, .flags = flags,
					    .lba = lba, .len = end - lba } };

		pthread_mutex_lock(&d->lock);
		if (d->failed) {
			pthread_mutex_unlock(&d->lock);
			return -EIO;
		}
		if (!begin_fault(d, &f)) {
			pthread_mutex_unlock(&d->lock);
			continue;
		}
		if (++tries > MAX_TRIES)
			breach("kind %d at %llu makes no progress", kind,
			       (unsigned long long)lba);
		f.req.priv = &f;
		widen(d, &f.req);
		pthread_mutex_unlock(&d->lock);
		rc = serve(d, &f, NULL, &done);
		end_fault(d, &f);
		revive(d);
		pump(d, false);
		if (rc)
			return rc;
		if (done)
			tries = 0;
		lba += done;
	}
	return 0;
}

int fdev_discard(struct fdev *d, uint64_t lba, uint64_t len)
{
	return range_op(d, SP_DISCARD, lba, len, 0);
}

int fdev_zeroes(struct fdev *d, uint64_t lba, uint64_t len, bool nounmap)
{
	return range_op(d, SP_ZEROES, lba, len, nounmap ? SP_REQ_NOUNMAP : 0);
}
