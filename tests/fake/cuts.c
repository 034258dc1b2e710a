// SPDX-License-Identifier: GPL-2.0-only
/*
 * cuts.c - see cuts.h.
 *
 * An image after a cut has, for each sector of the file, what the last sync
 * found there or anything that was written there since; each sector by itself.
 * So an image is a choice from a set for each sector, and a claim holds for all
 * images if it holds for every choice of the few sectors that it depends on:
 *
 *	a guest's sector	header, a sector of L1, one of L2, one of data
 *	a refcount		header, a sector of the table, one of a block
 *	references to a cluster	the sum, over the sectors that may name it, of the
 *				most that one value of the sector has
 *
 * What is claimed: no cluster is referenced more often than any of its
 * possible refcounts says; what is marked as the only reference has a count of
 * exactly one; an image that is not marked dirty leaks nothing; nothing lies behind
 * the shortest possible end of the file; and every content that a guest's sector may
 * show through any of these is allowed.
 *
 * Where one sector both names a cluster and leads to its refcount (the refcount
 * table and the block it has just got) its values are gone through one by one.
 * Two sectors of L1 or L2 that exclude each other do not occur.
 *
 * Only what a change touches is decided anew, everything at each sync.
 */
#include "util.h"
#include "cuts.h"
#include "record.h"

#define FILE_MAX	(192u << 20)	/* the pool makes it long */
#define SECTORS		(FILE_MAX / 512)
#define MAX_TARGETS	12
#define MAX_VALUES	256

#define L1_OFFSET	0x00fffffffffffe00ull
#define COPIED		(1ull << 63)
#define COMPRESSED	(1ull << 62)

/* Values are numbers: below 256 a sector full of that byte, else a blob. */
struct values {
	uint32_t last, nr_old, room;
	uint32_t *old;
	bool listed;
};

struct geometry {
	unsigned int cbits, version, rorder;
	bool clean;		/* it says so: nothing may be leaked */
	uint64_t l1_off, l1_size, rt_off, rt_clusters;
};

/* Host clusters that a guest cluster may be in. */
struct targets {
	unsigned int nr;
	uint32_t hc[MAX_TARGETS];
	bool more;
};

struct cuts {
	struct values *sec;
	uint32_t *listed, nr_listed;		/* with more than one value */
	uint8_t (*blob)[512];
	uint32_t nr_blobs, room_blobs;
	uint32_t *hash, hash_size;
	uint64_t size_last, size_min, size_max;	/* of the file */
	struct allowed *allowed;

	struct geometry g;			/* of the header that is looked at */
	uint64_t nr_hc;
	uint16_t *refs, *rt_refs;		/* for each host cluster */
	uint16_t *count, *best;			/* scratch */
	uint32_t *seen, nr_seen;
	uint8_t *flags;
	struct targets *target;			/* for each guest cluster */
	uint64_t nr_gc;

	unsigned int place, leaks;
	char *why;
	size_t why_len;
};

enum { F_COPIED = 1, F_SHARED = 2, F_META = 4 };

static uint8_t uniform[256][512];

__attribute__((format(printf, 2, 3)))
static bool wrong(struct cuts *c, const char *fmt, ...)
{
	int n = snprintf(c->why, c->why_len, "cut at %u of %u: ", c->place, rec.nr);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(c->why + n, c->why_len - n, fmt, ap);
	va_end(ap);
	return false;
}

/* ---- values of sectors ---- */

static const uint8_t *bytes_of(const struct cuts *c, uint32_t id)
{
	return id < 256 ? uniform[id] : c->blob[id - 256];
}

static uint64_t be64(const uint8_t *p)
{
	uint64_t v = 0;
	int i;

	for (i = 0; i < 8; i++)
		v = v << 8 | p[i];
	return v;
}

