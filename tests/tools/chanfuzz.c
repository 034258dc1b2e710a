// SPDX-License-Identifier: GPL-2.0-only
/*
 * chanfuzz.c - a hostile mapper: random and mutated commands on the channel.
 *
 *   chanfuzz [-s SEED] [-t SECONDS] DIR      at least SECONDS, four times at most
 *
 * Round after round a process makes a device and sends commands that are right
 * but for a field or two, or noise from end to end, while another does I/O on
 * the device if it comes to life; then it dies, in whatever state that is, and
 * the device is deleted by force.  DIR is for backings; nothing else is written.
 *
 * Fails if the driver takes what it must refuse, or if a device cannot be
 * deleted.  Prints for each command how many were taken and refused, so that
 * the caller sees whether anything got behind the first check.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <liburing.h>

#include "libubdmap.h"

#define SIZE_SECT	8192
#define ROUND_CMDS	400
#define BUF_BYTES	(1 << 20)
#define NR_OPS		11
#define ENTRIES		64

static const struct {
	const char *name;
	uint32_t op;
	unsigned int size;
} ops[NR_OPS] = {
	{ "START", UBDM_CMD_START, sizeof(struct ubdm_start) },
	{ "STOP", UBDM_CMD_STOP, sizeof(struct ubdm_stop) },
	{ "FETCH", UBDM_CMD_FETCH, sizeof(struct ubdm_fetch) },
	{ "RESOLVE", UBDM_CMD_RESOLVE, sizeof(struct ubdm_resolve) },
	{ "MAP", UBDM_CMD_MAP, sizeof(struct ubdm_map) },
	{ "INVALIDATE", UBDM_CMD_INVALIDATE, sizeof(struct ubdm_invalidate) },
	{ "COMMIT", UBDM_CMD_COMMIT, sizeof(struct ubdm_commit) },
	{ "BACKING_ADD", UBDM_CMD_BACKING_ADD, sizeof(struct ubdm_backing_add) },
	{ "BACKING_GET", UBDM_CMD_BACKING_GET, sizeof(struct ubdm_backing_ref) },
	{ "BACKING_DEL", UBDM_CMD_BACKING_DEL, sizeof(struct ubdm_backing_ref) },
	{ "DUMP", UBDM_CMD_DUMP, sizeof(struct ubdm_dump) },
};

struct shared {
	unsigned long taken[NR_OPS], refused[NR_OPS], noise, xfers;
	int index;		/* of the device of this round, -1: none */
	bool live;
	bool wrong;
};

enum bad_fd { BAD_DIR, BAD_PIPE, BAD_PROC, BAD_RDONLY, BAD_OWN, BAD_CHANNEL,
	      BAD_SOCKET, BAD_PATH, BAD_RING, NR_BAD };

static const char *const bad_names[NR_BAD] = {
	"a folder", "a pipe", "a file of /proc", "a read-only file for writing",
	"its own device", "its channel", "a socket", "an O_PATH file", "a ring",
};

static struct shared *sh;
static uint64_t rng;
static uint8_t *mem;			/* where the kernel may write */
static uint64_t cookies[16];
static struct io_uring ring;
static int channel, good_fd, bad_fds[NR_BAD];
static uint64_t tid = 1;

static uint64_t next(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng;
}

static bool one_in(unsigned int n)
{
	return next() % n == 0;
}

static void die(const char *what, int error)
{
	fprintf(stderr, "chanfuzz: %s: %s\n", what, strerror(error));
	exit(1);
}

static uint64_t interesting(void)
{
	static const uint64_t values[] = {
		0, 1, 2, 7, 8, 9, 127, 128, SIZE_SECT - 1, SIZE_SECT,
		SIZE_SECT + 1, 1 << 12, 1 << 16, INT32_MAX, UINT32_MAX,
		1ULL << 32, INT64_MAX, INT64_MAX >> 9, (INT64_MAX >> 9) + 1,
		1ULL << 54, 1ULL << 55, 1ULL << 63, UINT64_MAX, UINT64_MAX - 1,
	};

	return one_in(3) ? next() :
			   values[next() % (sizeof(values) / sizeof(values[0]))];
}

