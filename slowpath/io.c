// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * io.c - one file of an image: descriptors L and M, and all I/O on M.
 *
 * A transfer that fits M's granularity goes straight to the file.  Anything
 * else goes through a bounce buffer, block by block: reads are widened, writes
 * read the blocks they cover only in part first.  The bounce buffer falls back
 * to the stack when memory is short, so that no transfer fails for want of it.
 *
 * Errors of fdatasync are sticky: the kernel reports a lost write once per open
 * file, so a second call that succeeds proves nothing.  From then on nothing
 * that changes the file is let through, and no sync succeeds.
 *
 * Not here: locks (lock.c), and keeping two unaligned writers of one block
 * apart (the caller).
 */
#define _GNU_SOURCE 1	/* O_DIRECT, fallocate, statx */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "err.h"
#include "io.h"

#define BUF_ALIGN	4096u		/* of every buffer we allocate */
#define ALIGN_MAX	4096u		/* larger granularities: buffered */
#define BOUNCE_MAX	(256u * 1024)
#define STACK_BOUNCE	(2 * ALIGN_MAX)
#define ZERO_CHUNK	(64u * 1024)

int (*sp_io_hook)(const struct sp_file *f, enum sp_io_op op, const void *buf,
		  uint64_t off, uint64_t len);

uint64_t sp_clock_skew_ms;

static int hook(const struct sp_file *f, enum sp_io_op op, const void *buf,
		uint64_t off, uint64_t len)
{
	return sp_io_hook ? sp_io_hook(f, op, buf, off, len) : 0;
}

static bool has_failed(const struct sp_file *f)
{
	return __atomic_load_n(&f->failed, __ATOMIC_ACQUIRE);
}

static uint64_t down(uint64_t x, unsigned int align)
{
	return x & ~(uint64_t)(align - 1);
}

static uint64_t up(uint64_t x, unsigned int align)
{
	return down(x + align - 1, align);
}

/* Offsets beyond this cannot be rounded up, or are none for the kernel. */
static bool range_ok(uint64_t off, uint64_t len)
{
	const uint64_t max = INT64_MAX - ALIGN_MAX;

	return off <= max && len <= max - off;
}

/* May something that changes the file go ahead? */
static int check_change(const struct sp_file *f, uint64_t off, uint64_t len)
{
	if (!f->writable)
		return -EROFS;
	if (has_failed(f))
		return -EIO;
	return range_ok(off, len) ? 0 : -EFBIG;
}

/**
 * sp_buf_alloc - memory that any file here takes for direct I/O
 * @len: bytes
 *
 * Return: the buffer, or NULL.
 */
void *sp_buf_alloc(size_t len)
{
	if (len > SIZE_MAX - BUF_ALIGN)
		return NULL;
	return aligned_alloc(BUF_ALIGN, up(len ? len : 1, BUF_ALIGN));
}

/**
 * sp_buf_free - give a buffer of sp_buf_alloc() back
 * @buf: it, or NULL
 */
void sp_buf_free(void *buf)
{
	free(buf);
}

static bool power_of_2(unsigned int x)
{
	return x && !(x & (x - 1));
}

/* The kernel tells the granularity of direct I/O since 6.1, not for all fs. */
static bool dio_from_statx(struct sp_file *f)
{
#ifdef STATX_DIOALIGN
	struct statx sx;

	if (statx(f->fd_m, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) ||
	    !(sx.stx_mask & STATX_DIOALIGN))
		return false;
	f->align = sx.stx_dio_offset_align;
	f->mem_align = sx.stx_dio_mem_align;
	return true;
#else
	(void)f;
	return false;
#endif
}

/* Read at a small offset: EINVAL means that the block is larger. */
static bool dio_from_probe(struct sp_file *f)
{
	_Alignas(ALIGN_MAX) char buf[ALIGN_MAX];
	unsigned int align;

	for (align = 512; align <= ALIGN_MAX; align *= 2) {
		if (pread(f->fd_m, buf, align, align) >= 0) {
			f->align = align;
			f->mem_align = ALIGN_MAX;
			return true;
		}
		if (errno != EINVAL)
			return false;
	}
	return false;
}

