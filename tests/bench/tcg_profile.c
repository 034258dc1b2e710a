// SPDX-License-Identifier: GPL-2.0-only
/*
 * tcg_profile.c - a QEMU plugin that counts executed instructions by address.
 *
 *   qemu-system-x86_64 ... -plugin build/tcg_profile.so,out=FILE
 *
 * The guest says when to count, by two instructions that do nothing else (see
 * tests/tools/profmark.c): the first clears the counters, the second writes
 * them to FILE, as lines of "address instructions".  An address is that of a
 * block of instructions that ends with a jump, so it is inside one function.
 *
 * Debian's QEMU has plugins but brings no header for them, so what is used of
 * the interface (version 1, docs/devel/tcg-plugins.rst) is declared here.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

/* QEMU's side. */
typedef uint64_t plugin_id;
struct qemu_info;
struct qemu_plugin_tb;
struct qemu_plugin_insn;

enum { NO_REGISTERS = 0 };	/* what a callback touches */
enum { ADD_U64 = 0 };		/* what is done inline */

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb,
						 size_t i);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id,
		void (*cb)(plugin_id id, struct qemu_plugin_tb *tb));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *tb, int op,
					      void *ptr, uint64_t by);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn,
		void (*cb)(unsigned int vcpu, void *data), int flags, void *data);

/* Ours. */
EXPORT int qemu_plugin_version = 1;
EXPORT int qemu_plugin_install(plugin_id id, const struct qemu_info *info,
			       int argc, char **argv);

/* A block.  The code at an address may change; the counter stays the address's. */
struct block {
	uint64_t address, instructions;
	struct block *next;
};

#define BUCKETS (1u << 16)

static struct block *blocks[BUCKETS];
static const char *out;

static uint64_t *counter_of(uint64_t address)
{
	struct block **at = &blocks[(address ^ address >> 16) % BUCKETS], *b;

	for (b = *at; b; b = b->next)
		if (b->address == address)
			return &b->instructions;
	b = calloc(1, sizeof(*b));
	if (!b)
		abort();
	b->address = address;
	b->next = *at;
	*at = b;
	return &b->instructions;
}

static void start(unsigned int vcpu, void *data)
{
	(void)vcpu;
	(void)data;
	for (unsigned int i = 0; i < BUCKETS; i++)
		for (struct block *b = blocks[i]; b; b = b->next)
			b->instructions = 0;
}

static void stop(unsigned int vcpu, void *data)
{
	FILE *f = fopen(out, "w");

	(void)vcpu;
	(void)data;
	if (!f) {
		perror(out);
		return;
	}
	for (unsigned int i = 0; i < BUCKETS; i++)
		for (struct block *b = blocks[i]; b; b = b->next)
			if (b->instructions)
				fprintf(f, "%016" PRIx64 " %" PRIu64 "\n",
					b->address, b->instructions);
	fclose(f);
}

/* The marks: long NOPs with an address that nobody would compute. */
static const uint8_t mark[] = { 0x0f, 0x1f, 0x80, 'u', 'b', 'd' };

static void translated(plugin_id id, struct qemu_plugin_tb *tb)
{
	size_t n = qemu_plugin_tb_n_insns(tb);

	(void)id;
	qemu_plugin_register_vcpu_tb_exec_inline(tb, ADD_U64,
			counter_of(qemu_plugin_tb_vaddr(tb)), n);
	for (size_t i = 0; i < n; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		const uint8_t *code = qemu_plugin_insn_data(insn);

		if (qemu_plugin_insn_size(insn) != sizeof(mark) + 1 ||
		    memcmp(code, mark, sizeof(mark)))
			continue;
		qemu_plugin_register_vcpu_insn_exec_cb(insn,
			code[sizeof(mark)] == 1 ? start : stop, NO_REGISTERS, NULL);
	}
}

EXPORT int qemu_plugin_install(plugin_id id, const struct qemu_info *info,
			       int argc, char **argv)
{
	(void)info;
	for (int i = 0; i < argc; i++)
		if (!strncmp(argv[i], "out=", 4))
			out = strdup(argv[i] + 4);
	if (!out) {
		fprintf(stderr, "tcg_profile: say out=FILE\n");
		return -1;
	}
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
