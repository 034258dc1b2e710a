// SPDX-License-Identifier: GPL-2.0-only
/*
 * tlb_txn.c - how a transaction changes the tree.
 *
 * A transaction sees the tree as it will be.  A node that it has made (its
 * number stands in node->txn) it changes in place; of a published one it makes
 * a copy first, and copies or owns all nodes above.  Nothing of this is visible
 * before ubdm_txn_publish(), and ubdm_txn_abort() just frees what was made.
 *
 * The first leaf that is copied is made "solo": as long as it is the only one, and
 * its first extent begins where it did, no node above has to differ, and publish
 * stores one pointer in its parent.  So most transactions, which bring or change
 * an extent or a few neighbours, copy one node whatever the tree's height.  Until
 * then walk() goes to the copy instead of solo_old; as soon as anything else
 * changes settle() copies the nodes above, as for any other leaf.
 *
 * Each step (set, insert, drop) first fills a pool with all nodes it can need,
 * so no step fails half-way: after -ENOMEM there is nothing to do but abort.
 *
 * Touching.  A writer of data sets the slot's touched bit in a leaf that a
 * transaction may be copying.  The bit must reach the copy:
 *
 *	reader					publish
 *	  raise tlb->touched_tid		  leaf->frozen = 1
 *	  set the bit, or find it set		  smp_mb()
 *	  smp_mb()				  read the bits that the copy lacks
 *	  read leaf->frozen			  rcu_assign_pointer(root)
 *
 * Either publish sees the bit and sets it in the copy, or the reader sees the
 * leaf frozen and looks up again under tlb->touch, which publish holds from the
 * first freezing until the root has changed.  Nothing in there sleeps or
 * allocates.
 */
#include "tlb_spare.h"
#include "tlb_txn.h"

static bool owned(const struct ubdm_txn *txn, const struct ubdm_tlb_node *node)
{
	return node->txn == txn->id;
}

static unsigned int capacity(const struct ubdm_tlb_node *node)
{
	return node->level ? UBDM_INNER_MAX : UBDM_LEAF_MAX;
}

/* Make sure that the next nr nodes are there. */
static int reserve(struct ubdm_txn *txn, unsigned int nr)
{
	while (txn->nr_pool < nr) {
		struct ubdm_tlb_node *node = ubdm_spare_get(txn->gfp);

		if (!node)
			return -ENOMEM;
		node->chain = txn->pool;
		txn->pool = node;
		txn->nr_pool++;
	}
	return 0;
}

static struct ubdm_tlb_node *take(struct ubdm_txn *txn, u8 level)
{
	struct ubdm_tlb_node *node = txn->pool;

	txn->pool = node->chain;
	txn->nr_pool--;
	node->chain = txn->fresh;
	txn->fresh = node;
	node->txn = txn->id;
	node->nr = 0;
	node->level = level;
	node->dead = 0;
	node->frozen = 0;
	node->tids = 0;
	if (!level) {
		node->accessed = 0;
		node->touched = 0;
		node->seen_by = 0;
		memset64(node->start, U64_MAX, UBDM_LEAF_MAX);
	} else {
		memset64(node->key, U64_MAX, UBDM_INNER_MAX);
	}
	return node;
}

/* The tree to be has no use for the node any more. */
static void retire(struct ubdm_txn *txn, struct ubdm_tlb_node *node)
{
	if (owned(txn, node)) {
		node->dead = 1;
		return;
	}
	node->chain = txn->stale;
	txn->stale = node;
}

/*
 * The leaf's touched bits as this transaction takes them: of a published leaf
 * always those of the first look at it.  What was decided on one look and copied
 * after another would lose a bit that was set in between.
 */
static unsigned long touched_of(struct ubdm_txn *txn, struct ubdm_tlb_node *leaf)
{
	if (owned(txn, leaf))
		return leaf->touched;
	if (leaf->seen_by != txn->id) {
		leaf->seen_by = txn->id;
		leaf->seen = READ_ONCE(leaf->touched);
	}
	return leaf->seen;
}

