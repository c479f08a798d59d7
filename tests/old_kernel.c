/* old_kernel CALLS PROGRAM [ARGS...]: the program as on a kernel that lacks these calls (names with spaces
   between them): each answers ENOSYS. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_open_tree_attr
#define SYS_open_tree_attr 467
#endif
#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif
#define CALL(name) { #name, SYS_##name }

static const struct { const char *name; int number; } calls[] = {
	CALL(openat2), CALL(clone3), CALL(mount_setattr), CALL(fsopen), CALL(fsconfig), CALL(fsmount), CALL(fspick),
	CALL(open_tree), CALL(move_mount), CALL(close_range), CALL(pidfd_open), CALL(pidfd_send_signal),
	CALL(pidfd_getfd), CALL(faccessat2), CALL(open_tree_attr), CALL(fchmodat2),
};

int main(int argc, char **argv)
{
	struct sock_filter code[64];
	unsigned short n = 0;

	if (argc < 3)
		return 2;
	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (char *name = strtok(argv[1], " "); name; name = strtok(NULL, " ")) {
		size_t i = 0;
		while (i < sizeof calls / sizeof *calls && strcmp(calls[i].name, name))
			i++;
		if (i == sizeof calls / sizeof *calls) {
			fprintf(stderr, "old_kernel: %s: not in the table\n", name);
			return 2;
		}
		code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i].number, 0, 1);
		code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS);
	}
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog program = { n, code };
	if (geteuid() && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) {
		perror("old_kernel: prctl");
		return 2;
	}
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
		perror("old_kernel: seccomp");
		return 2;
	}
	execv(argv[2], argv + 2);
	perror(argv[2]);
	return 2;
}
