// SPDX-License-Identifier: GPL-2.0-only
/*
 * device.c - devices by name, and who uses them.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "cmd.h"

#define PARTSCAN_POLL_MS 5

static int parse_name(const char *name, uint32_t *index)
{
	char *end;
	unsigned long v;

	if (strncmp(name, "ubdmap", 6) || name[6] < '0' || name[6] > '9')
		return -EINVAL;
	errno = 0;
	v = strtoul(name + 6, &end, 10);
	if (errno || *end || v > INT_MAX)
		return -EINVAL;
	*index = v;
	return 0;
}

/**
 * device_index - "/dev/ubdmap3", "ubdmap3", or a link to it
 *
 * Return: 0 or -EINVAL: it cannot be one of ours.
 */
int device_index(const char *name, uint32_t *index)
{
	char real[PATH_MAX];

	if (!parse_name(name, index))
		return 0;
	if (!strncmp(name, "/dev/", 5) && !parse_name(name + 5, index))
		return 0;
	if (!realpath(name, real) || strncmp(real, "/dev/", 5))
		return -EINVAL;
	return parse_name(real + 5, index);
}

void device_path(uint32_t index, char buf[32])
{
	snprintf(buf, 32, "/dev/ubdmap%u", index);
}

bool device_node_ready(uint32_t index)
{
	char path[32];
	struct stat st;

	device_path(index, path);
	return !stat(path, &st) && S_ISBLK(st.st_mode);
}

/**
 * device_disk - which disk it is
 * @index: N of ubdmapN
 *
 * The kernel gives each a number that none had before: where a device goes, the next
 * may get its N.
 *
 * Return: the number; 0: not known.
 */
uint64_t device_disk(uint32_t index)
{
	unsigned long long n;
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/sys/block/ubdmap%u/diskseq", index);
	f = fopen(path, "re");
	if (!f)
		return 0;
	if (fscanf(f, "%llu", &n) != 1)
		n = 0;
	fclose(f);
	return n;
}

static bool is_scanned(uint32_t index)
{
	char path[64], c = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/block/ubdmap%u/partscan", index);
	f = fopen(path, "re");
	/* The device has gone, or it is a kernel that does not tell. */
	if (!f)
		return true;
	c = fgetc(f);
	fclose(f);
	return c == '1';
}

/**
 * device_wait_partscan - wait until a new device's partitions have been looked for
 * @index: N of ubdmapN
 *
 * By a worker of the driver's, which reads through the mapper. It says in sysfs that it
 * has begun, holding the lock that is needed to open the disk.
 */
void device_wait_partscan(uint32_t index)
{
	uint64_t disk = device_disk(index);
	char path[32];
	int fd;

	/* It may go, and another one have its number. */
	while (!is_scanned(index) && device_disk(index) == disk)
		poll(NULL, 0, PARTSCAN_POLL_MS);
	device_path(index, path);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd >= 0)
		close(fd);
}

/* --- users -------------------------------------------------------------- */

struct users {
	const char *name; /* "ubdmap3" */
	char *buf;
	int size, len;
};

static void tell(struct users *u, const char *what, const char *who)
{
	if (u->len < u->size)
		u->len += snprintf(u->buf + u->len, u->size - u->len, "%s%s %s",
				   u->len ? ", " : "", what, who);
}

/* Is @dev our disk or one of its partitions? "ubdmap3p1" is, "ubdmap31" isn't. */
static bool is_ours(const struct users *u, const char *dev)
{
	size_t n = strlen(u->name);

	return !strncmp(dev, u->name, n) && (!dev[n] || dev[n] == 'p');
}

static bool path_is_ours(const struct users *u, const char *path)
{
	char real[PATH_MAX];

	if (strncmp(path, "/dev/", 5))
		return false;
	if (is_ours(u, path + 5))
		return true;
	return realpath(path, real) && is_ours(u, real + 5);
}

/* The kernel writes blanks and the like in octal. */
static void unescape(char *s)
{
	char *to = s;

	for (; *s; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] &&
		    s[3]) {
			*to++ = (s[1] - '0') * 64 + (s[2] - '0') * 8 +
				(s[3] - '0');
			s += 3;
		} else {
			*to++ = *s;
		}
	}
	*to = '\0';
}

