/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fault.h - who waits for what: the table of outstanding faults.
 *
 * Bios that miss are parked on a fault, linked by bi_next; the mapper is told
 * of the fault once.  Faults of one device cover disjoint ranges of whole
 * granules.  Their number is bounded by tags; bios beyond that wait in one
 * FIFO.  A parked bio holds no mempool element, no drain reference, no request.
 *
 *   FREE -> QUEUED -> DELIVERED -> FREE		(resolved)
 *              ^         |  |  \
 *              |         |  |   -> PLACING -> FREE
 *              +---------+  -> HELD -> QUEUED	(after its delay)
 *        (mapper gone: a new cookie)
 *
 * A full disk holds writes for long.  So that it cannot starve reads, a quarter
 * of the tags and an overflow FIFO of their own are reserved for READ faults.
 *
 * How often a bio was looked up again without progress travels in its bi_cookie
 * while we own it (we offer no polling, nobody else reads it then).
 *
 * This file and fault.c are also built in userspace against tests/shim; they
 * know a bio only as bi_next, bi_opf, and its first sector and length.
 */
#ifndef UBDM_FAULT_H
#define UBDM_FAULT_H

#include "kdeps.h"

enum ubdm_fault_state {
	UBDM_FS_FREE,
	UBDM_FS_QUEUED,
	UBDM_FS_DELIVERED,
	UBDM_FS_HELD,
	UBDM_FS_PLACING,
};

struct ubdm_faultp {
	struct rb_node node;		/* by start; not FLUSH */
	struct list_head link;		/* queued, held, or free */
	struct bio_list waiters;	/* the first is the front request */
	u64 start, end;			/* sectors, whole granules (clipped to the device) */
	u64 cookie;			/* of this delivery */
	u64 tid;			/* FLUSH */
	unsigned long since;		/* jiffies of the first park */
	unsigned long due;		/* HELD: jiffies */
	u32 seq;
	u16 tries;
	u8 kind;			/* UBDM_FAULT_* of the front request */
	u8 state;			/* enum ubdm_fault_state */
	void *priv;			/* PLACING: the driver's */
};

#define UBDM_FAULT_TAGS		128
#define UBDM_FAULT_TAGS_READ	32	/* of these only READ faults may use */
#define UBDM_FAULT_TRIES	64	/* looked up without progress so often: fail */
#define UBDM_FAULT_STREAMS	8

struct ubdm_stream {
	u64 next;			/* sector behind the last fault */
	u32 seq;			/* sectors in sequence up to there */
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
	u32 epoch;			/* of the channel that is served */
	u32 seq;			/* cookie sequence */
	unsigned int granule_shift;	/* sectors */
	u64 size;			/* sectors */
	struct ubdm_stream streams[UBDM_FAULT_STREAMS];
	unsigned int stream_hand;
	struct ubdm_faultp flush[2];	/* reserved: one delivered, one gathering */
	struct ubdm_faultp tags[UBDM_FAULT_TAGS];
};

void ubdm_ftab_init(struct ubdm_ftab *t, u64 size);

/* The tries a bio carries; ubdm_bio_own() when a bio first comes in. */
static inline void ubdm_bio_own(struct bio *bio) { bio->bi_cookie = 0; }
static inline void ubdm_bio_disown(struct bio *bio) { bio->bi_cookie = BLK_QC_T_NONE; }

/*
 * Park a bio that missed.  kind is UBDM_FAULT_READ, WRITE, DISCARD or ZEROES.
 * The bio waits on the fault that covers its first granule if there is one,
 * whatever its kind; else on a new one from there to its end or to the next
 * fault's start; else (no tag) in the overflow FIFO.  Takes the lock.
 * Returns 1 if a fault was queued that must be delivered, 0 if not, -EIO if
 * the bio has made no progress for too long (it is not parked then).
 */
int ubdm_ftab_park(struct ubdm_ftab *t, struct bio *bio, u8 kind);

/* Park a FLUSH (or a finished FUA write) until tid is committed.  As park. */
int ubdm_ftab_park_flush(struct ubdm_ftab *t, struct bio *bio, u64 tid);

/* The rest with t->lock held. */

/* Oldest QUEUED fault -> DELIVERED under a new cookie; fills desc.  NULL: none. */
struct ubdm_faultp *ubdm_ftab_next(struct ubdm_ftab *t, struct ubdm_fault *desc);
bool ubdm_ftab_pending(const struct ubdm_ftab *t);
/* Take a delivery back (its FETCH was cancelled): QUEUED again, at the head. */
void ubdm_ftab_undeliver(struct ubdm_ftab *t, struct ubdm_faultp *f);
/* The DELIVERED fault with this cookie, or NULL. */
struct ubdm_faultp *ubdm_ftab_find(struct ubdm_ftab *t, u64 cookie);
/* The DELIVERED fault whose cookie has these low 31 bits (see UBDM_FAULT_POS). */
struct ubdm_faultp *ubdm_ftab_find_pos(struct ubdm_ftab *t, u32 pos);
struct bio *ubdm_ftab_front(struct ubdm_faultp *f);
/*
 * End a DELIVERED or PLACING fault: its waiters go to *out in their order, with
 * their tries raised, or reset if there was progress; its tag is freed and bios
 * from the overflow move up.  Returns 1 if something is queued now, else 0.
 */
int ubdm_ftab_end(struct ubdm_ftab *t, struct ubdm_faultp *f, bool progress,
		  struct bio_list *out);
/* Take the front request off (to complete, fail or place it); others stay. */
struct bio *ubdm_ftab_pop(struct ubdm_ftab *t, struct ubdm_faultp *f);
void ubdm_ftab_hold(struct ubdm_ftab *t, struct ubdm_faultp *f, unsigned long due);
void ubdm_ftab_place(struct ubdm_ftab *t, struct ubdm_faultp *f, void *priv);
/* HELD faults that are due (all: whatever their time) -> QUEUED.  1 if any. */
int ubdm_ftab_unhold(struct ubdm_ftab *t, unsigned long now, bool all);
/* A new channel: DELIVERED and HELD -> QUEUED; a FLUSH takes the newest tid. */
int ubdm_ftab_requeue(struct ubdm_ftab *t, u32 epoch, u64 newest_tid);
/* Give up: every waiter but those of PLACING faults goes to *out. */
void ubdm_ftab_kill(struct ubdm_ftab *t, struct bio_list *out);
/* Earliest since of any fault not answered; false if there is none. */
bool ubdm_ftab_oldest(const struct ubdm_ftab *t, unsigned long *since);

#endif /* UBDM_FAULT_H */
