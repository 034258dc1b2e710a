/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mapper.h - inside of a mapper: an image on one side, a channel on the other.
 *
 * Threads.  What has no lock named belongs to the ring thread, which alone
 * runs completions (the done of a struct ubdm_cmd) and the FETCHes.  The
 * slowpath's callbacks run on any thread, with the image's lock held.
 *
 * Locks, outermost first: the image's (inside the slowpath) > m->lock >
 * m->ring.lock.  A completion calls sp_acked(), which takes the image's, so
 * it holds none of ours.
 *
 * Memory.  What the I/O path needs is allocated by ubdm_mapper_open(): jobs,
 * FETCH buffers, notes and extent tables.  Where more notes or tables are
 * needed than are there, malloc() is asked.
 */
#ifndef UBDM_MAPPER_H
#define UBDM_MAPPER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "alone.h"
#include "libubdmap.h"
#include "ring.h"
#include "slowpath.h"
#include "table.h"

#define NR_FETCH 8
#define FETCH_FAULTS 16
#define NR_NOTES 256

/**
 * struct job - one fault on its way to an answer
 * @pub: what the embedder sees of it
 * @cmd: its RESOLVE
 * @m: whose
 * @req: as the slowpath sees it
 * @cookie: 0 if nobody waits for the answer
 * @token: the slowpath's, for sp_acked()
 * @space: the answer was HOLD for want of space
 * @walk: nobody waits: what is answered is mapped, and noted there
 * @table: extents that the RESOLVE points to, or NULL
 */
struct job {
	struct ubdm_job pub;
	struct ubdm_cmd cmd;
	struct ubdm_mapper *m;
	struct sp_req req;
	uint64_t cookie;
	uint64_t token;
	bool space;
	struct walk *walk;
	struct ubdm_extent *table;
};

/**
 * struct walk - a look at the whole image, a reply at a time
 * @next: sector behind what is known without a gap
 * @whole: everything so far is in a file, for all that may be done to it
 * @perm: what that is: SP_PERM_*
 * @home: "in a file" means in the image itself
 * @error: a request failed or was put off
 */
struct walk {
	uint64_t next;
	bool whole;
	unsigned int perm;
	bool home;
	int error;
};

/**
 * struct fetch - one armed FETCH, or one with faults for which no job was free
 * @cmd: the FETCH itself
 * @m: the mapper
 * @pos: the next fault to look at
 * @nr: how many came
 * @faults: where the kernel puts them
 */
struct fetch {
	struct ubdm_cmd cmd;
	struct ubdm_mapper *m;
	unsigned int pos, nr;
	struct ubdm_fault faults[FETCH_FAULTS];
};

/**
 * struct note - a MAP, INVALIDATE or COMMIT under way
 * @cmd: the command itself
 * @m: the mapper
 * @next: free list
 * @token: the slowpath's name for it
 * @table: extents it sends, or NULL
 * @pooled: it came from the free list
 */
struct note {
	struct ubdm_cmd cmd;
	struct ubdm_mapper *m;
	struct note *next; /* free list */
	uint64_t token;
	struct ubdm_extent *table;
	bool pooled;
};

struct ubdm_mapper {
	const struct ubdm_mapper_ops *ops;
	void *ctx;
	bool (*allow_backing)(void *ctx, const char *path);
	struct sp_image *img;
	struct ubdm_ring ring;
	int channel; /* the embedder's, with have_ring */
	bool have_ring;

	struct job jobs[UBDM_MAX_JOBS];
	struct job *free_jobs; /* by pub.next */
	struct fetch fetches[NR_FETCH];
	bool fetching; /* false: armed no more */
	atomic_bool shut_down; /* the SHUTDOWN fault came */
	bool committing; /* a COMMIT fault is being answered */
	struct alone alone;
	int gone;

	pthread_mutex_t lock;
	pthread_cond_t idle; /* busy fell to 0, or a sync command ended */
	unsigned int busy; /* jobs, notes, reading ahead; under lock */
	bool quiet; /* nothing is read ahead any more; under lock */
	int ring_error; /* nothing completes any more; set under lock */
	struct note notes[NR_NOTES];
	struct note *free_notes; /* under lock */
	struct tables tables; /* own lock */
	_Atomic uint64_t max_tid; /* sent */
	atomic_bool leaving; /* new faults are put off */
	atomic_int broken; /* a callback could not queue what it must */
};

/* loop.c: faults to requests and answers to commands */
extern const struct sp_ops ubdm_sp_ops;
void ubdm_loop_init(struct ubdm_mapper *m);
void ubdm_loop_arm(struct ubdm_mapper *m);
int ubdm_loop_ask(struct ubdm_mapper *m, const struct sp_req *req,
		  struct walk *walk);
void ubdm_loop_gone(struct ubdm_mapper *m, int error);

/* ahead.c: what is read before anybody asks */
void ubdm_mapper_quiet(struct ubdm_mapper *m);

/* sync.c: commands that are waited for */
int ubdm_sync_run(struct ubdm_mapper *m, const struct ubdm_msg *msg);
int ubdm_sync_idle(struct ubdm_mapper *m);

/* backing.c: stores of the image as backings of the device */
int ubdm_backing_add_all(struct ubdm_mapper *m, struct ubdm_err *err);
int ubdm_backing_check_all(const int *fds, unsigned int nr, uint32_t index,
			   struct ubdm_err *err);
int ubdm_backing_get_all(struct ubdm_mapper *m, int *fds, unsigned int *nr);
void ubdm_backing_unlock_all(struct ubdm_mapper *m);

/* dump.c: what the kernel keeps for us */
int ubdm_dump_uncommitted(struct ubdm_mapper *m, struct sp_extent **ext,
			  unsigned int *nr, uint64_t *max_tid);

void ubdm_err_set(struct ubdm_err *err, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#endif /* UBDM_MAPPER_H */