/* See ubdm_node_copy(). */
static void copy(struct ubdm_txn *txn, struct ubdm_tlb_node *dst, unsigned int dpos,
		 struct ubdm_tlb_node *src, unsigned int spos, unsigned int n)
{
	ubdm_node_copy(dst, dpos, src, spos, n, src->level ? 0 : touched_of(txn, src),
		       txn->tlb->committed_tid);
}

/* How many nodes own() copies, at most. */
static unsigned int nr_foreign(const struct ubdm_txn *txn)
{
	unsigned int l, n;

	if (txn->finger && txn->finger_owned)
		return 0;
	n = txn->solo ? txn->root->level : 0;
	for (l = 0; l < txn->depth; l++)
		n += !owned(txn, txn->path[l].node);
	return n;
}

/* A copy of a published node, which goes. */
static struct ubdm_tlb_node *replace(struct ubdm_txn *txn, struct ubdm_tlb_node *old)
{
	struct ubdm_tlb_node *new = take(txn, old->level);

	copy(txn, new, 0, old, 0, old->nr);
	retire(txn, old);
	return new;
}

/*
 * Copy the nodes above the solo leaf: it is one like any other from now on.  None of
 * them is ours, as nothing else was changed yet.
 */
static void settle(struct ubdm_txn *txn)
{
	struct ubdm_tlb_node *node = txn->root, *new, *up = NULL;
	u64 lba = txn->solo->start[0];
	unsigned int l, i = 0;

	for (l = 0; node->level; l++) {
		new = replace(txn, node);
		if (up)
			up->child[i] = new;
		else
			txn->root = new;
		if (l < txn->depth && txn->path[l].node == node)
			txn->path[l].node = new;
		i = ubdm_tlb_child(new, lba);
		node = new->child[i];
		up = new;
	}
	up->child[i] = txn->solo;
	txn->solo = NULL;
	txn->solo_old = NULL;
}

/* Make the whole path ours.  The pool holds enough. */
static void own(struct ubdm_txn *txn)
{
	unsigned int l;

	if (txn->finger && txn->finger_owned)
		return;
	if (txn->solo)
		settle(txn);
	txn->finger_owned = true;
	for (l = 0; l < txn->depth; l++) {
		struct ubdm_tlb_node *new;

		if (owned(txn, txn->path[l].node))
			continue;
		new = replace(txn, txn->path[l].node);
		txn->path[l].node = new;
		if (l)
			txn->path[l - 1].node->child[txn->path[l - 1].i] = new;
		else
			txn->root = new;
	}
}

/*
 * Make the path's leaf ours, for a change that nothing above it has to know of: the
 * leaf stays, and its first extent's start.
 */
static int own_leaf(struct ubdm_txn *txn)
{
	unsigned int l = txn->depth - 1;
	struct ubdm_tlb_node *leaf = txn->path[l].node;
	bool solo = l && !txn->fresh;

	if (owned(txn, leaf))
		return 0;
	if (reserve(txn, solo ? 1 : nr_foreign(txn)))
		return -ENOMEM;
	if (!solo) {
		own(txn);
		return 0;
	}
	txn->solo_old = leaf;
	txn->solo_parent = txn->path[l - 1].node;
	txn->solo_i = txn->path[l - 1].i;
	txn->solo = replace(txn, leaf);
	txn->path[l].node = txn->solo;
	return 0;
}

/* A leaf as the transaction has it, of an inner node of the lowest level. */
static struct ubdm_tlb_node *leaf_of(const struct ubdm_txn *txn,
				     const struct ubdm_tlb_node *parent, unsigned int i)
{
	struct ubdm_tlb_node *leaf = parent->child[i];

	return leaf == txn->solo_old ? txn->solo : leaf;
}

/* The path's first l + 1 nodes are ours; make the keys above l exact again. */
static void fix_keys(struct ubdm_txn *txn, unsigned int l)
{
	for (; l; l--) {
		struct ubdm_tlb_node *parent = txn->path[l - 1].node;
		int i = txn->path[l - 1].i;

		parent->key[i] = ubdm_tlb_first(txn->path[l].node);
		if (i)
			break;
	}
}

/**
 * ubdm_tlb_raise_touched() - note that data is behind an uncommitted extent
 * @tlb: the TLB
 * @tid: the extent's
 *
 * Context: any.  A full barrier if it changes anything.
 */
