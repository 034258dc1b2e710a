// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * lock.c - QEMU's image locks and the mappers' fence.
 *
 * QEMU gives each permission that a user of an image may have a number, and two
 * bytes of the file: 100 + n is locked by those who use the permission, 200 + n by
 * those who do not tolerate others using it.  All locks are shared ones, so that
 * holders of the same byte agree; a conflict is seen by asking whether the
 * opposite byte could be locked exclusively.  Locking comes before asking: of two
 * that race at least one sees the other.
 *
 * What the two roles hold was read off qemu-io 7.2 in /proc/locks:
 *
 *	role	uses			refuses others
 *	reader	read			write, resize
 *	writer	read, write, resize	write, resize
 *
 * The locks belong to the open file description L, which the kernel keeps, and
 * so survive the mapper.  The fence is on M and goes with it.
 */
#define _GNU_SOURCE 1	/* F_OFD_SETLK */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>

#include "err.h"
#include "lock.h"

#define PERM_BASE	100	/* "I do this" */
#define UNSHARED_BASE	200	/* "nobody else may" */
#define FENCE_BYTE	0x7562646d	/* ours; far from what QEMU uses */
#define FENCE_POLL_MS	10
#define ASKING_MS	1000		/* for so long may somebody ask */

enum perm { PERM_READ = 0, PERM_WRITE = 1, PERM_RESIZE = 3, PERM_NR };

static const char *const perm_names[PERM_NR] = {
	[PERM_READ] = "read",
	[PERM_WRITE] = "write",
	[PERM_RESIZE] = "resize",
};

#define BIT(n)		(1u << (n))
#define READER_USES	BIT(PERM_READ)
#define WRITER_USES	(BIT(PERM_READ) | BIT(PERM_WRITE) | BIT(PERM_RESIZE))
#define REFUSED		(BIT(PERM_WRITE) | BIT(PERM_RESIZE))
#define NR_BYTES	8	/* bits that QEMU may use some day; asked for, not taken */

static int lock_byte(int fd, short type, off_t byte)
{
	struct flock fl = {
		.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1,
	};
	int rc;

	do
		rc = fcntl(fd, F_OFD_SETLK, &fl);
	while (rc && errno == EINTR);
	return rc ? -errno : 0;
}

/* 1: somebody else has it, 0: nobody, or -errno */
static int held_by_other(int fd, off_t byte)
{
	struct flock fl = {
		.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1,
	};

	if (fcntl(fd, F_OFD_GETLK, &fl))
		return -errno;
	return fl.l_type != F_UNLCK;
}

static int take(int fd, unsigned int uses)
{
	int n, rc;

	for (n = 0; n < NR_BYTES; n++) {
		if (uses & BIT(n)) {
			rc = lock_byte(fd, F_RDLCK, PERM_BASE + n);
			if (rc)
				return rc;
		}
		if (REFUSED & BIT(n)) {
			rc = lock_byte(fd, F_RDLCK, UNSHARED_BASE + n);
			if (rc)
				return rc;
		}
	}
	return 0;
}

static void drop(int fd)
{
	int n;

	for (n = 0; n < NR_BYTES; n++) {
		lock_byte(fd, F_UNLCK, PERM_BASE + n);
		lock_byte(fd, F_UNLCK, UNSHARED_BASE + n);
	}
}

static int check(const struct sp_file *f, unsigned int uses, struct sp_err *err)
{
	int n, rc;

	for (n = 0; n < PERM_NR; n++) {
		rc = uses & BIT(n) ? held_by_other(f->fd_l, UNSHARED_BASE + n) : 0;
		if (rc < 0)
			return rc;
		if (rc)
			return sp_fail(err, -EBUSY,
				       "%s: in use by another program that lets nobody else %s it; close that one first",
				       f->path, perm_names[n]);
		rc = REFUSED & BIT(n) ? held_by_other(f->fd_l, PERM_BASE + n) : 0;
		if (rc < 0)
			return rc;
		if (rc)
			return sp_fail(err, -EBUSY,
				       "%s: another program has it open to %s it; close that one first",
				       f->path, perm_names[n]);
	}
	return 0;
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void pause_ms(long ms)
{
	const struct timespec ts = { .tv_nsec = ms * 1000000L };

	nanosleep(&ts, NULL);
}

/*
 * Whoever asks for an image has its bytes for the moment in which he asks, and
 * goes away because of ours.  Those of an adopted L are older than any such.
 */
static int check_patiently(const struct sp_file *f, unsigned int uses, struct sp_err *err)
{
	int64_t end = now_ms() + ASKING_MS;
	int rc;

	for (;;) {
		struct sp_err why = { "" };

		rc = check(f, uses, &why);
		if (rc != -EBUSY || !f->adopted || now_ms() >= end)
			return rc ? sp_fail(err, rc, "%s", why.msg) : 0;
		pause_ms(1);
	}
}

/**
 * sp_lock_image - hold what a reader or a writer of an image holds in QEMU
 * @f: the file; the locks are L's, taking them again is harmless
 * @writer: which role
 * @err: message
 *
 * Return: 0; -EBUSY: somebody holds what conflicts; -errno where the file
 * system knows no locks.  On an error no lock is kept, unless L was adopted: then
 * its locks are the device's, and stay.
 */
int sp_lock_image(struct sp_file *f, bool writer, struct sp_err *err)
{
	unsigned int uses = writer ? WRITER_USES : READER_USES;
	int rc;

	rc = take(f->fd_l, uses);
	if (!rc)
		rc = check_patiently(f, uses, err);
	if (!rc)
		return 0;
	if (!f->adopted)
		drop(f->fd_l);
	return sp_fail(err, rc, "%s: cannot lock it: %s; is it on a file system without locks?",
		       f->path, strerror(-rc));
}

/**
 * sp_lock_fence - keep other mappers of the same image out
 * @f: the file; nothing to fence if it is read-only
 * @timeout_ms: how long to wait for the one before us to end, its last I/O
 *	included
 * @err: message
 *
 * Return: 0; -ETIMEDOUT; or -errno.
 */
int sp_lock_fence(struct sp_file *f, int timeout_ms, struct sp_err *err)
{
	int64_t end = now_ms() + timeout_ms;
	int rc;

	if (!f->writable)
		return 0;
	for (;;) {
		rc = lock_byte(f->fd_m, F_WRLCK, FENCE_BYTE);
		if (!rc)
			return 0;
		if (rc != -EAGAIN && rc != -EACCES)
			return sp_fail(err, rc, "%s: cannot lock it: %s", f->path,
				       strerror(-rc));
		if (now_ms() >= end)
			return sp_fail(err, -ETIMEDOUT,
				       "%s: the mapper before this one still has it; kill that process",
				       f->path);
		pause_ms(FENCE_POLL_MS);
	}
}
