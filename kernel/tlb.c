// SPDX-License-Identifier: GPL-2.0-only
/*
 * tlb.c - what is done with the device's extents: look up, install, forget,
 * commit, dump, evict.
 *
 * Every change is one transaction (tlb_txn.c).  An extent of a transaction is
 * added in two steps: what must go is cut out of the tree, then the extent is
 * put in the hole and grown together with neighbours that continue it.
 *
 * A committed JOURNAL extent has done its work: it counts as a hole for what is
 * installed.
 *
 * Locks: tlb->lock (mutex), inside it tlb->touch (spinlock, for publishing).
 */
#include "tlb.h"
#include "tlb_txn.h"

#define GFP_INSTALL	(GFP_NOIO | __GFP_NOWARN)
#define GFP_EVICT	(GFP_NOWAIT | __GFP_NOWARN)

#define EVICT_LEAVES	256	/* looked at in one go, at least */
#define EVICT_SPARE_PART	32	/* of the bound; but no more than ... */
#define EVICT_SPARE_MAX		64ull	/* ... so many extents */

static u64 end_of(u64 start, u64 len)
{
	return len > U64_MAX - start ? U64_MAX : start + len;
}

/**
 * ubdm_tlb_init() - make an empty TLB
 * @tlb: the TLB
 * @max: extents to keep, beside uncommitted ones
 *
 * Return: 0.
 */
int ubdm_tlb_init(struct ubdm_tlb *tlb, u64 max)
{
	*tlb = (struct ubdm_tlb) { .max = max };
	mutex_init(&tlb->lock);
	spin_lock_init(&tlb->touch);
	return 0;
}

/**
 * ubdm_tlb_destroy() - free all extents
 * @tlb: the TLB; no reader and no writer may be left
 *
 * Context: process, sleeps.
 */
void ubdm_tlb_destroy(struct ubdm_tlb *tlb)
{
	struct ubdm_tlb_node *node = rcu_dereference_protected(tlb->root, true);
	struct ubdm_tlb_node *up = NULL;

	RCU_INIT_POINTER(tlb->root, NULL);
	tlb->nr = 0;
	while (node) {
		if (node->level && node->nr) {
			struct ubdm_tlb_node *child = node->child[--node->nr];

			node->chain = up;
			up = node;
			node = child;
			continue;
		}
		kfree(node);
		node = up;
		if (node)
			up = node->chain;
	}
	mutex_destroy(&tlb->lock);
}

/* The leaf and slot that hit was taken from; NULL if it is a hole. */
static struct ubdm_tlb_node *
find(struct ubdm_tlb *tlb, u64 lba, struct ubdm_hit *hit, unsigned int *slot)
{
	struct ubdm_tlb_node *node = rcu_dereference_check(tlb->root,
						rcu_read_lock_sched_held());
	const struct ubdm_tlb_slot *s;
	u64 next = U64_MAX, behind = 0;
	unsigned int n;

	if (!node)
		goto hole;
	while (node->level) {
		n = ubdm_tlb_child(node, lba);
		if (lba < node->key[n])
			next = node->key[n];
		else if (n + 1 < node->nr)
			next = node->key[n + 1];
		node = READ_ONCE(node->child[n]);
	}
	n = ubdm_tlb_floor(node, lba);
	if (lba < node->start[n]) {
		next = node->start[n];
		goto hole;
	}
	if (n + 1 < node->nr)
		next = node->start[n + 1];
	s = &node->slot[n];
	behind = node->start[n] + s->len;
	if (behind <= lba)
		goto hole;
	hit->lba = node->start[n];
	hit->len = s->len;
	hit->off = s->off;
	hit->tid = s->tid > READ_ONCE(tlb->committed_tid) ? s->tid : 0;
	hit->backing = s->backing;
	hit->type = s->type;
	hit->perm = s->perm;
	if (!(READ_ONCE(node->accessed) & BIT(n)))
		set_bit(n, &node->accessed);
	*slot = n;
	return node;

hole:
	*hit = (struct ubdm_hit) { .lba = behind, .len = next - behind };
	return NULL;
}