static bool dio_granularity(struct sp_file *f)
{
	int bs = 0;

	if (f->blockdev) {
		if (ioctl(f->fd_m, BLKSSZGET, &bs) || bs < 512)
			return false;
		f->align = bs;
		f->mem_align = ALIGN_MAX;
	} else if (dio_from_statx(f)) {
		/*
		 * As the driver has it, whose requests may lie at any sector of memory.
		 * If it went through the page cache and we around it, neither would see
		 * what the other wrote.
		 */
		if (!f->align || f->mem_align > 512)
			return false;
	} else if (!dio_from_probe(f)) {
		return false;
	}
	if (f->align < 512)
		f->align = 512;
	return power_of_2(f->align) && f->align <= ALIGN_MAX &&
	       power_of_2(f->mem_align) && f->mem_align <= BUF_ALIGN;
}

/**
 * sp_file_set_buffered - use the page cache on both sides from now on
 * @f: the file
 *
 * Context: before any I/O is under way.
 * Return: 0 or -errno.
 */
int sp_file_set_buffered(struct sp_file *f)
{
	int fl = fcntl(f->fd_m, F_GETFL);

	if (fl < 0 || fcntl(f->fd_m, F_SETFL, fl & ~O_DIRECT))
		return -errno;
	f->buffered = true;
	f->align = 1;
	f->mem_align = 1;
	return 0;
}

/* M: the same file through another open file description. */
static int open_m(struct sp_file *f)
{
	int flags = O_CLOEXEC | (f->writable ? O_RDWR : O_RDONLY);
	char name[32];

	snprintf(name, sizeof(name), "/proc/self/fd/%d", f->fd_l);
	f->fd_m = open(name, flags | O_DIRECT);
	if (f->fd_m >= 0) {
		if (dio_granularity(f))
			return 0;
		return sp_file_set_buffered(f);
	}
	if (errno != EINVAL)
		return -errno;
	f->fd_m = open(name, flags);
	if (f->fd_m < 0)
		return -errno;
	return sp_file_set_buffered(f);
}

/*
 * Looked at before it is opened: an image may name anything as its backing file, and
 * some things do something when they are opened, a tape or a watchdog.
 */
static int open_looking(const struct sp_file *f, const char *path)
{
	int acc = f->writable ? O_RDWR : O_RDONLY, look, fd = -1;
	char name[32];
	struct stat st;

	look = open(path, O_PATH | O_CLOEXEC);
	if (look < 0)
		return -errno;
	snprintf(name, sizeof(name), "/proc/self/fd/%d", look);
	if (!fstat(look, &st)) {
		errno = EINVAL;
		if (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode))
			fd = open(name, acc | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	}
	if (fd < 0)
		fd = -errno;
	close(look);
	return fd;
}

/* What must not be written can often be read: only the user's own image is written to. */
static const char *next_step(const struct sp_file *f, const char *path, int rc)
{
	if (!f->writable || (rc != -EROFS && rc != -EACCES && rc != -EPERM) ||
	    faccessat(AT_FDCWD, path, R_OK, AT_EACCESS))
		return "";
	return "; add it read-only: -r";
}

/* A disk that takes no write can be opened for it all the same. */
static bool is_protected(int fd)
{
	struct stat st;
	int ro = 0;

	return !fstat(fd, &st) && S_ISBLK(st.st_mode) && !ioctl(fd, BLKROGET, &ro) && ro;
}

static int open_by_name(struct sp_file *f, const char *path, struct sp_err *err)
{
	int fd = open_looking(f, path);

	if (fd == -EINVAL)
		return sp_fail(err, -EINVAL, "%s: neither a regular file nor a block device",
			       path);
	if (fd < 0)
		return sp_fail(err, fd, "%s: cannot open for %s: %s%s", path,
			       f->writable ? "writing" : "reading", strerror(-fd),
			       next_step(f, path, fd));
	f->fd_l = fd;
	if (f->writable && is_protected(fd))
		return sp_fail(err, -EROFS, "%s: the disk is write-protected%s", path,
			       next_step(f, path, -EROFS));
	return 0;
}