void ubdm_tlb_raise_touched(struct ubdm_tlb *tlb, u64 tid)
{
	u64 old = READ_ONCE(tlb->touched_tid);

	while (old < tid && !try_cmpxchg(&tlb->touched_tid, &old, tid))
		;
}

/**
 * ubdm_txn_begin() - start to change the tree
 * @txn: the transaction, of the caller's memory
 * @tlb: the TLB
 * @gfp: how to allocate nodes
 *
 * Context: tlb->lock, until ubdm_txn_publish() or ubdm_txn_abort().
 */
void ubdm_txn_begin(struct ubdm_txn *txn, struct ubdm_tlb *tlb, gfp_t gfp)
{
	lockdep_assert_held(&tlb->lock);
	*txn = (struct ubdm_txn) {
		.tlb = tlb,
		.root = rcu_dereference_protected(tlb->root,
						  lockdep_is_held(&tlb->lock)),
		.gfp = gfp,
		.id = ++tlb->txn,
		.nr = tlb->nr,
		.max_tid = tlb->max_tid,
	};
}

/*
 * A MAP goes through the tree in steps that are close together: is lba in the
 * leaf where the last walk ended, or even between the same two extents?
 */
static bool walk_leaf(struct ubdm_txn *txn, u64 lba)
{
	unsigned int l = txn->finger_depth - 1;
	struct ubdm_tlb_node *leaf = txn->path[l].node;
	int i = txn->path[l].i;

	if (lba < leaf->start[0] || lba >= txn->next)
		return false;
	if (i < 0 || i >= leaf->nr || leaf->start[i] > lba ||
	    (i + 1 < leaf->nr && leaf->start[i + 1] <= lba))
		txn->path[l].i = (int)ubdm_tlb_upto(leaf->start, UBDM_LEAF_MAX, lba) - 1;
	txn->depth = l + 1;
	return true;
}

/* Path to the last extent that begins at or before lba; slot -1 if none does. */
static void walk(struct ubdm_txn *txn, u64 lba)
{
	struct ubdm_tlb_node *node = txn->root;
	unsigned int n, l = 0;

	if (txn->finger && walk_leaf(txn, lba))
		return;
	txn->finger = true;
	txn->finger_owned = false;
	txn->next = U64_MAX;
	for (; node->level; node = node->child[n], l++) {
		n = ubdm_tlb_child(node, lba);
		if (n + 1 < node->nr)
			txn->next = node->key[n + 1];
		txn->path[l].node = node;
		txn->path[l].i = n;
	}
	if (node == txn->solo_old)
		node = txn->solo;
	txn->path[l].node = node;
	txn->path[l].i = (int)ubdm_tlb_upto(node->start, UBDM_LEAF_MAX, lba) - 1;
	txn->depth = l + 1;
	txn->finger_depth = l + 1;
}

/**
 * ubdm_txn_read() - take an extent out of the path's leaf
 * @txn: the transaction, after ubdm_txn_seek() and nothing else
 * @i: slot
 * @ent: out
 */
void ubdm_txn_read(struct ubdm_txn *txn, int i, struct ubdm_tlb_ent *ent)
{
	struct ubdm_tlb_node *leaf = txn->path[txn->depth - 1].node;

	ubdm_tlb_read_slot(txn->tlb, leaf, i, ent);
	ent->touched = ent->tid && touched_of(txn, leaf) & BIT(i);
}

/**
 * ubdm_txn_seek() - find the first extent that ends behind a sector
 * @txn: the transaction; its path leads to the extent afterwards, and
 *	@txn->next is where the first extent of the next leaf begins
 * @lba: sector
 * @ent: out: the extent
 *
 * Return: false if there is none.
 */