/**
 * ubdm_tlb_mark_touched() - an uncommitted extent is about to be written
 * @tlb: the TLB
 * @leaf: where a reader found it
 * @slot: which of its extents
 * @tid: the extent's
 *
 * Context: as ubdm_tlb_lookup().
 * Return: false if the leaf is about to be replaced: look up again.
 */
bool ubdm_tlb_mark_touched(struct ubdm_tlb *tlb, struct ubdm_tlb_node *leaf,
			   unsigned int slot, u64 tid)
{
	if (!(READ_ONCE(leaf->touched) & BIT(slot))) {
		/* First, for who finds the bit set has nothing left to do. */
		ubdm_tlb_raise_touched(tlb, tid);
		/* so that touched_tid is visible to who sees the bit */
		smp_mb__before_atomic();
		set_bit(slot, &leaf->touched);
	}
	/*
	 * Barrier: pairs with the one in ubdm_txn_publish().  Needed too where
	 * the bit was set already: who did it may not have come to look yet.
	 */
	smp_mb();
	return !READ_ONCE(leaf->frozen);
}

/**
 * ubdm_tlb_lookup() - translate a sector
 * @tlb: the TLB
 * @lba: sector
 * @hit: out: the extent that contains @lba, or with type 0 the hole around it
 *	(up to U64_MAX behind the last extent)
 *
 * Context: under rcu_read_lock() or rcu_read_lock_sched(), and the device's SRCU
 * if I/O follows.
 */
void ubdm_tlb_lookup(struct ubdm_tlb *tlb, u64 lba, struct ubdm_hit *hit)
{
	unsigned int slot;

	find(tlb, lba, hit, &slot);
}

/**
 * ubdm_tlb_lookup_write() - translate a sector that is about to be written
 * @tlb: the TLB
 * @lba: sector
 * @hit: out: as ubdm_tlb_lookup()
 *
 * An uncommitted extent that permits the write is marked as touched, so that
 * every FLUSH and DUMP that begins after this returned knows it.
 *
 * Context: under rcu_read_lock(), and the device's SRCU if I/O follows.
 */
void ubdm_tlb_lookup_write(struct ubdm_tlb *tlb, u64 lba, struct ubdm_hit *hit)
{
	struct ubdm_tlb_node *leaf;
	unsigned int slot;

	leaf = find(tlb, lba, hit, &slot);
	if (!leaf || !hit->tid || !(hit->perm & UBDM_PERM_W) ||
	    ubdm_tlb_mark_touched(tlb, leaf, slot, hit->tid))
		return;

	/* Nothing is frozen that can be reached while we hold this. */
	spin_lock(&tlb->touch);
	leaf = find(tlb, lba, hit, &slot);
	if (leaf && hit->tid && hit->perm & UBDM_PERM_W)
		ubdm_tlb_mark_touched(tlb, leaf, slot, hit->tid);
	spin_unlock(&tlb->touch);
}

/**
 * ubdm_tlb_must_commit() - is an acknowledged change uncommitted?
 * @tlb: the TLB
 * @tid: out, if so: up to which to commit
 *
 * Context: any.
 * Return: true if one is.
 */
bool ubdm_tlb_must_commit(struct ubdm_tlb *tlb, u64 *tid)
{
	u64 touched = READ_ONCE(tlb->touched_tid);

	if (touched <= READ_ONCE(tlb->committed_tid))
		return false;
	*tid = max(touched, READ_ONCE(tlb->max_tid));
	return true;
}

/* May the two be one extent?  b begins where a ends. */
static bool continues(const struct ubdm_tlb_ent *a, const struct ubdm_tlb_ent *b)
{
	return a->end == b->lba && a->type == b->type && a->perm == b->perm &&
	       a->backing == b->backing && a->tid == b->tid &&
	       a->touched == b->touched &&
	       (!ubdm_tlb_has_storage(a->type) ||
		a->off + (a->end - a->lba) == b->off);
}