static int open_l(struct sp_file *f, const char *path, int fd_l, struct sp_err *err)
{
	int fl;

	if (fd_l < 0)
		return open_by_name(f, path, err);
	fl = fcntl(fd_l, F_GETFL);
	if (fl < 0)
		return sp_fail(err, -errno, "%s: descriptor %d: %s", path, fd_l,
			       strerror(errno));
	fl &= O_ACCMODE;
	if (fl == O_WRONLY || (f->writable && fl != O_RDWR))
		return sp_fail(err, -EACCES, "%s: the descriptor kept is not open for %s",
			       path, f->writable ? "writing" : "reading");
	f->adopted = true;
	f->fd_l = fcntl(fd_l, F_DUPFD_CLOEXEC, 3);
	if (f->fd_l < 0)
		return sp_fail(err, -errno, "%s: %s", path, strerror(errno));
	return 0;
}

static int identify(struct sp_file *f, struct sp_err *err)
{
	struct stat st;

	if (fstat(f->fd_l, &st))
		return sp_fail(err, -errno, "%s: %s", f->path, strerror(errno));
	if (S_ISREG(st.st_mode)) {
		f->dev = st.st_dev;
		f->ino = st.st_ino;
		return 0;
	}
	if (S_ISBLK(st.st_mode)) {
		f->blockdev = true;
		f->dev = st.st_rdev;
		f->ino = 0;	/* no file has this number */
		return 0;
	}
	return sp_fail(err, -EINVAL, "%s: neither a regular file nor a block device",
		       f->path);
}

/**
 * sp_file_open - open both descriptors and learn what the file is
 * @f: filled in; all of it
 * @path: its name, for messages also when @fd_l is given
 * @fd_l: < 0: open @path.  Otherwise L as the kernel kept it; a duplicate is
 *	taken (of the same open file description, so its locks go on), the
 *	caller's stays the caller's
 * @writable: for writing too
 * @err: message
 *
 * Return: 0; -EINVAL not a file or block device; -EROFS a disk that takes no write;
 * what open() said.  On an error there is nothing to close.
 */
int sp_file_open(struct sp_file *f, const char *path, int fd_l, bool writable,
		 struct sp_err *err)
{
	int rc;

	memset(f, 0, sizeof(*f));
	f->fd_l = -1;
	f->fd_m = -1;
	f->writable = writable;
	f->path = strdup(path ? path : "(inherited)");
	if (!f->path)
		return sp_fail(err, -ENOMEM, "%s: out of memory", path);
	rc = open_l(f, f->path, fd_l, err);
	if (rc)
		goto err_close;
	rc = identify(f, err);
	if (rc)
		goto err_close;
	rc = open_m(f);
	if (rc) {
		sp_fail(err, rc, "%s: cannot reopen through /proc/self/fd: %s", f->path,
			strerror(-rc));
		goto err_close;
	}
	return 0;

err_close:
	sp_file_close(f);
	return rc;
}

/**
 * sp_file_in_use - has somebody taken the disk for himself?
 * @f: the file
 *
 * Who mounts it, swaps on it, or makes another device of it or of a part of it.
 *
 * Return: whether; false for a regular file.
 */
