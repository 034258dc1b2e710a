// SPDX-License-Identifier: GPL-2.0-only
/*
 * fakemap.c - the fake device's map of extents: rising and disjoint.
 */
#include "fakedev_int.h"

/**
 * fmap_find - the first extent that ends after a sector
 * @d: the device, locked
 * @lba: a sector
 *
 * Return: its index, @d->nr if there is none.
 */
unsigned int fmap_find(const struct fdev *d, uint64_t lba)
{
	unsigned int lo = 0, hi = d->nr;

	while (lo < hi) {
		unsigned int mid = (lo + hi) / 2;

		if (fmap_end(&d->ext[mid]) <= lba)
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
		n = fdev_alloc(d->room * sizeof(*n));
		if (d->nr)
			memcpy(n, d->ext, d->nr * sizeof(*n));
		free(d->ext);
		d->ext = n;
	}
	memmove(&d->ext[i + 1], &d->ext[i], (d->nr - i) * sizeof(*e));
	d->ext[i] = *e;
	d->nr++;
}

/**
 * fmap_remove - forget an extent
 * @d: the device, locked
 * @i: its index
 */
void fmap_remove(struct fdev *d, unsigned int i)
{
	d->nr--;
	memmove(&d->ext[i], &d->ext[i + 1], (d->nr - i) * sizeof(d->ext[0]));
}

/* Make lba a border between extents. */
static void split_at(struct fdev *d, uint64_t lba)
{
	unsigned int i = fmap_find(d, lba);
	struct sp_extent tail;

	if (i == d->nr || d->ext[i].lba >= lba)
		return;
	tail = d->ext[i];
	d->ext[i].len = lba - d->ext[i].lba;
	fmap_advance(&tail, lba - tail.lba);
	insert_at(d, i + 1, &tail);
}

/**
 * fmap_carve - forget what is mapped in a range
 * @d: the device, locked
 * @lba: its first sector
 * @end: the one after its last
 */
void fmap_carve(struct fdev *d, uint64_t lba, uint64_t end)
{
	unsigned int i;

	split_at(d, lba);
	split_at(d, end);
	i = fmap_find(d, lba);
	while (i < d->nr && d->ext[i].lba < end)
		fmap_remove(d, i);
}

/**
 * fmap_fill - map what is not mapped yet
 * @d: the device, locked
 * @e: its store is a backing already; gives its permission to what is mapped
 *	alike and has less
 */
void fmap_fill(struct fdev *d, const struct sp_extent *e)
{
	uint64_t lba = e->lba, end = fmap_end(e), stop;
	struct sp_extent part;
	unsigned int i;

	while (lba < end) {
		i = fmap_find(d, lba);
		if (i < d->nr && d->ext[i].lba <= lba) {
			struct sp_extent *o = &d->ext[i];

			stop = fmap_end(o) < end ? fmap_end(o) : end;
			if (o->type == SP_LINEAR && e->type == SP_LINEAR && !o->tid &&
			    o->store == e->store && e->perm & ~o->perm &&
			    o->off + (lba - o->lba) == e->off + (lba - e->lba)) {
				split_at(d, lba);
				split_at(d, stop);
				d->ext[fmap_find(d, lba)].perm |= e->perm;
			}
			lba = stop;
			continue;
		}
		stop = i < d->nr && d->ext[i].lba < end ? d->ext[i].lba : end;
		part = *e;
		fmap_advance(&part, lba - part.lba);
		part.len = stop - lba;
		insert_at(d, i, &part);
		lba = stop;
	}
}

/**
 * fmap_check_shared - a breach if two sectors would be written to one of a file
 * @d: the device, locked
 * @e: an extent as the slowpath means it, not installed yet
 */
void fmap_check_shared(const struct fdev *d, const struct sp_extent *e)
{
	unsigned int i;

	if (d->opt.hostile || e->type != SP_LINEAR || !(e->perm & SP_PERM_W))
		return;
	for (i = 0; i < d->nr; i++) {
		const struct sp_extent *o = &d->ext[i];

		if (!fmap_has_off(o) || o->store != e->store || o->off >= e->off + e->len ||
		    e->off >= o->off + o->len)
			continue;
		if (o->lba - o->off == e->lba - e->off)
			continue;
		if (o->lba >= e->lba && fmap_end(o) <= fmap_end(e) &&
		    e->flags & SP_EXT_REPLACE)
			continue;	/* on its way out */
		fdev_breach("sector %llu of the image for lba %llu and %llu",
		       (unsigned long long)e->off, (unsigned long long)e->lba,
		       (unsigned long long)o->lba);
	}
}

/**
 * fmap_check - a breach if an extent is not as the contract wants it
 * @d: the device, locked
 * @e: as the slowpath means it
 * @clean_only: nor may it be uncommitted
 */
