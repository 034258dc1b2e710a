// SPDX-License-Identifier: GPL-2.0-only
/*
 * shim.c - what of shim.h is not inline; included by it, see there.
 */

#ifdef __SANITIZE_THREAD__
int shim_fence;
#endif
__thread int shim_atomic;
__thread unsigned long shim_rcu_nest;
unsigned long jiffies = -1000UL;	/* so that it wraps in the tests */
long shim_fail_at;
long shim_fail_every;
long shim_nr_alloc;

void *kmalloc(size_t size, gfp_t gfp)
{
	void *p;

	if (gfp & GFP_NOIO)
		might_sleep();
	if (shim_fail_at && !--shim_fail_at) {
		shim_fail_at = shim_fail_every;
		return NULL;
	}
	p = malloc(size);
	assert(p);
	memset(p, 0xa5, size);	/* nobody may rely on zeros */
	__atomic_add_fetch(&shim_nr_alloc, 1, __ATOMIC_RELAXED);
	return p;
}

void kfree(void *p)
{
	if (p)
		__atomic_sub_fetch(&shim_nr_alloc, 1, __ATOMIC_RELAXED);
	free(p);
}

/* Each reading thread has a slot: 0, or the epoch it began to read in. */
#define SHIM_READERS 16
static unsigned long shim_epoch = 1;
static unsigned long shim_reading[SHIM_READERS];
static int shim_nr_readers;
static __thread int shim_reader = -1;
static struct rcu_head *shim_deferred;
static pthread_mutex_t shim_deferred_lock = PTHREAD_MUTEX_INITIALIZER;

void rcu_read_lock(void)
{
	if (shim_reader < 0) {
		shim_reader = __atomic_fetch_add(&shim_nr_readers, 1, __ATOMIC_SEQ_CST);
		assert(shim_reader < SHIM_READERS);
	}
	shim_atomic++;
	if (!shim_rcu_nest++) {
		__atomic_store_n(&shim_reading[shim_reader],
				 __atomic_load_n(&shim_epoch, __ATOMIC_SEQ_CST),
				 __ATOMIC_SEQ_CST);
		smp_mb();
	}
}

void rcu_read_unlock(void)
{
	assert(shim_rcu_nest);
	shim_atomic--;
	if (!--shim_rcu_nest)
		__atomic_store_n(&shim_reading[shim_reader], 0, __ATOMIC_RELEASE);
}

void shim_kfree_rcu(struct rcu_head *head, size_t offset)
{
	pthread_mutex_lock(&shim_deferred_lock);
	head->offset = offset;
	head->next = shim_deferred;
	shim_deferred = head;
	pthread_mutex_unlock(&shim_deferred_lock);
}

unsigned long get_state_synchronize_rcu(void)
{
	smp_mb();
	return __atomic_load_n(&shim_epoch, __ATOMIC_SEQ_CST) + 1;
}

unsigned long get_completed_synchronize_rcu(void)
{
	return 1;
}

unsigned long start_poll_synchronize_rcu(void)
{
	smp_mb();
	return __atomic_add_fetch(&shim_epoch, 1, __ATOMIC_SEQ_CST);
}

bool poll_state_synchronize_rcu(unsigned long cookie)
{
	unsigned long at;
	int i;

	if (__atomic_load_n(&shim_epoch, __ATOMIC_SEQ_CST) < cookie)
		return false;
	smp_mb();
	for (i = 0; i < SHIM_READERS; i++) {
		at = __atomic_load_n(&shim_reading[i], __ATOMIC_SEQ_CST);
		if (at && at < cookie)
			return false;
	}
	smp_mb();
	return true;
}

void shim_rcu_flush(void)
{
	struct rcu_head *head, *next;
	unsigned long now, at;
	int i;

	assert(!shim_rcu_nest);
	pthread_mutex_lock(&shim_deferred_lock);
	head = shim_deferred;
	shim_deferred = NULL;
	pthread_mutex_unlock(&shim_deferred_lock);

	smp_mb();
	now = __atomic_add_fetch(&shim_epoch, 1, __ATOMIC_SEQ_CST);
	for (i = 0; i < SHIM_READERS; i++)
		while ((at = __atomic_load_n(&shim_reading[i], __ATOMIC_SEQ_CST)) &&
		       at < now)
			sched_yield();

	for (; head; head = next) {
		next = head->next;
		kfree((char *)head - head->offset);
	}
}

struct rb_node *rb_first(const struct rb_root *r)
{
	struct rb_node *n = r->rb_node;

	while (n && n->rb_left)
		n = n->rb_left;
	return n;
}

struct rb_node *rb_next(const struct rb_node *n)
{
	if (n->rb_right) {
		for (n = n->rb_right; n->rb_left;)
			n = n->rb_left;
		return (struct rb_node *)n;
	}
	while (n->parent && n == n->parent->rb_right)
		n = n->parent;
	return n->parent;
}

struct rb_node *rb_prev(const struct rb_node *n)
{
	if (n->rb_left) {
		for (n = n->rb_left; n->rb_right;)
			n = n->rb_right;
		return (struct rb_node *)n;
	}
	while (n->parent && n == n->parent->rb_left)
		n = n->parent;
	return n->parent;
}

static void shim_rb_replace(struct rb_root *r, struct rb_node *n,
			    struct rb_node *by)
{
	if (!n->parent)
		r->rb_node = by;
	else if (n->parent->rb_left == n)
		n->parent->rb_left = by;
	else
		n->parent->rb_right = by;
	if (by)
		by->parent = n->parent;
}

void rb_erase(struct rb_node *n, struct rb_root *r)
{
	struct rb_node *heir;

	if (!n->rb_left || !n->rb_right) {
		shim_rb_replace(r, n, n->rb_left ? n->rb_left : n->rb_right);
		return;
	}
	heir = rb_next(n);
	shim_rb_replace(r, heir, heir->rb_right);
	shim_rb_replace(r, n, heir);
	heir->rb_left = n->rb_left;
	heir->rb_right = n->rb_right;
	if (heir->rb_left)
		heir->rb_left->parent = heir;
	if (heir->rb_right)
		heir->rb_right->parent = heir;
}