static uint32_t hash_of(const uint8_t *data)
{
	uint64_t h = 1469598103934665603ull, v;
	int i;

	for (i = 0; i < 512; i += 8) {
		memcpy(&v, data + i, 8);
		h = (h ^ v) * 1099511628211ull;
		h ^= h >> 29;
	}
	return h;
}

static void rehash(struct cuts *c)
{
	uint32_t i, at;

	c->hash_size = c->hash_size ? 4 * c->hash_size : 4096;
	free(c->hash);
	c->hash = calloc(c->hash_size, sizeof(*c->hash));
	for (i = 0; i < c->nr_blobs; i++) {
		at = hash_of(c->blob[i]) % c->hash_size;
		while (c->hash[at])
			at = (at + 1) % c->hash_size;
		c->hash[at] = i + 1;
	}
}

/* The number of a content. */
static uint32_t number(struct cuts *c, const uint8_t *data)
{
	uint32_t at;

	if (!memcmp(data, data + 1, 511))
		return data[0];
	if (2 * c->nr_blobs >= c->hash_size)
		rehash(c);
	for (at = hash_of(data) % c->hash_size; c->hash[at]; at = (at + 1) % c->hash_size)
		if (!memcmp(c->blob[c->hash[at] - 1], data, 512))
			return c->hash[at] - 1 + 256;
	if (c->nr_blobs == c->room_blobs) {
		c->room_blobs = c->room_blobs ? 2 * c->room_blobs : 1024;
		c->blob = realloc(c->blob, c->room_blobs * sizeof(*c->blob));
	}
	memcpy(c->blob[c->nr_blobs], data, 512);
	c->hash[at] = ++c->nr_blobs;
	return c->nr_blobs - 1 + 256;
}

static uint32_t nr_values(const struct values *v)
{
	return v->nr_old + 1;
}

static uint32_t value(const struct values *v, uint32_t i)
{
	return i < v->nr_old ? v->old[i] : v->last;
}

static void add_value(struct cuts *c, uint64_t s, uint32_t id)
{
	struct values *v = &c->sec[s];
	uint32_t i, kept = 0;

	if (v->last == id)
		return;
	/* What comes back is not an old value any more. */
	for (i = 0; i < v->nr_old; i++)
		if (v->old[i] != id)
			v->old[kept++] = v->old[i];
	v->nr_old = kept;
	if (v->nr_old == v->room) {
		v->room = v->room ? 2 * v->room : 2;
		v->old = realloc(v->old, v->room * sizeof(*v->old));
	}
	v->old[v->nr_old++] = v->last;
	v->last = id;
	if (!v->listed) {
		v->listed = true;
		c->listed[c->nr_listed++] = s;
	}
}

static void all_durable(struct cuts *c)
{
	while (c->nr_listed) {
		struct values *v = &c->sec[c->listed[--c->nr_listed]];

		v->nr_old = 0;
		v->listed = false;
	}
	c->size_min = c->size_last;
}

static void set_size(struct cuts *c, uint64_t size)
{
	c->size_last = size;
	if (size < c->size_min)
		c->size_min = size;
	if (size > c->size_max)
		c->size_max = size;
}

static void apply(struct cuts *c, const struct change *ch)
{
	uint64_t off = ch->off, end = ch->off + ch->len, part;
	uint8_t now[512];

	if (ch->op == SP_IO_SYNC) {
		all_durable(c);
		return;
	}
	if (ch->op == SP_IO_TRUNCATE) {
		end = c->size_last > off ? c->size_last : off;
		set_size(c, off);
	} else if (ch->op != SP_IO_PUNCH && end > c->size_last) {
		set_size(c, end);
	}
	if (end > FILE_MAX)
		abort();
	for (; off < end; off += part) {
		part = 512 - off % 512;
		if (part > end - off)
			part = end - off;
		if (ch->op != SP_IO_WRITE && !c->sec[off / 512].last)
			continue;
		memcpy(now, bytes_of(c, c->sec[off / 512].last), 512);
		if (ch->op == SP_IO_WRITE)
			memcpy(now + off % 512, ch->data + (off - ch->off), part);
		else
			memset(now + off % 512, 0, part);
		add_value(c, off / 512, number(c, now));
	}
}

