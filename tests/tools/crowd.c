// SPDX-License-Identifier: GPL-2.0-only
/*
 * crowd.c - many writers of a sector each, all at once, all into one place.
 *
 *   crowd [-n WRITERS] DEV BYTE LENGTH
 *
 * WRITERS (64) threads wait for each other; then each writes its sector of the
 * LENGTH bytes from BYTE on, as evenly spread as it goes, with O_DIRECT.  Then all of
 * them are read: each writer's sector must be there, and between them what was
 * there before.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fd;
static unsigned int writers = 64;
static off_t start;
static size_t length;
static pthread_barrier_t together;

static void die(const char *what)
{
	fprintf(stderr, "crowd: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint8_t *room(size_t bytes)
{
	void *mem;

	errno = posix_memalign(&mem, 4096, bytes);
	if (errno)
		die("memory");
	return mem;
}

static size_t sector_of(unsigned int n)
{
	return length / writers * n & ~511UL;
}

static void *write_one(void *arg)
{
	unsigned int n = (uintptr_t)arg;
	uint8_t *buf = room(512);

	memset(buf, 1 + n, 512);
	pthread_barrier_wait(&together);
	if (pwrite(fd, buf, 512, start + sector_of(n)) != 512)
		die("write");
	free(buf);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t *thread;
	uint8_t *want, *got;
	unsigned int n;
	int opt;

	while ((opt = getopt(argc, argv, "n:")) != -1) {
		if (opt != 'n')
			return 2;
		writers = atoi(optarg);
	}
	if (argc - optind != 3)
		return 2;
	fd = open(argv[optind], O_RDWR | O_DIRECT | O_CLOEXEC);
	if (fd < 0)
		die(argv[optind]);
	start = strtoull(argv[optind + 1], NULL, 0);
	length = strtoull(argv[optind + 2], NULL, 0);
	want = room(length);
	got = room(length);
	/* What is there before comes on stdin: to read it would map it. */
	for (size_t have = 0; have < length;) {
		ssize_t r = read(0, want + have, length - have);

		if (r <= 0)
			die("what was there before");
		have += r;
	}
	thread = calloc(writers, sizeof(*thread));
	pthread_barrier_init(&together, NULL, writers);
	for (n = 0; n < writers; n++) {
		errno = pthread_create(&thread[n], NULL, write_one, (void *)(uintptr_t)n);
		if (errno)
			die("thread");
		memset(want + sector_of(n), 1 + n, 512);
	}
	for (n = 0; n < writers; n++)
		pthread_join(thread[n], NULL);
	if (pread(fd, got, length, start) != (ssize_t)length)
		die("read");
	for (size_t at = 0; at < length; at += 512)
		if (memcmp(got + at, want + at, 512)) {
			fprintf(stderr, "crowd: byte %llu: the sector has %02x, not %02x\n",
				(unsigned long long)start + at, got[at], want[at]);
			return 1;
		}
	return 0;
}
