// SPDX-License-Identifier: GPL-2.0-only
/*
 * shapes.c - requests of every shape against a model in memory.
 *
 *   shapes [-c] [-b BLOCK] [-n OPS] [-o MODEL] [-s SEED] [-w MIB] DEV
 *
 * Random reads, writes, discards, zeroes and flushes on the first MIB (16) of
 * DEV: 512 B (BLOCK) to 2 MiB, aligned to nothing more, in one buffer or many,
 * some NOWAIT, some DSYNC.  With O_DIRECT, or -c through the page cache.  Each
 * read is compared, in the end all.  A discarded sector may keep its content or
 * be zero.  -o writes the model to a file.
 *
 * One thread, one request at a time: what it finds is a wrong answer, not a
 * race.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>
#include <linux/fs.h>

#define MAX_BYTES	(2U << 20)
#define MAX_IOVS	24

static int fd;
static size_t size = 16 << 20, block = 512;
static uint8_t *model, *buf;
static uint64_t rng = 1;
static bool cached;
static unsigned long nr_nowait, nr_again;

static uint64_t next(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng;
}

static void die(const char *what, size_t pos, size_t len)
{
	fprintf(stderr, "shapes: %s at %zu, %zu bytes: %s\n", what, pos, len,
		strerror(errno));
	exit(1);
}

/* Small ones mostly, large ones at times, a few whole powers of two. */
static void pick(size_t *pos, size_t *len)
{
	size_t limit = block << next() % 13;

	if (limit > MAX_BYTES)
		limit = MAX_BYTES;
	*len = next() % 4 ? (next() % limit / block + 1) * block : limit;
	*pos = next() % (size / block) * block;
	if (next() % 4 == 0)
		*pos = *pos / *len * *len;
	if (*pos + *len > size)
		*len = size - *pos;
}

/* Cuts [0, @len) of the buffer into pieces, each a number of blocks. */
static int cut(struct iovec *iov, size_t len)
{
	size_t at = 0;
	int n = 0;

	if (next() % 2) {
		iov[0] = (struct iovec){ buf, len };
		return 1;
	}
	while (at < len && n < MAX_IOVS - 1) {
		size_t part = (next() % 16 + 1) * block;

		if (part > len - at)
			part = len - at;
		iov[n++] = (struct iovec){ buf + at, part };
		at += part;
	}
	if (at < len)
		iov[n++] = (struct iovec){ buf + at, len - at };
	return n;
}

static ssize_t transfer(bool write, struct iovec *iov, int n, size_t pos, int flags)
{
	return write ? pwritev2(fd, iov, n, pos, flags) :
		       preadv2(fd, iov, n, pos, flags);
}

static void move(bool write, size_t pos, size_t len)
{
	int flags = write && next() % 16 == 0 ? RWF_DSYNC : 0;
	struct iovec iov[MAX_IOVS];
	size_t done = 0;
	ssize_t ret;
	int n;

	while (done < len) {
		/* What came short goes on from there. */
		n = cut(iov, len - done);
		for (int i = 0; i < n; i++)
			iov[i].iov_base = (uint8_t *)iov[i].iov_base + done;
		if (next() % 4 == 0) {
			nr_nowait++;
			ret = transfer(write, iov, n, pos + done, flags | RWF_NOWAIT);
			if (ret > 0)
				done += ret;
			else if (ret < 0 && errno != EAGAIN && errno != EOPNOTSUPP)
				die("NOWAIT", pos, len);
			else
				nr_again++;
			if (ret > 0)
				continue;
		}
		ret = transfer(write, iov, n, pos + done, flags);
		if (ret <= 0)
			die(write ? "write" : "read", pos, len);
		done += ret;
	}
}

static void compare(const char *what, size_t pos, size_t len)
{
	for (size_t at = 0; at < len; at += block)
		if (memcmp(buf + at, model + pos + at, block)) {
			fprintf(stderr, "shapes: %s of %zu+%zu: differs at %zu\n",
				what, pos, len, pos + at);
			exit(1);
		}
}

static void do_write(size_t pos, size_t len)
{
	for (size_t i = 0; i < len; i += 8) {
		uint64_t v = next();

		memcpy(buf + i, &v, 8);
	}
	memcpy(model + pos, buf, len);
	move(true, pos, len);
}

