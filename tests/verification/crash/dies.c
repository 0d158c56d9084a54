/* Preloaded into a process, it counts every call by which that process changes a file, and kills
 * the process (SIGKILL, so that nothing of it runs any more) at one of them.
 *
 * dies_arm(n, when) begins the count: at the n-th call the process dies before it ('b'), after it
 * ('a'), or with half of its bytes written ('h'; a call that writes none: before). n = 0 only
 * counts. dies_log(fd) has each counted call told to fd, a line each: its name, then the path.
 *
 * Only calls through libc are seen. Python makes no others. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

static int armed, log_fd = -1;
static long count, at;
static char when;

__attribute__((visibility("default"))) void dies_arm(long n, char w) {
    count = 0;
    at = n;
    when = w;
    armed = 1;
}

__attribute__((visibility("default"))) void dies_log(int fd) { log_fd = fd; }

static void die(void) {
    syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
    for (;;) pause();
}

static void path_of(int fd, char *out, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t got = readlink(link, out, size - 1);
    out[got < 0 ? 0 : got] = 0;
}

/* A path, below a directory's descriptor where it is relative to one. */
static void path_at(int dir, const char *name, char *out, size_t size) {
    out[0] = 0;
    if (name && name[0] != '/' && dir != AT_FDCWD) {
        path_of(dir, out, size - 1);
        strncat(out, "/", size - strlen(out) - 1);
    }
    strncat(out, name ? name : "", size - strlen(out) - 1);
}

static void told(const char *call, const char *first, const char *second) {
    char line[9000];
    if (log_fd < 0) return;
    int n = snprintf(line, sizeof line, "%s\t%s\t%s\n", call, first, second);
    syscall(SYS_write, log_fd, line, (size_t)n);
}

