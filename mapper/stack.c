// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * stack.c - what a file lies on, as far as sysfs tells.
 *
 * The driver refuses a backing that is its own disk, or a file in a file system
 * on it.  It cannot look through what is stacked in between, sysfs mostly can:
 *
 *	slaves/			of dm, md and others
 *	loop/backing_file	of loop devices
 *
 * A file system on several disks (btrfs) or on none (overlay, network) has no
 * disk to start from, and the image of another ubdmap device is known to its
 * mapper only: there it ends, and nothing is found.
 */
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "stack.h"

#define DEPTH_MAX 16

struct look {
	const char *sys;
	const char *disk;
	unsigned int depth;
};

static bool disk_on(struct look *l, const char *path);

/* @st: of a file, or of a node of a disk */
static bool file_on(struct look *l, const struct stat *st)
{
	dev_t dev = S_ISBLK(st->st_mode) ? st->st_rdev : st->st_dev;
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/dev/block/%u:%u", l->sys, major(dev),
		 minor(dev));
	return disk_on(l, path);
}

static bool loop_on(struct look *l, const char *dir)
{
	char path[PATH_MAX + 32], file[PATH_MAX];
	struct stat st;
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), "%s/loop/backing_file", dir);
	f = fopen(path, "re");
	if (!f)
		return false;
	n = fread(file, 1, sizeof(file) - 1, f);
	fclose(f);
	while (n && file[n - 1] == '\n')
		n--;
	file[n] = 0;
	return n && !stat(file, &st) && file_on(l, &st);
}

static bool slaves_on(struct look *l, const char *dir)
{
	char path[PATH_MAX + 32];
	struct dirent *e;
	bool found = false;
	DIR *d;

	snprintf(path, sizeof(path), "%s/slaves", dir);
	d = opendir(path);
	if (!d)
		return false;
	while (!found && (e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%.*s/slaves/%s", PATH_MAX - 300,
			 dir, e->d_name);
		found = disk_on(l, path);
	}
	closedir(d);
	return found;
}

/* @path: a disk's or partition's folder, or a link to it */
static bool disk_on(struct look *l, const char *path)
{
	char dir[PATH_MAX], part[PATH_MAX + 16];
	bool found;

	if (l->depth >= DEPTH_MAX || !realpath(path, dir))
		return false;
	snprintf(part, sizeof(part), "%s/partition", dir);
	if (!access(part, F_OK))
		*strrchr(dir, '/') = 0;
	if (!strcmp(strrchr(dir, '/') + 1, l->disk))
		return true;
	l->depth++;
	found = slaves_on(l, dir) || loop_on(l, dir);
	l->depth--;
	return found;
}

/**
 * ubdm_stack_lies_on - is a disk somewhere below a file?
 * @sys: where sysfs is
 * @fd: the file, or a block device
 * @disk: the disk's name
 *
 * Return: true if it was found; false: it was not, or cannot be seen.
 */
bool ubdm_stack_lies_on(const char *sys, int fd, const char *disk)
{
	struct look l = { .sys = sys, .disk = disk };
	struct stat st;

	return !fstat(fd, &st) && file_on(&l, &st);
}
