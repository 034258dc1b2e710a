// SPDX-License-Identifier: GPL-2.0-only
/*
 * A module with a fault of the kind it is told, for tests/vm/selftest.sh: the
 * harness must see each.
 */

#include <linux/atomic.h>
#include <linux/bug.h>
#include <linux/module.h>
#include <linux/refcount.h>

static char *kind = "";
module_param(kind, charp, 0);
MODULE_PARM_DESC(kind, "warn, bug, null or refcount; else loading is refused");

static int __init faulty_init(void)
{
	refcount_t count = REFCOUNT_INIT(0);
	int *volatile nowhere = NULL;

	if (!strcmp(kind, "warn"))
		WARN_ON(1);
	else if (!strcmp(kind, "bug"))
		BUG();
	else if (!strcmp(kind, "null"))
		*nowhere = 1;
	else if (!strcmp(kind, "refcount"))
		refcount_inc(&count);
	else
		return -ENODEV;
	return 0;
}
module_init(faulty_init);

static void __exit faulty_exit(void)
{
}
module_exit(faulty_exit);

MODULE_DESCRIPTION("Faults for the test harness to find");
MODULE_LICENSE("GPL");
