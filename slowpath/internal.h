/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * internal.h - what the files of the slowpath share.
 *
 * The way of a request.  sp_handle() takes the image's lock and lets a "try"
 * function decide.  It either replies, or changes nothing and says what it
 * lacks (struct need): a table that is not in memory, room in the pool, a copy
 * to be made, an acknowledgement to be waited for.  Where the caller may block
 * that is fetched with the lock dropped, and the try begins anew, from a state
 * that may be another one.  So a decision and the reply that tells of it are
 * always under one hold of the lock (rule 1 of the durability protocol).
 *
 * Layers.  Layer 0 is the image, layer n+1 backs layer n.  Only layer 0 is ever
 * written.  Store numbers are layer numbers; the cache, if there is one, is
 * the store after the last layer.
 *
 * Locking.  Everything in struct sp_image is under its lock, but for what
 * never changes after sp_open() and the files themselves.  There is one lock and
 * one condition, broadcast whenever something that may be waited for happens.
 */
#ifndef SLOWPATH_INTERNAL_H
#define SLOWPATH_INTERNAL_H

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "err.h"
#include "io.h"
#include "list.h"
#include "probe.h"
#include "slowpath.h"

#define MAX_DEPTH	64		/* backing files below the image */
#define HOLD_MEMORY_MS	100		/* out of memory: likewise */
#define HOLD_SPACE_MS	1000		/* out of space: ask again after */
#define HOLD_ACK_MS	2		/* an acknowledgement is missing */
#define TOKEN_CACHE	(1ull << 63)	/* this and a number of the cache's; else a tid */
#define ACK_WAIT_MS	5		/* how long a blocking caller waits for one */
#define COMMIT_MS	5000		/* age of the oldest change at which to commit */

struct q2;
struct cache;
struct sp_image;

/* --- layers (chain.c) ---------------------------------------------------- */

enum map_kind {
	MAP_DATA,	/* in the file, as it is */
	MAP_ZERO,
	MAP_UNALLOC,	/* the layer below knows; never from resolve() */
	MAP_COMP,	/* compressed */
	MAP_MIXED,	/* a block that data and zeros share; only from resolve() */
	MAP_BAD,	/* the table's entry makes no sense */
};

/**
 * struct mapping - what a layer says about a run of sectors
 * @kind: see there; the whole run is of one kind
 * @dirty: changed and not committed, or changing: no clean extent may tell of it
 * @busy: the first cluster's change is not acknowledged
 * @layer: whose it is
 * @len: sectors, at least 1
 * @off: DATA: sectors in the file
 * @desc: COMP: the table's entry
 * @skip: COMP: sectors of the cluster before the run
 */
struct mapping {
	enum map_kind kind;
	bool dirty;
	bool busy;
	unsigned int layer;
	uint64_t len;
	uint64_t off;
	uint64_t desc;
	uint64_t skip;
};

/**
 * struct layer - a file of the chain
 * @file: its descriptors
 * @format: of its content
 * @size: virtual size in sectors, an odd tail counted as a whole one
 * @file_bytes: size of the file at sp_open(); layer 0 follows its growth, or has
 *	opt.size
 * @q: for qcow2
 */
struct layer {
	struct sp_file file;
	enum sp_format format;
	uint64_t size;
	uint64_t file_bytes;
	struct q2 *q;
};

/* No space: something to wait for. */
static inline bool is_full(int rc)
{
	return rc == -ENOSPC || rc == -EDQUOT;
}

/* --- what a try lacks ----------------------------------------------------- */

enum need_kind {
	NEED_NONE,
	NEED_TABLE,	/* @layer's table slice @arg */
	NEED_FILL,	/* the cache lacks [@lba, @lba + @len) */
	NEED_WAIT,	/* something is under way: wait for img->cond */
	NEED_PREPARE,	/* the image was not made ready for writing */
	NEED_POOL,	/* @arg clusters */
	NEED_COPY,	/* old content of cluster @arg to a new one */
	NEED_ZERO,	/* zeros over [@lba, @lba + @len), to be done in place */
	NEED_COMMIT,	/* too much is uncommitted */
};

