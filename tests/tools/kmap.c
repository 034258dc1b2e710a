// SPDX-License-Identifier: GPL-2.0-only
/*
 * kmap.c - a mapper that knows no image format, to test the driver alone.
 *
 *   kmap [-AbDhmPpSWwx] [-a N] [-c OTHER] [-e GRANULE] [-g SHIFT] [-l N] [-r RUN]
 *        [-s STAGE] FILE [SLOW]
 *
 * The device is as large as FILE and sector s of it is sector s of FILE.  A
 * fault maps its range only (or RUN granules), so that misses happen all day.
 * Prints the device when it is there; ends when it is deleted.
 *
 *   -a N        attach to the orphaned device N instead of making one
 *   -A          with -a: register FILE as one more backing
 *   -b          register FILE buffered
 *   -c OTHER    close FILE when it is registered, and open OTHER under its number
 *   -D          let a FLUSH wait for a drain before it is committed
 *   -e GRANULE  this granule is an ERROR
 *   -h          hold every fifth fault for 20 ms first
 *   -l N        the driver keeps at most N extents
 *   -m          granules of five kinds: linear, zero until written, moved by
 *               pread and pwrite on the channel, placed, and linear in SLOW,
 *               another file that is registered buffered
 *   -p          answer writes with PLACE
 *   -P          look for partitions
 *   -s STAGE    stop, and wait to be killed: new, backing, armed; or live, from
 *               where SIGCONT lets it go on
 *   -S          sync FILE for a FLUSH, say what came of it, and answer nothing;
 *               at SIGUSR1 sync it and say so, too
 *   -w          let FLUSHes wait for ever
 *   -W          the same, but commit what they ask for
 *   -x          pread and pwrite on the channel instead of mapping
 */
#include <signal.h>

#include "toymap.h"

static unsigned int granule_shift = 7;	/* 64 KiB */
static uint64_t size, run, next_tid = 1, error_granule = UINT64_MAX;
static bool mixed, hold, drain_flush, no_flush, commit_flush, sync_flush;

enum kind { LINEAR, ZERO, XFER, PLACE, OTHER, NR_KINDS };

static enum kind kind = LINEAR;
static bool *written;		/* ZERO granules */
static int fds[2], channel;

static void one_done(struct ubdm_cmd *cmd, int res)
{
	if (toy_again(cmd, res))
		return;
	/* A forced delete takes faults back. */
	if (res < 0 && res != -ENOENT && res != -ESHUTDOWN)
		fprintf(stderr, "kmap: answer: %s\n", strerror(-res));
	free(cmd);
}

/* Every answer has room for this, a PLACE uses it. */
struct placing {
	struct ubdm_cmd cmd;
	struct placing *next;
	uint64_t tid;
};

static struct placing *placings;

static struct ubdm_resolve *new_resolve(struct ubdm_cmd **cmd, uint64_t cookie)
{
	struct ubdm_resolve *r;

	*cmd = calloc(1, sizeof(struct placing));
	(*cmd)->done = one_done;
	(*cmd)->msg.op = UBDM_CMD_RESOLVE;
	r = (struct ubdm_resolve *)(*cmd)->msg.body;
	r->cookie = cookie;
	return r;
}

static enum kind kind_of(uint64_t granule)
{
	return mixed ? (enum kind)(granule % NR_KINDS) : kind;
}

static int fd_of(uint64_t lba)
{
	return fds[kind_of(lba >> granule_shift) == OTHER];
}

static uint64_t granule_end(uint64_t lba)
{
	uint64_t end = ((lba >> granule_shift) + 1) << granule_shift;

	return end < size ? end : size;
}

static void *buffer(uint64_t sectors)
{
	static void *buf;
	static uint64_t room;

	if (sectors > room) {
		free(buf);
		room = sectors;
		if (posix_memalign(&buf, 4096, room << 9))
			check(-ENOMEM, "buffer");
	}
	return buf;
}

static void write_zeros(uint64_t lba, uint64_t end)
{
	while (lba < end) {
		uint64_t stop = granule_end(lba) < end ? granule_end(lba) : end;
		void *buf = memset(buffer(stop - lba), 0, (stop - lba) << 9);

		if (pwrite(fd_of(lba), buf, (stop - lba) << 9, lba << 9) < 0)
			check(-errno, "zeros");
		lba = stop;
	}
}

static void one_extent(struct ubdm_resolve *r, uint64_t lba, uint64_t end,
		       unsigned int type, unsigned int perm)
{
	r->action = UBDM_RESOLVE_REDRIVE;
	r->ext.lba = lba;
	r->ext.len = end - lba;
	r->ext.type = type;
	r->ext.perm = perm;
	if (type == UBDM_EXT_LINEAR)
		r->ext.off = lba;
	r->nr_ext = 1;
	r->flags = UBDM_RESOLVE_F_INLINE;
}

