/* Runs a command under ptrace and does one thing at a chosen system call of what the command does in a container:
 * so a race is no matter of luck, and every window of it is tried.
 *
 *   tracer swap N A B OUT COMMAND...   exchanges the names A and B behind the Nth call with a path, of all processes in
 *                                      another mount namespace than ours; writes into OUT how many there were
 *   tracer swapall N A B OUT COMMAND...   the same, of all processes
 *   tracer fds OUT COMMAND...          notes into OUT each file descriptor that a process in another pid namespace
 *                                      than ours holds behind any of its calls, as a line NUMBER TARGET
 *
 * A process is left alone once it has executed a program in the container. The status is the command's.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void fail(const char *what)
{
	perror(what);
	exit(125);
}

/* The calls between which the meaning of a path may be changed. */
static int has_path(unsigned long long nr)
{
	static const long calls[] = {
		SYS_openat, SYS_openat2, SYS_mkdirat, SYS_mknodat, SYS_unlinkat, SYS_symlinkat, SYS_linkat, SYS_renameat2,
		SYS_newfstatat, SYS_statx, SYS_readlinkat, SYS_fchmodat, SYS_fchownat, SYS_faccessat, SYS_faccessat2,
		SYS_mount, SYS_umount2, SYS_move_mount, SYS_open_tree, SYS_fsmount, SYS_pivot_root, SYS_chroot, SYS_chdir,
		SYS_fchdir, SYS_statfs, SYS_fstatfs, SYS_fstat, SYS_truncate, SYS_ioctl, SYS_mount_setattr,
#ifdef SYS_open
		SYS_open, SYS_creat, SYS_mkdir, SYS_mknod, SYS_unlink, SYS_rmdir, SYS_symlink, SYS_stat, SYS_lstat,
		SYS_readlink, SYS_chmod, SYS_chown, SYS_lchown, SYS_access, SYS_rename,
#endif
	};
	for (unsigned i = 0; i < sizeof calls / sizeof *calls; i++)
		if (nr == (unsigned long long)calls[i])
			return 1;
	return 0;
}

static struct tracee {
	pid_t pid;
	int inside;
	unsigned long long nr;
} tracees[4096];

static struct tracee *of(pid_t pid)
{
	struct tracee *t = &tracees[pid % 4096];
	if (t->pid != pid)
		*t = (struct tracee){ .pid = pid };
	return t;
}

static const char *kind;
static char own[64];

static int inside(struct tracee *t)
{
	char path[64], name[64] = { 0 };
	if (!t->inside) {
		snprintf(path, sizeof path, "/proc/%d/ns/%s", t->pid, kind);
		t->inside = readlink(path, name, sizeof name - 1) > 0 && strcmp(name, own);
	}
	return t->inside;
}

/* Each line once. */
static void note(FILE *out, const char *line)
{
	static char *seen[4096];
	static unsigned count;
	for (unsigned i = 0; i < count; i++)
		if (!strcmp(seen[i], line))
			return;
	if (count < 4096)
		seen[count++] = strdup(line);
	fputs(line, out);
}

static void note_fds(FILE *out, pid_t pid)
{
	char path[512], target[256], line[512];
	snprintf(path, sizeof path, "/proc/%d/fd", pid);
	DIR *dir = opendir(path);
	if (!dir)
		return;
	for (struct dirent *e; (e = readdir(dir));) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "/proc/%d/fd/%s", pid, e->d_name);
		ssize_t n = readlink(path, target, sizeof target - 1);
		if (n < 0)
			continue;
		target[n] = 0;
		snprintf(line, sizeof line, "%.16s %s\n", e->d_name, target);
		note(out, line);
	}
	closedir(dir);
}

int main(int argc, char **argv)
{
	int everywhere = argc > 6 && !strcmp(argv[1], "swapall");
	int swaps = everywhere || (argc > 6 && !strcmp(argv[1], "swap"));
	if (!swaps && !(argc > 3 && !strcmp(argv[1], "fds"))) {
		fprintf(stderr, "tracer: see the source for how to call it\n");
		return 125;
	}
	long wanted = swaps ? atol(argv[2]) : 0, count = 0;
	FILE *out = fopen(argv[swaps ? 5 : 2], "we");
	if (!out)
		fail(argv[swaps ? 5 : 2]);
	kind = swaps ? "mnt" : "pid";
	char path[64];
	snprintf(path, sizeof path, "/proc/self/ns/%s", kind);
	if (readlink(path, own, sizeof own - 1) < 0)
		fail(path);

	pid_t root = fork();
	if (root < 0)
		fail("fork");
	if (!root) {
		raise(SIGSTOP);
		execvp(argv[swaps ? 6 : 3], argv + (swaps ? 6 : 3));
		fail("execvp");
	}
	int status;
	if (waitpid(root, &status, WUNTRACED) != root || !WIFSTOPPED(status))
		fail("waitpid");
	long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
		       PTRACE_O_TRACEEXEC;
	if (ptrace(PTRACE_SEIZE, root, 0, options) || kill(root, SIGCONT))
		fail("ptrace");

	for (;;) {
		pid_t pid = waitpid(-1, &status, __WALL);
		if (pid < 0 && errno == EINTR)
			continue;
		if (pid < 0)
			fail("waitpid");
		if (!WIFSTOPPED(status)) {
			of(pid)->pid = 0;
			if (pid == root)
				break;
			continue;
		}
		int signal = WSTOPSIG(status), event = status >> 16;
		struct tracee *t = of(pid);
		if (signal == (SIGTRAP | 0x80)) {
			struct __ptrace_syscall_info info = { 0 };
			ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof info, &info);
			if (info.op == PTRACE_SYSCALL_INFO_ENTRY)
				t->nr = info.entry.nr;
			else if (info.op == PTRACE_SYSCALL_INFO_EXIT && (everywhere || inside(t))) {
				if (!swaps)
					note_fds(out, pid);
				else if (has_path(t->nr) && ++count == wanted &&
					 renameat2(AT_FDCWD, argv[3], AT_FDCWD, argv[4], RENAME_EXCHANGE))
					fail("renameat2");
			}
			signal = 0;
		} else if (event == PTRACE_EVENT_EXEC) {
			if (inside(t)) {
				ptrace(PTRACE_DETACH, pid, 0, 0);
				continue;
			}
			signal = 0;
		} else if (event == PTRACE_EVENT_STOP && signal != SIGTRAP) {
			/* Stopped as a group: it waits for SIGCONT. */
			ptrace(PTRACE_LISTEN, pid, 0, 0);
			continue;
		} else if (event) {
			signal = 0;
		}
		ptrace(PTRACE_SYSCALL, pid, 0, signal);
	}
	if (swaps)
		fprintf(out, "%ld\n", count);
	fclose(out);
	/* What is still traced is let go with us. */
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
