// SPDX-License-Identifier: GPL-2.0-only
/*
 * powercut.c - what a power cut may leave of a device, by the log of the disk
 * below it.
 *
 *   powercut fill FILE MIB
 *	write FILE: what the device holds before
 *   powercut load [-s SEED] [-t THREADS] DEV MIB OPS TRACE DM
 *	random writes, zeroes, discards and flushes on the first MIB of DEV, noted
 *	in TRACE; each flush that was acknowledged sends a mark to the log of the
 *	dm-log-writes device DM
 *   powercut entries LOG
 *	prints how many entries the log has
 *   powercut replay LOG OUT FROM TO
 *	do to OUT what the entries FROM to TO - 1 did
 *   powercut check LOG TO TRACE RAW MIB
 *	may RAW be what the device held when its disk stopped before entry TO?
 *
 * A sector's content says where it belongs and which write it is of, so that
 * another place's data and old data are seen.  After a cut it must be of the
 * last write that was complete when some acknowledged flush began, or of a later
 * one.  Each thread has blocks of its own, which lie among the others'.
 *
 * A synchronous write goes only to what its thread has flushed: dm-log-writes logs
 * a write with FUA when it ends, and others at the next flush, so that over an older
 * one it would come too early in the log, and be overwritten by it in the replay.
 *
 * The log's format: Documentation/admin-guide/device-mapper/log-writes.rst, and
 * the structures at the head of drivers/md/dm-log-writes.c.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>
#include <linux/fs.h>

#define SECTOR		512
#define BLOCK_SECTORS	8		/* of one thread */
#define MAX_SECTORS	256
#define MAX_OPS		200000
#define MAX_THREADS	16

#define LOG_MAGIC	0x6a736677736872ull
#define LOG_FLUSH	(1 << 0)
#define LOG_FUA		(1 << 1)
#define LOG_DISCARD	(1 << 2)
#define LOG_MARK	(1 << 3)

struct log_super {
	uint64_t magic, version, nr_entries;
	uint32_t sectorsize;
} __attribute__((packed));

struct log_entry {
	uint64_t sector, nr_sectors, flags, data_len;
};

enum op_kind { OP_WRITE, OP_ZERO, OP_DISCARD, OP_FLUSH, NR_OPS };

/*
 * What was done, in the order of its end.  Times count beginnings and ends.  A
 * write that is synchronous is followed by an OP_FLUSH that began as it ended.
 */
struct op {
	uint32_t kind, step;
	uint64_t begin, end;
	uint64_t sector, nr;
};

static struct op ops[MAX_OPS];
static unsigned int nr_ops;
static uint64_t clock_now = 1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static const char *dm_name;
static int fd;
static uint64_t size;			/* sectors */
static unsigned int nr_threads = 4;
static uint64_t seed;
static unsigned int wanted;