bool ubdm_txn_seek(struct ubdm_txn *txn, u64 lba, struct ubdm_tlb_ent *ent)
{
	struct ubdm_tlb_node *leaf;
	int i;

	txn->depth = 0;
	if (!txn->root || lba == U64_MAX)
		return false;
	walk(txn, lba);
	leaf = txn->path[txn->depth - 1].node;
	i = txn->path[txn->depth - 1].i;
	if (i < 0 || leaf->start[i] + leaf->slot[i].len <= lba)
		i++;
	if (i == leaf->nr) {
		if (txn->next == U64_MAX)
			return false;
		walk(txn, txn->next);
		leaf = txn->path[txn->depth - 1].node;
		i = 0;
	}
	txn->path[txn->depth - 1].i = i;
	ubdm_txn_read(txn, i, ent);
	return true;
}

/**
 * ubdm_txn_set() - change the extent that the path leads to
 * @txn: the transaction, after ubdm_txn_seek() and nothing else
 * @ent: what it becomes; a part of what it was, or grown into a hole
 *
 * Return: 0 or -ENOMEM.
 */
int ubdm_txn_set(struct ubdm_txn *txn, const struct ubdm_tlb_ent *ent)
{
	unsigned int l = txn->depth - 1, i = txn->path[l].i;

	if (i || ent->lba == txn->path[l].node->start[0]) {
		if (own_leaf(txn))
			return -ENOMEM;
		ubdm_node_put(txn->path[l].node, i, ent);
		return 0;
	}
	if (reserve(txn, nr_foreign(txn)))
		return -ENOMEM;
	own(txn);
	ubdm_node_put(txn->path[l].node, i, ent);
	fix_keys(txn, l);
	return 0;
}

/*
 * Split the full node at level l of the path, which leaves @at entries in it.
 * Returns the new one on its right, not linked yet.
 */
static struct ubdm_tlb_node *split(struct ubdm_txn *txn, unsigned int l,
				   unsigned int at)
{
	struct ubdm_tlb_node *left = txn->path[l].node;
	struct ubdm_tlb_node *right = take(txn, left->level);

	copy(txn, right, 0, left, at, left->nr - at);
	ubdm_node_cut(left, at);
	return right;
}

/*
 * Where to split for an insertion at pos: in the middle, but who appends or
 * prepends is likely to go on so, and full nodes are left behind.
 */
static unsigned int split_at(const struct ubdm_tlb_node *node, unsigned int pos)
{
	if (pos == node->nr)
		return node->nr;
	return pos ? node->nr / 2 : 0;
}

/* Insert right as the neighbour of the path's node at level l. */
static void link_right(struct ubdm_txn *txn, unsigned int l,
		       struct ubdm_tlb_node *right)
{
	while (l) {
		struct ubdm_tlb_node *parent = txn->path[--l].node, *more;
		unsigned int pos = txn->path[l].i + 1, at;

		if (parent->nr < UBDM_INNER_MAX) {
			ubdm_node_link(parent, pos, right);
			return;
		}
		at = split_at(parent, pos);
		more = split(txn, l, at);
		if (pos <= at && at < UBDM_INNER_MAX)
			ubdm_node_link(parent, pos, right);
		else
			ubdm_node_link(more, pos - at, right);
		right = more;
	}
	txn->root = take(txn, right->level + 1);
	ubdm_node_link(txn->root, 0, txn->path[0].node);
	ubdm_node_link(txn->root, 1, right);
}

/* The leaf on the right of the path's, of the same parent; NULL: there is none. */
static struct ubdm_tlb_node *right_of(const struct ubdm_txn *txn)
{
	unsigned int l = txn->depth - 1;

	if (!l || txn->path[l - 1].i + 1 == txn->path[l - 1].node->nr)
		return NULL;
	return leaf_of(txn, txn->path[l - 1].node, txn->path[l - 1].i + 1);
}

/*
 * The path's leaf is full and the new extent would be its last: turn to the
 * next leaf of the same parent if there is room, or else a run that is filled
 * backwards would get a leaf for each extent.
 */
static bool turn_right(struct ubdm_txn *txn)
{
	struct ubdm_tlb_node *right = right_of(txn);
	unsigned int l = txn->depth - 1;

	if (!right || right->nr == UBDM_LEAF_MAX)
		return false;
	txn->finger = false;
	txn->path[l - 1].i++;
	txn->path[l].node = right;
	txn->path[l].i = -1;
	return true;
}

