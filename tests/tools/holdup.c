// SPDX-License-Identifier: GPL-2.0-only
/*
 * holdup.c - a mapper whose memory does not come.
 *
 *   holdup pread|map
 *
 * Makes two devices and says their names.  Nobody answers for the second, and it is
 * mapped into the memory that the mapper of the first has the driver use: the data of
 * the first write are read to it by pread(), or it is where the extents of a MAP are.
 * So that call waits until the second is deleted.  Prints "held up" when it has
 * begun.  The second command serves the first device no more.
 */
#include <pthread.h>
#include <sys/mman.h>

#include "toymap.h"

#define SECTORS	2048
#define HOLE	1024		/* where it begins, in sectors */
#define HOLE_LEN 512

static struct ubdm_ctl *ctl;
static bool by_map;
static int channel;
static void *memory;

static uint32_t create(int *fd)
{
	struct ubdm_create c = { .index = -1, .block_size = 512, .phys_block_size = 4096,
				 .size = SECTORS, .ident = "holdup", .format = "test" };
	uint32_t index;

	*fd = c.channel = toy_open_channel();
	check(ubdm_ctl_create(ctl, &c, &index), "create");
	check(ubdm_ring_init(&ring, c.channel), "ring");
	return index;
}

/* So that a scan for partitions finds what it reads. */
static void zeroes(uint64_t lba, uint64_t len)
{
	struct ubdm_extent ext = { .lba = lba, .len = len, .type = UBDM_EXT_ZERO,
				   .perm = UBDM_PERM_R };
	struct toy_call c = { 0 };
	struct ubdm_map *map = (struct ubdm_map *)c.cmd.msg.body;

	c.cmd.msg.op = UBDM_CMD_MAP;
	map->addr = (uintptr_t)&ext;
	map->nr_ext = 1;
	toy_do(&c, "zeroes");
}

static void unheard(struct ubdm_cmd *cmd, int res)
{
	(void)cmd;
	(void)res;
}

/* What nobody answers for: its ring is left alone once the device is there. */
static void map_second(uint32_t index)
{
	char name[40];
	int fd;

	snprintf(name, sizeof(name), "/dev/ubdmap%u", index);
	while ((fd = open(name, O_RDONLY | O_CLOEXEC)) < 0 && errno == ENOENT)
		usleep(10000);
	check(fd < 0 ? -errno : 0, name);
	memory = mmap(NULL, SECTORS * 512, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	if (memory == MAP_FAILED)
		check(-errno, "mmap");
	memory = (char *)memory + HOLE * 512;
}

static void begun(void)
{
	puts("held up");
	fflush(stdout);
}

static void told(const char *what, long res)
{
	printf("%s: %s\n", what, res < 0 ? strerror(-res) : "done");
	fflush(stdout);
	exit(0);
}

static void mapped(struct ubdm_cmd *cmd, int res)
{
	(void)cmd;
	told("map", res);
}

static void answer(const struct ubdm_fault *f)
{
	static struct ubdm_cmd cmd = { .done = mapped };
	struct ubdm_map *map = (struct ubdm_map *)cmd.msg.body;
	ssize_t n;

	if (f->kind != UBDM_FAULT_WRITE)
		return;
	begun();
	if (!by_map) {
		n = pread(channel, memory, 512, UBDM_FAULT_POS(f->cookie, 0));
		told("pread", n < 0 ? -errno : n);
	}
	cmd.msg.op = UBDM_CMD_MAP;
	map->addr = (uintptr_t)memory;
	map->nr_ext = 1;
	ubdm_ring_queue(&ring, &cmd);
}

int main(int argc, char **argv)
{
	static struct toy_fetch fetch = { .cmd.done = unheard };
	struct ubdm_ring second;
	uint32_t first, other;
	int fd;

	if (argc != 2)
		return 2;
	by_map = !strcmp(argv[1], "map");
	check(ubdm_ctl_open(&ctl), "netlink");
	other = create(&fd);
	zeroes(0, HOLE);
	zeroes(HOLE + HOLE_LEN, SECTORS - HOLE - HOLE_LEN);
	ubdm_encode_fetch(&fetch.cmd.msg, fetch.faults, TOY_FAULTS);
	ubdm_ring_queue(&ring, &fetch.cmd);
	toy_start(3);
	second = ring;
	memset(&ring, 0, sizeof(ring));
	map_second(other);
	first = create(&channel);
	zeroes(0, SECTORS);
	toy_arm(answer);
	toy_start(3);
	toy_say(first);
	toy_say(other);
	while (!ended)
		toy_turn();
	(void)second;
	return 0;
}