/* ---- references ---- */

static void see(struct cuts *c, uint64_t hc)
{
	if (!c->count[hc]++)
		c->seen[c->nr_seen++] = hc;
}

/* Is this a place for a cluster?  It has to be, for every table there may be. */
static bool sound(struct cuts *c, uint64_t off, const char *what)
{
	if (off & ((1ull << c->g.cbits) - 1))
		return wrong(c, "%s at %llx, which is not a cluster", what,
			     (unsigned long long)off);
	if (off >= c->size_min)
		return wrong(c, "%s at %llx, the file may end at %llx", what,
			     (unsigned long long)off, (unsigned long long)c->size_min);
	return true;
}

enum table { T_L1, T_L2, T_RT };

/* What one entry names. */
static bool see_entry(struct cuts *c, enum table t, uint64_t e)
{
	uint64_t off = t == T_RT ? e & ~511ull : e & L1_OFFSET, end, hc;
	unsigned int shift;

	if (t == T_L2 && e & COMPRESSED) {
		shift = 62 - (c->g.cbits - 8);
		off = e & ((1ull << shift) - 1);
		end = (off & ~511ull) + ((e & ~COMPRESSED & ~COPIED) >> shift) * 512 + 512;
		if (off >= c->size_min)
			return wrong(c, "compressed data at %llx, the file may end at %llx",
				     (unsigned long long)off, (unsigned long long)c->size_min);
		if (e & COPIED)
			return wrong(c, "COPIED on a compressed cluster");
		for (hc = off >> c->g.cbits; hc << c->g.cbits < end && hc < c->nr_hc; hc++) {
			see(c, hc);
			c->flags[hc] |= F_SHARED;
		}
		return true;
	}
	if (!off)
		return true;
	if (!sound(c, off, t == T_L1 ? "an L2 table" : t == T_RT ? "a refcount block" :
		   "a guest's cluster"))
		return false;
	hc = off >> c->g.cbits;
	see(c, hc);
	if (t != T_L2)
		c->flags[hc] |= F_META;
	if (t != T_RT && !(e & COPIED))
		return wrong(c, "a cluster at %llx is not COPIED", (unsigned long long)off);
	if (t != T_RT)
		c->flags[hc] |= F_COPIED;
	return true;
}

/* The most that any value of a sector names, into refs. */
static bool see_sector(struct cuts *c, enum table t, uint64_t s, unsigned int nr,
		       uint16_t *refs)
{
	const struct values *v = &c->sec[s];
	uint32_t i, k, best_nr = 0;
	bool ok = true;

	if (!v->nr_old && !v->last)
		return true;
	c->nr_seen = 0;
	for (i = 0; ok && i < nr_values(v); i++) {
		const uint8_t *b = bytes_of(c, value(v, i));

		/* seen[0, best_nr): what values before this one have named */
		for (k = 0; ok && k < nr; k++) {
			uint64_t e = be64(b + 8 * k);

			ok = !e || see_entry(c, t, e);
		}
		for (k = 0; k < c->nr_seen; k++) {
			uint32_t hc = c->seen[k];

			if (c->count[hc] > c->best[hc])
				c->best[hc] = c->count[hc];
			c->count[hc] = 0;
		}
		best_nr = c->nr_seen;
	}
	for (k = 0; k < best_nr; k++) {
		refs[c->seen[k]] += c->best[c->seen[k]];
		c->best[c->seen[k]] = 0;
	}
	return ok;
}

static bool see_table(struct cuts *c, enum table t, uint64_t off, uint64_t nr, uint16_t *refs)
{
	uint64_t i;

	for (i = 0; i < nr; i += 64)
		if (!see_sector(c, t, off / 512 + i / 64, nr - i < 64 ? nr - i : 64, refs))
			return false;
	return true;
}

