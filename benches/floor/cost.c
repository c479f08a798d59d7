/* cost FILE PROGRAM ARGUMENT...
 * Runs PROGRAM and writes its peak memory in KiB and its minor page faults to FILE. What the kernel counts as a
 * process's peak includes that of the process that it was forked from: hence from one as small as this. */
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int count, char **arguments) {
	if (count < 3)
		return 2;
	pid_t pid = fork();
	if (!pid) {
		execvp(arguments[2], arguments + 2);
		_exit(127);
	}
	int status;
	struct rusage usage;
	if (pid < 0 || wait4(pid, &status, 0, &usage) < 0)
		return 1;
	FILE *file = fopen(arguments[1], "w");
	if (!file || fprintf(file, "%ld %ld\n", usage.ru_maxrss, usage.ru_minflt) < 0 || fclose(file))
		return 1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