static void map_linear(const struct ubdm_fault *f, struct ubdm_resolve *r)
{
	uint64_t start = f->lba >> granule_shift << granule_shift;
	uint64_t end = f->lba + f->len;

	end = mixed || error_granule != UINT64_MAX ? granule_end(f->lba) :
						     granule_end(end - 1);
	if (run && end < start + (run << granule_shift))
		end = start + (run << granule_shift);
	if (end > size)
		end = size;
	one_extent(r, start, end, UBDM_EXT_LINEAR, UBDM_PERM_R | UBDM_PERM_W);
	r->ext.backing = fd_of(f->lba) != fds[0];
}

static void map_place(const struct ubdm_fault *f, struct ubdm_resolve *r)
{
	uint64_t start = f->lba >> granule_shift << granule_shift;
	uint64_t end = f->lba + f->len;

	if (f->kind == UBDM_FAULT_READ) {
		one_extent(r, start, granule_end(f->lba), UBDM_EXT_LINEAR,
			   UBDM_PERM_R);
		return;
	}
	if (mixed && end > granule_end(f->lba))
		end = granule_end(f->lba);
	one_extent(r, f->lba, end, UBDM_EXT_LINEAR, UBDM_PERM_R | UBDM_PERM_W);
	r->action = UBDM_RESOLVE_PLACE;
	r->ext.tid = next_tid++;
}

static void map_zero(const struct ubdm_fault *f, struct ubdm_resolve *r)
{
	uint64_t granule = f->lba >> granule_shift;
	uint64_t start = granule << granule_shift, end = granule_end(start);

	if (!written[granule] && f->kind == UBDM_FAULT_READ) {
		one_extent(r, start, end, UBDM_EXT_ZERO, UBDM_PERM_R);
		return;
	}
	if (!written[granule])
		write_zeros(start, end);
	one_extent(r, start, end, UBDM_EXT_LINEAR, UBDM_PERM_R | UBDM_PERM_W);
	if (!written[granule]) {
		r->ext.tid = next_tid++;
		r->ext.flags = UBDM_EXT_F_REPLACE;
	}
	written[granule] = true;
}

/* In two parts, the second with an offset. */
static void move(const struct ubdm_fault *f, struct ubdm_resolve *r)
{
	uint64_t end = f->lba + f->len, at;
	uint64_t half;

	if (end > granule_end(f->lba))
		end = granule_end(f->lba);
	half = (end - f->lba + 1) / 2;
	for (at = f->lba; at < end; at += half) {
		size_t n = (at + half < end ? half : end - at) << 9;
		off_t pos = UBDM_FAULT_POS(f->cookie, (at - f->lba) << 9);
		void *buf = buffer(half);
		ssize_t got, put;

		if (f->kind == UBDM_FAULT_READ) {
			got = pread(fd_of(at), buf, n, at << 9);
			put = pwrite(channel, buf, n, pos);
		} else {
			got = pread(channel, buf, n, pos);
			put = pwrite(fd_of(at), buf, n, at << 9);
		}
		if (got != (ssize_t)n || put != (ssize_t)n) {
			r->action = UBDM_RESOLVE_ERROR;
			r->error = -EIO;
			return;
		}
	}
	r->action = UBDM_RESOLVE_DONE;
	r->done = end - f->lba;
}

static void map_it(const struct ubdm_fault *f, struct ubdm_resolve *r)
{
	uint64_t granule = f->lba >> granule_shift;

	if (granule == error_granule) {
		one_extent(r, granule << granule_shift, granule_end(f->lba),
			   UBDM_EXT_ERROR, 0);
		return;
	}
	switch (kind_of(granule)) {
	case ZERO:
		map_zero(f, r);
		break;
	case XFER:
		move(f, r);
		break;
	case PLACE:
		map_place(f, r);
		break;
	default:
		map_linear(f, r);
	}
}

/* A granule of kind ZERO becomes so again if all of it goes. */
static void discard(const struct ubdm_fault *f, struct ubdm_resolve *r)
{
	uint64_t granule = f->lba >> granule_shift;

	if (kind_of(granule) == ZERO && f->lba == granule << granule_shift &&
	    f->lba + f->len >= granule_end(f->lba)) {
		one_extent(r, f->lba, granule_end(f->lba), UBDM_EXT_ZERO,
			   UBDM_PERM_R);
		r->ext.tid = next_tid++;
		r->ext.flags = UBDM_EXT_F_REPLACE;
		r->done = r->ext.len;
		written[granule] = false;
	} else {
		r->done = f->len;
		if (mixed && r->done > granule_end(f->lba) - f->lba)
			r->done = granule_end(f->lba) - f->lba;
	}
	r->action = UBDM_RESOLVE_DONE;
}

