/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * workers.h - threads that take deferred jobs, in the order they came.
 *
 * The queue needs no bound of its own: there are UBDM_MAX_JOBS jobs.  Those who have
 * none read ahead, if that is wanted: up to max_ahead of them, a step at a time, so
 * that a job never waits for more than a step.
 */
#ifndef UBDMAP_WORKERS_H
#define UBDMAP_WORKERS_H

#include <pthread.h>

#include "libubdmap.h"

#define MAX_WORKERS 64
#define STACK_BYTES (256 << 10) /* locked in memory */

struct workers {
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct ubdm_job *head, **tail; /* under lock */
	bool stop; /* under lock */
	bool (*ahead)(void *ctx); /* a step; true: there is another.  Needed if max_ahead */
	void *ctx;
	unsigned int max_ahead;
	bool want_ahead; /* these three under lock */
	unsigned int asked; /* how often */
	unsigned int nr_ahead; /* threads that are at it */
	unsigned int nr;
	pthread_t thread[MAX_WORKERS];
};

/**
 * workers_start - @nr threads; fewer if no more can be made, but two
 *
 * @w is zero, but for ahead, ctx and max_ahead.
 */
int workers_start(struct workers *w, unsigned int nr);
void workers_add(struct workers *w, struct ubdm_job *job);

/**
 * workers_ahead - there is something to read ahead
 */
void workers_ahead(struct workers *w);

/**
 * workers_stop - once no job is left
 */
void workers_stop(struct workers *w);

/**
 * start_thread - with a small stack
 */
int start_thread(pthread_t *thread, void *(*fn)(void *), void *arg);

#endif /* UBDMAP_WORKERS_H */