/*
 * The neighbour on the right of the path's leaf, which is full, if it has room
 * enough to be worth a copy.
 */
static struct ubdm_tlb_node *roomy_right(const struct ubdm_txn *txn)
{
	struct ubdm_tlb_node *right = right_of(txn);

	return right && right->nr <= UBDM_LEAF_MAX * 7 / 8 ? right : NULL;
}

/*
 * The path's leaf is full: even it out with its neighbour on the right, instead
 * of splitting it, or else who inserts at one place again and again would leave a
 * row of leaves behind that are half full.  The path leads to the same extent
 * afterwards.
 */
static int even_out(struct ubdm_txn *txn, struct ubdm_tlb_node *right)
{
	unsigned int l = txn->depth - 1, n, i = txn->path[l - 1].i + 1;
	struct ubdm_tlb_node *leaf, *parent;

	if (reserve(txn, !owned(txn, right) + nr_foreign(txn)))
		return -ENOMEM;
	own(txn);
	txn->finger = false;
	leaf = txn->path[l].node;
	parent = txn->path[l - 1].node;
	n = (leaf->nr - right->nr + 1) / 2;
	if (!owned(txn, right)) {
		right = replace(txn, right);
		parent->child[i] = right;
	}
	copy(txn, right, 0, leaf, leaf->nr - n, n);
	ubdm_node_cut(leaf, leaf->nr - n);
	parent->key[i] = right->start[0];
	if (txn->path[l].i >= leaf->nr) {
		txn->path[l].i -= leaf->nr;
		txn->path[l].node = right;
		txn->path[l - 1].i = i;
	}
	return 0;
}

/**
 * ubdm_txn_insert() - add an extent
 * @txn: the transaction; its path is void afterwards
 * @ent: the extent; all of it is a hole until now
 *
 * The tree gets higher only when its root is full, and drops merge what is
 * sparse, so that it would take far more memory than there is to reach
 * UBDM_TLB_DEPTH.
 *
 * Return: 0 or -ENOMEM.
 */
int ubdm_txn_insert(struct ubdm_txn *txn, const struct ubdm_tlb_ent *ent)
{
	struct ubdm_tlb_node *leaf, *right = NULL;
	unsigned int l, pos, at, need = 0;

	if (!txn->root) {
		if (reserve(txn, 1))
			return -ENOMEM;
		txn->root = take(txn, 0);
		ubdm_node_gap(txn->root, 0, 1);
		ubdm_node_put(txn->root, 0, ent);
		txn->nr++;
		return 0;
	}

	walk(txn, ent->lba);
	l = txn->depth - 1;
	if (txn->path[l].i + 1 == UBDM_LEAF_MAX)
		turn_right(txn);
	leaf = txn->path[l].node;
	pos = txn->path[l].i + 1;
	/* Who appends or prepends leaves a full leaf behind. */
	if (leaf->nr == UBDM_LEAF_MAX && pos && pos < leaf->nr) {
		right = roomy_right(txn);
		if (right && even_out(txn, right))
			return -ENOMEM;
		right = NULL;
		pos = txn->path[l].i + 1;
	}

	if (pos && leaf->nr < UBDM_LEAF_MAX) {
		if (own_leaf(txn))
			return -ENOMEM;
		leaf = txn->path[l].node;
		ubdm_node_gap(leaf, pos, 1);
		ubdm_node_put(leaf, pos, ent);
		txn->path[l].i = pos;
		txn->nr++;
		return 0;
	}

	while (need < txn->depth) {
		leaf = txn->path[l - need].node;
		if (leaf->nr < capacity(leaf))
			break;
		need++;
	}
	if (need == txn->depth && ++need > UBDM_TLB_DEPTH)
		return -ENOMEM;
	if (reserve(txn, need + nr_foreign(txn)))
		return -ENOMEM;

	own(txn);
	leaf = txn->path[l].node;
	if (leaf->nr == UBDM_LEAF_MAX) {
		txn->finger = false;
		at = split_at(leaf, pos);
		right = split(txn, l, at);
		if (pos > at || at == UBDM_LEAF_MAX) {
			leaf = right;
			pos -= at;
		}
	}
	ubdm_node_gap(leaf, pos, 1);
	ubdm_node_put(leaf, pos, ent);
	txn->path[l].i = pos;
	fix_keys(txn, l);
	if (right)
		link_right(txn, l, right);
	txn->nr++;
	return 0;
}

