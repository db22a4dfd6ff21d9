/* Doorbells (common/doorbell.h) with the bits of the control page (pools/control_shared.h): no wake-up is lost.
 *
 * Both sides have a store buffer, as processors have: what one wrote is seen by the other some time later, in order,
 * unless a fence or an exchange waits for it. FIFO 1 is the frontend's bell, 0 the runtime's futex. A ringer that is
 * killed between taking the flag and ringing takes the ring along (KILL 1): then the bound of the sleep, which is there
 * for that alone, wakes the waiter; without a kill the model has no such bound. FAULT: tests/system/test_spin.sh. */
#ifndef FIFO
#define FIFO 0
#endif
#ifndef KILL
#define KILL 0
#endif
#ifndef FAULT
#define FAULT 0
#endif
#define WORK 3

/* Shared memory, and what is on its way there from the ringer: first the position, then the bit. */
byte position, buffered_position;
bool ready, buffered_ready;
bool sleeping, buffered_sleeping; /* the waiter's store of 1; its other stores may be as late as they like */
byte bell;                        /* the futex word, or the bytes in the FIFO */
bool in_kernel, woken, killed, finished;

inline wake() {
    d_step {
        if
        :: in_kernel -> woken = true
        :: else
        fi
    }
}

active proctype memory()
{
end:
    do
    :: buffered_position != position -> position = buffered_position
    :: buffered_position == position && buffered_ready -> d_step { ready = true; buffered_ready = false }
    :: buffered_sleeping -> d_step { sleeping = true; buffered_sleeping = false }
    od
}

active proctype ringer()
{
    byte done;
    bool was;
    do
    :: done < WORK ->
        done++;
        buffered_position = done;
        if
        :: FAULT == 1 -> ready = true /* the bit may be seen before the work */
        :: else -> buffered_ready = true
        fi;
        if
        :: FAULT == 2 -> skip
        :: else -> (buffered_position == position && !buffered_ready) /* fence (seq_cst) */
        fi;
        if
        :: FAULT == 3 && sleeping ->
            /* rings, and then clears */
            bell++;
            wake();
            sleeping = false
        :: FAULT != 3 && sleeping ->
            d_step { was = sleeping; sleeping = false };
            if
            :: KILL && was -> killed = true; break
            :: was ->
                bell++;
                wake()
            :: else
            fi
        :: !sleeping -> skip
        fi
    :: else -> break
    od;
    (buffered_position == position && !buffered_ready);
    finished = true
}

active proctype waiter()
{
    byte taken, ticket;
    do
    :: ready ->
        /* the bit is taken before the position is read */
        if
        :: FAULT == 4 -> taken = position; ready = false
        :: else -> ready = false; taken = position
        fi
    :: taken == WORK || (killed && taken == position && finished) -> break
    :: else ->
        if
        :: FAULT == 5 -> buffered_sleeping = true; ticket = bell /* the ticket after the flag */
        :: else -> ticket = bell; buffered_sleeping = true
        fi;
        if
        :: FAULT == 6 -> skip
        :: else -> !buffered_sleeping /* fence (seq_cst) */
        fi;
        if
        :: FAULT != 7 && ready -> skip /* the look once more */
        :: else ->
            if
            :: FIFO -> /* poll, which is told of bytes that are there already */
                if
                :: bell > 0 -> bell = 0
                :: killed -> skip
                fi
            :: !FIFO ->
                d_step { in_kernel = (bell == ticket) };
                if
                :: !in_kernel || woken || killed -> skip
                fi;
                d_step { in_kernel = false; woken = false }
            fi
        fi;
        d_step { buffered_sleeping = false; sleeping = false }
    od
}
