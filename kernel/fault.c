// SPDX-License-Identifier: GPL-2.0-only
/*
 * fault.c - the table of outstanding faults.
 *
 * States change in enter() only, which knows what may follow what; it also
 * keeps the lists, so a fault is in the list of its state and in no other.  Only
 * a DELIVERED fault has a cookie, so that only such a one can be found.
 *
 * Bios that wait on one fault keep their order.  Between those in an overflow
 * FIFO and those that found a fault for their granule later there is none: they
 * are in flight at the same time.
 *
 * What holds the lock is bounded by the number of tags, but for ending a fault,
 * which visits each bio that waited on it once.
 */
#include "fault.h"

#define MOVE_UP		(2 * UBDM_FAULT_TAGS)	/* bios, from overflow in one go */

/* bi_cookie while we own a bio: kind << 16 | tries */
#define KIND_SHIFT	16
#define TRIES_MASK	0xffff

/* The cookie's low half: a number, 23 bits of it for UBDM_FAULT_POS, and a tag. */
#define TAG_BITS	8
#define TAG_FLUSH	UBDM_FAULT_TAGS

static_assert(UBDM_FAULT_TAGS + 2 <= 1 << TAG_BITS);
static_assert(UBDM_FAULT_TRIES < TRIES_MASK);

/* A bio that was not owned yet, or no more (a FUA write that ended), is new. */
static unsigned int bio_tries(const struct bio *bio)
{
	if (bio->bi_cookie == BLK_QC_T_NONE)
		return 0;
	return bio->bi_cookie & TRIES_MASK;
}

static u8 bio_kind(const struct bio *bio)
{
	return bio->bi_cookie >> KIND_SHIFT;
}

static void bio_note(struct bio *bio, u8 kind, unsigned int tries)
{
	bio->bi_cookie = (u32)kind << KIND_SHIFT | tries;
}

static const u8 may_enter[] = {
	[UBDM_FS_FREE]		= BIT(UBDM_FS_GATHERING) | BIT(UBDM_FS_QUEUED),
	[UBDM_FS_GATHERING]	= BIT(UBDM_FS_QUEUED) | BIT(UBDM_FS_FREE),
	[UBDM_FS_QUEUED]	= BIT(UBDM_FS_DELIVERED) | BIT(UBDM_FS_FREE),
	[UBDM_FS_DELIVERED]	= BIT(UBDM_FS_QUEUED) | BIT(UBDM_FS_HELD) |
				  BIT(UBDM_FS_PLACING) | BIT(UBDM_FS_FREE),
	[UBDM_FS_HELD]		= BIT(UBDM_FS_QUEUED) | BIT(UBDM_FS_FREE),
	[UBDM_FS_PLACING]	= BIT(UBDM_FS_FREE),
};

/*
 * The one place where a fault changes its state.  Users choose among the
 * changes of a fault that they found by its cookie, which is DELIVERED, and all
 * of these are legal: to get at the WARN takes a bug of the driver.
 */
static void enter(struct ubdm_ftab *t, struct ubdm_faultp *f,
		  enum ubdm_fault_state state)
{
	bool flush = f->kind == UBDM_FAULT_FLUSH;

	lockdep_assert_held(&t->lock);
	if (WARN_ON_ONCE(!(may_enter[f->state] & BIT(state))))
		return;
	list_del_init(&f->link);
	f->cookie = 0;
	if (state == UBDM_FS_QUEUED) {
		list_add_tail(&f->link, &t->queued);
	} else if (state == UBDM_FS_HELD) {
		list_add_tail(&f->link, &t->held);
	} else if (state == UBDM_FS_FREE && !flush) {
		rb_erase(&f->node, &t->ranges);
		list_add(&f->link, &t->free);
		t->nr_used--;
		t->nr_used_other -= f->kind != UBDM_FAULT_READ;
	}
	f->state = state;
}

static unsigned int tag_of(const struct ubdm_ftab *t, const struct ubdm_faultp *f)
{
	if (f->kind == UBDM_FAULT_FLUSH)
		return TAG_FLUSH + (f - t->flush);
	return f - t->tags;
}