static bool devno_is_ours(const struct users *u, const char *devno)
{
	char link[64], target[PATH_MAX];
	ssize_t n;

	snprintf(link, sizeof(link), "/sys/dev/block/%.20s", devno);
	n = readlink(link, target, sizeof(target) - 1);
	if (n < 0)
		return false;
	target[n] = '\0';
	return strrchr(target, '/') && is_ours(u, strrchr(target, '/') + 1);
}

/* "36 35 98:0 /root /mountpoint options [...] - type source options" */
static void find_mounts(struct users *u)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t size = 0;

	while (f && getline(&line, &size, f) >= 0) {
		char devno[32], point[PATH_MAX], source[PATH_MAX] = "";
		char *dash = strstr(line, " - ");

		if (sscanf(line, "%*d %*d %31s %*s %4095s", devno, point) != 2)
			continue;
		if (dash)
			sscanf(dash + 3, "%*s %4095s", source);
		unescape(source);
		if (!devno_is_ours(u, devno) && !path_is_ours(u, source))
			continue;
		unescape(point);
		tell(u, "mounted on", point);
	}
	free(line);
	if (f)
		fclose(f);
}

static void find_swaps(struct users *u)
{
	FILE *f = fopen("/proc/swaps", "re");
	char *line = NULL;
	size_t size = 0;

	while (f && getline(&line, &size, f) >= 0) {
		char *end = strpbrk(line, " \t\n");

		if (end)
			*end = '\0';
		if (path_is_ours(u, line))
			tell(u, "swap on", line);
	}
	free(line);
	if (f)
		fclose(f);
}

static void find_holders(struct users *u, const char *block)
{
	char path[PATH_MAX];
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof(path), "/sys/class/block/%.200s/holders", block);
	d = opendir(path);
	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.')
			tell(u, "used by", e->d_name);
	if (d)
		closedir(d);
}

static void find_all_holders(struct users *u)
{
	char path[64];
	struct dirent *e;
	DIR *d;

	find_holders(u, u->name);
	snprintf(path, sizeof(path), "/sys/class/block/%s", u->name);
	d = opendir(path);
	while (d && (e = readdir(d)))
		if (is_ours(u, e->d_name))
			find_holders(u, e->d_name);
	if (d)
		closedir(d);
}

static bool has_open(const struct users *u, const char *pid)
{
	char path[PATH_MAX], target[PATH_MAX];
	bool found = false;
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%.20s/fd", pid);
	d = opendir(path);
	while (d && !found && (e = readdir(d))) {
		ssize_t n = readlinkat(dirfd(d), e->d_name, target,
				       sizeof(target) - 1);

		if (n < 0)
			continue;
		target[n] = '\0';
		found = !strncmp(target, "/dev/", 5) && is_ours(u, target + 5);
	}
	if (d)
		closedir(d);
	return found;
}

static void find_processes(struct users *u)
{
	struct dirent *e;
	DIR *d = opendir("/proc");

	while (d && (e = readdir(d)) && u->len < u->size / 2) {
		char path[64], comm[32] = "?", who[64];
		FILE *f;

		if (e->d_name[0] < '1' || e->d_name[0] > '9' ||
		    !has_open(u, e->d_name))
			continue;
		snprintf(path, sizeof(path), "/proc/%.20s/comm", e->d_name);
		f = fopen(path, "re");
		if (f) {
			if (fgets(comm, sizeof(comm), f))
				comm[strcspn(comm, "\n")] = '\0';
			fclose(f);
		}
		snprintf(who, sizeof(who), "%s (pid %.20s)", comm, e->d_name);
		tell(u, "open in", who);
	}
	if (d)
		closedir(d);
}

/**
 * device_users - who mounts it, swaps on it, stacks on it or has it open
 * @buf: gets them, as part of a sentence
 *
 * Return: whether something lasting uses it (not just an open file).
 */
bool device_users(uint32_t index, char *buf, int size)
{
	char name[32];
	struct users u = { .name = name, .buf = buf, .size = size };
	bool lasting;

	snprintf(name, sizeof(name), "ubdmap%u", index);
	buf[0] = '\0';
	find_mounts(&u);
	find_swaps(&u);
	find_all_holders(&u);
	lasting = u.len > 0;
	if (!lasting)
		find_processes(&u);
	return lasting;
}

/* --- which one ---------------------------------------------------------- */

/* A file whose device is looked for; @nr have it, the first two are told. */
struct image {
	const char *name;
	struct stat st;
	struct ubdm_device *dev;
	uint32_t other;
	unsigned int nr;
};

