/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fakedev_int.h - what the files of the fake device share; see fakedev.h.
 *
 * Lock order: the image's lock (inside the slowpath) > d->lock.  So nothing
 * here calls into the slowpath with d->lock held, and the callbacks take it.
 *
 * A transaction is applied inside the callback: that is its submission.  Its
 * acknowledgement waits in a list until every I/O that began before has ended
 * (the drain), and sometimes longer.  An I/O is in d->active from its lookup,
 * under the same hold of the lock, to its end.
 */
#ifndef TESTS_FAKE_FAKEDEV_INT_H
#define TESTS_FAKE_FAKEDEV_INT_H

#include "util.h"
#include <pthread.h>
#include "fakedev.h"
#include "io.h"

#define MAX_BACKINGS	(4 * SP_MAX_STORES)

struct backing {
	int fd;			/* as the kernel registered it: L */
	int io;			/* our own, direct unless BUFFERED */
	uint32_t flags;
	bool written;		/* since the last flush */
};

struct active {
	uint64_t seq;
	struct active *next;
};

struct ack {
	uint64_t token;
	uint64_t seq;		/* I/O up to this one must have ended */
	uint64_t due;		/* in d->clock, unless told to settle */
	int res;
	struct ack *next;
};

struct fault {
	struct sp_req req;
	const void *data;	/* WRITE: the front request's, NULL: not to be had */
	bool taken;		/* and the slowpath has it */
	uint64_t start, end;	/* granules */
	struct fault *next;
	bool answered;
	struct sp_reply reply;
	struct sp_extent *place;
	int refused;
	bool placing;		/* written, not installed */
};

struct fdev {
	struct sp_image *img;
	struct fdev_opts opt;
	char *path;
	struct sp_info info;	/* as it was first; must not change */
	struct rng rng;
	struct fdev_stats stats;

	pthread_mutex_t lock;	/* all below */
	pthread_cond_t wake, quit;
	struct sp_extent *ext;	/* rising and disjoint; .store is a backing here */
	unsigned int nr, room;
	struct backing backing[MAX_BACKINGS];
	unsigned int nr_backings;
	uint16_t store_to_backing[SP_MAX_STORES];
	unsigned int nr_stores;
	uint64_t max_tid, committed;
	uint64_t placed_tid;	/* highest of a PLACE, installed or not */
	uint64_t seq, clock;
	struct active *active;
	struct ack *acks;
	struct fault *faults;
	bool failed;		/* a sync failed */
	bool ahead;		/* sp_ahead() was asked for */
	bool dead;		/* the mapper is; nobody listens to it */
	bool attaching, keep_cache;
	int64_t busy_since;	/* the only thread is inside sp_handle() since */
	unsigned int acking;	/* threads inside sp_acked() */

	struct active held;

	pthread_t acker;	/* so that a call that waits for an ack gets it */
	bool stop;
};

static inline uint64_t fmap_end(const struct sp_extent *e)
{
	return e->lba + e->len;
}

static inline bool fmap_has_off(const struct sp_extent *e)
{
	return e->type == SP_LINEAR || e->type == SP_JOURNAL;
}

static inline void fmap_advance(struct sp_extent *e, uint64_t n)
{
	e->lba += n;
	e->len -= n;
	if (fmap_has_off(e))
		e->off += n;
}

static inline bool fdev_is_dead(const struct fdev *d)
{
	return __atomic_load_n(&d->dead, __ATOMIC_ACQUIRE);
}

__attribute__((format(printf, 1, 2), noreturn)) void fdev_breach(const char *fmt, ...);
void *fdev_alloc(size_t n);
bool fdev_revive(struct fdev *d);

unsigned int fmap_find(const struct fdev *d, uint64_t lba);
void fmap_remove(struct fdev *d, unsigned int i);
void fmap_carve(struct fdev *d, uint64_t lba, uint64_t end);
void fmap_fill(struct fdev *d, const struct sp_extent *e);
void fmap_check_shared(const struct fdev *d, const struct sp_extent *e);
void fmap_check(struct fdev *d, const struct sp_extent *e, bool clean_only);
int fmap_apply(struct fdev *d, const struct sp_extent *ext, unsigned int nr, bool clean_only);

void fdrain_begin(struct fdev *d, struct active *io);
void fdrain_end(struct fdev *d, struct active *io);
void fdrain_queue(struct fdev *d, uint64_t token, int res);
void fdrain_pump(struct fdev *d, bool all);
void fdrain_drop(struct fdev *d);
void *fdrain_thread(void *arg);

#endif /* TESTS_FAKE_FAKEDEV_INT_H */