static unsigned int slot_of(const struct ubdm_txn *txn)
{
	return txn->path[txn->depth - 1].i;
}

/*
 * Put an extent into the hole that is there for it; adjoined: another one may
 * begin where it ends.
 */
static int add(struct ubdm_txn *txn, const struct ubdm_tlb_ent *new, bool adjoined)
{
	struct ubdm_tlb_ent ent = *new, e;

	if (adjoined && ubdm_txn_seek(txn, ent.end, &e) && continues(&ent, &e)) {
		ent.end = e.end;
		ent.accessed |= e.accessed;
		if (ubdm_txn_drop(txn, BIT(slot_of(txn))))
			return -ENOMEM;
	}
	if (ent.lba && ubdm_txn_seek(txn, ent.lba - 1, &e) && continues(&e, &ent)) {
		e.end = ent.end;
		e.accessed |= ent.accessed;
		return ubdm_txn_set(txn, &e);
	}
	return ubdm_txn_insert(txn, &ent);
}

/* Move an extent's start to lba. */
static void trim_front(struct ubdm_tlb_ent *ent, u64 lba)
{
	if (ubdm_tlb_has_storage(ent->type))
		ent->off += lba - ent->lba;
	ent->lba = lba;
}

/* The slots from the path's on that are wholly in front of end. */
static unsigned long slots_before(const struct ubdm_txn *txn, u64 end)
{
	const struct ubdm_tlb_node *leaf = txn->path[txn->depth - 1].node;
	unsigned int i, first = slot_of(txn);

	for (i = first; i < leaf->nr; i++)
		if (leaf->start[i] + leaf->slot[i].len > end)
			break;
	return BIT(i) - BIT(first);
}

/* Make [lba, end) a hole. */
static int clear(struct ubdm_txn *txn, u64 lba, u64 end)
{
	struct ubdm_tlb_ent ent, rest;
	int err = 0;

	while (!err && ubdm_txn_seek(txn, lba, &ent) && ent.lba < end) {
		rest = ent;
		if (ent.lba < lba) {
			ent.end = lba;
			err = ubdm_txn_set(txn, &ent);
			if (!err && rest.end > end) {
				trim_front(&rest, end);
				err = ubdm_txn_insert(txn, &rest);
			}
		} else if (ent.end > end) {
			trim_front(&ent, end);
			err = ubdm_txn_set(txn, &ent);
		} else {
			err = ubdm_txn_drop(txn, slots_before(txn, end));
		}
	}
	return err;
}

/* A clean extent fills holes, and may add W to the same translation. */
static int fill(struct ubdm_txn *txn, const struct ubdm_tlb_ent *new)
{
	struct ubdm_tlb_ent there, part;
	u64 lba = new->lba;
	int err = 0;

	while (!err && lba < new->end) {
		bool found = ubdm_txn_seek(txn, lba, &there);

		part = *new;
		trim_front(&part, lba);
		if (!found || there.lba >= new->end)
			return add(txn, &part, found && there.lba == new->end);
		if (there.lba > lba) {
			part.end = there.lba;
			err = add(txn, &part, true);
			lba = part.end;
			continue;
		}
		part.end = min(there.end, new->end);
		lba = part.end;
		if (there.type == UBDM_EXT_JOURNAL && !there.tid) {
			err = clear(txn, part.lba, part.end);
			if (!err)
				err = add(txn, &part, true);
		} else if (there.type == UBDM_EXT_LINEAR &&
			   new->type == UBDM_EXT_LINEAR &&
			   ubdm_tlb_same_storage(&there, new) &&
			   new->perm & ~there.perm) {
			part.perm |= there.perm;
			part.tid = there.tid;
			part.touched = there.touched;
			part.accessed |= there.accessed;
			err = clear(txn, part.lba, part.end);
			if (!err)
				err = add(txn, &part, true);
		}
	}
	return err;
}

