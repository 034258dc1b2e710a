// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * cache.c - a file in memory for what the kernel cannot read by itself:
 * decompressed clusters, and blocks that data and zeros share.
 *
 * A slot holds a stretch of the disk, aligned to its own size, as far as its
 * bitmap says.  What is in it stays right for good: content of layer 0 that is
 * compressed can only be replaced by content that is not, and the layers below
 * don't change.  So whoever resolves a sector to "compressed" and finds it here may
 * map it.
 *
 * Slots are given back by the group.  A group's life:
 *
 *	USABLE --invalidate--> LEAVING --acked--> USABLE, empty
 *	                          `----refused--> STALE
 *
 * STALE is also what a cache that was taken over begins with: the kernel may
 * have extents that point anywhere into it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "internal.h"
#include "lock.h"
#include "qcow2/qcow2.h"

#define DEFAULT_BYTES	(64ull << 20)
#define MAX_BYTES	(1ull << 40)
#define GROUPS		16
#define MAX_PARTS	64
#define FENCE_MS	30000

enum group_state { USABLE, LEAVING, STALE };

struct slot {
	uint64_t key;			/* lba >> shift */
	bool used;
	bool busy;			/* being filled */
	struct slot *next;		/* in its bucket, or free */
	uint8_t *have;			/* a bit for each sector */
};

struct cache {
	struct sp_file file;
	unsigned int shift;		/* log2 of a slot's sectors */
	unsigned int per_group, nr;
	struct slot *slot;
	struct slot **bucket;		/* nr of them */
	uint8_t *bits;
	struct slot *free;		/* of usable groups */
	unsigned int nr_free;
	struct {
		enum group_state state;
		bool hit;
	} group[GROUPS];
	unsigned int hand;
};

static unsigned int number(const struct cache *c, const struct slot *s)
{
	return s - c->slot;
}

static uint64_t slot_off(const struct cache *c, const struct slot *s)
{
	return (uint64_t)number(c, s) << c->shift;
}

static struct slot *find(const struct cache *c, uint64_t key)
{
	struct slot *s = c->bucket[key % c->nr];

	while (s && s->key != key)
		s = s->next;
	return s;
}

static void unhash(struct cache *c, struct slot *s)
{
	struct slot **at = &c->bucket[s->key % c->nr];

	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
}

static void put_free(struct cache *c, struct slot *s)
{
	s->used = false;
	s->next = c->free;
	c->free = s;
	c->nr_free++;
}

/*
 * How many slots?  Enough for all of what is there: the kernel may have extents
 * that point anywhere into it, and each group has to be in our reach for it to
 * be told to forget them.
 */
static int size_up(struct cache *c, uint64_t bytes, uint64_t there, struct sp_err *err)
{
	uint64_t group = (uint64_t)GROUPS << (c->shift + SP_SECTOR_SHIFT);

	if (!bytes)
		bytes = DEFAULT_BYTES;
	if (bytes > MAX_BYTES)
		bytes = MAX_BYTES;
	if (there > MAX_BYTES)
		return sp_fail(err, -EINVAL, "cache: its %llu bytes are not what a mapper made; delete and add the device",
			       (unsigned long long)there);
	c->per_group = bytes / group;
	if (c->per_group < (there + group - 1) / group)
		c->per_group = (there + group - 1) / group;
	if (!c->per_group)
		c->per_group = 1;
	c->nr = c->per_group * GROUPS;
	return 0;
}

/*
 * Behind the fence, as a mapper that was overtaken while it started would set a
 * size that is not right any more.
 */
static int set_size(struct cache *c, uint64_t bytes, struct sp_err *err)
{
	uint64_t there, size;
	int rc = sp_file_size(&c->file, &there);

	if (!rc)
		rc = size_up(c, bytes, there, err);
	if (rc)
		return rc;
	size = (uint64_t)c->nr << (c->shift + SP_SECTOR_SHIFT);
	return size > there ? sp_file_truncate(&c->file, size) : 0;
}

/*
 * The fence of one that is new is nobody else's: it is for the mapper after us, which
 * has to wait for what our workers are still about to bring here.
 */
static int open_memory(struct cache *c, uint64_t bytes, int fd, struct sp_err *err)
{
	int made = -1, rc;

	if (fd < 0) {
		made = memfd_create("ubdmap-cache", MFD_CLOEXEC);
		if (made < 0)
			return sp_fail(err, -errno, "cache: %s", strerror(errno));
	}
	rc = sp_file_open(&c->file, "(cache)", made < 0 ? fd : made, true, err);
	if (made >= 0)
		close(made);
	if (!rc)
		rc = sp_file_set_buffered(&c->file);
	if (!rc)
		rc = sp_lock_fence(&c->file, FENCE_MS, err);
	if (!rc)
		rc = set_size(c, bytes, err);
	return rc ? sp_fail(err, rc, "cache: %s", strerror(-rc)) : 0;
}

/**
 * cache_open - make a cache
 * @img: the image, its layers are known
 * @bytes: its size, 0: the default; what is taken over never becomes smaller
 * @slot_shift: log2 of a slot's bytes, at least the largest cluster's
 * @fd: < 0; else the cache of the mapper before us
 * @err: message
 *
 * Return: 0 or -errno; cache_close() in any case.
 */
int cache_open(struct sp_image *img, uint64_t bytes, unsigned int slot_shift, int fd,
	       struct sp_err *err)
{
	struct cache *c = calloc(1, sizeof(*c));
	size_t map_bytes;
	int rc;

	if (!c)
		return sp_fail(err, -ENOMEM, "out of memory");
	img->cache = c;
	c->file.fd_l = -1;
	c->file.fd_m = -1;
	c->shift = slot_shift - SP_SECTOR_SHIFT;
	rc = open_memory(c, bytes, fd, err);
	if (rc)
		return rc;
	map_bytes = (1u << c->shift) / 8;
	c->slot = calloc(c->nr, sizeof(*c->slot));
	c->bucket = calloc(c->nr, sizeof(*c->bucket));
	c->bits = calloc(c->nr, map_bytes);
	if (!c->slot || !c->bucket || !c->bits)
		return sp_fail(err, -ENOMEM, "out of memory");
	for (unsigned int i = c->nr; i--;) {
		c->slot[i].have = c->bits + i * map_bytes;
		if (fd < 0)
			put_free(c, &c->slot[i]);
	}
	for (unsigned int g = 0; g < GROUPS; g++)
		c->group[g].state = fd < 0 ? USABLE : STALE;
	img->stores[img->nr_stores++] = (struct sp_store){
		.fd = c->file.fd_l,
		.flags = SP_STORE_CACHE | SP_STORE_BUFFERED,
		.path = c->file.path,
	};
	return 0;
}

/**
 * cache_close - free it
 * @img: the image; may have none
 */
void cache_close(struct sp_image *img)
{
	struct cache *c = img->cache;

	if (!c)
		return;
	sp_file_close(&c->file);
	free(c->slot);
	free(c->bucket);
	free(c->bits);
	free(c);
	img->cache = NULL;
}

/* The first sector of a slot in [at, end) that is not there, or end. */
static uint64_t have_from(const struct slot *s, uint64_t at, uint64_t end)
{
	while (at < end) {
		if (at % 8 == 0 && at + 8 <= end && s->have[at / 8] == 0xff)
			at += 8;
		else if (s->have[at / 8] & 1 << at % 8)
			at++;
		else
			break;
	}
	return at;
}

/**
 * cache_find - is it there?
 * @img: the image
 * @lba: first sector
 * @len: sectors; on success how many of them are there
 * @off: on success: sector in the cache's store
 *
 * Context: the lock.
 */
bool cache_find(struct sp_image *img, uint64_t lba, uint64_t *len, uint64_t *off)
{
	struct cache *c = img->cache;
	uint64_t mask, at, n;
	struct slot *s;

	if (!c)
		return false;
	mask = (1ull << c->shift) - 1;
	s = find(c, lba >> c->shift);
	if (!s)
		return false;
	at = lba & mask;
	n = have_from(s, at, *len < mask + 1 - at ? at + *len : mask + 1) - at;
	if (!n)
		return false;
	*len = n;
	*off = slot_off(c, s) + (lba & mask);
	c->group[number(c, s) / c->per_group].hit = true;
	return true;
}

/* Ask the kernel to forget a group; its slots are nobody's until it has. */
static void leave(struct sp_image *img, unsigned int g)
{
	struct cache *c = img->cache;
	uint64_t sectors = (uint64_t)c->per_group << c->shift;

	for (unsigned int i = 0; i < c->per_group; i++) {
		struct slot *s = &c->slot[g * c->per_group + i];

		if (s->used)
			unhash(c, s);
		s->used = false;
	}
	c->group[g].state = LEAVING;
	img->opt.ops->invalidate(img->opt.ctx, img->nr_layers, g * sectors, sectors,
				 TOKEN_CACHE | g);
}

static bool may_leave(const struct cache *c, unsigned int g)
{
	bool full = true;

	if (c->group[g].state == STALE)
		return true;
	if (c->group[g].state == LEAVING)
		return false;
	for (unsigned int i = 0; i < c->per_group; i++) {
		const struct slot *s = &c->slot[g * c->per_group + i];

		if (s->busy)
			return false;
		full &= s->used;
	}
	return full;
}

/* Keep about a group's worth free, ahead of need. */
static void make_room(struct sp_image *img)
{
	struct cache *c = img->cache;

	for (unsigned int g = 0; g < GROUPS; g++)
		if (c->group[g].state == LEAVING)
			return;
	for (int n = 0; n < 2 * GROUPS; n++) {
		unsigned int g = c->hand;

		c->hand = (g + 1) % GROUPS;
		if (!may_leave(c, g))
			continue;
		if (c->group[g].hit && c->group[g].state == USABLE) {
			c->group[g].hit = false;
			continue;
		}
		leave(img, g);
		return;
	}
}

/**
 * cache_acked - an invalidation is through
 * @img: the image
 * @token: perhaps the cache's
 * @res: 0: the kernel has forgotten and drained
 *
 * Return: whether it was one of the cache's.
 */
bool cache_acked(struct sp_image *img, uint64_t token, int res)
{
	unsigned int g = token & ~TOKEN_CACHE;
	struct cache *c = img->cache;

	if (!(token & TOKEN_CACHE))
		return false;
	if (!c || g >= GROUPS || c->group[g].state != LEAVING)
		return true;
	c->group[g].state = res ? STALE : USABLE;
	for (unsigned int i = 0; !res && i < c->per_group; i++)
		put_free(c, &c->slot[g * c->per_group + i]);
	return true;
}

static struct slot *get_slot(struct sp_image *img, uint64_t key)
{
	struct cache *c = img->cache;
	struct slot *s = find(c, key);

	if (s)
		return s;
	if (c->nr_free <= c->per_group)
		make_room(img);
	s = c->free;
	if (!s)
		return NULL;
	c->free = s->next;
	c->nr_free--;
	s->key = key;
	s->used = true;
	s->busy = false;
	memset(s->have, 0, (1u << c->shift) / 8);
	s->next = c->bucket[key % c->nr];
	c->bucket[key % c->nr] = s;
	return s;
}

struct part {
	uint64_t lba, len;
};

/* What is needed of the cluster that m is in, within [lba, end). */
static unsigned int find_parts(struct sp_image *img, const struct mapping *m,
			       uint64_t lba, uint64_t end, struct part *part,
			       unsigned int max)
{
	unsigned int nr = 0;
	uint64_t len, off;
	struct mapping other;
	struct need need;

	for (; lba < end && nr < max; lba += len) {
		len = end - lba;
		if (cache_find(img, lba, &len, &off))
			continue;
		if (resolve(img, lba, end - lba, &other, &need))
			break;
		len = other.len;
		if (other.kind != m->kind || other.layer != m->layer || other.dirty ||
		    other.desc != m->desc)
			continue;
		part[nr++] = (struct part){ lba, len };
	}
	return nr;
}

static int write_parts(struct cache *c, const struct slot *s, const struct part *part,
		       unsigned int nr, const uint8_t *buf, uint64_t buf_lba)
{
	uint64_t mask = (1ull << c->shift) - 1;
	int rc = 0;

	for (unsigned int i = 0; !rc && i < nr; i++)
		rc = sp_file_pwrite(&c->file,
				    buf + ((part[i].lba - buf_lba) << SP_SECTOR_SHIFT),
				    part[i].len << SP_SECTOR_SHIFT,
				    (slot_off(c, s) + (part[i].lba & mask)) << SP_SECTOR_SHIFT);
	return rc;
}

/* Those parts that are still what they were are there now. */
static void publish_parts(struct sp_image *img, struct slot *s, const struct mapping *m,
			  const struct part *part, unsigned int nr)
{
	uint64_t mask = (1ull << img->cache->shift) - 1;
	struct mapping now;
	struct need need;

	for (unsigned int i = 0; i < nr; i++) {
		if (resolve(img, part[i].lba, part[i].len, &now, &need) ||
		    now.kind != m->kind || now.layer != m->layer || now.desc != m->desc ||
		    now.dirty || now.len != part[i].len)
			continue;
		for (uint64_t at = part[i].lba & mask, n = 0; n < now.len; n++, at++)
			s->have[at / 8] |= 1 << at % 8;
	}
}

static int make(struct sp_image *img, const struct mapping *m, uint64_t lba, uint8_t *buf)
{
	int rc;

	if (m->kind == MAP_MIXED)
		return chain_read(img, lba, m->len, buf);
	img->stats.decompressions++;
	pthread_mutex_unlock(&img->lock);
	rc = q2_decompress(img->layers[m->layer].q, m->desc, buf);
	pthread_mutex_lock(&img->lock);
	return rc;
}

/* The cluster (or mixed block) at lba, as far as the slot goes. */
static int fill_one(struct sp_image *img, struct slot *s, const struct mapping *m,
		    uint64_t lba)
{
	struct cache *c = img->cache;
	uint64_t first = lba - m->skip, begin, end, bytes;
	struct part part[MAX_PARTS];
	unsigned int nr;
	uint8_t *buf;
	int rc;

	bytes = m->kind == MAP_COMP ? img->layers[m->layer].q->cs :
				      m->len << SP_SECTOR_SHIFT;
	begin = s->key << c->shift;
	end = begin + (1ull << c->shift);
	if (begin < first)
		begin = first;
	if (end > first + (bytes >> SP_SECTOR_SHIFT))
		end = first + (bytes >> SP_SECTOR_SHIFT);
	if (end > img->info.size)
		end = img->info.size;
	/* First what was asked for, then, if there is room, what is before. */
	nr = find_parts(img, m, lba, end, part, MAX_PARTS);
	nr += find_parts(img, m, begin, lba, part + nr, MAX_PARTS - nr);
	buf = sp_buf_alloc(bytes);
	if (!buf)
		return -ENOMEM;
	rc = make(img, m, lba, buf);
	if (!rc) {
		pthread_mutex_unlock(&img->lock);
		rc = write_parts(c, s, part, nr, buf, first);
		pthread_mutex_lock(&img->lock);
	}
	sp_buf_free(buf);
	if (!rc)
		publish_parts(img, s, m, part, nr);
	return rc;
}

/* Wait for a group to become free or a slot to be filled. */
static int wait_a_little(struct sp_image *img)
{
	return cond_wait_ms(img, ACK_WAIT_MS);
}

static bool still(struct sp_image *img, const struct mapping *m, uint64_t lba)
{
	struct mapping now;
	struct need need;

	return !resolve(img, lba, m->len, &now, &need) && now.kind == m->kind &&
	       now.layer == m->layer && now.desc == m->desc && !now.dirty;
}

/**
 * cache_piece - bring one cluster, or block, to the cache
 * @img: the image
 * @m: what it is: COMP or MIXED, not dirty
 * @lba: where
 * @len: sectors from there that are dealt with
 *
 * Context: the lock, dropped meanwhile.
 * Return: 1: brought; 0: it was there; -EBUSY: somebody is at it; -ETIME: no slot
 * is free; -EIO, -ENOMEM.
 */
int cache_piece(struct sp_image *img, const struct mapping *m, uint64_t lba,
		uint64_t *len)
{
	struct cache *c = img->cache;
	uint64_t mask = (1ull << c->shift) - 1, off;
	struct slot *s;
	int rc;

	*len = m->len;
	if (cache_find(img, lba, len, &off))
		return 0;
	if (*len > mask + 1 - (lba & mask))
		*len = mask + 1 - (lba & mask);
	s = get_slot(img, lba >> c->shift);
	if (!s)
		return -ETIME;
	if (s->busy)
		return -EBUSY;
	s->busy = true;
	rc = fill_one(img, s, m, lba);
	s->busy = false;
	pthread_cond_broadcast(&img->cond);
	/* Whoever replaced the cluster may have taken its storage from under us. */
	if (rc == -EIO && !still(img, m, lba))
		rc = 0;
	return rc ? rc : 1;
}

/**
 * cache_ahead_max - how much may be brought there before anybody asks
 * @img: the image
 *
 * Return: sectors; so few that nothing that is used has to leave for it all at once.
 */
uint64_t cache_ahead_max(const struct sp_image *img)
{
	return (uint64_t)img->cache->per_group << img->cache->shift;
}

/**
 * cache_fill - bring what is missing to the cache
 * @img: the image
 * @need: where: somebody waits for all of it, above all for its first piece
 *
 * What others are at already is waited for when nothing else is left to do.
 *
 * Context: the lock, dropped meanwhile.
 * Return: 0: look again; -EIO, -ENOMEM; -ETIME: no slot is free.
 */
int cache_fill(struct sp_image *img, const struct need *need)
{
	uint64_t lba = need->lba, end = lba + need->len, len;
	bool busy = false, done = false;
	struct mapping m;
	struct need table;
	int rc;

	for (; lba < end; lba += len) {
		bool first = lba == need->lba;

		rc = resolve(img, lba, end - lba, &m, &table);
		if (rc)
			return first ? chain_load(img, &table) : 0;
		len = m.len;
		if (m.dirty || (m.kind != MAP_COMP && m.kind != MAP_MIXED))
			continue;
		if (first)
			ahead_want(img, lba + len, end, false);
		rc = cache_piece(img, &m, lba, &len);
		busy |= rc == -EBUSY;
		done |= rc == 1;
		if (rc == -ETIME && first)
			return wait_a_little(img);
		if (rc < 0 && rc != -EBUSY)
			return first ? rc : 0;
	}
	if (busy && !done)
		wait_a_little(img);
	return 0;
}
