/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * tlb_node.h - the TLB's nodes, and transactions on them.  For tlb*.[ch] only.
 */
#ifndef UBDM_TLB_NODE_H
#define UBDM_TLB_NODE_H

#include "tlb.h"

#define UBDM_NODE_BYTES		2048
#ifndef UBDM_LEAF_MAX			/* tests make nodes small and trees high */
#define UBDM_LEAF_MAX		48	/* extents; fits a bitmap of one long */
#define UBDM_INNER_MAX		124	/* children */
#define UBDM_TLB_DEPTH		10	/* more cannot be: see ubdm_txn_insert() */
#endif

struct ubdm_tlb_slot {
	u64 len;
	u64 off;
	u64 tid;
	u16 backing;
	u8 type;
	u8 perm;
};

/*
 * A node is private to its transaction until that one publishes; from then on
 * readers rely on all but what is marked, and on a child being there, which may be
 * replaced by a leaf that begins where it did.  Keys are exact: key[i] is the first
 * sector of child i's first extent, so the extent in front of any sector is in
 * the leaf that a search for this sector ends in.  Behind the last key all are
 * U64_MAX, so that a search need not know how many there are.
 */
struct ubdm_tlb_node {
	u64 txn;			/* who made it, and may change it */
	u16 nr;				/* slots or children, at least one */
	u8 level;			/* 0: a leaf */
	u8 dead;			/* dropped by the transaction that made it */
	u8 frozen;			/* tlb->touch: a copy replaces this leaf */
	u8 tids;			/* an extent of this leaf may have a tid */
	struct ubdm_tlb_node *chain;	/* tlb->lock: a transaction's list */
	struct rcu_head rcu;
	union {
		struct {
			unsigned long accessed;	/* readers set, eviction clears */
			unsigned long touched;	/* readers set */
			unsigned long seen;	/* tlb->lock: touched, as it was ... */
			u64 seen_by;		/* ... when this transaction came by */
			u64 start[UBDM_LEAF_MAX];
			struct ubdm_tlb_slot slot[UBDM_LEAF_MAX];
		};
		struct {
			u64 key[UBDM_INNER_MAX];
			struct ubdm_tlb_node *child[UBDM_INNER_MAX]; /* READ_ONCE */
		};
	};
};

/* An extent taken out of a leaf, or about to go into one. */
struct ubdm_tlb_ent {
	u64 lba;
	u64 end;
	u64 off;
	u64 tid;			/* 0: clean */
	u16 backing;
	u8 type;
	u8 perm;
	bool accessed;
	bool touched;
};

struct ubdm_txn {
	struct ubdm_tlb *tlb;
	struct ubdm_tlb_node *root;	/* of the tree to be */
	struct ubdm_tlb_node *fresh;	/* nodes made so far, the dead too */
	struct ubdm_tlb_node *stale;	/* published nodes to be replaced */
	struct ubdm_tlb_node *pool;	/* nodes for the next step */
	struct ubdm_tlb_node *solo;	/* the one leaf that was made, or NULL; ... */
	struct ubdm_tlb_node *solo_old;	/* ... what it replaces ... */
	struct ubdm_tlb_node *solo_parent; /* ... there, published ... */
	unsigned int solo_i;		/* ... as this child */
	unsigned int nr_pool;
	gfp_t gfp;
	u64 id;
	u64 nr;				/* extents */
	u64 max_tid;
	u64 touched_tid;
	u64 next;			/* first extent behind the path's leaf */
	unsigned int depth;		/* of the path; 0: none */
	unsigned int finger_depth;	/* of the path as walk() left it */
	bool finger;			/* the path and next are still as there ... */
	bool finger_owned;		/* ... and all nodes of the path ours */
	struct {
		struct ubdm_tlb_node *node;
		int i;
	} path[UBDM_TLB_DEPTH];
};

/* One step of a search: right of n keys if the last of them is not above x. */
static __always_inline const u64 *ubdm_tlb_step(const u64 *key, unsigned int n, u64 x)
{
	const u64 *right = key + n;

	/* Computed in any case: to choose is cheaper than to jump at random. */
	OPTIMIZER_HIDE_VAR(right);
	return key[n - 1] <= x ? right : key;
}