static struct ubdm_faultp *fault_of(struct ubdm_ftab *t, unsigned int tag)
{
	if (tag < UBDM_FAULT_TAGS)
		return &t->tags[tag];
	tag -= TAG_FLUSH;
	return tag < ARRAY_SIZE(t->flush) ? &t->flush[tag] : NULL;
}

#define for_each_fault(t, f, i)						\
	for ((i) = 0; ((f) = fault_of(t, i)); (i)++)

/**
 * ubdm_ftab_init() - make an empty table
 * @t: the table
 * @size: of the device, in sectors
 *
 * Faults are a sector wide at least until @t->granule_shift is set.
 */
void ubdm_ftab_init(struct ubdm_ftab *t, u64 size)
{
	struct ubdm_faultp *f;
	unsigned int i;

	memset(t, 0, sizeof(*t));
	t->size = size;
	spin_lock_init(&t->lock);
	t->ranges = RB_ROOT;
	INIT_LIST_HEAD(&t->queued);
	INIT_LIST_HEAD(&t->held);
	INIT_LIST_HEAD(&t->free);
	for_each_fault(t, f, i) {
		INIT_LIST_HEAD(&f->link);
		if (i < TAG_FLUSH)
			list_add_tail(&f->link, &t->free);
		else
			f->kind = UBDM_FAULT_FLUSH;
	}
}

/*
 * How far the stream that faults at @start has come; 0 for a new one.  Where
 * the mapper maps ahead, the next fault comes behind what it mapped, so the
 * longer a stream the larger the gap that is taken for hits.  A fault that only
 * got its beginning mapped comes again from within.
 */
static u32 stream_seq(struct ubdm_ftab *t, u64 start, u64 end)
{
	struct ubdm_stream found = { .base = start };
	unsigned int i;

	for (i = 0; i < UBDM_FAULT_STREAMS; i++) {
		const struct ubdm_stream *s = &t->streams[i];
		u64 slack = 4 * (s->next - s->base) + (2ULL << t->granule_shift);

		if (s->next == s->base || start < s->last ||
		    start > s->next + slack)
			continue;
		found.base = s->base;
		break;
	}
	/* The latest comes first; the one that nobody followed longest goes. */
	i = min(i, UBDM_FAULT_STREAMS - 1U);
	memmove(t->streams + 1, t->streams, i * sizeof(*t->streams));
	found.last = start;
	found.next = end;
	t->streams[0] = found;
	return min_t(u64, start - found.base, U32_MAX);
}

/* Let bio wait on f. */
static void join(struct ubdm_faultp *f, struct bio *bio)
{
	u64 start = bio->bi_iter.bi_sector;

	f->want_start = min_t(u64, f->want_start, start);
	f->want_end = max_t(u64, f->want_end, start + bio_sectors(bio));
	f->tries = max_t(unsigned int, f->tries, bio_tries(bio));
	f->nr_waiters++;
	bio_list_add(&f->waiters, bio);
}

/* A fault that is FREE gets its first waiter. */
static void begin(struct ubdm_faultp *f, struct bio *bio)
{
	bio_list_init(&f->waiters);
	f->want_start = U64_MAX;
	f->want_end = 0;
	f->tid = 0;
	f->since = jiffies;
	f->nr_waiters = 0;
	f->seq = 0;
	f->tries = 0;
	f->space = false;
	f->priv = NULL;
	join(f, bio);
}

static bool tag_left(const struct ubdm_ftab *t, u8 kind)
{
	if (t->nr_used == UBDM_FAULT_TAGS)
		return false;
	return kind == UBDM_FAULT_READ ||
	       t->nr_used_other < UBDM_FAULT_TAGS - UBDM_FAULT_TAGS_READ;
}

/*
 * Find the fault that covers the bio's first granule, or give it one.  Returns
 * 1 if it is a new one, 0 if not, -EBUSY if no tag is left.
 */