/* 1: this is the call at which to die. */
static int counted(const char *call, const char *first, const char *second) {
    if (!armed) return 0;
    count++;
    told(call, first, second);
    if (count != at) return 0;
    if (when == 'b') die();
    return 1;
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define AFTER(hit) do { if (hit) die(); } while (0)
#define EXPORT __attribute__((visibility("default")))

static int regular(int fd) {
    struct stat status;
    return fstat(fd, &status) == 0 && (S_ISREG(status.st_mode) || S_ISDIR(status.st_mode));
}

#define ON_FD(name, result, params, args) \
    EXPORT result name params { \
        REAL(name); \
        if (!armed || !regular(fd)) return real args; \
        char path[4200]; \
        path_of(fd, path, sizeof path); \
        int hit = counted(#name, path, ""); \
        if (hit && when == 'h') die(); \
        result back = real args; \
        AFTER(hit); \
        return back; \
    }

ON_FD(fsync, int, (int fd), (fd))
ON_FD(fdatasync, int, (int fd), (fd))
ON_FD(fchmod, int, (int fd, mode_t mode), (fd, mode))
ON_FD(fchown, int, (int fd, uid_t user, gid_t group), (fd, user, group))
ON_FD(ftruncate, int, (int fd, off_t length), (fd, length))
ON_FD(ftruncate64, int, (int fd, off64_t length), (fd, length))
ON_FD(futimens, int, (int fd, const struct timespec times[2]), (fd, times))
ON_FD(fsetxattr, int, (int fd, const char *n, const void *v, size_t s, int f), (fd, n, v, s, f))
ON_FD(writev, ssize_t, (int fd, const struct iovec *v, int n), (fd, v, n))

#define WRITES(name, params, args, half) \
    EXPORT ssize_t name params { \
        REAL(name); \
        if (!armed || !regular(fd)) return real args; \
        char path[4200]; \
        path_of(fd, path, sizeof path); \
        int hit = counted(#name, path, ""); \
        if (hit && when == 'h') { \
            size_t part = size / 2; \
            if (part) (void)!real half; \
            die(); \
        } \
        ssize_t back = real args; \
        AFTER(hit); \
        return back; \
    }

WRITES(write, (int fd, const void *data, size_t size), (fd, data, size), (fd, data, part))
WRITES(pwrite, (int fd, const void *data, size_t size, off_t o), (fd, data, size, o),
       (fd, data, part, o))
WRITES(pwrite64, (int fd, const void *data, size_t size, off64_t o), (fd, data, size, o),
       (fd, data, part, o))

#define ON_PATH(name, call, dir, first, dir2, second, params, args) \
    EXPORT int name params { \
        REAL(name); \
        if (!armed) return real args; \
        char one[4200], two[4200]; \
        path_at(dir, first, one, sizeof one); \
        path_at(dir2, second, two, sizeof two); \
        int hit = counted(call, one, two); \
        if (hit && when == 'h') die(); \
        int back = real args; \
        AFTER(hit); \
        return back; \
    }
#define HERE AT_FDCWD

ON_PATH(rename, "rename", HERE, a, HERE, b, (const char *a, const char *b), (a, b))
ON_PATH(renameat, "rename", d, a, e, b, (int d, const char *a, int e, const char *b), (d, a, e, b))
ON_PATH(renameat2, "rename", d, a, e, b, (int d, const char *a, int e, const char *b, unsigned f),
        (d, a, e, b, f))
ON_PATH(link, "link", HERE, a, HERE, b, (const char *a, const char *b), (a, b))
ON_PATH(linkat, "link", d, a, e, b, (int d, const char *a, int e, const char *b, int f),
        (d, a, e, b, f))
ON_PATH(symlink, "symlink", HERE, a, HERE, b, (const char *a, const char *b), (a, b))
ON_PATH(unlink, "unlink", HERE, a, HERE, "", (const char *a), (a))
ON_PATH(unlinkat, "unlink", d, a, HERE, "", (int d, const char *a, int f), (d, a, f))
ON_PATH(rmdir, "rmdir", HERE, a, HERE, "", (const char *a), (a))
ON_PATH(mkdir, "mkdir", HERE, a, HERE, "", (const char *a, mode_t m), (a, m))
ON_PATH(mkdirat, "mkdir", d, a, HERE, "", (int d, const char *a, mode_t m), (d, a, m))
ON_PATH(chmod, "chmod", HERE, a, HERE, "", (const char *a, mode_t m), (a, m))
ON_PATH(fchmodat, "chmod", d, a, HERE, "", (int d, const char *a, mode_t m, int f), (d, a, m, f))
ON_PATH(chown, "chown", HERE, a, HERE, "", (const char *a, uid_t u, gid_t g), (a, u, g))
ON_PATH(lchown, "chown", HERE, a, HERE, "", (const char *a, uid_t u, gid_t g), (a, u, g))
ON_PATH(fchownat, "chown", d, a, HERE, "", (int d, const char *a, uid_t u, gid_t g, int f),
        (d, a, u, g, f))
ON_PATH(truncate, "truncate", HERE, a, HERE, "", (const char *a, off_t n), (a, n))
ON_PATH(truncate64, "truncate", HERE, a, HERE, "", (const char *a, off64_t n), (a, n))
ON_PATH(utimensat, "utimens", d, a, HERE, "",
        (int d, const char *a, const struct timespec t[2], int f), (d, a, t, f))
ON_PATH(setxattr, "setxattr", HERE, a, HERE, "",
        (const char *a, const char *n, const void *v, size_t s, int f), (a, n, v, s, f))
ON_PATH(lsetxattr, "setxattr", HERE, a, HERE, "",
        (const char *a, const char *n, const void *v, size_t s, int f), (a, n, v, s, f))

#define OPENS(name, dir, params, plain) \
    EXPORT int name params { \
        REAL(name); \
        mode_t mode = 0; \
        if (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE) { \
            va_list rest; \
            va_start(rest, flags); \
            mode = va_arg(rest, mode_t); \
            va_end(rest); \
        } \
        if (!armed || !(flags & (O_CREAT | O_TRUNC))) return real plain; \
        char one[4200]; \
        path_at(dir, path, one, sizeof one); \
        int hit = counted("open", one, flags & O_TRUNC ? "truncate" : "create"); \
        if (hit && when == 'h') die(); \
        int back = real plain; \
        AFTER(hit); \
        return back; \
    }

OPENS(open, AT_FDCWD, (const char *path, int flags, ...), (path, flags, mode))
OPENS(open64, AT_FDCWD, (const char *path, int flags, ...), (path, flags, mode))
OPENS(openat, fd, (int fd, const char *path, int flags, ...), (fd, path, flags, mode))
OPENS(openat64, fd, (int fd, const char *path, int flags, ...), (fd, path, flags, mode))