static void zeroes(const struct ubdm_fault *f, struct ubdm_resolve *r)
{
	uint64_t end = f->lba + f->len, granule = f->lba >> granule_shift;

	if (end > granule_end(f->lba))
		end = granule_end(f->lba);
	if (kind_of(granule) != ZERO || written[granule])
		write_zeros(f->lba, end);
	r->action = UBDM_RESOLVE_DONE;
	r->done = end - f->lba;
}

static void commit(uint64_t tid)
{
	struct ubdm_cmd *c = calloc(1, sizeof(*c));

	c->done = one_done;
	ubdm_encode_commit(&c->msg, tid);
	ubdm_ring_queue(&ring, c);
}

/* No commit may pass a PLACE under way (rule 12), so its FLUSH waits. */
struct late {
	struct ubdm_cmd cmd;
	struct late *next;
	uint64_t cookie, tid;
};

static struct late *lates;

static uint64_t placing_tid(void)
{
	uint64_t tid = UINT64_MAX;

	for (struct placing *p = placings; p; p = p->next)
		tid = p->tid < tid ? p->tid : tid;
	return tid;
}

static void late_done(struct ubdm_cmd *cmd, int res)
{
	struct late *l = (struct late *)cmd;
	struct ubdm_resolve *r;
	struct ubdm_cmd *answer;

	if (toy_again(cmd, res))
		return;
	commit(l->tid);
	r = new_resolve(&answer, l->cookie);
	r->action = UBDM_RESOLVE_DONE;
	ubdm_ring_queue(&ring, answer);
	one_done(cmd, res);
}

/* Not durable: this is a test of the driver. */
static void flush_now(struct late *l)
{
	struct ubdm_invalidate *i = (void *)l->cmd.msg.body;

	l->cmd.done = late_done;
	if (!drain_flush) {
		late_done(&l->cmd, 0);
		return;
	}
	l->cmd.msg.op = UBDM_CMD_INVALIDATE;
	i->flags = UBDM_INVAL_F_LBA;
	ubdm_ring_queue(&ring, &l->cmd);
}

static void flush_what_may(void)
{
	struct late **at = &lates, *l;

	while ((l = *at)) {
		if (l->tid >= placing_tid()) {
			at = &l->next;
			continue;
		}
		*at = l->next;
		flush_now(l);
	}
}

static void flush(const struct ubdm_fault *f)
{
	struct late *l = calloc(1, sizeof(*l));

	l->cookie = f->cookie;
	l->tid = f->tid;
	l->next = lates;
	lates = l;
	flush_what_may();
}

static void placed(struct ubdm_cmd *cmd, int res)
{
	struct placing **at = &placings;

	if (toy_again(cmd, res))
		return;
	while ((void *)*at != cmd)
		at = &(*at)->next;
	*at = (*at)->next;
	one_done(cmd, res);
	flush_what_may();
}

static void note_placing(struct ubdm_cmd *cmd)
{
	struct ubdm_resolve *r = (struct ubdm_resolve *)cmd->msg.body;
	struct placing *p = (struct placing *)cmd;

	if (r->action != UBDM_RESOLVE_PLACE)
		return;
	cmd->done = placed;
	p->tid = r->ext.tid;
	p->next = placings;
	placings = p;
}

static void say_sync(void)
{
	int ret = fdatasync(fds[0]);

	printf("synced: %s\n", ret ? strerror(errno) : "yes");
	fflush(stdout);
}

static volatile sig_atomic_t sync_asked;

static void ask_sync(int sig)
{
	(void)sig;
	sync_asked = 1;
}

static void answer(const struct ubdm_fault *f)
{
	static unsigned int nr;
	struct ubdm_resolve *r;
	struct ubdm_cmd *cmd;

	if (f->kind == UBDM_FAULT_SHUTDOWN) {
		toy_stop();
		return;
	}
	if (f->kind == UBDM_FAULT_COMMIT) {
		if (f->tid < placing_tid())
			commit(f->tid);
		return;
	}
	if (f->kind == UBDM_FAULT_FLUSH) {
		if (sync_flush)
			say_sync();
		else if (commit_flush)
			commit(f->tid);
		else if (!no_flush)
			flush(f);
		return;
	}
	r = new_resolve(&cmd, f->cookie);
	if (hold && ++nr % 5 == 0) {
		r->action = UBDM_RESOLVE_HOLD;
		r->done = 20;
		ubdm_ring_queue(&ring, cmd);
		return;
	}
	switch (f->kind) {
	case UBDM_FAULT_READ:
	case UBDM_FAULT_WRITE:
		map_it(f, r);
		break;
	case UBDM_FAULT_DISCARD:
		discard(f, r);
		break;
	case UBDM_FAULT_ZEROES:
		zeroes(f, r);
		break;
	default:
		r->action = UBDM_RESOLVE_ERROR;
		r->error = -EOPNOTSUPP;
	}
	note_placing(cmd);
	ubdm_ring_queue(&ring, cmd);
}