/*
 * @stop, @fills and @loads belong to try_read(): from where on nothing is to be
 * brought to the cache for this request, how often that was done, and how many
 * tables were loaded that it could do without.  @nonblock: it has to do with what
 * there is, if that will do.
 */
struct need {
	enum need_kind kind;
	unsigned int layer;
	uint64_t arg;
	uint64_t lba, len;
	uint64_t stop;
	unsigned int fills;
	unsigned int loads;
	bool nonblock;
};

/* --- replies (reply.c) ---------------------------------------------------- */

/*
 * A change: what a reply or its acknowledgement does to one cluster.  The engine
 * defines what the words mean.
 */
struct item {
	uint64_t gc;
	uint64_t prev;
	uint64_t next;
};

/**
 * struct pend - a reply whose extents are not acknowledged
 * @link: img->pending, tids rise
 * @tid: its extents'; also the token
 * @place: installed only when acknowledged
 * @nr: items
 * @room: for how many there is memory
 * @item: for the engine
 */
struct pend {
	struct list link;
	uint64_t tid;
	bool place;
	unsigned int nr;
	unsigned int room;
	struct item item[];
};

struct pend *pend_new(unsigned int items);
void pend_send(struct sp_image *img, struct pend *p);
struct pend *pend_find(struct sp_image *img, uint64_t token);
/* The highest tid below every one that is not acknowledged. */
uint64_t pend_floor(const struct sp_image *img);

/*
 * Extents of a reply being put together: rising; what continues the one before
 * is merged.  False when there is no room.
 */
struct extents {
	unsigned int nr, max;
	struct sp_extent *ext;
};

bool extents_add(struct extents *x, const struct sp_extent *e);

void reply_redrive(struct sp_image *img, const struct sp_req *req,
		   const struct extents *x, uint64_t token);
void reply_done(struct sp_image *img, const struct sp_req *req,
		const struct extents *x, uint64_t done, uint64_t token);
void reply_place(struct sp_image *img, const struct sp_req *req,
		 const struct extents *x, uint64_t token);
/* What passes, as ENOSPC, ENOMEM and a missing acknowledgement: HOLD; else ERROR. */
void reply_error(struct sp_image *img, const struct sp_req *req, int error);

/* --- engines --------------------------------------------------------------- */

/**
 * struct engine - what a format does for an image that is written to
 * @write: try WRITE; 0: replied, -EAGAIN: see need, others: fail the request
 * @zero: try DISCARD and ZEROES; likewise
 * @fulfil: get what a try lacked; the lock is dropped meanwhile.  0: try again,
 *	1: replied, -errno
 * @acked: @res of @p, which is off the list; frees nothing of it
 * @snapshot: begin a round: what is finished now.  Lowers *tid below what is
 *	left out.  True if an fdatasync is due before the metadata is written
 * @write_meta: the round's metadata, lock dropped.  -ENOSPC: again later
 * @committed: the round is durable
 * @work: background work; returns as sp_work()
 * @work_due: is that due earlier than at img->work_at?
 * @relink: as sp_relink()
 * @finish: as sp_finish()
 * @exit: free everything
 */
struct engine {
	int (*write)(struct sp_image *img, const struct sp_req *req,
		     struct need *need);
	int (*zero)(struct sp_image *img, const struct sp_req *req,
		    struct need *need);
	int (*fulfil)(struct sp_image *img, const struct sp_req *req,
		      struct need *need);
	void (*acked)(struct sp_image *img, struct pend *p, int res);
	bool (*snapshot)(struct sp_image *img, uint64_t *tid);
	int (*write_meta)(struct sp_image *img);
	void (*committed)(struct sp_image *img);
	int (*work)(struct sp_image *img);
	bool (*work_due)(const struct sp_image *img);
	int (*relink)(struct sp_image *img, const struct sp_extent *ext,
		      unsigned int nr, struct sp_err *err);
	int (*finish)(struct sp_image *img, const struct sp_extent *ext,
		      unsigned int nr, struct sp_err *err);
	void (*exit)(struct sp_image *img);
};