/* The possible values of one entry, each once. */
static unsigned int entries_at(const struct cuts *c, uint64_t off, uint64_t *out)
{
	const struct values *v = &c->sec[off / 512];
	unsigned int n = 0, i, k;

	for (i = 0; i < nr_values(v) && n < MAX_VALUES; i++) {
		uint64_t e = be64(bytes_of(c, value(v, i)) + off % 512);

		for (k = 0; k < n && out[k] != e; k++)
			;
		if (k == n)
			out[n++] = e;
	}
	return n;
}

static bool see_all(struct cuts *c)
{
	const struct geometry *g = &c->g;
	uint64_t l2_nr = 1ull << (g->cbits - 3), i, tables[MAX_VALUES];
	unsigned int n, k;

	memset(c->refs, 0, c->nr_hc * sizeof(*c->refs));
	memset(c->rt_refs, 0, c->nr_hc * sizeof(*c->rt_refs));
	memset(c->flags, 0, c->nr_hc);
	c->refs[0]++;
	c->flags[0] = F_META;
	for (i = 0; i < g->l1_size * 8; i += 1ull << g->cbits) {
		c->refs[(g->l1_off + i) >> g->cbits]++;
		c->flags[(g->l1_off + i) >> g->cbits] |= F_META;
	}
	for (i = 0; i < g->rt_clusters; i++) {
		c->refs[(g->rt_off >> g->cbits) + i]++;
		c->flags[(g->rt_off >> g->cbits) + i] |= F_META;
	}
	if (!see_table(c, T_L1, g->l1_off, g->l1_size, c->refs) ||
	    !see_table(c, T_RT, g->rt_off, g->rt_clusters << (g->cbits - 3), c->rt_refs))
		return false;
	for (i = 0; i < g->l1_size; i++) {
		n = entries_at(c, g->l1_off + 8 * i, tables);
		for (k = 0; k < n; k++)
			if (tables[k] & L1_OFFSET &&
			    !see_table(c, T_L2, tables[k] & L1_OFFSET, l2_nr, c->refs))
				return false;
	}
	return true;
}

/* ---- refcounts ---- */

static uint64_t get_count(const struct cuts *c, const uint8_t *b, uint64_t bit)
{
	unsigned int bits = 1u << c->g.rorder, i;
	uint64_t v = 0;

	if (bits < 8)
		return b[bit / 8] >> (bit % 8) & ((1u << bits) - 1);
	for (i = 0; i < bits / 8; i++)
		v = v << 8 | b[bit / 8 + i];
	return v;
}

/* Lowest and highest count that a block may have for a cluster. */
static void counts(const struct cuts *c, uint64_t block, uint64_t hc, uint64_t *lo, uint64_t *hi)
{
	uint64_t per = 8ull << c->g.cbits >> c->g.rorder;
	uint64_t bit = (hc % per) << c->g.rorder;
	const struct values *v = &c->sec[block / 512 + bit / 4096];
	uint32_t i;

	*lo = UINT64_MAX;
	*hi = 0;
	for (i = 0; i < nr_values(v); i++) {
		uint64_t n = get_count(c, bytes_of(c, value(v, i)), bit % 4096);

		*lo = n < *lo ? n : *lo;
		*hi = n > *hi ? n : *hi;
	}
}

/* How often a value of a sector of the refcount table names hc. */
static unsigned int named(const struct cuts *c, uint32_t id, uint64_t hc)
{
	const uint8_t *b = bytes_of(c, id);
	unsigned int i, n = 0;

	for (i = 0; i < 64; i++)
		n += (be64(b + 8 * i) & ~511ull) == hc << c->g.cbits;
	return n;
}

