/* Reads profiles line by line and answers with libseccomp's programs in hexadecimal, for tests.rs. Prototypes
 * are declared here so that the library suffices, without its headers. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct scmp_arg_cmp {
	unsigned arg;
	int op;
	uint64_t a, b;
};
void *seccomp_init(uint32_t action);
void seccomp_release(void *ctx);
int seccomp_arch_add(void *ctx, uint32_t arch);
int seccomp_arch_remove(void *ctx, uint32_t arch);
int seccomp_attr_set(void *ctx, int attr, uint32_t value);
int seccomp_rule_add_array(void *ctx, uint32_t action, int nr, unsigned count, const struct scmp_arg_cmp *args);
int seccomp_syscall_resolve_name(const char *name);
int seccomp_syscall_resolve_name_arch(uint32_t arch, const char *name);
int seccomp_export_bpf(void *ctx, int fd);

int main(void)
{
	char word[64], name[64];
	void *ctx = NULL;
	int failed = 0;
	while (scanf("%63s", word) == 1) {
		if (!strcmp(word, "number")) {
			uint32_t arch;
			scanf("%u %63s", &arch, name);
			printf("%d\n", seccomp_syscall_resolve_name_arch(arch, name));
		} else if (!strcmp(word, "init")) {
			uint32_t action, native;
			scanf("%u %u", &action, &native);
			failed = 0;
			ctx = seccomp_init(action);
			if (native) {
				seccomp_arch_remove(ctx, 0);
				failed |= seccomp_arch_add(ctx, native);
			}
		} else if (!strcmp(word, "tree")) {
			seccomp_attr_set(ctx, 8, 2);
		} else if (!strcmp(word, "arch")) {
			uint32_t arch;
			scanf("%u", &arch);
			seccomp_arch_add(ctx, arch);
		} else if (!strcmp(word, "rule")) {
			struct scmp_arg_cmp args[6];
			uint32_t action;
			unsigned count;
			scanf("%u %63s %u", &action, name, &count);
			for (unsigned i = 0; i < count; i++)
				scanf("%u %d %lu %lu", &args[i].arg, &args[i].op, &args[i].a, &args[i].b);
			int nr = seccomp_syscall_resolve_name(name);
			if (nr != -1)
				failed |= seccomp_rule_add_array(ctx, action, nr, count, args);
		} else if (!strcmp(word, "end")) {
			FILE *file = tmpfile();
			unsigned char insn[8];
			if (failed)
				printf("refused");
			else {
				seccomp_export_bpf(ctx, fileno(file));
				rewind(file);
				while (fread(insn, 8, 1, file) == 1)
					for (int i = 0; i < 8; i++)
						printf("%02x", insn[i]);
			}
			printf("\n");
			fclose(file);
			seccomp_release(ctx);
		}
	}
	return 0;
}