void fmap_check(struct fdev *d, const struct sp_extent *e, bool clean_only)
{
	unsigned int blk = d->info.block_size >> SP_SECTOR_SHIFT;
	bool rw = e->perm & SP_PERM_W;

	if (!e->len || e->lba >= d->info.size || e->len > d->info.size - e->lba)
		fdev_breach("extent %llu+%llu outside the device of %llu",
		       (unsigned long long)e->lba, (unsigned long long)e->len,
		       (unsigned long long)d->info.size);
	if (e->lba % blk || e->len % blk)
		fdev_breach("extent %llu+%llu not in blocks of %u sectors",
		       (unsigned long long)e->lba, (unsigned long long)e->len, blk);
	if (e->flags & ~(SP_EXT_REPLACE | SP_EXT_TOUCHED))
		fdev_breach("flags %x", e->flags);
	if (e->perm & ~(SP_PERM_R | SP_PERM_W) || (rw && !(e->perm & SP_PERM_R)))
		fdev_breach("permission %x", e->perm);
	if (e->flags & SP_EXT_REPLACE && !e->tid)
		fdev_breach("REPLACE without a tid");
	if (clean_only && e->tid)
		fdev_breach("an uncommitted extent from map()");
	if (e->tid && e->tid <= d->committed)
		fdev_breach("tid %llu, but %llu was committed", (unsigned long long)e->tid,
		       (unsigned long long)d->committed);
	switch (e->type) {
	case SP_LINEAR:
		if (e->store >= d->nr_stores)
			fdev_breach("store %u of %u", e->store, d->nr_stores);
		if (!(e->perm & SP_PERM_R))
			fdev_breach("LINEAR without R");
		if (rw && !(d->backing[d->store_to_backing[e->store]].flags & SP_STORE_WRITE))
			fdev_breach("W on store %u, which is read-only", e->store);
		if (rw && d->opt.read_only)
			fdev_breach("W on a read-only device");
		if (e->off > INT64_MAX / 512 - e->len)
			fdev_breach("offset %llu overflows", (unsigned long long)e->off);
		if (e->off % blk && !(d->backing[d->store_to_backing[e->store]].flags &
				      SP_STORE_BUFFERED))
			fdev_breach("offset %llu for direct I/O in blocks of %u sectors",
			       (unsigned long long)e->off, blk);
		if (rw && !e->off && !strcmp(d->info.format, "qcow2"))
			fdev_breach("W on the header");
		break;
	case SP_JOURNAL:
		if (e->store >= d->nr_stores || e->perm || !e->tid)
			fdev_breach("JOURNAL store %u perm %x", e->store, e->perm);
		break;
	case SP_ZERO:
		if (e->off || e->store || e->perm != SP_PERM_R)
			fdev_breach("ZERO with off %llu store %u perm %x",
			       (unsigned long long)e->off, e->store, e->perm);
		break;
	case SP_EIO:
		if (e->off || e->store || e->perm || e->tid)
			fdev_breach("ERROR with off, store, perm or tid");
		break;
	default:
		fdev_breach("type %u", e->type);
	}
}

/**
 * fmap_apply - one transaction: whole or not at all
 * @d: the device, locked
 * @ext: its extents
 * @nr: how many
 * @clean_only: none may be uncommitted
 *
 * Return: 0; -EEXIST, -ENOMEM: nothing was done.
 */
int fmap_apply(struct fdev *d, const struct sp_extent *ext, unsigned int nr, bool clean_only)
{
	bool uncommitted = false;
	struct sp_extent e;
	unsigned int i, j;

	if (nr > SP_MAX_REPLY)
		fdev_breach("%u extents", nr);
	for (i = 0; i < nr; i++) {
		fmap_check(d, &ext[i], clean_only);
		if (i && ext[i].lba < fmap_end(&ext[i - 1]))
			fdev_breach("extents not rising: %llu+%llu, %llu",
			       (unsigned long long)ext[i - 1].lba,
			       (unsigned long long)ext[i - 1].len,
			       (unsigned long long)ext[i].lba);
		if (!ext[i].tid)
			continue;
		uncommitted = true;
		if (ext[i].flags & SP_EXT_REPLACE)
			continue;
		j = fmap_find(d, ext[i].lba);
		if (j < d->nr && d->ext[j].lba < fmap_end(&ext[i]))
			return -EEXIST;
	}
	if (uncommitted && rng_chance(&d->rng, d->opt.refuse))
		return -ENOMEM;
	for (i = 0; i < nr; i++) {
		e = ext[i];
		if (e.tid > d->max_tid)
			d->max_tid = e.tid;
		fmap_check_shared(d, &e);
		if (fmap_has_off(&e))
			e.store = d->store_to_backing[e.store];
		if (e.flags & SP_EXT_REPLACE)
			fmap_carve(d, e.lba, fmap_end(&e));
		e.flags &= ~SP_EXT_REPLACE;
		fmap_fill(d, &e);
	}
	return 0;
}

void fdev_evict(struct fdev *d, unsigned int percent)
{
	unsigned int i;

	pthread_mutex_lock(&d->lock);
	for (i = 0; i < d->nr; i++) {
		if (d->ext[i].tid || !rng_chance(&d->rng, percent))
			continue;
		d->stats.evicted++;
		fmap_remove(d, i--);
	}
	pthread_mutex_unlock(&d->lock);
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

bool fdev_extent(struct fdev *d, uint64_t lba, struct sp_extent *e)
{
	unsigned int i, j;
	bool found;

	pthread_mutex_lock(&d->lock);
	i = fmap_find(d, lba);
	found = i < d->nr && d->ext[i].lba <= lba;
	if (found) {
		*e = d->ext[i];
		for (j = 0; fmap_has_off(e) && j < d->nr_stores; j++) {
			if (d->store_to_backing[j] == d->ext[i].store) {
				e->store = j;
				break;
			}
		}
	}
	pthread_mutex_unlock(&d->lock);
	return found;
}
