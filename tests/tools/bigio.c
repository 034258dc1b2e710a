// SPDX-License-Identifier: GPL-2.0-only
/*
 * bigio.c - one large direct request, and how often it ends, and how.
 *
 *   bigio [-w BYTE] DEV SECTOR SECTORS
 *
 * Reads, or with -w writes that byte everywhere; up to 2048 sectors, which are
 * one bio.  Prints "1 0" if it ended once and in full, "1 -5" if with EIO.  A
 * second completion is waited for a while.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <liburing.h>

static int fail(const char *what, int error)
{
	fprintf(stderr, "bigio: %s: %s\n", what, strerror(error));
	return 1;
}

int main(int argc, char **argv)
{
	struct __kernel_timespec second = { .tv_sec = 30 };
	int fd, opt, ret, res = 0, ends = 0;
	struct io_uring_cqe *cqe;
	struct io_uring ring;
	const char *byte = NULL;
	struct io_uring_sqe *sqe;
	size_t sectors;
	void *buf;

	while ((opt = getopt(argc, argv, "w:")) != -1) {
		if (opt != 'w')
			return 2;
		byte = optarg;
	}
	if (argc - optind != 3)
		return 2;
	sectors = strtoull(argv[optind + 2], NULL, 0);
	fd = open(argv[optind], (byte ? O_RDWR : O_RDONLY) | O_DIRECT | O_CLOEXEC);
	if (fd < 0)
		return fail(argv[optind], errno);
	if (posix_memalign(&buf, 4096, sectors << 9))
		return fail("memory", ENOMEM);
	memset(buf, byte ? strtoul(byte, NULL, 0) : 0xa5, sectors << 9);
	ret = io_uring_queue_init(4, &ring, 0);
	if (ret)
		return fail("ring", -ret);
	sqe = io_uring_get_sqe(&ring);
	if (byte)
		io_uring_prep_write(sqe, fd, buf, sectors << 9,
				    strtoull(argv[optind + 1], NULL, 0) << 9);
	else
		io_uring_prep_read(sqe, fd, buf, sectors << 9,
				   strtoull(argv[optind + 1], NULL, 0) << 9);
	io_uring_submit(&ring);
	while (!io_uring_wait_cqe_timeout(&ring, &cqe, &second)) {
		ends++;
		if (!res && cqe->res != (int)(sectors << 9))
			res = cqe->res < 0 ? cqe->res : -ENODATA;
		io_uring_cqe_seen(&ring, cqe);
		second = (struct __kernel_timespec){ .tv_nsec = 50000000 };
	}
	printf("%d %d\n", ends, res);
	return 0;
}