extern const struct engine raw_engine;
extern const struct engine q2_engine;

/* --- what is to be decompressed (ahead.c) ---------------------------------- */

#define NR_AHEAD	8

/**
 * struct ahead - sectors that are wanted in the cache
 * @next: where to go on
 * @end: behind the last; nothing is left if it is @next
 * @map: the kernel is told, else somebody waits who will tell it
 */
struct ahead {
	uint64_t next, end;
	bool map;
};

/* --- the image -------------------------------------------------------------- */

struct sp_image {
	struct sp_options opt;
	struct sp_info info;
	struct sp_store stores[MAX_DEPTH + 2];
	unsigned int nr_stores;
	struct layer layers[MAX_DEPTH + 1];
	unsigned int nr_layers;
	uint64_t block;			/* info.block_size in sectors */
	const struct engine *eng;	/* NULL: read-only */
	struct cache *cache;		/* NULL: nothing can need one */

	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool prepared;			/* rule 11 is done: RW extents may be given */
	int failed;			/* -errno, sticky (rule 30) */
	bool gone;			/* the channel is not ours any more */

	uint64_t next_tid;
	struct list pending;		/* struct pend */
	uint64_t given_back;		/* lowest tid that is never committed, 0: none */
	uint64_t oldest_ms;		/* when the oldest change was made, 0: none */
	uint64_t work_at;		/* when sp_work() is to be called next, ms */

	uint64_t sync_started;		/* fdatasyncs of layer 0, numbered */
	uint64_t sync_done;		/* the latest started of those that succeeded */

	/* commit.c */
	bool committing;
	bool round_open;		/* a round stopped for want of space */
	bool round_f1;
	uint64_t round_tid;
	uint64_t committed_tid;
	uint64_t rounds_begun, rounds_done;
	uint64_t acks, round_acks;	/* so far; at the latest snapshot */

	/* read.c: extents of the reply being made, under the lock */
	struct sp_extent scratch[SP_MAX_REPLY];

	struct ahead ahead[NR_AHEAD];
	unsigned int ahead_turn;	/* whose it is */

	struct sp_stats stats;
};

/* chain.c */
int chain_open(struct sp_image *img, struct sp_err *err);
void chain_close(struct sp_image *img);
int resolve(struct sp_image *img, uint64_t lba, uint64_t max, struct mapping *m,
	    struct need *need);
int chain_load(struct sp_image *img, const struct need *need);
int chain_read(struct sp_image *img, uint64_t lba, uint64_t len, void *buf);

/* raw.c */
int raw_map(const struct layer *l, uint64_t lba, uint64_t max, struct mapping *m);

/* read.c */
int try_read(struct sp_image *img, const struct sp_req *req, struct need *need);
void read_cached(struct sp_image *img, uint64_t lba, uint64_t end, struct extents *x);

/* ahead.c */
void ahead_want(struct sp_image *img, uint64_t lba, uint64_t end, bool map);
void ahead_stream(struct sp_image *img, const struct sp_req *req);

/* commit.c */
int image_sync(struct sp_image *img);
void image_fail(struct sp_image *img, int error);
int commit_upto(struct sp_image *img, uint64_t tid);
int flush_request(struct sp_image *img, const struct sp_req *req);
int commit_timer(struct sp_image *img);
uint64_t now_ms(void);
int cond_wait_ms(struct sp_image *img, unsigned int ms);

/* cache.c */
int cache_open(struct sp_image *img, uint64_t bytes, unsigned int slot_shift,
	       int fd, struct sp_err *err);
void cache_close(struct sp_image *img);
bool cache_find(struct sp_image *img, uint64_t lba, uint64_t *len, uint64_t *off);
int cache_fill(struct sp_image *img, const struct need *need);
int cache_piece(struct sp_image *img, const struct mapping *m, uint64_t lba,
		uint64_t *len);
uint64_t cache_ahead_max(const struct sp_image *img);
bool cache_acked(struct sp_image *img, uint64_t token, int res);

#endif /* SLOWPATH_INTERNAL_H */
