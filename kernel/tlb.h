/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * tlb.h - the device's extents: a persistent B+tree with lockless readers.
 *
 * A writer never changes a node that readers can see.  It copies the path to
 * what it changes, works on the copies, and publishes the new root with one
 * store.  A transaction of any number of extents is therefore whole or absent
 * for every reader, and everything that can fail fails before it is visible.
 * Readers descend under RCU; nodes are freed after a grace period.
 *
 * What a reader must note in the tree (accessed, touched) are bits in the leaf.
 * "accessed" may get lost when a leaf is copied at that moment; "touched" must
 * not, see ubdm_tlb_touch() in tlb.c.
 *
 * An extent is uncommitted while its tid is above the committed tid: COMMIT is
 * one store, and "is anything uncommitted and touched" one comparison of the
 * highest touched tid with it.
 *
 * This file and tlb.c are also built in userspace against tests/shim.
 */
#ifndef UBDM_TLB_H
#define UBDM_TLB_H

#include "kdeps.h"	/* kernel headers here, the shim in userspace */

struct ubdm_tlb_node;

/* A translation as a reader copies it out. */
struct ubdm_hit {
	u64 lba;	/* where the extent begins */
	u64 len;	/* its whole length */
	u64 off;	/* of @lba in the backing */
	u64 tid;
	u16 backing;
	u8 type;	/* UBDM_EXT_*, 0: a hole: [lba, lba+len) is unmapped */
	u8 perm;
};

struct ubdm_tlb {
	struct ubdm_tlb_node __rcu *root;
	u64 committed_tid;	/* writers: lock; readers: READ_ONCE */
	u64 touched_tid;	/* highest tid of an uncommitted extent that was written */
	u64 max_tid;		/* highest tid seen; lock */
	u64 nr;			/* extents; lock */
	u64 max;		/* bound, uncommitted extents excepted; lock */
	u64 evicted;		/* lock */
	u64 hand;		/* the clock's position, an lba; lock */
	struct mutex lock;	/* writers */
};

int ubdm_tlb_init(struct ubdm_tlb *tlb, u64 max);
void ubdm_tlb_destroy(struct ubdm_tlb *tlb);

/*
 * Reader side, under rcu_read_lock (and the device's SRCU if I/O follows).
 * Fills *hit with the extent that contains lba, or with the hole around it.
 */
void ubdm_tlb_lookup(struct ubdm_tlb *tlb, u64 lba, struct ubdm_hit *hit);

/*
 * As lookup, for a write that is about to use the extent: marks it touched if
 * it is uncommitted, so that a later FLUSH, DUMP or COMMIT sees it.
 */
void ubdm_tlb_lookup_write(struct ubdm_tlb *tlb, u64 lba, struct ubdm_hit *hit);

/*
 * Install a transaction.  ext[] has been copied from the user and checked for
 * everything that does not depend on the tree (rising, disjoint, inside the
 * device, types, permissions, backings).  Returns 0; 1 if something was
 * superseded, so that the caller must drain before it tells completion;
 * -EEXIST (see the uapi), -ENOMEM, -EINVAL (tid not above the committed one).
 */
int ubdm_tlb_install(struct ubdm_tlb *tlb, const struct ubdm_extent *ext,
		     unsigned int nr);

/* Forget clean extents.  0, -EBUSY (something uncommitted there), -ENOMEM. */
int ubdm_tlb_inval_lba(struct ubdm_tlb *tlb, u64 lba, u64 len);
int ubdm_tlb_inval_backing(struct ubdm_tlb *tlb, u16 backing, u64 off, u64 len);
bool ubdm_tlb_uses_backing(struct ubdm_tlb *tlb, u16 backing);

int ubdm_tlb_commit(struct ubdm_tlb *tlb, u64 tid);

/* Is an acknowledged change uncommitted?  *tid: up to which to commit. */
bool ubdm_tlb_must_commit(struct ubdm_tlb *tlb, u64 *tid);

/*
 * Copy out up to nr extents from *lba on, splitting none; *lba: where to go on,
 * U64_MAX at the end.  Returns how many.
 */
unsigned int ubdm_tlb_dump(struct ubdm_tlb *tlb, u64 *lba, bool uncommitted,
			   struct ubdm_extent *ext, unsigned int nr);

/* Evict about nr clean extents that were not accessed lately. */
unsigned int ubdm_tlb_evict(struct ubdm_tlb *tlb, unsigned int nr);

#endif /* UBDM_TLB_H */