/*
 * Look at what an uncommitted extent hits.  Data that was written through the
 * old translation and is found through the new one too keeps its mark.
 */
static int survey(struct ubdm_txn *txn, struct ubdm_tlb_ent *new, bool replace,
		  bool *superseded)
{
	struct ubdm_tlb_ent there;
	u64 lba = new->lba;

	for (; ubdm_txn_seek(txn, lba, &there) && there.lba < new->end;
	     lba = there.end) {
		if (there.type == UBDM_EXT_JOURNAL && !there.tid)
			continue;
		if (!replace)
			return -EEXIST;
		*superseded = true;
		if (there.touched && ubdm_tlb_same_storage(&there, new))
			new->touched = true;
	}
	return 0;
}

static struct ubdm_tlb_ent ent_of(const struct ubdm_extent *ext)
{
	return (struct ubdm_tlb_ent) {
		.lba = ext->lba,
		.end = ext->lba + ext->len,
		.off = ext->off,
		.tid = ext->tid,
		.backing = ext->backing,
		.type = ext->type,
		.perm = ext->type == UBDM_EXT_JOURNAL ? 0 : ext->perm,
		.accessed = true,	/* one lap of the clock's hand to be used */
		.touched = ext->tid && ext->flags & UBDM_EXT_F_TOUCHED,
	};
}

static int install_one(struct ubdm_txn *txn, const struct ubdm_extent *ext,
		       bool *superseded)
{
	struct ubdm_tlb_ent ent = ent_of(ext);
	bool replace = ext->flags & UBDM_EXT_F_REPLACE;
	int err;

	if (!ext->tid) {
		if (replace || ext->type == UBDM_EXT_JOURNAL)
			return -EINVAL;
		return fill(txn, &ent);
	}
	if (ext->tid <= txn->tlb->committed_tid || ext->tid == U64_MAX)
		return -EINVAL;
	err = survey(txn, &ent, replace, superseded);
	if (!err)
		err = clear(txn, ent.lba, ent.end);
	if (!err)
		err = add(txn, &ent, true);
	txn->max_tid = max(txn->max_tid, ent.tid);
	if (ent.touched)
		txn->touched_tid = max(txn->touched_tid, ent.tid);
	return err;
}

/* Would the two, clean both, be one extent? */
static bool extends(const struct ubdm_extent *a, const struct ubdm_extent *b)
{
	return a->lba + a->len == b->lba && a->type == b->type && a->perm == b->perm &&
	       a->backing == b->backing &&
	       (!ubdm_tlb_has_storage(a->type) || a->off + a->len == b->off);
}

/*
 * A mapper that tells of many extents tells of neighbours.  ext[0] is in the tree;
 * put those behind it that go into the same hole, and are not to be grown together
 * with anything, into its leaf at once.  Returns how many, or -ENOMEM.
 */
static int install_more(struct ubdm_txn *txn, const struct ubdm_extent *ext,
			unsigned int nr)
{
	struct ubdm_tlb_ent ent, more;
	unsigned int n, i;
	u64 limit;

	if (ext->tid || !ubdm_txn_seek(txn, ext->lba, &ent) ||
	    ent.end != ext->lba + ext->len)
		return 0;
	/* What is there may be older than ext[0], and differ. */
	more = ent_of(&ext[1]);
	if (continues(&ent, &more))
		return 0;
	nr = min(nr, ubdm_txn_room(txn, &limit) + 1);
	for (n = 1; n < nr; n++)
		if (ext[n].tid || ext[n].flags || ext[n].type == UBDM_EXT_JOURNAL ||
		    ext[n].lba + ext[n].len >= limit ||
		    (n > 1 && extends(&ext[n - 1], &ext[n])))
			break;
	if (n == 1)
		return 0;
	if (ubdm_txn_open(txn, n - 1))
		return -ENOMEM;
	for (i = 1; i < n; i++) {
		more = ent_of(&ext[i]);
		ubdm_txn_put(txn, &more);
	}
	return n - 1;
}