static int place_on_fault(struct ubdm_ftab *t, struct bio *bio, u8 kind)
{
	u64 first = bio->bi_iter.bi_sector, granule = 1ULL << t->granule_shift;
	u64 start = first & ~(granule - 1);
	u64 end = (first + bio_sectors(bio) + granule - 1) & ~(granule - 1);
	struct rb_node **link = &t->ranges.rb_node, *parent = NULL;
	struct ubdm_faultp *f;

	end = max(end, start + granule);
	while (*link) {
		parent = *link;
		f = rb_entry(parent, struct ubdm_faultp, node);
		if (start < f->start) {
			end = min(end, f->start);
			link = &parent->rb_left;
		} else if (start >= f->end) {
			link = &parent->rb_right;
		} else {
			join(f, bio);
			return 0;
		}
	}
	if (!tag_left(t, kind))
		return -EBUSY;

	f = list_first_entry(&t->free, struct ubdm_faultp, link);
	f->kind = kind;
	f->start = start;
	f->end = end > t->size && start < t->size ? t->size : end;
	begin(f, bio);
	if (kind == UBDM_FAULT_READ || kind == UBDM_FAULT_WRITE)
		f->seq = stream_seq(t, first, first + bio_sectors(bio));
	t->nr_used++;
	t->nr_used_other += kind != UBDM_FAULT_READ;
	rb_link_node(&f->node, parent, link);
	rb_insert_color(&f->node, &t->ranges);
	enter(t, f, UBDM_FS_QUEUED);
	return 1;
}

/* Tags may be free again: let bios move up, the two FIFOs by turns. */
static void move_up(struct ubdm_ftab *t)
{
	unsigned int i, stuck = 0;

	for (i = 0; i < MOVE_UP && stuck < 2; i++) {
		struct bio_list *list = t->turn ? &t->overflow_read : &t->overflow;
		struct bio *bio = bio_list_pop(list);

		t->turn = !t->turn;
		stuck++;
		if (!bio)
			continue;
		if (place_on_fault(t, bio, bio_kind(bio)) < 0)
			bio_list_add_head(list, bio);
		else
			stuck = 0;
	}
}

/**
 * ubdm_ftab_park() - let a bio that missed wait
 * @t: the table
 * @bio: with at least one sector; its tries count from ubdm_bio_own()
 * @kind: UBDM_FAULT_READ, WRITE, DISCARD or ZEROES
 *
 * It waits on the fault that covers its first granule if there is one, whatever
 * its kind; else on a new one from there to its end, or to the next fault's
 * start; else, without a tag, in an overflow FIFO.
 *
 * Context: any, takes the lock.
 * Return: 1 if a fault was queued that must be delivered, 0 if not, -EIO if the
 * bio has made no progress for too long (it is not parked then).
 */
int ubdm_ftab_park(struct ubdm_ftab *t, struct bio *bio, u8 kind)
{
	unsigned long flags;
	int ret;

	if (bio_tries(bio) >= UBDM_FAULT_TRIES)
		return -EIO;
	bio_note(bio, kind, bio_tries(bio));

	spin_lock_irqsave(&t->lock, flags);
	t->nr_parked++;
	ret = place_on_fault(t, bio, kind);
	if (ret < 0) {
		bio_list_add(kind == UBDM_FAULT_READ ? &t->overflow_read :
						       &t->overflow, bio);
		ret = 0;
	}
	spin_unlock_irqrestore(&t->lock, flags);
	return ret;
}

/* Can a bio still join the flush that f stands for? */
static bool flush_open(const struct ubdm_faultp *f)
{
	return f->state == UBDM_FS_QUEUED || f->state == UBDM_FS_GATHERING;
}

/* A FLUSH fault was queued or freed: the gathering one joins it or follows. */
static void next_flush(struct ubdm_ftab *t)
{
	unsigned int i = t->flush[0].state != UBDM_FS_GATHERING;
	struct ubdm_faultp *f = &t->flush[i], *other = &t->flush[!i];

	if (f->state != UBDM_FS_GATHERING)
		return;
	if (other->state == UBDM_FS_FREE) {
		enter(t, f, UBDM_FS_QUEUED);
	} else if (other->state == UBDM_FS_QUEUED) {
		bio_list_merge(&other->waiters, &f->waiters);
		bio_list_init(&f->waiters);
		other->nr_waiters += f->nr_waiters;
		other->tid = max(other->tid, f->tid);
		other->tries = max(other->tries, f->tries);
		enter(t, f, UBDM_FS_FREE);
	}
}

