// SPDX-License-Identifier: GPL-2.0-only
/*
 * fakedrain.c - the fake device's I/Os in flight, and acknowledgements that wait
 * for them.
 */
#include "fakedev_int.h"

#define STUCK_MS	2

/**
 * fdrain_queue - acknowledge when all that has begun has ended
 * @d: the device, locked
 * @token: what the slowpath wants to hear; 0: nothing
 * @res: and its result
 */
void fdrain_queue(struct fdev *d, uint64_t token, int res)
{
	struct ack *a, **p;

	if (!token)
		return;
	a = fdev_alloc(sizeof(*a));
	*a = (struct ack) { .token = token, .seq = d->seq, .res = res, .due = d->clock };
	if (rng_chance(&d->rng, d->opt.late))
		a->due += 1 + rng_below(&d->rng, 8);
	for (p = &d->acks; *p; p = &(*p)->next)
		;
	*p = a;
}

/* One that may be delivered, in no particular order.  Call with the lock. */
static struct ack *take_ack(struct fdev *d, bool all)
{
	uint64_t oldest = UINT64_MAX;
	struct active *io;
	struct ack **p, *a;

	for (io = d->active; io; io = io->next)
		if (io->seq < oldest)
			oldest = io->seq;
	for (p = &d->acks; (a = *p); p = &a->next) {
		if (a->seq >= oldest || (!all && a->due > d->clock))
			continue;
		if (a->next && !all && rng_chance(&d->rng, 20))
			continue;
		*p = a->next;
		return a;
	}
	return NULL;
}

/**
 * fdrain_pump - deliver acknowledgements
 * @d: the device, not locked
 * @all: also those that should come late
 */
void fdrain_pump(struct fdev *d, bool all)
{
	struct ack *a;

	pthread_mutex_lock(&d->lock);
	while (!d->dead && (a = take_ack(d, all))) {
		d->stats.acks++;
		d->acking++;
		pthread_mutex_unlock(&d->lock);
		sp_acked(d->img, a->token, a->res);
		free(a);
		pthread_mutex_lock(&d->lock);
		if (!--d->acking)
			pthread_cond_broadcast(&d->wake);
	}
	pthread_mutex_unlock(&d->lock);
}

/**
 * fdrain_thread - delivers where everybody waits for acknowledgements
 * @arg: the device
 *
 * Return: NULL, once @d->stop is set.
 */
void *fdrain_thread(void *arg)
{
	struct fdev *d = arg;
	struct timespec ts;

	pthread_mutex_lock(&d->lock);
	while (!d->stop) {
		clock_gettime(CLOCK_REALTIME, &ts);
		ts.tv_nsec += 1000000;
		if (ts.tv_nsec >= 1000000000) {
			ts.tv_nsec -= 1000000000;
			ts.tv_sec++;
		}
		pthread_cond_timedwait(&d->quit, &d->lock, &ts);
		if (d->stop || !d->busy_since || clock_ms() - d->busy_since < STUCK_MS)
			continue;
		pthread_mutex_unlock(&d->lock);
		fdrain_pump(d, true);
		pthread_mutex_lock(&d->lock);
	}
	pthread_mutex_unlock(&d->lock);
	return NULL;
}

/**
 * fdrain_begin - an I/O begins
 * @d: the device, locked since what it uses was looked up
 * @io: the caller's
 */
void fdrain_begin(struct fdev *d, struct active *io)
{
	io->seq = ++d->seq;
	io->next = d->active;
	d->active = io;
}

/**
 * fdrain_end - an I/O has ended
 * @d: the device, not locked
 * @io: the same
 */
void fdrain_end(struct fdev *d, struct active *io)
{
	struct active **p;

	pthread_mutex_lock(&d->lock);
	for (p = &d->active; *p != io; p = &(*p)->next)
		;
	*p = io->next;
	pthread_mutex_unlock(&d->lock);
}

/**
 * fdrain_drop - nobody is left to tell
 * @d: the device
 */
void fdrain_drop(struct fdev *d)
{
	struct ack *a;

	while ((a = d->acks)) {
		d->acks = a->next;
		free(a);
	}
}

void fdev_settle(struct fdev *d)
{
	fdrain_pump(d, true);
}

void fdev_hold(struct fdev *d)
{
	pthread_mutex_lock(&d->lock);
	fdrain_begin(d, &d->held);
	pthread_mutex_unlock(&d->lock);
}

void fdev_unhold(struct fdev *d)
{
	fdrain_end(d, &d->held);
	fdev_settle(d);
}