/* Ours mostly; near its end, read-only, nowhere, the kernel's. */
static uint64_t address(void)
{
	switch (next() % 16) {
	case 0:
		return (uintptr_t)mem + BUF_BYTES - next() % 4096;
	case 1:
		return (uintptr_t)&ops;
	case 2:
		return 0;
	case 3:
		return 0xffff888000000000 + next() % (1 << 30);
	case 4:
		return next();
	default:
		return (uintptr_t)mem + next() % 8 * 4096;
	}
}

static void fill_extent(struct ubdm_extent *e, uint64_t at)
{
	*e = (struct ubdm_extent){ .lba = at, .len = next() % 64 + 1,
				   .type = next() % 4 + 1 };
	switch (e->type) {
	case UBDM_EXT_LINEAR:
		e->perm = one_in(2) ? UBDM_PERM_R : UBDM_PERM_R | UBDM_PERM_W;
		e->off = next() % SIZE_SECT;
		break;
	case UBDM_EXT_ZERO:
		e->perm = UBDM_PERM_R;
		break;
	case UBDM_EXT_JOURNAL:
		e->off = next() % SIZE_SECT;
		e->tid = tid++;
	}
	if (one_in(2)) {
		e->tid = tid++;
		e->flags = next() % 4;
	}
}

static void spoil(void *body, unsigned int size)
{
	uint8_t *p = body;
	uint64_t v = interesting();
	unsigned int width = 1 << next() % 4, at = next() % size;

	at &= ~(width - 1);
	memcpy(p + at, &v, width < size - at ? width : size - at);
}

/* The table of extents for MAP and RESOLVE: rising, then perhaps not. */
static unsigned int fill_table(void)
{
	struct ubdm_extent *e = (void *)mem;
	unsigned int n = one_in(20) ? 8192 : next() % 24 + 1, i;
	uint64_t at = next() % SIZE_SECT;

	for (i = 0; i < n; i++) {
		fill_extent(&e[i], at);
		at += e[i].len + (one_in(2) ? next() % 32 : 0);
		if (at > SIZE_SECT && !one_in(8))
			break;
	}
	n = i ? i : 1;
	if (one_in(4))
		spoil(&e[next() % n], sizeof(*e));
	return n;
}

static void fill_resolve(struct ubdm_resolve *r)
{
	r->cookie = one_in(16) ? interesting() : cookies[next() % 16];
	r->action = next() % 5 + 1;
	switch (r->action) {
	case UBDM_RESOLVE_DONE:
		r->done = next() % 32 + 1;
		break;
	case UBDM_RESOLVE_ERROR:
		r->error = -(next() % 4095 + 1);
		break;
	case UBDM_RESOLVE_HOLD:
		r->done = next() % 30;
		return;
	}
	if (one_in(3)) {
		r->addr = (uintptr_t)mem;
		r->nr_ext = fill_table();
	} else if (one_in(2) || r->action == UBDM_RESOLVE_PLACE) {
		struct ubdm_fault *f = (void *)(mem + BUF_BYTES / 2);

		r->flags = UBDM_RESOLVE_F_INLINE;
		r->nr_ext = 1;
		fill_extent(&r->ext, f->lba);
		if (one_in(2))
			r->ext.len = f->len;
		r->ext.type = UBDM_EXT_LINEAR;
		r->ext.perm = UBDM_PERM_R | UBDM_PERM_W;
	}
	if (one_in(100))
		r->flags |= UBDM_RESOLVE_F_FAIL_DEV;
}

static int fill_add(struct ubdm_backing_add *a)
{
	int bad = one_in(2) ? (int)(next() % NR_BAD) : -1;

	a->fd = bad < 0 ? good_fd : bad_fds[bad];
	a->flags = UBDM_BACKING_F_WRITE | (one_in(2) ? UBDM_BACKING_F_BUFFERED : 0);
	a->len = UINT64_MAX;
	return bad;
}