static bool check_count(struct cuts *c, uint64_t hc, unsigned int *leaks)
{
	uint64_t per = 8ull << c->g.cbits >> c->g.rorder, bi = hc / per, lo, hi = 0, block;
	const struct values *v = &c->sec[c->g.rt_off / 512 + bi / 64];
	unsigned int others = c->rt_refs[hc], own = 0, refs;
	bool leaked = false;
	uint32_t i;

	if (bi >= c->g.rt_clusters << (c->g.cbits - 3))
		return !c->refs[hc] && !others ? true :
		       wrong(c, "cluster %llu has no place in the refcount table",
			     (unsigned long long)hc);
	for (i = 0; others && i < nr_values(v); i++) {
		unsigned int n = named(c, value(v, i), hc);

		own = n > own ? n : own;
	}
	others -= own;
	for (i = 0; i < nr_values(v); i++) {
		block = be64(bytes_of(c, value(v, i)) + bi % 64 * 8) & ~511ull;
		lo = hi = 0;
		if (block)
			counts(c, block, hc, &lo, &hi);
		refs = c->refs[hc] + others + (own ? named(c, value(v, i), hc) : 0);
		if (refs > lo)
			return wrong(c, "cluster %llu: %u references, count %llu",
				     (unsigned long long)hc, refs, (unsigned long long)lo);
		if (c->flags[hc] & F_COPIED && (lo != 1 || hi != 1))
			return wrong(c, "cluster %llu is COPIED, its count %llu to %llu",
				     (unsigned long long)hc, (unsigned long long)lo,
				     (unsigned long long)hi);
		leaked |= !refs && hi;
	}
	*leaks += leaked;
	return true;
}

static bool check_counts(struct cuts *c, bool leaks_too)
{
	unsigned int leaks = 0;
	uint64_t hc;

	for (hc = 0; hc < c->nr_hc; hc++)
		if ((leaks_too || c->refs[hc] || c->rt_refs[hc]) && !check_count(c, hc, &leaks))
			return false;
	if (leaks_too && leaks > c->leaks)
		c->leaks = leaks;
	return !leaks || !c->g.clean ? true :
	       wrong(c, "%u clusters leak, and the header says that it is clean", leaks);
}

/* ---- what the guest may see ---- */

static bool may_be(struct cuts *c, uint64_t lba, uint32_t id, const char *how)
{
	if (id < 256 && allowed_has(c->allowed, lba, id))
		return true;
	return wrong(c, "sector %llu may be %s%02x, %s", (unsigned long long)lba,
		     id < 256 ? "" : "a mix that begins with ", bytes_of(c, id)[0], how);
}

static void add_target(struct targets *t, uint64_t hc)
{
	unsigned int i;

	for (i = 0; i < t->nr; i++)
		if (t->hc[i] == hc)
			return;
	if (t->nr == MAX_TARGETS)
		t->more = true;
	else
		t->hc[t->nr++] = hc;
}

/* Compressed data never changes where it is named. */
static bool check_packed(struct cuts *c, uint64_t gc, uint64_t e)
{
	unsigned int shift = 62 - (c->g.cbits - 8);
	uint64_t off = e & ((1ull << shift) - 1), s, end;

	end = off / 512 + ((e & ~COMPRESSED) >> shift) + 1;
	for (s = off / 512; s < end && s < SECTORS; s++) {
		const uint8_t *b = bytes_of(c, c->sec[s].last);
		/* Its last sector may be shared with what follows it. */
		uint64_t from = s == off / 512 ? off % 512 : 0, n = 512 - from;

		add_target(&c->target[gc], s * 512 >> c->g.cbits);
		if (s * 512 >= rec.base_len)
			break;
		if (rec.base_len - s * 512 < 512)
			n = rec.base_len - s * 512 - from;
		if (c->sec[s].nr_old || memcmp(b + from, rec.base + s * 512 + from, n))
			return wrong(c, "compressed data of cluster %llu may have changed",
				     (unsigned long long)gc);
	}
	return true;
}

