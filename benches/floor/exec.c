/* exec PID KIND=DIR...
 * The floor of `exec` of /bin/true in the running container whose first process is PID and whose cgroups are DIR. What
 * it leaves out beside what container.h tells: making sure that PID is still the container's. */
#include "container.h"
#include <sys/pidfd.h>

int main(int count, char **arguments) {
	if (count < 3)
		return 2;
	static struct cgroups cgroups;
	read_arguments(&cgroups, arguments + 2, NULL);
	int init = must(pidfd_open(atoi(arguments[1]), 0));
	open_entries(&cgroups);
	/* All namespaces at once; the one of processes is for children only, hence the clone3. */
	must(setns(init, NAMESPACES));
	pid_t pid = clone_into(&cgroups, 0);
	if (!pid) {
		enter_v1(&cgroups);
		become_process();
		execute("/bin/true", NULL);
	}
	return status_of(pid);
}
