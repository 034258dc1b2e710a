// SPDX-License-Identifier: GPL-2.0-only
/*
 * main.c - module init and exit.
 */
#include "chan.h"
#include "compat.h"
#include "dev.h"
#include "genl.h"
#include "tlb_spare.h"

#include <linux/module.h>
#include <net/genetlink.h>

static int __init ubdm_init(void)
{
	int ret;

	ret = ubdm_dev_init();
	if (ret)
		return ret;
	ret = ubdm_chan_init();
	if (ret)
		goto undo_dev;
	ret = ubdm_genl_init();
	if (ret)
		goto undo_chan;
	return 0;

undo_chan:
	ubdm_chan_exit();
undo_dev:
	ubdm_dev_exit();
	return ret;
}

static void __exit ubdm_exit(void)
{
	ubdm_genl_exit();
	ubdm_chan_exit();
	ubdm_dev_exit();
	ubdm_spare_exit();
}

module_init(ubdm_init);
module_exit(ubdm_exit);
MODULE_DESCRIPTION("Block devices from image files, served from a TLB of extents");
MODULE_AUTHOR("ubdmap maintainers");
MODULE_LICENSE("GPL");
MODULE_ALIAS_GENL_FAMILY("ubdmap");
