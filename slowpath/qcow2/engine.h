/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine.h - a qcow2 file that is written to.
 *
 * Truth.  The scan at open reads all metadata.  From then on memory has the
 * truth: each L2 entry as the kernel sees it, and who uses each host cluster.
 * The file lags behind by what is uncommitted; struct chg has the entry that
 * the file has where the two differ.
 *
 * A host cluster's life:
 *
 *	FREE --refill--> POOL --write--> USED --drop--> DROP --reclaim--> FREE
 *	  |                                               `-----refill--> POOL
 *	  `--refill--> RESERVE --new L2 table--> USED
 *
 * POOL and RESERVE are durably zero, durably counted 1 and inside the file
 * (rule 10); RESERVE has its disk space as well, so that an L2 table never needs
 * any (rules 24, 29).  DROP is what nothing on the file, in the kernel or in an
 * open round names any more (rule 16), still counted 1.
 *
 * Who may drop a cluster: whoever takes away the last of these names.  For one
 * guest cluster they are the entry in memory, the entry on the file, the entry
 * in the open round, and what an unacknowledged change would fall back to.
 *
 * Everything here is under the image's lock.  Refcounts are written by one
 * thread at a time (w->refilling), L1 and L2 by the commit round (img->committing):
 * there are never two writes in flight on one sector of metadata.
 */
#ifndef QCOW2_ENGINE_H
#define QCOW2_ENGINE_H

#include "qcow2.h"

#define SCAN_MAX_BYTES		(4ull << 30)	/* tables, and words for host clusters */
#define MAX_UNCOMMITTED		(1u << 17)	/* changes, then commit first */
#define MAX_CHANGE		8192		/* clusters in one reply */
#define AHEAD_MAX_BYTES		(8u << 20)	/* mapped ahead of a writer */
#define RESERVE_MAX		256

/* The file gets no longer: what it has, or a commit brings back, is all there is. */
static inline bool no_longer(int rc)
{
	return is_full(rc) || rc == -EFBIG;
}

/* --- host clusters (cluster.c) --------------------------------------------- */

enum hc_state { HC_FREE, HC_USED, HC_DROP, HC_POOL, HC_RESERVE };

#define HC_COMP			(1u << 31)	/* holds compressed data, may be shared */
#define HC_STATE_SHIFT		28
#define HC_COUNT		((1u << HC_STATE_SHIFT) - 1)

struct run {
	uint64_t hc, n;
};

/* --- changes (change.c) ------------------------------------------------------ */

/**
 * struct chg - a guest cluster that is uncommitted, or being worked on
 * @next: in its bucket
 * @link: w->changes
 * @gc: which
 * @file: the entry that the file has
 * @snap: the entry that the open round brings there, with @in_snap
 * @oldest: lowest tid that is not committed, 0: none
 * @newer: with @in_snap: the lowest that the round does not cover, 0: none
 * @f1: number of the fdatasync by which its content is there, 0: it was before
 * @in_snap: it is part of the open round
 * @sent: its latest change is not acknowledged
 * @busy: somebody makes its new content
 * @again: changed more than once since what the file has, or with @in_snap will have:
 *	    perhaps that is not what it reads
 * @seen: sp_finish(): the kernel has an extent for it
 * @touched: sp_finish(): and has written to it
 */
struct chg {
	struct chg *next;
	struct list link;
	uint64_t gc;
	uint64_t file;
	uint64_t snap;
	uint64_t oldest;
	uint64_t newer;
	uint64_t f1;
	bool in_snap;
	bool sent;
	bool busy;
	bool again;
	bool seen, touched;
};

/**
 * struct l2 - an L2 table in memory
 * @e: entries, NULL: there is none
 * @hc: where it is, or will be once a round links it
 * @nr_chg: struct chg in it
 * @asked: of doubt.c, NULL: nothing there
 */
struct l2 {
	uint64_t *e;
	uint64_t hc;
	unsigned int nr_chg;
	uint8_t *asked;
};