/*
 * Which slots of the path's leaf, from the path's on, may go; at most want.
 * Those accessed since the hand was here last get another lap.
 */
static unsigned long victims(struct ubdm_txn *txn, unsigned int want)
{
	struct ubdm_tlb_node *leaf = txn->path[txn->depth - 1].node;
	unsigned long out = 0;
	unsigned int i;

	for (i = slot_of(txn); i < leaf->nr && want; i++) {
		struct ubdm_tlb_ent ent;

		ubdm_txn_read(txn, i, &ent);
		txn->tlb->hand = ent.end;
		if (ent.tid)
			continue;
		if (ent.accessed) {
			clear_bit(i, &leaf->accessed);
			continue;
		}
		out |= BIT(i);
		want--;
	}
	return out;
}

/*
 * Two laps of a small tree find all that is clean.  In a large one the number
 * of leaves looked at in one go is bounded, and the next call goes on there.
 */
static unsigned int evict(struct ubdm_tlb *tlb, unsigned int nr)
{
	unsigned int leaves = EVICT_LEAVES + nr / 4, laps = 0, done = 0;
	struct ubdm_tlb_ent ent;
	unsigned long slots;
	struct ubdm_txn txn;

	if (tlb->pinned)
		return 0;
	ubdm_txn_begin(&txn, tlb, GFP_EVICT);
	while (done < nr && leaves--) {
		if (!ubdm_txn_seek(&txn, tlb->hand, &ent)) {
			tlb->hand = 0;
			if (!txn.root || laps++ == 2)
				break;
			continue;
		}
		slots = victims(&txn, nr - done);
		if (slots && ubdm_txn_drop(&txn, slots)) {
			ubdm_txn_abort(&txn);
			return 0;
		}
		done += hweight_long(slots);
		cond_resched();
	}
	tlb->evicted += done;
	ubdm_txn_publish(&txn);
	return done;
}

/*
 * What is forgotten beyond what the bound demands: where it is reached, a MAP in so
 * many evicts for all of them, instead of each for itself.
 */
static u64 spare(const struct ubdm_tlb *tlb)
{
	return min(tlb->max / EVICT_SPARE_PART, EVICT_SPARE_MAX);
}

/**
 * ubdm_tlb_install() - install a transaction of extents
 * @tlb: the TLB
 * @ext: the extents, checked for all that does not depend on the tree: rising,
 *	disjoint, inside the device, types, permissions, backings
 * @nr: how many
 *
 * Readers see all of them or none.  Then evicts what the bound demands, which
 * may be some that were installed just now; that it fails is no error.
 *
 * Context: process, sleeps; allocates with GFP_NOIO.
 * Return: 0; 1 if something was superseded, so that the caller must drain before
 * it tells completion; and with nothing changed -EEXIST (an uncommitted extent
 * without REPLACE hits something), -ENOMEM, -EINVAL (a tid that is not above the
 * committed one, or is missing where REPLACE or JOURNAL need one).
 */
int ubdm_tlb_install(struct ubdm_tlb *tlb, const struct ubdm_extent *ext,
		     unsigned int nr)
{
	bool superseded = false;
	struct ubdm_txn txn;
	unsigned int i;
	int err = 0;

	mutex_lock(&tlb->lock);
	ubdm_txn_begin(&txn, tlb, GFP_INSTALL);
	for (i = 0; i < nr && !err; i++) {
		int more;

		err = install_one(&txn, &ext[i], &superseded);
		if (err || i + 1 == nr)
			continue;
		more = install_more(&txn, &ext[i], nr - i);
		if (more < 0)
			err = more;
		else
			i += more;
	}
	if (err) {
		ubdm_txn_abort(&txn);
		goto unlock;
	}
	ubdm_txn_publish(&txn);
	if (tlb->nr > tlb->max)
		evict(tlb, min_t(u64, tlb->nr - tlb->max + spare(tlb), UINT_MAX / 2));
unlock:
	mutex_unlock(&tlb->lock);
	return err ? err : superseded;
}

