/* Preloaded into a process, it stops that process at every call by which it changes a file, so that
 * another one can look at the disk: what is there is what a process that dies there leaves behind.
 *
 * steps_arm(out, in) begins: before each call a line goes to `out` ("before", the call's name, its
 * paths, by tabs), and the call is made once a byte came from `in`. A write stops once more with half
 * of its bytes written ("half"). One call at a time, whatever thread makes it.
 *
 * Only calls through libc are seen. Python makes no others. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
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

static int armed, out_fd, in_fd;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

__attribute__((visibility("default"))) void steps_arm(int out, int in) {
    out_fd = out;
    in_fd = in;
    armed = 1;
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

static void stop(const char *moment, const char *call, const char *first, const char *second) {
    char line[9000], go;
    int n = snprintf(line, sizeof line, "%s\t%s\t%s\t%s\n", moment, call, first, second);
    syscall(SYS_write, out_fd, line, (size_t)n);
    while (syscall(SYS_read, in_fd, &go, (size_t)1) < 0 && errno == EINTR) {
    }
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define BEFORE(call, first, second) \
    pthread_mutex_lock(&turn); \
    stop("before", call, first, second)
#define MADE() \
    do { \
        int error = errno; \
        pthread_mutex_unlock(&turn); \
        errno = error; \
    } while (0)
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
        BEFORE(#name, path, ""); \
        result back = real args; \
        MADE(); \
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

#define WRITES(name, params, args, first, rest) \
    EXPORT ssize_t name params { \
        REAL(name); \
        if (!armed || !regular(fd)) return real args; \
        char path[4200]; \
        path_of(fd, path, sizeof path); \
        BEFORE(#name, path, ""); \
        size_t part = size / 2; \
        ssize_t back = part ? real first : 0; \
        if (part) stop("half", #name, path, ""); \
        if (back == (ssize_t)part) { \
            ssize_t more = real rest; \
            back = more < 0 && !part ? more : back + (more < 0 ? 0 : more); \
        } \
        MADE(); \
        return back; \
    }

WRITES(write, (int fd, const void *data, size_t size), (fd, data, size), (fd, data, part),
       (fd, (const char *)data + part, size - part))
WRITES(pwrite, (int fd, const void *data, size_t size, off_t o), (fd, data, size, o),
       (fd, data, part, o), (fd, (const char *)data + part, size - part, o + (off_t)part))
WRITES(pwrite64, (int fd, const void *data, size_t size, off64_t o), (fd, data, size, o),
       (fd, data, part, o), (fd, (const char *)data + part, size - part, o + (off64_t)part))

#define ON_PATH(name, call, dir, first, dir2, second, params, args) \
    EXPORT int name params { \
        REAL(name); \
        if (!armed) return real args; \
        char one[4200], two[4200]; \
        path_at(dir, first, one, sizeof one); \
        path_at(dir2, second, two, sizeof two); \
        BEFORE(call, one, two); \
        int back = real args; \
        MADE(); \
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
        BEFORE("open", one, flags & O_TRUNC ? "truncate" : "create"); \
        int back = real plain; \
        MADE(); \
        return back; \
    }

OPENS(open, AT_FDCWD, (const char *path, int flags, ...), (path, flags, mode))
OPENS(open64, AT_FDCWD, (const char *path, int flags, ...), (path, flags, mode))
OPENS(openat, fd, (int fd, const char *path, int flags, ...), (fd, path, flags, mode))
OPENS(openat64, fd, (int fd, const char *path, int flags, ...), (fd, path, flags, mode))
