// SPDX-License-Identifier: GPL-2.0-only
/*
 * fakeio.c - requests to the fake device: hits, and misses that go to the mapper.
 *
 * A request that misses registers a fault on its granules; others that miss
 * there wait for it and look again.  As in the kernel the fault's own range
 * ends where the next one begins, but the front request is told whole.
 */
#include "fakedev_int.h"

#define MAX_TRIES	64
#define HOLD_MAX	2000		/* answers in a row, then it counts as a hang */

/* Between requests: what may happen at any time. */
static void chores(struct fdev *d)
{
	unsigned int ahead;
	bool evict, work;
	int tries = 100;

	pthread_mutex_lock(&d->lock);
	d->clock++;
	evict = rng_chance(&d->rng, d->opt.evict);
	work = rng_chance(&d->rng, d->opt.work);
	ahead = d->ahead ? rng_below(&d->rng, 4) : 0;
	/* Time goes by: what is done by timer only comes up too. */
	if (work)
		__atomic_fetch_add(&sp_clock_skew_ms, rng_below(&d->rng, 2000),
				   __ATOMIC_RELAXED);
	pthread_mutex_unlock(&d->lock);
	fdrain_pump(d, false);
	if (evict)
		fdev_evict(d, 30);
	for (; ahead && !d->dead; ahead--)
		if (!sp_ahead(d->img))
			break;
	fdev_revive(d);
	if (work) {
		while (!d->dead && !sp_work(d->img) && --tries)
			;
		if (!tries)
			fdev_breach("sp_work() has always more to do");
		fdev_revive(d);
	}
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
	char *tmp = fdev_alloc(len);
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
		fdev_breach("a hit on sectors %llu+%llu of backing %u failed: %s",
		       (unsigned long long)sect, (unsigned long long)nr, b, strerror(-rc));
	return rc;
}

/* The extent that serves lba, cut to what can be done at once; or false. */
static bool lookup(struct fdev *d, uint64_t lba, uint64_t end, bool write,
		   struct sp_extent *hit)
{
	unsigned int i = fmap_find(d, lba);

