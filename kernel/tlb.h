/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * tlb.h - the device's extents: a persistent B+tree with lockless readers.
 *
 * A writer never changes an extent or a key that readers can see.  It copies the
 * path to what it changes, works on the copies, and publishes the new root with one
 * store; or, where one leaf is all that has changed, the pointer to it in its
 * parent.  A transaction of any number of extents is therefore whole or absent
 * for every lookup, and everything that can fail fails before it is visible.  Of
 * two lookups the later may see an earlier state, if no barrier is between them:
 * who has to know that a translation is out of use waits for a grace period.
 * Readers descend under RCU; nodes are freed after a grace period.
 *
 * What a reader must note in the tree (accessed, touched) are bits in the leaf.
 * "accessed" may get lost when a leaf is copied at that moment; "touched" must
 * not, see "Touching" in tlb_txn.c.
 *
 * An extent is uncommitted while its tid is above the committed tid: COMMIT is
 * one store, and "is anything uncommitted and touched" one comparison of the
 * highest touched tid with it.
 *
 * tlb_node.c has the nodes, tlb_txn.c the transactions, tlb.c what is done with them,
 * tlb_hit.h the lookup of a plain hit.
 * All are also built in userspace against tests/shim.
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
	u64 txn;		/* number of the latest transaction; lock */
	u64 max;		/* bound, uncommitted extents excepted; lock */
	u64 evicted;		/* lock */
	u64 hand;		/* the clock's position, an lba; lock */
	struct mutex lock;	/* writers */
	spinlock_t touch;	/* inside lock: leaves are frozen and the root changes */
	bool pinned;		/* nothing is evicted; lock, READ_ONCE */
};

int ubdm_tlb_init(struct ubdm_tlb *tlb, u64 max);
void ubdm_tlb_destroy(struct ubdm_tlb *tlb);

/* Readers, under rcu_read_lock (and the device's SRCU if I/O follows). */
void ubdm_tlb_lookup(struct ubdm_tlb *tlb, u64 lba, struct ubdm_hit *hit);
void ubdm_tlb_lookup_write(struct ubdm_tlb *tlb, u64 lba, struct ubdm_hit *hit);
bool ubdm_tlb_must_commit(struct ubdm_tlb *tlb, u64 *tid);

/* Writers: these take the lock and may sleep. */
int ubdm_tlb_install(struct ubdm_tlb *tlb, const struct ubdm_extent *ext,
		     unsigned int nr);
int ubdm_tlb_inval_lba(struct ubdm_tlb *tlb, u64 lba, u64 len);
int ubdm_tlb_inval_backing(struct ubdm_tlb *tlb, u16 backing, u64 off, u64 len);
bool ubdm_tlb_uses_backing(struct ubdm_tlb *tlb, u16 backing);
int ubdm_tlb_commit(struct ubdm_tlb *tlb, u64 tid);
unsigned int ubdm_tlb_dump(struct ubdm_tlb *tlb, u64 *lba, bool uncommitted,
			   struct ubdm_extent *ext, unsigned int nr);

void ubdm_tlb_pin(struct ubdm_tlb *tlb, bool pinned);

/* Only tries the lock: fit for a shrinker. */
unsigned int ubdm_tlb_evict(struct ubdm_tlb *tlb, unsigned int nr);

#endif /* UBDM_TLB_H */