#define NR_STREAMS	8

/* Someone who writes in sequence. */
struct stream {
	uint64_t next;			/* gc */
	uint64_t window;		/* clusters mapped ahead last */
	uint64_t used;
};

struct q2w {
	struct sp_image *img;
	struct q2 *q;
	struct sp_file *file;
	unsigned int unit;		/* bytes of a sector of metadata */

	struct l2 *l2;			/* q->l1_size of them */

	uint64_t nb;			/* clusters in the file */
	uint64_t hc_room;
	uint32_t *hc;			/* count, state, HC_COMP */
	bool marked;			/* dirty by us, clean before */
	bool in_doubt;			/* the kernel may know less than is there: doubt.c */

	uint64_t *rt;			/* refcount table, as on the file */
	uint64_t rt_n;
	uint64_t *rdirty;		/* a bit for each unit of refcounts */
	uint64_t nr_rdirty;
	bool blocks_missing;
	uint64_t link_lo, link_hi;	/* blocks in rt that the file's may not name yet */

	struct run *pool;
	unsigned int pool_nr, pool_room;
	uint64_t pool_total;
	uint64_t reserve[RESERVE_MAX];
	unsigned int reserve_nr;
	uint64_t *drop;
	uint64_t drop_nr, drop_room;
	uint64_t drop_since;		/* ms, 0: none */
	bool drop_lost;			/* some are known by their state only */
	uint64_t nr_free;
	uint64_t free_hint;		/* where to look for FREE ones */
	uint64_t batch;			/* clusters of the next refill */
	uint64_t last_refill;		/* ms */
	bool refilling;

	struct chg **hash;
	uint64_t hash_size, nr_chg;
	struct list changes;
	struct chg **snap;		/* of the open round, by gc */
	uint64_t snap_nr, snap_room;
	uint8_t *round_buf;

	struct buffer *buffers;		/* free ones */
	struct chunk *chunks;		/* of which they are parts */

	struct stream stream[NR_STREAMS];
	uint64_t stream_clock;
};

/* engine.c, scan.c */
int q2w_open(struct sp_image *img, struct sp_err *err);
int q2_scan(struct q2w *w, struct sp_err *err);

/* cluster.c */
int hc_grow(struct q2w *w, uint64_t nb);
enum hc_state hc_state(const struct q2w *w, uint64_t hc);
uint64_t hc_refcount(const struct q2w *w, uint64_t hc);
void hc_set(struct q2w *w, uint64_t hc, enum hc_state state, uint32_t count);
void hc_drop(struct q2w *w, uint64_t hc);
void hc_drop_entry(struct q2w *w, uint64_t entry);
bool same_storage(const struct q2 *q, uint64_t a, uint64_t b);
uint64_t hc_find_free(struct q2w *w, uint64_t from, uint64_t max, uint64_t *n);

/* refcount.c */
uint64_t ref_per_block(const struct q2 *q);
uint64_t ref_per_unit(const struct q2w *w);
uint64_t ref_get(const struct q2 *q, const uint8_t *block, uint64_t i);
void ref_build(const struct q2w *w, uint8_t *buf, size_t bytes, uint64_t hc);
void ref_mark(struct q2w *w, uint64_t hc);
int ref_write(struct q2w *w);
int ref_cover(struct q2w *w, uint64_t first, uint64_t end);
bool ref_covers(const struct q2w *w, uint64_t hc);
int ref_link(struct q2w *w);
int q2_sync(struct q2w *w);

/* rtable.c */
int rt_grow(struct q2w *w, uint64_t blocks);
int file_extend(struct q2w *w, uint64_t nb);
int file_cut(struct q2w *w, uint64_t least);

/* pool.c */
uint64_t pool_take(struct q2w *w, uint64_t max, uint64_t *n);
void pool_put(struct q2w *w, uint64_t hc, uint64_t n);