/**
 * ubdm_tlb_inval_lba() - forget clean extents in a range of the device
 * @tlb: the TLB
 * @lba: first sector
 * @len: sectors
 *
 * Context: process, sleeps.
 * Return: 0; with nothing changed -EBUSY (something uncommitted is there) or
 * -ENOMEM.
 */
int ubdm_tlb_inval_lba(struct ubdm_tlb *tlb, u64 lba, u64 len)
{
	u64 pos = lba, end = end_of(lba, len);
	struct ubdm_tlb_ent ent;
	struct ubdm_txn txn;
	int err = 0;

	if (!len)
		return 0;
	mutex_lock(&tlb->lock);
	ubdm_txn_begin(&txn, tlb, GFP_INSTALL);
	for (; !err && ubdm_txn_seek(&txn, pos, &ent) && ent.lba < end;
	     pos = ent.end) {
		err = ent.tid ? -EBUSY : 0;
		cond_resched();
	}
	if (!err)
		err = clear(&txn, lba, end);
	if (err)
		ubdm_txn_abort(&txn);
	else
		ubdm_txn_publish(&txn);
	mutex_unlock(&tlb->lock);
	return err;
}

/*
 * Find the first extent, with an end behind sector lba of the device, that points
 * into [off, end) of a backing, cut down to the part that does.
 */
static bool seek_backing(struct ubdm_txn *txn, u64 lba, u16 backing, u64 off,
			 u64 end, struct ubdm_tlb_ent *ent)
{
	while (ubdm_txn_seek(txn, lba, ent)) {
		struct ubdm_tlb_node *leaf = txn->path[txn->depth - 1].node;
		unsigned int i;

		for (i = slot_of(txn); i < leaf->nr; i++) {
			const struct ubdm_tlb_slot *s = &leaf->slot[i];

			if (s->backing != backing || !ubdm_tlb_has_storage(s->type) ||
			    s->off >= end || s->off + s->len <= off)
				continue;
			ubdm_txn_read(txn, i, ent);
			if (end - ent->off < s->len)
				ent->end = ent->lba + (end - ent->off);
			if (ent->off < off)
				trim_front(ent, ent->lba + (off - ent->off));
			if (ent->end > lba)
				return true;
		}
		cond_resched();
		if (txn->next == U64_MAX)
			break;
		lba = txn->next;
	}
	return false;
}

/**
 * ubdm_tlb_inval_backing() - forget clean extents that point to some storage
 * @tlb: the TLB
 * @backing: index
 * @off: first sector of the backing
 * @len: sectors
 *
 * Walks through the whole tree.
 *
 * Context: process, sleeps.
 * Return: as ubdm_tlb_inval_lba().
 */
int ubdm_tlb_inval_backing(struct ubdm_tlb *tlb, u16 backing, u64 off, u64 len)
{
	u64 pos, end = end_of(off, len);
	struct ubdm_tlb_ent ent;
	struct ubdm_txn txn;
	int err = 0;

	if (!len)
		return 0;
	mutex_lock(&tlb->lock);
	ubdm_txn_begin(&txn, tlb, GFP_INSTALL);
	for (pos = 0; !err && seek_backing(&txn, pos, backing, off, end, &ent);
	     pos = ent.end)
		err = ent.tid ? -EBUSY : 0;
	for (pos = 0; !err && seek_backing(&txn, pos, backing, off, end, &ent);
	     pos = ent.end)
		err = clear(&txn, ent.lba, ent.end);
	if (err)
		ubdm_txn_abort(&txn);
	else
		ubdm_txn_publish(&txn);
	mutex_unlock(&tlb->lock);
	return err;
}

/**
 * ubdm_tlb_uses_backing() - does an extent point to a backing?
 * @tlb: the TLB
 * @backing: index
 *
 * Context: process, sleeps.
 * Return: true if one does.
 */
