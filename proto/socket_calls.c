/* The C library's accept(), connect() and recv(), as libzmq finds them in this program: they do what they do there, and
 * tell the gate. ZeroMQ has no place of its own from which a message could be ended before it is whole, and what one
 * connection sends as one message, of a million frames say, is in its memory by then and must be taken before anybody
 * else's. Part of programs alone and of no library, since all of the process gets these. */
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "proto/gate.h"

#define CALL __attribute__((visibility("default")))

/* The next definition of the name: the C library's, or a sanitizer's. Each thread that looks first finds the same. */
#define NEXT(function)                                                                                                 \
    static __typeof__(function) *_Atomic next_##function;                                                              \
    static __typeof__(function) *find_##function(void)                                                                 \
    {                                                                                                                  \
        __typeof__(function) *found = next_##function;                                                                 \
        if (!found)                                                                                                    \
            next_##function = found = (__typeof__(function) *)dlsym(RTLD_NEXT, #function);                             \
        return found;                                                                                                  \
    }
NEXT(accept)
NEXT(accept4)
NEXT(connect)
NEXT(recv)

/* Where libzmq's code lies: other libraries have connections of their own, on which something else is spoken. */
static _Atomic uintptr_t zeromq_begin, zeromq_end;

static int find_zeromq(struct dl_phdr_info *object, size_t size, void *inside)
{
    (void)size;
    for (unsigned i = 0; i < object->dlpi_phnum; i++) {
        const uintptr_t begin = object->dlpi_addr + object->dlpi_phdr[i].p_vaddr;
        if (object->dlpi_phdr[i].p_type != PT_LOAD || (uintptr_t)inside - begin >= object->dlpi_phdr[i].p_memsz)
            continue;
        atomic_store_explicit(&zeromq_end, begin + object->dlpi_phdr[i].p_memsz, memory_order_relaxed);
        atomic_store_explicit(&zeromq_begin, begin, memory_order_release);
        return 1;
    }
    return 0;
}

static bool is_zeromq(const void *caller)
{
    uintptr_t begin = atomic_load_explicit(&zeromq_begin, memory_order_acquire);
    if (!begin) {
        dl_iterate_phdr(find_zeromq, dlsym(RTLD_DEFAULT, "zmq_ctx_new"));
        begin = atomic_load_explicit(&zeromq_begin, memory_order_acquire);
    }
    return (uintptr_t)caller - begin < atomic_load_explicit(&zeromq_end, memory_order_relaxed) - begin;
}

static int told(int fd, const void *caller)
{
    if (fd >= 0 && is_zeromq(caller))
        gate_opened(fd);
    return fd;
}

CALL int accept(int fd, struct sockaddr *restrict address, socklen_t *restrict size)
{
    return told(find_accept()(fd, address, size), __builtin_return_address(0));
}

CALL int accept4(int fd, struct sockaddr *restrict address, socklen_t *restrict size, int flags)
{
    return told(find_accept4()(fd, address, size, flags), __builtin_return_address(0));
}

/* Told before: whoever is connected to may speak at once. */
CALL int connect(int fd, const struct sockaddr *address, socklen_t size)
{
    return find_connect()(told(fd, __builtin_return_address(0)), address, size);
}

CALL ssize_t recv(int fd, void *bytes, size_t size, int flags)
{
    const void *const caller = __builtin_return_address(0);
    const ssize_t n = find_recv()(fd, bytes, size, flags);
    if (n <= 0 || (flags & MSG_PEEK) || !is_zeromq(caller) || gate_read(fd, bytes, (size_t)n))
        return n;
    errno = ECONNRESET;
    return -1;
}