/* refill.c */
int pool_refill(struct q2w *w, uint64_t clusters, unsigned int tables);
int reserve_for_links(struct q2w *w, unsigned int tables);
int pool_work(struct q2w *w);
bool pool_due(const struct q2w *w);
void refill_begin(struct q2w *w);
void refill_end(struct q2w *w);

/* reclaim.c */
struct hcs {			/* clusters on their way to the pool */
	uint64_t *hc;
	uint64_t nr, room;
};

int hcs_add(struct hcs *v, uint64_t hc);
void hcs_give_back(struct q2w *w, struct hcs *v);
int take_dropped(struct q2w *w, struct hcs *v);
int punch_clusters(struct q2w *w, const struct hcs *v);

/* change.c */
struct chg *chg_find(const struct q2w *w, uint64_t gc);
struct chg *chg_get(struct q2w *w, uint64_t gc);
void chg_put(struct q2w *w, struct chg *c);
void chg_apply(struct q2w *w, struct pend *p, struct chg *c, uint64_t next);
void chg_send(struct q2w *w, struct pend *p);
void chg_acked(struct sp_image *img, struct pend *p, int res);
void chg_exit(struct q2w *w);

/* table.c */
const uint64_t *q2w_table(const struct q2 *q, uint64_t l1);
bool q2w_is_dirty(const struct q2 *q, uint64_t gc);
bool q2w_is_busy(const struct q2 *q, uint64_t gc);
bool q2w_any_dirty(const struct q2 *q, uint64_t gc);
uint64_t entry_get(const struct q2w *w, uint64_t gc);
void entry_set(struct q2w *w, uint64_t gc, uint64_t entry);
int table_ensure(struct q2w *w, uint64_t gc);
bool table_missing(const struct q2w *w, uint64_t gc);

/* prepare.c */
int q2_prepare(struct q2w *w);
int header_write(struct q2w *w, bool dirty);
int header_rt(struct q2w *w, uint64_t off, uint32_t clusters);

/* class.c */
enum class {
	CLASS_DATA,	/* a cluster of its own */
	CLASS_ZERO,	/* zeros, no cluster */
	CLASS_KEPT,	/* zeros, but it has a cluster */
	CLASS_COPY,	/* content elsewhere */
};
int classify(struct q2w *w, uint64_t gc, enum class *class, struct need *need);
uint64_t gc_lba(const struct q2w *w, uint64_t gc);
uint64_t gc_end(const struct q2w *w, uint64_t gc);
void linear_extent(const struct q2w *w, struct sp_extent *e, uint64_t gc, uint64_t n,
		   uint64_t hc, uint64_t tid, uint32_t flags);

/* buffer.c */
uint8_t *buffer_get(struct q2w *w);
void buffer_put(struct q2w *w, uint8_t *buf);
void buffers_exit(struct q2w *w);

/* doubt.c */
int doubt_look(struct q2w *w, uint64_t gc, bool *stale);
void doubt_answered(struct q2w *w, uint64_t gc);
void doubt_settled(struct q2w *w, uint64_t gc);

/* write.c, stream.c, copy.c, zero.c */
int try_write(struct sp_image *img, const struct sp_req *req, struct need *need);
uint64_t stream_ahead(struct q2w *w, const struct sp_req *req, uint64_t gc);
void stream_mapped(struct q2w *w, uint64_t gc, uint64_t end, uint64_t ahead);
int copy_cluster(struct q2w *w, const struct sp_req *req, const struct need *need);
int try_zero(struct sp_image *img, const struct sp_req *req, struct need *need);
int zero_in_place(struct q2w *w, const struct sp_req *req, const struct need *need);

/* round.c */
bool round_snapshot(struct sp_image *img, uint64_t *tid);
int round_write(struct sp_image *img);
void round_committed(struct sp_image *img);

/* relink.c, finish.c */
int q2_relink(struct sp_image *img, const struct sp_extent *ext, unsigned int nr,
	      struct sp_err *err);
int q2_finish(struct sp_image *img, const struct sp_extent *ext, unsigned int nr,
	      struct sp_err *err);

#endif /* QCOW2_ENGINE_H */