/**
 * ubdm_ftab_park_flush() - let a FLUSH, or a finished FUA write, wait
 * @t: the table
 * @bio: a FLUSH or a FUA write
 * @tid: up to which must be committed
 *
 * Those that come while one FLUSH is with the mapper make the next.
 *
 * Context: any, takes the lock.
 * Return: as ubdm_ftab_park().
 */
int ubdm_ftab_park_flush(struct ubdm_ftab *t, struct bio *bio, u64 tid)
{
	struct ubdm_faultp *f = &t->flush[0], *other = &t->flush[1];
	unsigned long flags;
	int ret = 0;

	if (bio_tries(bio) >= UBDM_FAULT_TRIES)
		return -EIO;
	bio_note(bio, UBDM_FAULT_FLUSH, bio_tries(bio));

	spin_lock_irqsave(&t->lock, flags);
	t->nr_parked++;
	if (flush_open(other) || f->state > UBDM_FS_QUEUED)
		swap(f, other);
	if (flush_open(f)) {
		join(f, bio);
	} else {
		begin(f, bio);
		ret = other->state == UBDM_FS_FREE;
		enter(t, f, ret ? UBDM_FS_QUEUED : UBDM_FS_GATHERING);
	}
	f->tid = max(f->tid, tid);
	spin_unlock_irqrestore(&t->lock, flags);
	return ret;
}

static void describe(const struct ubdm_faultp *f, struct ubdm_fault *desc)
{
	const struct bio *front = f->waiters.head;

	*desc = (struct ubdm_fault) {
		.cookie = f->cookie,
		.tid = f->tid,
		.seq = f->seq,
		.tries = f->tries,
		.kind = f->kind,
		.nr_waiters = min_t(u32, f->nr_waiters, U16_MAX),
	};
	if (f->kind == UBDM_FAULT_FLUSH)
		return;
	desc->lba = front->bi_iter.bi_sector;
	desc->len = bio_sectors(front);
	desc->want_lba = f->want_start;
	desc->want_len = f->want_end - f->want_start;
	if (f->kind == UBDM_FAULT_WRITE && front->bi_opf & REQ_FUA)
		desc->flags |= UBDM_FAULT_F_FUA;
	if (f->kind == UBDM_FAULT_ZEROES && front->bi_opf & REQ_NOUNMAP)
		desc->flags |= UBDM_FAULT_F_NOUNMAP;
}

/**
 * ubdm_ftab_next() - deliver the oldest QUEUED fault
 * @t: the table
 * @desc: out: what the mapper is told, with a new cookie
 *
 * Context: any, lock held.
 * Return: the fault, DELIVERED now; NULL if there is none.
 */
struct ubdm_faultp *ubdm_ftab_next(struct ubdm_ftab *t, struct ubdm_fault *desc)
{
	struct ubdm_faultp *f;

	f = list_first_entry_or_null(&t->queued, struct ubdm_faultp, link);
	if (!f)
		return NULL;
	enter(t, f, UBDM_FS_DELIVERED);
	/* Never 0, nor 0 in what UBDM_FAULT_POS() leaves of it. */
	t->seq++;
	if (!(u32)(t->seq << (TAG_BITS + 1)))
		t->seq++;
	f->cookie = (u64)t->epoch << 32 | (u32)(t->seq << TAG_BITS) | tag_of(t, f);
	f->filled = 0;
	describe(f, desc);
	return f;
}

/**
 * ubdm_ftab_pending() - is there anything to deliver?
 * @t: the table
 *
 * Context: any, lock held.
 * Return: true if there is.
 */
bool ubdm_ftab_pending(const struct ubdm_ftab *t)
{
	return !list_empty(&t->queued);
}