static bool check_entry(struct cuts *c, uint64_t gc, uint64_t e)
{
	uint64_t per = 1ull << (c->g.cbits - 9), lba = gc * per, off = e & L1_OFFSET, s;
	bool zero = c->g.version >= 3 && e & 1;
	uint32_t i;

	if (e & COMPRESSED && !check_packed(c, gc, e))
		return false;
	if (!(e & COMPRESSED) && off)
		add_target(&c->target[gc], off >> c->g.cbits);
	for (s = 0; s < per && lba + s < rec.size; s++) {
		const struct values *v = &c->sec[off / 512 + s];

		if (e & COMPRESSED) {
			if (!may_be(c, lba + s, rec.initial[lba + s], "compressed"))
				return false;
		} else if (zero) {
			if (!may_be(c, lba + s, 0, "an entry of zeros"))
				return false;
		} else if (!off) {
			if (!may_be(c, lba + s, rec.below[lba + s], "no entry"))
				return false;
		}
		for (i = 0; !(e & COMPRESSED) && !zero && off && i < nr_values(v); i++)
			if (!may_be(c, lba + s, value(v, i), "in its cluster"))
				return false;
	}
	return true;
}

static bool check_guest(struct cuts *c, uint64_t gc)
{
	unsigned int l2_bits = c->g.cbits - 3, n, m, i, k;
	uint64_t tables[MAX_VALUES], entries[MAX_VALUES], table;

	c->target[gc].nr = 0;
	c->target[gc].more = false;
	n = entries_at(c, c->g.l1_off + 8 * (gc >> l2_bits), tables);
	for (i = 0; i < n; i++) {
		table = tables[i] & L1_OFFSET;
		entries[0] = 0;
		m = table ? entries_at(c, table + 8 * (gc & ((1u << l2_bits) - 1)), entries) : 1;
		for (k = 0; k < m; k++)
			if (!check_entry(c, gc, entries[k]))
				return false;
	}
	return true;
}

/* ---- images ---- */

static bool parse(struct cuts *c, const uint8_t *h, struct geometry *g)
{
	*g = (struct geometry) {
		.version = h[7], .cbits = h[23], .rorder = h[7] >= 3 ? h[99] : 4,
		.clean = h[7] >= 3 && !(h[79] & 1),
		.l1_size = be64(h + 32) & UINT32_MAX, .l1_off = be64(h + 40),
		.rt_off = be64(h + 48), .rt_clusters = be64(h + 56) >> 32,
	};
	if (memcmp(h, "QFI\xfb", 4) || g->cbits < 9 || g->cbits > 21 || g->rorder > 6)
		return wrong(c, "this is no header");
	return sound(c, g->l1_off, "L1") && sound(c, g->rt_off, "the refcount table");
}

static bool check_header(struct cuts *c, bool leaks_too)
{
	uint64_t gc;

	c->nr_hc = (c->size_max + (1ull << c->g.cbits) - 1) >> c->g.cbits;
	c->nr_gc = (rec.size + (1ull << (c->g.cbits - 9)) - 1) >> (c->g.cbits - 9);
	if (!c->target)
		c->target = calloc(c->nr_gc, sizeof(*c->target));
	if (!see_all(c) || !check_counts(c, leaks_too))
		return false;
	for (gc = 0; gc < c->nr_gc; gc++)
		if (!check_guest(c, gc))
			return false;
	return true;
}

static bool check_all(struct cuts *c, bool leaks_too)
{
	struct geometry done = { 0 }, g;
	uint32_t i;

	for (i = nr_values(&c->sec[0]); i--;) {
		if (!parse(c, bytes_of(c, value(&c->sec[0], i)), &g))
			return false;
		if (!memcmp(&g, &done, sizeof(g)))
			continue;
		c->g = done = g;
		if (!check_header(c, leaks_too))
			return false;
	}
	return true;
}