bool ubdm_tlb_uses_backing(struct ubdm_tlb *tlb, u16 backing)
{
	struct ubdm_tlb_ent ent;
	struct ubdm_txn txn;
	bool used;

	mutex_lock(&tlb->lock);
	ubdm_txn_begin(&txn, tlb, GFP_INSTALL);
	used = seek_backing(&txn, 0, backing, 0, U64_MAX, &ent);
	ubdm_txn_abort(&txn);
	mutex_unlock(&tlb->lock);
	return used;
}

/**
 * ubdm_tlb_commit() - the metadata of changes up to a tid is durable
 * @tlb: the TLB
 * @tid: every extent with a tid up to this one is clean from now on; it need not
 *	have been seen, and if it is below an earlier one nothing changes
 *
 * Context: process, sleeps.
 * Return: 0, or -EINVAL: U64_MAX would leave no tid to go on with.
 */
int ubdm_tlb_commit(struct ubdm_tlb *tlb, u64 tid)
{
	if (tid == U64_MAX)
		return -EINVAL;
	mutex_lock(&tlb->lock);
	if (tid > tlb->max_tid)
		WRITE_ONCE(tlb->max_tid, tid);
	if (tid > tlb->committed_tid)
		WRITE_ONCE(tlb->committed_tid, tid);
	mutex_unlock(&tlb->lock);
	return 0;
}

/**
 * ubdm_tlb_dump() - copy extents out
 * @tlb: the TLB
 * @lba: where to begin; out: where to go on, U64_MAX at the end
 * @uncommitted: only these
 * @ext: out; none is split, so the first may begin in front of @lba
 * @nr: room in @ext
 *
 * Context: process, sleeps.
 * Return: how many.
 */
unsigned int ubdm_tlb_dump(struct ubdm_tlb *tlb, u64 *lba, bool uncommitted,
			   struct ubdm_extent *ext, unsigned int nr)
{
	struct ubdm_tlb_ent ent;
	struct ubdm_txn txn;
	unsigned int n = 0;

	mutex_lock(&tlb->lock);
	ubdm_txn_begin(&txn, tlb, GFP_INSTALL);
	while (n < nr && ubdm_txn_seek(&txn, *lba, &ent)) {
		*lba = ent.end;
		cond_resched();
		if (uncommitted && !ent.tid)
			continue;
		ext[n++] = (struct ubdm_extent) {
			.lba = ent.lba,
			.len = ent.end - ent.lba,
			.off = ent.off,
			.tid = ent.tid,
			.backing = ent.backing,
			.type = ent.type,
			.perm = ent.perm,
			.flags = ent.touched ? UBDM_EXT_F_TOUCHED : 0,
		};
	}
	if (!ubdm_txn_seek(&txn, *lba, &ent))
		*lba = U64_MAX;
	ubdm_txn_abort(&txn);
	mutex_unlock(&tlb->lock);
	return n;
}

/**
 * ubdm_tlb_pin() - evict nothing, or evict again
 * @tlb: the TLB
 * @pinned: nothing is evicted from the return of this on, whoever was about to
 *
 * Context: process, sleeps.
 */
void ubdm_tlb_pin(struct ubdm_tlb *tlb, bool pinned)
{
	mutex_lock(&tlb->lock);
	WRITE_ONCE(tlb->pinned, pinned);
	mutex_unlock(&tlb->lock);
}

/**
 * ubdm_tlb_evict() - forget clean extents that were not accessed lately
 * @tlb: the TLB
 * @nr: about how many
 *
 * Context: any that may try a mutex, reclaim in particular: does nothing if a
 * writer is at work, which may be the caller, and never waits for memory.
 * Return: how many.
 */
unsigned int ubdm_tlb_evict(struct ubdm_tlb *tlb, unsigned int nr)
{
	unsigned int done;

	if (!mutex_trylock(&tlb->lock))
		return 0;
	done = evict(tlb, nr);
	mutex_unlock(&tlb->lock);
	return done;
}