static void to_head(struct ubdm_ftab *t, struct ubdm_faultp *f)
{
	enter(t, f, UBDM_FS_QUEUED);
	list_move(&f->link, &t->queued);
}

/**
 * ubdm_ftab_undeliver() - take a delivery back: its FETCH was cancelled
 * @t: the table
 * @f: DELIVERED; QUEUED at the head afterwards, its cookie void
 *
 * Context: any, lock held.
 */
void ubdm_ftab_undeliver(struct ubdm_ftab *t, struct ubdm_faultp *f)
{
	to_head(t, f);
	if (f->kind == UBDM_FAULT_FLUSH)
		next_flush(t);
}

/**
 * ubdm_ftab_find() - look a cookie up
 * @t: the table
 * @cookie: from the mapper, so it may be anything
 *
 * Context: any, lock held.
 * Return: the DELIVERED fault with this cookie, or NULL.
 */
struct ubdm_faultp *ubdm_ftab_find(struct ubdm_ftab *t, u64 cookie)
{
	struct ubdm_faultp *f = fault_of(t, cookie & (BIT(TAG_BITS) - 1));

	lockdep_assert_held(&t->lock);
	return f && cookie && f->cookie == cookie ? f : NULL;
}

/**
 * ubdm_ftab_find_pos() - look up what UBDM_FAULT_POS() leaves of a cookie
 * @t: the table
 * @pos: the upper half of the position, from the mapper
 *
 * Context: any, lock held.
 * Return: the DELIVERED fault, no FLUSH, whose cookie has these low 31 bits, or
 * NULL.
 */
struct ubdm_faultp *ubdm_ftab_find_pos(struct ubdm_ftab *t, u32 pos)
{
	struct ubdm_faultp *f = fault_of(t, pos & (BIT(TAG_BITS) - 1));

	lockdep_assert_held(&t->lock);
	if (!f || !f->cookie || f->kind == UBDM_FAULT_FLUSH)
		return NULL;
	return (f->cookie & 0x7fffffff) == pos ? f : NULL;
}

/**
 * ubdm_ftab_front() - the front request
 * @f: the fault
 *
 * Context: any, lock held.
 * Return: the bio that DONE, ERROR and PLACE act on; NULL after ubdm_ftab_pop()
 * of the only one.
 */
struct bio *ubdm_ftab_front(struct ubdm_faultp *f)
{
	return f->waiters.head;
}

/**
 * ubdm_ftab_pop() - take the front request off: to complete, fail or place it
 * @t: the table
 * @f: DELIVERED, or PLACING where its front was not taken off before
 *
 * The others stay.  The caller ends the fault, in this critical section or, if
 * it is PLACING, later.
 *
 * Context: any, lock held.
 * Return: the bio, which is the caller's; NULL if there is none.
 */
struct bio *ubdm_ftab_pop(struct ubdm_ftab *t, struct ubdm_faultp *f)
{
	struct bio *bio = bio_list_pop(&f->waiters);

	lockdep_assert_held(&t->lock);
	if (bio) {
		f->nr_waiters--;
		t->nr_parked--;
	}
	return bio;
}

/* Free the fault; its waiters go to *out. */
static void vacate(struct ubdm_ftab *t, struct ubdm_faultp *f, struct bio_list *out)
{
	bio_list_merge(out, &f->waiters);
	bio_list_init(&f->waiters);
	t->nr_parked -= f->nr_waiters;
	f->nr_waiters = 0;
	t->longest = max(t->longest, jiffies - f->since);
	enter(t, f, UBDM_FS_FREE);
}

/**
 * ubdm_ftab_end() - a fault is resolved
 * @t: the table
 * @f: DELIVERED or PLACING
 * @progress: the tries of the waiters begin anew; else they rise
 * @out: the waiters are added here, in their order
 *
 * The tag is freed and bios move up from the overflow.
 *
 * Context: any, lock held.
 * Return: 1 if something is queued now, else 0.
 */
int ubdm_ftab_end(struct ubdm_ftab *t, struct ubdm_faultp *f, bool progress,
		  struct bio_list *out)
{
	struct bio *bio;