/*
 * How many of the rising keys are not above x?  cap is a constant, so this is a
 * row of some three instructions for each step, without a loop.
 */
static __always_inline unsigned int ubdm_tlb_upto(const u64 *a, unsigned int cap, u64 x)
{
	const unsigned int n = 1u << (31 - __builtin_clz(cap));
	const u64 *key = a;

	/* After an overlapping step n keys are left, and n is a power of two. */
	if (cap > n)
		key = ubdm_tlb_step(key, cap - n, x);
	if (n > 32)
		key = ubdm_tlb_step(key, 32, x);
	if (n > 16)
		key = ubdm_tlb_step(key, 16, x);
	if (n > 8)
		key = ubdm_tlb_step(key, 8, x);
	if (n > 4)
		key = ubdm_tlb_step(key, 4, x);
	if (n > 2)
		key = ubdm_tlb_step(key, 2, x);
	if (n > 1)
		key = ubdm_tlb_step(key, 1, x);
	return key - a + (*key <= x);
}

/* Which child of an inner node leads to lba, which is below U64_MAX? */
static __always_inline unsigned int
ubdm_tlb_child(const struct ubdm_tlb_node *node, u64 lba)
{
	/* The first child has all that is in front of the second. */
	return ubdm_tlb_upto(node->key + 1, UBDM_INNER_MAX - 1, lba);
}

/* Which extent of a leaf is the last that begins at or before lba?  Else the first. */
static __always_inline unsigned int
ubdm_tlb_floor(const struct ubdm_tlb_node *leaf, u64 lba)
{
	return ubdm_tlb_upto(leaf->start + 1, UBDM_LEAF_MAX - 1, lba);
}

static inline u64 ubdm_tlb_first(const struct ubdm_tlb_node *node)
{
	return node->level ? node->key[0] : node->start[0];
}

static inline bool ubdm_tlb_has_storage(u8 type)
{
	return type == UBDM_EXT_LINEAR || type == UBDM_EXT_JOURNAL;
}

/* Do the two, where they overlap, mean the same sectors of one backing? */
static inline bool ubdm_tlb_same_storage(const struct ubdm_tlb_ent *a,
					 const struct ubdm_tlb_ent *b)
{
	return ubdm_tlb_has_storage(a->type) && ubdm_tlb_has_storage(b->type) &&
	       a->backing == b->backing && a->off - a->lba == b->off - b->lba;
}

void ubdm_tlb_read_slot(const struct ubdm_tlb *tlb,
			const struct ubdm_tlb_node *leaf, int i,
			struct ubdm_tlb_ent *ent);
void ubdm_tlb_raise_touched(struct ubdm_tlb *tlb, u64 tid);
bool ubdm_tlb_mark_touched(struct ubdm_tlb *tlb, struct ubdm_tlb_node *leaf,
			   unsigned int slot, u64 tid);

void ubdm_txn_begin(struct ubdm_txn *txn, struct ubdm_tlb *tlb, gfp_t gfp);
void ubdm_txn_read(struct ubdm_txn *txn, int i, struct ubdm_tlb_ent *ent);
bool ubdm_txn_seek(struct ubdm_txn *txn, u64 lba, struct ubdm_tlb_ent *ent);
int ubdm_txn_set(struct ubdm_txn *txn, const struct ubdm_tlb_ent *ent);
int ubdm_txn_insert(struct ubdm_txn *txn, const struct ubdm_tlb_ent *ent);
unsigned int ubdm_txn_room(const struct ubdm_txn *txn, u64 *limit);
int ubdm_txn_open(struct ubdm_txn *txn, unsigned int nr);
void ubdm_txn_put(struct ubdm_txn *txn, const struct ubdm_tlb_ent *ent);
int ubdm_txn_drop(struct ubdm_txn *txn, unsigned long slots);
void ubdm_txn_abort(struct ubdm_txn *txn);
void ubdm_txn_publish(struct ubdm_txn *txn);

#endif /* UBDM_TLB_NODE_H */
