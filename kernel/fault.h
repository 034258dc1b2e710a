/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fault.h - who waits for what: the table of outstanding faults.
 *
 * Bios that miss are parked on a fault, linked by bi_next; the mapper is told
 * of the fault once.  Faults of one device cover disjoint ranges of whole
 * granules.  Their number is bounded by tags; bios beyond that wait in FIFOs.
 * A parked bio holds no mempool element, no drain reference, no request.
 *
 *   FREE -> QUEUED -> DELIVERED -> FREE		(resolved)
 *              ^         |  |  \
 *              |         |  |   -> PLACING -> FREE
 *              +---------+  -> HELD -> QUEUED	(after its delay)
 *        (taken back: a new cookie next time)
 *
 * A full disk holds writes for long.  So that it cannot starve reads, a quarter
 * of the tags and an overflow FIFO of their own are reserved for READ faults.
 *
 * FLUSHes have two faults of their own.  While one is with the mapper the other
 * is GATHERING; it is queued when the first has been answered, since a commit
 * that had begun does not cover what came later.
 *
 * How often a bio was looked up again without progress travels in its bi_cookie
 * while we own it (we offer no polling, nobody else reads it then), and its kind
 * with it.
 *
 * This file and fault.c are also built in userspace against tests/shim; they
 * know a bio only as bi_next, bi_opf, and its first sector and length.
 */
#ifndef UBDM_FAULT_H
#define UBDM_FAULT_H

#include "kdeps.h"

enum ubdm_fault_state {
	UBDM_FS_FREE,
	UBDM_FS_GATHERING,		/* FLUSH: the other one is not answered yet */
	UBDM_FS_QUEUED,
	UBDM_FS_DELIVERED,
	UBDM_FS_HELD,
	UBDM_FS_PLACING,
};

/* All under the table's lock. */
struct ubdm_faultp {
	struct rb_node node;		/* by start; not FLUSH */
	struct list_head link;		/* queued, held, or free */
	struct bio_list waiters;	/* the first is the front request */
	u64 start, end;			/* sectors, whole granules (clipped to the device) */
	u64 want_start, want_end;	/* sectors that the waiters want */
	u64 cookie;			/* of this delivery; 0: not DELIVERED */
	u64 tid;			/* FLUSH */
	unsigned long since;		/* jiffies of the first park */
	unsigned long due;		/* HELD: jiffies */
	u32 nr_waiters;
	u32 seq;
	u16 tries;			/* the most that a waiter has had */
	u8 kind;			/* UBDM_FAULT_* of the front request */
	u8 state;			/* enum ubdm_fault_state */
	bool space;			/* waits for space below, not for an answer */
	bool pinned;			/* DELIVERED: the front request's pages are in use */
	u32 filled;			/* DELIVERED, READ: bytes from its front on that were */
	unsigned long space_since;	/* jiffies */
	void *priv;			/* PLACING: the driver's */
};

#define UBDM_FAULT_TAGS		128
#define UBDM_FAULT_TAGS_READ	32	/* of these only READ faults may use */
#define UBDM_FAULT_TRIES	64	/* looked up without progress so often: fail */
#define UBDM_FAULT_STREAMS	8

struct ubdm_stream {
	u64 base;			/* where the sequence began */
	u64 last;			/* first sector of the last fault */
	u64 next;			/* sector behind it */
};

struct ubdm_ftab {
	spinlock_t lock;		/* irq-safe: bios park from any context */
	struct rb_root ranges;
	struct list_head queued;	/* to be delivered, FIFO */
	struct list_head held;
	struct list_head free;
	struct bio_list overflow_read;	/* no tag was free */
	struct bio_list overflow;
	unsigned int nr_parked;		/* bios, on faults and overflow */
	unsigned int nr_used;		/* tags */
	unsigned int nr_used_other;	/* of them not for READ */
	bool turn;			/* whose overflow moves up next */
	u32 epoch;			/* of the channel that is served */
	u32 seq;			/* cookie sequence */
	unsigned int granule_shift;	/* sectors */
	u64 size;			/* sectors */
	unsigned long longest;		/* jiffies that a fault took, since the epoch began */
	struct ubdm_stream streams[UBDM_FAULT_STREAMS];	/* latest first */
	struct ubdm_faultp flush[2];	/* reserved: one delivered, one gathering */
	struct ubdm_faultp tags[UBDM_FAULT_TAGS];
};

void ubdm_ftab_init(struct ubdm_ftab *t, u64 size);

/* ubdm_bio_own() when a bio first comes in, and where it made progress. */
static inline void ubdm_bio_own(struct bio *bio)
{
	bio->bi_cookie = 0;
}

static inline void ubdm_bio_disown(struct bio *bio)
{
	bio->bi_cookie = BLK_QC_T_NONE;
}

/* These take the lock. */
int ubdm_ftab_park(struct ubdm_ftab *t, struct bio *bio, u8 kind);
int ubdm_ftab_park_flush(struct ubdm_ftab *t, struct bio *bio, u64 tid);

/* The rest with t->lock held. */
struct ubdm_faultp *ubdm_ftab_next(struct ubdm_ftab *t, struct ubdm_fault *desc);
bool ubdm_ftab_pending(const struct ubdm_ftab *t);
void ubdm_ftab_undeliver(struct ubdm_ftab *t, struct ubdm_faultp *f);
struct ubdm_faultp *ubdm_ftab_find(struct ubdm_ftab *t, u64 cookie);
struct ubdm_faultp *ubdm_ftab_find_pos(struct ubdm_ftab *t, u32 pos);
struct bio *ubdm_ftab_front(struct ubdm_faultp *f);
struct bio *ubdm_ftab_pop(struct ubdm_ftab *t, struct ubdm_faultp *f);
int ubdm_ftab_end(struct ubdm_ftab *t, struct ubdm_faultp *f, bool progress,
		  struct bio_list *out);
void ubdm_ftab_hold(struct ubdm_ftab *t, struct ubdm_faultp *f, unsigned long due);
void ubdm_ftab_place(struct ubdm_ftab *t, struct ubdm_faultp *f, void *priv);
int ubdm_ftab_unhold(struct ubdm_ftab *t, unsigned long now, bool all);
int ubdm_ftab_requeue(struct ubdm_ftab *t, u32 epoch, u64 newest_tid);
void ubdm_ftab_kill(struct ubdm_ftab *t, struct bio_list *out);
void ubdm_ftab_want_space(struct ubdm_ftab *t, struct ubdm_faultp *f,
			  unsigned long now, struct bio_list *reads);
bool ubdm_ftab_flush_waits(const struct ubdm_ftab *t);
bool ubdm_ftab_wants_space(const struct ubdm_ftab *t);
void ubdm_ftab_expire_space(struct ubdm_ftab *t, unsigned long now,
			    unsigned long timeout, struct bio_list *flushes,
			    struct bio_list *out);
bool ubdm_ftab_stalled(const struct ubdm_ftab *t, unsigned long now,
		       unsigned long limit, struct ubdm_fault *desc);
bool ubdm_ftab_oldest(const struct ubdm_ftab *t, unsigned long *since);

#endif /* UBDM_FAULT_H */