/* A command as it should be.  Returns which refusal is certain, or -1. */
static int fill(unsigned int op, void *body)
{
	switch (ops[op].op) {
	case UBDM_CMD_START:
		((struct ubdm_start *)body)->granule_shift = next() % 8;
		break;
	case UBDM_CMD_FETCH: {
		struct ubdm_fetch *f = body;

		f->buf = one_in(12) ? address() : (uintptr_t)mem + BUF_BYTES / 2;
		f->nr = 1 + next() % 8;
		break;
	}
	case UBDM_CMD_RESOLVE:
		fill_resolve(body);
		break;
	case UBDM_CMD_MAP: {
		struct ubdm_map *m = body;

		m->nr_ext = fill_table();
		m->addr = one_in(8) ? address() : (uintptr_t)mem;
		break;
	}
	case UBDM_CMD_INVALIDATE: {
		struct ubdm_invalidate *i = body;

		i->flags = one_in(2) ? UBDM_INVAL_F_LBA : UBDM_INVAL_F_BACKING;
		i->start = next() % SIZE_SECT;
		i->len = next() % (SIZE_SECT - i->start);
		break;
	}
	case UBDM_CMD_COMMIT:
		((struct ubdm_commit *)body)->tid = tid > 8 ? tid - next() % 8 : 0;
		break;
	case UBDM_CMD_BACKING_ADD:
		return fill_add(body);
	case UBDM_CMD_BACKING_GET:
	case UBDM_CMD_BACKING_DEL:
		((struct ubdm_backing_ref *)body)->index = next() % 4;
		break;
	case UBDM_CMD_DUMP: {
		struct ubdm_dump *d = body;

		d->nr = next() % 64 + 1;
		d->lba = one_in(2) ? 0 : next() % SIZE_SECT;
		d->addr = address();
		break;
	}
	}
	return -1;
}

/* user_data: op | (bad + 1) << 8; NR_OPS is noise */
static void collect(void)
{
	struct io_uring_cqe *cqe;

	while (!io_uring_peek_cqe(&ring, &cqe)) {
		unsigned int op = cqe->user_data & 0xff;
		int bad = (int)(cqe->user_data >> 8) - 1, res = cqe->res, i;
		struct ubdm_fault *f = (void *)(mem + BUF_BYTES / 2);

		io_uring_cqe_seen(&ring, cqe);
		if (op == NR_OPS) {
			sh->noise++;
			continue;
		}
		if (res < 0)
			sh->refused[op]++;
		else
			sh->taken[op]++;
		if (res >= 0 && bad >= 0) {
			fprintf(stderr, "chanfuzz: %s was taken as a backing\n",
				bad_names[bad]);
			sh->wrong = true;
		}
		if (res >= 0 && ops[op].op == UBDM_CMD_BACKING_GET)
			close(res);
		if (res >= 0 && ops[op].op == UBDM_CMD_START) {
			sh->live = true;
		} else if (ops[op].op == UBDM_CMD_FETCH) {
			for (i = 0; i < res && i < 8; i++)
				cookies[next() % 16] = f[i].cookie;
		}
	}
}

static struct io_uring_sqe *get_sqe(void)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

	while (!sqe) {
		io_uring_submit(&ring);
		collect();
		sqe = io_uring_get_sqe(&ring);
	}
	memset(sqe, 0, 128);
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = channel;
	return sqe;
}

static void send_noise(void)
{
	struct io_uring_sqe *sqe = get_sqe();
	unsigned int i;

	sqe->cmd_op = one_in(3) ? next() : ops[next() % NR_OPS].op;
	if (one_in(4))
		sqe->cmd_op += 1 << (16 + next() % 14);		/* another size */
	for (i = 0; i < UBDM_CMD_BODY; i += 8) {
		uint64_t v = one_in(2) ? interesting() : 0;

		memcpy(sqe->cmd + i, &v, 8);
	}
	if (one_in(8))
		sqe->flags = IOSQE_ASYNC;
	/* A STOP would end the round; a noisy one is rare enough. */
	sqe->user_data = NR_OPS;
}

static void send_right(unsigned int op)
{
	struct io_uring_sqe *sqe = get_sqe();
	int bad = fill(op, sqe->cmd);

	sqe->cmd_op = ops[op].op;
	if (one_in(5)) {
		spoil(sqe->cmd, one_in(4) ? UBDM_CMD_BODY : ops[op].size);
		bad = -1;
	}
	sqe->user_data = op | (uint64_t)(bad + 1) << 8;
	if (one_in(40))
		sqe->flags = IOSQE_IO_LINK;
}

static void xfer(void)
{
	uint64_t cookie = one_in(4) ? next() : cookies[next() % 16];
	uint64_t pos = UBDM_FAULT_POS(cookie, one_in(4) ? next() : next() % 8 * 512);
	size_t len = one_in(8) ? 1 << 20 : 512 + next() % 8192;
	void *at = (void *)(uintptr_t)(one_in(4) ? address() : (uintptr_t)mem);

	if (one_in(2) ? pread(channel, at, len, pos) > 0 :
			pwrite(channel, at, len, pos) > 0)
		sh->xfers++;
}

