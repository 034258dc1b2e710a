// SPDX-License-Identifier: GPL-2.0-only
/*
 * fakedev.c - the life of a fake device and its mapper; see fakedev.h.
 *
 * A transaction is applied inside the callback: that is its submission.
 */
#include "fakedev_int.h"

int (*fdev_data_hook)(const void *buf, uint64_t off, uint64_t len);
void (*fdev_read_hook)(uint64_t off, uint64_t len);
void (*fdev_reply_hook)(const struct sp_req *req, const struct sp_reply *r);

static struct fdev *to_kill;
static unsigned int kill_in;
static int (*hook_before)(const struct sp_file *f, enum sp_io_op op, const void *buf,
			  uint64_t off, uint64_t len);

/**
 * fdev_breach - the slowpath has broken its contract: that is the end
 * @fmt: how, as for printf()
 */
void fdev_breach(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fprintf(stderr, "fakedev: contract broken: ");
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, "\n");
	va_end(ap);
	abort();
}

/**
 * fdev_alloc - memory for direct I/O, or none at all
 * @n: bytes
 *
 * Return: never NULL.
 */
void *fdev_alloc(size_t n)
{
	void *p;

	/* Not malloc(): a test may make that one fail for the slowpath. */
	if (posix_memalign(&p, 4096, n ? n : 1))
		abort();
	return p;
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
		fdev_breach("two replies to one request");
	if (req->kind != f->req.kind || req->lba != f->req.lba)
		fdev_breach("the reply is to another request");
	f->answered = true;
	f->reply = *r;
	f->reply.ext = NULL;
	d->failed |= r->fail_dev;
	if (r->action == SP_ERROR && r->error >= 0)
		fdev_breach("ERROR %d", r->error);
	if (r->action == SP_PLACE) {
		size = r->nr_ext * sizeof(*r->ext);
		f->place = fdev_alloc(size);
		memcpy(f->place, r->ext, size);
		goto out;
	}
	if (r->action < SP_REDRIVE || r->action > SP_HOLD)
		fdev_breach("action %d", r->action);
	f->refused = fmap_apply(d, r->ext, r->nr_ext, false);
	if (f->refused == -EEXIST)
		fdev_breach("uncommitted extents over what is mapped, lba %llu",
		       (unsigned long long)r->ext[0].lba);
	if (f->refused) {
		d->stats.refused++;
		if (!r->token)
			fdev_breach("uncommitted extents without a token");
	}
	fdrain_queue(d, r->token, f->refused);
out:
	pthread_mutex_unlock(&d->lock);
}

