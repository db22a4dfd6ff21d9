/* The C library's accept() and recv(), as libzmq finds them in this program: they do what they do there, and tell the
 * gate. ZeroMQ has no place of its own from which a message could be ended before it is whole, and what one connection
 * sends as one message, of a million frames say, is in its memory by then and must be taken before anybody else's.
 * Part of the program alone and of no library, since all of the process gets these. */
#include <dlfcn.h>
#include <errno.h>
#include <sys/socket.h>

#include "frontend/gate.h"

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
NEXT(recv)

static int told(int fd)
{
    if (fd >= 0)
        gate_accepted(fd);
    return fd;
}

CALL int accept(int fd, struct sockaddr *restrict address, socklen_t *restrict size)
{
    return told(find_accept()(fd, address, size));
}

CALL int accept4(int fd, struct sockaddr *restrict address, socklen_t *restrict size, int flags)
{
    return told(find_accept4()(fd, address, size, flags));
}

CALL ssize_t recv(int fd, void *bytes, size_t size, int flags)
{
    const ssize_t n = find_recv()(fd, bytes, size, flags);
    if (n <= 0 || (flags & MSG_PEEK) || gate_read(fd, bytes, (size_t)n))
        return n;
    errno = ECONNRESET;
    return -1;
}