/* A device on the channel; at times first one that cannot be. */
static void make_device(void)
{
	struct ubdm_create c = { .index = -1, .block_size = 512, .size = SIZE_SECT,
				 .phys_block_size = 4096, .discard_gran = 4096,
				 .channel = channel, .ident = "chanfuzz",
				 .format = "hostile" };
	struct ubdm_create odd = c;
	struct ubdm_ctl *ctl;
	uint32_t index;
	int ret;

	ret = ubdm_ctl_open(&ctl);
	if (ret)
		die("netlink", -ret);
	if (one_in(3)) {
		odd.index = 1 << 20;
		odd.channel = one_in(2) ? bad_fds[next() % NR_BAD] : channel;
		odd.size = interesting();
		odd.block_size = interesting();
		odd.discard_gran = interesting();
		/* An odd index is refused for certain, so that none comes to be. */
		if (!ubdm_ctl_create(ctl, &odd, &index))
			sh->wrong = true;
	}
	if (one_in(20))
		odd = c;	/* commands without a device */
	else if (!ubdm_ctl_create(ctl, &c, &index))
		sh->index = index;
	ubdm_ctl_close(ctl);
}

static void open_files(const char *dir)
{
	char path[256];
	int pipes[2];

	snprintf(path, sizeof(path), "%s/backing", dir);
	good_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (good_fd < 0 || ftruncate(good_fd, SIZE_SECT << 9))
		die(path, errno);
	bad_fds[BAD_RDONLY] = open(path, O_RDONLY);
	bad_fds[BAD_PATH] = open(path, O_PATH);
	bad_fds[BAD_DIR] = open(dir, O_RDONLY);
	bad_fds[BAD_PROC] = open("/proc/self/comm", O_RDWR);
	if (pipe(pipes))
		die("pipe", errno);
	bad_fds[BAD_PIPE] = pipes[0];
	bad_fds[BAD_SOCKET] = socket(AF_UNIX, SOCK_STREAM, 0);
	bad_fds[BAD_CHANNEL] = channel;
	bad_fds[BAD_RING] = ring.ring_fd;
	bad_fds[BAD_OWN] = -1;
}

static void open_own(void)
{
	char path[32];

	if (!sh->live || bad_fds[BAD_OWN] >= 0)
		return;
	snprintf(path, sizeof(path), "/dev/ubdmap%d", sh->index);
	/* O_NONBLOCK or not, an open reads nothing from a whole disk. */
	bad_fds[BAD_OWN] = open(path, O_RDWR | O_CLOEXEC);
}

static void new_ring(void)
{
	unsigned int flags = IORING_SETUP_SQE128;

	if (one_in(30))
		flags = 0;
	else if (one_in(4))
		flags |= IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
	else if (one_in(6))
		flags |= IORING_SETUP_SQPOLL;
	if (io_uring_queue_init(ENTRIES, &ring, flags | IORING_SETUP_SUBMIT_ALL))
		die("ring", errno);
	/* Without SQE128 there is no room for a body: nothing to send. */
	if (!(flags & IORING_SETUP_SQE128))
		_exit(0);
}

static void round_of_commands(const char *dir)
{
	unsigned int i, op;

	/* With room behind it that nobody can write to. */
	mem = mmap(NULL, 4 * BUF_BYTES, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem != MAP_FAILED)
		mprotect(mem + BUF_BYTES, 3 * BUF_BYTES, PROT_NONE);
	channel = open(UBDM_CHANNEL_PATH, O_RDWR | O_CLOEXEC);
	if (mem == MAP_FAILED || channel < 0)
		die(UBDM_CHANNEL_PATH, errno);
	new_ring();
	open_files(dir);
	make_device();
	/* So that something gets behind the first checks. */
	send_right(7);
	for (i = 0; i < 3; i++)
		send_right(2);
	send_right(0);
	for (i = 0; i < ROUND_CMDS; i++) {
		op = next() % NR_OPS;
		if (ops[op].op == UBDM_CMD_STOP && !one_in(120))
			op = 3;
		if (one_in(8))
			send_noise();
		else
			send_right(op);
		if (one_in(6))
			xfer();
		if (one_in(3)) {
			io_uring_submit(&ring);
			collect();
			open_own();
		}
		if (one_in(12))
			poll(NULL, 0, 2);
		if (one_in(2000))
			mprotect(mem + BUF_BYTES / 2, 4096, PROT_READ);
	}
	io_uring_submit(&ring);
	collect();
	if (one_in(3))
		io_uring_queue_exit(&ring);
	_exit(0);
}