static bool is_same(const struct stat *a, const struct stat *b)
{
	if (S_ISBLK(a->st_mode) && S_ISBLK(b->st_mode))
		return a->st_rdev == b->st_rdev;
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

static int look_at_image(void *arg, const struct ubdm_device *dev)
{
	struct image *image = arg;
	struct stat st;

	/*
	 * Who made it by another program may have said what he liked, and what others
	 * name may be a file system of theirs that never answers.
	 */
	if (dev->ident[0] != '/')
		return 0;
	if (dev->owner_uid && dev->owner_uid != geteuid()) {
		if (strcmp(dev->ident, image->name))
			return 0;
	} else if (stat(dev->ident, &st) || !is_same(&st, &image->st)) {
		return 0;
	}
	image->nr++;
	if (image->nr == 1)
		*image->dev = *dev;
	else
		image->other = dev->index;
	return 0;
}

static int get_by_image(struct ubdm_ctl *ctl, const char *name,
			struct ubdm_device *dev)
{
	struct image image = { .name = name, .dev = dev };
	int ret = 0;

	if (!stat(name, &image.st))
		ret = ubdm_ctl_list(ctl, look_at_image, &image);
	if (ret)
		return fail(exit_status_of(ret), "list: %s", strerror(-ret));
	if (!image.nr)
		return fail(
			EXIT_NOENT,
			"%s: not an ubdmap device, nor the image of one; see: ubdmap list",
			name);
	if (image.nr > 1)
		return fail(
			EXIT_FAIL,
			"%s: the image of /dev/ubdmap%u and of /dev/ubdmap%u; say which device",
			name, dev->index, image.other);
	return EXIT_OK;
}

/**
 * device_get - the device that is meant
 * @ctl: the control plane
 * @name: its own, or its image's where no other device has that
 * @dev: gets what the driver says of it
 *
 * Return: an exit status, having said why if not 0.
 */
int device_get(struct ubdm_ctl *ctl, const char *name, struct ubdm_device *dev)
{
	uint32_t index;
	int ret;

	if (device_index(name, &index))
		return get_by_image(ctl, name, dev);
	ret = ubdm_ctl_get(ctl, index, dev);
	if (ret == -ENODEV || ret == -ENOENT || ret == -ENXIO)
		return fail(EXIT_NOENT, "%s: no such device; see: ubdmap list",
			    name);
	if (ret)
		return fail(exit_status_of(ret), "%s: %s", name,
			    strerror(-ret));
	return EXIT_OK;
}

struct indices {
	uint32_t *v;
	unsigned int nr, room;
};

static int collect(void *arg, const struct ubdm_device *dev)
{
	struct indices *l = arg;

	if (l->nr == l->room) {
		unsigned int room = l->room ? l->room * 2 : 64;
		uint32_t *v = reallocarray(l->v, room, sizeof(*v));

		if (!v)
			return -ENOMEM;
		l->v = v;
		l->room = room;
	}
	l->v[l->nr++] = dev->index;
	return 0;
}

/**
 * device_all - which devices there are
 * @ctl: the control plane
 * @index: gets their numbers; for free(), also after an error
 * @nr: gets how many
 *
 * For who asks about each of them, which is not possible while they are listed.
 *
 * Return: an exit status, having said why if not 0.
 */
int device_all(struct ubdm_ctl *ctl, uint32_t **index, unsigned int *nr)
{
	struct indices l = { .v = NULL };
	int ret = ubdm_ctl_list(ctl, collect, &l);

	*index = l.v;
	*nr = l.nr;
	return ret ? fail(exit_status_of(ret), "list: %s", strerror(-ret)) :
		     EXIT_OK;
}

const char *device_state(const struct ubdm_device *dev)
{
	static const char *const names[] = {
		[UBDM_STATE_NEW] = "new",
		[UBDM_STATE_LIVE] = "live",
		[UBDM_STATE_ORPHANED] = "orphaned",
		[UBDM_STATE_FAILED] = "failed",
		[UBDM_STATE_DYING] = "dying",
		[UBDM_STATE_DETACHED] = "detached",
	};

	if (dev->state == UBDM_STATE_LIVE || dev->state == UBDM_STATE_DETACHED) {
		if (dev->trouble & UBDM_TROUBLE_STALLED)
			return "stalled";
		if (dev->trouble & UBDM_TROUBLE_SPACE)
			return "space";
	}

	if (dev->state >= sizeof(names) / sizeof(names[0]))
		return "?";
	return names[dev->state];
}