	if (i == d->nr || d->ext[i].lba > lba)
		return false;
	*hit = d->ext[i];
	if (hit->type == SP_JOURNAL || (write && hit->type == SP_ZERO))
		return false;
	if (hit->type == SP_LINEAR && write && !(hit->perm & SP_PERM_W))
		return false;
	if (write && hit->tid)
		d->ext[i].flags |= SP_EXT_TOUCHED;
	fmap_advance(hit, lba - hit->lba);
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
		fdev_breach("PLACE for kind %d with %u extents", f->req.kind, nr);
	pthread_mutex_lock(&d->lock);
	d->stats.places++;
	fail = rng_chance(&d->rng, d->opt.place_fail);
	for (i = 0; i < nr; lba += e[i++].len) {
		fmap_check(d, &e[i], false);
		if (e[i].lba != lba || e[i].len > end - lba || e[i].type != SP_LINEAR ||
		    !(e[i].perm & SP_PERM_W) || !e[i].tid)
			fdev_breach("PLACE extent %llu+%llu", (unsigned long long)e[i].lba,
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
			fdev_breach("tid %llu was committed while its PLACE was in flight",
			       (unsigned long long)n.tid);
		n.flags |= SP_EXT_REPLACE;
		fmap_check_shared(d, &n);
		n.flags = SP_EXT_TOUCHED;
		if (n.tid > d->max_tid)
			d->max_tid = n.tid;
		n.store = d->store_to_backing[n.store];
		fmap_carve(d, n.lba, fmap_end(&n));
		fmap_fill(d, &n);
	}
	fdrain_queue(d, f->reply.token, rc);
	pthread_mutex_unlock(&d->lock);
	if (!rc)
		*done = lba - f->req.lba;
	return rc;
}

static int handle(struct fdev *d, struct fault *f)
{
	enum sp_may may = SP_MAY_WAIT;
	int rc = -EAGAIN;

	pthread_mutex_lock(&d->lock);
	if (rng_chance(&d->rng, 50))
		may = rng_chance(&d->rng, 50) ? SP_MAY_COPY : SP_MAY_NOTHING;
	d->busy_since = clock_ms();
	pthread_mutex_unlock(&d->lock);
	if (may != SP_MAY_WAIT) {
		rc = sp_handle(d->img, &f->req, may);
		if (rc == -EAGAIN && f->answered)
			fdev_breach("EAGAIN after a reply");
		if (rc && rc != -EAGAIN)
			fdev_breach("sp_handle(), not to wait, returned %d", rc);
	}
	if (rc == -EAGAIN) {
		rc = sp_handle(d->img, &f->req, SP_MAY_WAIT);
		if (rc)
			fdev_breach("sp_handle() returned %d", rc);
	}
	pthread_mutex_lock(&d->lock);
	d->busy_since = 0;
	pthread_mutex_unlock(&d->lock);
	if (fdev_is_dead(d))
		return -ESTALE;
	if (!f->answered)
		fdev_breach("no reply");
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
	f->taken = false;
	f->data = buf;
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
		if (f->req.kind == SP_READ || (f->req.kind == SP_WRITE && !f->taken))
			fdev_breach("DONE for kind %d", f->req.kind);
		if (f->req.flags & SP_REQ_FUA)
			fdev_breach("DONE for a FUA write");
		d->stats.merged += f->req.kind == SP_WRITE;
		if (f->req.kind != SP_FLUSH &&
		    (!f->reply.done || f->reply.done > f->req.len))
			fdev_breach("DONE %llu of %llu", (unsigned long long)f->reply.done,
			       (unsigned long long)f->req.len);
		if (f->reply.done % (d->info.block_size >> SP_SECTOR_SHIFT))
			fdev_breach("DONE %llu, in blocks of %u bytes",
			       (unsigned long long)f->reply.done, d->info.block_size);
		*done = f->reply.done;
		return 0;
	case SP_PLACE:
		return place(d, f, buf, done);
	case SP_ERROR:
		return f->reply.error;
	case SP_HOLD:
		d->stats.holds++;
		if (++holds > HOLD_MAX)
			fdev_breach("held for ever");
		d->clock++;
		fdrain_pump(d, holds > 3);
		sp_work(d->img);
		if (d->opt.slow || holds > 20)
			usleep(1000 * (f->reply.done < 5 ? f->reply.done : 5));
		if (fdev_is_dead(d))
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
			fdev_breach("FLUSH makes no progress");
		rc = serve(d, &f, NULL, &done);
		/* Held, and then its mapper died: serve() came back for that. */
		if (f.answered && !f.refused && f.reply.action != SP_DONE &&
		    f.reply.action != SP_ERROR &&
		    !(f.reply.action == SP_HOLD && fdev_is_dead(d)))
			fdev_breach("FLUSH answered with %d", f.reply.action);
	} while (fdev_revive(d));
	if (rc)
		return rc;
	pthread_mutex_lock(&d->lock);
	for (i = 0; i < d->nr; i++)
		if (d->ext[i].tid && d->ext[i].tid <= tid)
			fdev_breach("FLUSH up to %llu done, %llu not committed",
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

/*
 * A request that has registered goes to the mapper.  *done: sectors of it that are
 * complete now; *tid rises to that of their extents.  Drops the lock.
 */
static int miss(struct fdev *d, struct fault *f, const void *buf, unsigned int *tries,
		uint64_t *done, uint64_t *tid)
{
	int rc;

	if (++*tries > MAX_TRIES)
		fdev_breach("kind %d at %llu makes no progress", f->req.kind,
			    (unsigned long long)f->req.lba);
	f->req.priv = f;
	if (f->req.kind == SP_READ || f->req.kind == SP_WRITE)
		f->req.seq = rng_chance(&d->rng, 50) ? 0 : rng_below(&d->rng, 1 << 14);
	widen(d, &f->req);
	pthread_mutex_unlock(&d->lock);
	rc = serve(d, f, buf, done);
	if (*done && f->place && f->place[f->reply.nr_ext - 1].tid > *tid)
		*tid = f->place[f->reply.nr_ext - 1].tid;
	end_fault(d, f);
	fdev_revive(d);
	fdrain_pump(d, false);
	return rc;
}

int fdev_read(struct fdev *d, void *buf, uint64_t lba, uint64_t len)
{
	uint64_t end = lba + len, done, tid = 0;
	unsigned int tries = 0;
	struct sp_extent hit;
	int rc;

	chores(d);
	pthread_mutex_lock(&d->lock);
	while (lba < end) {
		struct fault f = { .req = { .kind = SP_READ, .lba = lba, .len = end - lba } };
		struct active io;

		if (lookup(d, lba, end, false, &hit)) {
			fdrain_begin(d, &io);
			d->stats.read_hits++;
			pthread_mutex_unlock(&d->lock);
			rc = 0;
			if (hit.type == SP_ZERO)
				memset(buf, 0, hit.len << SP_SECTOR_SHIFT);
			else if (hit.type == SP_EIO)
				rc = -EIO;
			else
				rc = transfer(d, hit.store, buf, hit.off, hit.len, false);
			fdrain_end(d, &io);
			fdrain_pump(d, false);
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
		rc = miss(d, &f, NULL, &tries, &done, &tid);
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
		struct fault f = { .req = { .kind = SP_WRITE, .lba = lba, .len = end - lba,
					    .flags = fua ? SP_REQ_FUA : 0 } };
		struct active io;

		if (d->failed) {
			pthread_mutex_unlock(&d->lock);
			return -EIO;
		}
		if (lookup(d, lba, end, true, &hit)) {
			fdrain_begin(d, &io);
			d->stats.write_hits++;
			pthread_mutex_unlock(&d->lock);
			rc = hit.type == SP_EIO ? -EIO :
			     transfer(d, hit.store, (void *)buf, hit.off, hit.len, true);
			fdrain_end(d, &io);
			fdrain_pump(d, false);
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
		rc = miss(d, &f, buf, &tries, &done, &tid);
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
	uint64_t end = lba + len, done, tid = 0;
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
		rc = miss(d, &f, NULL, &tries, &done, &tid);
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