bool sp_file_in_use(const struct sp_file *f)
{
	char name[32];
	int fd;

	if (!f->blockdev)
		return false;
	snprintf(name, sizeof(name), "/proc/self/fd/%d", f->fd_l);
	fd = open(name, O_RDONLY | O_EXCL | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return errno == EBUSY;
	close(fd);
	return false;
}

/**
 * sp_file_close - let go of both descriptors
 * @f: the file; may be closed already
 *
 * M goes first: whoever sees L's locks gone may rely on M's fence being gone.
 */
void sp_file_close(struct sp_file *f)
{
	if (f->fd_m >= 0)
		close(f->fd_m);
	if (f->fd_l >= 0)
		close(f->fd_l);
	f->fd_m = -1;
	f->fd_l = -1;
	free(f->path);
	f->path = NULL;
}

/* Read up to len bytes, as far as the file goes.  Bytes read, or -errno. */
static ssize_t read_all(int fd, void *buf, size_t len, uint64_t off, unsigned int align)
{
	size_t done = 0;
	ssize_t n;

	while (done < len) {
		n = pread(fd, (char *)buf + done, len - done, off + done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			break;
		done += n;
		/* Only the end of the file cuts a direct read inside a block. */
		if (done & (align - 1))
			break;
	}
	return done;
}

static int write_all(int fd, const void *buf, size_t len, uint64_t off, unsigned int align)
{
	size_t done = 0;
	ssize_t n;

	while (done < len) {
		n = pwrite(fd, (const char *)buf + done, len - done, off + done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		n = down(n, align);
		if (!n)
			return -EIO;
		done += n;
	}
	return 0;
}

static bool aligned(const struct sp_file *f, const void *buf, uint64_t off, size_t len)
{
	return !((off | len) & (f->align - 1)) &&
	       !((uintptr_t)buf & (f->mem_align - 1));
}

struct bounce {
	char *buf;
	size_t size;
	char *heap;
};

static void bounce_get(struct bounce *b, char *stack, size_t want)
{
	b->size = want < BOUNCE_MAX ? up(want, ALIGN_MAX) : BOUNCE_MAX;
	b->heap = b->size > STACK_BOUNCE ? sp_buf_alloc(b->size) : NULL;
	if (b->heap) {
		b->buf = b->heap;
	} else {
		b->buf = stack;
		b->size = STACK_BOUNCE;
	}
}

static ssize_t read_bounced(const struct sp_file *f, void *buf, size_t len, uint64_t off)
{
	_Alignas(BUF_ALIGN) char stack[STACK_BOUNCE];
	size_t done = 0, head, part, span;
	struct bounce b;
	ssize_t n = 0;

	bounce_get(&b, stack, len + 2 * f->align);
	while (done < len) {
		head = (off + done) & (f->align - 1);
		part = b.size - head;
		if (part > len - done)
			part = len - done;
		span = up(head + part, f->align);
		n = read_all(f->fd_m, b.buf, span, off + done - head, f->align);
		if (n < 0 || (size_t)n <= head)
			break;
		if ((size_t)n < head + part) {	/* the end of the file */
			memcpy((char *)buf + done, b.buf + head, n - head);
			done += n - head;
			break;
		}
		memcpy((char *)buf + done, b.buf + head, part);
		done += part;
	}
	sp_buf_free(b.heap);
	return n < 0 ? n : (ssize_t)done;
}

/* Fill a block of the bounce buffer with what the file has there. */
static int fill_block(const struct sp_file *f, char *block, uint64_t off)
{
	ssize_t n = read_all(f->fd_m, block, f->align, off, f->align);

	if (n < 0)
		return n;
	memset(block + n, 0, f->align - n);
	return 0;
}

static int write_bounced(const struct sp_file *f, const void *buf, size_t len, uint64_t off)
{
	_Alignas(BUF_ALIGN) char stack[STACK_BOUNCE];
	size_t done = 0, head, part, span;
	struct bounce b;
	uint64_t start;
	int rc = 0;

	bounce_get(&b, stack, len + 2 * f->align);
	while (done < len) {
		start = down(off + done, f->align);
		head = off + done - start;
		part = b.size - head;
		if (part > len - done)
			part = len - done;
		span = up(head + part, f->align);
		if (head)
			rc = fill_block(f, b.buf, start);
		if (!rc && head + part < span && (!head || span > f->align))
			rc = fill_block(f, b.buf + span - f->align,
					start + span - f->align);
		if (rc)
			break;
		memcpy(b.buf + head, (const char *)buf + done, part);
		rc = write_all(f->fd_m, b.buf, span, start, f->align);
		if (rc)
			break;
		done += part;
	}
	sp_buf_free(b.heap);
	return rc;
}

/**
 * sp_file_pread - read
 * @f: the file
 * @buf: where to, any alignment
 * @len: bytes
 * @off: byte offset
 * @got: how many bytes the file had there, the rest of @buf is zeroed; NULL: a
 *	short read is -EIO
 *
 * Return: 0 or -errno.
 */
int sp_file_pread(struct sp_file *f, void *buf, size_t len, uint64_t off, size_t *got)
{
	ssize_t n;
	int rc;

	rc = hook(f, SP_IO_READ, NULL, off, len);
	if (rc)
		return rc;
	if (!range_ok(off, len))
		return -EIO;
	if (aligned(f, buf, off, len))
		n = read_all(f->fd_m, buf, len, off, f->align);
	else
		n = read_bounced(f, buf, len, off);
	if (n < 0)
		return n;
	if ((size_t)n < len) {
		if (!got)
			return -EIO;
		memset((char *)buf + n, 0, len - n);
	}
	if (got)
		*got = n;
	return 0;
}

/**
 * sp_file_pwrite - write all of it
 * @f: the file
 * @buf: what, any alignment
 * @len: bytes
 * @off: byte offset; past the end extends the file, to a multiple of its
 *	granularity
 *
 * Return: 0; -EROFS; -EIO also after a failed sync; -EFBIG, -ENOSPC, ...
 */
int sp_file_pwrite(struct sp_file *f, const void *buf, size_t len, uint64_t off)
{
	int rc;

	rc = check_change(f, off, len);
	if (rc)
		return rc;
	rc = hook(f, SP_IO_WRITE, buf, off, len);
	if (rc)
		return rc;
	if (aligned(f, buf, off, len))
		return write_all(f->fd_m, buf, len, off, f->align);
	return write_bounced(f, buf, len, off);
}

static int do_fallocate(const struct sp_file *f, int mode, uint64_t off, uint64_t len)
{
	int rc;

	do
		rc = fallocate(f->fd_m, mode, off, len);
	while (rc && errno == EINTR);
	return rc ? -errno : 0;
}

/* "This file cannot do that", as opposed to "it went wrong". */
static bool cannot(int rc)
{
	return rc == -EOPNOTSUPP || rc == -EINVAL || rc == -ENODEV || rc == -ENOSYS;
}

static int write_zeros(struct sp_file *f, uint64_t off, uint64_t len)
{
	static _Alignas(BUF_ALIGN) const char zeros[ZERO_CHUNK];
	uint64_t part;
	int rc;

	for (; len; off += part, len -= part) {
		part = ZERO_CHUNK - (off & (ALIGN_MAX - 1));
		if (part > len)
			part = len;
		if (aligned(f, zeros, off, part))
			rc = write_all(f->fd_m, zeros, part, off, f->align);
		else
			rc = write_bounced(f, zeros, part, off);
		if (rc)
			return rc;
	}
	return 0;
}

/**
 * sp_file_zero - make a range read zeros; it may keep its space
 * @f: the file
 * @off: byte offset; past the end extends the file
 * @len: bytes
 *
 * Return: 0 or -errno.
 */
int sp_file_zero(struct sp_file *f, uint64_t off, uint64_t len)
{
	int rc;

	rc = check_change(f, off, len);
	if (rc)
		return rc;
	rc = hook(f, SP_IO_ZERO, NULL, off, len);
	if (rc || !len)
		return rc;
	rc = do_fallocate(f, FALLOC_FL_ZERO_RANGE, off, len);
	return cannot(rc) ? write_zeros(f, off, len) : rc;
}

static int try_punch(struct sp_file *f, uint64_t off, uint64_t len)
{
	int rc;

	rc = check_change(f, off, len);
	if (rc)
		return rc;
	rc = hook(f, SP_IO_PUNCH, NULL, off, len);
	if (rc || !len)
		return rc;
	return do_fallocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len);
}

/**
 * sp_file_punch - make a range read zeros and give its space back if possible
 * @f: the file
 * @off: byte offset
 * @len: bytes; what is past the end of the file is left alone
 *
 * Return: 0 or -errno.
 */
int sp_file_punch(struct sp_file *f, uint64_t off, uint64_t len)
{
	uint64_t size;
	int rc;

	rc = try_punch(f, off, len);
	if (!cannot(rc))
		return rc;
	rc = sp_file_size(f, &size);
	if (rc || off >= size)
		return rc;
	if (len > size - off)
		len = size - off;
	rc = hook(f, SP_IO_ZERO, NULL, off, len);
	if (!rc)
		rc = do_fallocate(f, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, off, len);
	return cannot(rc) ? write_zeros(f, off, len) : rc;
}

/**
 * sp_file_discard - give the space of a range back; it reads zeros then
 * @f: the file
 * @off: byte offset
 * @len: bytes; what is past the end of the file is left alone
 *
 * Return: 0; -EOPNOTSUPP: that cannot be had here, and nothing is written in its
 * place; or -errno.
 */
int sp_file_discard(struct sp_file *f, uint64_t off, uint64_t len)
{
	int rc = try_punch(f, off, len);

	return cannot(rc) ? -EOPNOTSUPP : rc;
}

/**
 * sp_file_discards - may a discard give anything back?
 * @f: the file
 *
 * A block device tells.  Of a file only a try could, and that would be a change.
 */
bool sp_file_discards(const struct sp_file *f)
{
	unsigned int maj = major(f->dev), min = minor(f->dev);
	unsigned long long max;
	char name[80];
	FILE *in;
	int n;

	if (!f->blockdev)
		return true;
	snprintf(name, sizeof(name), "/sys/dev/block/%u:%u/queue/discard_max_bytes", maj, min);
	in = fopen(name, "re");
	if (!in) {	/* a partition: its disk's */
		snprintf(name, sizeof(name), "/sys/dev/block/%u:%u/../queue/discard_max_bytes",
			 maj, min);
		in = fopen(name, "re");
	}
	if (!in)
		return true;
	n = fscanf(in, "%llu", &max);
	fclose(in);
	return n != 1 || max;
}

/**
 * sp_file_sync - make everything written before durable
 * @f: the file; one that is read-only has nothing to sync
 *
 * Return: 0, or -errno, and -EIO for ever after.
 */
int sp_file_sync(struct sp_file *f)
{
	int rc;

	if (has_failed(f))
		return -EIO;
	rc = hook(f, SP_IO_SYNC, NULL, 0, 0);
	if (!rc && fdatasync(f->fd_m))
		rc = -errno;
	if (rc)
		__atomic_store_n(&f->failed, true, __ATOMIC_RELEASE);
	/* Another sync that failed meanwhile may have taken our error. */
	return rc ? rc : has_failed(f) ? -EIO : 0;
}

/**
 * sp_file_size - its size now
 * @f: the file
 * @size: bytes
 *
 * Return: 0 or -errno.
 */
int sp_file_size(struct sp_file *f, uint64_t *size)
{
	struct stat st;

	if (f->blockdev)
		return ioctl(f->fd_m, BLKGETSIZE64, size) ? -errno : 0;
	if (fstat(f->fd_m, &st))
		return -errno;
	*size = st.st_size;
	return 0;
}

/**
 * sp_file_truncate - set the size of a regular file
 * @f: the file
 * @size: bytes
 *
 * Return: 0; -EOPNOTSUPP for a block device; or -errno.
 */
int sp_file_truncate(struct sp_file *f, uint64_t size)
{
	int rc;

	if (f->blockdev)
		return -EOPNOTSUPP;
	rc = check_change(f, size, 0);
	if (rc)
		return rc;
	rc = hook(f, SP_IO_TRUNCATE, NULL, size, 0);
	if (rc)
		return rc;
	return ftruncate(f->fd_m, size) ? -errno : 0;
}
