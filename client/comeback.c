#include "client/comeback.h"

#include "client/backoff.h"

/* With others at the server mostly an answer comes first; a longer pause would leave places free when there are more.
 */
enum { FAILURES_MOST = 10, FAILURES_BESIDE_OTHERS = 4 };

static uint32_t failures_of(const struct comeback *comeback, size_t flying)
{
    const uint32_t most = flying ? FAILURES_BESIDE_OTHERS : FAILURES_MOST;
    return comeback->failures < most ? comeback->failures : most;
}

static void set_due(struct comeback *comeback, size_t flying, uint64_t now_ns, uint64_t *random)
{
    comeback->due_ns = now_ns + backoff_ns(comeback->hint_ms, failures_of(comeback, flying), random);
}

void comeback_refused(struct comeback *comeback, uint32_t hint_ms, size_t flying, uint64_t now_ns, uint64_t *random)
{
    comeback->hint_ms = hint_ms;
    if (comeback->waiting && !comeback->tried)
        return; /* with others, of which the first has set the time */
    if (comeback->tried)
        comeback->failures = failures_of(comeback, flying) + 1;
    comeback->tried = false;
    set_due(comeback, flying, now_ns, random);
}

uint32_t comeback_try(struct comeback *comeback, size_t flying, uint64_t now_ns, uint64_t *random)
{
    if (comeback->tried)
        comeback->failures = failures_of(comeback, flying) / 2;
    comeback->tried = true;
    comeback->older = flying;
    set_due(comeback, flying, now_ns, random);
    const size_t most = flying && flying < comeback->waiting ? flying : comeback->waiting;
    const size_t some = most >> failures_of(comeback, flying);
    return some ? (uint32_t)some : 1;
}

uint32_t comeback_answered(struct comeback *comeback)
{
    uint32_t some = 1;
    if (comeback->tried && comeback->older > 0)
        comeback->older--;
    else if (comeback->tried)
        some = 2;
    return some < comeback->waiting ? some : comeback->waiting;
}
