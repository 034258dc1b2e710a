/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * shim.h - the kernel as kernel/tlb*.c and kernel/fault.c see it, in userspace.
 *
 * Thin, and stricter than the kernel where that is cheap: locks know their
 * owner, RCU readers must not sleep, memory given to kfree_rcu() is freed (and so
 * poisoned by ASan) by shim_rcu_flush() when every reader has moved on, and any
 * allocation can be made to fail.  One translation unit per program defines
 * SHIM_IMPLEMENTATION first.
 */
#ifndef SHIM_H
#define SHIM_H

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <linux/types.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef unsigned int gfp_t;

#define U64_MAX		((u64)~0ULL)
#define U32_MAX		((u32)~0U)
#define U16_MAX		((u16)~0U)
#define BITS_PER_LONG	64
#define BIT(n)		(1UL << (n))

#define __rcu
#define OPTIMIZER_HIDE_VAR(v)	__asm__("" : "=r"(v) : "0"(v))
#define likely(x)	__builtin_expect(!!(x), 1)
#define unlikely(x)	__builtin_expect(!!(x), 0)
#define __must_hold(x)
#define __acquires(x)
#define __releases(x)
#define fallthrough	__attribute__((__fallthrough__))

#define container_of(ptr, type, member) \
	((type *)((char *)(ptr) - offsetof(type, member)))
#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

#define min(a, b) \
	({ __auto_type a_ = (a); __auto_type b_ = (b); a_ < b_ ? a_ : b_; })
#define max(a, b) \
	({ __auto_type a_ = (a); __auto_type b_ = (b); a_ > b_ ? a_ : b_; })
#define swap(a, b) \
	do { __auto_type a_ = (a); (a) = (b); (b) = a_; } while (0)
#define min_t(t, a, b)	min((t)(a), (t)(b))
#define max_t(t, a, b)	max((t)(a), (t)(b))

static inline void memset64(u64 *p, u64 v, size_t n)
{
	while (n--)
		*p++ = v;
}

/* A WARN that input can reach is a bug: it ends the test. */
#define WARN_ON(c)	({ bool c_ = (c); assert(!c_); c_; })
#define WARN_ON_ONCE(c)	WARN_ON(c)

/* -- memory order ------------------------------------------------------ */

#define READ_ONCE(x)	__atomic_load_n(&(x), __ATOMIC_RELAXED)
#define WRITE_ONCE(x, v) __atomic_store_n(&(x), (v), __ATOMIC_RELAXED)
#define smp_store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)

#ifdef __SANITIZE_THREAD__
extern int shim_fence;		/* TSan knows no fences */
#define smp_mb()	((void)__atomic_fetch_add(&shim_fence, 1, __ATOMIC_SEQ_CST))
#else
#define smp_mb()	__atomic_thread_fence(__ATOMIC_SEQ_CST)
#endif
#define smp_mb__before_atomic()	smp_mb()
#define smp_mb__after_atomic()	smp_mb()

#define try_cmpxchg(p, old, new) \
	__atomic_compare_exchange_n(p, old, new, false, __ATOMIC_SEQ_CST, \
				    __ATOMIC_SEQ_CST)

static inline void set_bit(unsigned int i, unsigned long *p)
{
	__atomic_fetch_or(p, BIT(i), __ATOMIC_RELAXED);
}

static inline void clear_bit(unsigned int i, unsigned long *p)
{
	__atomic_fetch_and(p, ~BIT(i), __ATOMIC_RELAXED);
}

#define __ffs(x)	((unsigned int)__builtin_ctzl(x))
#define __fls(x)	((unsigned int)(BITS_PER_LONG - 1 - __builtin_clzl(x)))
#define hweight_long(x)	((unsigned int)__builtin_popcountl(x))

/* -- locks -------------------------------------------------------------- */

struct shim_lock {
	pthread_mutex_t m;
	pthread_t owner;
	bool held;		/* as its owner sees it */
};

struct mutex { struct shim_lock l; };
typedef struct { struct shim_lock l; } spinlock_t;

extern __thread int shim_atomic;	/* spinlocks and RCU sections of this thread */

static inline void shim_lock_init(struct shim_lock *l)
{
	pthread_mutex_init(&l->m, NULL);
	__atomic_store_n(&l->held, false, __ATOMIC_RELAXED);
}

static inline bool shim_held(struct shim_lock *l)
{
	return __atomic_load_n(&l->held, __ATOMIC_RELAXED) &&
	       __atomic_load_n(&l->owner, __ATOMIC_RELAXED) == pthread_self();
}

