/* Makes the n-th call that changes files below a directory fail. Preloaded into a child by tests/it/failing_calls.rs; never
 * part of the library.
 *
 *   MILLSTREAM_FAIL_BELOW   the directory; calls elsewhere are neither counted nor touched
 *   MILLSTREAM_FAIL_NTH     which call fails, from 1; 0 only counts
 *   MILLSTREAM_FAIL_HOW     EIO, ENOSPC, or SHORT: half of a write is done and said to be; other calls then work
 *   MILLSTREAM_FAIL_REPORT  a file outside: "failed <n> <call> <path>" at the call, "calls <count>" at the end
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long calls;
static char below[PATH_MAX];
static size_t below_length;
static long nth;
static int how; /* an errno, or 0 for a short write */
static const char *report_path;

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) {
        abort();
    }
    return found;
}

static void report(const char *text) {
    if (!report_path) {
        return;
    }
    int file = open(report_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (file >= 0) {
        ssize_t written = REAL(write)(file, text, strlen(text));
        (void)written;
        close(file);
    }
}

__attribute__((constructor)) static void begin(void) {
    const char *directory = getenv("MILLSTREAM_FAIL_BELOW");
    const char *number = getenv("MILLSTREAM_FAIL_NTH");
    const char *kind = getenv("MILLSTREAM_FAIL_HOW");
    report_path = getenv("MILLSTREAM_FAIL_REPORT");
    nth = number ? atol(number) : 0;
    how = !kind || !strcmp(kind, "EIO") ? EIO : !strcmp(kind, "ENOSPC") ? ENOSPC : 0;
    if (directory) {
        snprintf(below, sizeof below, "%s/", directory);
        below_length = strlen(below);
    }
}

__attribute__((destructor)) static void end(void) {
    char text[64];
    snprintf(text, sizeof text, "calls %ld\n", atomic_load(&calls));
    report(text);
}

/* Counts a call; says whether it is the one. */
static int is_due(const char *call, const char *path) {
    if (!below_length || strncmp(path, below, below_length)) {
        return 0;
    }
    long number = atomic_fetch_add(&calls, 1) + 1;
    if (number != nth) {
        return 0;
    }
    char text[PATH_MAX + 64];
    snprintf(text, sizeof text, "failed %ld %s %s\n", number, call, path + below_length);
    report(text);
    return 1;
}

static int is_due_at(const char *call, int file) {
    int before = errno;
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = 0;
    errno = before;
    return length > 0 && is_due(call, path);
}

/* Fails, or goes on where only writes can be short. */
#define FAIL_IF_DUE(due)     \
    if ((due) && how) {      \
        errno = how;         \
        return -1;           \
    }

#define FAIL_OR_SHORTEN(due, count)                    \
    if (due) {                                         \
        if (how) {                                     \
            errno = how;                               \
            return -1;                                 \
        }                                              \
        (count) = (count) > 1 ? (count) / 2 : (count); \
    }

ssize_t write(int file, const void *bytes, size_t count) {
    FAIL_OR_SHORTEN(is_due_at("write", file), count);
    return REAL(write)(file, bytes, count);
}

ssize_t pwrite(int file, const void *bytes, size_t count, off_t at) {
    FAIL_OR_SHORTEN(is_due_at("pwrite", file), count);
    return REAL(pwrite)(file, bytes, count, at);
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t at) {
    FAIL_OR_SHORTEN(is_due_at("pwrite", file), count);
    return REAL(pwrite64)(file, bytes, count, at);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    int due = is_due_at("writev", file);
    if (due && !how && count > 0) {
        return REAL(write)(file, parts[0].iov_base, parts[0].iov_len);
    }
    FAIL_IF_DUE(due);
    return REAL(writev)(file, parts, count);
}

int fsync(int file) {
    FAIL_IF_DUE(is_due_at("fsync", file));
    return REAL(fsync)(file);
}

int fdatasync(int file) {
    FAIL_IF_DUE(is_due_at("fdatasync", file));
    return REAL(fdatasync)(file);
}

int sync_file_range(int file, off64_t from, off64_t count, unsigned flags) {
    FAIL_IF_DUE(is_due_at("sync_file_range", file));
    return REAL(sync_file_range)(file, from, count, flags);
}

int ftruncate(int file, off_t length) {
    FAIL_IF_DUE(is_due_at("ftruncate", file));
    return REAL(ftruncate)(file, length);
}

int ftruncate64(int file, off64_t length) {
    FAIL_IF_DUE(is_due_at("ftruncate", file));
    return REAL(ftruncate64)(file, length);
}

int rename(const char *from, const char *to) {
    FAIL_IF_DUE(is_due("rename", to));
    return REAL(rename)(from, to);
}

int link(const char *from, const char *to) {
    FAIL_IF_DUE(is_due("link", to));
    return REAL(link)(from, to);
}
