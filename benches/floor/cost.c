/* cost PROGRAM ARGUMENT...
 * Runs PROGRAM and writes its peak memory in KiB and its minor page faults to descriptor 3. What the kernel counts as a
 * process's peak includes that of the process that it was forked from: hence from one as small as this. */
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int count, char **arguments) {
	if (count < 2)
		return 2;
	pid_t pid = fork();
	if (!pid) {
		close(3);
		execvp(arguments[1], arguments + 1);
		_exit(127);
	}
	int status;
	struct rusage usage;
	if (pid < 0 || wait4(pid, &status, 0, &usage) < 0)
		return 1;
	dprintf(3, "%ld %ld\n", usage.ru_maxrss, usage.ru_minflt);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