	bio_list_for_each(bio, &f->waiters)
		bio_note(bio, bio_kind(bio), progress ? 0 : bio_tries(bio) + 1);
	vacate(t, f, out);
	if (f->kind == UBDM_FAULT_FLUSH)
		next_flush(t);
	else
		move_up(t);
	return ubdm_ftab_pending(t);
}

/**
 * ubdm_ftab_hold() - not now: deliver again later
 * @t: the table
 * @f: DELIVERED
 * @due: jiffies
 *
 * Context: any, lock held.
 */
void ubdm_ftab_hold(struct ubdm_ftab *t, struct ubdm_faultp *f, unsigned long due)
{
	f->due = due;
	enter(t, f, UBDM_FS_HELD);
}

/**
 * ubdm_ftab_place() - the kernel writes the front request by itself
 * @t: the table
 * @f: DELIVERED; its granules stay taken until ubdm_ftab_end()
 * @priv: for the caller
 *
 * Context: any, lock held.
 */
void ubdm_ftab_place(struct ubdm_ftab *t, struct ubdm_faultp *f, void *priv)
{
	f->priv = priv;
	enter(t, f, UBDM_FS_PLACING);
}

/**
 * ubdm_ftab_unhold() - queue HELD faults that are due
 * @t: the table
 * @now: jiffies
 * @all: queue all of them
 *
 * Context: any, lock held.
 * Return: 1 if any was queued, else 0.
 */
int ubdm_ftab_unhold(struct ubdm_ftab *t, unsigned long now, bool all)
{
	struct ubdm_faultp *f, *next;
	int any = 0;

	list_for_each_entry_safe(f, next, &t->held, link) {
		if (!all && time_before(now, f->due))
			continue;
		enter(t, f, UBDM_FS_QUEUED);
		any = 1;
	}
	next_flush(t);
	return any;
}

/**
 * ubdm_ftab_requeue() - another channel is served from now on
 * @t: the table
 * @epoch: its
 * @newest_tid: what FLUSH faults ask for at least
 *
 * What was DELIVERED or HELD is queued again in front of the others, and old
 * cookies are void.
 *
 * Context: any, lock held.
 * Return: 1 if something is queued now, else 0.
 */
int ubdm_ftab_requeue(struct ubdm_ftab *t, u32 epoch, u64 newest_tid)
{
	struct ubdm_faultp *f;
	unsigned int i;

	t->epoch = epoch;
	t->longest = 0;
	for_each_fault(t, f, i)
		if (f->state == UBDM_FS_DELIVERED || f->state == UBDM_FS_HELD)
			to_head(t, f);
	next_flush(t);
	for (i = 0; i < ARRAY_SIZE(t->flush); i++)
		t->flush[i].tid = max(t->flush[i].tid, newest_tid);
	return ubdm_ftab_pending(t);
}

/**
 * ubdm_ftab_kill() - give up
 * @t: the table
 * @out: every bio that waits is added here, but for those on PLACING faults,
 *	which the caller ends when their write has, and on pinned ones: who pinned
 *	looks for a dead device afterwards
 *
 * Context: any, lock held.
 */
void ubdm_ftab_kill(struct ubdm_ftab *t, struct bio_list *out)
{
	struct ubdm_faultp *f;
	struct bio *bio;
	unsigned int i;

	for_each_fault(t, f, i)
		if (f->state != UBDM_FS_FREE && f->state != UBDM_FS_PLACING && !f->pinned)
			vacate(t, f, out);
	while ((bio = bio_list_pop(&t->overflow_read)) ||
	       (bio = bio_list_pop(&t->overflow))) {
		t->nr_parked--;
		bio_list_add(out, bio);
	}
}

/**
 * ubdm_ftab_want_space() - a fault is about to be held for want of space
 * @t: the table
 * @f: DELIVERED
 * @now: jiffies
 * @reads: the reads that wait behind a write are added here: they need no
 *	space, and the mapper has mapped what they want, or will
 *
 * It stays so until it ends, also while the mapper is asked again.
 *
 * Context: any, lock held.
 */