static inline void shim_got(struct shim_lock *l)
{
	__atomic_store_n(&l->owner, pthread_self(), __ATOMIC_RELAXED);
	__atomic_store_n(&l->held, true, __ATOMIC_RELAXED);
}

static inline void shim_lock(struct shim_lock *l)
{
	assert(!shim_held(l));
	pthread_mutex_lock(&l->m);
	shim_got(l);
}

static inline bool shim_trylock(struct shim_lock *l)
{
	if (pthread_mutex_trylock(&l->m))
		return false;
	shim_got(l);
	return true;
}

static inline void shim_unlock(struct shim_lock *l)
{
	assert(shim_held(l));
	__atomic_store_n(&l->held, false, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&l->m);
}

#define might_sleep()		assert(!shim_atomic)
#define cond_resched()		might_sleep()

#define mutex_init(x)		shim_lock_init(&(x)->l)
#define mutex_destroy(x)	pthread_mutex_destroy(&(x)->l.m)
#define mutex_lock(x)		({ might_sleep(); shim_lock(&(x)->l); })
#define mutex_trylock(x)	shim_trylock(&(x)->l)
#define mutex_unlock(x)		shim_unlock(&(x)->l)

#define spin_lock_init(x)	shim_lock_init(&(x)->l)
#define __SPIN_LOCK_UNLOCKED(x)	{ { .m = PTHREAD_MUTEX_INITIALIZER } }
#define spin_lock(x)		({ shim_lock(&(x)->l); shim_atomic++; })
#define spin_unlock(x)		({ shim_atomic--; shim_unlock(&(x)->l); })
#define spin_lock_irqsave(x, f)	({ (f) = 0; spin_lock(x); })
#define spin_unlock_irqrestore(x, f) ({ (void)(f); spin_unlock(x); })

#define lockdep_is_held(x)	shim_held(&(x)->l)
#define lockdep_assert_held(x)	assert(lockdep_is_held(x))

/* -- memory ------------------------------------------------------------- */

#define GFP_NOIO	1
#define GFP_NOWAIT	2
#define __GFP_NOWARN	4

extern long shim_fail_at;	/* the allocation that fails from now; 0: none */
extern long shim_fail_every;	/* ... and then each one, if set */
extern long shim_nr_alloc;	/* blocks that are not freed */

void *kmalloc(size_t size, gfp_t gfp);
void kfree(void *p);

/* -- RCU ---------------------------------------------------------------- */

struct rcu_head {
	struct rcu_head *next;
	size_t offset;
};

void rcu_read_lock(void);
void rcu_read_unlock(void);
void shim_kfree_rcu(struct rcu_head *head, size_t offset);
/* Wait for the readers of now, then free what was given to kfree_rcu(). */
void shim_rcu_flush(void);

/* A cookie is the epoch in which nobody reads any more who does now. */
unsigned long get_state_synchronize_rcu(void);
unsigned long get_completed_synchronize_rcu(void);
unsigned long start_poll_synchronize_rcu(void);
bool poll_state_synchronize_rcu(unsigned long cookie);
#define synchronize_rcu()	shim_rcu_flush()

extern __thread unsigned long shim_rcu_nest;

#define kfree_rcu(p, field) \
	shim_kfree_rcu(&(p)->field, offsetof(__typeof__(*(p)), field))
#define rcu_dereference(p) \
	({ assert(shim_rcu_nest); __atomic_load_n(&(p), __ATOMIC_ACQUIRE); })
#define rcu_dereference_check(p, c) rcu_dereference(p)
#define rcu_dereference_protected(p, c) \
	({ assert(c); __atomic_load_n(&(p), __ATOMIC_RELAXED); })
#define rcu_assign_pointer(p, v) __atomic_store_n(&(p), (v), __ATOMIC_RELEASE)
#define RCU_INIT_POINTER(p, v)	__atomic_store_n(&(p), (v), __ATOMIC_RELAXED)

/* -- lists -------------------------------------------------------------- */

struct list_head {
	struct list_head *next, *prev;
};

static inline void INIT_LIST_HEAD(struct list_head *h)
{
	h->next = h->prev = h;
}

static inline void shim_link(struct list_head *n, struct list_head *prev,
			     struct list_head *next)
{
	n->prev = prev;
	n->next = next;
	prev->next = next->prev = n;
}

#define list_add(n, h)		shim_link(n, h, (h)->next)
#define list_add_tail(n, h)	shim_link(n, (h)->prev, h)
#define list_empty(h)		((h)->next == (h))
#define list_entry(p, t, m)	container_of(p, t, m)
#define list_first_entry(h, t, m) list_entry((h)->next, t, m)
#define list_first_entry_or_null(h, t, m) \
	(list_empty(h) ? NULL : list_first_entry(h, t, m))
