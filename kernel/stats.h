/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * stats.h - a device's counters: one set per CPU, so that a hit writes no
 * cache line that another CPU writes.
 */
#ifndef UBDM_STATS_H
#define UBDM_STATS_H

#include <linux/percpu.h>
#include <linux/types.h>
#include "../uapi/ubdmap_nl.h"

struct ubdm_stats {
	u64 n[__UBDM_S_MAX];
};

#define ubdm_count(dev, what)		this_cpu_inc((dev)->stats->n[what])
#define ubdm_count_add(dev, what, v)	this_cpu_add((dev)->stats->n[what], v)

static inline u64 ubdm_stats_sum(struct ubdm_stats __percpu *stats, int what)
{
	u64 sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(per_cpu_ptr(stats, cpu)->n[what]);
	return sum;
}

#endif /* UBDM_STATS_H */
