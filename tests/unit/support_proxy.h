/* A TCP proxy in a thread, with the speed of a slow link: for tests of what must live on one. */
#ifndef EXPERTD_TESTS_SUPPORT_PROXY_H
#define EXPERTD_TESTS_SUPPORT_PROXY_H

#include <stdatomic.h>
#include <stddef.h>

struct proxy;

/* Before a server, whose endpoint is "tcp://127.0.0.1:port". Never NULL: a test that cannot start it aborts. */
struct proxy *proxy_start(const char *endpoint);
/* Where clients connect. */
const char *proxy_endpoint(const struct proxy *proxy);
/* Each connection carries so many bytes a second in each direction; 0: nothing any more, as if the peer were gone
 * without a word. Until it is called there is no limit. */
void proxy_set_speed(struct proxy *proxy, size_t bytes_per_second);
/* Connections that it has taken. */
size_t proxy_accepted(const struct proxy *proxy);
void proxy_stop(struct proxy **proxy);

#endif