void ubdm_ftab_want_space(struct ubdm_ftab *t, struct ubdm_faultp *f,
			  unsigned long now, struct bio_list *reads)
{
	struct bio_list stay;
	struct bio *bio;

	if (!f->space)
		f->space_since = now;
	f->space = true;
	if (f->kind == UBDM_FAULT_READ || f->kind == UBDM_FAULT_FLUSH)
		return;
	bio_list_init(&stay);
	while ((bio = bio_list_pop(&f->waiters))) {
		if (bio_kind(bio) != UBDM_FAULT_READ) {
			bio_list_add(&stay, bio);
			continue;
		}
		bio_note(bio, UBDM_FAULT_READ, 0);
		f->nr_waiters--;
		t->nr_parked--;
		bio_list_add(reads, bio);
	}
	f->waiters = stay;
}

/**
 * ubdm_ftab_flush_waits() - is a FLUSH the mapper's to answer?
 * @t: the table
 *
 * Context: any, lock held.
 * Return: true if so, delivered or not.
 */
bool ubdm_ftab_flush_waits(const struct ubdm_ftab *t)
{
	return t->flush[0].state != UBDM_FS_FREE ||
	       t->flush[1].state != UBDM_FS_FREE;
}

/**
 * ubdm_ftab_wants_space() - does any fault wait for space?
 * @t: the table
 *
 * Context: any, lock held.
 * Return: true if one does.
 */
bool ubdm_ftab_wants_space(const struct ubdm_ftab *t)
{
	const struct ubdm_faultp *f;
	unsigned int i;

	for_each_fault((struct ubdm_ftab *)t, f, i)
		if (f->state != UBDM_FS_FREE && f->space)
			return true;
	return false;
}

/**
 * ubdm_ftab_expire_space() - give up what has waited for space for too long
 * @t: the table
 * @now: jiffies
 * @timeout: jiffies
 * @flushes: flushes that waited so long are added here
 * @out: and other bios here; reads are to be looked up again
 *
 * Context: any, lock held.
 */
void ubdm_ftab_expire_space(struct ubdm_ftab *t, unsigned long now,
			    unsigned long timeout, struct bio_list *flushes,
			    struct bio_list *out)
{
	struct ubdm_faultp *f, *next;

	list_for_each_entry_safe(f, next, &t->held, link) {
		if (!f->space || time_before(now, f->space_since + timeout))
			continue;
		vacate(t, f, f->kind == UBDM_FAULT_FLUSH ? flushes : out);
	}
	next_flush(t);
	move_up(t);
}

static const struct ubdm_faultp *oldest(const struct ubdm_ftab *t)
{
	const struct ubdm_faultp *f, *found = NULL;
	unsigned int i;

	for_each_fault((struct ubdm_ftab *)t, f, i) {
		if (f->state != UBDM_FS_GATHERING && f->state != UBDM_FS_QUEUED &&
		    f->state != UBDM_FS_DELIVERED)
			continue;
		if (f->space)
			continue;
		if (!found || time_before(f->since, found->since))
			found = f;
	}
	return found;
}

/**
 * ubdm_ftab_stalled() - has somebody waited for an answer for too long?
 * @t: the table
 * @now: jiffies
 * @limit: jiffies
 * @desc: out, if so: which fault
 *
 * Context: any, lock held.
 * Return: true if so.
 */
bool ubdm_ftab_stalled(const struct ubdm_ftab *t, unsigned long now,
		       unsigned long limit, struct ubdm_fault *desc)
{
	const struct ubdm_faultp *f = oldest(t);

	if (!f || time_before(now, f->since + limit))
		return false;
	describe(f, desc);
	return true;
}

/**
 * ubdm_ftab_oldest() - since when has anybody waited for an answer?
 * @t: the table
 * @since: out: jiffies
 *
 * HELD faults were answered, PLACING ones too.
 *
 * Context: any, lock held.
 * Return: false if nobody does.
 */
bool ubdm_ftab_oldest(const struct ubdm_ftab *t, unsigned long *since)
{
	const struct ubdm_faultp *f = oldest(t);

	if (f)
		*since = f->since;
	return f;
}