static void on_map(void *ctx, const struct sp_extent *ext, unsigned int nr)
{
	struct fdev *d = ctx;

	pthread_mutex_lock(&d->lock);
	if (!d->dead) {
		d->stats.maps++;
		fmap_apply(d, ext, nr, true);
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
		fdev_breach("INVALIDATE of store %u, %llu sectors", store, (unsigned long long)len);
	b = d->store_to_backing[store];
	d->stats.invals++;
	for (pass = 0; pass < 2 && !res; pass++) {
		for (i = 0; i < d->nr; i++) {
			struct sp_extent *e = &d->ext[i];
			uint64_t lo, hi;

			if (!fmap_has_off(e) || e->store != b || e->off >= off + len ||
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
				e->lba + (off + len - e->off) : fmap_end(e);
			fmap_carve(d, lo, hi);
			i = -1;		/* the map has changed: from the start */
		}
	}
	fdrain_queue(d, token, res);
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
			fmap_remove(d, i--);
	}
out:
	pthread_mutex_unlock(&d->lock);
}

static void on_ahead(void *ctx)
{
	struct fdev *d = ctx;

	__atomic_store_n(&d->ahead, true, __ATOMIC_RELAXED);
}

static int on_take(void *ctx, const struct sp_req *req, void *buf, size_t len)
{
	struct fault *f = req->priv;
	struct fdev *d = ctx;
	bool refuse;

	if (f->req.kind != SP_WRITE || req->lba != f->req.lba ||
	    !len || len > f->req.len << SP_SECTOR_SHIFT)
		fdev_breach("%zu bytes taken of kind %d", len, f->req.kind);
	pthread_mutex_lock(&d->lock);
	refuse = d->dead || rng_chance(&d->rng, d->opt.untaken);
	pthread_mutex_unlock(&d->lock);
	if (refuse || !f->data)
		return -ENOENT;
	memcpy(buf, f->data, len);
	f->taken = true;
	return 0;
}

static const struct sp_ops ops = {
	.reply = on_reply,
	.map = on_map,
	.invalidate = on_invalidate,
	.commit = on_commit,
	.ahead = on_ahead,
	.take = on_take,
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
		fdev_breach("store %s cannot be registered: %s", s->path, strerror(errno));
	return d->nr_backings++;
}

static void take_stores(struct fdev *d, bool attach)
{
	const struct sp_store *s;
	unsigned int i;

	for (i = 0; (s = sp_store(d->img, i)); i++) {
		if (i == SP_MAX_STORES)
			fdev_breach("too many stores");
		if (s->flags & SP_STORE_WRITE && d->opt.read_only)
			fdev_breach("a writable store of a read-only image");
		if (!attach || (s->flags & SP_STORE_CACHE && !d->keep_cache))
			d->store_to_backing[i] = add_backing(d, s);
	}
	if (attach && i != d->nr_stores)
		fdev_breach("%u stores before, %u now", d->nr_stores, i);
	d->nr_stores = i;
	if (sp_store(d->img, i + 1))
		fdev_breach("a store past the last");
}

static int open_image(struct fdev *d, struct sp_err *err)
{
	struct sp_options o = {
		.path = d->path,
		.format = d->opt.format,
		.read_only = d->opt.read_only,
		.cache_bytes = d->opt.cache_bytes,
		.block_size = d->opt.block_size,
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
		o.size = d->info.size;
		o.block_size = d->info.block_size;
		/* What was raw when it was added is raw now. */
		o.format = d->info.format;
	}
	return sp_open(&d->img, &o, err);
}

int fdev_open(struct fdev **out, const struct fdev_opts *opt, struct sp_err *err)
{
	struct fdev *d = fdev_alloc(sizeof(*d));
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
			fdev_breach("sp_open: %d with message \"%s\"", rc, err->msg);
		free(d->path);
		free(d);
		return rc;
	}
	d->info = *sp_info(d->img);
	if (d->info.block_size < opt->block_size)
		d->info.block_size = opt->block_size;
	if (d->info.block_size < 512 || d->info.block_size > 4096 ||
	    d->info.size > UINT64_MAX >> SP_SECTOR_SHIFT)
		fdev_breach("block %u, size %llu", d->info.block_size,
		       (unsigned long long)d->info.size);
	take_stores(d, false);
	if (pthread_create(&d->acker, NULL, fdrain_thread, d))
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
	*ext = fdev_alloc((d->nr + places + 1) * sizeof(**ext));
	for (i = 0; i < d->nr; i++) {
		struct sp_extent e = d->ext[i];

		if (!e.tid)
			continue;
		if (fmap_has_off(&e)) {
			for (j = 0; j < d->nr_stores && d->store_to_backing[j] != e.store; j++)
				;
			if (j == d->nr_stores)
				fdev_breach("an uncommitted extent in no store");
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

static int attach_once(struct fdev *d, struct sp_err *err)
{
	const struct sp_info *info;
	struct sp_extent *ext;
	uint64_t max_tid;
	unsigned int n;
	int rc;

	close_image(d, true);
	pthread_mutex_lock(&d->lock);
	fdrain_drop(d);
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
		fdev_breach("another size after attach");
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
	while (fdev_is_dead(d));
	return rc;
}

static void free_device(struct fdev *d)
{
	unsigned int i;

	pthread_mutex_lock(&d->lock);
	d->stop = true;
	pthread_cond_signal(&d->quit);
	pthread_mutex_unlock(&d->lock);
	pthread_join(d->acker, NULL);
	fdrain_drop(d);
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

/**
 * fdev_revive - a new mapper where the old one has died
 * @d: the device
 *
 * Return: true if it had.
 */
bool fdev_revive(struct fdev *d)
{
	struct sp_err err = { "" };
	int rc;

	if (!fdev_is_dead(d))
		return false;
	rc = fdev_reattach(d, &err);
	if (rc)
		fdev_breach("attach failed: %d %s", rc, err.msg);
	return true;
}

int fdev_finish(struct fdev *d, struct sp_err *err)
{
	struct sp_extent *ext;
	unsigned int n;
	int rc;

	do {
		fdev_revive(d);
		fdev_settle(d);
		n = fdev_dump(d, &ext, NULL);
		err->msg[0] = 0;
		rc = sp_finish(d->img, ext, n, err);
		free(ext);
	} while (fdev_is_dead(d));
	if (rc && !err->msg[0])
		fdev_breach("sp_finish: %d without a message", rc);
	close_image(d, false);
	free_device(d);
	return rc;
}

void fdev_drop(struct fdev *d)
{
	close_image(d, true);
	free_device(d);
}
