// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * commit.c - rounds that make changes durable, and FLUSH (rules 12 to 15).
 *
 * One round at a time:
 *
 *	snapshot      what is finished now; T, the tid up to which all of it is
 *	F1            fdatasync, if something in it must be there before its link
 *	write_meta    tables with the entries of the snapshot only
 *	F2            fdatasync
 *	COMMIT(T)     then the FLUSHes that came before the snapshot are answered
 *
 * A round that finds the disk full stays open and goes on later with the
 * same snapshot: what it has written may be on the disk or not, so nothing that
 * its entries name may be used otherwise before it is through.  Any other error
 * is for good (rule 30).
 */
#include <errno.h>
#include <time.h>

#include "internal.h"

/**
 * now_ms - a clock that only rises
 */
uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000 + 1 +
	       __atomic_load_n(&sp_clock_skew_ms, __ATOMIC_RELAXED);
}

/**
 * cond_wait_ms - wait for something to happen
 * @img: the image
 * @ms: at most
 *
 * Context: the lock, dropped meanwhile.
 * Return: 0 or -ETIME.
 */
int cond_wait_ms(struct sp_image *img, unsigned int ms)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_sec += ms / 1000;
	ts.tv_nsec += (ms % 1000) * 1000000L;
	if (ts.tv_nsec >= 1000000000L) {
		ts.tv_nsec -= 1000000000L;
		ts.tv_sec++;
	}
	return pthread_cond_timedwait(&img->cond, &img->lock, &ts) ? -ETIME : 0;
}

/**
 * image_fail - nothing is written any more
 * @img: the image
 * @error: why, -errno
 */
void image_fail(struct sp_image *img, int error)
{
	if (!img->failed)
		img->failed = error;
	pthread_cond_broadcast(&img->cond);
}

/**
 * image_sync - fdatasync of the image
 * @img: the image
 *
 * Context: the lock, dropped meanwhile.
 * Return: 0 or -errno; an error is for good.
 */
int image_sync(struct sp_image *img)
{
	uint64_t nr = ++img->sync_started;
	int rc;

	pthread_mutex_unlock(&img->lock);
	rc = sp_file_sync(&img->layers[0].file);
	pthread_mutex_lock(&img->lock);
	if (rc)
		image_fail(img, rc);
	else if (nr > img->sync_done)
		img->sync_done = nr;
	return rc;
}

static int round_io(struct sp_image *img)
{
	int rc;

	if (img->round_f1) {
		rc = image_sync(img);
		if (rc)
			return rc;
		img->stats.f1++;
		img->round_f1 = false;
	}
	rc = img->eng->write_meta(img);
	if (rc) {
		if (!is_full(rc))
			image_fail(img, rc);
		return rc;
	}
	img->stats.f2++;
	return image_sync(img);
}

/* Context: the lock, dropped meanwhile; no round is under way. */
static int run_round(struct sp_image *img)
{
	int rc;

	img->committing = true;
	if (!img->round_open) {
		img->rounds_begun++;
		img->round_acks = img->acks;
		img->round_tid = pend_floor(img);
		img->round_f1 = img->eng->snapshot(img, &img->round_tid);
		img->round_open = true;
		img->oldest_ms = 0;
	}
	rc = round_io(img);
	if (!rc && img->gone)
		rc = -ESTALE;
	if (!rc) {
		img->round_open = false;
		img->rounds_done = img->rounds_begun;
		img->stats.commits++;
		img->eng->committed(img);
		if (img->round_tid > img->committed_tid) {
			img->committed_tid = img->round_tid;
			img->opt.ops->commit(img->opt.ctx, img->round_tid);
		}
	}
	if (img->committed_tid + 1 < img->next_tid && !img->oldest_ms)
		img->oldest_ms = now_ms();
	img->committing = false;
	pthread_cond_broadcast(&img->cond);
	return rc;
}

/**
 * commit_upto - make changes durable
 * @img: the image
 * @tid: all of them up to this one, and all data that was written before
 *
 * Context: the lock, dropped meanwhile.
 * Return: 0; -ETIME: an acknowledgement is missing; -ENOSPC; -EIO and others
 * for good.
 */
int commit_upto(struct sp_image *img, uint64_t tid)
{
	uint64_t want = img->rounds_begun + 1, end = now_ms() + ACK_WAIT_MS;
	int rc;

	if (tid >= img->next_tid)
		tid = img->next_tid - 1;
	for (;;) {
		if (img->failed || img->gone)
			return -EIO;
		if (img->committing) {
			cond_wait_ms(img, 1000);
			continue;
		}
		if (img->rounds_done >= want && img->committed_tid >= tid)
			return 0;
		/*
		 * Without acknowledgements a round is no use: what is asked for
		 * is not finished, or the last round has left some of it out.
		 */
		if (pend_floor(img) < tid ||
		    (img->rounds_done >= want && img->acks == img->round_acks)) {
			if (now_ms() >= end)
				return -ETIME;
			cond_wait_ms(img, ACK_WAIT_MS);
			continue;
		}
		rc = run_round(img);
		if (rc)
			return rc;
	}
}

/**
 * flush_request - FLUSH
 * @img: the image
 * @req: the request
 *
 * Context: the lock, dropped meanwhile.
 * Return: 0: replied; else as commit_upto().
 */
int flush_request(struct sp_image *img, const struct sp_req *req)
{
	const struct extents none = { .ext = img->scratch };
	int rc;

	if (img->eng) {
		rc = commit_upto(img, req->tid);
		if (rc)
			return rc;
	}
	reply_done(img, req, &none, 0, 0);
	return 0;
}

/**
 * commit_timer - commit what has become old
 * @img: the image
 *
 * Context: the lock, dropped meanwhile.
 * Return: milliseconds until the next time, -1: nothing is uncommitted.
 */
int commit_timer(struct sp_image *img)
{
	uint64_t now = now_ms(), due;

	if (img->failed || img->gone)
		return -1;
	if (!img->oldest_ms)
		return -1;
	due = img->oldest_ms + COMMIT_MS;
	if (img->committing)
		return COMMIT_MS;
	if (now < due)
		return due - now;
	if (is_full(run_round(img)))
		return HOLD_SPACE_MS;
	return img->oldest_ms ? COMMIT_MS : -1;
}
