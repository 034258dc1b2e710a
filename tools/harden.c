// SPDX-License-Identifier: GPL-2.0-only
/*
 * harden.c - a process that memory reclaim may have to wait for.
 *
 * Each step is as far as permitted: a mapper without privileges works too, but
 * must not serve swap or a file system under memory pressure.
 */
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/capability.h>
#include <linux/prctl.h>

#include "harden.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

static bool have_cap(unsigned int cap)
{
	struct __user_cap_header_struct h = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct d[2] = {};

	if (syscall(SYS_capget, &h, d))
		return false;
	return d[cap / 32].effective & (1U << (cap % 32));
}

/* With a limit on locked memory every later malloc() could fail. */
static void lock_memory(void)
{
	struct rlimit r;

	if (!have_cap(CAP_IPC_LOCK) &&
	    (getrlimit(RLIMIT_MEMLOCK, &r) || r.rlim_cur != RLIM_INFINITY))
		return;
	mlockall(MCL_CURRENT | MCL_FUTURE);
}

static void spare_from_oom(void)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	/* Not permitted: as before then. */
	(void)!write(fd, "-1000", 5);
	close(fd);
}

void harden_threads(void)
{
	mallopt(M_ARENA_MAX, 2);
	mallopt(M_TRIM_THRESHOLD, 64 << 20);
	prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
	/* As the kernel's own workers on the way of I/O. */
	setpriority(PRIO_PROCESS, 0, -20);
}

void stay_in_memory(void)
{
	lock_memory();
	spare_from_oom();
}

void lift_file_limit(void)
{
	struct rlimit r = { RLIM_INFINITY, RLIM_INFINITY };

	signal(SIGXFSZ, SIG_IGN);
	if (!setrlimit(RLIMIT_FSIZE, &r) || getrlimit(RLIMIT_FSIZE, &r))
		return;
	r.rlim_cur = r.rlim_max;
	setrlimit(RLIMIT_FSIZE, &r);
}