/* Reads and writes the device until it fails. */
static void do_io(void)
{
	void *buf;
	char path[32];
	int fd = -1;

	if (posix_memalign(&buf, 4096, 1 << 16))
		_exit(1);
	while (!sh->live)
		poll(NULL, 0, 1);
	snprintf(path, sizeof(path), "/dev/ubdmap%d", sh->index);
	fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	while (fd >= 0) {
		size_t len = (next() % 64 + 1) << 9;
		off_t pos = next() % (SIZE_SECT - 64) << 9;

		if (one_in(2) ? pread(fd, buf, len, pos) < 0 :
				pwrite(fd, buf, len, pos) < 0)
			poll(NULL, 0, 1);
		if (one_in(64))
			fsync(fd);
	}
	_exit(0);
}

static pid_t start(void (*fn)(void), uint64_t seed)
{
	pid_t pid = fork();

	if (pid < 0)
		die("fork", errno);
	if (!pid) {
		rng = seed | 1;
		fn();
	}
	return pid;
}

static const char *dir;

static void commands(void)
{
	round_of_commands(dir);
}

static void delete_it(void)
{
	struct ubdm_device dev;
	struct ubdm_ctl *ctl;
	int i;

	if (sh->index < 0)
		return;
	if (ubdm_ctl_open(&ctl))
		die("netlink", EIO);
	for (i = 0; i < 6000; i++) {
		if (ubdm_ctl_get(ctl, sh->index, &dev) == -ENODEV)
			break;
		if (i % 100 == 0)
			ubdm_ctl_delete(ctl, sh->index, true);
		poll(NULL, 0, 10);
	}
	ubdm_ctl_close(ctl);
	if (i == 6000) {
		fprintf(stderr, "chanfuzz: the device is not deleted after a minute\n");
		exit(1);
	}
}

static void one_round(uint64_t seed)
{
	pid_t mapper, io[2];
	int status, i;

	sh->index = -1;
	sh->live = false;
	mapper = start(commands, seed);
	for (i = 0; i < 2; i++)
		io[i] = start(do_io, seed + i + 2);
	/* It may wait for its own device: opening it, or at its end. */
	for (i = 0; i < 200 && !waitpid(mapper, &status, WNOHANG); i++)
		poll(NULL, 0, 20);
	if (i == 200)
		kill(mapper, SIGKILL);
	for (int j = 0; j < 2; j++)
		kill(io[j], SIGKILL);
	delete_it();
	if (i == 200)
		waitpid(mapper, &status, 0);
	for (int j = 0; j < 2; j++)
		waitpid(io[j], NULL, 0);
	if (i < 200 && (!WIFEXITED(status) || WEXITSTATUS(status))) {
		fprintf(stderr, "chanfuzz: seed %llu ended with %#x\n",
			(unsigned long long)seed, status);
		sh->wrong = true;
	}
}

/* The rarer commands: not both ends of them may be seen in time. */
static bool all_seen(void)
{
	for (int i = 0; i < NR_OPS; i++)
		if (!sh->taken[i] || !sh->refused[i])
			return false;
	return true;
}

int main(int argc, char **argv)
{
	uint64_t seed = 1, rounds = 0;
	time_t start = time(NULL), now = start;
	int opt, least = 20;

	while ((opt = getopt(argc, argv, "s:t:")) != -1) {
		if (opt == 's')
			seed = strtoull(optarg, NULL, 0);
		else if (opt == 't')
			least = atoi(optarg);
		else
			return 2;
	}
	if (optind + 1 != argc)
		return 2;
	dir = argv[optind];
	sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE,
		  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (sh == MAP_FAILED)
		die("memory", errno);
	while (!sh->wrong && (now - start < least ||
			      (now - start < 4 * least && !all_seen()))) {
		one_round(seed++ * 0x9e3779b97f4a7c15);
		rounds++;
		now = time(NULL);
	}
	printf("rounds %llu\n", (unsigned long long)rounds);
	for (int i = 0; i < NR_OPS; i++)
		printf("%s %lu %lu\n", ops[i].name, sh->taken[i], sh->refused[i]);
	printf("noise %lu\nxfers %lu\n", sh->noise, sh->xfers);
	return sh->wrong;
}
