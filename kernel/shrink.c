// SPDX-License-Identifier: GPL-2.0-only
/*
 * shrink.c - give extents back when memory is short.
 *
 * An extent that goes costs a miss when it is needed again, and a miss needs
 * the mapper; so they are declared dear, and a device keeps a small number of
 * them whatever happens.
 */
#include "dev.h"

#include <linux/shrinker.h>

#define KEEP_EXTENTS	1024
#define SEEKS		(DEFAULT_SEEKS * 8)

static unsigned long count(struct shrinker *s, struct shrink_control *sc)
{
	struct ubdm_dev *dev = s->private_data;
	u64 nr = READ_ONCE(dev->tlb.nr);

	/* Nobody could map again what goes. */
	if (READ_ONCE(dev->tlb.pinned))
		return SHRINK_EMPTY;

	return nr > KEEP_EXTENTS ? nr - KEEP_EXTENTS : SHRINK_EMPTY;
}

static unsigned long scan(struct shrinker *s, struct shrink_control *sc)
{
	struct ubdm_dev *dev = s->private_data;
	unsigned int nr = min_t(unsigned long, sc->nr_to_scan, KEEP_EXTENTS);

	/* Only tries the writers' lock, so reclaim under it cannot deadlock. */
	return ubdm_tlb_evict(&dev->tlb, nr) ?: SHRINK_STOP;
}

/**
 * ubdm_shrink_init - let memory pressure reach a device's TLB
 * @dev: the device
 *
 * Return: 0 or -ENOMEM.
 */
int ubdm_shrink_init(struct ubdm_dev *dev)
{
	struct shrinker *s = shrinker_alloc(0, "%s", dev->name);

	if (!s)
		return -ENOMEM;
	s->count_objects = count;
	s->scan_objects = scan;
	s->seeks = SEEKS;
	s->private_data = dev;
	dev->shrinker = s;
	shrinker_register(s);
	return 0;
}

/**
 * ubdm_shrink_exit - end that; no shrinking is under way afterwards
 * @dev: the device
 *
 * Context: process; waits for a scan that runs.
 */
void ubdm_shrink_exit(struct ubdm_dev *dev)
{
	shrinker_free(dev->shrinker);
	dev->shrinker = NULL;
}