static void die(const char *what)
{
	fprintf(stderr, "powercut: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void fill_sector(uint8_t *p, uint64_t sector, uint32_t step)
{
	uint64_t word = sector << 32 | step;

	for (unsigned int i = 0; i < SECTOR / 8; i++)
		memcpy(p + i * 8, &word, 8);
}

/* The step that a sector is of; UINT32_MAX: nobody's. */
static uint32_t step_of(const uint8_t *p, uint64_t sector)
{
	uint64_t word, other;

	memcpy(&word, p, 8);
	for (unsigned int i = 1; i < SECTOR / 8; i++) {
		memcpy(&other, p + i * 8, 8);
		if (other != word)
			return UINT32_MAX;
	}
	return word >> 32 == sector ? (uint32_t)word : UINT32_MAX;
}

static bool is_zero(const uint8_t *p)
{
	return !p[0] && !memcmp(p, p + 1, SECTOR - 1);
}

static int fill(const char *path, uint64_t mib)
{
	FILE *f = fopen(path, "w");
	uint8_t buf[SECTOR];

	if (!f)
		die(path);
	for (uint64_t s = 0; s < mib << 11; s++) {
		fill_sector(buf, s + 1, 0);	/* of step 0; never all zero */
		if (fwrite(buf, SECTOR, 1, f) != 1)
			die(path);
	}
	return fclose(f) ? 1 : 0;
}

/* --- the load --- */

static uint64_t tick(void)
{
	return __atomic_fetch_add(&clock_now, 1, __ATOMIC_SEQ_CST);
}

static uint32_t next_step(void)
{
	static uint32_t step;

	return __atomic_add_fetch(&step, 1, __ATOMIC_SEQ_CST);
}

static uint32_t note_op(const struct op *op)
{
	uint32_t n;

	pthread_mutex_lock(&lock);
	n = nr_ops;
	if (nr_ops < MAX_OPS)
		ops[nr_ops++] = *op;
	pthread_mutex_unlock(&lock);
	return n;
}

/* The flush noted as operation @n is over. */
static void mark(uint32_t n)
{
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "dmsetup message %s 0 mark %u", dm_name, n);
	if (system(cmd))
		die(cmd);
}

static uint64_t rnd(uint64_t *rng, uint64_t n)
{
	*rng ^= *rng << 13;
	*rng ^= *rng >> 7;
	*rng ^= *rng << 17;
	return (*rng >> 11) % n;
}

static void change(struct op *op, uint8_t *buf, bool sync)
{
	uint64_t range[2] = { op->sector * SECTOR, op->nr * SECTOR };
	struct iovec iov = { buf, range[1] };

	op->step = next_step();
	for (uint64_t i = 0; i < op->nr; i++)
		fill_sector(buf + i * SECTOR, op->sector + i + 1, op->step);
	op->begin = tick();
	if (op->kind == OP_WRITE &&
	    pwritev2(fd, &iov, 1, range[0], sync ? RWF_DSYNC : 0) != (ssize_t)range[1])
		die("write");
	if (op->kind == OP_ZERO && ioctl(fd, BLKZEROOUT, range))
		die("BLKZEROOUT");
	if (op->kind == OP_DISCARD && ioctl(fd, BLKDISCARD, range))
		die("BLKDISCARD");
	op->end = tick();
	note_op(op);
}

static void *load(void *arg)
{
	unsigned int me = (uintptr_t)arg;
	uint64_t rng = seed * 77 + me + 1, blocks = size / BLOCK_SECTORS / nr_threads;
	bool *unflushed = calloc(blocks, sizeof(*unflushed));
	void *buf;

	if (!unflushed || posix_memalign(&buf, 4096, MAX_SECTORS * SECTOR))
		die("memory");
	while (nr_ops < wanted) {
		/*
		 * Mostly where others are busy too; towards the end only there, and
		 * only overwrites: then nobody but the driver flushes.
		 */
		bool late = nr_ops > wanted / 2;
		uint64_t near = late || rnd(&rng, 4) ? blocks / 16 : blocks;
		uint64_t block = rnd(&rng, near);
		struct op op = { .sector = (block * nr_threads + me) * BLOCK_SECTORS };
		unsigned int dice = rnd(&rng, 30);
		bool sync = dice == 12 && !unflushed[block];

		op.sector += rnd(&rng, BLOCK_SECTORS);
		op.nr = 1 + rnd(&rng, BLOCK_SECTORS - op.sector % BLOCK_SECTORS);
		op.kind = dice < 24 ? OP_WRITE : dice >= 28 ? OP_FLUSH : late ? OP_WRITE :
			  dice < 26 ? OP_ZERO : OP_DISCARD;
		if (op.kind != OP_FLUSH)
			change(&op, buf, sync);
		if (op.kind != OP_FLUSH && !sync) {
			unflushed[block] = true;
			continue;
		}
		/* What was synchronous says nothing of other writes. */
		if (!sync) {
			op = (struct op){ .kind = OP_FLUSH, .begin = tick() };
			if (fdatasync(fd))
				die("fdatasync");
			memset(unflushed, 0, blocks * sizeof(*unflushed));
		} else {
			op = (struct op){ .kind = OP_FLUSH, .begin = op.end + 1,
					  .sector = op.sector, .nr = op.nr };
		}
		op.end = tick();
		mark(note_op(&op));
	}
	free(unflushed);
	free(buf);
	return NULL;
}

static int run_load(int argc, char **argv)
{
	pthread_t threads[MAX_THREADS];
	FILE *f;
	int c;

	while ((c = getopt(argc, argv, "s:t:")) >= 0) {
		if (c == 's')
			seed = strtoull(optarg, NULL, 0);
		else if (c == 't')
			nr_threads = atoi(optarg);
		else
			return 2;
	}
	if (optind + 5 != argc || !nr_threads || nr_threads > MAX_THREADS)
		return 2;
	fd = open(argv[optind], O_RDWR | O_DIRECT);
	if (fd < 0)
		die(argv[optind]);
	size = strtoull(argv[optind + 1], NULL, 0) << 11;
	wanted = atoi(argv[optind + 2]);
	if (wanted > MAX_OPS)
		return 2;
	dm_name = argv[optind + 4];
	for (uintptr_t i = 0; i < nr_threads; i++)
		pthread_create(&threads[i], NULL, load, (void *)i);
	for (unsigned int i = 0; i < nr_threads; i++)
		pthread_join(threads[i], NULL);
	f = fopen(argv[optind + 3], "w");
	if (!f || fwrite(ops, sizeof(*ops), nr_ops, f) != nr_ops || fclose(f))
		die(argv[optind + 3]);
	printf("%u operations\n", nr_ops);
	return 0;
}

/* --- the log --- */

static int log_fd;
static uint64_t log_entries, log_sector_size, log_pos;

static void log_read(void *buf, size_t len, uint64_t pos)
{
	if (pread(log_fd, buf, len, pos) != (ssize_t)len)
		die("the log");
}

static void log_open(const char *path)
{
	struct log_super s;

	log_fd = open(path, O_RDONLY);
	if (log_fd < 0)
		die(path);
	log_read(&s, sizeof(s), 0);
	if (le64toh(s.magic) != LOG_MAGIC || le64toh(s.version) != 1) {
		fprintf(stderr, "powercut: %s: not a log\n", path);
		exit(1);
	}
	log_entries = le64toh(s.nr_entries);
	log_sector_size = le32toh(s.sectorsize);
	log_pos = log_sector_size;
}

/* The next entry; returns where its data, or a mark's text, are. */
static uint64_t log_next(struct log_entry *e)
{
	uint64_t data;

	log_read(e, sizeof(*e), log_pos);
	e->sector = le64toh(e->sector);
	e->nr_sectors = le64toh(e->nr_sectors);
	e->flags = le64toh(e->flags);
	e->data_len = le64toh(e->data_len);
	data = log_pos + (e->flags & LOG_MARK ? sizeof(*e) : log_sector_size);
	log_pos += log_sector_size;
	if (!(e->flags & LOG_DISCARD))
		log_pos += e->nr_sectors * log_sector_size;
	return data;
}

static void replay_entry(int out, const struct log_entry *e, uint64_t data)
{
	uint64_t pos = e->sector * log_sector_size, left, n;
	static uint8_t buf[1 << 20];

	/* The kernel may have kept what it discarded: here it has. */
	if (e->flags & (LOG_DISCARD | LOG_MARK))
		return;
	for (left = e->nr_sectors * log_sector_size; left; left -= n) {
		n = left < sizeof(buf) ? left : sizeof(buf);
		log_read(buf, n, data);
		if (pwrite(out, buf, n, pos) != (ssize_t)n)
			die("replay");
		pos += n;
		data += n;
	}
}

static int replay(char **argv)
{
	uint64_t from = strtoull(argv[2], NULL, 0), to = strtoull(argv[3], NULL, 0);
	int out = open(argv[1], O_WRONLY | O_CREAT, 0600);
	struct log_entry e;

	log_open(argv[0]);
	if (out < 0)
		die(argv[1]);
	if (to > log_entries || from > to)
		return 2;
	for (uint64_t i = 0; i < to; i++) {
		uint64_t data = log_next(&e);

		if (i >= from)
			replay_entry(out, &e, data);
	}
	return close(out) ? 1 : 0;
}

/* --- the verdict --- */

static void read_trace(const char *path)
{
	FILE *f = fopen(path, "r");

	if (!f)
		die(path);
	nr_ops = fread(ops, sizeof(*ops), MAX_OPS, f);
	fclose(f);
}

/* What a flush has made safe: for each sector the number + 1 of the operation. */
static void flushed(const struct op *flush, uint32_t *safe)
{
	for (unsigned int i = 0; i < nr_ops; i++) {
		const struct op *op = &ops[i];

		if (op->kind == OP_FLUSH || op->end > flush->begin)
			continue;
		/* After a synchronous write only that is safe. */
		if (flush->nr && (op->sector != flush->sector ||
				  op->nr != flush->nr || op->end + 1 != flush->begin))
			continue;
		for (uint64_t s = op->sector; s < op->sector + op->nr; s++)
			if (safe[s] < i + 1)
				safe[s] = i + 1;
	}
}

static bool touches(const struct op *op, uint64_t sector)
{
	return op->kind != OP_FLUSH && sector >= op->sector &&
	       sector < op->sector + op->nr;
}

static bool left_by(const struct op *op, uint32_t step, bool zero)
{
	return op->kind == OP_WRITE ? step == op->step : zero;
}

/* What is discarded may stay as it was, too. */
static bool left_before(unsigned int i, uint64_t sector, uint32_t step, bool zero)
{
	while (i-- > 0) {
		if (!touches(&ops[i], sector))
			continue;
		if (left_by(&ops[i], step, zero))
			return true;
		if (ops[i].kind != OP_DISCARD)
			return false;
	}
	return !step;
}

/* A sector's operations are one thread's, so they are in order in the trace. */
static bool allowed(const uint8_t *p, uint64_t sector, uint32_t safe)
{
	uint32_t step = step_of(p, sector + 1);
	bool zero = is_zero(p);

	if (!safe && !step)
		return true;
	if (safe && ops[safe - 1].kind == OP_DISCARD &&
	    left_before(safe - 1, sector, step, zero))
		return true;
	for (unsigned int i = safe ? safe - 1 : 0; i < nr_ops; i++)
		if (touches(&ops[i], sector) && left_by(&ops[i], step, zero))
			return true;
	return false;
}

/* Where and when the log has a sector of the device, told to who wonders. */
static void history(uint64_t sector, uint64_t to)
{
	uint64_t pos = log_pos, at, flushes = 0;
	struct log_entry e;
	uint8_t buf[SECTOR];

	log_pos = log_sector_size;
	for (uint64_t i = 0; i < log_entries; i++) {
		at = log_next(&e);
		flushes += e.flags & LOG_FLUSH;
		if (e.flags & (LOG_DISCARD | LOG_MARK))
			continue;
		for (uint64_t n = 0; n < e.nr_sectors * log_sector_size; n += SECTOR) {
			log_read(buf, SECTOR, at + n);
			if (step_of(buf, sector + 1) == UINT32_MAX)
				continue;
			printf("  entry %llu%s, behind flush %llu: step %u at %llu%s\n",
			       (unsigned long long)i, i < to ? "" : " (not any more)",
			       (unsigned long long)flushes, step_of(buf, sector + 1),
			       (unsigned long long)(e.sector * log_sector_size + n) / SECTOR,
			       e.flags & LOG_FUA ? " FUA" : "");
		}
	}
	for (unsigned int i = 0; i < nr_ops; i++)
		if (touches(&ops[i], sector))
			printf("  operation %u, step %u, kind %u, from %llu to %llu\n", i,
			       ops[i].step, ops[i].kind, (unsigned long long)ops[i].begin,
			       (unsigned long long)ops[i].end);
	log_pos = pos;
}

/* The marks around an entry, and what the flushes they are of say. */
static void tell_flushes(uint64_t to)
{
	uint64_t flushes = 0;
	struct log_entry e;

	log_pos = log_sector_size;
	for (uint64_t i = 0; i < log_entries; i++) {
		uint64_t at = log_next(&e);
		unsigned int n = nr_ops;
		char text[16] = "";

		flushes += e.flags & LOG_FLUSH;
		if (!(e.flags & LOG_MARK) || e.data_len >= sizeof(text) || i + 200 < to)
			continue;
		log_read(text, e.data_len, at);
		if (text[0] >= '0' && text[0] <= '9')
			n = strtoul(text, NULL, 10);
		if (n < nr_ops)
			printf("  entry %llu: mark of flush %u, from %llu to %llu, behind flush %llu\n",
			       (unsigned long long)i, n, (unsigned long long)ops[n].begin,
			       (unsigned long long)ops[n].end, (unsigned long long)flushes);
	}
}

static int check(char **argv)
{
	uint64_t to = strtoull(argv[1], NULL, 0), bad = 0;
	FILE *f = fopen(argv[3], "r");
	uint8_t buf[SECTOR];
	struct log_entry e;
	uint32_t *safe;
	unsigned int marks = 0;

	size = strtoull(argv[4], NULL, 0) << 11;
	safe = calloc(size, sizeof(*safe));
	log_open(argv[0]);
	read_trace(argv[2]);
	if (!f || !safe)
		die(argv[3]);
	for (uint64_t i = 0; i < to; i++) {
		uint64_t at = log_next(&e);
		char text[16] = "";

		if (!(e.flags & LOG_MARK) || !e.data_len || e.data_len >= sizeof(text))
			continue;
		log_read(text, e.data_len, at);
		if (text[0] < '0' || text[0] > '9' || strtoul(text, NULL, 10) >= nr_ops)
			continue;
		flushed(&ops[strtoul(text, NULL, 10)], safe);
		marks++;
	}
	for (uint64_t s = 0; s < size; s++) {
		if (fread(buf, SECTOR, 1, f) != 1)
			die(argv[3]);
		if (allowed(buf, s, safe[s]))
			continue;
		if (bad++ < 8)
			printf("sector %llu: %08x, of step %u; safe is operation %d of %u\n",
			       (unsigned long long)s, *(uint32_t *)(buf + 4),
			       step_of(buf, s + 1), (int)safe[s] - 1, nr_ops);
		if (bad <= 2)
			history(s, to);
	}
	if (bad)
		tell_flushes(to);
	printf("%u acknowledged flushes, %llu wrong sectors\n", marks,
	       (unsigned long long)bad);
	free(safe);
	fclose(f);
	return bad != 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (!strcmp(what, "load"))
		return run_load(argc - 1, argv + 1);
	if (!strcmp(what, "fill") && argc == 4)
		return fill(argv[2], strtoull(argv[3], NULL, 0));
	if (!strcmp(what, "replay") && argc == 6)
		return replay(argv + 2);
	if (!strcmp(what, "check") && argc == 7)
		return check(argv + 2);
	if (!strcmp(what, "entries") && argc == 3) {
		log_open(argv[2]);
		printf("%llu\n", (unsigned long long)log_entries);
		return 0;
	}
	fprintf(stderr, "usage: see the head of tests/tools/powercut.c\n");
	return 2;
}