/**
 * ubdm_txn_room() - how many slots can ubdm_txn_open() make?
 * @txn: the transaction, after ubdm_txn_seek() and nothing else
 * @limit: out: where the next extent begins, sectors; U64_MAX: there is none
 *
 * Return: how many the path's leaf has room for.
 */
unsigned int ubdm_txn_room(const struct ubdm_txn *txn, u64 *limit)
{
	const struct ubdm_tlb_node *leaf = txn->path[txn->depth - 1].node;
	int i = txn->path[txn->depth - 1].i;

	*limit = i + 1 < leaf->nr ? leaf->start[i + 1] : txn->next;
	return UBDM_LEAF_MAX - leaf->nr;
}

/**
 * ubdm_txn_open() - make slots behind the extent that the path leads to
 * @txn: the transaction, after ubdm_txn_seek() and nothing else
 * @nr: how many; no more than there is room for in the leaf
 *
 * Each has to be filled by ubdm_txn_put() before anything else is done.
 *
 * Return: 0 or -ENOMEM.
 */
int ubdm_txn_open(struct ubdm_txn *txn, unsigned int nr)
{
	unsigned int l = txn->depth - 1;

	if (own_leaf(txn))
		return -ENOMEM;
	ubdm_node_gap(txn->path[l].node, txn->path[l].i + 1, nr);
	txn->nr += nr;
	return 0;
}

/**
 * ubdm_txn_put() - fill the next slot that ubdm_txn_open() made
 * @txn: the transaction; its path leads to the new extent afterwards
 * @ent: the extent; all of it is a hole until now
 */
void ubdm_txn_put(struct ubdm_txn *txn, const struct ubdm_tlb_ent *ent)
{
	unsigned int l = txn->depth - 1;

	ubdm_node_put(txn->path[l].node, ++txn->path[l].i, ent);
}

/* Take in a neighbour if the path's node at level l has become sparse. */
static void merge(struct ubdm_txn *txn, unsigned int l)
{
	struct ubdm_tlb_node *node = txn->path[l].node, *sibling;
	struct ubdm_tlb_node *parent = txn->path[l - 1].node;
	unsigned int i = txn->path[l - 1].i;
	unsigned int limit = capacity(node) * 7 / 8;

	if (node->nr >= capacity(node) / 2)
		return;
	if (i + 1 < parent->nr && parent->child[i + 1]->nr + node->nr <= limit) {
		sibling = parent->child[i + 1];
		copy(txn, node, node->nr, sibling, 0, sibling->nr);
		ubdm_node_unlink(parent, i + 1);
		retire(txn, sibling);
	} else if (i && parent->child[i - 1]->nr + node->nr <= limit) {
		sibling = parent->child[i - 1];
		copy(txn, node, 0, sibling, 0, sibling->nr);
		parent->child[i - 1] = node;
		ubdm_node_unlink(parent, i);
		txn->path[l - 1].i = i - 1;
		retire(txn, sibling);
	}
}

/**
 * ubdm_txn_drop() - remove extents of one leaf
 * @txn: the transaction, after ubdm_txn_seek() and nothing else; its path is
 *	void afterwards
 * @slots: which slots of the path's leaf
 *
 * Return: 0 or -ENOMEM.
 */
