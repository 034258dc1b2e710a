// SPDX-License-Identifier: GPL-2.0-only
/*
 * workers.c - threads that take deferred jobs; see workers.h.
 */
#include <string.h>

#include "workers.h"

static bool may_read_ahead(const struct workers *w)
{
	return w->want_ahead && w->nr_ahead < w->max_ahead;
}

/* Steps, as long as there is no job.  Lock held, dropped meanwhile. */
static void read_ahead(struct workers *w)
{
	unsigned int asked;
	bool more;

	w->nr_ahead++;
	do {
		asked = w->asked;
		/* More than one step, perhaps. */
		if (may_read_ahead(w))
			pthread_cond_signal(&w->more);
		pthread_mutex_unlock(&w->lock);
		more = w->ahead(w->ctx);
		pthread_mutex_lock(&w->lock);
		if (!more && asked == w->asked)
			w->want_ahead = false;
	} while (w->want_ahead && !w->head && !w->stop);
	w->nr_ahead--;
	if (may_read_ahead(w))
		pthread_cond_signal(&w->more);
}

static struct ubdm_job *take(struct workers *w)
{
	struct ubdm_job *job;

	pthread_mutex_lock(&w->lock);
	while (!w->head && !w->stop) {
		if (may_read_ahead(w))
			read_ahead(w);
		else
			pthread_cond_wait(&w->more, &w->lock);
	}
	job = w->head;
	if (job) {
		w->head = job->next;
		if (!w->head)
			w->tail = &w->head;
	}
	pthread_mutex_unlock(&w->lock);
	return job;
}

static void *work(void *arg)
{
	struct workers *w = arg;
	struct ubdm_job *job;

	while ((job = take(w)))
		ubdm_job_run(job);
	return NULL;
}

int start_thread(pthread_t *thread, void *(*fn)(void *), void *arg)
{
	pthread_attr_t attr;
	int ret;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	ret = pthread_create(thread, &attr, fn, arg);
	pthread_attr_destroy(&attr);
	return -ret;
}

int workers_start(struct workers *w, unsigned int nr)
{
	int ret = 0;

	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->more, NULL);
	w->tail = &w->head;

	while (w->nr < nr && w->nr < MAX_WORKERS && !ret) {
		ret = start_thread(&w->thread[w->nr], work, w);
		if (!ret)
			w->nr++;
	}
	if (w->nr >= 2)
		return 0;
	workers_stop(w);
	return ret;
}

void workers_add(struct workers *w, struct ubdm_job *job)
{
	job->next = NULL;
	pthread_mutex_lock(&w->lock);
	*w->tail = job;
	w->tail = &job->next;
	pthread_mutex_unlock(&w->lock);
	/* Not before: who is woken would only wait for the lock. */
	pthread_cond_signal(&w->more);
}

void workers_ahead(struct workers *w)
{
	pthread_mutex_lock(&w->lock);
	w->want_ahead = true;
	w->asked++;
	if (may_read_ahead(w))
		pthread_cond_signal(&w->more);
	pthread_mutex_unlock(&w->lock);
}

void workers_stop(struct workers *w)
{
	pthread_mutex_lock(&w->lock);
	w->stop = true;
	pthread_cond_broadcast(&w->more);
	pthread_mutex_unlock(&w->lock);
	while (w->nr)
		pthread_join(w->thread[--w->nr], NULL);
}
