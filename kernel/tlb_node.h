/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * tlb_node.h - the TLB's nodes.  For tlb*.[ch] only.
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
	union {
		struct rcu_head rcu;
		unsigned long gp;	/* tlb_spare.c */
	};
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
bool ubdm_tlb_mark_touched(struct ubdm_tlb *tlb, struct ubdm_tlb_node *leaf,
			   unsigned int slot, u64 tid);

void ubdm_node_gap(struct ubdm_tlb_node *node, unsigned int pos, unsigned int n);
void ubdm_node_copy(struct ubdm_tlb_node *dst, unsigned int dpos,
		    const struct ubdm_tlb_node *src, unsigned int spos, unsigned int n,
		    unsigned long touched, u64 committed);
void ubdm_node_squeeze(struct ubdm_tlb_node *leaf, unsigned int i, unsigned int n,
		       unsigned int nr);
void ubdm_node_cut(struct ubdm_tlb_node *node, unsigned int n);
void ubdm_node_put(struct ubdm_tlb_node *leaf, unsigned int i,
		   const struct ubdm_tlb_ent *ent);
void ubdm_node_link(struct ubdm_tlb_node *node, unsigned int i,
		    struct ubdm_tlb_node *child);
void ubdm_node_unlink(struct ubdm_tlb_node *node, unsigned int i);

#endif /* UBDM_TLB_NODE_H */
