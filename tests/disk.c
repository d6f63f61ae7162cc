/* Preloaded into the program by tests: a disk that is slow, that fails, or on which the program is killed.
 *
 *   SLOW_DISK=PART    20 ms for each read of a file whose path has PART in it
 *   DISK_PART=PART    counts what changes files and folders whose path has PART in it: opening to write, writing, syncing, renaming,
 *                     deleting, cutting
 *   DISK_LOG=FILE     writes each into FILE, a line "what path"
 *   DISK_AT=N         from the Nth on, from 1, what DISK_THEN says:
 *   DISK_THEN=killed  the program is killed in it, after half of what it writes
 *            =full    writing fails, as on a disk that is full
 *            =closed  all of it fails, as on a disk that has become read-only
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int has_part(const char *path, const char *variable) {
    const char *part = getenv(variable);
    return part && strstr(path, part);
}

static const char *path_of(int file, char path[4096]) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, 4095);
    path[length > 0 ? length : 0] = 0;
    return path;
}

enum then { GOES_ON, KILLED, FAILS };

/* What is to become of this. */
static enum then next_is(const char *what, const char *path) {
    static atomic_long count;
    if (!has_part(path, "DISK_PART")) return GOES_ON;
    long number = ++count;
    const char *log = getenv("DISK_LOG"), *at = getenv("DISK_AT"), *then = getenv("DISK_THEN");
    if (log) {
        char line[4200];
        int length = snprintf(line, sizeof line, "%s %s\n", what, path);
        int file = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND, 0666);
        syscall(SYS_write, file, line, length);
        syscall(SYS_close, file);
    }
    if (!at || !then || number < atol(at)) return GOES_ON;
    if (!strcmp(then, "killed")) return KILLED;
    int full = !strcmp(then, "full");
    if (full && strcmp(what, "write")) return GOES_ON;
    errno = full ? ENOSPC : EROFS;
    return FAILS;
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

ssize_t read(int file, void *bytes, size_t count) {
    char path[4096];
    if (getenv("SLOW_DISK") && has_part(path_of(file, path), "SLOW_DISK")) {
        struct timespec pause = {0, 20000000};
        nanosleep(&pause, 0);
    }
    return NEXT(read)(file, bytes, count);
}

ssize_t write(int file, const void *bytes, size_t count) {
    char path[4096];
    enum then then = getenv("DISK_PART") ? next_is("write", path_of(file, path)) : GOES_ON;
    if (then == FAILS) return -1;
    if (then == KILLED) {
        NEXT(write)(file, bytes, count / 2);
        die();
    }
    return NEXT(write)(file, bytes, count);
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    int mode = va_arg(rest, int);
    va_end(rest);
    enum then then = (flags & O_ACCMODE) == O_RDONLY ? GOES_ON : next_is("open", path);
    if (then == KILLED) die();
    return then == FAILS ? -1 : NEXT(open64)(path, flags, mode);
}

#define CALL(name, parameters, path, arguments)                                                                        \
    int name parameters {                                                                                              \
        char place[4096];                                                                                              \
        (void)place;                                                                                                   \
        enum then then = next_is(#name, path);                                                                         \
        if (then == KILLED) die();                                                                                     \
        return then == FAILS ? -1 : NEXT(name) arguments;                                                              \
    }

CALL(fsync, (int file), path_of(file, place), (file))
CALL(ftruncate64, (int file, off64_t length), path_of(file, place), (file, length))
CALL(rename, (const char *from, const char *to), to, (from, to))
CALL(unlink, (const char *path), path, (path))
CALL(mkdir, (const char *path, mode_t mode), path, (path, mode))