/* A change of the clusters [lo, hi] only: data, or does it need more? */
static bool check_change(struct cuts *c, uint64_t lo, uint64_t hi)
{
	uint64_t hc, gc;
	unsigned int i;

	for (hc = lo; hc <= hi && hc < c->nr_hc; hc++)
		if (c->flags[hc] & F_META)
			return check_all(c, false);
	for (gc = 0; gc < c->nr_gc; gc++) {
		const struct targets *t = &c->target[gc];

		for (i = 0; i < t->nr && (t->hc[i] < lo || t->hc[i] > hi); i++)
			;
		if ((t->more || i < t->nr) && !check_guest(c, gc))
			return false;
	}
	return true;
}

static bool check_place(struct cuts *c, const struct change *ch)
{
	bool less = allowed_to(c->allowed, c->place);

	if (less || !ch || ch->op == SP_IO_TRUNCATE || c->sec[0].nr_old > 0)
		return check_all(c, false);
	if (ch->op == SP_IO_SYNC || !ch->len)
		return true;
	return check_change(c, ch->off >> c->g.cbits, (ch->off + ch->len - 1) >> c->g.cbits);
}

static struct cuts *start(char *why, size_t len)
{
	struct cuts *c = calloc(1, sizeof(*c));
	uint8_t part[512];
	uint64_t s, n;

	c->why = why;
	c->why_len = len;
	c->sec = calloc(SECTORS, sizeof(*c->sec));
	c->listed = calloc(SECTORS, sizeof(*c->listed));
	c->refs = calloc(SECTORS, sizeof(*c->refs));
	c->rt_refs = calloc(SECTORS, sizeof(*c->rt_refs));
	c->count = calloc(SECTORS, sizeof(*c->count));
	c->best = calloc(SECTORS, sizeof(*c->best));
	c->seen = calloc(SECTORS, sizeof(*c->seen));
	c->flags = calloc(SECTORS, 1);
	c->allowed = allowed_new();
	c->size_last = c->size_min = c->size_max = rec.base_len;
	for (s = 0; s < 256; s++)
		memset(uniform[s], s, 512);
	for (s = 0; s * 512 < rec.base_len; s++) {
		n = rec.base_len - s * 512 < 512 ? rec.base_len - s * 512 : 512;
		memset(part, 0, 512);
		memcpy(part, rec.base + s * 512, n);
		c->sec[s].last = number(c, part);
	}
	return c;
}

static void end(struct cuts *c)
{
	uint64_t s;

	for (s = 0; s < SECTORS; s++)
		free(c->sec[s].old);
	allowed_free(c->allowed);
	free(c->sec);
	free(c->listed);
	free(c->blob);
	free(c->hash);
	free(c->refs);
	free(c->rt_refs);
	free(c->count);
	free(c->best);
	free(c->seen);
	free(c->flags);
	free(c->target);
	free(c);
}

bool cuts_decide(struct cuts_sum *sum, char *why, size_t len)
{
	struct cuts *c = start(why, len);
	bool ok = check_place(c, NULL);
	uint32_t i;

	for (; ok && c->place < rec.nr; sum->places++) {
		const struct change *ch = &rec.log[c->place];

		/* Just before a sync there is the most to choose from. */
		if (ch->op == SP_IO_SYNC) {
			if (c->nr_listed > sum->open_sectors)
				sum->open_sectors = c->nr_listed;
			for (i = 0; i < c->nr_listed; i++)
				if (nr_values(&c->sec[c->listed[i]]) > sum->most_values)
					sum->most_values = nr_values(&c->sec[c->listed[i]]);
			ok = check_all(c, true);
		}
		if (!ok)
			break;
		apply(c, ch);
		c->place++;
		ok = check_place(c, ch);
	}
	ok = ok && check_all(c, true);
	if (!ok && getenv("V"))
		rec_print(c->place, strtoul(getenv("V"), NULL, 0));
	sum->places += ok;
	sum->recordings++;
	sum->leaks += c->leaks;
	if (c->leaks > sum->most_leaks)
		sum->most_leaks = c->leaks;
	end(c);
	return ok;
}
