// SPDX-License-Identifier: GPL-2.0-only
/*
 * hog.c - memory that is used all the time, and must come back as it was.
 *
 *   hog MIB FILE
 *
 * Fills MIB of memory, each page with something of its own, then looks through
 * all of it again and again, changing it, until FILE exists.  Prints how often.
 * Ends with 1 if a page is not as it was left.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE	4096
#define WORDS	(PAGE / sizeof(uint64_t))

static uint64_t word(uint64_t page, uint64_t round, unsigned int i)
{
	return (page * WORDS + i + 1) * 0x9e3779b97f4a7c15ULL + round;
}

int main(int argc, char **argv)
{
	uint64_t n, round, page, *mem;

	if (argc != 3)
		return 2;
	n = strtoull(argv[1], NULL, 0) * (1 << 20) / PAGE;
	mem = mmap(NULL, n * PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED) {
		perror("mmap");
		return 2;
	}
	for (round = 0; !round || access(argv[2], F_OK); round++) {
		for (page = 0; page < n; page++) {
			uint64_t *p = mem + page * WORDS;

			for (unsigned int i = 0; i < WORDS; i++) {
				if (round && p[i] != word(page, round - 1, i)) {
					printf("page %lu is not as it was\n",
					       (unsigned long)page);
					return 1;
				}
				p[i] = word(page, round, i);
			}
		}
	}
	printf("%lu\n", (unsigned long)round);
	return 0;
}