int ubdm_txn_drop(struct ubdm_txn *txn, unsigned long slots)
{
	unsigned int l = txn->depth - 1, i, n, kept;
	struct ubdm_tlb_node *leaf = txn->path[l].node;
	bool alone;

	kept = leaf->nr - hweight_long(slots);
	/* Nor does it get so sparse that it takes in a neighbour. */
	alone = !(slots & 1) && kept >= UBDM_LEAF_MAX / 2;
	if (alone) {
		if (own_leaf(txn))
			return -ENOMEM;
	} else {
		if (reserve(txn, nr_foreign(txn)))
			return -ENOMEM;
		own(txn);
	}
	txn->finger = false;

	leaf = txn->path[l].node;
	kept = leaf->nr;
	/* From behind, a row of neighbours at a time. */
	while (slots) {
		n = __fls(slots) + 1;
		i = slots == ~0UL >> (BITS_PER_LONG - n) ? 0 :
		    __fls(~slots & (BIT(n) - 1)) + 1;
		ubdm_node_squeeze(leaf, i, n - i, kept);
		kept -= n - i;
		slots &= BIT(i) - 1;
	}
	txn->nr -= leaf->nr - kept;
	ubdm_node_cut(leaf, kept);
	if (alone)
		return 0;

	for (; !txn->path[l].node->nr; l--) {
		retire(txn, txn->path[l].node);
		if (!l) {
			txn->root = NULL;
			return 0;
		}
		ubdm_node_unlink(txn->path[l - 1].node, txn->path[l - 1].i);
	}
	fix_keys(txn, l);
	for (; l; l--)
		merge(txn, l);
	while (txn->root->level && txn->root->nr == 1) {
		retire(txn, txn->root);
		txn->root = txn->root->child[0];
	}
	return 0;
}

static void free_list(struct ubdm_tlb_node *node)
{
	while (node) {
		struct ubdm_tlb_node *next = node->chain;

		ubdm_spare_put(node);
		node = next;
	}
}

/**
 * ubdm_txn_abort() - forget the transaction; nothing has changed
 * @txn: the transaction
 */
void ubdm_txn_abort(struct ubdm_txn *txn)
{
	free_list(txn->fresh);
	free_list(txn->pool);
}

/* The old leaf's extent i was touched after it was copied. */
static void carry_touched(struct ubdm_txn *txn, struct ubdm_tlb_node *old,
			  unsigned int i)
{
	struct ubdm_tlb_ent was, ent;
	u64 lba;

	ubdm_tlb_read_slot(txn->tlb, old, i, &was);
	if (!was.tid)
		return;
	for (lba = was.lba; lba < was.end; lba = ent.end) {
		struct ubdm_tlb_node *leaf;

		if (!ubdm_txn_seek(txn, lba, &ent) || ent.lba >= was.end)
			break;
		if (!ent.tid || !ubdm_tlb_same_storage(&was, &ent))
			continue;
		leaf = txn->path[txn->depth - 1].node;
		leaf->touched |= BIT(txn->path[txn->depth - 1].i);
		txn->touched_tid = max(txn->touched_tid, ent.tid);
	}
}

/**
 * ubdm_txn_publish() - let readers see the transaction, all of it at once
 * @txn: the transaction
 */
void ubdm_txn_publish(struct ubdm_txn *txn)
{
	struct ubdm_tlb *tlb = txn->tlb;
	struct ubdm_tlb_node *node, *next;

	lockdep_assert_held(&tlb->lock);
	spin_lock(&tlb->touch);
	for (node = txn->stale; node; node = node->chain)
		if (!node->level)
			WRITE_ONCE(node->frozen, 1);
	/* Pairs with the one in mark_touched(): see the top of this file. */
	smp_mb();
	for (node = txn->stale; node; node = node->chain) {
		unsigned long late;

		if (node->level)
			continue;
		late = READ_ONCE(node->touched) & ~node->seen;
		for (; late; late &= late - 1)
			carry_touched(txn, node, __ffs(late));
	}
	ubdm_tlb_raise_touched(tlb, txn->touched_tid);
	WRITE_ONCE(tlb->max_tid, txn->max_tid);
	if (txn->solo) {
		/* Filled before it is found: as rcu_assign_pointer() has it. */
		smp_store_release(&txn->solo_parent->child[txn->solo_i], txn->solo);
	} else {
		rcu_assign_pointer(tlb->root, txn->root);
	}
	spin_unlock(&tlb->touch);

	tlb->nr = txn->nr;
	for (node = txn->fresh; node; node = next) {
		next = node->chain;
		node->chain = NULL;
		if (node->dead)
			ubdm_spare_put(node);
	}
	for (node = txn->stale; node; node = next) {
		next = node->chain;
		ubdm_spare_retire(node);
	}
	free_list(txn->pool);
}