static void turn(void)
{
	toy_turn();
	if (sync_asked) {
		sync_asked = 0;
		say_sync();
	}
}

static void stop_at(const char *stage, const char *here, uint32_t index)
{
	if (!stage || strcmp(stage, here))
		return;
	toy_say(index);
	for (;;)
		pause();
}

/* What we do ourselves goes to FILE, of course. */
static void reuse_number(const char *path)
{
	int number = fds[0], fd;

	fds[0] = fds[1] = fcntl(number, F_DUPFD_CLOEXEC, number + 1);
	check(fds[0] < 0 ? -errno : 0, path);
	close(number);
	fd = toy_open(path, true);
	check(fd == number ? 0 : -EBADF, "the number is not used again");
}

/* How far the tids have come, of an orphan. */
static void read_tid(void)
{
	static struct {
		struct ubdm_dump_head head;
		struct ubdm_extent ext[1];
	} dump;
	struct toy_call c = { 0 };

	ubdm_encode_dump(&c.cmd.msg, &dump.head, 1, 0, 0);
	toy_do(&c, "dump");
	next_tid = dump.head.max_tid + 1;
}

static void fetch_and_start(const char *stage, uint32_t index)
{
	toy_arm(answer);
	if (stage && strcmp(stage, "live")) {
		turn();
		turn();
	}
	stop_at(stage, "armed", index);
	toy_start(granule_shift);
}

int main(int argc, char **argv)
{
	struct ubdm_create c = { .index = -1, .block_size = 512,
				 .phys_block_size = 4096, .discard_gran = 4096,
				 .ident = "kmap", .format = "test" };
	const char *stage = NULL, *slow, *other = NULL;
	bool buffered = false, attach = false, more = false;
	struct ubdm_device dev;
	struct ubdm_ctl *ctl;
	uint32_t index = 0;
	int opt;

	while ((opt = getopt(argc, argv, "a:AbDc:e:g:hl:mPpr:Ss:Wwx")) != -1) {
		switch (opt) {
		case 'a':
			attach = true;
			index = atoi(optarg);
			break;
		case 'A':
			more = true;
			break;
		case 'b':
			buffered = true;
			break;
		case 'c':
			other = optarg;
			break;
		case 'D':
			drain_flush = true;
			break;
		case 'e':
			error_granule = strtoull(optarg, NULL, 0);
			break;
		case 'g':
			granule_shift = atoi(optarg);
			break;
		case 'h':
			hold = true;
			break;
		case 'l':
			c.max_extents = strtoull(optarg, NULL, 0);
			break;
		case 'm':
			mixed = true;
			break;
		case 'P':
			c.flags |= UBDM_DEV_F_PARTSCAN;
			break;
		case 'p':
			kind = PLACE;
			break;
		case 'r':
			run = strtoull(optarg, NULL, 0);
			break;
		case 'S':
			sync_flush = true;
			signal(SIGUSR1, ask_sync);
			break;
		case 's':
			stage = optarg;
			break;
		case 'W':
			commit_flush = true;
			break;
		case 'w':
			no_flush = true;
			break;
		case 'x':
			kind = XFER;
			break;
		default:
			return 2;
		}
	}
	if (optind >= argc)
		return 2;
	slow = mixed ? argv[optind + 1] : NULL;
	fds[0] = fds[1] = toy_open(argv[optind], buffered);
	if (slow)
		fds[1] = toy_open(slow, true);
	size = c.size = toy_sectors(fds[0]);
	written = calloc((size >> granule_shift) + 1, sizeof(*written));
	c.channel = channel = toy_open_channel();
	check(ubdm_ctl_open(&ctl), "netlink");
	if (attach)
		check(ubdm_ctl_attach(ctl, channel, index, &dev), "attach");
	else
		check(ubdm_ctl_create(ctl, &c, &index), "create");
	stop_at(stage, "new", index);
	check(ubdm_ring_init(&ring, channel), "ring");
	if (attach)
		read_tid();
	if (!attach || more) {
		toy_backing(fds[0], buffered ? UBDM_BACKING_F_BUFFERED : 0);
		if (slow)
			toy_backing(fds[1], UBDM_BACKING_F_BUFFERED);
	}
	if (other)
		reuse_number(other);
	stop_at(stage, "backing", index);
	fetch_and_start(stage, index);
	toy_say(index);
	if (stage)
		raise(SIGSTOP);
	while (!ended)
		turn();
	return 0;
}
