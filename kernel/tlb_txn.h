/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * tlb_txn.h - transactions on the TLB's tree.  For tlb.c and tlb_txn.c only.
 */
#ifndef UBDM_TLB_TXN_H
#define UBDM_TLB_TXN_H

#include "tlb_node.h"

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

void ubdm_tlb_raise_touched(struct ubdm_tlb *tlb, u64 tid);

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

#endif /* UBDM_TLB_TXN_H */
