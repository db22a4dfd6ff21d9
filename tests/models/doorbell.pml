/* Why no wake-up is lost (common/doorbell.h): who sleeps says so, and looks once more; who has work publishes it, and looks
 * whether the other sleeps. Each store waits in a store buffer, as on real processors, until a fence or its time; without the
 * fence between store and look (-DFAULT=1 the ringer's, 2 the sleeper's; 3: the sleeper does not look again) both may miss
 * each other, and spin has to find the sleeper that sleeps for ever. */
#define TURNS 2
#ifndef FAULT
#define FAULT 0
#endif

byte work;              /* as all see it */
bool sleeping;
byte bell;              /* the futex' value, or a byte in the FIFO */
byte buffered_work;     /* the ringer's store buffer: a newer value of `work` */
bool has_work_store, has_sleep_store, buffered_sleeping;

#define FENCE_RINGER atomic { if :: has_work_store -> work = buffered_work; has_work_store = false :: else fi }
#define FENCE_SLEEPER atomic { if :: has_sleep_store -> sleeping = buffered_sleeping; has_sleep_store = false :: else fi }

/* A store buffer drains when it likes. */
active proctype drain()
{
end:
    do
    :: atomic { has_work_store -> work = buffered_work; has_work_store = false }
    :: atomic { has_sleep_store -> sleeping = buffered_sleeping; has_sleep_store = false }
    od
}

active proctype ringer()
{
    byte turn = 1;
    bool seen;
    do
    :: turn <= TURNS ->
        atomic { !has_work_store -> buffered_work = turn; has_work_store = true }
#if FAULT != 1
        FENCE_RINGER;
#endif
        seen = sleeping;
        if :: seen -> bell++ :: else fi;
        turn++
    :: else -> break
    od
}

active proctype sleeper()
{
    byte taken = 0, heard;
    do
    :: work > taken -> taken = work
    :: taken == TURNS -> break
    :: work == taken && taken < TURNS ->
        heard = bell;
        atomic { !has_sleep_store -> buffered_sleeping = true; has_sleep_store = true }
#if FAULT != 2
        FENCE_SLEEPER;
#endif
#if FAULT != 3
        if
        :: work == taken -> bell != heard /* sleeps */
        :: else
        fi;
#else
        bell != heard;
#endif
        atomic { !has_sleep_store -> buffered_sleeping = false; has_sleep_store = true };
        FENCE_SLEEPER
    od
}