#define list_for_each_entry(p, h, m) \
	for (p = list_entry((h)->next, __typeof__(*p), m); &p->m != (h); \
	     p = list_entry(p->m.next, __typeof__(*p), m))
#define list_for_each_entry_safe(p, n, h, m) \
	for (p = list_entry((h)->next, __typeof__(*p), m), \
	     n = list_entry(p->m.next, __typeof__(*p), m); &p->m != (h); \
	     p = n, n = list_entry(n->m.next, __typeof__(*n), m))

static inline void list_del_init(struct list_head *n)
{
	n->prev->next = n->next;
	n->next->prev = n->prev;
	INIT_LIST_HEAD(n);
}

#define list_del(n)		list_del_init(n)
#define list_move(n, h)		({ list_del_init(n); list_add(n, h); })
#define list_move_tail(n, h)	({ list_del_init(n); list_add_tail(n, h); })

/* -- search trees: unbalanced, which a test does not mind ----------------- */

struct rb_node {
	struct rb_node *parent, *rb_left, *rb_right;
};

struct rb_root {
	struct rb_node *rb_node;
};

#define RB_ROOT			((struct rb_root) { NULL })
#define RB_EMPTY_ROOT(r)	(!(r)->rb_node)
#define rb_entry(p, t, m)	container_of(p, t, m)
#define rb_insert_color(n, r)	((void)(n), (void)(r))

static inline void rb_link_node(struct rb_node *n, struct rb_node *parent,
				struct rb_node **link)
{
	*n = (struct rb_node) { .parent = parent };
	*link = n;
}

struct rb_node *rb_first(const struct rb_root *r);
struct rb_node *rb_next(const struct rb_node *n);
struct rb_node *rb_prev(const struct rb_node *n);
void rb_erase(struct rb_node *n, struct rb_root *r);

/* -- bios ---------------------------------------------------------------- */

typedef u64 sector_t;
typedef unsigned int blk_opf_t;
typedef u8 blk_status_t;
typedef unsigned int blk_qc_t;

#define BLK_QC_T_NONE	-1U
#define REQ_FUA		(1U << 17)
#define REQ_NOUNMAP	(1U << 22)
#define REQ_NOWAIT	(1U << 21)

struct bio {
	struct bio *bi_next;
	blk_opf_t bi_opf;
	blk_status_t bi_status;
	blk_qc_t bi_cookie;
	struct {
		sector_t bi_sector;
		unsigned int bi_size;
	} bi_iter;
};

#define bio_sectors(b)		((b)->bi_iter.bi_size >> 9)
#define bio_end_sector(b)	((b)->bi_iter.bi_sector + bio_sectors(b))

struct bio_list {
	struct bio *head, *tail;
};

#define bio_list_for_each(b, l)	for (b = (l)->head; b; b = (b)->bi_next)

static inline void bio_list_init(struct bio_list *l)
{
	l->head = l->tail = NULL;
}

static inline bool bio_list_empty(const struct bio_list *l)
{
	return !l->head;
}

static inline struct bio *bio_list_peek(struct bio_list *l)
{
	return l->head;
}

static inline void bio_list_add(struct bio_list *l, struct bio *b)
{
	b->bi_next = NULL;
	if (l->tail)
		l->tail->bi_next = b;
	else
		l->head = b;
	l->tail = b;
}

static inline void bio_list_add_head(struct bio_list *l, struct bio *b)
{
	b->bi_next = l->head;
	l->head = b;
	if (!l->tail)
		l->tail = b;
}

static inline struct bio *bio_list_pop(struct bio_list *l)
{
	struct bio *b = l->head;

	if (b) {
		l->head = b->bi_next;
		if (!l->head)
			l->tail = NULL;
		b->bi_next = NULL;
	}
	return b;
}

static inline void bio_list_merge(struct bio_list *l, struct bio_list *more)
{
	if (!more->head)
		return;
	if (l->tail)
		l->tail->bi_next = more->head;
	else
		l->head = more->head;
	l->tail = more->tail;
}

/* -- time ---------------------------------------------------------------- */

extern unsigned long jiffies;

#define time_after(a, b)	((long)((b) - (a)) < 0)
#define time_before(a, b)	time_after(b, a)
#define time_after_eq(a, b)	((long)((a) - (b)) >= 0)

#ifdef SHIM_IMPLEMENTATION
#include "shim.c"
#endif

#endif /* SHIM_H */