static void do_read(size_t pos, size_t len)
{
	memset(buf, 0xa5, len);
	move(false, pos, len);
	compare("read", pos, len);
}

static bool is_zero(const uint8_t *p, size_t len)
{
	return !p[0] && !memcmp(p, p + 1, len - 1);
}

/* The page cache zeroes parts of pages by itself, and may forget that again. */
static void do_discard(size_t pos, size_t len)
{
	uint64_t range[2];

	if (cached) {
		pos &= ~4095UL;
		len = (len + 4095) & ~4095UL;
		len = len < MAX_BYTES ? len : MAX_BYTES;
		len = len < size - pos ? len : size - pos;
	}
	range[0] = pos;
	range[1] = len;
	/* What is dirty is dropped, and what is older comes back. */
	if (cached && fsync(fd))
		die("fsync", pos, len);
	if (ioctl(fd, BLKDISCARD, range) && errno != EOPNOTSUPP)
		die("discard", pos, len);
	move(false, pos, len);
	for (size_t at = 0; at < len; at += block)
		if (is_zero(buf + at, block))
			memset(model + pos + at, 0, block);
	compare("discard", pos, len);
}

static void do_zero(size_t pos, size_t len)
{
	uint64_t range[2] = { pos, len };

	if (ioctl(fd, BLKZEROOUT, range))
		die("zeroout", pos, len);
	memset(model + pos, 0, len);
}

static void one(void)
{
	unsigned int what = next() % 64;
	size_t pos, len;

	pick(&pos, &len);
	if (what < 28)
		do_write(pos, len);
	else if (what < 58)
		do_read(pos, len);
	else if (what < 60)
		do_discard(pos, len);
	else if (what < 62)
		do_zero(pos, len);
	else if (what < 63 && fsync(fd))
		die("fsync", 0, 0);
	else if (cached && what == 63)
		ioctl(fd, BLKFLSBUF);
}

static void sweep(void)
{
	size_t pos;

	for (pos = 0; pos < size; pos += MAX_BYTES) {
		size_t len = size - pos < MAX_BYTES ? size - pos : MAX_BYTES;

		do_read(pos, len);
	}
}

static void save(const char *path)
{
	FILE *f = fopen(path, "w");

	if (!f || fwrite(model, 1, size, f) != size || fclose(f))
		die(path, 0, size);
}

/* It begins with what is there. */
static void setup(const char *path)
{
	uint64_t bytes;

	fd = open(path, O_RDWR | O_CLOEXEC | (cached ? 0 : O_DIRECT));
	if (fd < 0 || ioctl(fd, BLKGETSIZE64, &bytes))
		die(path, 0, 0);
	if (bytes < size)
		size = bytes;
	model = malloc(size);
	if (!model || posix_memalign((void **)&buf, 4096, MAX_BYTES))
		die("memory", 0, size);
	for (size_t pos = 0; pos < size; pos += MAX_BYTES) {
		size_t len = size - pos < MAX_BYTES ? size - pos : MAX_BYTES;

		if (pread(fd, buf, len, pos) != (ssize_t)len)
			die("read", pos, len);
		memcpy(model + pos, buf, len);
	}
}

int main(int argc, char **argv)
{
	const char *out = NULL;
	unsigned long n = 500;
	int opt;

	while ((opt = getopt(argc, argv, "b:cn:o:s:w:")) != -1) {
		switch (opt) {
		case 'b':
			block = strtoul(optarg, NULL, 0);
			break;
		case 'c':
			cached = true;
			break;
		case 'n':
			n = strtoul(optarg, NULL, 0);
			break;
		case 'o':
			out = optarg;
			break;
		case 's':
			rng = strtoull(optarg, NULL, 0) * 0x9e3779b97f4a7c15 + 1;
			break;
		case 'w':
			size = strtoul(optarg, NULL, 0) << 20;
			break;
		default:
			return 2;
		}
	}
	if (optind + 1 != argc)
		return 2;
	setup(argv[optind]);
	while (n--)
		one();
	sweep();
	if (fsync(fd))
		die("fsync", 0, 0);
	if (out)
		save(out);
	printf("%lu NOWAIT, %lu of them not possible\n", nr_nowait, nr_again);
	return 0;
}
