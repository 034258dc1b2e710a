// SPDX-License-Identifier: GPL-2.0-only
/*
 * profmark.c - profmark STAT MS [IOS]: have tests/bench/tcg_profile.c count for MS
 * milliseconds, or, after the first 10 requests, until IOS more are complete, looked at
 * each MS milliseconds; prints how many reads and writes the disk with this stat file
 * completed meanwhile.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static unsigned long long completed(int fd)
{
	unsigned long long f[5];
	char line[512];
	ssize_t len;

	len = pread(fd, line, sizeof(line) - 1, 0);
	if (len <= 0)
		return 0;
	line[len] = 0;
	if (sscanf(line, "%llu %llu %llu %llu %llu",
		   &f[0], &f[1], &f[2], &f[3], &f[4]) != 5)
		return 0;
	return f[0] + f[4];
}

int main(int argc, char **argv)
{
	unsigned long long before, after, ios = 0;
	struct timespec t;
	int fd, ms;

	if (argc != 3 && argc != 4)
		return 2;
	fd = open(argv[1], O_RDONLY);
	if (fd < 0) {
		perror(argv[1]);
		return 1;
	}
	ms = atoi(argv[2]);
	if (argc == 4)
		ios = strtoull(argv[3], NULL, 10);
	t = (struct timespec) { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L };
	completed(fd);
	before = completed(fd);
	if (ios) {
		while (completed(fd) < before + 10)
			nanosleep(&t, NULL);
		before = completed(fd);
	}
	/* A NOP each, with 'u', 'b', 'd' and a number for its address. */
	asm volatile(".byte 0x0f, 0x1f, 0x80, 0x75, 0x62, 0x64, 1");
	do
		nanosleep(&t, NULL);
	while (ios && completed(fd) - before < ios);
	asm volatile(".byte 0x0f, 0x1f, 0x80, 0x75, 0x62, 0x64, 2");
	after = completed(fd);
	printf("%llu\n", after - before);
	return 0;
}
